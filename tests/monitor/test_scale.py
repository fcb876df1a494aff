"""The decisions: how many workers, how soon, whose fault."""

from __future__ import annotations

import signal

from hypothesis import given
from hypothesis import strategies as st

from monitor.protocol import REASON_BOOT, REASON_NONE, REASON_STALL
from monitor.scale import (
    MS,
    STEP,
    Backoff,
    Counts,
    exhausted,
    growth,
    own_making,
    surplus,
)
from syd_pool.shm.ring import EXIT_BEHIND

NUMBERS = st.integers(0, 40)


@st.composite
def pools(draw: st.DrawFn) -> Counts:
    """Any pool whose parts add up."""
    parts = [draw(NUMBERS) for _ in range(4)]
    busy = draw(NUMBERS)
    return Counts(
        total=sum(parts) + busy,
        asked=draw(NUMBERS),
        blocked=parts[0],
        stuck=parts[1],
        idle=parts[2],
        starting=parts[3],
        waiting=draw(st.booleans()),
    )


def test_missing_workers_are_asked_for() -> None:
    """Below nproc, whatever the load: a dead worker comes back."""
    assert growth(Counts(total=1, idle=1), 4, 8) == 3
    assert growth(Counts(total=1, asked=3, idle=1), 4, 8) == 0


def test_all_blocked_grows_before_work_waits() -> None:
    """F1: all workers opening FIFOs leave nproc others to serve."""
    assert growth(Counts(total=2, blocked=2), 2, 64) == 2
    assert growth(Counts(total=4, blocked=4), 2, 64) == 2


def test_stuck_with_work_waiting_grows() -> None:
    """One of two blocked, the other in a slow call, and a call that nobody took."""
    assert growth(Counts(total=2, blocked=1, stuck=1, waiting=True), 2, 64) == 2
    assert growth(Counts(total=2, blocked=1, waiting=True), 2, 64) == 1


def test_busy_workers_that_get_on_are_no_reason() -> None:
    """Sixteen callers on two CPUs keep two workers busy: more of them would not help."""
    assert growth(Counts(total=2, waiting=True), 2, 64) == 0


def test_one_idle_worker_is_enough() -> None:
    """Nobody is asked for while somebody has nothing to do or is on the way."""
    assert growth(Counts(total=9, blocked=8, idle=1, waiting=True), 2, 64) == 0
    assert growth(Counts(total=9, blocked=8, starting=1, waiting=True), 2, 64) == 0


@given(pools(), st.integers(1, 16), st.integers(0, 60))
def test_growth_is_bounded(counts: Counts, nproc: int, extra: int) -> None:
    """Never beyond nproc-max, never more than a step, never negative."""
    more = growth(counts, nproc, nproc + extra)
    assert 0 <= more <= STEP
    assert more == 0 or counts.total + counts.asked + more <= nproc + extra


@given(pools(), st.integers(1, 16), st.integers(0, 60))
def test_growth_and_retirement_do_not_fight(counts: Counts, nproc: int, extra: int) -> None:
    """After a retirement the pool is not below what growth asks for, stuck workers aside."""
    counts.stuck = 0
    gone = surplus(counts, nproc)
    counts.total -= gone
    counts.idle -= gone
    if gone:
        assert growth(counts, nproc, nproc + extra) == 0 or counts.idle == 0
        assert counts.total - counts.blocked >= nproc


@given(pools(), st.integers(1, 16))
def test_only_idle_workers_retire(counts: Counts, nproc: int) -> None:
    """Never a busy one, never below nproc beside the blocked."""
    assert 0 <= surplus(counts, nproc) <= counts.idle


def test_exhausted() -> None:
    """The limit is worth a line only when nobody gets on."""
    assert exhausted(Counts(total=4, blocked=3, stuck=1), 4)
    assert not exhausted(Counts(total=4, blocked=3), 4)
    assert not exhausted(Counts(total=3, blocked=3), 4)


def test_own_making() -> None:
    """A crash, an exit, a stall: its own.  A kill by others, a slow birth: not."""
    for sig in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGSYS, signal.SIGILL, signal.SIGFPE):
        assert own_making(sig, REASON_NONE), sig
        assert own_making(sig | 0x80, REASON_NONE), "with a core dump"
    assert own_making(0, REASON_NONE)
    assert own_making(70 << 8, REASON_NONE)
    assert not own_making(EXIT_BEHIND << 8, REASON_NONE), "it could not catch up with the rules"
    assert own_making(signal.SIGKILL, REASON_STALL)
    for sig in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        assert not own_making(sig, REASON_NONE), sig
    assert not own_making(signal.SIGKILL, REASON_BOOT)


def test_backoff_doubles_and_is_capped() -> None:
    """A worker that cannot start is tried at 20, 40, 80 ms ... 5 s; a completed call ends it."""
    backoff = Backoff()
    delays = []
    for _ in range(12):
        backoff.after_death(False, True, 0)
        delays.append(backoff.until // MS)
    assert delays[:4] == [20, 40, 80, 160]
    assert delays[-1] == 5000
    backoff.works()
    assert backoff.until == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10**9)), max_size=40))
def test_backoff_only_before_the_first_call(deaths: list[tuple[bool, int]]) -> None:
    """Workers that had completed a call never delay anything, however they died."""
    backoff = Backoff()
    for own, now in deaths:
        backoff.after_death(True, own, now)
    assert backoff.until == 0


@given(st.integers(1, 500))
def test_foreign_kills_never_stop_the_pool(count: int) -> None:
    """Any number of kill -9 at birth: the next worker comes within 50 ms (respawn p99 <= 200 ms)."""
    backoff = Backoff()
    for _ in range(count):
        backoff.after_death(False, False, 0)
    assert 0 < backoff.until <= 50 * MS
