"""The filter of syd_ipc: to accept, to read and write what is connected, to end; no file, no process."""

from __future__ import annotations

from syd_pool.boundary.filter import ALLOW, KILL_PROCESS, bits_clear, cached, int_is
from syd_pool.linux.numbers import NR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.boundary.filter import Rule

_FREELY = (
    "accept4 recvmsg recvfrom sendto sendmsg read write close poll getsockopt getsockname shutdown fstat newfstatat "
    "lseek pread64 brk munmap mremap madvise futex getpid gettid clock_gettime "
    "rt_sigaction rt_sigprocmask rt_sigreturn restart_syscall exit exit_group"
)
_PROT_EXEC = 4
_FCNTL = (1, 2, 3, 4)  # GETFD, SETFD, GETFL, SETFL
_FIONBIO = 0x5421


def ipc_rules() -> list[Rule]:
    """First-match rules; the default is KILL_PROCESS."""
    rules: list[Rule] = [(NR[name], ALLOW, ()) for name in _FREELY.split()]
    rules += [(NR[name], ALLOW, (bits_clear(2, _PROT_EXEC),)) for name in ("mmap", "mprotect")]
    rules += [(NR["fcntl"], ALLOW, (int_is(1, command),)) for command in _FCNTL]
    rules.append((NR["ioctl"], ALLOW, (int_is(1, _FIONBIO),)))
    return rules


def program() -> bytes:
    """The compiled filter."""
    return cached(ipc_rules(), KILL_PROCESS)
