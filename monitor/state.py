"""What the monitor knows: the pages it looks at, and what it notes about each worker.  Plain records; all of it
may be lost, because a new monitor finds it in the pages again.
"""

from __future__ import annotations

from _socket import socket
from select import POLLIN, poll
from time import monotonic_ns

from monitor import log as logs
from monitor import protocol as p
from monitor.scale import Backoff, Counts
from monitor.watch import Progress
from syd_pool.shm import control as c
from syd_pool.shm.ring import DESCRIPTOR, W_DONE, W_PHASE, Ring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from monitor.config import Config
    from monitor.facts import Caller

_MSG_DONTWAIT = 0x40
_MSG_NOSIGNAL = 0x4000


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
    """The state of the process.  The verbs are beside it: hear, look, decide, guard."""

    __slots__ = (
        "asked",
        "at_limit",
        "backoff",
        "config",
        "counts",
        "failed_at",
        "grow_at",
        "grow_ms",
        "last_tick",
        "leaving",
        "log",
        "log_wanted",
        "moved",
        "owed",
        "page",
        "poll",
        "sink_wanted",
        "socket",
        "sweep_at",
        "tick_at",
        "wake_at",
        "words",
        "workers",
    )

    def __init__(self, sock_fd: int, page: Ring, log_fd: int, words: memoryview, config: Config) -> None:
        now = monotonic_ns()
        self.socket: socket = socket(fileno=sock_fd)
        self.page = page
        self.config = config
        self.words = words
        self.log = logs.Log(log_fd, config, words)
        self.workers: dict[int, Worker] = {}
        self.counts = Counts()
        self.backoff = Backoff()
        self.asked: list[int] = []  # when each SPAWN that was not answered yet expires
        self.failed_at = 0
        self.owed = 0  # workers that had worked and have died: their place waits for nothing
        self.at_limit = False
        self.leaving = False
        self.moved = False
        self.last_tick = now
        self.tick_at = now  # the first look is at once
        self.sweep_at = 0
        self.grow_at = 0
        self.grow_ms = p.GROW_MS
        self.wake_at = 0
        self.poll = poll()
        self.poll.register(sock_fd, POLLIN)
        self.log_wanted = log_fd
        self.sink_wanted = -1
        if log_fd >= 0:
            self.poll.register(log_fd, POLLIN)

    def ask(self, kind: int, worker: Worker | None = None, argument: int = 0, key: int = 0) -> bool:
        """One request to the tracer.  False, and counted, when the socket has no room."""
        index, generation = (worker.index, worker.generation) if worker is not None else (0, 0)
        try:
            message = p.MESSAGE.pack(kind, index, generation, argument, key)
            self.socket.send(message, _MSG_DONTWAIT | _MSG_NOSIGNAL)
        except OSError:
            self.words[p.M_LOST] += 1
            return False
        return True
