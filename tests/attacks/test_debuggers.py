"""Profile debug: programs of the sandbox may trace each other, and nobody else; we become nobody's tracer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from syd_pool.linux import landlock

SYD = Path(__file__).resolve().parents[2] / "scripts" / "syd"
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
EPERM = 1
NOPIE = "-mtrace/allow_unsafe_exec_nopie:1"
ALL_ON = ("-msandbox/all:on", "-mallow/all+/***", "-msandbox/fs:off", "-mallow/net+!unnamed")
MODES = {"native": (), "all": ALL_ON}

pytestmark = [
    pytest.mark.attack,
    pytest.mark.skipif(landlock.abi() < 6, reason="needs Landlock's scopes"),
]

HEAD = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
def ptrace(request, pid=0, address=0, data=0):
    return 0 if libc.ptrace(request, pid, address, data) >= 0 else ctypes.get_errno()
TRACEME, PEEKDATA, CONT, ATTACH, DETACH, SEIZE = 0, 2, 7, 16, 17, 0x4206
"""


def run(*options: str, text: str = "", argv: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*argv] if argv else [PYTHON, "-ISc", HEAD + text]
    return subprocess.run(
        [str(SYD), "-poff", NOPIE, *options, "--", *command], capture_output=True, text=True, timeout=60, check=False
    )


REACH = """
child = os.fork()
if child == 0:
    time.sleep(30)
    os._exit(0)
print("child", ptrace(ATTACH, child), os.WSTOPSIG(os.waitpid(child, 0)[1]))
os.kill(child, 9)
tracer, keeper = os.getppid(), int([l for l in open("/proc/self/status") if l.startswith("PPid")][0].split()[1])
for pid in range(2, int(sys.argv[1]) + 50):
    if pid not in (os.getpid(), child):
        for request in ATTACH, SEIZE:
            errno = ptrace(request, pid)
            if errno != 3:
                print("other", errno)
"""


@pytest.mark.parametrize("mode", MODES)
def test_nobody_outside_can_be_traced(mode: str) -> None:
    """Of all processes of the machine, ours among them, only one's own; each refusal is the kernel's."""
    probe = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    done = subprocess.run(
        [str(SYD), "-poff", NOPIE, *MODES[mode], "-pdebug", "--", PYTHON, "-ISc", HEAD + REACH, probe.stdout.strip()],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0] == "child 0 19", done
    assert len(lines) > 5 and set(lines[1:]) == {f"other {EPERM}"}, lines


@pytest.mark.skipif(os.geteuid() != 0, reason="root may trace everybody")
def test_the_control_of_reach() -> None:
    """Without a sandbox the same attach succeeds."""
    with subprocess.Popen(["sleep", "60"]) as victim:
        text = HEAD + f"print(ptrace(SEIZE, {victim.pid}))"
        done = subprocess.run([PYTHON, "-ISc", text], capture_output=True, text=True, check=True)
        inside = run("-pdebug", text=f"print(ptrace(SEIZE, {victim.pid}))")
        victim.kill()
    assert (done.stdout, inside.stdout) == ("0\n", "1\n")


TRACED = """
child = os.fork()
if child == 0:
    print("asked", ptrace(TRACEME), flush=True)
    os.kill(os.getpid(), 19)
    os._exit(7)
_, status = os.waitpid(child, 0)
print("stopped", os.WIFSTOPPED(status) and os.WSTOPSIG(status), flush=True)
if os.WIFSTOPPED(status):
    print("cont", ptrace(CONT, child))
    print("exit", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_child_asks_to_be_traced(mode: str) -> None:
    done = run(*MODES[mode], "-pdebug", text=TRACED)
    assert done.stdout.splitlines() == ["asked 0", "stopped 19", "cont 0", "exit 7"], done


def test_without_the_profile_nothing_is_traced() -> None:
    """The control: ptrace(2) is a no-op that succeeds, as always."""
    done = run(
        text="child = os.fork()\nif not child: time.sleep(9)\nprint(ptrace(ATTACH, child), os.waitpid(child, 1)[0])"
    )
    assert done.stdout == "0 0\n"


ALONE = """
print("first", ptrace(TRACEME), ptrace(TRACEME), flush=True)
os.kill(os.getpid(), 17)
child = os.fork()
if child == 0:
    if os.fork() == 0:
        while os.getppid() == os.getpid() - 1: time.sleep(0.01)
        time.sleep(0.2)
        print("orphan", ptrace(TRACEME), flush=True)
        os.kill(os.getpid(), 17)
        print("on", flush=True)
        os._exit(0)
    os._exit(0)
os.waitpid(child, 0)
time.sleep(1)
print("end")
"""


def test_we_are_nobodys_tracer() -> None:
    """Children of ours that ask are told so and not traced: a signal would stop them for ever."""
    done = run("-pdebug", text=ALONE)
    assert done.stdout.splitlines() == ["first 0 1", "orphan 0", "on", "end"], done


def test_on_a_kernel_without_scopes_nothing_is_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.12 the command could trace us: a no-op, and one line that says so."""
    monkeypatch.setenv("SYD_POOL_TEST_NO_SIGNAL_SCOPE", "1")
    done = run("-pdebug", text="print(ptrace(SEIZE, os.getppid()), ptrace(ATTACH, os.getppid()))")
    assert done.stdout == "0 0\n" and "6.12" in done.stderr
    monkeypatch.delenv("SYD_POOL_TEST_NO_SIGNAL_SCOPE")
    assert run("-pdebug", text="print(ptrace(SEIZE, os.getppid()))").stdout == "1\n", "control: it is the kernel's"


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
@pytest.mark.parametrize("mode", MODES)
def test_strace(mode: str) -> None:
    done = run(
        *MODES[mode], "-pdebug", argv=("strace", "-f", "-e", "trace=exit_group", "sh", "-c", "/bin/true; exit 3")
    )
    assert done.returncode == 3 and "exit_group(0)" in done.stderr and "exit_group(3)" in done.stderr, done.stderr


@pytest.mark.skipif(not shutil.which("gdb") or not shutil.which("cc"), reason="gdb or cc is not installed")
def test_gdb(tmp_path: Path) -> None:
    """A breakpoint, a variable, a change of it."""
    source = tmp_path / "x.c"
    source.write_text("int answer = 41;\nint main(void) { answer++; return answer; }\n")
    program = str(tmp_path / "x")
    subprocess.run(["cc", "-g", "-O0", "-o", program, str(source)], check=True)
    orders = ("break main", "run", "print answer", "set var answer = 6", "continue")
    words = [word for order in orders for word in ("-ex", order)]
    done = run("-pdebug", argv=("gdb", "-q", "-batch", "-nx", *words, program))
    assert "$1 = 41" in done.stdout and "exited with code 07" in done.stdout, done.stdout + done.stderr
