"""From a fork of the tracer to the command: what is put on it, in which order, and who waits for whom.

    tracer                                    child (a fork of it, everything prepared)
    prepare(config)      before the fork
    fork
    adopt()  ----------- seized ----------->  limits, no_new_privs, Landlock scope, filters, listener
    take_listener() <--- listener is fd N --
       pidfd_getfd
             ----------- taken ------------>  close it; signals as they were; execve
    outcome() <--------- errno, or end of file: executed

Guarantees: a step that fails is reported with its errno and its name and the command never runs (I1); our
failure is never an exit status of the command, because the report goes through a socket that exec closes.
After the filters are on, the child makes no call with a path but the execve itself.
Nothing is imported, looked up or allocated in the child that could be before the fork.
"""

from __future__ import annotations

import ctypes
import os
from errno import EACCES, ENODEV, ENOENT, ENOSYS, ENOTDIR, EPERM, EPIPE, ESTALE, ETIMEDOUT
from struct import Struct

from syd_pool.boundary import keeper, privileges
from syd_pool.boundary.command_filter import UNKNOWN, command_filters
from syd_pool.boundary.filter import ALLOW, NOTIFY, cached, load
from syd_pool.boundary.request_filter import in_front
from syd_pool.linux import landlock, libc
from syd_pool.linux.notify import SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
from syd_pool.linux.numbers import NR
from syd_pool.linux.signals import SIG_DFL, SIG_IGN, SIG_SETMASK, getsignal, pthread_sigmask, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import NoReturn

    from syd_pool.cli.config import RunConfig

    Limit = tuple[int, int, int]

# execvp(3): with these the next directory of PATH is tried
_TRY_NEXT = (ENOENT, ENOTDIR, EACCES, ESTALE, ENODEV, ETIMEDOUT)
_DEFAULT_PATH = b"/bin:/usr/bin"  # confstr(3) _CS_PATH, which execvp uses without PATH

_REPORT = Struct("<ciB2x")  # kind, errno or descriptor, step
_LISTENER, _FAILED = b"L", b"E"
_GO = b"g"

# In order; the number of the one that failed goes into the report.
STEPS = ("descriptors", "privileges", "landlock", "listener", "filter", "hand-over", "limits", "exec", "internal")

_execve = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, use_errno=True)(
    ("execve", ctypes.CDLL(None, use_errno=True))
)


class SetupFailed(OSError):
    """The command was not started.  You see it when a step of STEPS failed; the run ends with `errno`.

    reason  "exec" if the command could not be executed (it may not exist), else "setup": ours or the kernel's
    step    one of STEPS
    """

    def __init__(self, errno: int, step: str, text: str):
        super().__init__(errno, text)
        self.step = step
        self.reason = "exec" if step == "exec" else "setup"

    def __str__(self) -> str:
        return f"{self.strerror}: {os.strerror(self.errno or 0)}"


_HINTS = {
    "listener": "cannot install the filter with a listener (EBUSY: inside another sandbox that has one)",
    "filter": "cannot install the filter",
    "landlock": "cannot confine signals with Landlock",
    "privileges": "cannot give up privileges",
    "limits": "cannot set the resource limits (a limit above the inherited hard one needs CAP_SYS_RESOURCE)",
    "descriptors": "cannot arrange the descriptors",
    "hand-over": "the tracer did not answer",
    "ipc": "cannot bind the control socket",
    "internal": "bug in spawn.child",
}


class Prepared:
    """All that the child needs, made before the fork; and both ends of the socket."""

    __slots__ = (
        "arguments",
        "candidates",
        "child_end",
        "environment",
        "failed",
        "ignored",
        "keep",
        "limits",
        "listener_flags",
        "main",
        "mask",
        "name",
        "parent",
        "parent_end",
        "privileges",
        "ruleset",
        "signals",
        "storage",
    )
    main: bytes  # the filter with the listener
    parent: bytes  # the filter of refusals
    candidates: list[ctypes.c_char_p]
    arguments: ctypes.Array[ctypes.c_char_p]
    environment: ctypes.Array[ctypes.c_char_p]
    limits: list[Limit]
    keep: list[int]
    ignored: frozenset[int]
    signals: list[int]
    mask: frozenset[int]
    ruleset: int  # of Landlock scopes, -1: none
    privileges: privileges.Privileges
    listener_flags: int
    name: bytes
    parent_end: int
    child_end: int
    failed: SetupFailed | None


# --- before the fork -----------------------------------------------------------------------------


def candidates(command: bytes, path: bytes | None) -> list[bytes]:
    """The files that execvp(3) would try for `command`; only the first if none of them exists.

    Every attempt costs a stop of the child and a verdict, so those that are not there are left out.
    """
    if b"/" in command or not command:
        return [command]
    tries = [
        directory + b"/" + command if directory else command
        for directory in (_DEFAULT_PATH if path is None else path).split(b":")
    ]
    return [file for file in tries if os.path.exists(file)] or tries[:1]


def prepare(
    config: RunConfig,
    ptrace: bool = True,
    identity: bool = True,
    limits: Iterable[Limit] = (),
    keep: Sequence[int] = (),
) -> Prepared:
    """Everything before the fork.  Raises SetupFailed, OSError.

    ptrace    the tracer seizes the child; False: what would stop for it is notified instead
    identity  the command may change its ids, so those calls are notified
    limits    (RLIMIT_ number, soft, hard), put on the child by take_listener()
    keep      descriptors above 2 that the command inherits (they must not be close-on-exec)
    """
    made = Prepared()
    filters = command_filters(config.rules, ptrace, identity, config.signal_scope)
    if config.test_null:
        filters.main = [(NR["getppid"], NOTIFY, ()), *filters.main]
    made.main = in_front(cached(filters.main, UNKNOWN), filters.requests)
    made.parent = cached(filters.parent, ALLOW)
    made.listener_flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    command = config.argv[0]
    made.name = command
    argv = [config.alias if config.alias is not None else command, *config.argv[1:]]
    variables = [name + b"=" + value for name, value in config.env.items()]
    made.candidates = [ctypes.c_char_p(file) for file in candidates(command, config.env.get(b"PATH"))]
    made.arguments = (ctypes.c_char_p * (len(argv) + 1))(*argv)
    made.environment = (ctypes.c_char_p * (len(variables) + 1))(*variables)
    made.limits = list(limits)
    made.privileges = privileges.of_command(config.rules)
    made.ruleset = _scopes("lock" in config.rules.enabled) if config.signal_scope else -1
    made.ignored = keeper.IGNORED
    made.signals = _changed_signals()
    made.mask = keeper.MASK
    made.parent_end, made.child_end = _socketpair()
    made.keep = sorted({0, 1, 2, made.child_end, *keep, *([made.ruleset] if made.ruleset >= 0 else [])})
    made.failed = None
    return made


def _scopes(lock: bool) -> int:
    """A ruleset of scopes: no signal leaves the sandbox (attacks.md F8); nor, with sandbox/lock, does a native
    connection to an abstract socket.  Those that the rules allow are made by workers, which have no scope.

    A domain below one that confines files refuses LANDLOCK_ACCESS_FS_REFER unless it allows it too (landlock(7)).
    """
    if not lock:
        return landlock.create(0, 0, landlock.LANDLOCK_SCOPE_SIGNAL)
    refer = landlock.LANDLOCK_ACCESS_FS_REFER
    ruleset = landlock.create(refer, 0, landlock.LANDLOCK_SCOPE_SIGNAL | landlock.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET)
    root = os.open("/", libc.O_PATH | os.O_CLOEXEC)
    landlock.add_path(ruleset, refer, root)
    os.close(root)
    return ruleset


def _changed_signals() -> list[int]:
    """Signals whose disposition the command must not find as it is in this process."""
    return [n for n in keeper.CATCHABLE if n in keeper.IGNORED or getsignal(n) != SIG_DFL]


def _socketpair() -> tuple[int, int]:
    from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, socketpair

    one, other = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    return one.detach(), other.detach()


# --- in the child --------------------------------------------------------------------------------


def child(prepared: Prepared) -> NoReturn:
    """Become the command.  Never returns, never raises."""
    step = 0
    try:
        step = STEPS.index("descriptors")
        libc.close_all_but(prepared.keep)
        libc.prctl(libc.PR_SET_PDEATHSIG, 9)
        libc.prctl(libc.PR_SET_DUMPABLE, 1)  # else the tracer of a user may not take the listener
        _wait(prepared)  # until the tracer has seized us
        step = STEPS.index("privileges")
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        privileges.drop(prepared.privileges)
        step = STEPS.index("landlock")
        _scope(prepared)
        step = STEPS.index("listener")
        listener = load(prepared.main, prepared.listener_flags)
        step = STEPS.index("filter")
        load(prepared.parent)  # last: it refuses any further filter
        step = STEPS.index("hand-over")
        os.write(prepared.child_end, _REPORT.pack(_LISTENER, listener, 0))
        _wait(prepared)
        os.close(listener)
        _restore_signals(prepared)
        step = STEPS.index("exec")
        errno = _execute(prepared)
    except OSError as error:
        errno = error.errno or ENOSYS
    except BaseException:
        errno, step = ENOSYS, STEPS.index("internal")
    try:
        os.write(prepared.child_end, _REPORT.pack(_FAILED, errno, step))
    finally:
        os._exit(errno & 0xFF or 1)


def _wait(prepared: Prepared) -> None:
    """For one word of the tracer; its death is the end of us."""
    if os.read(prepared.child_end, 1) != _GO:
        raise OSError(EPIPE, "tracer")


def _scope(prepared: Prepared) -> None:
    """A Landlock domain of its own, of _scopes().

    Where there is none, the handlers of emulate/signal.py keep signals inside.
    """
    if prepared.ruleset >= 0:
        landlock.restrict(prepared.ruleset)
        os.close(prepared.ruleset)


def _restore_signals(prepared: Prepared) -> None:
    """Dispositions and mask as we were started with; Python itself ignores SIGPIPE and SIGXFSZ."""
    for number in prepared.signals:
        signal(number, SIG_IGN if number in prepared.ignored else SIG_DFL)
    pthread_sigmask(SIG_SETMASK, prepared.mask)


def _execute(prepared: Prepared) -> int:
    """execvp(3) over the prepared candidates, without its fallback to sh; returns the errno."""
    denied = 0
    errno = ENOENT
    for file in prepared.candidates:
        _execve(file, prepared.arguments, prepared.environment)
        errno = ctypes.get_errno()
        if errno == EACCES:
            denied = errno
        if errno not in _TRY_NEXT:
            return errno
    return denied or errno


# --- in the tracer, after the fork ---------------------------------------------------------------


def adopt(prepared: Prepared) -> None:
    """The child is ours (seized, if it is to be): let it go on.  Raises SetupFailed."""
    os.close(prepared.child_end)
    prepared.child_end = -1
    if prepared.ruleset >= 0:
        os.close(prepared.ruleset)
    _say(prepared)


def take_listener(prepared: Prepared, pid: int, pidfd: int, ready: Callable[[int], None] | None = None) -> int:
    """Wait for the child's filters and take its listener; the child then executes.  Raises SetupFailed.

    ready  called with the listener before the child goes on: what fails there keeps it from executing
    """
    report = _read_report(prepared)
    if not report.startswith(_LISTENER):
        raise _failure(prepared, report)
    _, number, _ = _REPORT.unpack(report)
    try:
        listener = libc.pidfd_getfd(pidfd, number)
    except OSError as error:
        raise SetupFailed(error.errno or EACCES, "hand-over", "cannot take the listener over") from error
    if ready is not None:
        ready(listener)
    try:
        privileges.put_limits(pid, prepared.limits)
    except OSError as error:
        raise SetupFailed(error.errno or EPERM, "limits", _HINTS["limits"]) from error
    _say(prepared)
    return listener


def outcome(prepared: Prepared) -> SetupFailed | None:
    """How the exec went: None if it succeeded.  Call it when `parent_end` is readable, or to wait.

    Under ptrace: only after the exec stop has been served, else the child waits for us and we for it.
    """
    report = _read_report(prepared)
    os.close(prepared.parent_end)
    prepared.parent_end = -1
    return _failure(prepared, report) if report else None


def _read_report(prepared: Prepared) -> bytes:
    """The child's next report, b"" at the end.

    A child that ends without having read our word leaves an ECONNRESET in front of its report (unix(7)).
    """
    try:
        return os.read(prepared.parent_end, _REPORT.size)
    except ConnectionResetError:
        return os.read(prepared.parent_end, _REPORT.size)


def _say(prepared: Prepared) -> None:
    try:
        os.write(prepared.parent_end, _GO)
    except OSError as error:  # it has died or failed: its report says how
        raise _failure(prepared, _read_report(prepared)) from error


def _failure(prepared: Prepared, report: bytes) -> SetupFailed:
    if len(report) != _REPORT.size:
        return SetupFailed(EPIPE, "internal", "the child died before it could execute the command")
    _, errno, number = _REPORT.unpack(report)
    step = STEPS[number]
    name = prepared.name.decode("utf-8", "surrogateescape")
    return SetupFailed(errno, step, f"cannot execute {name}" if step == "exec" else _HINTS[step])
