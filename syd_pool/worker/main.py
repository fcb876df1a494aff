"""syd_emu: the emulator worker.

    tracer --slots--> [ take | look up handler | judge, perform | answer ] --completions--> tracer
                                 |                       |
                        caller's memory             listener (SEND, ADDFD)

Who talks to it: the tracer, by its request ring, its socket (OPEN and CLOSE of runs) and a signal that
interrupts a blocking call; the monitor only looks at its page.
Guarantees: every slot it finishes raises W_DONE by one, in order; a plain value is answered before that;
whatever it could not repeat was announced first (ring.py phases).  It holds the only knowledge of nothing:
if it dies, the tracer dispatches or answers what it held.
Writes: the words W_* of its own page, nothing else that is shared.
"""

from __future__ import annotations

import gc
import os
import sys
from errno import EACCES, EIO, ENOENT, ENOSYS
from fcntl import ioctl

from syd_pool.emulate.identity import groups_permitted
from syd_pool.emulate.judge import SIGKILL, send_signal
from syd_pool.emulate.table import IDENTITY, SIGNALS, in_force
from syd_pool.linux import caps
from syd_pool.linux.libc import AT_EACCESS, close_all_but, die_with_parent, set_name
from syd_pool.linux.notify import (
    AUDIT_ARCH_X86_64,
    SECCOMP_IOCTL_NOTIF_SEND,
    Gone,
)
from syd_pool.linux.numbers import NR
from syd_pool.linux.signals import SIGUSR1, block_all, signal
from syd_pool.linux.unix_diag import open_diag
from syd_pool.policy.live import replay
from syd_pool.policy.lock import ON
from syd_pool.shm.control import OwnPids, map_control
from syd_pool.shm.journal import map_journal, since
from syd_pool.shm.peers import map_peers
from syd_pool.shm.ring import (
    C_READY,
    C_VERDICT,
    CHDIR,
    CHDIR_DONE,
    EXEC,
    EXEC_DONE,
    EXIT_BEHIND,
    F_CHROOTED,
    HEADER,
    MAP,
    MAP_DONE,
    NOTIFY,
    Q_ACK,
    Q_BELL,
    Q_HEAD,
    Q_SKIP,
    Q_STOP,
    REQUEST_SIZE,
    SLOT_FIELDS,
    SLOT_SIZE,
    SLOTS,
    TAKEN,
    W_ANSWERED,
    W_DONE,
    W_READY,
    W_TAKEN,
    WORKER_SIZE,
    Ring,
)
from syd_pool.worker import creds, lookup, memory
from syd_pool.worker.caller import Caller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as socket_type
    from collections.abc import Callable
    from typing import NoReturn, TypeVar

    from syd_pool.emulate.call import Call
    from syd_pool.policy import Ruleset

    Handler = Callable[[Call], int | None]
    Verdict = tuple[int, tuple[int, int, int, int]]  # errno, two (dev, ino)
    Answer = TypeVar("Answer")

EXIT_BUG = 70  # EX_SOFTWARE: a handler raised what it must not


class Birth:
    """What a worker is born with.  Everything else it inherited is closed or unmapped.

    request, page   memfds of its rings
    bell            eventfd it waits on; back_bell: eventfd of the tracer
    socket          SEQPACKET to the tracer; log: datagram socket to the log writer, or None
    cpu             CPU to be pinned to, or -1
    answers         mode of descriptor answers: "send", "two-step", "strict"
    """

    __slots__ = (
        "answers",
        "back_bell",
        "bell",
        "capabilities",
        "confine",
        "control",
        "cpu",
        "handlers",
        "journal",
        "listener",
        "log",
        "page",
        "parent",
        "peers",
        "position",
        "request",
        "rules",
        "run_id",
        "socket",
        "vault",
    )
    request: int
    page: int
    bell: int
    back_bell: int
    socket: socket_type
    log: socket_type | None
    control: int  # memfd of the control page
    cpu: int
    parent: int
    journal: int  # memfd of the journal, -1 where the rules cannot change
    peers: int  # memfd of who connected, -1 where connect(2) is native
    listener: tuple[int, int] | None  # (run, its listener) where there is one already: no OPEN comes for it
    position: int  # of the journal that `rules` are at
    vault: tuple[socket_type, socket_type] | None  # two-step: a queue for the file that is being installed
    answers: str
    rules: Ruleset
    run_id: str
    handlers: dict[int, Handler]
    capabilities: tuple[int, int] | None  # (effective, permitted) to act with; None only in tests
    confine: Callable[[], None] | None  # installs the worker's own filter; None only in tests


def handlers(rules: Ruleset, identity: bool, scoped: bool, null: bool) -> dict[int, Handler]:
    """Number to function for every row in force; imports the families that are needed and no other.

    Called by the tracer before it forks, so that the imports are paid once.
    """
    table: dict[int, Handler] = {}
    for name, _, _, where, _ in in_force(rules, identity, scoped):
        if where:
            module, function = where.split(":")
            family = __import__("syd_pool.emulate." + module, fromlist=[function])
            table[NR[name]] = getattr(family, function)
    if null:
        table[NR["getppid"]] = _null
    return table


def _null(call: Call) -> int:
    """The test-only call that is answered without work (scripts/bench --callers)."""
    return 42


def run(birth: Birth) -> NoReturn:
    """Be a worker until told to stop; never returns."""
    try:
        caller, request = _settle(birth)
        serve(caller, request, birth)
    except BaseException:
        _last_words()
        os._exit(EXIT_BUG)
    os._exit(0)


def _settle(birth: Birth) -> tuple[Caller, Ring]:
    """From a fork of the tracer to a confined worker: descriptors, mappings, filter."""
    set_name("syd_emu")
    die_with_parent(birth.parent)
    signal(SIGUSR1, _woken)
    block_all()
    if birth.cpu >= 0:
        os.sched_setaffinity(0, {birth.cpu})
    keep = {2, birth.control, birth.request, birth.page, birth.bell, birth.back_bell, birth.socket.fileno()}
    if birth.listener is not None:
        keep.add(birth.listener[1])
    if birth.log is not None:
        keep.add(birth.log.fileno())
    keep.update(end.fileno() for end in birth.vault or ())
    for fd in (birth.journal, birth.peers):
        if fd >= 0:
            keep.add(fd)
    close_all_but(keep)
    os.chdir("/")
    umask = os.umask(0)
    if birth.capabilities is not None:
        caps.put_on(*birth.capabilities)
    page = Ring(birth.page, WORKER_SIZE, True)
    request = Ring(birth.request, REQUEST_SIZE, False)
    os.close(birth.page)
    os.close(birth.request)
    caller = Caller(page, request, birth.back_bell, birth.socket, birth.log, birth.answers)
    caller.vault = birth.vault
    caller.umasks = {0: umask}
    caller.execs_wait = NR["execve"] in birth.handlers and not birth.rules.option("trace/allow_unsafe_ptrace")
    caller.rules, caller.run_id = birth.rules, birth.run_id
    caller.magic = birth.rules.lock != ON
    if birth.journal >= 0:
        caller.journal = map_journal(birth.journal)
        os.close(birth.journal)
    if birth.peers >= 0:
        caller.peers = map_peers(birth.peers), open_diag()
        os.close(birth.peers)
    caller.own_pids = OwnPids(map_control(birth.control))
    os.close(birth.control)
    mode = birth.rules.option("trace/memory_access")
    memory.use(mode if isinstance(mode, int) else 2)
    caller.find = lookup.find
    caller.entry = lookup.entry
    gc.collect()
    gc.freeze()
    if birth.confine is not None:
        birth.confine()
    page.q[W_READY] = 1
    caller.complete(C_READY, 0)
    return caller, request


def _woken(_signal: int, _frame: object) -> None:
    """SIGUSR1 only has to end a blocking system call."""


def _last_words() -> None:
    """What went wrong, on stderr: a bug of ours must be seen."""
    kind, error, trace = sys.exc_info()
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
    os.write(2, f"syd-pool: worker {os.getpid()}: {kind and kind.__name__}: {error} at {where}\n".encode())


def serve(caller: Caller, request: Ring, birth: Birth) -> None:
    """Take slots in order until Q_STOP and nothing is left."""
    head, slots = request.q, request.b
    words, bell, back_bell = caller.words, birth.bell, birth.back_bell
    table, listeners = birth.handlers, {0: -1}
    if birth.listener is not None:
        listeners[birth.listener[0]] = birth.listener[1]
    unpack = SLOT_FIELDS.unpack_from
    response = caller.response
    answer = memoryview(response).cast("Q")  # id, value, error: three stores, and no other machinery (RESP)
    taken = head[Q_SKIP]  # where the ring starts
    known, seen, run = birth.position, 0, -1
    while True:
        if head[Q_HEAD] == taken:
            if head[Q_STOP]:
                return
            os.eventfd_read(bell)
            continue
        # read once: what is judged is what was copied
        (
            kind, run_id, index, position, tgid, exec_gen, cred_gen,
            notification, tid, nr, arch, a, b, c, d, e, f, facts,
        ) = unpack(slots, HEADER + taken % SLOTS * SLOT_SIZE)  # fmt: skip
        if index != taken:
            raise RuntimeError(f"slot {taken} carries index {index}")
        words[W_TAKEN] = taken = index + 1
        if run_id != run:
            run = run_id
            if run_id not in listeners:
                listeners[run_id] = _open_run(caller, run_id)
            caller.listener = listeners[run_id]
        if position != known:
            _catch_up(caller, known, position)
            known = position
        if facts != seen:
            caller.facts = seen = facts
            if facts & F_CHROOTED and not caller.rules.chrooted:  # it never goes away again
                caller.rules.cut_off()
        caller.index, caller.phase = index, TAKEN
        caller.id, caller.tid, caller.tgid = notification, tid, tgid
        caller.nr, caller.args = nr, (a, b, c, d, e, f)
        caller.exec_gen, caller.cred_gen = exec_gen, cred_gen
        if kind == NOTIFY:
            try:
                handler = table.get(nr) if arch == AUDIT_ARCH_X86_64 else None
                if handler is None:
                    value: int | None = _refuse(caller)
                elif cred_gen:
                    value = _as_caller(caller, handler)
                else:
                    value = handler(caller)
                if value is not None:
                    answer[0] = notification
                    if value >= 0:
                        answer[1], answer[2] = value, 0
                    else:
                        answer[1], answer[2] = 0, value & 0xFFFFFFFF
                    if caller.borrowed:
                        caller.give_back()
                    try:
                        ioctl(caller.listener, SECCOMP_IOCTL_NOTIF_SEND, response)
                        caller.answered = answered = caller.answered + 1
                        words[W_ANSWERED] = answered
                    except OSError as error:
                        if error.errno != ENOENT:
                            raise
                        caller.lost()
            except Gone:
                caller.lost()
            except OSError as error:
                _answer_error(caller, error)
            except Exception:
                _answer_error(caller, OSError(EACCES, "bug"))
                raise
        else:
            _judge_stop(caller, kind, cred_gen)
        if caller.borrowed:
            caller.give_back()  # before W_DONE: executions wait for it
        words[W_DONE] = taken
        if head[Q_BELL] == taken:
            os.eventfd_write(back_bell, 1)
        if caller.kept:
            caller.close_kept()
        if caller.panicked:
            os.abort()
        if caller.announced:
            taken = _wait_for_acknowledgement(caller, head, bell)
            words[W_DONE] = taken


def _catch_up(caller: Caller, known: int, position: int) -> None:
    """Carry out the edits that came before the call in hand, all of them, in order.

    Too far behind for the journal: leave.  Its calls, this one too, go to others, and who comes after it is born
    with the rules as they are.
    """
    assert caller.journal is not None
    entries = since(caller.journal, known, position)
    if entries is None:
        os._exit(EXIT_BEHIND)
    for entry in entries:
        for line in entry.decode("utf-8", "surrogateescape").split("\n"):
            replay(caller.rules, line)


def _refuse(caller: Caller) -> int:
    """A notified call without a handler: the filter and the table disagree, or another ABI."""
    caller.log([("level", b"error"), ("ctx", b"refuse"), ("nr", caller.nr), ("pid", caller.tid)])
    return -ENOSYS


def _answer_error(caller: Caller, error: OSError) -> None:
    try:
        caller.answer(-(error.errno or EIO))
    except Gone:
        caller.lost()


def _as_caller(caller: Caller, handler: Callable[[Caller], Answer]) -> Answer:
    """Run a handler with the identity of a caller that has changed its own (B7)."""
    if caller.nr in _AS_WE_ARE:
        return handler(caller)
    identity = creds.of_task(caller.tid, _asks_with_real_ids(caller))
    shown = creds.effective_of(caller.tid) if caller.nr == _CONNECT else None
    caller.valid()
    if not groups_permitted(caller.rules, identity[2]):
        send_signal(caller, SIGKILL)  # the list of setgroups(2) was another one when the kernel read it
        raise OSError(EACCES, "groups")
    ours, permitted = caps.current()
    own = os.geteuid(), os.getegid(), tuple(os.getgroups()), ours
    parent = os.getppid()
    try:
        if shown:
            creds.put_on_effective(*shown, permitted)
        creds.put_on(identity, permitted)
        return handler(caller)
    finally:
        if shown:
            creds.put_on_effective(own[0], own[1], permitted)
        caps.put_on(ours, permitted)
        creds.put_on(own, permitted)
        die_with_parent(parent)  # a change of ids takes that back (prctl(2), PR_SET_PDEATHSIG)


def _asks_with_real_ids(caller: Caller) -> bool:
    """access(2) and its kin do, but faccessat2(2) with AT_EACCESS."""
    return caller.nr in _REAL_IDS or (caller.nr == _FACCESSAT2 and not caller.args[3] & AT_EACCESS)


_CONNECT = NR["connect"]
_FACCESSAT2 = NR["faccessat2"]
_REAL_IDS = (NR["access"], NR["faccessat"])
# Noted, not performed by us; or judged by what the caller may, since whom we may signal goes by other ids (kill(2))
_AS_WE_ARE = tuple(NR[name] for name in (*IDENTITY, *(row[0] for row in SIGNALS)))


def _open_run(caller: Caller, run_id: int) -> int:
    """Receive OPEN for a run: its listener.  The tracer sends it before the run's first slot."""
    return caller.receive_listener(run_id)


def _wait_for_acknowledgement(caller: Caller, head: memoryview, bell: int) -> int:
    """After a blocking call: wait until the tracer has dispatched our untaken slots again.

    Returns the index to go on at.
    """
    while head[Q_ACK] < caller.announced:
        os.eventfd_read(bell)
    caller.announced = 0
    return head[Q_SKIP]


def _judge_stop(caller: Caller, kind: int, cred_gen: int) -> None:
    """A tracee waits in its ptrace stop for this verdict; whatever fails here denies."""
    errno, words = EACCES, (0, 0, 0, 0)
    judge = _STOPS[kind]
    try:
        errno, words = _as_caller(caller, judge) if cred_gen else judge(caller)
    except Gone:
        pass
    except OSError as error:
        errno = error.errno or EIO
    caller.complete(C_VERDICT, errno, *words)


def _exec_entry(caller: Caller) -> Verdict:
    from syd_pool.emulate.exec import judge_exec

    verdict = judge_exec(caller)
    loader = verdict.loader[0] if verdict.loader else (0, 0)
    return verdict.errno, (*verdict.exe, *loader)


def _exec_event(caller: Caller) -> Verdict:
    from syd_pool.emulate.exec import verify_exec

    exe, loader = caller.args[0:2], caller.args[2:4]
    loaders = [tuple(loader)] if any(loader) else []
    return (0 if verify_exec(caller, (tuple(exe), loaders)) else EACCES), (0, 0, 0, 0)


def _chdir_entry(caller: Caller) -> Verdict:
    from syd_pool.emulate.chdir import judge_chdir

    verdict = judge_chdir(caller)
    return verdict.errno, (*verdict.directory, 0, 0)


def _chdir_exit(caller: Caller) -> Verdict:
    from syd_pool.emulate.chdir import verify_chdir

    return (0 if verify_chdir(caller, (caller.args[0], caller.args[1])) else EACCES), (0, 0, 0, 0)


def _map_entry(caller: Caller) -> Verdict:
    from syd_pool.emulate.mapping import judge_mapping

    return judge_mapping(caller), (0, 0, 0, 0)


def _map_exit(caller: Caller) -> Verdict:
    from syd_pool.emulate.mapping import verify_mapping

    return (0 if verify_mapping(caller) else EACCES), (0, 0, 0, 0)


_STOPS: dict[int, Callable[[Caller], Verdict]] = {
    EXEC: _exec_entry,
    EXEC_DONE: _exec_event,
    CHDIR: _chdir_entry,
    CHDIR_DONE: _chdir_exit,
    MAP: _map_entry,
    MAP_DONE: _map_exit,
}
