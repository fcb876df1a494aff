"""The examples of syd(2), syd(5) and sydtutorial(7) about changing a running sandbox, as they stand there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SYD = os.environ.get("SYD_UNDER_TEST", str(ROOT / "scripts" / "syd"))
EXEC = f"{sys.executable} -I -S {ROOT}/scripts/launch.py syd-pool exec"

SEALS = """
test -c /dev/syd/sandbox/write:on && echo "write on"; test -c /dev/syd/lock:on && echo "locked"
test -c /dev/syd/sandbox/read:on && echo "read on" || echo "config rejected after lock"
"""
EXAMPLES = [
    (["-mlock:on"], 'test -c /dev/syd/sandbox/write:on && echo "enabled" || echo "locked out"', "locked out\n"),
    (["-mlock:exec"], SEALS, "write on\nlocked\nconfig rejected after lock\n"),
    (["-mlock:drop"], 'test -c /dev/syd/sandbox/write:on && echo "write on"', "write on\n"),
    (["-mlock:off"], "test -c /dev/syd/sandbox/read? && echo read sandboxing on || echo read sandboxing off",
     "read sandboxing off\n"),
    (["-mlock:off"], "test -c /dev/syd/sandbox/read:on; test -c /dev/syd/sandbox/read? && echo on || echo off", "on\n"),
    (["-mlock:exec"], 'test -c "$(EXEC echo hello world)"; sleep 0.5', "hello world\n"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "script", "expected"), EXAMPLES)
def test_example(options: list[str], script: str, expected: str) -> None:
    """What the manual says it prints."""
    command = [SYD, "-q", "-poff", *options, "sh", "-c", script.replace("EXEC", EXEC)]
    if "EXEC" in script:
        command[3:3] = ["-pP"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout == expected, done.stderr


def test_read_shows_and_does_not_edit() -> None:
    """lock:read: the rules can be read, nothing can be changed."""
    script = "test -c /dev/syd/sandbox/write:on && echo edited; head -c 1 /dev/syd"
    done = subprocess.run(
        [SYD, "-q", "-poff", "-mlock:read", "sh", "-c", script], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "{", done.stderr


@pytest.mark.parametrize("ptrace", [[], ["-mtrace/allow_unsafe_ptrace:1"]])
def test_ghost_ends_with_its_command(ptrace: list[str]) -> None:
    """ghost, with and without ptrace: nothing more is executed, and the run ends as its command does."""
    script = "test -c /dev/syd/ghost && echo ghost; /bin/true || echo none; exit 7"
    command = [SYD, "-q", "-poff", "-mlock:off", *ptrace, "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.returncode) == ("ghost\nnone\n", 7), done.stderr
    assert "ledger" not in done.stderr


def test_a_dump_at_the_start() -> None:
    """-m stat and -m dump print the rules as they are at that place, before the command starts."""
    command = [SYD, "-q", "-poff", "-msandbox/read:on", "-mdump", "-mstat", "sh", "-c", "echo ran"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout == "ran\n" or "access" in done.stderr
    assert '"lock": "unset"' in done.stderr
    assert "lock: unset\n" in done.stderr
