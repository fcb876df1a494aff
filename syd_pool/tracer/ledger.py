"""The ledger read: what is in flight, who waits for what.  It is the rings themselves (state.py); see ring.py.

Every figure comes from memory that the tracer alone writes, but for the counts W_*, which a living worker says and
pool.audit() checks.
"""

from __future__ import annotations

from syd_pool.linux import notify
from syd_pool.shm.ring import (
    HEADER,
    NOTIFY,
    S_HEAD,
    S_NOTIF,
    SLOT_SIZE,
    SLOTS,
    W_ANSWERED,
    W_DONE,
    W_GONE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.tracer.state import Run, Worker


def slot_of(worker: Worker, index: int) -> tuple[int, int, int, int, int, int, int]:
    """(kind, run id, again, notification, tid, number, tgid) of a slot, from our own memory."""
    at = HEADER + index % SLOTS * SLOT_SIZE
    kind, run_id, _, _, tgid, _, _, deaths = S_HEAD.unpack_from(worker.request.b, at)
    notification, tid, _, nr, *_ = notify.NOTIF.unpack_from(worker.request.b, at + S_NOTIF)
    return kind, run_id, deaths, notification, tid, nr, tgid


def args_of(worker: Worker, index: int) -> tuple[int, ...]:
    """The six arguments of the call in a slot."""
    args: tuple[int, ...] = notify.NOTIF.unpack_from(worker.request.b, HEADER + index % SLOTS * SLOT_SIZE + S_NOTIF)[6:]
    return args


def is_notification(worker: Worker, index: int) -> bool:
    """Is slot `index` a call received from a listener (and not a judgement for a stop)?"""
    return slot_of(worker, index)[0] == NOTIFY


def calls_in_flight(worker: Worker) -> list[int]:
    """Slots of notifications that a worker holds and has not counted as answered or gone.

    It counts a call before it is done with the slot.  What it holds and what it has counted make up what is its to
    close; if they are one too many, the call in hand is among both.
    """
    held = [i for i in worker.in_flight() if is_notification(worker, i) and i != worker.settled]
    if held and closed_by(worker) + len(held) > worker.head - worker.others:
        del held[0]
    return held


def closed_by(worker: Worker) -> int:
    """Calls that a worker says it answered or found gone."""
    return worker.page.q[W_ANSWERED] + worker.page.q[W_GONE]


def balance(run: Run) -> tuple[int, int]:
    """(calls closed, calls in flight): together what was received, although the workers go on meanwhile."""
    closed = run.answered + run.gone
    in_flight = sum(kind == NOTIFY for kind, *_ in run.backlog) + len(run.serving)
    for worker in run.workers.values():
        if worker.lied:  # settled when it is reaped: until then nobody knows how much of it was answered
            in_flight += worker.head - worker.others
            continue
        words = worker.page.q
        while True:  # until nothing moved while we looked: one worker's call takes longer than this
            before = words[W_ANSWERED], words[W_GONE], words[W_DONE]
            held = len(calls_in_flight(worker))
            if (words[W_ANSWERED], words[W_GONE], words[W_DONE]) == before:
                break
        closed += before[0] + before[1]
        in_flight += held
    return closed, in_flight


def waiting_for(run: Run) -> set[int]:
    """Notifications that somebody is at, or that wait for room."""
    held = {slot_of(worker, i)[3] for worker in run.workers.values() for i in calls_in_flight(worker)}
    return held | run.serving | {int.from_bytes(entry[3][:8], "little") for entry in run.backlog}


def valid(run: Run, run_id: int, notification: int) -> bool:
    """Does the caller still wait for this notification's answer?"""
    return notify.valid(listener_of(run, run_id), notification)


def listener_of(run: Run, run_id: int) -> int:
    """The listener's descriptor of a run."""
    return next(fd for fd, number in run.listeners.items() if number == run_id)
