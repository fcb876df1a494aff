"""Signal masks and handlers without the `signal` module, whose import of `enum` costs 2 ms at start.

`_signal` is the C half of `signal` in every CPython; the numbers are x86_64's (signal(7)).
"""

from __future__ import annotations

from _signal import (  # type: ignore[import-not-found]  # typeshed has no half of it
    ITIMER_REAL,
    SIG_BLOCK,
    SIG_DFL,
    SIG_IGN,
    SIG_SETMASK,
    SIG_UNBLOCK,
    getsignal,
    pthread_sigmask,
    setitimer,
    signal,
)

SIGHUP, SIGINT, SIGQUIT, SIGTRAP, SIGABRT, SIGBUS = 1, 2, 3, 5, 6, 7
SIGKILL, SIGUSR1, SIGSEGV, SIGALRM, SIGTERM, SIGCHLD, SIGCONT = 9, 10, 11, 14, 15, 17, 18
SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGIO, SIGSYS = 19, 20, 21, 22, 29, 31

ALL = (*range(1, 32), *range(34, 65))  # 32 and 33 are libc's own

__all__ = [
    "ALL", "ITIMER_REAL", "SIG_BLOCK", "SIG_DFL", "SIG_IGN", "SIG_SETMASK", "SIG_UNBLOCK", "block_all",
    "getsignal", "pthread_sigmask", "setitimer", "signal",
]  # fmt: skip


def block_all() -> None:
    """Block every signal that can be blocked, in this thread."""
    pthread_sigmask(SIG_BLOCK, ALL)
