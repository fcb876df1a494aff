"""A tracer that only talks to the monitor: real processes as workers, their pages written by hand."""

from __future__ import annotations

import os
import signal
import socket
import time
from array import array
from mmap import MAP_SHARED, mmap
from typing import NamedTuple, Self

from monitor import protocol as p
from monitor.config import Config
from monitor.main import run
from syd_pool.linux.libc import sealed_memfd
from syd_pool.shm import control as c
from syd_pool.shm.ring import WORKER_SIZE


class Request(NamedTuple):
    """One message of the monitor."""

    kind: int
    index: int  # type: ignore[assignment]  # hides tuple.index, as meant
    generation: int
    argument: int
    key: int


class Words:
    """A memfd written here, as its worker or the tracer would write it."""

    def __init__(self, name: str, size: int) -> None:
        self.fd = sealed_memfd(name, size)
        self.q = memoryview(mmap(self.fd, size, MAP_SHARED)).cast("Q")


class FakeWorker:
    """A sleeping process and the page it would write."""

    def __init__(self, index: int, generation: int) -> None:
        self.index = index
        self.generation = generation
        self.page = Words("test-worker", WORKER_SIZE)
        self.pid = os.posix_spawn("/bin/sleep", ["sleep", "120"], {})

    def end(self, sig: int = signal.SIGKILL) -> int:
        """Kill and reap; its wait status."""
        os.kill(self.pid, sig)
        os.kill(self.pid, signal.SIGCONT)
        return os.waitpid(self.pid, 0)[1]


class FakeTracer:
    """The tracer's side of protocol.py.  Use as a context manager: nothing outlives it."""

    def __init__(self, nproc: int = 2, nproc_max: int = 8, log_fd: int = -1, **settings: object) -> None:
        self.config = Config(nproc, nproc_max)
        self.config.log_fd = log_fd
        for name, value in settings.items():
            setattr(self.config, name, value)
        self.page = c.create_control(os.getpid(), nproc, nproc_max)
        self.mine = Words("test-monitor", p.MONITOR_SIZE)
        self.log_in, self.log_out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.workers: dict[int, FakeWorker] = {}
        self.generations: dict[int, int] = {}
        self.seen: list[Request] = []
        self.pid = 0
        self.sock: socket.socket | None = None

    # --- the monitor -----------------------------------------------------------------------------

    def start(self) -> None:
        """Fork a monitor and tell it of every live worker, as after a death of the last one."""
        if self.sock is not None:
            self.sock.close()
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            run(theirs.fileno(), self.page.fd, self.log_out.fileno(), self.mine.fd, self.config)
        theirs.close()
        for worker in self.workers.values():
            self.introduce(worker)

    def introduce(self, worker: FakeWorker) -> None:
        """NEW_WORKER with the page."""
        self.send(p.NEW_WORKER, worker.index, worker.generation, fd=worker.page.fd)

    def send(
        self, kind: int, index: int = 0, generation: int = 0, argument: int = 0, key: int = 0, fd: int = -1
    ) -> None:
        """One message to the monitor."""
        assert self.sock is not None
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))] if fd >= 0 else []
        self.sock.sendmsg([p.MESSAGE.pack(kind, index, generation, argument, key)], rights)

    def request(self, seconds: float) -> Request | None:
        """The next message of the monitor, None after `seconds` without one."""
        assert self.sock is not None
        self.sock.settimeout(max(seconds, 0.001))
        try:
            data = self.sock.recv(p.MESSAGE_SIZE)
        except TimeoutError:
            return None
        assert len(data) == p.MESSAGE_SIZE, "the monitor is gone"
        request = Request(*p.MESSAGE.unpack(data))
        self.seen.append(request)
        return request

    def expect(self, kind: int, seconds: float = 3.0) -> Request:
        """Wait for a request of this kind; others are kept in `seen`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            request = self.request(left)
            if request is not None and request.kind == kind:
                return request
        raise AssertionError(f"no request {kind} within {seconds} s; seen {self.seen}")

    def quiet(self, kind: int, seconds: float) -> None:
        """Nothing of this kind comes within `seconds`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            request = self.request(left)
            assert request is None or request.kind != kind, request

    def beat(self) -> int:
        """How many turns the monitor has made."""
        return self.mine.q[p.M_BEAT]

    def leave(self, seconds: float = 3.0) -> int:
        """EXIT, and the monitor's wait status."""
        self.page.q[c.H_EXIT] = 1
        self.send(p.EXIT)
        return self.reap(seconds)

    def reap(self, seconds: float = 3.0) -> int:
        """The wait status of the monitor."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return status
            time.sleep(0.001)
        raise AssertionError("the monitor did not leave")

    # --- workers ---------------------------------------------------------------------------------

    def spawn(self, count: int = 1) -> list[FakeWorker]:
        """Fork workers into the first free records, READY."""
        born = []
        for _ in range(count):
            index = next(i for i in range(c.RECORDS) if i not in self.workers)
            generation = self.generations[index] = self.generations.get(index, 0) + 1
            worker = self.workers[index] = FakeWorker(index, generation)
            c.enter(self.page, index, worker.pid, generation, time.monotonic_ns())
            c.change(self.page, index, c.READY, time.monotonic_ns())
            if self.sock is not None:
                self.introduce(worker)
            born.append(worker)
        return born

    def head(self, worker: FakeWorker, head: int) -> None:
        """`head` slots have been written for this worker."""
        self.page.q[c.record(worker.index) + c.R_HEAD] = head

    def block(self, worker: FakeWorker, tid: int, seq: int = 1) -> None:
        """The worker announced that the call of `tid` may block."""
        c.block(self.page, worker.index, tid, seq, time.monotonic_ns())
        self.send(p.WAKE)

    def bury(self, worker: FakeWorker, sig: int = signal.SIGKILL, reason: int = 0) -> None:
        """The worker died: reap it and tell the monitor."""
        status = worker.end(sig)
        del self.workers[worker.index]
        c.change(self.page, worker.index, c.DEAD, time.monotonic_ns())
        self.send(p.WORKER_DEAD, worker.index, worker.generation, p.death(status, reason))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.end()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        for end in (self.sock, self.log_in, self.log_out):
            if end is not None:
                end.close()
