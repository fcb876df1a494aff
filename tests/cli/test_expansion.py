"""The shell of config/expand is confined: it reads and computes, and each thing it must not do it can do without us."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from errno import ETIMEDOUT
from pathlib import Path

import pytest

from syd_pool.cli import expansion
from syd_pool.policy import substitute

SYD = Path(__file__).resolve().parents[2] / "scripts" / "syd"
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable


def syd(*argv: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SYD), "-poff", *argv], capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


def expanded(text: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What the command sees of a variable with this value."""
    return syd("-mconfig/expand:5", f"-msetenv!A={text}", "--", "sh", "-c", 'echo "$A"', cwd=cwd)


def test_a_command_says_what_a_rule_is(tmp_path: Path) -> None:
    """From a file, too; it runs where we were started."""
    (tmp_path / "x.syd-3").write_text("config/expand:5\nsetenv!A=$(pwd) $(cat note) ${A:-$(echo default)}\n")
    (tmp_path / "note").write_text("read\n")
    done = syd("-P", "x.syd-3", "--", "sh", "-c", 'echo "$A"', cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path} read default\n"), done.stderr


ATTACKS = {
    "write": "echo x >proof;",
    "append": "echo x >>there;",
    "make a directory": "mkdir proof;",
    "remove": "rm there && touch proof;",
    "change a mode": "chmod 700 there && touch proof;",
    "make a link": "ln -s x proof;",
    "rename": "mv there proof;",
    "in the background": "(sleep 0.2; echo x >proof) >/dev/null 2>&1 &",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_changes_nothing(attack: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()

    def state() -> dict[str, tuple[int, bytes]]:
        return {p.name: (p.stat().st_mode, p.read_bytes()) for p in place.iterdir() if p.is_file()}

    (place / "there").write_text("x")
    before = state()
    done = expanded(f"$( {ATTACKS[attack]} echo ok)", place)
    assert done.stdout == "ok\n", done.stderr
    time.sleep(0.3 if "background" in attack else 0)
    assert state() == before and not os.path.lexists(place / "proof")
    subprocess.run(["/bin/sh", "-c", ATTACKS[attack]], cwd=place, check=False)  # control
    time.sleep(0.5 if "background" in attack else 0)
    assert state() != before or os.path.lexists(place / "proof")


def test_it_reaches_no_network() -> None:
    text = f"{PYTHON} -ISc \"import socket; socket.create_connection(('127.0.0.1', PORT))\" && echo yes || echo no"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        text = text.replace("PORT", str(listener.getsockname()[1]))
        assert expanded(f"$({text})").stdout == "no\n"
        control = subprocess.run(["/bin/sh", "-c", text], capture_output=True, text=True, check=False)
        assert control.stdout == "yes\n"


def test_it_signals_nobody() -> None:
    """Neither us nor others; it is a process group and a tree of its own."""
    with subprocess.Popen(["sleep", "60"]) as victim:
        try:
            text = f"kill -9 {victim.pid} && echo yes || echo no"
            assert expanded(f"$({text})").stdout == "no\n" and victim.poll() is None
            control = subprocess.run(["/bin/sh", "-c", text], capture_output=True, text=True, check=False)
            assert control.stdout == "yes\n" and victim.wait(5) == -9
        finally:
            victim.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="has no capabilities to lose")
def test_it_has_no_capabilities() -> None:
    assert expanded("$(grep CapEff /proc/self/status | tr -d '\\t')").stdout == "CapEff:0000000000000000\n"


def test_it_ends_in_time_and_leaves_nothing() -> None:
    """Its children, too, whatever session they are in; the command is not started."""
    mark = f"{os.getpid()}.5"
    begun = time.monotonic()
    done = syd("-mconfig/expand:1", f"-msetenv!A=$(setsid sleep 60{mark} & sleep 61{mark})", "--", "echo", "started")
    assert (done.returncode, done.stdout) == (ETIMEDOUT, "") and "longer than 1 s" in done.stderr
    assert time.monotonic() - begun < 10
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in _read(p)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_output_has_an_end() -> None:
    """More than 64 KiB is killed as soon as it is there, and memory has a limit as well."""
    status, output = expansion.run(b"while :; do printf %1000d 1; done", {b"PATH": b"/bin"}, 5.0)
    assert status == substitute.TOO_MUCH and len(output) <= 2 * substitute.MOST
    status, _ = expansion.run(b"ulimit -v; ulimit -n", {b"PATH": b"/bin"}, 5.0)
    assert status == 0
    assert expansion.run(b"ulimit -v; ulimit -n", {b"PATH": b"/bin"}, 5.0)[1] == b"1048576\n256\n"


def test_no_descriptor_and_no_child_is_left() -> None:
    before = len(os.listdir("/proc/self/fd"))
    expansion.run(b"echo x", {}, 5.0)
    expansion.run(b"sleep 9", {b"PATH": b"/bin"}, 0.2)
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_mistake_ends_the_start() -> None:
    """The command never runs with half a rule."""
    done = syd("-mconfig/expand:5", "-mallow/read+/home/$(false)/***", "--", "echo", "started")
    assert done.returncode == 22 and "status 1" in done.stderr and not done.stdout


def test_profile_check_runs_them_too(tmp_path: Path) -> None:
    """As the start would; without it the answer would be another."""
    file = tmp_path / "x.syd-3"
    file.write_text("config/expand:5\nallow/read+/$(echo x)\n")
    check = [sys.executable, "-I", "-S", str(SYD.parent / "launch.py"), "syd-pool", "profile", "check", str(file)]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "1 path rules" in done.stdout, done.stderr
