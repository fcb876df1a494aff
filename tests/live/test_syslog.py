"""syslog(2) from inside: the sandbox's own log for who may see it, and never the host's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from syd_pool.shm import logring

SYD = Path(__file__).resolve().parents[2] / "scripts" / "syd"
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
SAFE = "-mtrace/allow_safe_syslog:1"

PROGRAM = """
import ctypes, os, sys, time
klogctl = ctypes.CDLL(None, use_errno=True).klogctl
def ask(action, size=0, room=True):
    buffer = ctypes.create_string_buffer(size or 1)
    n = klogctl(action, buffer if room else None, size)
    return (-ctypes.get_errno(), b"") if n < 0 else (n, buffer.raw[:n])
def wait():
    try:
        os.mkdir("/srv/syd-pool-no")
    except PermissionError:
        pass
    for _ in range(200):
        if ask(3, 1 << 20)[1].count(b"mkdir"):
            break
        time.sleep(0.01)
"""


def run(text: str, *options: str, env: dict[str, str] | None = None) -> list[str]:
    done = subprocess.run(
        [SYD, "-poff", "-mtrace/allow_unsafe_exec_nopie:1", "-msandbox/mkdir:on", *options, "--", PYTHON, "-ISc",
         PROGRAM + text],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_denial_can_be_read_inside() -> None:
    """In the kernel's own form, as dmesg(1) takes it apart."""
    (line,) = run("wait(); print(ask(3, 1 << 20)[1].decode(), end='')", SAFE)
    assert re.fullmatch(r'<4>\[ *\d+\.\d{6}\] \{"id":.*"cap":"mkdir".*\}', line)


def test_actions() -> None:
    """SIZE_BUFFER, READ_ALL twice, CLEAR, READ of what is new, and what is refused with syslog(2)'s errnos."""
    text = """
wait()
print(ask(10)[0], ask(0)[0], ask(1)[0])
all = ask(3, 1 << 20)
print(all[0] == len(all[1]) > 0, ask(3, 1 << 20) == all, ask(9)[0] == all[0], ask(3, 10)[0])
print(ask(2, 1 << 20) == all, ask(2, 1 << 20)[0], ask(9)[0])
print(ask(4, 1 << 20) == all, ask(3, 1 << 20)[0], ask(5)[0])
print(ask(6)[0], ask(8)[0], ask(11)[0], ask(3, 100, False)[0], klogctl(3, 8, 100), klogctl(3, None, -1))
"""
    found = run(text, SAFE)
    assert found[:4] == ["262144 0 0", "True True True 0", "True 0 0", "True 0 0"]
    assert found[4] == "-1 -1 -22 -22 0 -1"
    assert run("print(ask(10)[0])", SAFE, env={"SYD_LOG_BUF_LEN": "64K"}) == ["65536"]


BOTH = """
print(ask(10)[0], flush=True)
child = os.fork()
if child == 0:
    print(ask(10)[0], flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize(
    ("options", "own", "childs"),
    [
        ((), -1, -1),
        (("-mlock:off",), -1, -1),
        (("-mlock:exec",), 262144, -1),
        (("-mlock:exec", SAFE), 262144, 262144),
        ((SAFE,), 262144, 262144),
    ],
)
def test_who_may_read(options: tuple[str, ...], own: int, childs: int) -> None:
    """Without the option only the command itself, and only while the lock is `exec`."""
    assert run(BOTH, *options) == [str(own), str(childs)]


def test_the_ring_keeps_the_last_lines() -> None:
    """Round and round: whole lines, the newest, never a torn one."""
    ring = logring.create(300)
    assert logring.read(ring, 0, 1000) == b""
    for number in range(100):
        logring.append(ring, number % 8, b"line %d of\nmany\n" % number)
        lines = logring.read(ring, 0, 1000).split(b"\n")[:-1]
        assert lines[-1].endswith(b"] line %d of many" % number)
        assert all(re.fullmatch(rb"<\d>\[ *\d+\.\d{6}\] line \d+ of many", line) for line in lines)
        assert len(lines) == min(number + 1, len(lines)) and sum(map(len, lines)) + len(lines) <= 300
    before = logring.total(ring)
    logring.append(ring, 3, b"after")
    assert (
        logring.read(ring, before, 1000).endswith(b"] after\n") and logring.read(ring, before, 1000).count(b"\n") == 1
    )
    assert logring.read(ring, 0, 50).count(b"\n") == 1
    logring.append(ring, 3, b"x" * 1000)
    assert len(logring.read(ring, before, 1000)) <= 300
