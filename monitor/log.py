"""The log writer: datagrams in, JSON lines out, never waiting for whoever reads them.

    workers, tracer --datagrams (shm/logline.py)--> socket --> Log --> descriptor of SYD_LOG_FD

What a sandboxed program put into a line (paths, arguments, names) is hostile: bytes that are not clean
printable UTF-8 are written as hexadecimal, so that no line break, escape sequence or reordering mark
ever reaches a terminal or forges a line.

**Guarantees**: a datagram is taken out of the socket after its line was handed to the kernel (a monitor
killed in between writes the line twice, never not at all).  A reader that does not keep up holds lines
for HOLD_MS, then they are dropped, counted, and the count is one line as soon as there is room.  The
flags of the shared file description are not touched.

The level filter is repeated here; senders filter first.
"""

from __future__ import annotations

import os
import stat
from _socket import socket
from errno import EAGAIN, EBADF, EINTR, EPIPE
from select import POLLOUT, POLLRDHUP, poll
from time import gmtime, monotonic_ns, strftime, time

from monitor.config import LEVELS, WARN
from monitor.facts import caller_facts
from monitor.limit import Limit
from monitor.protocol import M_BAD, M_DROPPED, M_LINES
from syd_pool.shm.logline import MOST, decode
from syd_pool.shm.logring import append

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence

    from monitor.config import Config

# Keys in the order of a line (spec 1.14), then what only we have.
ORDER = (
    "id", "sid", "syd", "ctx", "cap", "act", "sys", "path", "ctl", "dst", "addr", "unix", "args", "pid", "tgid",
    "cmd", "cwd", "tty", "uid", "time", "req", "err", "msg", "tip", "nr", "worker", "rule", "count", "about", "name",
)  # fmt: skip

HOLD_MS = 1000  # a reader that is slow for less loses nothing
FAREWELL_MS = 200  # ... and at the end of the run
PIPE_BUF = 4096  # a write of no more never blocks after POLLOUT, see pipe(7)
_MSG_PEEK = 0x2
_MSG_DONTWAIT = 0x40
_MSG_NOSIGNAL = 0x4000

_LEVEL = {name.encode(): number for number, name in enumerate(LEVELS)}


# --- one line ------------------------------------------------------------------------------------


def clean(value: bytes) -> str:
    """`value` as text if every character of it is printable, else as hexadecimal."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value.hex()
    return text if text.isprintable() else value.hex()


def severity(fields: dict[str, bytes | int]) -> int:
    """The level of a line, 0..7: a name or a number; warn when it says nothing sensible."""
    value = fields.get("level", WARN)
    number = _LEVEL.get(value, WARN) if isinstance(value, bytes) else value
    return number if 0 <= number <= 7 else WARN


def timestamp(now: float) -> str:
    """ISO 8601 in the format of syd(1)."""
    return strftime("%Y%m%dT%H%M%SZ", gmtime(now))


def line(fields: dict[str, bytes | int], config: Config, now: float) -> dict[str, str | int]:
    """The object that is written: keys in ORDER, bytes cleaned, what the writer knows added."""
    own: dict[str, int | str] = {"time": timestamp(now)}
    if config.sandbox:
        own["id"] = config.sandbox
    if config.name:
        own["sid"] = config.name
    if config.syd:
        own["syd"] = config.syd
    pid = fields.get("pid", 0)
    facts = caller_facts(pid) if isinstance(pid, int) and 0 < pid < 1 << 31 else {}
    known: dict[str, bytes | int | str] = {**facts, **fields, **own}
    return {key: _plain(known[key]) for key in ORDER if key in known}


def _plain(value: bytes | int | str) -> str | int:
    """A value JSON can hold; an integer beyond 64 bits (orjson refuses it) becomes text."""
    if isinstance(value, bytes):
        return clean(value)
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return str(value)
    return value


def serializer(pretty: bool) -> Callable[[dict[str, str | int]], bytes]:
    """orjson (17 ms to import: at the first line, not at the start); json where it is not installed."""
    try:
        import orjson
    except ImportError:
        import json

        indent = 2 if pretty else None
        return lambda fields: json.dumps(fields, indent=indent).encode() + b"\n"
    option = orjson.OPT_APPEND_NEWLINE | (orjson.OPT_INDENT_2 if pretty else 0)
    return lambda fields: orjson.dumps(fields, option=option)


# --- where lines go ------------------------------------------------------------------------------


class Sink:
    """A descriptor that is written without ever waiting for its reader.

    O_NONBLOCK belongs to the file description, which the command may share (it is its stderr).  So a
    pipe or a terminal is opened a second time through /proc/self/fd; a socket has MSG_DONTWAIT; a file
    or /dev/null does not wait; what cannot be reopened gets pieces of PIPE_BUF behind a poll.
    """

    __slots__ = ("_fd", "_given", "_piecewise", "_rest", "_socket", "dead", "pollable", "terminal")

    def __init__(self, fd: int) -> None:
        self._fd = self._given = fd
        self._rest = b""
        self._piecewise = False
        self._socket: socket | None = None
        self.dead = fd < 0
        self.pollable = False
        self.terminal = False
        if fd >= 0:
            self._look(fd)

    def _look(self, fd: int) -> None:
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            self.dead = True
            return
        self.terminal = stat.S_ISCHR(mode) and os.isatty(fd)
        if stat.S_ISSOCK(mode):
            self._socket = socket(fileno=os.dup(fd))
            self.pollable = True
        elif stat.S_ISFIFO(mode) or self.terminal:
            self.pollable = True
            self._reopen(fd)

    def _reopen(self, fd: int) -> None:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            self._fd = os.open(f"/proc/self/fd/{fd}", flags)
        except OSError:
            self._piecewise = True

    def close(self) -> None:
        """Close what was opened here, not the descriptor that was given."""
        if self._socket is not None:
            self._socket.close()
        if self._fd != self._given:
            os.close(self._fd)
            self._fd = self._given
        self.dead = True

    @property
    def fd(self) -> int:
        """What to poll for POLLOUT."""
        return self._fd

    def wait(self, patience_ms: int) -> bool:
        """Wait until something can be written.  False: not within `patience_ms`."""
        if not self.pollable or self.dead:
            return True
        poller = poll()
        poller.register(self._fd, POLLOUT)
        return bool(poller.poll(patience_ms))

    def _write(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, _MSG_DONTWAIT | _MSG_NOSIGNAL)
        if not self._piecewise:
            return os.write(self._fd, data)
        if not self.wait(0):
            raise BlockingIOError(EAGAIN, "log")
        return os.write(self._fd, data[:PIPE_BUF])

    def write(self, data: bytes) -> bool:
        """Hand over `data`, or nothing of it (False: no room).  What the kernel cut is kept as rest.

        Raises OSError when the line is lost (no space, input/output error, the reader is gone).
        """
        if not self.flush():
            return False
        done = 0
        try:
            while done < len(data):
                done += self._write(data[done:] if done else data)
        except OSError as error:
            if error.errno not in (EAGAIN, EINTR):
                self.dead = error.errno in (EPIPE, EBADF)
                raise
            if not done:
                return False
            self._rest = data[done:]
        return True

    @property
    def cut(self) -> bool:
        """Does the rest of a line wait for room?"""
        return bool(self._rest)

    def flush(self) -> bool:
        """Write the rest of a line that was cut.  True when nothing of it is left."""
        try:
            while self._rest:
                self._rest = self._rest[self._write(self._rest) :]
        except OSError as error:
            if error.errno in (EAGAIN, EINTR):
                return False
            self._rest = b""
            self.dead = error.errno in (EPIPE, EBADF)
        return True


# --- the writer ----------------------------------------------------------------------------------


class Log:
    """The log of a run: a socket of datagrams, a sink, and what was lost.

    `words` holds the counters M_LINES, M_DROPPED and M_BAD (the monitor's page, or a list).
    """

    __slots__ = ("_buffer", "_config", "_dump", "_held_at", "_limit", "_lost", "_socket", "sink", "words")

    def __init__(self, fd: int, config: Config, words: MutableSequence[int] | memoryview) -> None:
        self._socket: socket | None = socket(fileno=fd) if fd >= 0 else None
        self._buffer = memoryview(bytearray(MOST))
        self._config = config
        self._dump: Callable[[dict[str, str | int]], bytes] | None = None
        self._held_at = 0  # when the sink refused the line that waits in the socket; 0: it did not
        self._lost = 0  # dropped and not yet reported
        self._limit = Limit()
        self.sink = Sink(config.log_fd)
        self.words = words

    @property
    def holding(self) -> bool:
        """The sink has no room: wait for POLLOUT of it instead of POLLIN of the socket."""
        return self._held_at != 0

    def hold_left_ms(self) -> float:
        """How long lines are still held before they are dropped."""
        return max(0.0, HOLD_MS - (monotonic_ns() - self._held_at) / 1e6)

    def release(self) -> None:
        """Forget socket and sink without closing them: the descriptors belong to somebody else."""
        self.sink.close()
        if self._socket is not None:
            self._socket.detach()
            self._socket = None

    def _peek(self) -> bytes | None:
        """The datagram that waits, still in the socket; None when there is none.

        An empty datagram is b"" (and no log line).  On a SEQPACKET socket so is the end, which shows
        by POLLRDHUP.
        """
        if self._socket is None:
            return None
        for _ in range(2):
            try:
                size = self._socket.recv_into(self._buffer, MOST, _MSG_PEEK | _MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except OSError:
                continue  # the error of a sender that died (ECONNRESET) is reported once
            return bytes(self._buffer[:size]) if size or not self._ended() else None
        return None

    def _ended(self) -> bool:
        poller = poll()
        if self._socket is not None:
            poller.register(self._socket.fileno(), POLLRDHUP)
        return bool(poller.poll(0))

    def _consume(self) -> None:
        if self._socket is not None:
            try:
                self._socket.recv(1, _MSG_DONTWAIT)
            except OSError:
                pass  # nothing was there, or the same as in _peek

    def _encode(self, said: dict[str, str | int]) -> bytes:
        if self._dump is None:
            pretty = self._config.pretty
            self._dump = serializer(self.sink.terminal if pretty is None else pretty)
        return self._dump(said)

    def _drop(self, count: int = 1) -> None:
        self._lost += count
        self.words[M_DROPPED] += count

    def _emit(self, fields: dict[str, bytes | int]) -> bool:
        """Write one line if its level asks for it.  False: no room now."""
        level = severity(fields)
        if level > self._config.log_level:
            return True
        if self.sink.dead and self._config.ring is None:
            self._drop()
            return True
        said = line(fields, self._config, time())  # first: an import takes longer than many a process lives
        try:
            if not self.sink.dead and not self.sink.write(self._encode(said)):
                return False
        except OSError:
            self._drop()
        else:
            self.words[M_LINES if not self.sink.dead else M_DROPPED] += 1
        if self._config.ring is not None:
            append(self._config.ring, level, serializer(False)(said))
        return True

    def _report(self) -> bool:
        """The line that says how many were lost.  False: no room for it yet."""
        if not self._lost or self.sink.dead:
            return True
        message = b"log lines lost: the reader of the log did not keep up"
        fields: dict[str, bytes | int] = {"ctx": b"log", "act": b"drop", "count": self._lost, "msg": message}
        try:
            if not self.sink.write(self._encode(line(fields, self._config, time()))):
                return False
        except OSError:
            return True  # lines are lost for another reason than room: the next one may do
        self.words[M_LINES] += 1
        self._lost = 0
        return True

    def put(self, **fields: bytes | int) -> None:
        """A line of the monitor's own; lost and counted when there is no room."""
        if not self._emit(fields):
            self._drop()

    def pump(self, most: int = 256) -> bool:
        """Write up to `most` lines that wait.  True when it stopped at `most`: there may be more."""
        while most:
            datagram = self._peek()
            if datagram is None:
                if self._held_at and self.sink.flush() and self._report():
                    self._held_at = 0
                if self._limit.waiting and not self._held_at:
                    self._say_counts()
                return False
            if not self._pass_on(datagram):
                return False
            self._consume()
            most -= 1
        return True

    def _pass_on(self, datagram: bytes) -> bool:
        """Write or drop one datagram.  False: it stays in the socket, held."""
        try:
            fields = dict(decode(datagram))
        except ValueError:
            self.words[M_BAD] += 1
            return True
        # a line that is held is asked about again: it has been admitted
        if not self._held_at and severity(fields) <= self._config.log_level:
            if not self._limit.admits(fields, monotonic_ns()):
                return True
        if self.sink.flush() and self._report() and self._emit(fields):
            self._held_at = monotonic_ns() if self.sink.cut else 0
            return True
        if not self._held_at:
            self._held_at = monotonic_ns()
        if self.hold_left_ms() > 0:
            return False
        self._drop()
        return True

    def _say_counts(self, everything: bool = False) -> None:
        """How many lines were held back, of every kind (limit.py)."""
        for fields in self._limit.counts(monotonic_ns(), everything):
            self.put(**fields)

    def finish(self, farewell_ms: int = FAREWELL_MS) -> None:
        """Write everything that waits; a reader without room gets `farewell_ms` in all."""
        deadline = monotonic_ns() + farewell_ms * 1_000_000
        while True:
            while self.pump():
                pass
            if not self._held_at and self.sink.flush() and self._report():
                self._say_counts(everything=True)
                return
            left = (deadline - monotonic_ns()) // 1_000_000
            if left <= 0:
                self._give_up()
                return
            self.sink.wait(left)

    def _give_up(self) -> None:
        while self._peek() is not None:
            self._consume()
            self._drop()


def drain(fd: int, config: Config, farewell_ms: int = FAREWELL_MS) -> int:
    """Write what still waits in log socket `fd`; for the tracer, when there is no monitor any more.

    Returns how many lines were lost.  `fd` stays open.
    """
    log = Log(fd, config, [0] * (M_BAD + 1))
    try:
        log.finish(farewell_ms)
    finally:
        log.release()
    return log.words[M_DROPPED]


def write_all(fd: int, data: bytes, patience_ms: int) -> None:
    """Write `data` to any descriptor; a reader that is not ready gets `patience_ms` in all.

    Raises OSError as write(2) does; what the reader did not take in time is lost.
    """
    sink = Sink(fd)
    deadline = monotonic_ns() + patience_ms * 1_000_000
    try:
        done = sink.write(data)
        while not done or not sink.flush():
            left = (deadline - monotonic_ns()) // 1_000_000
            if left <= 0:
                return
            sink.wait(left)
            done = done or sink.write(data)
    finally:
        sink.close()
