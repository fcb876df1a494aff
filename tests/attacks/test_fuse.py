"""F2, F4 with a real file system that does not answer: whoever asks it waits, as natively, and nobody else does.

What sleeps for it cannot be killed once the request has reached its server, so a worker that was killed may stay
until that server answers or ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from errno import EACCES, EFAULT, EIO
from pathlib import Path

import pytest
from arena import Arena, Identity, Payloads, Runner, is_real_syd

FUSE = Path(__file__).with_name("fuse.py")
PYTHON = "/usr/bin/python3"

pytestmark = [
    pytest.mark.attack,
    pytest.mark.root,
    pytest.mark.skipif(not Path(PYTHON).exists(), reason="needs the system's Python"),
    pytest.mark.skipif(is_real_syd(), reason="about our workers"),
]


@pytest.fixture
def runner(payloads: Payloads, arena: Arena) -> Runner:
    """As root, who may mount; skips where there is no FUSE, with the reason."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/fuse")
    (arena.root / "probe").mkdir()
    done = subprocess.run([sys.executable, FUSE, arena.root / "probe", "true"], capture_output=True, timeout=20)
    if done.returncode:
        pytest.skip(f"FUSE cannot be mounted here: {done.stderr.decode()}")
    return Runner(Identity("root"), payloads)


# One child asks for what does not come, the parent goes on with something else for SECONDS.  Then the server answers.
PROGRAM = r"""
import ctypes, mmap, os, sys, time
there, box, how, count, seconds = *sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5])
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p

def ask():
    if how == "map":
        fd = os.open(there + "/stall-read", os.O_RDONLY)
        at = libc.mmap(None, ctypes.c_size_t(65536), 1, 2, fd, ctypes.c_long(0))
        return ctypes.get_errno() if libc.syscall(4, ctypes.c_void_p(at), ctypes.create_string_buffer(144)) else 0
    try:
        if how == "stat":
            os.stat(there + "/stall-lookup")
        elif how == "open":
            os.close(os.open(there + "/stall-open", os.O_RDONLY))
        elif how == "flush":
            os.open(there + "/stall-flush", os.O_RDONLY)
        elif how == "chdir":
            os.chdir(there + "/stall-lookup/x")
    except OSError as error:
        return error.errno
    return 0

stuck = []
for _ in range(count):
    pid = os.fork()
    if not pid:
        begin = time.monotonic()
        said = ask()
        os.write(1, f"answer {said}\nmilliseconds {int((time.monotonic() - begin) * 1000)}\n".encode())
        os._exit(0)
    stuck.append(pid)
begin, slowest, calls = time.monotonic(), 0.0, 0
while time.monotonic() < begin + seconds:
    at = time.monotonic()
    os.stat(box + "/aaaa")
    os.close(os.open(box + "/aaaa", os.O_RDONLY))
    slowest = max(slowest, time.monotonic() - at)
    calls += 2
os.write(1, f"slowest-ms {int(slowest * 1000)}\ncalls {calls}\n".encode())
if len(sys.argv) > 6:
    with open(there + ".let", "w") as let:
        let.write("x")
for pid in stuck:
    os.waitpid(pid, 0)
print("end")
"""


def stalled(runner: Runner, arena: Arena, how: str, count: int, seconds: float, *more: str, boxed: bool = True):  # type: ignore[no-untyped-def]
    """A run of PROGRAM over a file system that does not answer."""
    there = arena.root / "there"
    there.mkdir(exist_ok=True)
    (arena.root / "there.let").unlink(missing_ok=True)
    command = [PYTHON, "-I", "-S", "-c", PROGRAM, str(there), str(arena.box), how, str(count), str(seconds), *more]
    if boxed:
        command = runner.syd(command, [*arena.rules(), "trace/allow_unsafe_exec_nopie:1"])
    wrapped = [sys.executable, str(FUSE), str(there), *command]
    return runner.native(wrapped, 12, env={**os.environ, "SYD_POOL_STALL_MS": "300"})


@pytest.mark.parametrize("how", ["stat", "open", "map", "flush", "chdir"])
@pytest.mark.parametrize("count", [1, 6])
def test_f2_f4_nobody_else_waits(runner: Runner, arena: Arena, how: str, count: int) -> None:
    """Lookup, open, a page of memory, a close that never end: others' calls go on, and once the server answers so does
    everybody.  The control: natively, who asks waits, too."""
    native = stalled(runner, arena, how, count, 0.5, "let", boxed=False)
    assert native.status == 0, native
    assert how == "flush" or native.number("milliseconds") >= 400, native.out
    outcome = stalled(runner, arena, how, count, 2.5, "let")
    assert outcome.status == 0, outcome
    assert outcome.out.count("answer ") == count and outcome.out.endswith("end\n"), outcome
    assert outcome.number("calls") > 200, outcome.out
    # A worker that sleeps in close(2) looks idle until it is given a call: each costs one caller the time to a kill
    # (stall and two ticks, 500 ms), and who calls again at once may meet them all.
    assert outcome.number("slowest-ms") < (500 * count + 1000 if how == "flush" else 1500), outcome.out
    answers = {int(line.split()[1]) for line in outcome.out.splitlines() if line.startswith("answer ")}
    told = {int(line.split()[1]) for line in native.out.splitlines() if line.startswith("answer ")}
    assert answers <= told | {EIO, EFAULT, EACCES}, outcome.out
