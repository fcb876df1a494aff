"""One look at the pages: who is there, who has nothing to do, who is out of service."""

from __future__ import annotations

from monitor import protocol as p
from monitor.facts import Caller
from monitor.scale import MS, Counts
from monitor.state import Monitor, Worker
from syd_pool.shm import control as c
from syd_pool.shm.ring import W_DONE, W_TAKEN


def look(this: Monitor, now: int) -> Counts:
    """Every record once: who is there, who has nothing to do, who is out of service."""
    counts = Counts(asked=len(this.asked), waiting=this.page.q[c.H_BACKLOG] > 0)
    for index in range(min(this.page.q[c.H_SLOTS], c.RECORDS)):
        pid, generation, state, head, _, tid, seq = c.snapshot(this.page, index)
        worker = this.workers.get(index)
        if state in (c.EMPTY, c.DEAD):
            continue
        if worker is None or worker.generation != generation:
            worker = unmet(this, worker, index, generation, now)
        worker.pid, worker.state, worker.head = pid, state, head
        note(this, worker, now)
        follow(this, worker, tid, seq, now)
        count(this, worker, counts, now)
    return counts


def unmet(this: Monitor, old: Worker | None, index: int, generation: int, now: int) -> Worker:
    """A record whose NEW_WORKER has not arrived yet."""
    if old is not None:
        old.close()
    worker = this.workers[index] = Worker(index, generation, None, now)
    return worker


def note(this: Monitor, worker: Worker, now: int) -> None:
    """When did it last get on?  A first completed call after a failure ends the backoff."""
    done = worker.word(W_DONE)
    mark = (worker.head, worker.word(W_TAKEN), done)
    if mark == worker.mark:
        return
    this.moved = True
    if done and worker.born > this.failed_at and (this.backoff.failures or this.backoff.foreign):
        this.backoff.works()
    head, taken, done_before = worker.mark
    if (taken, done_before) != mark[1:] or head == done_before:  # not when one more slot queues up
        worker.moved_at = now
    worker.mark = mark


def follow(this: Monitor, worker: Worker, tid: int, seq: int, now: int) -> None:
    """Hold the caller of a blocked call, let go of it when the call has ended."""
    if worker.state != c.BLOCKED:
        worker.forget_caller()
    elif worker.caller is None or worker.seq != seq or worker.caller.tid != tid:
        worker.forget_caller()
        worker.caller = Caller(tid, now)
        worker.seq = seq
        this.sweep_at = 0


def count(this: Monitor, worker: Worker, counts: Counts, now: int) -> None:
    """Add one worker to the counts."""
    if worker.state == c.RETIRING:
        return
    counts.total += 1
    if worker.state == c.STARTING:
        counts.starting += 1
    elif worker.state == c.BLOCKED:
        counts.blocked += 1
    elif worker.own is not None and worker.head > worker.word(W_DONE):
        counts.waiting = counts.waiting or worker.head > worker.word(W_TAKEN)
        counts.stuck += now - worker.moved_at >= p.GROW_MS * MS
    else:
        counts.idle += 1
