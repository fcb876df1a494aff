"""From the listener to a worker: receive, choose, write the slot, ring.

    poll -> RECV -> [task table] -> slot of a ring -> doorbell if it sleeps

Which worker: the one pinned on the CPU the tracer was woken on, while it has fewer than DEPTH unfinished
slots; then the first worker of another CPU; if all have FULL slots, what comes waits in the kernel.
"""

from __future__ import annotations

from errno import EACCES, EINPROGRESS, EINTR, ENOENT
from fcntl import ioctl
from os import eventfd_write
from struct import Struct
from time import monotonic

from syd_pool.linux import notify
from syd_pool.linux.libc import this_cpu
from syd_pool.linux.sockets import send_fd
from syd_pool.shm.control import H_AGAIN, H_BACKLOG
from syd_pool.shm.ring import (
    HEADER,
    NEVER,
    NOTIFY,
    Q_BELL,
    Q_HEAD,
    S_HEAD,
    SLOT,
    SLOT_SIZE,
    SLOTS,
    W_DONE,
)
from syd_pool.tracer.state import DEPTH, FULL, LOW, STALL_S, Run, Task, Worker
from syd_pool.tracer.tasks import adopt, subject
from syd_pool.tracer.watch import wake

_ZERO = Struct(f"{notify.NOTIF_SIZE}x").pack_into
_ID_AND_TID = Struct("<QI4xi").unpack_from  # id, pid, flags (unused), nr
_PACK = SLOT.pack_into
_RECV = notify.SECCOMP_IOCTL_NOTIF_RECV


def receive(run: Run, listener: int) -> None:
    """One notification from `listener`, which POLLIN announced, to a worker; none while no worker has room."""
    worker = run.by_cpu[this_cpu[0]]
    if worker is None or worker.head - worker.words[W_DONE] >= DEPTH:
        worker = choose(run)
        if worker is None:
            cap(run)
            return
    buffer = run.buffer
    _ZERO(buffer, 0)  # RECV refuses a buffer that is not zero
    try:
        ioctl(listener, _RECV, buffer)
    except OSError as error:
        if error.errno in (ENOENT, EINTR):
            return  # the caller vanished between POLLIN and here
        raise
    run.received += 1
    tid = run.buffer_words[2]
    task = run.tasks.get(tid) or adopt(run, tid)
    if run.poisoned:
        notification, _, nr = _ID_AND_TID(buffer)
        if (subject(task.tgid), nr) in run.poisoned:
            answer_error(run, listener, notification, EACCES)
            return
    write(run, worker, NOTIFY, run.listeners[listener], task, buffer, 0)


def choose(run: Run) -> Worker | None:
    """Who takes one more call: of the first workers of each CPU the one with most room.

    More workers than CPUs do not make the same work faster, they thrash (4 on 2 CPUs with 1,000 callers did half as
    many calls as 2): the others are asked when the first have not got on for STALL_S.  None: nobody has room.
    """
    worker = least_busy(run.first, FULL)
    if worker is None:
        return least_busy(run.ready, FULL) if run.stalled else None
    if run.stalled and worker.head - worker.words[W_DONE] <= LOW:
        run.stalled = False
    return worker


def least_busy(workers: list[Worker], most: int) -> Worker | None:
    """An idle worker, else the one with fewest unfinished slots if these are fewer than `most`, else None."""
    best, least = None, most
    for worker in workers:
        unfinished = worker.head - worker.words[W_DONE]
        if unfinished < least:
            if not unfinished:
                return worker
            best, least = worker, unfinished
    return best


def write(
    run: Run, worker: Worker, kind: int, run_id: int, task: Task, notification: bytes | bytearray, again: int
) -> int:
    """Write a slot and publish it; returns its index.  `again`: how many workers it has already cost."""
    head = worker.head
    _PACK(
        worker.slots,
        HEADER + head % SLOTS * SLOT_SIZE,
        kind,
        run_id,
        head,
        run.position,
        task.tgid,
        task.exec_gen,
        task.cred_gen,
        again,
        notification,
        run.facts,
    )
    worker.head = worker.published[Q_HEAD] = run.heads[worker.record] = head + 1
    if worker.words[W_DONE] == head:  # it has nothing else to do: it sleeps, or will without looking again
        eventfd_write(worker.bell, 1)
    return head


def open_run(run: Run, worker: Worker, run_id: int) -> None:
    """OPEN: give the worker the listener of a run, before the run's first slot reaches it."""
    worker.runs.add(run_id)
    for listener, number in run.listeners.items():
        if number == run_id:
            try:
                send_fd(worker.socket, run_id.to_bytes(8, "little"), listener)
            except BrokenPipeError:
                return  # it has died: its slots are dispatched again when it is reaped


def submit(run: Run, kind: int, run_id: int, task: Task, notification: bytes, again: int = 0) -> None:
    """A slot for any worker: a judgement for a tracee in its stop, or a call dispatched again."""
    if run.ghost:
        from syd_pool.tracer.ghost import turn_away

        turn_away(run, task, kind)
        return
    worker = least_busy(run.ready, SLOTS)
    if worker is None:
        defer(run, kind, run_id, task, notification, again)
        return
    index = write(run, worker, kind, run_id, task, notification, again)
    if kind != NOTIFY:
        worker.others += 1
        task.held = kind
        run.held[worker.pid, index] = task


def defer(run: Run, kind: int, run_id: int, task: Task, notification: bytes, again: int) -> None:
    """No ring has room: it waits here, and the monitor is asked to look."""
    run.backlog.append((kind, run_id, task, notification, again))
    run.control.q[H_BACKLOG] = len(run.backlog)
    if len(run.backlog) == 1:
        wake(run)


def flush_backlog(run: Run) -> None:
    """Dispatch what had no room, oldest first, as far as there is room now."""
    while run.backlog:
        kind, run_id, task, notification, again = run.backlog[0]
        if least_busy(run.ready, SLOTS) is None:
            break
        run.backlog.popleft()
        submit(run, kind, run_id, task, notification, again)
    run.control.q[H_BACKLOG] = len(run.backlog)


def again(run: Run, worker: Worker, index: int, cost: int) -> None:
    """Dispatch slot `index` of `worker` to another one: it was not begun, or may be repeated (I3)."""
    slot = bytes(worker.request.b[HEADER + index % SLOTS * SLOT_SIZE :][:SLOT_SIZE])
    kind, run_id, _, _, tgid, exec_gen, cred_gen, deaths = S_HEAD.unpack_from(slot)
    notification = slot[S_HEAD.size : S_HEAD.size + notify.NOTIF_SIZE]
    run.control.q[H_AGAIN] += 1
    task = run.held.pop((worker.pid, index), None)
    if task is None:
        if kind != NOTIFY:
            return  # the tracee has died in its stop
        _, tid, _ = _ID_AND_TID(notification)
        task = run.tasks.get(tid) or Task(tid, tgid, exec_gen, cred_gen)
    submit(run, kind, run_id, task, notification, deaths + cost)


def cap(run: Run) -> None:
    """Stop receiving until a worker has little left: what waits in the kernel costs nothing there.

    RECV and POLLIN walk past every call that was received and not answered (kernel-facts 3.1).
    """
    run.capped, run.capped_at = True, monotonic()
    for listener in run.listeners:
        run.poller.modify(listener, 0)
    for worker in run.ready if run.stalled else run.first:
        worker.published[Q_BELL] = worker.head - LOW


def uncap(run: Run) -> None:
    """Receive again if a worker has little left; it rings, or we look every millisecond."""
    if least_busy(run.first, LOW + 1) is None:
        if monotonic() - run.capped_at < STALL_S:
            return
        run.stalled, run.capped_at = True, monotonic()
        if least_busy(run.ready, FULL) is None:
            return
    run.capped = False
    for worker in run.ready:
        worker.published[Q_BELL] = NEVER
    for listener in run.listeners:
        run.poller.modify(listener, 1)  # POLLIN


def answer_error(run: Run, listener: int, notification: int, errno: int) -> None:
    """The tracer's own answer to a call that no worker will answer."""
    _close(run, lambda: notify.send_error(listener, notification, errno))


def answer_value(run: Run, listener: int, notification: int, value: int) -> None:
    """As answer_error(), with a result (two-step: the descriptor that a dead worker installed)."""
    _close(run, lambda: notify.send_value(listener, notification, value))


def _close(run: Run, send: object) -> None:
    try:
        send()  # type: ignore[operator]
    except OSError as error:
        if error.errno == ENOENT:
            run.gone += 1
            return
        if error.errno != EINPROGRESS:
            raise
    run.answered += 1
