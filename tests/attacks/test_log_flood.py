"""F7: a program that is denied a hundred thousand things with hostile names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SYD = os.environ.get("SYD_UNDER_TEST", str(Path(__file__).resolve().parents[2] / "scripts" / "syd"))
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
ANY_NAME = "-mtrace/allow_unsafe_filename:1"
OPTIONS = ["-poff", "-msandbox/mkdir:on", "-mallow/mkdir+/tmp/***", "-mtrace/allow_unsafe_exec_nopie:1", ANY_NAME]
CALLS = """
import os, time
name = {name!r}
def run(path, count):
    start = time.perf_counter()
    for _ in range(count):
        try: os.mkdir(path)
        except OSError: pass
    return (time.perf_counter() - start) / count
run(b"/tmp/" + name, 500)  # the first one makes it: all others find it there
allowed = min(run(b"/tmp/" + name, 2000) for _ in range(3))
denied = min(run(b"/srv/" + name, {count} // 5) for _ in range(5))
os.rmdir(b"/tmp/" + name)
print(allowed, denied)
"""
NAME = b'\n{"ctx":"forged"}\n\x1b[2J\xff*'


@pytest.mark.attack
@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_f7_a_flood_of_denials(tmp_path: Path, count: int) -> None:
    """Every denial is written or counted, no line is forged, the log stays small and the caller is not slowed down."""
    log = tmp_path / "log"
    with log.open("wb") as out:
        env = {**os.environ, "SYD_LOG_FD": str(out.fileno()), "SYD_QUIET_TTY": "1"}
        start = time.monotonic()
        done = subprocess.run(
            [SYD, *OPTIONS, "--", PYTHON, "-I", "-S", "-c", CALLS.format(name=NAME, count=count)],
            env=env, pass_fds=[out.fileno()], capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        took = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    assert "forged" not in {line["ctx"] for line in lines}
    denials = [line for line in lines if line["ctx"] == "access"]
    counted = sum(line["count"] for line in lines if line["ctx"] == "log")
    assert len(denials) + counted == count // 5 * 5
    assert len(lines) < 500 + 60 * took
    assert all(line["rule"] == "default/mkdir:deny" for line in denials)
    assert denials[0]["path"] == (b"/srv/" + NAME).hex()
    allowed, denied = (float(word) for word in done.stdout.split())
    assert denied < 2 * allowed, f"{denied * 1e6:.0f} us against {allowed * 1e6:.0f}"


def test_the_tip_grants_what_was_denied_and_nothing_else(tmp_path: Path) -> None:
    """The rule that `tip` names, given back, lets the same call through; a name with wildcards stays a name."""
    odd = tmp_path / "a*[b]?\\c$d"
    odd.write_text("x")
    (tmp_path / "abb?").write_text("x")

    def read(path: Path, *rules: str) -> subprocess.CompletedProcess[str]:
        command = [
            SYD,
            "-poff",
            ANY_NAME,
            "-msandbox/read:on",
            "-mallow/read+/usr/***",
            "-mallow/read+/etc/ld.so.cache",
        ]
        command += ["-mallow/read+/etc/ld.so.cache", *(f"-m{rule}" for rule in rules), "--", "/bin/cat", str(path)]
        env = {**os.environ, "SYD_QUIET_TTY": "1"}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)

    denied = read(odd)
    assert denied.returncode == 1
    (line,) = [json.loads(line) for line in denied.stderr.splitlines() if line.startswith("{")]
    rule = line["tip"].split("`")[1].rstrip("'")
    assert read(odd, rule).stdout == "x"
    assert read(tmp_path / "abb?", rule).returncode == 1


@pytest.mark.parametrize(("options", "shown"), [((), False), (("-mlog/verbose:1",), True), (("-v",), True)])
def test_arguments_are_logged_when_asked_for(options: tuple[str, ...], shown: bool) -> None:
    """log/verbose:1 and -v add the arguments of the call."""
    command = [SYD, "-poff", *options, "-msandbox/mkdir:on", "--", "/bin/mkdir", "/srv/no"]
    env = {**os.environ, "SYD_QUIET_TTY": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    denials = [line for line in lines if line["ctx"] == "access"]
    assert len(denials) == 1, done.stderr
    assert ("args" in denials[0]) is shown


NAMES = """
import ctypes
prctl = ctypes.CDLL(None).prctl
prctl(15, b'first')
prctl(15, b'a\\x01b')
print(prctl(15, 8), open('/proc/self/comm').read())
"""


@pytest.mark.parametrize(("level", "logged"), [(1, []), (2, ["first", "610162"]), (3, ["first", "610162"])])
def test_names_and_requests_are_logged_when_asked_for(level: int, logged: list[str]) -> None:
    """log/verbose:2 shows who names himself, which works as ever; 3 adds what the kernel said of a denied call."""
    command = [SYD, "-poff", f"-mlog/verbose:{level}", "-mtrace/allow_unsafe_exec_nopie:1", "-msandbox/mkdir:on", "--"]
    env = {**os.environ, "SYD_QUIET_TTY": "1", "SYD_LOG": "info"}
    done = subprocess.run([*command, PYTHON, "-ISc", NAMES], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["-1", "a\x01b"], done.stderr
    names = [json.loads(line) for line in done.stderr.splitlines() if '"ctx":"name"' in line]
    assert [line["name"] for line in names] == logged[: len(names)] and len(names) == len(logged)
    done = subprocess.run([*command, "/bin/mkdir", "/srv/no"], env=env, capture_output=True, text=True, timeout=60)
    (denied,) = [json.loads(line) for line in done.stderr.splitlines() if '"ctx":"access"' in line]
    assert ("req" in denied) is (level == 3)
