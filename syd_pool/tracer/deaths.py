"""What becomes of a dead worker's calls: finished, answered, or dispatched again (I2, I3).

wait status --> reap_worker --+--> what it had in hand, by the phase it had announced
                              +--> what it had not begun: another worker
                              +--> a liar's: EIO, nothing it said is believed
"""

from __future__ import annotations

import os
from errno import EACCES, EIO
from time import monotonic_ns

from syd_pool.linux import notify
from syd_pool.linux.libc import same_file
from syd_pool.linux.numbers import NAME
from syd_pool.linux.sockets import MSG_DONTWAIT, receive_fd
from syd_pool.shm import control as c
from syd_pool.shm.ring import (
    DESCRIPTOR,
    EFFECT,
    EXIT_BEHIND,
    NOTIFY,
    Q_STOP,
    SLOTS,
    W_ANSWERED,
    W_DROPPED,
    W_GONE,
    W_NUMBER,
    W_PHASE,
    W_READY,
    W_TAKEN,
    number_of,
)
from syd_pool.tracer import events, ghost, watch
from syd_pool.tracer.condemn import kill_caller
from syd_pool.tracer.dispatch import again, answer_error, answer_value
from syd_pool.tracer.ledger import calls_in_flight, listener_of, slot_of, valid, waiting_for
from syd_pool.tracer.pool import rank, read_completions, spawn_worker
from syd_pool.tracer.state import Run, Worker
from syd_pool.tracer.tasks import subject

POISON_DEATHS = 2  # crashes that a program's call may cost
# what a slot has cost, in its field `again`: foreign kills below, crashes above
CRASH = 1 << 16
FOREIGN_DEATHS = 32  # kill -9 of whoever holds it, again and again: the out-of-memory killer, perhaps
BOOT_FAILURES = 3
FOREIGN_KILLS = 300  # ... of workers that are not ready yet count as one such failure
EXIT_NO_WORKER = 70  # EX_SOFTWARE
# deaths of a worker's own making; a foreign SIGKILL blames nobody
_CRASHES = (4, 5, 6, 7, 8, 11, 31)  # ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS


def reap_worker(run: Run, worker: Worker, status: int) -> None:
    """A worker has died: answer, finish or dispatch again every call it held (I2, I3)."""
    read_completions(run, worker, False)
    retired = not worker.open and worker.request.q[Q_STOP] == 1 and status == 0
    c.change(run.control, worker.index, c.DEAD, monotonic_ns())
    del run.workers[worker.pid]
    run.blocks.pop(worker.pid, None)
    worker.open = False
    rank(run)
    words = worker.page.q
    run.control.q[c.H_LOG_DROPPED] += words[W_DROPPED]
    was_ready = words[W_READY] == 1
    if worker.lied:
        _settle_liar(run, worker)
    else:
        _settle_calls(run, worker, status)
    if not retired and not run.ended:
        run.control.q[c.H_DIED] += 1
    run.slots[worker.index] = None
    watch.dead_worker(run, worker, status)
    for fd in (worker.bell, worker.page.fd):
        os.close(fd)
    worker.socket.close()
    if worker.vault is not None:
        worker.vault.close()
    worker.request.close()
    worker.page.close()
    if run.ghost:
        ghost.let_go(run)
    else:
        _survive(run, was_ready, _crashed(status) or worker.reason != 0)


def _settle_calls(run: Run, worker: Worker, status: int) -> None:
    """What a worker held that has told the truth."""
    words = worker.page.q
    run.answered += words[W_ANSWERED]
    run.gone += words[W_GONE]
    in_hand = words[W_TAKEN] - 1
    calls = worker.in_flight()
    closed = in_hand not in calls_in_flight(worker)  # it died between the answer and W_DONE
    # an exit is a crash, too, while it holds a call: else it leaves only with nothing to do
    own = _crashed(status) or worker.reason != 0 or status == 0
    blame = own and in_hand in calls
    if blame:
        _blame(run, worker, in_hand)
    for index in calls:
        if index == in_hand:
            _settle_call(run, worker, index, blame, closed)
        else:
            again(run, worker, index, 0)


def _settle_liar(run: Run, worker: Worker) -> None:
    """What a worker held whose words are worth nothing: every call of its ring that still waits gets EIO.

    How many it had answered it cannot be asked: all of its own that nobody waits for any more have been closed.
    """
    for _, index in [key for key in run.held if key[0] == worker.pid]:
        again(run, worker, index, 0)  # a judgement: another worker makes it
    elsewhere = waiting_for(run)
    words = worker.page.q
    in_hand = words[W_TAKEN] - 1
    word = words[W_PHASE]
    installing = word >> 8 == in_hand and word & DESCRIPTOR
    if installing and in_hand in calls_in_flight(worker):
        _unknown(run, *slot_of(worker, in_hand)[4:])
    for index in range(max(0, worker.head - SLOTS), worker.head):
        kind, run_id, _, notification, _, _, _ = slot_of(worker, index)
        if kind == NOTIFY and notification not in elsewhere and valid(run, run_id, notification):
            run.control.q[c.H_EIO] += 1
            worker.others += 1
            answer_error(run, listener_of(run, run_id), notification, EIO)
    run.answered += worker.head - worker.others


def _survive(run: Run, was_ready: bool, own: bool) -> None:
    """Without a worker nothing is answered, so the last one is replaced at once, without asking the monitor;
    so is one of the first that somebody else killed while it served.

    Workers that die before they are ready are a fault of ours or of this host: the run ends (I1).  One kill -9
    from outside after the other is not, unless it never ends.
    """
    run.boot_failures = 0 if was_ready else run.boot_failures + (FOREIGN_KILLS if own else 1)
    few = was_ready and not own and len(run.workers) < run.control.q[c.H_NPROC]
    if run.ended or (run.ready and not few):
        return
    if run.boot_failures >= BOOT_FAILURES * FOREIGN_KILLS:
        os.write(2, b"syd-pool: no worker can start here; `syd-pool check` may tell why\n")
        run.status, run.ended, run.reason = EXIT_NO_WORKER, True, "setup"
        return
    try:
        spawn_worker(run)
    except OSError as error:  # the command may have every process of its user: the monitor asks again, calls wait
        run.log("worker", run.eldest, "cannot be replaced yet", str(error))


def _crashed(status: int) -> bool:
    """Did it die of its own making (poison), or was it killed by somebody?"""
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) in _CRASHES
    return os.WEXITSTATUS(status) not in (0, EXIT_BEHIND)


def _poison_key(kind: int, tgid: int, nr: int) -> tuple[int, int]:
    """(program, number): whose call it is; a verification belongs to the call it comes after."""
    return subject(tgid), events.DONE.get(kind, nr)


def _blame(run: Run, worker: Worker, index: int) -> None:
    """Count a crash against the call in hand: two, and the same program's same call is denied from now on (G5)."""
    kind, _, _, _, _, nr, tgid = slot_of(worker, index)
    key = _poison_key(kind, tgid, nr)
    run.deaths[key] = run.deaths.get(key, 0) + 1
    if run.deaths[key] == POISON_DEATHS:
        run.poisoned.add(key)
        run.control.q[c.H_DENIED] += 1
        name = NAME.get(key[1], "?")
        run.log("poison", tgid, f"{name} has cost {POISON_DEATHS} workers", "this program's are denied from now on")


def _settle_call(run: Run, worker: Worker, index: int, blame: bool, closed: bool) -> None:
    """The call a dead worker had in hand, by the phase it had announced."""
    kind, run_id, deaths, notification, tid, nr, tgid = slot_of(worker, index)
    cost = CRASH if blame else 1
    crashes, foreign = divmod(deaths + cost, CRASH)
    poison = crashes >= POISON_DEATHS or (blame and _poison_key(kind, tgid, nr) in run.poisoned)
    if not poison and foreign >= FOREIGN_DEATHS:
        poison = True
        run.log("poison", tid, f"{NAME.get(nr, '?')} has met {foreign} workers that were killed", "it is denied")
    if kind != NOTIFY:
        task = run.held.pop((worker.pid, index), None) if poison else None
        if task is not None:
            events.on_verdict(run, task, kind, EACCES, (), "no worker lived to judge what it did")
        else:
            again(run, worker, index, cost)
        return
    listener = listener_of(run, run_id)
    words = worker.page.q
    if closed:
        return
    word = words[W_PHASE]
    phase = word & 0xFF if word >> 8 == index else 0
    if not notify.valid(listener, notification):
        if phase & DESCRIPTOR:
            _unknown(run, tid, nr, tgid)
        run.gone += 1
        return
    number = number_of(words[W_NUMBER], index)
    if number < 0:
        number = _deposited(worker, index, tid)
    if number >= 0:
        answer_value(run, listener, notification, number)
    elif phase & EFFECT:  # HANDED alone: its descriptor was not taken, else the slot would be settled
        run.control.q[c.H_EIO] += 1
        run.log("outcome", tid, f"worker {worker.pid} died during {NAME.get(nr, '?')}", "answered EIO")
        answer_error(run, listener, notification, EIO)
    elif poison:
        answer_error(run, listener, notification, EACCES)
    else:
        again(run, worker, index, cost)


def _deposited(worker: Worker, index: int, tid: int) -> int:
    """Two-step: it died before it published a number.  Where does the caller have the file it was installing?  Or -1.

    The file was opened for this call alone, and kcmp(2) tells open files apart, not names: whatever the caller has of
    it, it has from this ADDFD.  It cannot come any more: the kernel takes a dead worker's request back.
    """
    if worker.vault is None:
        return -1
    try:
        data, fd = receive_fd(worker.vault, 8, MSG_DONTWAIT)
    except OSError:
        return -1  # nothing is there
    try:
        if int.from_bytes(data, "little") != index:
            return -1
        theirs = sorted(int(name) for name in os.listdir(f"/proc/{tid}/fd"))
        return next((number for number in theirs if same_file(fd, tid, number)), -1)
    except OSError:  # the caller has died, or there is no kcmp(2)
        return -1
    finally:
        os.close(fd)


def _unknown(run: Run, tid: int, nr: int, tgid: int) -> None:
    """Died in ADDFD+SEND: its caller may have been told `descriptor 0`.  It must not run on (I2, mode send)."""
    run.control.q[c.H_UNKNOWN] += 1
    why = "a worker died while it installed a descriptor, and what the caller was told is unknown"
    kill_caller(run, tgid, tid, nr, why, "use --fd-answers two-step or strict where workers are killed")
