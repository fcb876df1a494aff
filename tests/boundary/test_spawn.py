"""What stands around the command, and what happens when a part of it cannot be put up."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

from syd_pool.boundary import keeper, spawn
from syd_pool.cli.config import RunConfig
from syd_pool.linux import libc

sys.path.insert(0, os.path.dirname(__file__))
from harness import Rules, run

# The one of the system: an ordinary user may not reach ours
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable


def script(text: str, **more) -> tuple[int, str]:
    """(exit code, output) of a Python program behind the filters."""
    status, output, failure = run([PYTHON, "-I", "-S", "-c", text], **more)
    assert failure is None, failure
    return os.waitstatus_to_exitcode(status), output.decode()


# --- programs run --------------------------------------------------------------------------------

PYTHON_PROGRAM = """
import asyncio, subprocess, threading
asyncio.run(asyncio.sleep(0))
thread = threading.Thread(target=print)
thread.start(), thread.join()
subprocess.check_call("true")
"""
PROGRAMS = {
    "bash": ["bash", "-c", "set -e; x=$(echo a | tr a b); trap 'true' EXIT; sleep 0.01 & wait; echo $x"],
    "git": ["sh", "-ec", "git init -q; >f; git add f; git -c user.name=a -c user.email=a commit -qm x"],
    "gcc": ["sh", "-ec", "echo 'int main(){return 0;}' >a.c; gcc -O1 a.c -o a; ./a"],
    "python3": ["python3", "-c", PYTHON_PROGRAM],
    "node": ["node", "-e", "require('child_process').execSync('true')"],
    "go": ["go", "version"],
    "tar": ["sh", "-ec", "mkdir d; touch d/f; tar cf - d | tar tf - >l; cp -a d e; rm -r d e"],
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run_behind_the_filters(program: str, tmp_path) -> None:
    """The guards break nothing that people run."""
    argv = PROGRAMS[program]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    rules = Rules("trace/allow_unsafe_exec_memory") if program == "node" else None  # a JIT compiler
    status, output, failure = run(argv, rules, cwd=str(tmp_path))
    assert (status, failure) == (0, None), output


# --- descriptors ---------------------------------------------------------------------------------


def test_the_command_gets_no_descriptor_above_2() -> None:
    """attacks.md D1, D7: neither inherited ones, nor the listener, nor our sockets."""
    extra = os.open("/tmp", os.O_RDONLY)
    os.set_inheritable(extra, True)
    try:
        code, output = script("import os; print([f for f in range(1024) if os.path.exists(f'/proc/self/fd/{f}')])")
        assert (code, output) == (0, "[0, 1, 2]\n")
        listed = subprocess.run([PYTHON, "-ISc", f"import os; os.fstat({extra})"], close_fds=False, capture_output=True)
        assert listed.returncode == 0  # control: natively it is inherited
    finally:
        os.close(extra)


def test_one_kept_on_purpose_is_inherited() -> None:
    extra = os.open("/etc", os.O_RDONLY)
    os.set_inheritable(extra, True)
    try:
        assert script(f"import os; os.fstat({extra})", keep=[extra])[0] == 0
    finally:
        os.close(extra)


CLOSED = """
import os, sys
sys.path[:0] = {path!r}
from syd_pool.boundary import keeper
from syd_pool.linux import libc
from harness import run
sys.stdin = sys.stdout = sys.stderr = None
os.closerange(0, 3)
if {hold}: keeper.hold_standard_fds()
numbers, take = [], libc.pidfd_getfd
libc.pidfd_getfd = lambda pidfd, number: (numbers.append(number), take(pidfd, number))[1]
status, _, failure = run([{python!r}, "-ISc",
    "import os; os._exit(sum(1 << f for f in range(3) if os.path.exists(f'/proc/self/fd/{{f}}')))"],
    capture=False)
os._exit(99 if failure else os.waitstatus_to_exitcode(status) or (50 if numbers[0] <= 2 else 0))
"""


def need_our_python() -> None:
    """These two run our own package inside, with the interpreter that has pyseccomp."""
    if run([sys.executable, "-c", ""])[2] is not None:
        pytest.skip(f"this user may not execute {sys.executable}")


def test_a_closed_standard_descriptor_never_holds_the_listener() -> None:
    """attacks.md G13: held with /dev/null meanwhile, closed for the command as it would be natively."""
    need_our_python()
    path = [os.path.dirname(__file__), os.getcwd()]
    held = CLOSED.format(path=path, python=PYTHON, hold=True)
    assert subprocess.run([sys.executable, "-c", held], check=False).returncode == 0
    free = CLOSED.format(path=path, python=PYTHON, hold=False)  # control: it would
    assert subprocess.run([sys.executable, "-c", free], check=False).returncode == 50


# --- the state the command finds -----------------------------------------------------------------


def test_signals_are_as_they_were_before_python() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        status, output, _ = run(["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    assert output == b"SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n", status


def test_a_signal_ignored_at_the_start_stays_ignored(monkeypatch) -> None:
    """nohup(1)."""
    monkeypatch.setattr(keeper, "IGNORED", frozenset({signal.SIGHUP}))
    _, output, _ = run(["grep", "SigIgn", "/proc/self/status"])
    assert int(output.split()[1], 16) == 1 << signal.SIGHUP - 1


def test_limits_environment_and_name() -> None:
    limit = (resource.RLIMIT_CORE, 0, 0)
    status, output, _ = run(
        ["sh", "-c", "echo $0; ulimit -c; env"],
        alias=b"other",
        env={"A": "b", "PATH": os.defpath},
        limits=[limit],
    )
    assert status == 0
    assert output.split()[:2] == [b"other", b"0"]
    assert b"A=b" in output and b"HOME" not in output


def test_no_new_privileges_and_two_filters() -> None:
    with open("/proc/self/status") as own:
        before = sum(int(line.split()[1]) for line in own if line.startswith("Seccomp_filters"))
    _, output, _ = run(["grep", "-E", "NoNewPrivs|Seccomp", "/proc/self/status"])
    assert output.split() == [
        b"NoNewPrivs:",
        b"1",
        b"Seccomp:",
        b"2",
        b"Seccomp_filters:",
        b"%d" % (before + 2),
    ]


def test_it_cannot_signal_us_but_its_own() -> None:
    """attacks.md F8: Landlock's signal scope; the control sends the same signal without it."""
    victim = subprocess.Popen(["sleep", "60"])
    text = f"import os; os.kill({victim.pid}, 15)"
    own = "import os, time; p = os.fork(); p or time.sleep(9); os.kill(p, 9); os._exit(os.waitpid(p, 0)[1])"
    try:
        code, output = script(text)
        assert code == 1 and "PermissionError" in output
        assert victim.poll() is None
        assert script(own)[0] == 9
        assert subprocess.run([PYTHON, "-ISc", text], check=False).returncode == 0
        assert victim.wait(5) == -15
    finally:
        victim.kill()
        victim.wait()


def test_kill_minus_one_stays_inside() -> None:
    victim = subprocess.Popen(["sleep", "60"])
    try:
        script("import os\ntry: os.kill(-1, 15)\nexcept OSError: pass")
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


# --- the kernel agrees with the evaluator ---------------------------------------------------------

INT80 = r"""
#include <unistd.h>
int main(void) { long r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory"); return r > 0 ? 0 : 1; }
"""


def test_other_abis_die(tmp_path) -> None:
    """attacks.md E2: int 0x80 is SIGSYS; the control shows that it works natively here."""
    source = tmp_path / "int80.c"
    source.write_text(INT80)
    program = str(tmp_path / "int80")
    subprocess.run(["gcc", "-o", program, str(source)], check=True)
    if subprocess.run([program], check=False).returncode != 0:
        pytest.skip("no IA32 emulation in this kernel")
    status, _, failure = run([program])
    assert failure is None
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS


CALLS = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
words = [ctypes.c_ulong(int(w, 0)) for w in sys.argv[1:]]
print(libc.syscall(*words), ctypes.get_errno())
"""


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["317", "1", "0", "0"], f"-1 {errno.EINVAL}"),
        (["157", "22", "1"], f"-1 {errno.EINVAL}"),
        (["157", "0x100000016", "1"], f"-1 {errno.EINVAL}"),
        (["425", "8", "0"], f"-1 {errno.ENOSYS}"),
        (["435", "0", "0"], f"-1 {errno.ENOSYS}"),
        (["16", "0", "0x5412", "0"], f"-1 {errno.EACCES}"),
        (["16", "0", "0x100005412", "0"], f"-1 {errno.EACCES}"),
        (["272", "0x10000000"], f"-1 {errno.EPERM}"),
        (["272", "0xf00000010000000"], f"-1 {errno.EPERM}"),
        (["1000"], f"-1 {errno.ENOSYS}"),
        (["302", "0", "7", "0", "0"], "0 0"),
    ],
)
def test_the_kernel_refuses_what_the_rules_refuse(words: list[str], answer: str) -> None:
    status, output, _ = run([PYTHON, "-ISc", CALLS, *words])
    assert (status, output.decode().strip()) == (0, answer)


def test_a_lifted_guard_is_native() -> None:
    _, output, _ = run([PYTHON, "-ISc", CALLS, "425", "8", "0"], Rules("trace/allow_unsafe_uring"))
    assert output.decode().strip() != f"-1 {errno.ENOSYS}"


# --- when it cannot start ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "want"),
    [
        (["nonexistent-command"], errno.ENOENT),
        (["/nonexistent/command"], errno.ENOENT),
        (["/etc/passwd"], errno.EACCES),
        (["/etc/passwd/x"], errno.ENOTDIR),
        (["/"], errno.EACCES),
        ([""], errno.ENOENT),
    ],
)
def test_a_failed_exec_is_reported_with_its_errno(argv: list[str], want: int) -> None:
    status, output, failure = run(argv)
    assert failure is not None
    assert (failure.errno, failure.reason) == (want, "exec")
    assert os.waitstatus_to_exitcode(status) == want
    assert output == b""  # it is ours to say, once


def test_an_empty_file_is_enoexec_and_no_shell_runs_it(tmp_path) -> None:
    file = tmp_path / "empty"
    file.write_text("")
    file.chmod(0o755)
    _, _, failure = run([str(file)])
    assert failure is not None and failure.errno == errno.ENOEXEC


def test_path_is_searched_as_execvp_does(tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").write_text(f"#!/bin/sh\necho {name}\n")
    (tmp_path / "b" / "tool").chmod(0o755)
    path = f"/nonexistent:{tmp_path}/a:{tmp_path}/b"
    assert run(["tool"], env={"PATH": path})[1] == b"b\n"  # a's may not be executed: the next one
    (tmp_path / "b" / "tool").unlink()
    failure = run(["tool"], env={"PATH": path})[2]
    assert failure is not None and failure.errno == errno.EACCES


@pytest.mark.parametrize("delay", [0, 0.03], ids=["before", "after"])  # the tracer has spoken
@pytest.mark.parametrize("step", [s for s in spawn.STEPS if s not in ("hand-over", "exec", "internal")])
def test_when_a_step_fails_the_command_never_runs(step: str, delay: float, monkeypatch, tmp_path) -> None:
    """I1, attacks.md G15: a failpoint at every step; the error names the step, the errno is kept."""
    proof = tmp_path / "ran"
    name, part = {
        "descriptors": ("close_all_but", libc),
        "privileges": ("prctl", libc),
        "limits": ("put_limits", spawn.privileges),
        "landlock": ("_scope", spawn),
        "filter": ("load", spawn),
        "listener": ("load", spawn),
    }[step]
    real = getattr(part, name)

    def fail(*args: object) -> object:
        let_pass = {
            "privileges": len(args) > 0 and args[0] != libc.PR_SET_NO_NEW_PRIVS,
            "filter": len(args) == 2,
        }
        if let_pass.get(step):
            return real(*args)
        time.sleep(delay)
        raise OSError(errno.ENOMEM, "injected")

    assert run(["touch", str(proof)])[2] is None and proof.exists()  # control
    proof.unlink()
    monkeypatch.setattr(part, name, fail)
    status, _, failure = run(["touch", str(proof)])
    assert failure is not None
    assert (failure.errno, failure.step, failure.reason) == (errno.ENOMEM, step, "setup")
    if step != "limits":  # the tracer's step, not the child's
        assert os.waitstatus_to_exitcode(status) == errno.ENOMEM
    assert not proof.exists()


def test_a_second_listener_is_ebusy(tmp_path) -> None:
    """attacks.md E7: inside another sandbox with a listener the command never runs."""
    need_our_python()
    proof = tmp_path / "ran"
    text = f"""
import sys; sys.path[:0] = {[os.path.dirname(__file__), os.getcwd()]!r}
from harness import Rules, run
_, _, failure = run(["touch", {str(proof)!r}])
print(failure.step, failure.errno)
"""
    rules = Rules("trace/allow_unsafe_cbpf", "trace/allow_unsafe_prctl")
    import syd_pool.boundary.guards as guards

    kept = guards.GUARDS
    guards.GUARDS = tuple(g for g in kept if not g.names[0].startswith(("landlock", "prctl", "pidfd_getfd", "kcmp")))
    guards.NATIVE["test"] = "landlock_create_ruleset landlock_add_rule landlock_restrict_self pidfd_getfd"
    try:
        _, output, failure = run([sys.executable, "-c", text], rules)
    finally:
        guards.GUARDS = kept
        del guards.NATIVE["test"]
    assert failure is None
    assert output.decode().split() == ["listener", str(errno.EBUSY)]
    assert not proof.exists()


def test_without_a_landlock_scope_the_command_starts(monkeypatch) -> None:
    """Linux before 6.12: no domain is made, the handlers keep signals inside."""
    monkeypatch.setattr(RunConfig, "__init__", _unscoped(RunConfig.__init__))
    monkeypatch.setattr(libc, "syscall", _without_landlock(libc.syscall))
    assert run(["true"])[2] is None


def _unscoped(init):
    def changed(config, *args) -> None:
        init(config, *args)
        config.signal_scope = False

    return changed


def _without_landlock(syscall):
    def changed(name: str, *args: int) -> int:
        if name.startswith("landlock"):
            raise OSError(errno.ENOSYS, name)
        return int(syscall(name, *args))

    return changed


# --- interpreters --------------------------------------------------------------------------------

SECUREBITS = "import ctypes; print(hex(ctypes.CDLL(None).prctl(27, 0, 0, 0, 0)))"


@pytest.mark.parametrize(
    ("lifted", "bits"),
    [
        ((), 0xF00),
        (("trace/allow_unsafe_exec_script",), 0xC00),
        (("trace/allow_unsafe_exec_interactive",), 0x300),
        (("trace/allow_unsafe_exec_script", "trace/allow_unsafe_exec_interactive"), 0),
    ],
)
def test_interpreters_are_told_to_ask(lifted: tuple[str, ...], bits: int) -> None:
    """securebits(7): EXEC_RESTRICT_FILE (8), EXEC_DENY_INTERACTIVE (10), each with its lock; nothing else changes."""
    if tuple(int(n) for n in os.uname().release.split(".")[:2]) < (6, 14):
        bits = 0
    native = int(subprocess.check_output([PYTHON, "-I", "-S", "-c", SECUREBITS]), 16)
    assert not native & 0xFFF, "control"
    code, output = script(SECUREBITS, rules=Rules("trace/allow_unsafe_caps", *lifted))
    assert (code, int(output, 16)) == (0, native | bits)


def test_a_kernel_without_the_securebits_is_as_good(monkeypatch) -> None:
    """EPERM of PR_SET_SECUREBITS (Linux before 6.14) does not stop the start; any other errno does."""
    real = libc.prctl

    def refuse(option: int, *args: int) -> int:
        if option == libc.PR_SET_SECUREBITS:
            raise OSError(refused, "injected")
        return real(option, *args)

    monkeypatch.setattr(libc, "prctl", refuse)
    refused = errno.EPERM
    assert run(["true"])[2] is None
    refused = errno.EINVAL
    failure = run(["true"])[2]
    assert failure is not None
    assert (failure.errno, failure.step) == (errno.EINVAL, "privileges")
