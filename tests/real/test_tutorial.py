"""What a reader of sydtutorial(7) and syd(5) tries first, made anew and run.

What is not built here is refused by name instead, and the command does not run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from errno import EACCES, EOPNOTSUPP
from pathlib import Path

import pytest

from syd_pool.policy import Ruleset
from syd_pool.policy.errors import BadRule

ROOT = Path(__file__).resolve().parents[2]
SYD = ROOT / "scripts" / "syd"
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
W, OFF = "-msandbox/write:on", "-poff"
LOCKED = "test -c /dev/syd/sandbox/write:on || echo locked out"
EDITS = """test -c /dev/syd/sandbox/write:on && echo on
test -c /dev/syd/lock:on; test -c /dev/syd/sandbox/read:on || echo no"""
ASKS = """test -c /dev/syd/sandbox/read:on; test -c '/dev/syd/sandbox/read?' && echo on
test -c /dev/syd/sandbox/read:off; test -c '/dev/syd/sandbox/read?' || echo off"""
CALL = "import socket; socket.create_connection(('127.0.0.1', 81))"
NOPIE, NET, LOOPBACK = "-mtrace/allow_unsafe_exec_nopie:1", "-msandbox/net:on", "-mallow/net/connect+loopback!80"
EXEC, USR = "-msandbox/exec:on", "-mallow/exec+/usr/***"


def syd(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command line of syd; {d} is a directory of one's own."""
    env = {**os.environ, "SYD_QUIET_TTY": "1"}
    command = [SYD, *(word.replace("{d}", str(place)) for word in words)]
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=60)


# name -> (command line, status, what is said)
TABLE: dict[str, tuple[list[str], int, str]] = {
    "nothing is judged": ([OFF, "--", "echo", "hello"], 0, "hello"),
    "everything is refused by default": (["--", "true"], EACCES, "Permission denied"),
    "a directory may be written": ([OFF, W, "-mallow/write+{d}/***", "--", "touch", "{d}/hello"], 0, ""),
    "the last match wins": (
        [OFF, W, "-mallow/write+{d}/***", "-mdeny/write+{d}/secret/***", "--", "touch", "{d}/secret/plans"],
        1, "configure `allow/write+{d}/secret/plans'",
    ),
    "the other way round": (
        [OFF, W, "-mdeny/write+{d}/secret/***", "-mallow/write+{d}/***", "--", "touch", "{d}/secret/plans"], 0, "",
    ),
    "without a profile exec is on": ([W, "--", "touch", "{d}/hello"], EACCES, "Permission denied"),
    "a file of rules": ([OFF, "-P", "{d}/example.syd-3", "--", "touch", "{d}/file"], 0, ""),
    "locked": ([OFF, "-mlock:on", "--", "sh", "-c", LOCKED], 0, "locked out"),
    "the first process may": ([OFF, "-mlock:exec", "--", "sh", "-c", EDITS], 0, "on\nno"),
    "only tighter": (
        [OFF, "-mlock:drop", "--", "sh", "-c",
         "test -c /dev/syd/sandbox/write:on && echo on; test -c /dev/syd/sandbox/write:off || echo no"], 0, "on\nno",
    ),
    "queries": ([OFF, "-mlock:off", "--", "sh", "-c", ASKS], 0, "on\noff"),
    "paths are hidden": (
        [OFF, "-msandbox/stat:on", "-mallow/stat+/***", "-mdeny/stat+/etc/shadow", "--", "ls", "/etc/shadow"],
        2, "No such file or directory",
    ),
    "an address is refused": (
        [OFF, NOPIE, NET, LOOPBACK, "--", PYTHON, "-S", "-c", CALL],
        1, "configure `allow/net/connect+127.0.0.1!81'",
    ),
    "a program is refused": (
        [OFF, EXEC, USR, "--", "{d}/program", "hello"], EACCES, "allow/exec+{d}/program'",
    ),
    "after user a profile that is not built": (["-puser", "-pimmutable", "--", "ls", "/"], EOPNOTSUPP, "immutable"),
    "a mask": ([OFF, "-mmask+/etc/hostname", "-mallow/read+/***", "--", "cat", "/etc/hostname"], 0, ""),
    "a time limit": ([OFF, "-t", "1s", "--", "sleep", "30"], 124, ""),
}  # fmt: skip
BUILT_LATER = {"after user a profile that is not built"}


def supported(words: list[str]) -> bool:
    """Are all rules and profiles of a command line built by now?"""
    rules = Ruleset()
    try:
        for word in words:
            if word.startswith("-m"):
                rules.apply(word[2:])
            elif word.startswith("-p"):
                rules.profile(word[2:])
    except BadRule as error:
        return error.errno != EOPNOTSUPP
    return True


@pytest.mark.parametrize("name", TABLE)
def test_of_the_tutorial(name: str, tmp_path: Path) -> None:
    """The status and what is said are those of the manual, or EOPNOTSUPP with the name of what is missing."""
    words, status, said = TABLE[name]
    if name in BUILT_LATER and supported(words):
        pytest.skip("built by now: give the example the manual's result")
    place = tmp_path.resolve()
    (place / "secret").mkdir()
    (place / "example.syd-3").write_text(f"# an example\nsandbox/write:on\n\nallow/write+{place}/***\n")
    (place / "program").write_bytes(Path("/bin/echo").read_bytes())
    (place / "program").chmod(0o755)
    done = syd(place, *words)
    assert done.returncode == status, done.stderr
    assert said.replace("{d}", str(place)) in done.stdout + done.stderr


# A time server, as the example of syd(5) confines it; what is not built is named apart.
NTPD = """
# switches
sandbox/read,stat,write,exec,net:on
trace/allow_unsafe_time:1

# this machine's port, other machines' clocks and names
allow/net/bind+loopback!123
allow/net/connect+any!53,123
allow/net/connect+any!65535
allow/net/connect+/dev/log
allow/net/bind+0.0.0.0!0
allow/net/connect+0.0.0.0!0
allow/net/bind+/run/ntpd.sock
allow/net/bind+/var/run/ntpd.sock
allow/write+/run/ntpd.sock
allow/write+/var/run/ntpd.sock

# what it reads, keeps and runs
deny/read,stat,write+/proc/1/***
allow/read,stat+/dev/urandom
allow/read,stat+/etc/hosts
allow/read,stat+/etc/ntpd.conf
allow/read,stat+/etc/passwd
allow/stat+/var/empty
allow/write+/dev/null
allow/exec+/usr/**/bin/openntpd*
allow/write+/var/db/ntpd.drift
lock:on
"""
UNBUILT_OF_NTPD = (
    "unshare/mount,uts,pid,ipc,cgroup:1",
    "bind+/etc:/etc:ro,nodev,noexec,nosuid,noatime",
)


def test_the_example_of_the_manual(tmp_path: Path) -> None:
    """The rules decide as they read; after lock:on there are no more; lines that are not built are refused by name."""
    path = tmp_path.resolve() / "ntpd.syd-3"
    path.write_text(NTPD)
    rules = Ruleset()
    rules.load(str(path))
    assert rules.lock == "on"
    for category, subject, allowed in (
        ("net/bind", b"127.0.0.1!123", True), ("net/bind", b"127.0.0.1!124", False),
        ("net/bind", b"10.0.0.1!123", False),
        ("net/connect", b"192.0.2.1!53", True), ("net/connect", b"192.0.2.1!80", False),
        ("net/connect", b"::1!123", True),
        ("net/connect", b"/dev/log", True), ("read", b"/etc/hosts", True), ("read", b"/etc/shadow", False),
        ("read", b"/proc/1/environ", False), ("exec", b"/usr/local/bin/openntpd", True), ("exec", b"/bin/sh", False),
        ("write", b"/var/db/ntpd.drift", True), ("write", b"/etc/ntpd.conf", False),
    ):  # fmt: skip
        assert (rules.verdicts[category][subject] == 0) is allowed, (category, subject)


@pytest.mark.parametrize("line", UNBUILT_OF_NTPD)
def test_lines_of_the_example_that_are_not_built(line: str, tmp_path: Path) -> None:
    """They end the start; the command does not run unprotected."""
    try:
        Ruleset().apply(line)
    except BadRule as error:
        refused = error.errno
    else:
        pytest.skip("built by now")
    assert refused == EOPNOTSUPP
    done = syd(tmp_path, OFF, f"-m{line}", "--", "touch", "ran")
    assert done.returncode == EOPNOTSUPP and not (tmp_path / "ran").exists()
