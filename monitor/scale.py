"""How many workers there should be, how fast they come back, and whether a death was of their own making.

Pure: numbers in, a decision out; no clock, no kernel.  Times are CLOCK_MONOTONIC in ns.
"""

from __future__ import annotations

from monitor.protocol import REASON_STALL
from syd_pool.shm.ring import EXIT_BEHIND

STEP = 8  # workers asked for at once: a fork costs the tracer 0.3 ms
MS = 1_000_000

# Deaths of a worker's own making: the signals of a crash, SIGSYS of its own filter among them.
# SIGKILL and SIGTERM come from others (a user, the OOM killer, an attack on the pool).
CRASH = frozenset({4, 5, 6, 7, 8, 11, 31})  # ILL TRAP ABRT BUS FPE SEGV SYS


class Counts:
    """The pool at one look.

    total: STARTING, READY and BLOCKED workers; asked: forks requested and not yet seen; blocked:
    announced `may block`; stuck: READY, without progress on one call for GROW_MS; idle: READY with
    nothing to do; starting; waiting: some call was taken by nobody yet.
    """

    __slots__ = ("asked", "blocked", "idle", "starting", "stuck", "total", "waiting")

    def __init__(
        self,
        total: int = 0,
        asked: int = 0,
        blocked: int = 0,
        stuck: int = 0,
        idle: int = 0,
        starting: int = 0,
        waiting: bool = False,
    ) -> None:
        self.total = total
        self.asked = asked
        self.blocked = blocked
        self.stuck = stuck
        self.idle = idle
        self.starting = starting
        self.waiting = waiting


def growth(counts: Counts, nproc: int, nproc_max: int) -> int:
    """How many workers to ask for now, 0..STEP.

    Below nproc: the missing ones.  Above: only when nobody is idle or on the way, and the workers
    out of service (blocked or stuck) hold up work, or are all there are.  A worker that is busy but
    gets on is no reason: more processes than CPUs do not make the same work faster.
    """
    have = counts.total + counts.asked
    want = nproc
    out = counts.blocked + counts.stuck
    if out and not (counts.idle or counts.starting or counts.asked):
        if counts.waiting or out >= counts.total:
            want = nproc + out
    return max(0, min(want, nproc_max, have + STEP) - have)


def surplus(counts: Counts, nproc: int) -> int:
    """How many idle workers may retire: what stays still serves nproc calls beside the blocked ones."""
    return max(0, min(counts.idle, counts.total - counts.blocked - nproc))


def exhausted(counts: Counts, nproc_max: int) -> bool:
    """Every worker that may exist does, and none of them gets on."""
    return counts.total >= nproc_max and counts.blocked + counts.stuck >= counts.total


def own_making(status: int, reason: int) -> bool:
    """Did this worker die of what it did?  `status` is waitpid(2)'s, `reason` a KILL of ours.

    A crash, a stall, or an exit, for it never exits while it holds a call but where it cannot catch up with the rules.
    """
    if reason == REASON_STALL:
        return True
    if reason:
        return False
    signal = status & 0x7F
    return (signal == 0 and status >> 8 != EXIT_BEHIND) or signal in CRASH


class Backoff:
    """When a worker may be started again.

    **Guarantee**: only deaths before a first completed call delay anything.  Of its own making they
    double the delay from 20 ms to 5 s, so that a worker that cannot start does not eat the machine; a
    foreign kill from 1 ms to 50 ms only, because one kill -9 after the other must not stop the pool.
    A completed call by any worker ends both.
    """

    OWN = (20 * MS, 5000 * MS)
    FOREIGN = (1 * MS, 50 * MS)

    __slots__ = ("failures", "foreign", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.foreign = 0
        self.until = 0

    def after_death(self, completed: bool, own: bool, now: int) -> None:
        """A worker died; `completed`: it had finished at least one call."""
        if completed:
            return
        if own:
            self.failures += 1
            first, most = self.OWN
            count = self.failures
        else:
            self.foreign += 1
            first, most = self.FOREIGN
            count = self.foreign
            if now < self.until:
                return  # one kill after the other must not put it off for ever
        self.until = max(self.until, now + min(most, first << min(count - 1, 16)))

    def refused(self, now: int) -> None:
        """The tracer could not fork (EAGAIN, ENOMEM): as if a worker had died at birth."""
        self.after_death(False, True, now)

    def works(self) -> None:
        """A worker born after the last failure completed a call."""
        self.failures = self.foreign = self.until = 0
