"""What the tracer says: workers that come and die, requests it could not carry out, whoever asks for figures."""

from __future__ import annotations

import os
from time import monotonic_ns

from monitor import log as logs
from monitor import protocol as p
from monitor.scale import own_making
from monitor.state import Monitor, Worker
from syd_pool.shm import control as c
from syd_pool.shm.ring import W_DONE, WORKER_SIZE, Ring

_MSG_DONTWAIT = 0x40
_SOL_SOCKET = 1
_SCM_RIGHTS = 1
_ANCILLARY = 24  # CMSG_SPACE of one descriptor


def hear(this: Monitor) -> None:
    """Every message that waits."""
    while not this.leaving:
        try:
            data, control, _, _ = this.socket.recvmsg(p.MESSAGE_SIZE, _ANCILLARY, _MSG_DONTWAIT)
        except OSError:
            return
        fd = -1
        for level, kind, payload in control:
            if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
                fd = int.from_bytes(payload[:4], "little")
        if len(data) != p.MESSAGE_SIZE:
            this.leaving = True  # the tracer is gone
            return
        heed(this, fd, *p.MESSAGE.unpack(data)[:4])


def heed(this: Monitor, fd: int, kind: int, index: int, generation: int, argument: int) -> None:
    if kind == p.NEW_WORKER:
        meet(this, fd, index, generation)
    elif kind == p.WORKER_DEAD:
        mourn(this, index, generation, argument & 0xFFFFFFFF, argument >> 32)
    elif kind == p.EXIT:
        this.leaving = True
    elif kind == p.REFUSED:
        this.asked.clear()
        if argument:
            this.failed_at = monotonic_ns()
            this.backoff.refused(this.failed_at)
    elif kind == p.STATS and fd >= 0:
        publish(this, fd)


def meet(this: Monitor, fd: int, index: int, generation: int) -> None:
    """A worker and its page.  The mapping keeps the page; the descriptor is not needed any more."""
    own = None
    if fd >= 0:
        try:
            own = Ring(fd, WORKER_SIZE, False)
        except (OSError, ValueError):
            this.log.put(ctx=b"pool", msg=b"the page of a worker cannot be mapped", worker=index)
        os.close(fd)
    old = this.workers.pop(index, None)
    if old is not None:
        old.close()
    this.workers[index] = Worker(index, generation, own, monotonic_ns())
    if this.asked:
        this.asked.pop()


def mourn(this: Monitor, index: int, generation: int, status: int, reason: int) -> None:
    """A worker died: may another come at once?"""
    worker = this.workers.get(index)
    completed = True
    if worker is not None and worker.generation == generation:
        completed = worker.own is None or worker.word(W_DONE) > 0
        worker.close()
        del this.workers[index]
    if status == 0:
        return  # it was told to leave
    own = own_making(status, reason)
    this.owed += completed
    if not completed:
        this.failed_at = monotonic_ns()
        this.backoff.after_death(completed, own, this.failed_at)
        if own:
            this.log.put(
                ctx=b"pool",
                msg=b"a worker died before it finished a call: %d in a row" % this.backoff.failures,
                worker=index,
                err=status,
            )


def publish(this: Monitor, fd: int) -> None:
    """Statistics for whoever holds the other end of `fd`, who gets a tenth of a second to read."""
    from monitor import stats

    pages = {index: worker.own for index, worker in this.workers.items() if worker.own is not None}
    pids = (os.getpid(), this.page.q[c.H_TRACER])
    facts = stats.snapshot(this.page, pages, this.words, pids)
    try:
        logs.write_all(fd, stats.encode(facts), 100)
    finally:
        os.close(fd)
