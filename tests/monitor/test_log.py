"""The log writer: what a line looks like, what can never get into one, and readers that do not read."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import socket
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor import log as logs
from monitor.config import Config
from monitor.limit import BURST, EACH_SECOND, Limit
from monitor.protocol import M_BAD, M_DROPPED, M_LINES
from syd_pool.shm.logline import KEYS, encode

DENIAL: list[tuple[str, bytes | int]] = [
    ("level", b"warn"),
    ("ctx", b"access"),
    ("cap", b"read"),
    ("act", b"deny"),
    ("sys", b"openat"),
    ("path", b"/etc/shadow"),
    ("pid", 1),
]


def settings(fd: int, **more: object) -> Config:
    """A config that writes to `fd`."""
    config = Config(1, 1)
    config.log_fd = fd
    for name, value in more.items():
        setattr(config, name, value)
    return config


class Bench:
    """A log socket, a pipe as the sink, a Log between them."""

    def __init__(self, kind: int = socket.SOCK_DGRAM, **more: object) -> None:
        self.sender, self.receiver = socket.socketpair(socket.AF_UNIX, kind)
        self.read, self.write = os.pipe()
        self.words = [0] * 32
        self.log = logs.Log(self.receiver.fileno(), settings(self.write, **more), self.words)

    def send(self, *fields: tuple[str, bytes | int]) -> None:
        """One datagram."""
        self.sender.send(encode(list(fields)))

    def output(self) -> bytes:
        """What was written so far."""
        os.set_blocking(self.read, False)
        data = b""
        try:
            while piece := os.read(self.read, 1 << 16):
                data += piece
        except BlockingIOError:
            pass
        return data

    def lines(self) -> list[dict[str, Any]]:
        """The output, line by line; each must be a JSON object."""
        return [json.loads(line) for line in self.output().splitlines()]

    def fill(self) -> int:
        """Fill the pipe to the brim, as a reader that does not read does."""
        extra = os.open(f"/proc/self/fd/{self.write}", os.O_WRONLY | os.O_NONBLOCK)
        size = 0
        try:
            while True:
                size += os.write(extra, b"x" * 4096)
        except BlockingIOError:
            os.close(extra)
        return size

    def close(self) -> None:
        """Let go of everything."""
        self.log.release()
        self.sender.close()
        self.receiver.close()
        for fd in (self.read, self.write):
            try:
                os.close(fd)
            except OSError:
                pass


@pytest.fixture
def bench():  # type: ignore[no-untyped-def]
    """A Bench that is cleaned away."""
    made = Bench()
    yield made
    made.close()


# --- lines ---------------------------------------------------------------------------------------


def test_a_denial(bench: Bench) -> None:
    """One datagram, one line, the keys of spec 1.14 in their order, facts of the process added."""
    bench.send(*DENIAL)
    bench.log.pump()
    raw = bench.output()
    assert raw.count(b"\n") == 1
    line = orjson.loads(raw)
    assert line["path"] == "/etc/shadow"
    assert line["pid"] == 1
    assert line["uid"] == 0
    assert line["cmd"]
    assert time.strptime(line["time"], "%Y%m%dT%H%M%SZ")
    assert "level" not in line
    assert list(line) == [key for key in logs.ORDER if key in line]
    assert bench.words[M_LINES] == 1


def test_what_the_writer_knows_cannot_be_forged(bench: Bench) -> None:
    """A sender's `id` does not replace the run's."""
    bench.log._config.sandbox = "a" * 128
    bench.log._config.name = "run"
    bench.log._config.syd = 7
    bench.send(*DENIAL, ("id", b"forged"), ("syd", 1))
    bench.log.pump()
    line = bench.lines()[0]
    assert (line["id"], line["sid"], line["syd"]) == ("a" * 128, "run", 7)


def test_every_key_a_sender_has_is_written() -> None:
    """KEYS of shm/logline.py and ORDER agree, `level` aside."""
    assert set(KEYS) - set(logs.ORDER) == {"level"}


@pytest.mark.parametrize(
    "evil",
    [
        b'/tmp/a\n{"ctx":"access","act":"allow"}',
        b"/tmp/\x1b]0;owned\x07",
        b"/tmp/\x1b[2J",
        b"/tmp/\xff\xfe",
        b"/tmp/\x9b31m",
        "/tmp/\u202egnp.exe".encode(),
        "/tmp/\u2028x".encode(),
        b"/tmp/\x00x",
        b"/tmp/\r",
        b"/tmp/\x7f",
        b"/tmp/\xed\xa0\x80",
    ],
)
def test_hostile_bytes_become_hexadecimal(bench: Bench, evil: bytes) -> None:
    """F7: line breaks, escapes, C1 controls, reordering marks, surrogates, NUL, DEL."""
    bench.send(("path", evil), ("msg", "/tmp/grün ☃".encode()))
    bench.log.pump()
    raw = bench.output()
    assert raw.count(b"\n") == 1
    assert not any(byte < 0x20 or byte == 0x7F for byte in raw[:-1])
    line = json.loads(raw)
    assert bytes.fromhex(line["path"]) == evil
    assert line["msg"] == "/tmp/grün ☃", "clean text stays text"


@given(st.binary(max_size=300))
def test_clean_is_printable_and_one_to_one(value: bytes) -> None:
    """Whatever comes in, what goes out is printable and says what came in."""
    text = logs.clean(value)
    assert text.isprintable()
    assert text.encode() == value or bytes.fromhex(text) == value


@given(st.binary(max_size=400))
def test_garbage_never_stops_the_writer(data: bytes) -> None:
    """A taken-over worker sends anything; the next honest line is written."""
    bench = Bench()
    try:
        bench.sender.send(data)
        bench.send(*DENIAL)
        bench.log.pump()
        assert bench.lines()[-1]["path"] == "/etc/shadow"
        assert bench.words[M_LINES] + bench.words[M_BAD] == 2
    finally:
        bench.close()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_an_empty_datagram_does_not_clog(kind: int) -> None:
    """Zero bytes are a datagram too; they must not look like `nothing there`."""
    bench = Bench(kind)
    try:
        for _ in range(3):
            bench.sender.send(b"")
        bench.send(*DENIAL)
        bench.log.finish(0)
        assert [line["path"] for line in bench.lines() if "path" in line] == ["/etc/shadow"]
    finally:
        bench.close()


def test_integers_beyond_64_bits(bench: Bench) -> None:
    """orjson refuses them; the line must come out all the same."""
    bench.send(("pid", 10**30), ("nr", -(10**30)), ("count", 2**64 - 1))
    bench.log.pump()
    assert bench.lines()[0] | {"time": ""} == {
        "pid": str(10**30),
        "time": "",
        "nr": str(-(10**30)),
        "count": 2**64 - 1,
    }


def test_levels() -> None:
    """What is filtered."""
    for threshold, shown in ((4, ["a"]), (5, ["a", "b"]), (3, []), (7, ["a", "b", "c"])):
        bench = Bench(log_level=threshold)
        for text, name in ((b"a", b"warn"), (b"b", b"notice"), (b"c", b"debug")):
            bench.send(("level", name), ("path", text))
        bench.log.pump()
        assert [line["path"] for line in bench.lines()] == shown
        bench.close()


# --- sinks ---------------------------------------------------------------------------------------


def test_no_log(bench: Bench) -> None:
    """SYD_LOG_FD=-1: everything is taken in and nothing comes out."""
    log = logs.Log(bench.receiver.fileno(), settings(-1), bench.words)
    bench.send(*DENIAL)
    log.pump()
    log.release()
    assert bench.output() == b""
    with pytest.raises(BlockingIOError):
        bench.receiver.recv(1, socket.MSG_DONTWAIT)


def test_a_terminal_gets_it_pretty() -> None:
    """Indented on a terminal, one line each with SYD_QUIET_TTY."""
    for pretty, count in ((None, 4), (False, 1)):
        leader, follower = pty.openpty()
        bench = Bench(pretty=pretty)
        log = logs.Log(bench.receiver.fileno(), settings(follower, pretty=pretty), bench.words)
        bench.send(("ctx", b"access"))
        log.pump()
        said = b""
        while said.count(b"\n") < count and select.select([leader], [], [], 5)[0]:  # in pieces, as a terminal gives it
            said += os.read(leader, 4096)
        assert said.count(b"\n") == count and said.endswith(b"}\r\n")
        log.release()
        bench.close()
        os.close(leader)
        os.close(follower)


def test_the_flags_of_the_shared_description_stay(bench: Bench) -> None:
    """The command's own stderr must not become non-blocking behind its back."""
    bench.send(*DENIAL)
    bench.log.pump()
    assert not fcntl.fcntl(bench.write, fcntl.F_GETFL) & os.O_NONBLOCK


def timed(what: Any) -> float:
    """How many seconds a call takes; SIGALRM ends it if it hangs."""
    signal.alarm(10)
    start = time.monotonic()
    what()
    signal.alarm(0)
    return time.monotonic() - start


def test_a_full_pipe_holds_then_drops_then_counts(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    """Nothing blocks; what a slow reader missed for longer than HOLD_MS is one line with the count."""
    monkeypatch.setattr(logs, "HOLD_MS", 50)
    size = bench.fill()
    for _ in range(5):
        bench.send(*DENIAL)
    assert timed(bench.log.pump) < 0.05
    assert bench.log.holding
    assert bench.words[M_DROPPED] == 0
    assert bench.receiver.recv(1 << 16, socket.MSG_PEEK), "held in the socket, not in our memory"
    time.sleep(0.06)
    bench.log.pump()
    assert bench.words[M_DROPPED] == 5
    assert len(bench.output()) == size
    bench.send(*DENIAL)
    bench.log.pump()
    report, line = bench.lines()
    assert (report["ctx"], report["count"]) == ("log", 5)
    assert line["path"] == "/etc/shadow"
    assert not bench.log.holding


def test_a_slow_reader_loses_nothing(bench: Bench) -> None:
    """Room within HOLD_MS: the held lines come out, none dropped."""
    bench.fill()
    for _ in range(5):
        bench.send(*DENIAL)
    bench.log.pump()
    assert bench.log.holding
    bench.output()
    bench.log.pump()
    assert len(bench.lines()) == 5
    assert bench.words[M_DROPPED] == 0


def test_the_report_needs_no_next_line(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    """When there is room again the count is written, even if nobody logs any more."""
    monkeypatch.setattr(logs, "HOLD_MS", 0)
    bench.fill()
    bench.send(*DENIAL)
    bench.log.pump()
    bench.output()
    bench.log.pump()
    assert bench.lines()[0]["count"] == 1


def test_a_line_longer_than_the_room_is_not_torn(bench: Bench) -> None:
    """The pipe takes a part; the rest follows before anything else does."""
    path = b"/" + b"p" * 30_000
    for _ in range(5):  # more than the pipe holds, less than the socket does
        bench.send(("path", path))
    data = b""
    for _ in range(20):
        bench.log.pump()
        data += bench.output()
    lines = data.splitlines()
    assert len(lines) == 5
    assert all(json.loads(line)["path"].encode() == path for line in lines)


def test_a_reader_that_is_gone(bench: Bench) -> None:
    """EPIPE: lines are dropped and counted, nothing raises, nothing hangs."""
    os.close(bench.read)
    for _ in range(3):
        bench.send(*DENIAL)
    assert timed(bench.log.finish) < 0.1
    assert bench.words[M_DROPPED] == 3
    bench.read = os.open("/dev/null", os.O_RDONLY)


def test_no_space(bench: Bench) -> None:
    """ENOSPC loses the line and not the writer."""
    full = os.open("/dev/full", os.O_WRONLY)
    log = logs.Log(bench.receiver.fileno(), settings(full), bench.words)
    for _ in range(3):
        bench.send(*DENIAL)
    log.finish()
    log.release()
    os.close(full)
    assert bench.words[M_DROPPED] == 3


def test_a_full_socket_as_sink() -> None:
    """SYD_LOG_FD may be a socket: MSG_DONTWAIT, never a wait."""
    near, far = socket.socketpair()
    bench = Bench()
    log = logs.Log(bench.receiver.fileno(), settings(near.fileno()), bench.words)
    near.setblocking(False)
    try:
        while True:
            near.send(b"x" * 4096)
    except BlockingIOError:
        near.setblocking(True)
    bench.send(*DENIAL)
    assert timed(log.pump) < 0.05
    assert bench.words[M_LINES] == 0
    far.setblocking(False)
    for _ in range(100):
        log.pump()
        try:
            far.recv(1 << 20)
        except BlockingIOError:
            break
    assert not log.holding
    assert bench.words[M_LINES] == 1
    log.release()
    bench.close()
    near.close()
    far.close()


def test_finish_does_not_wait_for_ever(bench: Bench) -> None:
    """At the end of the run a reader that sleeps costs FAREWELL_MS, then the rest is counted as lost."""
    bench.fill()
    bench.send(*DENIAL)
    took = timed(lambda: bench.log.finish(100))
    assert 0.09 < took < 1
    assert bench.words[M_DROPPED] == 1


def test_drain_takes_over(bench: Bench) -> None:
    """The tracer writes what a dead monitor left in the socket, and the socket stays open."""
    for _ in range(300):
        bench.send(("ctx", b"x")) if bench.words[M_LINES] else bench.send(*DENIAL)
        if not _ % 50:
            assert logs.drain(bench.receiver.fileno(), settings(bench.write)) == 0
    logs.drain(bench.receiver.fileno(), settings(bench.write))
    assert len(bench.lines()) == 300
    os.fstat(bench.receiver.fileno())


def test_a_flood_stays_flat(bench: Bench, tmp_path: Path) -> None:
    """F7: 20,000 hostile lines; memory does not grow, a burst is written and the rest counted, no line is forged."""
    import resource

    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    log = logs.Log(bench.receiver.fileno(), settings(fd), bench.words)
    datagram = encode([("path", b'/tmp/\x1b[2J\n{"ctx":"forged"}\n' * 100), ("ctx", b"access"), ("act", b"deny")])
    before = 0
    for at in range(20_000):
        bench.sender.send(datagram)
        log.pump()
        if at == 1000:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    log.finish()
    log.release()
    os.close(fd)
    assert after - before < 4096, "KiB"
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    written = [line for line in lines if line["ctx"] == "access"]
    counts = [line for line in lines if line["ctx"] == "log"]
    assert len(written) + len(counts) == len(lines) == bench.words[M_LINES]
    assert BURST <= len(written) < BURST + 600
    assert len(written) + sum(line["count"] for line in counts) == 20_000
    assert {(line["about"], line["act"]) for line in counts} == {("access", "deny")}
    assert bench.words[M_DROPPED] == 0


def test_what_is_not_held_back() -> None:
    """Another kind has a burst of its own, warnings of who learns are all written, and time gives new tokens."""
    limit, second = Limit(), 1_000_000_000
    denial: dict[str, bytes | int] = {"ctx": b"access", "cap": b"read", "act": b"deny"}
    assert [limit.admits(denial, second) for _ in range(300)].count(True) == BURST
    assert limit.admits({**denial, "cap": b"write"}, second)
    assert all(limit.admits({**denial, "act": b"warn"}, second) for _ in range(1000))
    (line,) = limit.counts(2 * second)
    assert (line["count"], line["cap"], limit.waiting) == (100, b"read", False)
    assert [limit.admits(denial, 3 * second) for _ in range(100)].count(True) == 2 * EACH_SECOND
    assert not list(limit.counts(2 * second + 1)) and limit.waiting, "at most one line a second"
    assert next(limit.counts(2 * second + 2, everything=True))["count"] == 60


def test_kinds_are_bounded() -> None:
    """However many names a line may have, the table does not grow."""
    limit = Limit()
    for number in range(10_000):
        limit.admits({"ctx": b"%d" % number, "act": b"deny"}, 1)
    assert len(limit._kinds) < 300
