"""How many workers, and whose wait has to end: what is asked of the tracer after a look."""

from __future__ import annotations

from time import monotonic_ns

from monitor import protocol as p
from monitor.facts import blocked_interval_ms
from monitor.scale import MS, Counts, exhausted, growth, surplus
from monitor.state import Monitor
from syd_pool.shm import control as c
from syd_pool.shm.ring import W_DONE

ASKED_NS = 1000 * MS  # a SPAWN that is not answered for so long is forgotten
GROW_MOST_MS = 16  # all busy, but they get on: look less often


def scale(this: Monitor, counts: Counts, now: int) -> None:
    """Ask for workers, or set the time to look again."""
    while this.asked and this.asked[0] <= now:
        del this.asked[0]
    counts.asked = len(this.asked)
    this.wake_at = 0
    more = growth(counts, this.config.nproc, this.config.nproc_max)
    if now < this.backoff.until and this.owed < more:
        this.wake_at = this.backoff.until
        more = this.owed
    this.owed = 0
    if more and this.ask(p.SPAWN, None, more):
        this.words[p.M_SPAWNS] += more
        this.asked += [now + ASKED_NS] * more
    pressure(this, counts, now)


def pressure(this: Monitor, counts: Counts, now: int) -> None:
    """While nobody is idle, look soon: is somebody stuck?  Less often while they get on."""
    limit = exhausted(counts, this.config.nproc_max)
    if limit and not this.at_limit:
        this.log.put(ctx=b"pool", msg=b"every worker is blocked and nproc-max is reached", count=counts.total)
    this.at_limit = limit
    if counts.idle or counts.starting or counts.blocked >= counts.total:
        this.grow_at, this.grow_ms = 0, p.GROW_MS
    elif now >= this.grow_at:
        this.grow_at = now + this.grow_ms * MS
        this.grow_ms = min(GROW_MOST_MS, 2 * this.grow_ms)


def retire(this: Monitor, counts: Counts, now: int) -> None:
    """Extras that had nothing to do for the keep-alive time, the last ones first.

    The first nproc workers stay: they are pinned, and the dispatcher knows their CPUs.
    """
    spare = surplus(counts, this.config.nproc)
    if not spare:
        return
    before = now - this.config.keep_alive_ms * MS
    live = (c.STARTING, c.READY, c.BLOCKED)
    extras = sorted(index for index, worker in this.workers.items() if worker.state in live)
    for index in reversed(extras[this.config.nproc :]):
        worker = this.workers[index]
        if worker.state == c.READY and worker.head == worker.word(W_DONE) and worker.moved_at <= before:
            if not spare or not this.ask(p.RETIRE, worker):
                return
            this.words[p.M_RETIRES] += 1
            spare -= 1


def sweep(this: Monitor, now: int) -> None:
    """The callers of blocked calls: whose wait has to end?"""
    youngest = 1 << 62
    waiting = False
    for worker in this.workers.values():
        if worker.caller is None:
            continue
        waiting = True
        youngest = min(youngest, now - worker.caller.since)
        why = worker.caller.why()
        if why and this.ask(p.INTERRUPT, worker, worker.seq, why):
            this.words[p.M_INTERRUPTS] += 1
    if not waiting:
        this.sweep_at = 0
        return
    end = monotonic_ns()
    this.sweep_at = end + int(blocked_interval_ms(youngest / MS, (end - now) / MS, p.BLOCKED_MS) * MS)
