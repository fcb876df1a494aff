"""trace/force_cloexec and trace/force_rand_fd: every call that the manual names, in every mode of answering."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SYD = Path(__file__).resolve().parents[2] / "scripts" / "syd"
PYTHON = os.path.realpath(sys.executable)
MODES = ("send", "two-step", "strict")
BASE = ["-poff", "-mtrace/allow_unsafe_exec_nopie:1", "-mtrace/allow_unsafe_prlimit:1"]

# What the payload knows: c(name, *args) is the plain system call without Python's own O_CLOEXEC
PRELUDE = r"""
import ctypes, errno, fcntl, json, os, resource, select, signal, socket, sys, threading, time
L = ctypes.CDLL(None, use_errno=True)
NR = dict(open=2, openat=257, creat=85, openat2=437, socket=41, accept=43, accept4=288, memfd_create=319)
def c(name, *args):
    fd = L.syscall(NR[name], *args)
    return fd if fd >= 0 else -ctypes.get_errno()
def cloexec(fd): return bool(fcntl.fcntl(fd, fcntl.F_GETFD) & 1)
HOW = (ctypes.c_uint64 * 3)(0, 0, 0)
PATH = ctypes.c_char_p(b"/etc/passwd")
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen(64)
peers = []
def connected():
    s = socket.socket(); s.connect(listener.getsockname()); peers.append(s)
def made():
    "one descriptor of each call"
    connected(); a = c("accept", listener.fileno(), 0, 0)
    connected(); b = c("accept4", listener.fileno(), 0, 0, 0)
    return {"open": c("open", PATH, 0), "openat": c("openat", -100, PATH, 0, 0), "openat2":
            c("openat2", -100, PATH, HOW, 24), "creat": c("creat", ctypes.c_char_p(b"made"), 0o600),
            "socket": c("socket", 2, 1, 0), "unix": c("socket", 1, 2, 0),
            "memfd_create": c("memfd_create", ctypes.c_char_p(b"x"), 0), "accept": a, "accept4": b}
"""


def run(text: str, *rules: str, cwd: Path, mode: str = "send") -> Any:
    """What the payload prints, under -m rules."""
    options = [*BASE, *(f"-m{rule}" for rule in rules)]
    scripts = SYD if mode == "send" else SYD.with_name("run")
    flags = [] if mode == "send" else ["--fd-answers", mode]
    done = subprocess.run(
        [str(scripts), *flags, *options, "--", PYTHON, "-S", "-c", PRELUDE + text],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def natively(text: str, cwd: Path) -> Any:
    """What it prints without a sandbox."""
    command = [PYTHON, "-S", "-c", PRELUDE + text]
    return json.loads(subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("mode", MODES)
def test_close_on_exec_is_forced(tmp_path: Path, mode: str) -> None:
    """Of every call; without the option of none."""
    text = "print(json.dumps({name: fd < 0 or cloexec(fd) for name, fd in made().items()}))"
    found = run(text, "trace/force_cloexec:1", cwd=tmp_path, mode=mode)
    assert len(found) == 9
    assert all(found.values()), found
    assert not any(run(text, cwd=tmp_path, mode=mode).values()), "control"


@pytest.mark.parametrize("mode", MODES)
def test_numbers_are_random(tmp_path: Path, mode: str) -> None:
    """Of every call, below the limit, all different; without the option the lowest."""
    text = "print(json.dumps([made() for _ in range(4)]))"
    found = run(text, "trace/force_rand_fd:1", "rlimit/nofile:5000", cwd=tmp_path, mode=mode)
    numbers = [fd for each in found for fd in each.values()]
    assert len(set(numbers)) == 36
    assert all(3 <= fd < 5000 for fd in numbers)
    for name in found[0]:
        assert max(each[name] for each in found) > 100, name
    assert max(fd for each in run(text, cwd=tmp_path, mode=mode) for fd in each.values()) < 100, "control"


def test_two_runs_differ(tmp_path: Path) -> None:
    """Nothing about the numbers can be known beforehand."""
    text = "print(json.dumps([c('open', PATH, 0) for _ in range(8)]))"
    first, second = (run(text, "trace/force_rand_fd:1", cwd=tmp_path) for _ in range(2))
    assert first != second


@pytest.mark.parametrize("mode", MODES)
def test_the_limit(tmp_path: Path, mode: str) -> None:
    """Every number below the limit is found, none twice, nothing that is open is replaced; then EMFILE."""
    text = """
resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
before = {fd: os.fstat(fd).st_ino for fd in range(24) if fd < 24 and os.path.lexists(f"/proc/self/fd/{fd}") and
          not os.path.samefile(f"/proc/self/fd/{fd}", "/proc/self/fd")}
got = []
while True:
    fd = c("open", PATH, 0)
    if fd < 0: break
    got.append(fd)
more = [c("socket", 2, 1, 0), c("memfd_create", ctypes.c_char_p(b"x"), 0), c("accept", listener.fileno(), 0, 0)]
new = c("open", ctypes.c_char_p(b"never"), 0o101, 0o600)
kept = all(os.fstat(fd).st_ino == ino for fd, ino in before.items())
print(json.dumps([fd, more, new, sorted(got), sorted(before), kept]))
"""
    for rules in (("trace/force_rand_fd:1",), ("trace/force_cloexec:1",)):
        error, more, new, got, before, kept = run(text, *rules, cwd=tmp_path, mode=mode)
        assert error == -24
        assert more == [-24, -24, -24]
        assert new == -24
        assert not (tmp_path / "never").exists()
        assert kept
        assert sorted({*got, *before}) == list(range(24))
        assert not set(got) & set(before)


def test_accept_waits_and_tells(tmp_path: Path) -> None:
    """A blocking accept gives the peer's address; what a signal does to it, and every error, is as natively."""
    text = """
address, length = ctypes.create_string_buffer(128), ctypes.c_int(128)
def later():
    time.sleep(0.2); connected()
thread = threading.Thread(target=later); thread.start()
fd = c("accept4", listener.fileno(), address, ctypes.byref(length), 0o4000); thread.join()
port = int.from_bytes(address.raw[2:4], "big")
out = {"peer": port == peers[-1].getsockname()[1], "length": length.value, "fd": fd > 2,
       "nonblock": bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)}
length = ctypes.c_int(-1); connected()
out["negative"] = c("accept", listener.fileno(), address, ctypes.byref(length))
length = ctypes.c_int(4); connected(); address = ctypes.create_string_buffer(b"z" * 16)
short = c("accept", listener.fileno(), address, ctypes.byref(length))
out["short"] = [short > 2, length.value, address.raw[4:8].decode()]
connected(); out["fault"] = c("accept", listener.fileno(), ctypes.c_void_p(8), ctypes.byref(length))
out["flags"] = c("accept4", listener.fileno(), 0, 0, 1)
out["file"] = c("accept", c("open", PATH, 0), 0, 0)
out["bad"] = c("accept", 4000, 0, 0)
listener.setblocking(False); out["again"] = c("accept", listener.fileno(), 0, 0); listener.setblocking(True)
L.signal.restype = None
HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda n: None)
for name, restart in (("eintr", 1), ("restart", 0)):
    signal.signal(signal.SIGALRM, lambda *a: None)
    L.siginterrupt(14, restart)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    def much_later():
        time.sleep(0.6); connected()
    thread = threading.Thread(target=much_later); thread.start()
    if restart == 0:
        out[name] = c("accept", listener.fileno(), 0, 0) > 2
    else:
        out[name] = c("accept", listener.fileno(), 0, 0)
    thread.join()
print(json.dumps(out))
"""
    native = subprocess.run(
        [PYTHON, "-S", "-c", PRELUDE + text], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    expected = json.loads(native.stdout)
    assert expected["eintr"] == -4
    assert expected["peer"]
    for rules in (("trace/force_cloexec:1",), ("trace/force_rand_fd:1",), ("lock:off",)):
        assert run(text, *rules, cwd=tmp_path) == expected, rules


def test_memfd_and_socket_errors(tmp_path: Path) -> None:
    """As natively."""
    text = """
def memfd(name, flags=0): return c("memfd_create", ctypes.c_char_p(name), flags)
print(json.dumps([memfd(b"n" * 249) > 2, memfd(b"n" * 250), memfd(b"n" * 5000), memfd(b"x", 0x8000),
    c("memfd_create", ctypes.c_void_p(8), 0), c("socket", 77, 1, 0), c("socket", 2, 99, 0), c("socket", 2, 1, 999),
    os.readlink(f"/proc/self/fd/{memfd(b'name', 2)}"),
    bool(fcntl.fcntl(c("socket", 1, 0o4001, 0), fcntl.F_GETFL) & os.O_NONBLOCK)]))
"""
    native = subprocess.run(
        [PYTHON, "-S", "-c", PRELUDE + text], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run(text, "trace/force_cloexec:1", cwd=tmp_path) == json.loads(native.stdout)


def test_a_port_is_free_as_soon_as_its_socket_is_closed(tmp_path: Path) -> None:
    """No worker holds a socket longer than its caller."""
    text = """
port, wrong = 0, 0
for i in range(300):
    fd = c("socket", 2, 1, 0)
    s = socket.socket(fileno=fd)
    try:
        s.bind(("127.0.0.1", port)); port = s.getsockname()[1]; s.listen()
    except OSError:
        wrong += 1
    s.close()
print(json.dumps(wrong))
"""
    assert run(text, "trace/force_rand_fd:1", cwd=tmp_path) == 0


def test_it_may_change_while_the_command_runs(tmp_path: Path) -> None:
    """Both are live: the next call counts, and off is off."""
    text = """
def edit(text): os.stat("/dev/syd/" + text)
def small():
    fds = made(); r = [max(fds.values()) < 60, any(map(cloexec, fds.values()))]
    for fd in fds.values(): os.close(fd)
    return r
out = [small()]; edit("trace/force_cloexec:1"); out.append(small()); edit("trace/force_cloexec:0")
edit("trace/force_rand_fd:1"); out.append(small()); edit("trace/force_rand_fd:0"); out.append(small())
print(json.dumps(out))
"""
    out = run(text, "lock:off", cwd=tmp_path)
    assert out == [[True, False], [True, True], [False, False], [True, False]]


def test_a_file_that_was_written_can_be_executed(tmp_path: Path) -> None:
    """A shell, its redirections and a program that is made and run, under random numbers and close-on-exec."""
    script = "cp /bin/true t && ./t && echo hi >a && cat <a >b && exec 7<b && cat <&7 | sort && : >f1 && : >f2"
    for rules in (["-mtrace/force_rand_fd:1"], ["-prand"], ["-mtrace/force_cloexec:1"]):
        done = subprocess.run(
            [str(SYD), "-poff", *rules, "--", "/bin/sh", "-ec", script],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "hi\n"), done.stderr
