"""The monitor as a process, against a tracer that only talks: every decision, restart, stall, exit."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from monitor import protocol as p
from syd_pool.shm import control as c
from syd_pool.shm import ring
from syd_pool.shm.logline import encode
from tests.monitor.fake import FakeTracer, FakeWorker


@pytest.fixture
def tracer() -> Iterator[FakeTracer]:
    """Two workers, a monitor that has looked once, quick limits."""
    with FakeTracer(2, 8, stall_ms=400, boot_ms=400, keep_alive_ms=300) as made:
        made.spawn(2)
        made.start()
        settle(made)
        yield made


def settle(tracer: FakeTracer, turns: int = 2) -> None:
    """Wait until the monitor has made a few more turns."""
    end = time.monotonic() + 3
    goal = tracer.beat() + turns
    while tracer.beat() < goal:
        assert time.monotonic() < end, "the monitor does not move"
        tracer.send(p.PING)
        time.sleep(0.002)


def busy(tracer: FakeTracer, worker: FakeWorker, head: int = 5) -> None:
    """A slot was written and taken, and is not done."""
    worker.page.q[ring.W_TAKEN] = head
    worker.page.q[ring.W_DONE] = head - 1
    worker.page.q[ring.W_PHASE] = (head - 1) << 8 | ring.TAKEN
    tracer.head(worker, head)


# --- size ----------------------------------------------------------------------------------------


def test_a_content_pool_is_left_alone(tracer: FakeTracer) -> None:
    """Enough workers, nothing to do: no request."""
    tracer.quiet(p.SPAWN, 0.7)
    assert not tracer.seen


def test_missing_workers_are_asked_for_at_once() -> None:
    """A pool without workers: nproc of them, in one request."""
    with FakeTracer(3, 8) as tracer:
        tracer.start()
        assert tracer.expect(p.SPAWN, 1).argument == 3
        tracer.spawn(3)
        tracer.quiet(p.SPAWN, 0.3)


def test_a_dead_worker_comes_back_within_20_ms(tracer: FakeTracer) -> None:
    """Respawn p99 <= 200 ms has room: the request comes at once after a death."""
    for worker in tracer.workers.values():
        worker.page.q[ring.W_DONE] = 10
        tracer.head(worker, 10)
    delays = []
    for _ in range(20):
        worker = tracer.workers[0]
        worker.page.q[ring.W_DONE] = 10
        tracer.head(worker, 10)
        start = time.monotonic()
        tracer.bury(worker)
        assert tracer.expect(p.SPAWN).argument == 1
        delays.append(time.monotonic() - start)
        tracer.spawn()
    assert sorted(delays)[-2] < 0.1, delays


def test_blocked_workers_are_made_up_for(tracer: FakeTracer) -> None:
    """F1: every worker opens a FIFO; others are forked before anybody waits, up to nproc-max."""
    me = threading.get_native_id()
    asked = 0
    while len(tracer.workers) < 8:
        for worker in list(tracer.workers.values()):
            tracer.block(worker, me)
        count = tracer.expect(p.SPAWN, 1).argument
        assert count == 2
        asked += count
        tracer.spawn(count)
    assert asked == 6
    for worker in tracer.workers.values():
        tracer.block(worker, me)
    tracer.quiet(p.SPAWN, 0.3)


def test_stuck_workers_with_work_waiting_grow_the_pool(tracer: FakeTracer) -> None:
    """Both workers are in a slow call and a third call waits."""
    for worker in tracer.workers.values():
        busy(tracer, worker)
    tracer.page.q[c.H_BACKLOG] = 1
    tracer.send(p.WAKE)
    start = time.monotonic()
    assert tracer.expect(p.SPAWN, 1).argument == 2
    assert time.monotonic() - start < 0.05


def test_busy_workers_that_get_on_do_not_grow_the_pool(tracer: FakeTracer) -> None:
    """The same with progress at every millisecond: no fork."""
    tracer.page.q[c.H_BACKLOG] = 1
    stop = threading.Event()

    def load() -> None:
        head = 5
        while not stop.is_set():
            head += 1
            for worker in tracer.workers.values():
                busy(tracer, worker, head)
            time.sleep(0.0005)

    thread = threading.Thread(target=load)
    thread.start()
    tracer.send(p.WAKE)
    try:
        tracer.quiet(p.SPAWN, 0.5)
    finally:
        stop.set()
        thread.join()


def test_idle_extras_retire_after_the_keep_alive_time(tracer: FakeTracer) -> None:
    """Two extras, idle: the last ones go, not before 300 ms, and never below nproc."""
    start = time.monotonic()
    tracer.spawn(2)
    gone = {tracer.expect(p.RETIRE, 2).index for _ in range(2)}
    assert time.monotonic() - start >= 0.3
    assert gone == {2, 3}
    for index in gone:
        c.change(tracer.page, index, c.RETIRING, time.monotonic_ns())
    tracer.sock.setblocking(False)  # type: ignore[union-attr]
    tracer.quiet(p.RETIRE, 0.4)


def test_a_busy_extra_does_not_retire(tracer: FakeTracer) -> None:
    """Extras that work stay."""
    busy(tracer, tracer.spawn()[0])
    tracer.quiet(p.RETIRE, 0.35)


# --- deaths --------------------------------------------------------------------------------------


def respawn_gap(tracer: FakeTracer, sig: int) -> float:
    """Seconds from a death at birth to the request for the next worker."""
    worker = tracer.workers[max(tracer.workers)]
    worker.page.q[ring.W_DONE] = 0
    start = time.monotonic()
    tracer.bury(worker, sig)
    tracer.expect(p.SPAWN)
    gap = time.monotonic() - start
    tracer.spawn()
    settle(tracer)
    return gap


def test_workers_that_cannot_start_are_tried_less_and_less(tracer: FakeTracer) -> None:
    """Their own crash before a first call doubles the delay: 20, 40, 80, 160, 320 ms."""
    gaps = [respawn_gap(tracer, signal.SIGSEGV) for _ in range(5)]
    assert gaps[4] > 0.3
    assert gaps[4] > 2 * gaps[2]


def test_foreign_kills_delay_nothing_to_speak_of(tracer: FakeTracer) -> None:
    """kill -9 in a row, each at birth: the next one comes within 50 ms and a bit."""
    gaps = [respawn_gap(tracer, signal.SIGKILL) for _ in range(10)]
    assert max(gaps) < 0.2, gaps


def test_a_fork_that_failed_is_not_tried_in_a_loop(tracer: FakeTracer) -> None:
    """REFUSED (EAGAIN) counts as a failure to start."""
    tracer.bury(tracer.workers[0], signal.SIGKILL)
    for _ in range(4):
        tracer.expect(p.SPAWN)
        tracer.send(p.REFUSED, argument=11)
    start = time.monotonic()
    tracer.expect(p.SPAWN)
    assert time.monotonic() - start > 0.1


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSEGV])
def test_who_has_worked_is_replaced_at_once(tracer: FakeTracer, sig: int) -> None:
    """However it died, and while workers that cannot start are tried less and less: those wait, it does not."""
    assert [respawn_gap(tracer, signal.SIGSEGV) for _ in range(6)][-1] > 0.3
    tracer.bury(tracer.workers[max(tracer.workers)], signal.SIGSEGV)  # at birth: 1.28 s to wait
    old = tracer.workers[min(tracer.workers)]
    old.page.q[ring.W_DONE] = 3
    start = time.monotonic()
    tracer.bury(old, sig)
    assert tracer.expect(p.SPAWN).argument == 1
    assert time.monotonic() - start < 0.1
    tracer.spawn()
    assert tracer.expect(p.SPAWN).argument == 1
    assert time.monotonic() - start > 0.5


# --- stalls --------------------------------------------------------------------------------------


def test_a_worker_without_progress_is_killed(tracer: FakeTracer) -> None:
    """F2: the request names the worker, the reason and the call (W_DONE), and is repeated."""
    worker = tracer.workers[1]
    busy(tracer, worker)
    start = time.monotonic()
    request = tracer.expect(p.KILL)
    assert 0.3 < time.monotonic() - start < 1.5
    assert (request.index, request.generation) == (1, worker.generation)
    assert (request.argument & 0xFF, request.argument >> 8) == (p.REASON_STALL, 4)
    tracer.expect(p.KILL, 0.5)
    worker.page.q[ring.W_DONE] = 5
    settle(tracer)
    tracer.sock.setblocking(False)  # type: ignore[union-attr]
    tracer.request(0.2)
    tracer.quiet(p.KILL, 0.6)


def test_a_stopped_worker_is_killed(tracer: FakeTracer) -> None:
    """G7: SIGSTOP in the middle of a call."""
    worker = tracer.workers[0]
    os.kill(worker.pid, signal.SIGSTOP)
    busy(tracer, worker)
    assert tracer.expect(p.KILL).index == 0


def test_never_in_the_descriptor_phase(tracer: FakeTracer) -> None:
    """I2: it is continued when it was stopped, and never killed; in the next phase it is."""
    worker = tracer.workers[0]
    busy(tracer, worker)
    worker.page.q[ring.W_PHASE] = 4 << 8 | ring.EFFECT | ring.DESCRIPTOR
    tracer.quiet(p.KILL, 1)
    os.kill(worker.pid, signal.SIGSTOP)
    assert tracer.expect(p.REVIVE).index == 0
    assert not any(request.kind == p.KILL for request in tracer.seen)
    worker.page.q[ring.W_PHASE] = 4 << 8 | ring.EFFECT
    tracer.expect(p.KILL, 1.5)


def test_a_blocked_worker_is_no_stall(tracer: FakeTracer) -> None:
    """Announced: it may wait as long as it likes."""
    worker = tracer.workers[0]
    busy(tracer, worker)
    tracer.block(worker, threading.get_native_id())
    tracer.quiet(p.KILL, 1)


def test_progress_is_no_stall(tracer: FakeTracer) -> None:
    """One call every 100 ms, for three limits."""
    worker = tracer.workers[0]
    end = time.monotonic() + 1.2
    head = 5
    while time.monotonic() < end:
        head += 1
        busy(tracer, worker, head)
        tracer.quiet(p.KILL, 0.1)


def test_a_worker_that_never_gets_ready(tracer: FakeTracer) -> None:
    """STARTING for longer than boot_ms: killed for that, which blames no call."""
    worker = tracer.workers[0]
    c.change(tracer.page, 0, c.STARTING, time.monotonic_ns())
    request = tracer.expect(p.KILL)
    assert (request.index, request.argument & 0xFF) == (worker.index, p.REASON_BOOT)


def test_a_lost_wake_up_is_repaired(tracer: FakeTracer) -> None:
    """A slot beside an idle worker: KICK within 100 ms of being noticed, counted."""
    worker = tracer.workers[1]
    busy(tracer, worker, 4)
    worker.page.q[ring.W_DONE] = 4
    settle(tracer)
    tracer.head(worker, 5)
    assert tracer.expect(p.KICK, 1.0).index == 1
    assert tracer.mine.q[p.M_KICKS] == 1


def test_a_stopped_tracer_kills_nobody(tracer: FakeTracer) -> None:
    """G6: the tracer stands still for longer than the limit; its workers cannot be blamed."""
    stopped = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"])
    try:
        stopped.send_signal(signal.SIGSTOP)
        tracer.page.q[c.H_TRACER] = stopped.pid
        busy(tracer, tracer.workers[0])
        tracer.quiet(p.KILL, 1)
        stopped.send_signal(signal.SIGCONT)
        tracer.expect(p.KILL, 1.5)
    finally:
        stopped.kill()
        stopped.wait()


# --- interruption --------------------------------------------------------------------------------


SLEEPER = """
import os, signal
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
os.write(1, b"r")
signal.sigwait([64])
"""


@pytest.fixture
def caller() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits as a caller does; stopped, so that signals stay pending."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", SLEEPER], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1) == b"r"
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    yield process
    process.kill()
    process.communicate()


def test_a_deliverable_signal_interrupts(tracer: FakeTracer, caller: subprocess.Popen[bytes]) -> None:
    """H4: within 50 ms, with the announcement's number, repeated until the record changes."""
    worker = tracer.workers[0]
    tracer.block(worker, caller.pid, seq=7)
    tracer.quiet(p.INTERRUPT, 0.1)
    caller.send_signal(signal.SIGUSR2)  # blocked: no reason
    tracer.quiet(p.INTERRUPT, 0.1)
    start = time.monotonic()
    caller.send_signal(signal.SIGUSR1)
    request = tracer.expect(p.INTERRUPT, 1)
    assert time.monotonic() - start < 0.05
    assert (request.index, request.argument, request.key) == (0, 7, p.WHY_SIGNAL)
    tracer.expect(p.INTERRUPT, 0.2)
    tracer.expect(p.INTERRUPT, 0.2)
    c.change(tracer.page, 0, c.READY, time.monotonic_ns())
    settle(tracer)
    while tracer.request(0.02) is not None:
        pass
    tracer.quiet(p.INTERRUPT, 0.2)


def test_a_dead_caller_interrupts(tracer: FakeTracer, caller: subprocess.Popen[bytes]) -> None:
    """The caller is killed: its open must not keep a worker for ever."""
    tracer.block(tracer.workers[1], caller.pid, seq=3)
    tracer.quiet(p.INTERRUPT, 0.05)
    caller.kill()
    request = tracer.expect(p.INTERRUPT, 1)
    assert (request.index, request.argument, request.key) == (1, 3, p.WHY_GONE)


def test_the_next_blocked_call_is_another_one(tracer: FakeTracer, caller: subprocess.Popen[bytes]) -> None:
    """The same worker, a new announcement, a caller without signals: no left-over request."""
    caller.send_signal(signal.SIGUSR1)
    tracer.block(tracer.workers[0], caller.pid, seq=1)
    tracer.expect(p.INTERRUPT, 1)
    tracer.block(tracer.workers[0], os.getpid(), seq=2)
    settle(tracer)
    while tracer.request(0.02) is not None:
        pass
    tracer.quiet(p.INTERRUPT, 0.2)


# --- the process itself --------------------------------------------------------------------------


def test_who_it_is(tracer: FakeTracer) -> None:
    """syd_mon; all signals blocked, no new privileges, and no descriptor beyond its few."""
    with open(f"/proc/{tracer.pid}/status") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    assert status["Name"] == "syd_mon"
    assert status["NoNewPrivs"] == "1"
    assert int(status["SigBlk"], 16) | 0x3_8004_0100 == 0xFFFF_FFFF_FFFF_FFFF
    assert int(status["CapEff"], 16) & ~(1 << 19) == 0
    links = [os.readlink(f"/proc/{tracer.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{tracer.pid}/fd")]
    assert len(links) == 6, links
    assert sum(link.startswith("socket:") for link in links) == 2
    assert sum(link.startswith("/memfd:") for link in links) == 4, "control, own, two workers"


def test_it_dies_with_the_tracer() -> None:
    """PDEATHSIG: kill -9 of the tracer leaves no monitor behind."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        tracer = FakeTracer(1, 1)
        tracer.start()
        settle(tracer)
        os.write(write, str(tracer.pid).encode())
        signal.pause()
    monitor = int(os.read(read, 20))
    assert os.path.exists(f"/proc/{monitor}")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write)
    end = time.monotonic() + 1
    while time.monotonic() < end and alive(monitor):
        time.sleep(0.005)
    assert not alive(monitor)


def alive(pid: int) -> bool:
    """Does it exist and is no zombie?  (Orphans are reaped by whoever is init here.)"""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_restart_at_any_moment(tracer: FakeTracer, caller: subprocess.Popen[bytes]) -> None:
    """G8: kill -9, a new one on the same pages goes on with all of it: blocked, stuck, missing."""
    extra = tracer.spawn()[0]
    tracer.block(tracer.workers[0], caller.pid, seq=9)
    caller.send_signal(signal.SIGUSR1)
    busy(tracer, tracer.workers[1])
    tracer.expect(p.INTERRUPT, 1)
    for _ in range(3):
        os.kill(tracer.pid, signal.SIGKILL)
        os.waitpid(tracer.pid, 0)
        tracer.start()
        assert tracer.expect(p.INTERRUPT, 1).argument == 9
    assert tracer.expect(p.KILL).index == 1
    os.kill(tracer.pid, signal.SIGKILL)
    os.waitpid(tracer.pid, 0)
    for worker in (tracer.workers[1], extra):  # these die while nobody watches
        worker.end()
        del tracer.workers[worker.index]
        c.change(tracer.page, worker.index, c.DEAD, time.monotonic_ns())
    tracer.start()
    assert tracer.expect(p.SPAWN, 1).argument >= 1


def test_a_stopped_monitor_shows(tracer: FakeTracer) -> None:
    """G8: PING moves the heartbeat of a live monitor; a stopped one is seen by that."""
    before = tracer.beat()
    tracer.send(p.PING, argument=99)
    settle(tracer)
    assert tracer.beat() > before
    os.kill(tracer.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, tracer.pid, os.WSTOPPED)
    before = tracer.beat()
    tracer.send(p.PING)
    time.sleep(0.1)
    assert tracer.beat() == before
    os.kill(tracer.pid, signal.SIGCONT)


def test_a_tracer_that_does_not_read(tracer: FakeTracer) -> None:
    """A full socket loses requests, counted; the monitor goes on."""
    tracer.block(tracer.workers[0], 4_000_000, seq=1)
    end = time.monotonic() + 8
    while not tracer.mine.q[p.M_LOST] and time.monotonic() < end:
        for _ in range(50):
            try:
                tracer.sock.send(p.MESSAGE.pack(p.PING, 0, 0, 0, 0), 0x40)  # type: ignore[union-attr]
            except BlockingIOError:
                break
        time.sleep(0.005)
    assert tracer.mine.q[p.M_LOST]
    before = tracer.beat()
    while tracer.request(0.05) is not None and tracer.beat() < before + 5:
        pass
    assert tracer.beat() > before


def test_an_idle_monitor_costs_nothing(tracer: FakeTracer) -> None:
    """Nothing moves: two looks a second, no timers besides."""
    time.sleep(0.3)
    before = tracer.beat()
    time.sleep(1)
    assert tracer.beat() - before <= 3


def test_no_descriptor_is_left_after_many_workers(tracer: FakeTracer) -> None:
    """A thousand workers and blocked calls later the monitor holds what it held."""

    def held() -> tuple[int, int]:
        with open(f"/proc/{tracer.pid}/maps") as file:
            return len(os.listdir(f"/proc/{tracer.pid}/fd")), file.read().count("test-worker")

    before = held()
    worker = tracer.workers[0]
    for at in range(1000):
        worker.generation += 1
        c.enter(tracer.page, 0, worker.pid, worker.generation, time.monotonic_ns())
        tracer.introduce(worker)
        tracer.block(worker, os.getpid(), seq=at)
        if at % 20 == 0:
            while tracer.request(0.001) is not None:
                pass
    c.change(tracer.page, 0, c.READY, time.monotonic_ns())
    settle(tracer, 3)
    assert held() == before


# --- log, statistics, end ------------------------------------------------------------------------


def test_lines_until_the_end() -> None:
    """EXIT: what waits in the socket is written before it leaves with 0."""
    read, write = os.pipe()
    with FakeTracer(0, 1, log_fd=write) as tracer:
        tracer.start()
        settle(tracer)
        os.kill(tracer.pid, signal.SIGSTOP)
        for at in range(100):
            tracer.log_in.send(encode([("ctx", b"access"), ("count", at)]))
        os.kill(tracer.pid, signal.SIGCONT)
        assert tracer.leave() == 0
    os.close(write)
    with open(read) as file:
        assert [json.loads(line)["count"] for line in file] == list(range(100))


def test_no_line_is_lost_by_kill_9() -> None:
    """Monitors killed in the middle of a flood: every line is written, at least once, by somebody."""
    read, write = os.pipe()
    lines: set[int] = set()

    def collect() -> None:
        with open(read) as file:
            lines.update(json.loads(line)["count"] for line in file)

    reader = threading.Thread(target=collect)
    reader.start()
    with FakeTracer(0, 1, log_fd=write) as tracer:
        count = 0
        for _ in range(6):
            tracer.start()
            end = time.monotonic() + 0.15
            while time.monotonic() < end:
                tracer.log_in.send(encode([("ctx", b"access"), ("act", b"warn"), ("count", count)]))
                count += 1
            os.kill(tracer.pid, signal.SIGKILL)
            os.waitpid(tracer.pid, 0)
            tracer.pid = 0
        from monitor.log import drain

        assert drain(tracer.log_out.fileno(), tracer.config) == 0
    os.close(write)
    reader.join()
    assert count > 100
    assert lines == set(range(count))


def test_a_log_nobody_reads_does_not_delay_decisions() -> None:
    """F7: the pipe is full and lines pour in; a missing worker is still asked for at once."""
    read, write = os.pipe()
    with FakeTracer(1, 2, log_fd=write) as tracer:
        tracer.spawn()
        tracer.start()
        tracer.log_in.setblocking(False)
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            try:
                tracer.log_in.send(encode([("ctx", b"x" * 5000)]))
            except BlockingIOError:
                time.sleep(0.001)
        worker = tracer.workers[0]
        worker.page.q[ring.W_DONE] = 1
        start = time.monotonic()
        tracer.bury(worker)
        tracer.expect(p.SPAWN)
        assert time.monotonic() - start < 0.1
        assert tracer.mine.q[p.M_DROPPED] > 0
        start = time.monotonic()
        assert tracer.leave() == 0
        assert time.monotonic() - start < 1
    os.close(read)
    os.close(write)


def test_leaving_takes_no_time(tracer: FakeTracer) -> None:
    """The monitor is in no run's way: from EXIT to its death, the best of five below 3 ms."""
    took = []
    for _ in range(5):
        start = time.perf_counter()
        assert tracer.leave() == 0
        took.append(time.perf_counter() - start)
        tracer.page.q[c.H_EXIT] = 0
        tracer.start()
        settle(tracer)
    assert min(took) < 0.003, took


def test_statistics(tracer: FakeTracer) -> None:
    """One JSON object: every counter by its name, every worker with what psutil knows."""
    tracer.page.q[c.H_AGAIN] = 41
    tracer.workers[0].page.q[ring.W_ANSWERED] = 12
    read, write = os.pipe()
    tracer.send(p.STATS, fd=write)
    os.close(write)
    with open(read) as file:
        facts = json.loads(file.read())
    assert facts["pool"]["again"] == 41
    assert facts["pool"]["tracer"] == os.getpid()
    assert [worker["state"] for worker in facts["workers"]] == ["ready", "ready"]
    assert facts["workers"][0]["answered"] == 12
    assert facts["workers"][0]["process"]["rss"] > 0
    assert facts["monitor"]["beat"] > 0
    assert str(os.getpid()) in facts["processes"]


def test_statistics_for_somebody_who_does_not_read(tracer: FakeTracer) -> None:
    """A full pipe costs a tenth of a second, not the monitor."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    tracer.send(p.STATS, fd=write)
    settle(tracer)
    os.close(read)
    os.close(write)


def test_a_stall_is_reported_with_facts() -> None:
    """One line per stall, however often the request is repeated."""
    read, write = os.pipe()
    with FakeTracer(1, 2, log_fd=write, stall_ms=200) as tracer:
        worker = tracer.spawn()[0]
        tracer.start()
        settle(tracer)
        os.kill(worker.pid, signal.SIGSTOP)
        busy(tracer, worker)
        for _ in range(3):
            tracer.expect(p.KILL)
        tracer.leave()
    os.close(write)
    with open(read) as file:
        lines = [json.loads(line) for line in file]
    stalls = [line for line in lines if line.get("act") == "kill"]
    assert len(stalls) == 1
    assert "stopped" in stalls[0]["msg"]
    assert "rss=" in stalls[0]["args"]


def test_nothing_slow_is_imported() -> None:
    """The tracer imports protocol and config in front of every command; main brings no psutil, no orjson."""
    code = (
        "import sys; sys.path.insert(0, '.'); import {}\n"
        "print(*[m for m in ('psutil orjson json re enum typing dataclasses logging subprocess socket "
        "traceback inspect asyncio').split() if m in sys.modules])"
    )
    for module in (
        "monitor.protocol",
        "monitor.config",
        "monitor.log",
        "monitor.main",
        "syd_pool.shm.control",
    ):
        out = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code.format(module)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout.split() == [], module


def test_memory_is_flat() -> None:
    """An hour of turns in a second: the resident size of a monitor under messages does not grow."""
    with FakeTracer(0, 1) as tracer:
        tracer.start()
        settle(tracer)
        sizes = []
        for _ in range(3):
            for _ in range(3000):
                tracer.send(p.WAKE)
            settle(tracer)
            with open(f"/proc/{tracer.pid}/statm") as file:
                sizes.append(int(file.read().split()[1]) * resource.getpagesize())
        assert sizes[-1] - sizes[0] < 1 << 20, sizes
