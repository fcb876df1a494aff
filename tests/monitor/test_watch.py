"""The watchdog's counting: stall, kick, excuses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from monitor.watch import FINE, KICK, MOST_MS, REVIVE, STALL, Progress

BUSY = (5, 5, 4, 4 << 8)  # five slots written, the fifth taken and in hand


def looks(words: tuple[int, int, int, int], count: int, elapsed: float = 100, **more: object) -> list[int]:
    """The verdicts of `count` equal looks, limit 1,000 ms."""
    progress = Progress()
    return [progress.look(words, elapsed, 1000, **more) for _ in range(count)]  # type: ignore[arg-type]


def test_stall_after_the_limit() -> None:
    """No progress for the limit: STALL, and again at every look until it is dead."""
    verdicts = looks(BUSY, 14)
    assert verdicts.index(STALL) == 10
    assert set(verdicts[10:]) == {STALL}


def test_idle_never_stalls() -> None:
    """Everything written is done: no time counts."""
    assert set(looks((5, 5, 5, 0), 100)) == {FINE}


def test_a_long_idle_time_is_not_held_against_the_next_call() -> None:
    """The first look at a new slot starts at zero."""
    progress = Progress()
    for _ in range(50):
        progress.look((4, 4, 4, 0), 500, 1000)
    progress.look(BUSY, 500, 1000)
    assert progress.stuck_ms == 0


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200))
def test_progress_is_never_suspected(steps: list[int]) -> None:
    """A worker whose words change at every ninth look at least never stalls."""
    progress = Progress()
    for at, step in enumerate(steps):
        words = (10_000, at + 2, at + 1, step)
        for _ in range(9):
            assert progress.look(words, 100, 1000) == FINE


def test_time_we_did_not_run_counts_as_one_look() -> None:
    """The monitor was stopped for a minute: nobody is killed for it."""
    progress = Progress()
    progress.look(BUSY, 100, 1000)
    assert progress.look(BUSY, 60_000, 1000) == FINE
    assert progress.stuck_ms == MOST_MS


def test_a_starved_worker_is_excused() -> None:
    """Time spent waiting for a CPU is the machine's fault."""
    assert set(looks(BUSY, 100, starved_ms=100.0)) == {FINE}
    assert STALL in looks(BUSY, 100, starved_ms=50.0)


def test_the_descriptor_phase_is_never_killed() -> None:
    """I2: dying there leaves the outcome unknown.  A stopped one is continued instead."""
    assert set(looks(BUSY, 200, descriptor=True)) == {FINE}
    verdicts = looks(BUSY, 14, descriptor=True, stopped=True)
    assert verdicts.index(REVIVE) == 10
    assert STALL not in verdicts


def test_a_stopped_worker_is_a_stall() -> None:
    """G7."""
    assert STALL in looks(BUSY, 14, stopped=True)


def test_kick_a_sleeper_beside_work() -> None:
    """A slot older than 100 ms that a sleeping worker did not take: KICK, every 100 ms, then STALL."""
    progress = Progress()
    verdicts = [progress.look((5, 4, 4, 0), 50, 1000) for _ in range(22)]
    first = verdicts.index(KICK)
    assert 2 <= first <= 4
    assert verdicts.count(KICK) >= 5
    assert verdicts[-1] == STALL


def test_no_kick_for_a_fresh_slot() -> None:
    """A slot that was not there at the last look is not late."""
    progress = Progress()
    for head in range(5, 40):
        assert progress.look((head, head - 1, head - 1, 0), 100, 10**9) == FINE


def test_no_kick_for_queued_slots() -> None:
    """A worker that is at work does not sleep: what queues behind it is not a lost wake-up."""
    assert KICK not in looks((9, 5, 4, 0), 9)
