"""What the tracer knows: the run, its workers, its tasks.  Plain records; the verbs are beside them.

The ledger of calls in flight is not a table of its own: a call received is a slot in one worker's request
ring, and it is in flight while W_DONE of that worker has not passed it.  So an answered call costs the
tracer nothing, and the truth is in memory that only the tracer writes.
"""

from __future__ import annotations

import os
from collections import deque

from syd_pool.linux.notify import NOTIF_SIZE
from syd_pool.shm.control import H_LOG_DROPPED
from syd_pool.shm.logline import encode
from syd_pool.shm.ring import Q_HEAD, SLOTS, W_DONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as socket_type
    from collections.abc import Callable, Iterable
    from mmap import mmap
    from select import epoll, poll
    from typing import NoReturn

    from monitor.config import Config
    from syd_pool.boundary.spawn import Prepared
    from syd_pool.cli.config import RunConfig
    from syd_pool.shm.ring import Ring
    from syd_pool.tracer.commands import Asker

    Fork = Callable[[Callable[[], NoReturn]], int]

MSG_DONTWAIT = 0x40

DEPTH = 3  # unfinished slots of the local worker before another is asked (kernel-facts 3.2)
FULL = 128  # ... of any worker before calls wait in the kernel: RECV walks past all that were received (3.1)
LOW = 64  # ... of a worker that gets new ones after that, so that it does not wait for them
STALL_S = 0.001  # so long without that, and the workers beyond one for each CPU are asked


def fork(child: Callable[[], NoReturn]) -> int:
    """Fork; the child does `child`.  Returns its process id.  Raises OSError."""
    pid = os.fork()
    if pid == 0:
        child()
    return pid


class Task:
    """One thread of the sandboxed tree.

    tgid       its thread group
    exec_gen   raised at every exec of the group; keys whatever a worker caches about its memory
    cred_gen   0 while it has the identity the run started with
    guessed    cred_gen is not known from its parent: it is not 0 if anybody's is not
    expected   what was approved at a seccomp stop: (dev, ino, dev, ino), checked after the kernel acted
    interrupted  its blocking call was answered -ERESTARTSYS: the kernel decides at the next signal
    program    (device, inode) of what it executes; (0, 0) until an execution of it or of a parent was verified
    noting     it is in a call of the table's NOTE rows
    held       kind of the slot it waits for in a ptrace stop, or 0
    alone      it has executed and neither forked nor cloned since: nobody shares its memory or descriptors
    traceme    it has asked to be traced (PTRACE_TRACEME) and was told that it is
    """

    __slots__ = (
        "alone",
        "cred_gen",
        "exec_gen",
        "expected",
        "guessed",
        "held",
        "interrupted",
        "noting",
        "program",
        "tgid",
        "tid",
        "traceme",
    )

    def __init__(self, tid: int, tgid: int, exec_gen: int = 0, cred_gen: int = 0) -> None:
        self.tid = tid
        self.tgid = tgid
        self.exec_gen = exec_gen
        self.cred_gen = cred_gen
        self.guessed = False
        self.expected: tuple[int, ...] = (0, 0, 0, 0)
        self.program = (0, 0)
        self.noting = False
        self.held = 0
        self.interrupted = False
        self.alone = False
        self.traceme = False


class Worker:
    """One emulator process and the tracer's end of its rings.

    head    slots written; read: completions read; open: takes new slots
    blocked number of its `may block` announcement, 0 if none; block_index: that call's slot
    runs    runs whose listener it was given
    others  slots that are not its to close: judgements, calls that the tracer answered or dispatched elsewhere
    """

    __slots__ = (
        "bell",
        "block_index",
        "blocked",
        "cpu",
        "generation",
        "head",
        "index",
        "lied",
        "open",
        "others",
        "page",
        "pid",
        "published",
        "read",
        "reason",
        "record",
        "request",
        "runs",
        "settled",
        "skip",
        "slots",
        "socket",
        "vault",
        "words",
    )

    def __init__(
        self, index: int, generation: int, request: Ring, page: Ring, bell: int, socket: socket_type, cpu: int
    ):
        self.index = index
        self.generation = generation
        self.request = request
        self.page = page
        self.slots, self.published, self.words = request.b, request.q, page.q  # at hand on the way of a call
        self.bell = bell
        self.socket = socket
        self.cpu = cpu
        self.pid = 0
        self.record = 0  # where in the control page the monitor reads `head`
        self.head = request.q[Q_HEAD]
        self.others = self.head
        self.read = 0
        self.open = True
        self.blocked = 0
        self.block_index = -1
        self.skip = self.head  # slots before it that were dispatched elsewhere at the last announcement
        self.settled = -1  # the last slot that the tracer itself answered on this worker's word
        self.runs: set[int] = set()
        self.lied = False  # it claimed what cannot be: nothing it says counts any more
        self.vault: socket_type | None = None  # two-step: where the file is that it installs (deaths.py)
        self.reason = 0  # why we killed it, monitor.protocol REASON_*

    def in_flight(self) -> list[int]:
        """Indices of the slots it has and has not finished, the one in hand first."""
        done = self.page.q[W_DONE]
        if self.block_index >= done:
            return [self.block_index, *range(self.skip, self.head)]
        return list(range(max(done, self.skip), self.head))

    def room(self) -> int:
        """Slots its ring can take now."""
        return SLOTS - (self.head - self.page.q[W_DONE])


class Run:
    """Everything about the run; see the module's docstring for the ledger."""

    def __init__(self, config: RunConfig, control: Ring) -> None:
        self.config = config
        self.control = control
        self.heads = control.q
        self.listeners: dict[int, int] = {}  # listener descriptor -> run id
        self.poller: poll = None  # type: ignore[assignment]  # set by run.py before the loop
        self.others: epoll = None  # type: ignore[assignment]  # everything but the listeners
        self.signals = -1  # signalfd
        self.back_bell = -1  # eventfd rung for completions
        self.monitor: socket_type | None = None
        self.monitor_pid = 0
        self.monitor_page: Ring | None = None
        self.untold: list[Worker] = []  # of whom the monitor knows nothing yet
        self.log_in: socket_type | None = None
        self.log_out: socket_type | None = None

        self.tasks: dict[int, Task] = {}
        self.early_dead: set[int] = set()  # threads that died before the event of their parent was seen
        self.workers: dict[int, Worker] = {}  # by pid
        self.slots: list[Worker | None] = []  # by index
        self.ready: list[Worker] = []  # open workers
        self.first: list[Worker] = []  # ... of them the first of each CPU
        self.by_cpu: list[Worker | None] = []
        self.generations: dict[int, int] = {}
        self.cpus: list[int] = []

        self.buffer = bytearray(NOTIF_SIZE)
        self.buffer_words = memoryview(self.buffer).cast("I")
        self.backlog: deque[tuple[int, int, Task, bytes, int]] = deque()
        self.held: dict[tuple[int, int], Task] = {}  # (worker pid, slot index) -> task in its ptrace stop
        self.delayed: list[tuple[Task, float]] = []  # executions that wait for workers to close descriptors; until when
        self.condemned: set[int] = set()  # thread groups that the rules have killed: it counts as a crash
        self.poisoned: set[tuple[int, int]] = set()  # (program's inode, number)
        self.deaths: dict[tuple[int, int], int] = {}
        self.crashes: dict[tuple[int, int], list[float]] = {}  # program -> when
        self.suspended: dict[tuple[int, int], float] = {}  # program -> until when
        self.blocks: dict[int, Worker] = {}  # workers in a call that may block, by pid

        self.received = 0
        self.answered = 0  # by the tracer itself, and by workers that have died
        self.gone = 0
        self.capped = False  # nothing is received: no worker has room
        self.capped_at = 0.0
        self.stalled = False  # the first workers do not get on: the others are asked too
        self.position = 0  # of the journal, in every slot from now on
        self.journal: Ring | None = None  # edits of the rules; None where they never change
        self.sealed = False  # ... and no command is written there any more
        self.peers: Ring | None = None  # who connected (tracer/peers.py); None where connect(2) is native
        self.diag = -1  # a socket to ask for Unix sockets by, once it is needed
        self.bound: set[bytes] = set()  # addresses that trace/allow_safe_bind has added
        self.ghost = False  # the listener is being let go: nobody judges any more (tracer/ghost.py)
        self.outside: socket_type | None = None  # to who executes outside the sandbox (tracer/outside.py)
        self.ipc: socket_type | None = None  # to who serves the control socket (tracer/control_socket.py)
        self.ipc_pid = 0
        self.ipc_serving = False
        self.asked: dict[int, Asker] = {}  # ... number of what it has been asked -> who is to be answered
        self.requests = 0  # how many there were
        self.log_ring: mmap | None = None  # the log's last lines, where somebody may read them (tracer/syslog.py)
        self.log_read = self.log_cleared = 0  # bytes of it that were taken by READ, that CLEAR has passed
        self.serving: set[int] = set()  # notifications that the tracer itself has to answer, now or later
        self.watched: dict[int, Callable[[Run], None]] = {}  # other descriptors of the poll -> who serves them
        self.facts = 0  # F_* of shm/ring.py, in every slot from now on
        self.umask_gen = 0  # its upper half
        self.died: set[int] = set()  # thread ids that ended under this umask_gen: a new one may not meet the old's
        self.exec_counter = 0
        self.cred_counter = 0

        self.ptrace = True
        self.fork: Fork = fork  # the command and the workers; inside.py where sandbox/lock is on
        self.eldest = 0
        self.eldest_pidfd = -1
        self.prepared: Prepared = None  # type: ignore[assignment]  # set by run.py
        self.status = 127  # until known
        self.ended = False  # the run is over: leave the loop
        self.eldest_ended = False
        self.hung_up = False  # the last task under the filter is gone
        self.stopped = False  # the eldest is in a group stop, and the keeper with it
        self.taken: dict[str, int] = {}  # "setuid", "setgid" -> the id that a rule has let somebody change to
        self.boot_failures = 0  # workers in a row that died before they were ready
        self.reason = "setup"  # of the end, for --status-fd
        self.deadline = 0.0

        self.notified: frozenset[int] = frozenset()  # numbers the filter notifies
        self.noted: frozenset[int] = frozenset()  # numbers that stop, and are only noted
        self.traced: dict[int, int] = {}  # numbers the filter traces -> kind of slot
        self.handlers: dict[int, Callable[..., int | None]] = {}
        self.confine: Callable[[], None] | None = None
        self.capabilities: tuple[int, int] | None = None
        self.monitor_config: Config = None  # type: ignore[assignment]  # set by run.py
        self.beat = 0  # of the monitor, when last looked at
        self.beat_at = 0
        self.monitor_born = 0  # CLOCK_MONOTONIC, ns
        self.pinged = False

    def log(self, ctx: str, pid: int, what: str, msg: str, more: Iterable[tuple[str, bytes | int]] = ()) -> None:
        """One line of our own to the log writer; dropped and counted when it does not keep up."""
        self.log_line(b"warn", ctx, pid, f"{what}: {msg}", more)

    def log_line(
        self, level: bytes, ctx: str, pid: int, text: str, more: Iterable[tuple[str, bytes | int]] = ()
    ) -> None:
        """As log(), at another level than `warn`."""
        if self.log_in is None:
            return
        fields: list[tuple[str, bytes | int]] = [
            ("level", level), ("ctx", ctx.encode()), ("pid", pid), ("msg", text.encode("utf-8", "surrogateescape")),
            *more,
        ]  # fmt: skip
        try:
            self.log_in.send(encode(fields), MSG_DONTWAIT)
        except OSError:
            self.control.q[H_LOG_DROPPED] += 1
