"""The pool as the tracer sees it: fork, retire, kill; and what its workers say, as far as it can be true (I9).

spawn_worker --> STARTING --C_READY--> READY <--C_MAY_BLOCK / C_UNBLOCKED--> BLOCKED
                                         |
                    retire_worker: RETIRING        any death: deaths.reap_worker --> DEAD
"""

from __future__ import annotations

import os
from errno import EINTR, EIO, EPERM
from time import monotonic_ns

from syd_pool.emulate.resume import send_continue
from syd_pool.emulate.table import IDENTITY
from syd_pool.linux import notify, proc
from syd_pool.linux.numbers import NR
from syd_pool.linux.signals import SIGKILL, SIGUSR1
from syd_pool.linux.sockets import datagram_pair, receive_fd, seqpacket_pair
from syd_pool.policy.forced import RANDOM
from syd_pool.shm import control as c
from syd_pool.shm.ring import (
    C_BOUND,
    C_CHROOT,
    C_COMMAND,
    C_CONNECTED,
    C_DESCRIPTOR,
    C_EXIT,
    C_IDENTITY,
    C_INTERRUPTED,
    C_KILLS,
    C_MAY_BLOCK,
    C_READY,
    C_TRACEME,
    C_UNBLOCKED,
    C_VERDICT,
    COMPLETION,
    COMPLETION_SIZE,
    COMPLETIONS,
    F_CHROOTED,
    HEADER,
    NOTIFY,
    Q_ACK,
    Q_READ,
    Q_SKIP,
    Q_STOP,
    SLOTS,
    W_ANSWERED,
    W_COMPLETED,
    W_DONE,
    W_GONE,
    W_TAKEN,
    create_request,
    create_worker_page,
)
from syd_pool.tracer import bound, commands, events, peers, ptrace, transits, watch
from syd_pool.tracer.dispatch import _close, again, answer_error, answer_value, flush_backlog
from syd_pool.tracer.ledger import args_of, balance, is_notification, listener_of, slot_of, valid, waiting_for
from syd_pool.tracer.state import Run, Worker
from syd_pool.tracer.tasks import adopt, note_identity
from syd_pool.worker.main import Birth
from syd_pool.worker.main import run as run_worker

_IDENTITY = frozenset(NR[name] for name in IDENTITY)
_BIND, _CHROOT, _CONNECT = NR["bind"], NR["chroot"], NR["connect"]
_PTRACE, _SYSLOG = NR["ptrace"], NR["syslog"]


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
    birth.run_id = run.config.run_id
    birth.handlers, birth.confine, birth.capabilities = run.handlers, run.confine, run.capabilities
    # Inherited: a user whose descriptors in flight are at their limit can be sent none (unix(7), ETOOMANYREFS).
    birth.listener = next(((number, fd) for fd, number in run.listeners.items()), None)
    if birth.listener is not None:
        worker.runs.add(birth.listener[0])
    birth.vault = datagram_pair() if run.config.fd_answers == "two-step" else None
    birth.peers = peers.page(run)
    birth.journal, birth.position = run.journal.fd if run.journal is not None else -1, run.position
    try:
        pid = run.fork(lambda: run_worker(birth))
    except OSError:
        for end in birth.vault or ():
            end.close()
        for fd in (bell, request.fd, page.fd, ours.detach(), theirs.detach()):
            os.close(fd)
        request.close()
        page.close()
        raise
    theirs.close()
    if birth.vault is not None:
        birth.vault[0].close()
        worker.vault = birth.vault[1]
    ours.setblocking(False)
    os.close(request.fd)
    peers.mark(run, pid)
    worker.pid = pid
    worker.record = c.record(index) + c.R_HEAD
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
    run.first = [w for w in run.ready if run.by_cpu[w.cpu] is w]


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
    """End a worker that is stuck; its calls are dealt with when it is reaped.

    The monitor asks again at every tick until then.  One that has not died by the second time sleeps where not even
    SIGKILL reaches it (FUSE, NFS): nobody else shall wait for it.
    """
    if worker.reason:
        _abandon(run, worker)
        return
    worker.reason = reason
    os.kill(worker.pid, SIGKILL)
    close_worker(run, worker, c.RETIRING)
    run.control.q[c.H_KILLED] += 1


def _abandon(run: Run, worker: Worker) -> None:
    """Dispatch again what it has not taken.  With SIGKILL pending it never returns from the kernel to take any."""
    words = worker.page.q
    taken = min(max(words[W_TAKEN], words[W_DONE]), worker.head)
    first, worker.skip = max(taken, worker.skip), worker.head
    if taken > words[W_DONE]:
        worker.block_index = taken - 1  # the call in hand stays its own
    for untaken in range(first, worker.head):
        worker.others += is_notification(worker, untaken)
        again(run, worker, untaken, 0)


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
    answered = words[W_ANSWERED] + words[W_GONE]
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
    """slot_of() of a call that this worker may still speak for.  Raises Lie."""
    if not max(worker.settled + 1, worker.head - SLOTS, 0) <= index < min(worker.head, worker.page.q[W_TAKEN]):
        raise Lie(f"speaks for slot {index}, which is not its own")
    slot = slot_of(worker, index)
    if slot[0] != NOTIFY:
        raise Lie(f"speaks for slot {index}, which is no call")
    return slot


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
            kind, run_id, _, notification, _, _, _ = slot_of(worker, index)
            if kind == NOTIFY and notification not in waiting_for(run) and valid(run, run_id, notification):
                _disbelieve(run, worker, f"finished slot {index} without an answer", True)
                break


def _settle(worker: Worker, index: int) -> None:
    """The tracer itself answers this call of the worker's."""
    worker.settled = index
    worker.others += 1


def _on_ready(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    if worker.open:
        c.change(run.control, worker.index, c.READY, monotonic_ns())


def _on_verdict(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    kind = slot_of(worker, index)[0]
    if not worker.settled < index < min(worker.head, worker.page.q[W_TAKEN]) or kind == NOTIFY:
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
        worker.others += is_notification(worker, untaken)
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
    _settle(worker, index)
    answer_error(run, listener_of(run, run_id), notification, events.ERESTARTSYS if stopped else EINTR)
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
        _, run_id, _, notification, _, nr, _ = _own_call(worker, index)
        if len(data) != notify.ADDFD.size or run.config.fd_answers != "strict":
            raise Lie("handed over a descriptor without a call")
        claimed, _, _, number, fd_flags = notify.ADDFD.unpack(data)
        if claimed != notification or not _installable(fd, nr) or (number and not run.config.rules.opens & RANDOM):
            raise Lie("handed over a descriptor for a call that is not its own")
        listener = listener_of(run, run_id)
        _settle(worker, index)
        try:
            flags = notify.SECCOMP_ADDFD_FLAG_SEND
            _close(run, lambda: notify.add_fd(listener, notification, fd, fd_flags & os.O_CLOEXEC, flags, number))
        except OSError as error:
            answer_error(run, listener, notification, error.errno or EIO)
    finally:
        os.close(fd)


def _installable(fd: int, nr: int) -> bool:
    """Can this call give this?  Who opens gets no socket; nobody what is anonymous: a listener, an eventfd, a pidfd."""
    kind = os.fstat(fd).st_mode & 0o170000
    return kind == _SOCKET if nr in _MAKES_SOCKETS else kind not in (0, _SOCKET)


_SOCKET = 0o140000
_MAKES_SOCKETS = (NR["socket"], NR["accept"], NR["accept4"])


def _on_identity(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    """The caller changes its identity: note it, then let the kernel do it."""
    _, run_id, _, notification, tid, nr, _ = _own_call(worker, index)
    if nr not in _IDENTITY:
        raise Lie(f"has system call {nr} continued")
    _settle(worker, index)
    if errno := transits.refusal(run, tid, nr, args_of(worker, index)):
        answer_error(run, listener_of(run, run_id), notification, errno)
        return
    note_identity(run, adopt(run, tid))
    _close(run, lambda: send_continue(listener_of(run, run_id), notification, nr))


def _on_chroot(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    """chroot(2) is never performed: whatever is judged from here on finds the file system closed."""
    _, run_id, _, notification, _, nr, _ = _own_call(worker, index)
    if nr != _CHROOT:
        raise Lie(f"has system call {nr} answered as chroot")
    run.facts |= F_CHROOTED
    _settle(worker, index)
    answer_value(run, listener_of(run, run_id), notification, 0)


def _on_command(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    """The caller speaks to its sandbox.  Who it is and what it says is in our own slot and its memory (I9)."""
    _, run_id, _, notification, tid, nr, tgid = _own_call(worker, index)
    if nr == _SYSLOG and run.log_ring is not None:
        from syd_pool.tracer import syslog

        _settle(worker, index)
        eldest = commands.is_eldest(run, tid, tgid)
        syslog.serve(run, listener_of(run, run_id), notification, tid, eldest, args_of(worker, index))
        return
    if nr not in commands.CALLS:
        raise Lie(f"takes system call {nr} for a command")
    _settle(worker, index)
    commands.serve(run, listener_of(run, run_id), notification, tid, tgid, nr, args_of(worker, index))


def _on_traceme(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    """PTRACE_TRACEME: not performed while we are the tracer; 0, and EPERM to a thread that was told so already.

    With a debugger of the command's own (trace/allow_unsafe_ptrace) it is, where the debugger is none of us.
    """
    _, run_id, _, notification, tid, nr, _ = _own_call(worker, index)
    if nr != _PTRACE:
        raise Lie(f"has system call {nr} answered as ptrace")
    _settle(worker, index)
    task, listener = adopt(run, tid), listener_of(run, run_id)
    if not run.ptrace and run.config.signal_scope and _parent_of(tid) not in (0, os.getpid(), os.getppid()):
        _close(run, lambda: send_continue(listener, notification, nr))
    elif task.traceme:
        answer_error(run, listener, notification, EPERM)
    else:
        task.traceme = True
        answer_value(run, listener, notification, 0)


def _parent_of(tid: int) -> int:
    """The parent of a thread's process, 0 when it is gone."""
    try:
        return int(proc.field(proc.status(tid), b"PPid:"))
    except OSError:
        return 0


def _on_bound(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    """bind(2) has succeeded: others may connect there from the answer on (trace/allow_safe_bind)."""
    try:
        path = worker.socket.recv(bound.LONGEST)
    except OSError:
        path = b""
    _, run_id, _, notification, tid, nr, tgid = _own_call(worker, index)
    if nr != _BIND or not path or not run.config.rules.option("trace/allow_safe_bind"):
        raise Lie(f"has system call {nr} answered as bind")
    bound.note(run, tid, tgid, args_of(worker, index)[0] & 0xFFFFFFFF, path)
    _settle(worker, index)
    answer_value(run, listener_of(run, run_id), notification, 0)


def _on_connected(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    """connect(2) of a Unix socket has succeeded: whose it is.  The caller is answered by the worker."""
    _, _, _, _, _, nr, tgid = _own_call(worker, index)
    if nr != _CONNECT or not words[0]:
        raise Lie(f"has system call {nr} taken for connect")
    peers.note(run, tgid, words[0], words[1], words[2])


def _on_kills(run: Run, worker: Worker, index: int, errno: int, words: list[int]) -> None:
    """The rules kill the caller of a call, or of a judgement: SegvGuard has to tell that from a foreign SIGKILL."""
    if not max(worker.settled + 1, worker.head - SLOTS, 0) <= index < min(worker.head, worker.page.q[W_TAKEN]):
        raise Lie(f"kills the caller of slot {index}, which is not its own")
    tgid = slot_of(worker, index)[6]
    if tgid in run.tasks:
        run.condemned.add(tgid)


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
    C_BOUND: _on_bound,
    C_CONNECTED: _on_connected,
    C_TRACEME: _on_traceme,
    C_KILLS: _on_kills,
    C_EXIT: _on_exit,
}
