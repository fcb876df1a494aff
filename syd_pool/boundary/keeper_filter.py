"""The keeper's filter: to wait, to look below itself in /proc, to kill, to write one line, to end."""

from __future__ import annotations

from syd_pool.boundary.filter import ALLOW, KILL_PROCESS, bits_clear, cached, int_is, load
from syd_pool.linux import libc
from syd_pool.linux.numbers import NR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.boundary.filter import Rule

_FREELY = (
    "wait4 waitid kill newfstatat fstat getdents64 read write close lseek "
    "brk munmap mremap madvise futex getpid gettid clock_gettime "
    "rt_sigaction rt_sigprocmask rt_sigreturn restart_syscall exit exit_group"
)
_O_ACCMODE = 3
_PROT_EXEC = 4
_TIOCGWINSZ, _TCGETS = 0x5413, 0x5401


def keeper_rules() -> list[Rule]:
    """First-match rules of the keeper; the default is KILL_PROCESS.  Files are opened for reading only."""
    rules: list[Rule] = [(NR[name], ALLOW, ()) for name in _FREELY.split()]
    rules.append((NR["openat"], ALLOW, (bits_clear(2, _O_ACCMODE),)))
    rules += [(NR[name], ALLOW, (bits_clear(2, _PROT_EXEC),)) for name in ("mmap", "mprotect")]
    rules += [(NR["ioctl"], ALLOW, (int_is(1, request),)) for request in (_TCGETS, _TIOCGWINSZ)]
    rules.append((NR["fcntl"], ALLOW, (int_is(1, 1),)))  # F_GETFD
    return rules


def program() -> bytes:
    """The compiled filter."""
    return cached(keeper_rules(), KILL_PROCESS)


def confine(compiled: bytes) -> None:
    """Put it on this process.  Raises OSError."""
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    load(compiled)
