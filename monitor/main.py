"""syd_mon: the monitor.

    tracer --control page, WAKE, NEW_WORKER, DEAD, EXIT--> [ look | decide | ask ] --requests--> tracer
    workers --their pages, read only----------------------->        |
    workers, tracer --log datagrams------------------------> [ write lines ] --> SYD_LOG_FD

Who talks to it: the tracer alone (protocol.py); log lines come from everybody who holds the log socket.
Guarantees: it takes part in no call, so its death costs none; it keeps nothing that the pages do not say,
except what was blamed and when it last asked, so a new one may start at any moment of a run; it never waits
for the tracer nor for the reader of the log; it dies with the tracer.
Writes: the words M_* of its own page, nothing else that is shared.

It sleeps until a message, a log line or a time to look: every TICK_MS while calls are outstanding, every
IDLE_MS otherwise, every few milliseconds while calls are blocked or all workers are busy.
"""

from __future__ import annotations

import gc
import os
from _socket import socket
from select import POLLIN, POLLOUT, poll
from struct import Struct
from time import monotonic_ns

from monitor import log as logs
from monitor import protocol as p
from monitor.facts import Caller, blocked_interval_ms, scheduling
from monitor.scale import MS, Backoff, Counts, Poison, exhausted, growth, own_making, surplus
from monitor.watch import FINE, KICK, REVIVE, STALL, SUSPECT_MS, Progress
from syd_pool.linux.libc import (
    PR_SET_NO_NEW_PRIVS,
    close_all_but,
    die_with_parent,
    prctl,
    set_name,
    syscall,
)
from syd_pool.linux.signals import block_all
from syd_pool.shm import control as c
from syd_pool.shm.ring import (
    DESCRIPTOR,
    W_DONE,
    W_PHASE,
    W_READY,
    W_SLEEP,
    W_TAKEN,
    WORKER_SIZE,
    Ring,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from monitor.config import Config

ASKED_NS = 1000 * MS  # a SPAWN that is not answered for so long is forgotten
GROW_MOST_MS = 16  # all busy, but they get on: look less often
_MSG_DONTWAIT = 0x40
_MSG_NOSIGNAL = 0x4000
_SOL_SOCKET = 1
_SCM_RIGHTS = 1
_ANCILLARY = 24  # CMSG_SPACE of one descriptor
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_SYS_PTRACE = 1 << 19
_RLIMIT_NOFILE = 7
EXIT_BUG = 70  # EX_SOFTWARE: an exception nobody expected; the tracer starts another monitor


class Worker:
    """What the monitor knows of one worker between two looks; all of it may be lost."""

    __slots__ = (
        "boot_ms",
        "born",
        "caller",
        "generation",
        "head",
        "index",
        "mark",
        "moved_at",
        "own",
        "pid",
        "progress",
        "ran",
        "reported",
        "seq",
        "state",
        "waited",
    )

    def __init__(self, index: int, generation: int, own: Ring | None, now: int) -> None:
        self.index = index
        self.generation = generation
        self.own = own  # its page
        self.born = now
        self.pid = 0
        self.state = c.EMPTY
        self.head = 0
        self.mark = (-1, -1, -1)  # head, taken, done when they last changed
        self.moved_at = now
        self.progress = Progress()
        self.boot_ms = 0.0
        self.caller: Caller | None = None  # of the blocked call
        self.seq = 0
        self.ran = -1
        self.waited = 0
        self.reported = False

    def word(self, at: int) -> int:
        """A word of its own page; 0 while the page is unknown."""
        return self.own.q[at] if self.own is not None else 0

    def descriptor(self) -> bool:
        """Is it in the phase in which it may not be killed?"""
        phase = self.word(W_PHASE)
        return bool(phase & DESCRIPTOR) and phase >> 8 >= self.word(W_DONE)

    def forget_caller(self) -> None:
        """The blocked call ended."""
        if self.caller is not None:
            self.caller.close()
            self.caller = None

    def close(self) -> None:
        """Everything that is held for it."""
        self.forget_caller()
        if self.own is not None:
            self.own.close()
            self.own = None


class Monitor:
    """The state of the process: pages, workers, the three decisions (scale, backoff, poison)."""

    __slots__ = (
        "_asked",
        "_at_limit",
        "_backoff",
        "_config",
        "_counts",
        "_failed_at",
        "_grow_at",
        "_grow_ms",
        "_last_tick",
        "_leaving",
        "_log_wanted",
        "_moved",
        "_page",
        "_poison",
        "_poll",
        "_sink_wanted",
        "_socket",
        "_sweep_at",
        "_tick_at",
        "_wake_at",
        "_workers",
        "log",
        "words",
    )

    def __init__(self, sock_fd: int, page: Ring, log_fd: int, words: memoryview, config: Config) -> None:
        now = monotonic_ns()
        self._socket: socket = socket(fileno=sock_fd)
        self._page = page
        self._config = config
        self.words = words
        self.log = logs.Log(log_fd, config, words)
        self._workers: dict[int, Worker] = {}
        self._counts = Counts()
        self._backoff = Backoff()
        self._poison = Poison()
        self._asked: list[int] = []  # when each SPAWN that was not answered yet expires
        self._failed_at = 0
        self._at_limit = False
        self._leaving = False
        self._moved = False
        self._last_tick = now
        self._tick_at = now  # the first look is at once
        self._sweep_at = 0
        self._grow_at = 0
        self._grow_ms = p.GROW_MS
        self._wake_at = 0
        self._poll = poll()
        self._poll.register(sock_fd, POLLIN)
        self._log_wanted = log_fd
        self._sink_wanted = -1
        if log_fd >= 0:
            self._poll.register(log_fd, POLLIN)

    # --- messages --------------------------------------------------------------------------------

    def ask(self, kind: int, worker: Worker | None = None, argument: int = 0, key: int = 0) -> bool:
        """One request to the tracer.  False, and counted, when the socket has no room."""
        index, generation = (worker.index, worker.generation) if worker is not None else (0, 0)
        try:
            message = p.MESSAGE.pack(kind, index, generation, argument, key)
            self._socket.send(message, _MSG_DONTWAIT | _MSG_NOSIGNAL)
        except OSError:
            self.words[p.M_LOST] += 1
            return False
        return True

    def _hear(self) -> None:
        """Every message that waits."""
        while not self._leaving:
            try:
                data, control, _, _ = self._socket.recvmsg(p.MESSAGE_SIZE, _ANCILLARY, _MSG_DONTWAIT)
            except OSError:
                return
            fd = -1
            for level, kind, payload in control:
                if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
                    fd = int.from_bytes(payload[:4], "little")
            if len(data) != p.MESSAGE_SIZE:
                self._leaving = True  # the tracer is gone
                return
            self._heed(fd, *p.MESSAGE.unpack(data))

    def _heed(self, fd: int, kind: int, index: int, generation: int, argument: int, key: int) -> None:
        if kind == p.NEW_WORKER:
            self._meet(fd, index, generation)
        elif kind == p.WORKER_DEAD:
            self._mourn(index, generation, argument & 0xFFFFFFFF, argument >> 32, key)
        elif kind == p.EXIT:
            self._leaving = True
        elif kind == p.PING:
            self.ask(p.PONG, None, argument)
        elif kind == p.REFUSED:
            self._asked.clear()
            if argument:
                self._failed_at = monotonic_ns()
                self._backoff.refused(self._failed_at)
        elif kind == p.STATS and fd >= 0:
            self._publish(fd)

    def _meet(self, fd: int, index: int, generation: int) -> None:
        """A worker and its page.  The mapping keeps the page; the descriptor is not needed any more."""
        own = None
        if fd >= 0:
            try:
                own = Ring(fd, WORKER_SIZE, False)
            except (OSError, ValueError):
                self.log.put(ctx=b"pool", msg=b"the page of a worker cannot be mapped", worker=index)
            os.close(fd)
        old = self._workers.pop(index, None)
        if old is not None:
            old.close()
        self._workers[index] = Worker(index, generation, own, monotonic_ns())
        if self._asked:
            self._asked.pop()

    def _mourn(self, index: int, generation: int, status: int, reason: int, key: int) -> None:
        """A worker died: may it come back at once, and was the call in hand to blame?"""
        worker = self._workers.get(index)
        completed = True
        if worker is not None and worker.generation == generation:
            completed = worker.own is None or worker.word(W_DONE) > 0
            worker.close()
            del self._workers[index]
        if status == 0 and not key:
            return  # it was told to leave
        own = own_making(status, reason)
        if not completed:
            self._failed_at = monotonic_ns()
            self._backoff.after_death(completed, own, self._failed_at)
            if own:
                self.log.put(
                    ctx=b"pool",
                    msg=b"a worker died before it finished a call: %d in a row" % self._backoff.failures,
                    worker=index,
                    err=status,
                )
        if own and key and self._poison.blame(key) and self.ask(p.DENY, None, 0, key):
            self.words[p.M_DENIALS] += 1  # the tracer logs it: it knows the caller

    def _publish(self, fd: int) -> None:
        """Statistics for whoever holds the other end of `fd`, who gets a tenth of a second to read."""
        from monitor import stats

        pages = {index: worker.own for index, worker in self._workers.items() if worker.own is not None}
        pids = (os.getpid(), self._page.q[c.H_TRACER])
        facts = stats.snapshot(self._page, pages, self.words, pids)
        try:
            logs.write_all(fd, stats.encode(facts), 100)
        finally:
            os.close(fd)

    # --- looking ---------------------------------------------------------------------------------

    def _look(self, now: int) -> Counts:
        """Every record once: who is there, who has nothing to do, who is out of service."""
        counts = Counts(asked=len(self._asked), waiting=self._page.q[c.H_BACKLOG] > 0)
        for index in range(min(self._page.q[c.H_SLOTS], c.RECORDS)):
            pid, generation, state, head, _, tid, seq = c.snapshot(self._page, index)
            worker = self._workers.get(index)
            if state in (c.EMPTY, c.DEAD):
                continue
            if worker is None or worker.generation != generation:
                worker = self._unmet(worker, index, generation, now)
            worker.pid, worker.state, worker.head = pid, state, head
            self._note(worker, now)
            self._follow(worker, tid, seq, now)
            self._count(worker, counts, now)
        return counts

    def _unmet(self, old: Worker | None, index: int, generation: int, now: int) -> Worker:
        """A record whose NEW_WORKER has not arrived yet."""
        if old is not None:
            old.close()
        worker = self._workers[index] = Worker(index, generation, None, now)
        return worker

    def _note(self, worker: Worker, now: int) -> None:
        """When did it last get on?  A first completed call after a failure ends the backoff."""
        done = worker.word(W_DONE)
        mark = (worker.head, worker.word(W_TAKEN), done)
        if mark == worker.mark:
            return
        self._moved = True
        if done and worker.born > self._failed_at and (self._backoff.failures or self._backoff.foreign):
            self._backoff.works()
        head, taken, done_before = worker.mark
        if (taken, done_before) != mark[1:] or head == done_before:  # not when one more slot queues up
            worker.moved_at = now
        worker.mark = mark

    def _follow(self, worker: Worker, tid: int, seq: int, now: int) -> None:
        """Hold the caller of a blocked call, let go of it when the call has ended."""
        if worker.state != c.BLOCKED:
            worker.forget_caller()
        elif worker.caller is None or worker.seq != seq or worker.caller.tid != tid:
            worker.forget_caller()
            worker.caller = Caller(tid, now)
            worker.seq = seq
            self._sweep_at = 0

    def _count(self, worker: Worker, counts: Counts, now: int) -> None:
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

    # --- deciding --------------------------------------------------------------------------------

    def _scale(self, counts: Counts, now: int) -> None:
        """Ask for workers, or set the time to look again."""
        while self._asked and self._asked[0] <= now:
            del self._asked[0]
        counts.asked = len(self._asked)
        self._wake_at = 0
        more = growth(counts, self._config.nproc, self._config.nproc_max)
        if more and now < self._backoff.until:
            self._wake_at = self._backoff.until
        elif more and self.ask(p.SPAWN, None, more):
            self.words[p.M_SPAWNS] += more
            self._asked += [now + ASKED_NS] * more
        self._pressure(counts, now)

    def _pressure(self, counts: Counts, now: int) -> None:
        """While nobody is idle, look soon: is somebody stuck?  Less often while they get on."""
        limit = exhausted(counts, self._config.nproc_max)
        if limit and not self._at_limit:
            self.log.put(ctx=b"pool", msg=b"every worker is blocked and nproc-max is reached", count=counts.total)
        self._at_limit = limit
        if counts.idle or counts.starting or counts.blocked >= counts.total:
            self._grow_at, self._grow_ms = 0, p.GROW_MS
        elif now >= self._grow_at:
            self._grow_at = now + self._grow_ms * MS
            self._grow_ms = min(GROW_MOST_MS, 2 * self._grow_ms)

    def _retire(self, counts: Counts, now: int) -> None:
        """Extras that had nothing to do for the keep-alive time, the last ones first.

        The first nproc workers stay: they are pinned, and the dispatcher knows their CPUs.
        """
        spare = surplus(counts, self._config.nproc)
        if not spare:
            return
        before = now - self._config.keep_alive_ms * MS
        live = (c.STARTING, c.READY, c.BLOCKED)
        extras = sorted(index for index, worker in self._workers.items() if worker.state in live)
        for index in reversed(extras[self._config.nproc :]):
            worker = self._workers[index]
            if worker.state == c.READY and worker.head == worker.word(W_DONE) and worker.moved_at <= before:
                if not spare or not self.ask(p.RETIRE, worker):
                    return
                self.words[p.M_RETIRES] += 1
                spare -= 1

    def _sweep(self, now: int) -> None:
        """The callers of blocked calls: whose wait has to end?"""
        youngest = 1 << 62
        waiting = False
        for worker in self._workers.values():
            if worker.caller is None:
                continue
            waiting = True
            youngest = min(youngest, now - worker.caller.since)
            why = worker.caller.why()
            if why and self.ask(p.INTERRUPT, worker, worker.seq, why):
                self.words[p.M_INTERRUPTS] += 1
        if not waiting:
            self._sweep_at = 0
            return
        end = monotonic_ns()
        self._sweep_at = end + int(blocked_interval_ms(youngest / MS, (end - now) / MS, p.BLOCKED_MS) * MS)

    def _tick(self, counts: Counts, now: int) -> None:
        """The backstop: lost doorbells, workers that do not get on, extras that are not needed."""
        elapsed = (now - self._last_tick) / MS
        self._last_tick = now
        self.words[p.M_TICKS] += 1
        outstanding = False
        for worker in list(self._workers.values()):
            if worker.state in (c.READY, c.RETIRING):
                outstanding = outstanding or worker.head != worker.word(W_DONE)
                self._guard(worker, elapsed)
            elif worker.state == c.STARTING:
                outstanding = True
                self._guard_birth(worker, elapsed)
        self._retire(counts, now)
        busy = outstanding or self._moved or self._asked or counts.total > self._config.nproc
        self._moved = False
        self._tick_at = now + (p.TICK_MS if busy else p.IDLE_MS) * MS

    def _guard(self, worker: Worker, elapsed: float) -> None:
        if worker.own is None:
            return
        words = (worker.head, worker.word(W_TAKEN), worker.word(W_DONE), worker.word(W_PHASE))
        limit = self._config.stall_ms
        stopped, starved = False, 0.0
        if worker.progress.stuck_ms >= min(SUSPECT_MS, limit / 2):
            stopped, starved = self._excuses(worker, elapsed)
        else:
            worker.ran = -1
        verdict = worker.progress.look(
            words, worker.word(W_SLEEP) == 1, elapsed, limit, worker.descriptor(), stopped, starved
        )
        if verdict == FINE:
            worker.reported = worker.reported and worker.progress.stuck_ms > 0
        elif verdict == KICK:
            if self.ask(p.KICK, worker):
                self.words[p.M_KICKS] += 1
        elif verdict == REVIVE:
            self.ask(p.REVIVE, worker)
        elif verdict == STALL:
            self._kill(worker, p.REASON_STALL, words[2])

    def _guard_birth(self, worker: Worker, elapsed: float) -> None:
        if worker.word(W_READY):
            return  # the tracer will see it
        worker.boot_ms += min(elapsed, 2 * p.TICK_MS)
        if worker.boot_ms >= self._config.boot_ms:
            self._kill(worker, p.REASON_BOOT, 0)

    def _excuses(self, worker: Worker, elapsed: float) -> tuple[bool, float]:
        """(stopped, ms of `elapsed` that do not count): it waited for a CPU, or the tracer stands still."""
        state, ran, waited = scheduling(worker.pid)
        first = worker.ran < 0
        ran_before, waited_before = worker.ran, worker.waited
        worker.ran, worker.waited = ran, waited
        if scheduling(self._page.q[c.H_TRACER])[0] in "Tt":
            return state in "Tt", elapsed
        if first or state != "R":
            return state in "Tt", 0.0
        if ran == ran_before:
            return False, elapsed
        return False, (waited - waited_before) / MS

    def _kill(self, worker: Worker, reason: int, done: int) -> None:
        """Ask for its death, at every tick until it is dead; log it once, with what psutil knows."""
        if not worker.reported:
            self._report_stall(worker, reason)  # before it is dead, when /proc knows nothing any more
        if self.ask(p.KILL, worker, reason | done << 8) and not worker.reported:
            worker.reported = True
            self.words[p.M_STALLS] += 1

    def _report_stall(self, worker: Worker, reason: int) -> None:
        from monitor import stats

        facts = stats.process(worker.pid)
        what = b"did not become ready" if reason == p.REASON_BOOT else b"does not get on"
        self.log.put(
            ctx=b"pool",
            act=b"kill",
            worker=worker.index,
            msg=b"a worker %s and is killed (%s)" % (what, str(facts.get("status", "?")).encode()),
            args=b" ".join(b"%s=%s" % (k.encode(), str(v).encode()) for k, v in facts.items()),
        )

    # --- the loop --------------------------------------------------------------------------------

    def _timeout_ms(self, now: int) -> int:
        at = self._tick_at
        for other in (self._sweep_at, self._grow_at, self._wake_at):
            if other and other < at:
                at = other
        left = -(-(at - now) // MS)
        hold = self.log.hold_left_ms() if self.log.holding else 0.0
        if hold > 0:
            left = min(left, int(hold) + 1)
        return max(0, left)

    def _register(self, log_fd: int) -> None:
        """Lines wait for the sink or the sink for lines: poll for the one that is missing."""
        held = self.log.holding
        sink = self.log.sink.fd if held and self.log.sink.pollable else -1
        wanted = -1 if held and self.log.hold_left_ms() > 0 else log_fd
        self._log_wanted = self._swap(self._log_wanted, wanted, POLLIN)
        self._sink_wanted = self._swap(self._sink_wanted, sink, POLLOUT)

    def _swap(self, before: int, wanted: int, events: int) -> int:
        """Poll `wanted` in place of `before`; -1 is none."""
        if before != wanted:
            if before >= 0:
                self._poll.unregister(before)
            if wanted >= 0:
                self._poll.register(wanted, events)
        return wanted

    def turn(self, log_fd: int) -> bool:
        """One turn: sleep, hear, look, decide.  False when it is time to leave."""
        self._register(log_fd)
        self._poll.poll(self._timeout_ms(monotonic_ns()))
        self._hear()
        if self._leaving or self._page.q[c.H_EXIT]:
            return False
        now = monotonic_ns()
        self.words[p.M_BEAT] += 1
        self.words[p.M_TIME] = now
        self.log.pump()
        counts = self._counts = self._look(now)
        self._scale(counts, now)
        if now >= self._sweep_at:
            self._sweep(now)
        if now >= self._tick_at:
            self._tick(counts, now)
        return True


def _give_up_privileges() -> None:
    """No new privileges; of the capabilities only SYS_PTRACE stays, for `cwd` of a log line's process."""
    from ctypes import addressof, create_string_buffer

    prctl(PR_SET_NO_NEW_PRIVS, 1)
    header = create_string_buffer(Struct("<Ii").pack(_CAPABILITY_VERSION_3, 0), 8)
    # effective, permitted, inheritable of the low 32 capabilities, then of the high 32
    sets = Struct("<6I")
    data = create_string_buffer(sets.size)
    syscall("capget", addressof(header), addressof(data))
    keep = sets.unpack(data.raw)[1] & _CAP_SYS_PTRACE
    data = create_string_buffer(sets.pack(keep, keep, 0, 0, 0, 0), sets.size)
    syscall("capset", addressof(header), addressof(data))


def _more_descriptors() -> None:
    """Every worker's page and every blocked call hold one: the soft limit goes to the hard limit.

    By system call, because importing `resource` costs more than all of this function.
    """
    from ctypes import addressof, create_string_buffer

    limits = Struct("<QQ")
    buffer = create_string_buffer(limits.size)
    syscall("prlimit64", 0, _RLIMIT_NOFILE, 0, addressof(buffer))
    hard = limits.unpack(buffer.raw)[1]
    buffer = create_string_buffer(limits.pack(hard, hard), limits.size)
    syscall("prlimit64", 0, _RLIMIT_NOFILE, addressof(buffer), 0)


def run(sock_fd: int, control_fd: int, log_fd: int, page_fd: int, config: Config) -> NoReturn:
    """Be the monitor, in a fork of the tracer, at any moment of a run.

    sock_fd     our end of a fresh SEQPACKET pair; the tracer sends NEW_WORKER for every live worker
    control_fd  the control page;  page_fd: our own page (MONITOR_SIZE, writable), -1: none
    log_fd      the receiving end of the log socket, -1: none
    """
    status = EXIT_BUG
    try:
        block_all()
        set_name("syd_mon")
        gc.freeze()
        close_all_but({sock_fd, control_fd, log_fd, page_fd, config.log_fd} - {-1})
        page, words = _map(control_fd, page_fd)
        _give_up_privileges()
        die_with_parent(page.q[c.H_TRACER])
        _more_descriptors()
        monitor = Monitor(sock_fd, page, log_fd, words, config)
        while monitor.turn(log_fd):
            pass
        monitor.log.finish()
        status = 0
    except BaseException:
        _confess(config.log_fd)
    os._exit(status)


def _map(control_fd: int, page_fd: int) -> tuple[Ring, memoryview]:
    """The control page and our own words.  A mapping keeps a descriptor of its own; these two go."""
    page = c.map_control(control_fd)
    os.close(control_fd)
    if page_fd < 0:
        return page, memoryview(bytearray(p.MONITOR_SIZE)).cast("Q")
    own = Ring(page_fd, p.MONITOR_SIZE, True)
    os.close(page_fd)
    return page, own.q


def _confess(log_fd: int) -> None:
    """The traceback of our own bug, where log lines go."""
    from traceback import format_exc

    try:
        if log_fd >= 0:
            logs.write_all(log_fd, format_exc().encode(), 100)
    except OSError:
        pass
