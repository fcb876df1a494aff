"""The filter of a worker (design.md I11): what it does not need kills it.

Default KILL_PROCESS, bad architecture KILL_PROCESS, this thread and those it starts, native only.
A worker killed by it is a bug in us.  It is installed after every import and mapping of the start, so
neither files nor executable memory are needed any more.

Cookies.  A call that a taken-over worker could make with a forged argument, and that we make through
ctypes anyway, must carry two random words of this process in argument registers the call does not use:
whoever only controls a libc call cannot make it.  COOKIE_ARGS says which registers; linux/libc.py fills
them after `set_cookies`.  The program is compiled once with marks in their place and cached; `worker_program`
patches the random words in, which costs microseconds where compiling costs 5 ms and an import of 33.
"""

from __future__ import annotations

import os
from errno import ENOSYS
from struct import Struct

from syd_pool.boundary.filter import (
    ALLOW,
    INT,
    KILL_PROCESS,
    bits_clear,
    cached,
    errno_action,
    int_is,
    load,
    long_is,
)
from syd_pool.linux import libc
from syd_pool.linux.notify import (
    SECCOMP_IOCTL_NOTIF_ADDFD,
    SECCOMP_IOCTL_NOTIF_ID_VALID,
    SECCOMP_IOCTL_NOTIF_SEND,
)
from syd_pool.linux.numbers import NR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from syd_pool.boundary.filter import Condition, Rule

# Argument registers that carry the two cookies, for calls that have them to spare.
COOKIE_ARGS: dict[str, tuple[int, int]] = {
    "openat2": (4, 5),
    "pidfd_open": (4, 5),
    "pidfd_getfd": (4, 5),
    "pidfd_send_signal": (4, 5),
    "setfsuid": (4, 5),
    "setfsgid": (4, 5),
    "setgroups": (4, 5),
    "setresuid": (4, 5),
    "setresgid": (4, 5),
    "capset": (4, 5),
    "bind": (4, 5),
    "connect": (4, 5),
    "shutdown": (4, 5),
    "socket": (4, 5),
    "accept4": (4, 5),
    "landlock_create_ruleset": (4, 5),
    "landlock_add_rule": (4, 5),
    "landlock_restrict_self": (4, 5),
}

_FOR_SOCKETS = ("socket", "accept4")

# Where a cookie's halves go before they are known: 32-bit words that nothing else in the program equals.
_MARKS = (0xC00C1E0A, 0xC00C1E0B, 0xC00C1E0C, 0xC00C1E0D)
_MARK_ONE = _MARKS[0] << 32 | _MARKS[1]
_MARK_TWO = _MARKS[2] << 32 | _MARKS[3]
_INSTRUCTION = Struct("<HBBI")

_PROT_EXEC = 4
_MADVICE = (0, 4, 8, 14, 15)  # NORMAL, DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE: malloc's
_FCNTL = (1, 2, 3, 4, 0x406)  # GETFD, SETFD, GETFL, SETFL, DUPFD_CLOEXEC
_PRCTL = (1, 15, 38, 39)  # SET_PDEATHSIG, SET_NAME, SET_NO_NEW_PRIVS, GET_NO_NEW_PRIVS
_CLONE_THREAD = 0x3D0F00  # exactly what pthread_create(3) asks for: bind(2) by name needs a thread (emulate/bind.py)
_OPTIONS = (libc.SO_TYPE, libc.SO_DOMAIN, libc.SO_PEERCRED, libc.SO_COOKIE, libc.SO_PEERPIDFD)
_FIONBIO, _FIOCLEX, _TCGETS = 0x5421, 0x5451, 0x5401
_IOCTL = (_FIONBIO, _FIOCLEX, _TCGETS)  # what Python asks of a descriptor it wraps
_LISTENER = (SECCOMP_IOCTL_NOTIF_SEND, SECCOMP_IOCTL_NOTIF_ADDFD, SECCOMP_IOCTL_NOTIF_ID_VALID)
_JEQ = 0x15  # BPF_JMP | BPF_JEQ | BPF_K

_FREELY = (
    # rings and doorbells, sockets that were there at birth
    "read write pread64 pwrite64 readv writev close poll ppoll sendmsg recvmsg sendto recvfrom "
    # looking paths up, and performing calls in what was found
    "openat fstat newfstatat statx lstat stat fstatfs statfs readlink readlinkat getdents64 lseek "
    "faccessat faccessat2 access mkdirat unlinkat renameat2 linkat symlinkat mknodat truncate "
    "ftruncate fallocate fchmod fchmodat fchmodat2 fchownat utimensat umask fchdir getcwd dup "
    "getxattr lgetxattr listxattr llistxattr setxattr lsetxattr removexattr lremovexattr "
    "inotify_add_watch "
    # the caller's memory
    "process_vm_readv process_vm_writev "
    # memory of our own: malloc, Python's arenas, memfds of magic files
    "brk munmap mremap memfd_create "
    # threads of the lane, time, randomness, identity
    "futex set_robust_list rseq sched_yield sched_getaffinity clock_gettime clock_nanosleep "
    "getsid clock_getres gettimeofday nanosleep getrandom getpid gettid getppid getuid geteuid getgid "
    "getegid getgroups getresuid getresgid capget getrusage sysinfo uname "
    # signals: the interrupt of a blocking call, and the end
    "rt_sigprocmask rt_sigreturn rt_sigaction sigaltstack restart_syscall exit exit_group"
)
# Not there for a worker, but libc asks and goes on without: never worth a death.
_ABSENT = "clone3"


_PID_MARK = 0xC00C1E0E


def _any_int(name: str, argument: int, values: tuple[int, ...]) -> list[Rule]:
    return [(NR[name], ALLOW, (int_is(argument, value),)) for value in values]


def _cookied(name: str) -> Rule:
    one, two = COOKIE_ARGS[name]
    conditions: tuple[Condition, ...] = (long_is(one, _MARK_ONE), long_is(two, _MARK_TWO))
    return (NR[name], ALLOW, conditions)


def _option(option: int, cookies: bool) -> Rule:
    """getsockopt of one option; only its sixth register is spare."""
    conditions = (int_is(1, libc.SOL_SOCKET), int_is(2, option), long_is(5, _MARK_TWO))
    return (NR["getsockopt"], ALLOW, conditions if cookies else conditions[:2])


def worker_rules(cookies: bool = True, sockets: bool = False) -> list[Rule]:
    """First-match rules of a worker, with marks in place of the cookies and of its pid.

    cookies  False: trace/allow_unsafe_nocookie
    sockets  it makes sockets for the command (emulate/fresh.py)
    """
    rules: list[Rule] = [(NR[name], ALLOW, ()) for name in _FREELY.split()]
    rules += [(NR[name], errno_action(ENOSYS), ()) for name in _ABSENT.split()]
    needed = [name for name in COOKIE_ARGS if sockets or name not in _FOR_SOCKETS]
    rules += [_cookied(name) if cookies else (NR[name], ALLOW, ()) for name in needed]
    rules += _any_int("ioctl", 1, (*_LISTENER, *_IOCTL))
    rules += _any_int("fcntl", 1, _FCNTL)
    rules += _any_int("prctl", 0, _PRCTL)
    rules += _any_int("madvise", 2, _MADVICE)
    rules += [(NR[name], ALLOW, (bits_clear(2, _PROT_EXEC),)) for name in ("mmap", "mprotect")]
    rules += [_option(option, cookies) for option in _OPTIONS]
    rules.append((NR["clone"], ALLOW, (long_is(0, _CLONE_THREAD),)))
    rules.append((NR["prlimit64"], ALLOW, (long_is(2, 0),)))  # reading
    rules.append((NR["tgkill"], ALLOW, (int_is(0, _PID_MARK),)))  # abort(3)
    return rules


def patch(program: bytes, cookies: tuple[int, int], pid: int) -> bytes:
    """`program` with the marks replaced.  Raises ValueError if one is missing: then it is not ours."""
    halves = [half for cookie in cookies for half in (cookie >> 32 & INT, cookie & INT)]
    new = dict(zip((*_MARKS, _PID_MARK), (*halves, pid), strict=True))
    out = bytearray(program)
    found = set()
    for at in range(0, len(program), 8):
        code, jump_true, jump_false, k = _INSTRUCTION.unpack_from(program, at)
        if k in new and code == _JEQ:
            found.add(k)
            _INSTRUCTION.pack_into(out, at, code, jump_true, jump_false, new[k])
    if found not in (set(new), {_PID_MARK}):
        raise ValueError(f"the worker's filter has {len(found)} of {len(new)} marks")
    return bytes(out)


def confinement(cookies: bool = True, sockets: bool = False) -> Callable[[], None]:
    """In the tracer, before it forks workers: what each of them calls to confine itself (Birth.confine).

    As worker_rules().
    """
    program = cached(worker_rules(cookies, sockets), KILL_PROCESS)

    def confine() -> None:
        _confine(program, cookies)

    return confine


def _confine(program: bytes, cookies: bool) -> None:
    """Put the filter on this process.  Raises OSError: then the worker must not serve."""
    random = os.urandom(16)
    words = int.from_bytes(random[:8], "little"), int.from_bytes(random[8:], "little")
    if cookies:
        libc.set_cookies(*words)
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    load(patch(program, words, os.getpid()))
