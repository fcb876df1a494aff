"""The backstop at every tick: lost doorbells, workers that do not get on, extras that are not needed."""

from __future__ import annotations

from monitor import protocol as p
from monitor.decide import retire
from monitor.facts import scheduling
from monitor.scale import MS, Counts
from monitor.state import Monitor, Worker
from monitor.watch import FINE, KICK, REVIVE, STALL, SUSPECT_MS
from syd_pool.shm import control as c
from syd_pool.shm.ring import W_DONE, W_PHASE, W_READY, W_TAKEN


def tick(this: Monitor, counts: Counts, now: int) -> None:
    """The backstop: lost doorbells, workers that do not get on, extras that are not needed."""
    elapsed = (now - this.last_tick) / MS
    this.last_tick = now
    this.words[p.M_TICKS] += 1
    outstanding = False
    for worker in list(this.workers.values()):
        if worker.state in (c.READY, c.RETIRING):
            outstanding = outstanding or worker.head != worker.word(W_DONE)
            guard(this, worker, elapsed)
        elif worker.state == c.STARTING:
            outstanding = True
            guard_birth(this, worker, elapsed)
    retire(this, counts, now)
    busy = outstanding or this.moved or this.asked or counts.total > this.config.nproc
    this.moved = False
    this.tick_at = now + (p.TICK_MS if busy else p.IDLE_MS) * MS


def guard(this: Monitor, worker: Worker, elapsed: float) -> None:
    """Does a worker that serves get on?  Act by what Progress says (watch.py)."""
    if worker.own is None:
        return
    words = (worker.head, worker.word(W_TAKEN), worker.word(W_DONE), worker.word(W_PHASE))
    limit = this.config.stall_ms
    stopped, starved = False, 0.0
    if worker.progress.stuck_ms >= min(SUSPECT_MS, limit / 2):
        stopped, starved = excuses(this, worker, elapsed)
    else:
        worker.ran = -1
    verdict = worker.progress.look(words, elapsed, limit, worker.descriptor(), stopped, starved)
    if verdict == FINE:
        worker.reported = worker.reported and worker.progress.stuck_ms > 0
    elif verdict == KICK:
        if this.ask(p.KICK, worker):
            this.words[p.M_KICKS] += 1
    elif verdict == REVIVE:
        this.ask(p.REVIVE, worker)
    elif verdict == STALL:
        kill(this, worker, p.REASON_STALL, words[2])


def guard_birth(this: Monitor, worker: Worker, elapsed: float) -> None:
    """Does a worker become ready in time?"""
    if worker.word(W_READY):
        return  # the tracer will see it
    worker.boot_ms += min(elapsed, 2 * p.TICK_MS)
    if worker.boot_ms >= this.config.boot_ms:
        kill(this, worker, p.REASON_BOOT, 0)


def excuses(this: Monitor, worker: Worker, elapsed: float) -> tuple[bool, float]:
    """(stopped, ms of `elapsed` that do not count): it waited for a CPU, or the tracer stands still."""
    state, ran, waited = scheduling(worker.pid)
    first = worker.ran < 0
    ran_before, waited_before = worker.ran, worker.waited
    worker.ran, worker.waited = ran, waited
    if scheduling(this.page.q[c.H_TRACER])[0] in "Tt":
        return state in "Tt", elapsed
    if first or state != "R":
        return state in "Tt", 0.0
    if ran == ran_before:
        return False, elapsed
    return False, (waited - waited_before) / MS


def kill(this: Monitor, worker: Worker, reason: int, done: int) -> None:
    """Ask for its death, at every tick until it is dead; log it once, with what psutil knows."""
    if not worker.reported:
        report_stall(this, worker, reason)  # before it is dead, when /proc knows nothing any more
    if this.ask(p.KILL, worker, reason | done << 8) and not worker.reported:
        worker.reported = True
        this.words[p.M_STALLS] += 1


def report_stall(this: Monitor, worker: Worker, reason: int) -> None:
    from monitor import stats

    facts = stats.process(worker.pid)
    what = b"did not become ready" if reason == p.REASON_BOOT else b"does not get on"
    this.log.put(
        ctx=b"pool",
        act=b"kill",
        worker=worker.index,
        msg=b"a worker %s and is killed (%s)" % (what, str(facts.get("status", "?")).encode()),
        args=b" ".join(b"%s=%s" % (k.encode(), str(v).encode()) for k, v in facts.items()),
    )
