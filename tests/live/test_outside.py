"""cmd/exec runs a command outside the sandbox, for whom the lock names and for nobody else."""

from __future__ import annotations

import os
import time
from errno import ENOENT, EPERM
from pathlib import Path

import pytest
from arena import wait_until
from bench import Bench

US = "\x1f"


def outside(*words: str) -> str:
    """The word of speak.c that asks for a command."""
    return f"stat:/dev/syd/cmd/exec!{US.join(words)}"


def script(bench: Bench, text: str) -> tuple[Path, Path]:
    """A script outside the box, and the file it tells what it found in."""
    told = bench.root / "told"
    made = bench.root / "script"
    made.write_text(f"#!/bin/sh\n{text} > {told}.new; mv {told}.new {told}\n")
    made.chmod(0o755)
    return made, told


def test_it_runs_outside(bench: Bench, speak: Path) -> None:
    """Not traced, not judged, in its own group, at /, with umask 077, no input and no descriptor of ours."""
    status = "grep -E '^(TracerPid|Seccomp|NoNewPrivs):' /proc/self/status"
    text = f"(pwd; umask; readlink /proc/self/fd/0; ls /proc/self/fd | tr '\\n' ' '; echo; {status}; echo \"$@\")"
    made, told = script(bench, text)
    rules = ["lock:off", f"deny/read+{bench.root}/***"]
    bench.run("nothing", [str(speak), outside(str(made), "a b", "c")], 30, rules=rules)
    assert wait_until(told.exists, 5)
    lines = told.read_text().split("\n")
    assert lines[:3] == ["/", "0077", "/dev/null"]
    assert set(lines[3].split()) <= {"0", "1", "2", "3"}  # 3 is ls's own
    assert lines[4:8] == ["TracerPid:\t0", "NoNewPrivs:\t0", "Seccomp:\t0", "a b c"]


def test_it_outlives_the_run(bench: Bench, speak: Path) -> None:
    """What is started outside is not killed with the sandbox, and syd_exec does not stay."""
    made, told = script(bench, "(sleep 1.5; echo late)")
    with bench.start("nothing", [str(speak), outside(str(made)), "wait:100"], rules=["lock:exec"]) as run:
        run.running.line("wait")
        deadline = time.monotonic() + 10
        while run.processes("syd_main") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not told.exists()
        assert wait_until(told.exists, 6)
    assert told.read_text() == "late\n"
    assert not _living("syd_exec")


def _living(comm: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                status = Path(f"/proc/{name}/stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if f"({comm})" in status and f" {os.getpid()} " in status:
                found.append(int(name))
    return found


@pytest.mark.parametrize(("state", "who", "said"), [
    ("off", "stat", 0), ("off", "fork", 0), ("exec", "stat", 0), ("exec", "fork", ENOENT), ("drop", "stat", EPERM),
    ("on", "stat", ENOENT), ("read", "stat", ENOENT), ("ipc", "stat", ENOENT)])  # fmt: skip
def test_who_may(bench: Bench, speak: Path, state: str, who: str, said: int) -> None:
    """Whom the lock lets edit, and in `drop` nobody."""
    made, told = script(bench, "echo ran")
    word = f"{who}:" + outside(str(made)).split(":", 1)[1]
    outcome, _ = bench.run("nothing", [str(speak), word], 30, rules=[f"lock:{state}"])
    assert outcome.out.strip().endswith(f" {said}"), outcome.out
    assert wait_until(told.exists, 3 if said == 0 else 0.3) == (said == 0)


def test_a_command_that_cannot_run(bench: Bench, speak: Path) -> None:
    """The errno of its exec is the answer."""
    text = bench.root / "text"
    text.write_text("no program")
    words = [outside("/nonexistent"), outside("nosuch-program"), outside(str(text)), outside("true")]
    outcome, _ = bench.run("nothing", [str(speak), *words], 30, rules=["lock:off"])
    assert [line.rsplit(" ", 1)[1] for line in outcome.out.splitlines()] == ["2", "2", "13", "0"]


def test_after_locking_nothing_more(bench: Bench, speak: Path) -> None:
    """lock:drop and lock:on take it away; syd_exec ends with the lock."""
    words = ["stat:/dev/syd/lock:drop", outside("true"), "stat:/dev/syd/lock:on", outside("true"), "wait:700"]
    with bench.start("nothing", [str(speak), *words], rules=["lock:off"]) as run:
        run.running.line("wait")
        outcome = run.finish(30)
    assert [line.rsplit(" ", 1)[1] for line in outcome.out.splitlines()] == ["0", str(EPERM), "0", str(ENOENT), "0"]
    assert not _living("syd_exec")
