"""Does a worker get on?  The part of the watchdog that only counts.

Pure: a look at the words of a worker in, a verdict out.  Time is not the clock's but the sum of what
the looks say went by, because a clock also counts the time in which nobody was scheduled.
"""

from __future__ import annotations

from monitor.protocol import KICK_MS, TICK_MS

# verdicts
FINE = 0
KICK = 1  # it sleeps beside work: ring again
STALL = 2  # it did not get on for longer than the limit: kill
REVIVE = 3  # stopped in the descriptor phase, where it may not be killed: continue it

MOST_MS = 2 * TICK_MS  # more than this between two looks is time in which we did not run
SUSPECT_MS = 1000  # without progress for so long: worth reading /proc


class Progress:
    """What one worker did since it last got on.

    **Guarantees**: a worker whose words change is never suspected; time in which the monitor was
    stopped or starved counts as one look; time in which the worker waited for a CPU does not count; in
    the descriptor phase the verdict is never STALL.
    """

    __slots__ = ("kicked_ms", "last", "seen_head", "stuck_ms")

    def __init__(self) -> None:
        self.last = (-1, -1, -1, -1)
        self.seen_head = 0
        self.stuck_ms = 0.0
        self.kicked_ms = 0.0

    def look(
        self,
        words: tuple[int, int, int, int],
        elapsed_ms: float,
        limit_ms: float,
        descriptor: bool = False,
        stopped: bool = False,
        starved_ms: float = 0.0,
    ) -> int:
        """One look.  `words`: (head, taken, done, anything else that counts as progress).

        elapsed_ms: since the look before; starved_ms: how much of it the worker waited for a CPU.
        """
        head, taken, done, _ = words
        was_idle = self.last[0] == self.last[2]
        if words[1:] != self.last[1:] or head == done or was_idle:
            self.last = words
            self.seen_head = head
            self.stuck_ms = self.kicked_ms = 0.0
            return FINE
        step = min(elapsed_ms, MOST_MS)
        self.stuck_ms += max(0.0, step - starved_ms)
        verdict = self._verdict(limit_ms, descriptor, stopped)
        if verdict == FINE and taken <= done and not stopped:  # it is in no call
            verdict = self._doorbell(taken, step)
        self.last = words
        return verdict

    def _verdict(self, limit_ms: float, descriptor: bool, stopped: bool) -> int:
        if self.stuck_ms < limit_ms:
            return FINE
        if not descriptor:
            return STALL
        return REVIVE if stopped else FINE

    def _doorbell(self, taken: int, step: float) -> int:
        """KICK every KICK_MS while a slot that was there at the last look is not taken."""
        if self.seen_head <= taken:
            self.seen_head = self.last[0]
            return FINE
        self.kicked_ms += step
        if self.kicked_ms < KICK_MS:
            return FINE
        self.kicked_ms = 0.0
        return KICK
