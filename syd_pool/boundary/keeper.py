"""The keeper: the process the user started, parent of the tracer, the second layer under PTRACE_O_EXITKILL.

    shell --> keeper --fork--> tracer --fork--> command, workers, monitor
                ^                 |                 |
                +-- exit status --+                 |
                +-- orphans: everything that outlives its parent comes here (sub-reaper) --+

Who talks to it: the shell (signals, job control), the tracer (exit status, stops).
Guarantees (I10): it dies, the tracer dies (PDEATHSIG); the tracer dies by itself, every descendant is
killed before the keeper ends, as an ordinary user too, and the exit status is EXIT_TRACER_DIED.
It needs nothing but /proc and kill(2), and runs a few lines, because nothing watches it.

Signals.  The terminal sends INT, QUIT, TSTP, TTIN and TTOU to the whole process group: the command gets
them itself, so the keeper ignores them (a command that handles ^Z must not see its job stop).  When the
command does stop, the tracer stops the keeper with it (`stop_too`), so that the shell sees a stopped job; the
shell's SIGCONT reaches both, and `continue_too` undoes a stop that came after it.  TERM and HUP are meant for
the run: they go to the tracer, which ends it.
"""

from __future__ import annotations

import os

from syd_pool.boundary import keeper_filter
from syd_pool.linux import libc
from syd_pool.linux.signals import (
    SIG_BLOCK,
    SIG_IGN,
    SIG_SETMASK,
    SIGCONT,
    SIGHUP,
    SIGINT,
    SIGIO,
    SIGKILL,
    SIGQUIT,
    SIGSTOP,
    SIGTERM,
    SIGTSTP,
    SIGTTIN,
    SIGTTOU,
    getsignal,
    pthread_sigmask,
    signal,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

EXIT_TRACER_DIED = 125  # documented: none of spec 1.16, what `timeout` and `docker run` use for "the tool failed"

# What the command must find again (spawn.py): dispositions and mask as we were started with.
IGNORED: frozenset[int] = frozenset()
MASK: frozenset[int] = frozenset()

CATCHABLE = tuple(n for n in range(1, 65) if n not in (9, 19, 32, 33))  # 32 and 33 are libc's own
_PYTHON_IGNORES = (13, 25)  # SIGPIPE and SIGXFSZ: what they were before Python started cannot be known
_WALL = 0x40000000  # __WALL: children of clone(2) without SIGCHLD too
_TERMINAL = (SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU)
_FORWARDED = (SIGTERM, SIGHUP)
_OF_FILES = (SIGIO, *range(34, 65))  # whoever may open a file can have these sent by it (fcntl(2), F_SETOWN)


def become_tracer() -> None:
    """Fork; the child returns and is the tracer, the parent keeps and never returns.

    To be called before any thread, any other fork, any change of signals.  Raises OSError: no process.
    """
    hold_standard_fds()
    remember_signals()
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    keeper = os.getpid()
    pthread_sigmask(SIG_BLOCK, _FORWARDED)  # none may be lost between the fork and the handler
    pid = os.fork()
    if pid == 0:
        libc.die_with_parent(keeper)
        pthread_sigmask(SIG_SETMASK, MASK)
        return
    try:
        _keep(pid)
    except BaseException as error:
        os.write(2, f"syd-pool: the keeper failed, killing the sandbox: {type(error).__name__}: {error}\n".encode())
        kill_descendants()
    os._exit(EXIT_TRACER_DIED)


def hold_standard_fds() -> None:
    """Put /dev/null on each of 0, 1, 2 that is closed, so that nothing of ours (a listener!) lands there.

    Close-on-exec, so the command finds them closed as it would natively (attacks.md G13).
    """
    while True:
        fd = os.open(b"/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if fd > 2:
            os.close(fd)
            return


def remember_signals() -> None:
    """Note the dispositions and the mask of this process, before anything of ours changes them."""
    global IGNORED, MASK
    IGNORED = frozenset(n for n in CATCHABLE if n not in _PYTHON_IGNORES and getsignal(n) == SIG_IGN)
    MASK = frozenset(int(n) for n in pthread_sigmask(SIG_BLOCK, ()))


def _keep(tracer: int) -> NoReturn:
    """Wait for the tracer, and reap what it leaves."""

    def forward(number: int, _frame: object) -> None:
        try:
            os.kill(tracer, number)
        except ProcessLookupError:
            pass

    libc.set_name("syd_keep")
    for number in _TERMINAL:
        signal(number, SIG_IGN)
    for number in _FORWARDED:
        if number not in IGNORED:  # nohup(1)
            signal(number, forward)
    pthread_sigmask(SIG_SETMASK, (MASK - set(_FORWARDED)) | set(_OF_FILES))
    keeper_filter.confine(keeper_filter.program())  # compiled, if need be, while the tracer starts
    while True:
        pid, status = os.waitpid(-1, _WALL)
        if pid == tracer:
            break
    if os.WIFEXITED(status):
        kill_descendants()  # a run that has ended leaves nothing behind either
        os._exit(os.WEXITSTATUS(status))
    text = f"syd-pool: the tracer was killed by signal {os.WTERMSIG(status)}; killing the sandbox\n"
    kill_descendants()
    try:
        os.write(2, text.encode())
    except OSError:
        pass
    os._exit(EXIT_TRACER_DIED)


def children(pid: int) -> list[int]:
    """Children of every thread of `pid`, from /proc/PID/task/*/children; [] when it is gone.

    The file may miss some while others exit (proc(5)): ask again until nothing is left.
    """
    found: list[int] = []
    try:
        for task in os.listdir(b"/proc/%d/task" % pid):
            fd = os.open(b"/proc/%d/task/%s/children" % (pid, task), os.O_RDONLY | os.O_CLOEXEC)
            try:
                while part := os.read(fd, 65536):
                    found += [int(word) for word in part.split()]
            finally:
                os.close(fd)
    except OSError:
        pass
    return found


def kill_descendants() -> None:
    """SIGKILL everything below this process, again and again until waitpid(2) says ECHILD.

    As the sub-reaper we inherit whoever loses its parent, so a process can leave the tree in no way but
    death.  Each round kills the whole tree from the top, parents first: a child that is forked meanwhile
    becomes ours in the next round.
    """
    while _some_left():
        level = children(os.getpid())
        while level:
            below: list[int] = []
            for pid in level:
                below += children(pid)
                try:
                    os.kill(pid, SIGKILL)
                except OSError:  # gone; or not ours to kill, then the keeper stays as long as it
                    pass
            level = below
        try:
            os.waitpid(-1, _WALL)
        except ChildProcessError:
            return


def _some_left() -> bool:
    """Reap the dead; False when there are no children any more, which is how most runs end."""
    try:
        while os.waitpid(-1, _WALL | os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def stop_too(keeper: int) -> None:
    """The command has stopped: stop the keeper, so that the shell sees it.  Called by the tracer."""
    _signal(keeper, SIGSTOP)


def continue_too(keeper: int) -> None:
    """The command goes on: so must the keeper.  Called by the tracer."""
    _signal(keeper, SIGCONT)


def _signal(keeper: int, number: int) -> None:
    if os.getppid() == keeper:  # else it is dead, and PDEATHSIG on its way to us
        os.kill(keeper, number)


__all__ = [
    "CATCHABLE",
    "EXIT_TRACER_DIED",
    "become_tracer",
    "children",
    "continue_too",
    "hold_standard_fds",
    "kill_descendants",
    "remember_signals",
    "stop_too",
]
