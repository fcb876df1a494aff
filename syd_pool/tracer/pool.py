"""The pool as the tracer sees it: fork, retire, kill; completions; and what to do with a dead worker's calls.

spawn_worker --> STARTING --C_READY--> READY <--C_MAY_BLOCK / C_UNBLOCKED--> BLOCKED
                                         |
                    retire_worker: RETIRING        any death: reap_worker --> DEAD
"""

from __future__ import annotations

import os
from errno import EACCES, EINTR, EIO, EPERM
from time import monotonic_ns

from syd_pool.emulate.resume import send_continue
from syd_pool.emulate.table import IDENTITY
from syd_pool.linux import notify
from syd_pool.linux.numbers import NR
from syd_pool.linux.signals import SIGKILL, SIGUSR1
from syd_pool.linux.sockets import receive_fd, seqpacket_pair
from syd_pool.shm import control as c
from syd_pool.shm.ring import (
    C_CHROOT,
    C_COMMAND,
    C_DESCRIPTOR,
    C_EXIT,
    C_IDENTITY,
    C_INTERRUPTED,
    C_MAY_BLOCK,
    C_READY,
    C_TRACEME,
    C_UNBLOCKED,
    C_VERDICT,
    COMPLETION,
    COMPLETION_SIZE,
    COMPLETIONS,
    DESCRIPTOR,
    EFFECT,
    F_CHROOTED,
    HEADER,
    INSTALLED,
    NOTIFY,
    Q_ACK,
    Q_READ,
    Q_SKIP,
    Q_STOP,
    S_HEAD,
    S_NOTIF,
    SLOT_SIZE,
    SLOTS,
    W_ANSWERED,
    W_COMPLETED,
    W_DONE,
    W_GONE,
    W_NUMBER,
    W_PHASE,
    W_READY,
    W_TAKEN,
    count_of,
    counts,
    create_request,
    create_worker_page,
)
from syd_pool.tracer import commands, events, ghost, ptrace, watch
from syd_pool.tracer.dispatch import _close, again, answer_error, answer_value, flush_backlog
from syd_pool.tracer.state import Run, Worker
from syd_pool.tracer.tasks import adopt, note_identity, subject
from syd_pool.worker.main import Birth
from syd_pool.worker.main import run as run_worker

POISON_DEATHS = 2
BOOT_FAILURES = 3
FOREIGN_KILLS = 300  # ... of workers that are not ready yet count as one such failure
EXIT_NO_WORKER = 70  # EX_SOFTWARE
_IDENTITY = frozenset(NR[name] for name in IDENTITY)
_CHROOT, _PTRACE = NR["chroot"], NR["ptrace"]
# deaths of a worker's own making; a foreign SIGKILL blames nobody
_CRASHES = (4, 6, 7, 8, 11, 31)  # ILL, ABRT, BUS, FPE, SEGV, SYS


def spawn_worker(run: Run) -> Worker:
    """Fork one worker.  Raises OSError when there is no process, memory or descriptor for it."""
    index = run.slots.index(None) if None in run.slots else len(run.slots)
    if index >= c.RECORDS:
        raise OSError(11, "pool: every record is used")
    generation = run.generations[index] = run.generations.get(index, 0) + 1
    ours, theirs = seqpacket_pair()
    request, page = create_request(), create_worker_page()
    bell = os.eventfd(0, os.EFD_CLOEXEC)
    cpu = run.cpus[index % len(run.cpus)]
    worker = Worker(index, generation, request, page, bell, ours, cpu)
    birth = Birth()
    birth.request, birth.page, birth.bell, birth.back_bell = request.fd, page.fd, bell, run.back_bell
    birth.control, birth.socket, birth.log, birth.cpu = run.control.fd, theirs, run.log_in, cpu
    birth.parent, birth.answers, birth.rules = os.getpid(), run.config.fd_answers, run.config.rules
    birth.handlers, birth.confine, birth.capabilities = run.handlers, run.confine, run.capabilities
    birth.journal, birth.position = run.journal.fd if run.journal is not None else -1, run.position
    try:
        pid = os.fork()
    except OSError:
        for fd in (bell, request.fd, page.fd, ours.detach(), theirs.detach()):
            os.close(fd)
        request.close()
        page.close()
        raise
    if pid == 0:
        run_worker(birth)
    theirs.close()
    ours.setblocking(False)
    os.close(request.fd)
    worker.pid = pid
    worker.record = c.record(index)
    if index == len(run.slots):
        run.slots.append(worker)
    else:
        run.slots[index] = worker
    run.workers[pid] = worker
    c.enter(run.control, index, pid, generation, monotonic_ns(), cpu + 1)
    run.control.q[c.H_SPAWNED] += 1
    rank(run)
    watch.new_worker(run, worker)
    return worker


def rank(run: Run) -> None:
    """Which workers take slots, and which one is asked first on each CPU."""
    run.ready = [w for w in run.workers.values() if w.open]
    run.by_cpu = [None] * len(run.by_cpu)
    for worker in reversed(run.ready):
        run.by_cpu[worker.cpu] = worker


def close_worker(run: Run, worker: Worker, state: int) -> None:
    """No more new slots for this worker."""
    worker.open = False
    c.change(run.control, worker.index, state, monotonic_ns())
    rank(run)


def retire_worker(run: Run, worker: Worker) -> None:
    """Let it finish what it holds, then exit."""
    if not worker.open or len(run.ready) < 2:
        return
    close_worker(run, worker, c.RETIRING)
    worker.request.q[Q_STOP] = 1
    os.eventfd_write(worker.bell, 1)
    run.control.q[c.H_RETIRED] += 1


def kill_worker(run: Run, worker: Worker, reason: int) -> None:
    """End a worker that is stuck; its calls are dealt with when it is reaped."""
    if worker.reason:
        return  # the monitor asks at every tick until it is reaped
    worker.reason = reason
    os.kill(worker.pid, SIGKILL)
    run.control.q[c.H_KILLED] += 1


def interrupt_worker(run: Run, worker: Worker, announcement: int) -> None:
    """End the blocking system call of a worker; repeated by the monitor until it is acknowledged."""
    if worker.blocked == announcement:
        os.kill(worker.pid, SIGUSR1)


# --- completions -----------------------------------------------------------------------------------


def on_completions(run: Run) -> None:
    """The back bell rang: act on every completion published."""
    os.eventfd_read(run.back_bell)
    for worker in list(run.workers.values()):
        read_completions(run, worker)
    if run.backlog:
        flush_backlog(run)


class Lie(Exception):
    """A worker claims what cannot be (I9, F10).  Says what; it is killed and nothing of it believed."""


def read_completions(run: Run, worker: Worker, alive: bool = True) -> None:
    """Act on the completions of one worker, in order.  alive: False when it has been reaped."""
    if worker.lied:
        return
    try:
        audit(worker)
        _read_completions(run, worker)
    except Lie as lie:
        _disbelieve(run, worker, str(lie), alive)


def _disbelieve(run: Run, worker: Worker, what: str, alive: bool) -> None:
    """It dies, and nothing it said counts: _settle_liar() when it is reaped."""
    worker.lied = True
    close_worker(run, worker, c.RETIRING)
    run.log("worker", worker.pid, what, "killed")
    if alive:
        kill_worker(run, worker, 0)


def audit(worker: Worker) -> None:
    """Raises Lie when the words of its page cannot be."""
    words = worker.page.q
    if not 0 <= words[W_COMPLETED] - worker.read <= COMPLETIONS:
        raise Lie(f"published {words[W_COMPLETED]} completions where {worker.read} had been read")
    if words[W_DONE] > worker.head or words[W_TAKEN] > worker.head:
        raise Lie(f"finished {words[W_DONE]} of {worker.head} slots")
    answered = count_of(words[W_ANSWERED]) + count_of(words[W_GONE])
    if answered > worker.head:
        raise Lie(f"answered {answered} of {worker.head} calls")


def _read_completions(run: Run, worker: Worker) -> None:
    while worker.read < worker.page.q[W_COMPLETED]:
        at = HEADER + worker.read % COMPLETIONS * COMPLETION_SIZE
        record = bytes(worker.page.b[at : at + COMPLETION_SIZE])  # once
        worker.read += 1
        worker.request.q[Q_READ] = worker.read
        kind, errno, index, *words, _ = COMPLETION.unpack(record)
        act = _ON.get(kind)
        if act is None:
            raise Lie(f"completion of kind {kind:#x}")
        act(run, worker, index, errno, words)


def _own_call(worker: Worker, index: int) -> tuple[int, int, int, int, int, int, int]:
    """_slot() of a call that this worker may still speak for.  Raises Lie."""
    if not max(worker.settled + 1, worker.head - SLOTS, 0) <= index < worker.head:
        raise Lie(f"speaks for slot {index}, which is not its own")
    slot = _slot(worker, index)
    if slot[0] != NOTIFY:
        raise Lie(f"speaks for slot {index}, which is no call")
    return slot


def _slot(worker: Worker, index: int) -> tuple[int, int, int, int, int, int, int]:
    """(kind, run id, again, notification, tid, number, tgid) of a slot, from our own memory."""
    at = HEADER + index % SLOTS * SLOT_SIZE
    kind, run_id, _, _, tgid, _, _, deaths = S_HEAD.unpack_from(worker.request.b, at)
    notification, tid, _, nr, *_ = notify.NOTIF.unpack_from(worker.request.b, at + S_NOTIF)
    return kind, run_id, deaths, notification, tid, nr, tgid


def is_notification(worker: Worker, index: int) -> bool:
    """Is slot `index` a call received from a listener (and not a judgement for a stop)?"""
    return _slot(worker, index)[0] == NOTIFY


def calls_in_flight(worker: Worker) -> list[int]:
    """Slots of notifications that a worker holds and has not counted as answered or gone."""
    return [i for i in worker.in_flight() if is_notification(worker, i) and not is_closed(worker, i)]


def balance(run: Run) -> tuple[int, int]:
    """(calls closed, calls in flight): together what was received, although the workers go on meanwhile."""
    closed = run.answered + run.gone
    in_flight = sum(kind == NOTIFY for kind, *_ in run.backlog) + len(run.asked)
    for worker in run.workers.values():
        words = worker.page.q
        while True:  # until nothing moved while we looked: one worker's call takes longer than this
            before = words[W_ANSWERED], words[W_GONE], words[W_DONE]
            held = len(calls_in_flight(worker))
            if (words[W_ANSWERED], words[W_GONE], words[W_DONE]) == before:
                break
        closed += count_of(before[0]) + count_of(before[1])
        in_flight += held
    return closed, in_flight


def find_omission(run: Run) -> None:
    """A worker that has finished a call and not answered it: whoever made it still waits (F10).

    Called now and then; costs nothing while the ledger balances.
    """
    if run.ended or run.ghost or sum(balance(run)) == run.received:
        return
    for worker in list(run.workers.values()):
        done = worker.page.q[W_DONE]
        read_completions(run, worker)  # what it has handed to us was published before `done`
        for index in range(max(0, worker.head - SLOTS), min(done, worker.head)):
            kind, run_id, _, notification, _, _, _ = _slot(worker, index)
            if kind == NOTIFY and notification not in _waiting_for(run) and _valid(run, run_id, notification):
                _disbelieve(run, worker, f"finished slot {index} without an answer", True)
                break


def _valid(run: Run, run_id: int, notification: int) -> bool:
    return notify.valid(_listener(run, run_id), notification)


def _waiting_for(run: Run) -> set[int]:
    """Notifications that somebody is at, or that wait for room."""
    held = {_slot(worker, i)[3] for worker in run.workers.values() for i in calls_in_flight(worker)}
    return held | {int.from_bytes(entry[3][:8], "little") for entry in run.backlog}


def is_closed(worker: Worker, index: int) -> bool:
    """Has the slot it did not finish been counted as answered or gone all the same?"""
    words = worker.page.q
    return counts(words[W_ANSWERED], index) or counts(words[W_GONE], index) or worker.settled == index


def _listener(run: Run, run_id: int) -> int:
    return next(fd for fd, number in run.listeners.items() if number == run_id)


def _on_ready(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    if worker.open:
        c.change(run.control, worker.index, c.READY, monotonic_ns())


def _on_verdict(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    kind = _slot(worker, index)[0]
    if not worker.settled < index < worker.head or kind == NOTIFY:
        raise Lie(f"judges slot {index}, which is no stop of its own")
    worker.settled = index
    task = run.held.pop((worker.pid, index), None)
    if task is not None:  # else it died in its stop
        events.on_verdict(run, task, kind, errno, tuple(words[:4]))


def _on_may_block(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    """It will be in the kernel for long: its untaken slots go elsewhere, and the pool may have to grow."""
    if _own_call(worker, index)[4] != words[1] or worker.blocked or index < worker.skip:
        raise Lie("announces a call that is not its own")
    worker.blocked, worker.block_index = words[0], index
    worker.open = False
    rank(run)
    run.blocks[worker.pid] = worker
    if (task := run.tasks.get(words[1])) is not None:
        task.interrupted = False  # what was left of an interrupt that met no signal
    c.block(run.control, worker.index, words[1], words[0], monotonic_ns())
    run.control.q[c.H_BLOCKED] += 1
    first, worker.skip = max(index + 1, worker.skip), worker.head
    for untaken in range(first, worker.head):
        again(run, worker, untaken, 0)
    worker.request.q[Q_SKIP] = worker.head
    worker.request.q[Q_ACK] = words[0]
    os.eventfd_write(worker.bell, 1)
    watch.wake(run)


def _on_unblocked(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    if not worker.blocked or worker.blocked != words[0]:
        raise Lie("ended a wait that it had not announced")
    worker.blocked = 0
    run.blocks.pop(worker.pid, None)
    worker.open = True
    c.change(run.control, worker.index, c.READY, monotonic_ns())
    rank(run)


def _on_interrupted(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    """Its blocking call ended with EINTR: the kernel decides between restart and EINTR (kernel-facts 3.5).

    Without ptrace the caller cannot be made to look at its signals, and -ERESTARTSYS would leak: EINTR.
    """
    _, run_id, _, notification, tid, _, _ = _own_call(worker, index)
    if not worker.blocked or worker.blocked != words[0] or worker.block_index != index:
        raise Lie("was interrupted in a call that it had not announced")
    run.control.q[c.H_INTERRUPTED] += 1
    stopped = run.ptrace and ptrace.interrupt(tid)
    if stopped and (task := run.tasks.get(tid)) is not None:
        task.interrupted = True
    worker.settled = index
    answer_error(run, _listener(run, run_id), notification, events.ERESTARTSYS if stopped else EINTR)
    _on_unblocked(run, worker, index, errno, words)


def _on_descriptor(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    """strict: install the descriptor a worker hands over, if the call is its own (I9)."""
    try:
        data, fd = receive_fd(worker.socket, notify.ADDFD.size)
    except OSError:
        data, fd = b"", -1
    if fd < 0:
        raise Lie("announced a descriptor and sent none")
    try:
        _, run_id, _, notification, _, _, _ = _own_call(worker, index)
        if len(data) != notify.ADDFD.size or run.config.fd_answers != "strict":
            raise Lie("handed over a descriptor without a call")
        claimed, _, _, _, fd_flags = notify.ADDFD.unpack(data)
        if claimed != notification or not _installable(fd):
            raise Lie("handed over a descriptor for a call that is not its own")
        listener = _listener(run, run_id)
        worker.settled = index
        try:
            flags = notify.SECCOMP_ADDFD_FLAG_SEND
            _close(run, lambda: notify.add_fd(listener, notification, fd, fd_flags & os.O_CLOEXEC, flags))
        except OSError as error:
            answer_error(run, listener, notification, error.errno or EIO)
    finally:
        os.close(fd)


def _installable(fd: int) -> bool:
    """Can a call that opens give this?  Never a socket, and nothing anonymous: a listener, an eventfd, a pidfd."""
    kind = os.fstat(fd).st_mode & 0o170000
    return kind not in (0, 0o140000)


def _on_identity(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    """The caller changes its identity: note it, then let the kernel do it."""
    _, run_id, _, notification, tid, nr, _ = _own_call(worker, index)
    if nr not in _IDENTITY:
        raise Lie(f"has system call {nr} continued")
    note_identity(run, adopt(run, tid))
    worker.settled = index
    _close(run, lambda: send_continue(_listener(run, run_id), notification, nr))


def _on_chroot(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    """chroot(2) is never performed: whatever is judged from here on finds the file system closed."""
    _, run_id, _, notification, _, nr, _ = _own_call(worker, index)
    if nr != _CHROOT:
        raise Lie(f"has system call {nr} answered as chroot")
    run.facts |= F_CHROOTED
    worker.settled = index
    answer_value(run, _listener(run, run_id), notification, 0)


def _on_command(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    """The caller speaks to its sandbox.  Who it is and what it says is in our own slot and its memory (I9)."""
    _, run_id, _, notification, tid, nr, tgid = _own_call(worker, index)
    if nr not in commands.CALLS:
        raise Lie(f"takes system call {nr} for a command")
    at = HEADER + index % SLOTS * SLOT_SIZE + S_NOTIF
    args = notify.NOTIF.unpack_from(worker.request.b, at)[6:]
    worker.settled = index
    commands.serve(run, _listener(run, run_id), notification, tid, tgid, nr, args)


def _on_traceme(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    """PTRACE_TRACEME: never performed, we are the tracer; 0, and EPERM to a thread that was told so already."""
    _, run_id, _, notification, tid, nr, _ = _own_call(worker, index)
    if nr != _PTRACE:
        raise Lie(f"has system call {nr} answered as ptrace")
    worker.settled = index
    task, listener = adopt(run, tid), _listener(run, run_id)
    if task.traceme:
        answer_error(run, listener, notification, EPERM)
    else:
        task.traceme = True
        answer_value(run, listener, notification, 0)


def _on_exit(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    """Action `exit`: the run ends with the errno."""
    run.status, run.ended, run.reason = errno, True, "policy"


_ON = {
    C_READY: _on_ready,
    C_VERDICT: _on_verdict,
    C_MAY_BLOCK: _on_may_block,
    C_UNBLOCKED: _on_unblocked,
    C_INTERRUPTED: _on_interrupted,
    C_DESCRIPTOR: _on_descriptor,
    C_IDENTITY: _on_identity,
    C_CHROOT: _on_chroot,
    C_COMMAND: _on_command,
    C_TRACEME: _on_traceme,
    C_EXIT: _on_exit,
}


# --- death -----------------------------------------------------------------------------------------


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
    was_ready = words[W_READY] == 1
    key = _settle_liar(run, worker) if worker.lied else _settle_calls(run, worker, status)
    if not retired and not run.ended:
        run.control.q[c.H_DIED] += 1
    run.slots[worker.index] = None
    watch.dead_worker(run, worker, status, key)
    for fd in (worker.bell, worker.page.fd):
        os.close(fd)
    worker.socket.close()
    worker.request.close()
    worker.page.close()
    if run.ghost:
        ghost.let_go(run)
    else:
        _survive(run, was_ready, _crashed(status) or worker.reason != 0)


def _settle_calls(run: Run, worker: Worker, status: int) -> int:
    """What a worker held that has told the truth.  Returns the poison key, 0 if no call is to blame."""
    words = worker.page.q
    run.answered += count_of(words[W_ANSWERED])
    run.gone += count_of(words[W_GONE])
    blame = _crashed(status) or worker.reason != 0
    in_hand = words[W_TAKEN] - 1
    calls = worker.in_flight()
    key = _blame(run, worker, in_hand) if blame and in_hand in calls else 0
    for index in calls:
        if index == in_hand:
            _settle_call(run, worker, index, blame)
        else:
            again(run, worker, index, 0)
    return key


def _settle_liar(run: Run, worker: Worker) -> int:
    """What a worker held whose words are worth nothing: every call of its ring that still waits gets EIO.

    How many it had answered cannot be asked, but whatever is in flight nowhere then has been closed.
    """
    for _, index in [key for key in run.held if key[0] == worker.pid]:
        again(run, worker, index, 0)  # a judgement: another worker makes it
    elsewhere = _waiting_for(run)
    words = worker.page.q
    in_hand = words[W_TAKEN] - 1
    if words[W_PHASE] == in_hand << 8 | DESCRIPTOR and 0 <= in_hand < worker.head and not is_closed(worker, in_hand):
        _unknown(run, _slot(worker, in_hand)[6])
    for index in range(max(0, worker.head - SLOTS), worker.head):
        kind, run_id, _, notification, _, _, _ = _slot(worker, index)
        if kind == NOTIFY and notification not in elsewhere and _valid(run, run_id, notification):
            run.control.q[c.H_EIO] += 1
            answer_error(run, _listener(run, run_id), notification, EIO)
    closed, in_flight = balance(run)
    run.answered += run.received - in_flight - closed
    return 0


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
    spawn_worker(run)


def _crashed(status: int) -> bool:
    """Did it die of its own making (poison), or was it killed by somebody?"""
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) in _CRASHES
    return os.WEXITSTATUS(status) != 0


def _blame(run: Run, worker: Worker, index: int) -> int:
    """Count a crash against the call in hand: two, and the same program's same call is denied from now on (G5)."""
    _, _, _, _, _, nr, tgid = _slot(worker, index)
    key = subject(tgid), nr
    run.deaths[key] = run.deaths.get(key, 0) + 1
    if run.deaths[key] == POISON_DEATHS:
        run.poisoned.add(key)
        run.control.q[c.H_DENIED] += 1
        run.log("poison", tgid, f"system call {nr} has cost {POISON_DEATHS} workers", "denied from now on")
    return watch.poison_key(*key)


def _settle_call(run: Run, worker: Worker, index: int, blame: bool) -> None:
    """The call a dead worker had in hand, by the phase it had announced."""
    kind, run_id, deaths, notification, tid, nr, tgid = _slot(worker, index)
    poison = blame and (deaths + 1 >= POISON_DEATHS or (subject(tgid), nr) in run.poisoned)
    if kind != NOTIFY:
        task = run.held.pop((worker.pid, index), None) if poison else None
        if task is not None:
            events.on_verdict(run, task, kind, EACCES, ())
        else:
            again(run, worker, index, blame)
        return
    listener = _listener(run, run_id)
    words = worker.page.q
    if is_closed(worker, index):
        return  # it died between the answer and W_DONE
    word = words[W_PHASE]
    phase = word & 0xFF if word >> 8 == index else 0
    if not notify.valid(listener, notification):
        if phase & DESCRIPTOR:
            _unknown(run, tgid)
        run.gone += 1
        return
    if phase & INSTALLED and worker.page.q[W_NUMBER] >> 32 == index & 0xFFFFFFFF:
        answer_value(run, listener, notification, worker.page.q[W_NUMBER] & 0xFFFFFFFF)
    elif phase & EFFECT:  # HANDED alone: its descriptor was not taken, else the slot would be settled
        run.control.q[c.H_EIO] += 1
        run.log("outcome", tid, f"worker {worker.pid} died during system call {nr}", "answered EIO")
        answer_error(run, listener, notification, EIO)
    elif poison:
        answer_error(run, listener, notification, EACCES)
    else:
        again(run, worker, index, blame)


def _unknown(run: Run, tgid: int) -> None:
    """Died in ADDFD+SEND: its caller may have been told `descriptor 0`.  It must not run on (I2, mode send)."""
    run.control.q[c.H_UNKNOWN] += 1
    run.innocent.add(tgid)
    try:
        os.kill(tgid, SIGKILL)
    except ProcessLookupError:
        run.innocent.discard(tgid)
        return
    run.log("outcome", tgid, "a worker died while installing a descriptor", "killed; see --fd-answers")
