"""The keeper: exit status, signals, job control in a terminal; nothing outlives the tracer (I10)."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Self

import pyseccomp
import pytest

from syd_pool.boundary.keeper import EXIT_TRACER_DIED

ROOT = os.getcwd()
PACKAGES = os.path.dirname(pyseccomp.__file__)  # -S leaves it out
# The one of the system: an ordinary user may not reach ours
EXECUTABLE = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
PYTHON = [EXECUTABLE, "-I", "-S", "-c"]
HEAD = f"""
import os, sys, time
sys.path[:0] = [{ROOT!r}, {PACKAGES!r}]
from syd_pool.boundary import keeper
"""


def command(body: str) -> list[str]:
    """A program whose `body` is the tracer."""
    return [*PYTHON, HEAD + body]


def until(what: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.005)
    return False


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def name() -> Iterator[str]:
    """A word on the command line of every process of a test, by which the survivors are counted."""
    word = f"keeper-test-{os.getpid()}-{time.monotonic_ns()}"
    yield word
    for pid in marked(word):
        os.kill(pid, signal.SIGKILL)


def marked(word: str) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/environ", "rb") as environ:
                    if word.encode() in environ.read() and alive(int(entry)):
                        found.append(int(entry))
            except OSError:
                pass
    return found


@pytest.mark.parametrize("code", [0, 7, 255])
def test_the_tracers_exit_status_is_ours(code: int) -> None:
    body = f"keeper.become_tracer(); os._exit({code})"
    assert subprocess.run(command(body), check=False).returncode == code


TREE = """
keeper.become_tracer()
def grow(depth):
    for n in range(3):
        if os.fork() == 0:
            os.setsid()
            if depth: grow(depth - 1)
            time.sleep(60)
            os._exit(0)
grow(2)
time.sleep(0.1)
if KILL: os.kill(os.getpid(), 9)
os._exit(3)
"""


@pytest.mark.parametrize("kill", [True, False])
def test_nothing_outlives_the_tracer(name: str, kill: bool) -> None:
    """A 39-process tree of new sessions, whose parents have partly gone (attacks.md G2)."""
    done = subprocess.run(
        command(TREE.replace("KILL", str(kill))),
        env={**os.environ, "MARK": name},
        capture_output=True,
        check=False,
    )
    assert done.returncode == (EXIT_TRACER_DIED if kill else 3)
    assert (b"killed by signal 9" in done.stderr) == kill
    assert marked(name) == []


def test_without_a_keeper_they_do_outlive_it(name: str) -> None:
    """Positive control: the tree is one that really survives its root."""
    body = TREE.replace("KILL", "True").replace("keeper.become_tracer()", "")
    done = subprocess.run(
        command(body),
        env={**os.environ, "MARK": name},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == -9
    assert len(marked(name)) > 20


def test_the_tracer_dies_with_the_keeper(name: str) -> None:
    body = "keeper.become_tracer(); time.sleep(60)"
    process = subprocess.Popen(command(body), env={**os.environ, "MARK": name})
    assert until(lambda: len(marked(name)) == 2)
    process.kill()
    assert process.wait() == -9
    assert until(lambda: marked(name) == [])


FORWARD = """
keeper.become_tracer()
import _signal
_signal.signal(SIGNAL, lambda *_: os._exit(40 + SIGNAL))
os.write(1, b"ready")
time.sleep(20)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_term_and_hup_go_to_the_tracer(number: int) -> None:
    process = subprocess.Popen(command(FORWARD.replace("SIGNAL", str(int(number)))), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(5) == b"ready"
    time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(5) == 40 + number
    process.stdout.close()


def test_hup_stays_ignored_under_nohup() -> None:
    body = """
import _signal
_signal.signal(1, _signal.SIG_IGN)
keeper.become_tracer()
assert keeper.IGNORED == {1}, keeper.IGNORED
time.sleep(0.2)
os.kill(os.getppid(), 1)
time.sleep(0.2)
os._exit(5)
"""
    assert subprocess.run(command(body), check=False).returncode == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP])
def test_what_the_terminal_sends_does_not_touch_the_keeper(number: int) -> None:
    body = f"""
keeper.become_tracer()
time.sleep(0.1)
os.kill(os.getppid(), {int(number)})
time.sleep(0.1)
os._exit(open(f"/proc/{{os.getppid()}}/stat").read().rsplit(")")[1].split()[0] == "T" and 1 or 0)
"""
    assert subprocess.run(command(body), check=False).returncode == 0


# --- a terminal ----------------------------------------------------------------------------------

# A tracer without ptrace: waits for one command as the real one does, and mirrors its stops.
SHELL_JOB = """
keeper.become_tracer()
import _signal
_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
boss = os.getppid()
pid = os.fork()
if pid == 0:
    for n in (2, 3, 20, 21, 22): _signal.signal(n, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    _, status = os.waitpid(pid, os.WUNTRACED | os.WCONTINUED)
    if os.WIFSTOPPED(status): keeper.stop_too(boss)
    elif os.WIFCONTINUED(status): keeper.continue_too(boss)
    else: break
code = os.waitstatus_to_exitcode(status)
os._exit(code if code >= 0 else 128 - code)
"""


class Terminal:
    """An interactive bash in a terminal of its own; a context manager."""

    def __init__(self, tmp: str) -> None:
        program = f"{tmp}/job"
        with open(program, "w") as out:
            out.write(HEAD + SHELL_JOB)
        self.job = f"{EXECUTABLE} -I -S {program}"
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["PS1"] = "$ "
            os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting"])

    def __enter__(self) -> Self:
        self.expect(b"$ ")
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGHUP)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)

    def comes(self, what: bytes, seconds: float) -> bool:
        """Read until `what` has come."""
        os.set_blocking(self.fd, False)
        end = time.monotonic() + seconds
        while what not in self.seen:
            try:
                self.seen += os.read(self.fd, 4096)
            except BlockingIOError:
                if time.monotonic() > end:
                    return False
                time.sleep(0.005)
        return True

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def stop(self) -> None:
        """^Z, again if it came before the shell had made the job the terminal's (so it is natively too)."""
        for _ in range(20):
            self.type(b"\x1a")
            if self.comes(b"Stopped", 0.5):
                break
        self.expect(b"Stopped")
        self.expect(b"$ ")

    def expect(self, what: bytes, seconds: float = 10) -> None:
        """Read until `what` has come; forgets everything up to its end."""
        assert self.comes(what, seconds), (what, self.seen)
        self.seen = self.seen[self.seen.index(what) + len(what) :]


def test_stop_and_foreground(tmp_path) -> None:
    """^Z stops the job for the shell, fg goes on with it, ^C ends it, and the status is the command's."""
    with Terminal(str(tmp_path)) as terminal:
        terminal.type(f"{terminal.job} sh -c 'echo up; read x; echo got $x; read y'\n".encode())
        terminal.expect(b"up\r\n")
        for _ in range(20):
            terminal.stop()
            terminal.type(b"fg\n")
            terminal.expect(b"read y'\r\n")
        terminal.type(b"word\n")
        terminal.expect(b"got word")
        terminal.type(b"\x03")
        terminal.expect(b"$ ")
        terminal.type(b"echo status $?\n")
        terminal.expect(b"status 130")


def test_a_command_that_handles_stop_does_not_stop_the_job(tmp_path) -> None:
    with Terminal(str(tmp_path)) as terminal:
        terminal.type(f"{terminal.job} sh -c 'trap \"\" TSTP; echo up; read x; echo got $x'\n".encode())
        terminal.expect(b"up\r\n")
        terminal.type(b"\x1a")
        time.sleep(0.2)
        terminal.type(b"word\n")
        terminal.expect(b"got word")
        terminal.expect(b"$ ")


def test_a_shell_inside_controls_its_own_jobs(tmp_path) -> None:
    """The inner bash takes the terminal; ^Z stops its job and not ours."""
    with Terminal(str(tmp_path)) as terminal:
        terminal.type(f"{terminal.job} bash --norc --noprofile --noediting\n".encode())
        terminal.expect(b"$ ")
        terminal.type(b"PS1='in> '\n")
        terminal.expect(b"\r\nin> ")
        terminal.type(b"sleep 60\n")
        time.sleep(0.3)
        terminal.type(b"\x1a")
        terminal.expect(b"Stopped")
        terminal.expect(b"in> ")
        terminal.type(b"kill -9 %1; disown -a; exit 9\n")
        terminal.expect(b"exit\r\n")
        terminal.expect(b"$ ")
        terminal.type(b"echo status $?\n")
        terminal.expect(b"status 9")


def test_a_background_job_that_reads_is_stopped(tmp_path) -> None:
    """SIGTTIN reaches the command; the shell sees the job stopped."""
    with Terminal(str(tmp_path)) as terminal:
        terminal.type(f"{terminal.job} cat &\n".encode())
        terminal.expect(b"$ ")
        time.sleep(0.5)
        terminal.type(b"jobs\n")
        terminal.expect(b"Stopped")
        terminal.expect(b"$ ")
        terminal.type(b"fg\n")
        terminal.expect(b"job cat\r\n")
        terminal.type(b"line\n\x04")
        terminal.expect(b"line\r\nline")
