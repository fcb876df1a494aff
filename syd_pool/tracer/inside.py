"""Children born inside the Landlock domain of sandbox/lock, of a tracer that stays outside of it.

    tracer, main thread        outside: /proc, the log, new workers, ptrace
       fork(what) --> thread   inside: it does nothing but fork
                        +--> command      in the domain, and below it in a scope of its own (spawn.py)
                        +--> worker ...   in the same domain

Landlock lets a process look at another only where its own domain is the other's, or above it (ptrace_may_access:
memory, descriptors, /proc).  So workers and command must come from one place in one domain; two domains of the
same rules would be strangers.  A domain belongs to a thread and goes to its children, whose parent is the
process: for everything but the domain they are as if the main thread had forked them.
The thread stays as long as the process: its end would be theirs (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
from _thread import allocate_lock, start_new_thread

from syd_pool.boundary import domain
from syd_pool.boundary.spawn import SetupFailed
from syd_pool.linux import landlock, libc
from syd_pool.tracer.state import fork as plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from syd_pool.policy import Ruleset
    from syd_pool.tracer.state import Fork


def choose(rules: Ruleset, note: Callable[[str], None]) -> Fork:
    """How a run with sandbox/lock:on forks its command and workers.  Raises SetupFailed.

    note  is told what default/lock lets the run do without
    """
    abi = landlock.abi()
    ruleset = domain.build(rules, abi, note)
    if ruleset < 0:
        return plain
    _import_for_workers()
    try:
        return inside(ruleset, domain.log_flags(rules, abi))
    except OSError as error:
        raise SetupFailed(error.errno or 1, "landlock", "sandbox/lock: Landlock refuses the domain") from error
    finally:
        os.close(ruleset)


def _import_for_workers() -> None:
    """What a worker imports at the first rule that needs it: inside it may not read the files of Python."""
    from syd_pool.policy import addresses, filesystems, network, parse

    assert addresses and filesystems and network and parse


def inside(ruleset: int, flags: int) -> Fork:
    """Start the thread that is inside; returns what forks there.  Raises OSError when there is no domain."""
    asked, done = allocate_lock(), allocate_lock()
    asked.acquire()
    done.acquire()
    child: Callable[[], NoReturn] | None = None
    result: int | OSError = 0

    def work() -> None:
        nonlocal result
        try:
            libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)  # of this thread alone
            landlock.restrict(ruleset, flags)
        except OSError as error:
            result = error
            done.release()
            return
        done.release()
        while True:
            asked.acquire()
            assert child is not None
            try:
                result = plain(child)
            except OSError as error:
                result = error
            done.release()

    def fork(what: Callable[[], NoReturn]) -> int:
        nonlocal child
        child = what
        asked.release()
        done.acquire()
        if isinstance(result, OSError):
            raise result
        return result

    start_new_thread(work, ())
    done.acquire()
    if isinstance(result, OSError):
        raise result
    return fork
