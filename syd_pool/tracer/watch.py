"""The tracer's side of the monitor: start it, tell it, do what it asks, replace it when it is gone.

The monitor decides and the tracer does; nothing here waits for it.  See monitor/protocol.py.
"""

from __future__ import annotations

import os
from time import monotonic_ns

from monitor import protocol as p
from syd_pool.linux.libc import sealed_memfd
from syd_pool.linux.signals import SIGCONT, SIGKILL
from syd_pool.linux.sockets import send_fd, seqpacket_pair
from syd_pool.shm import control as c
from syd_pool.shm.ring import DESCRIPTOR, W_COMPLETED, W_DONE, W_PHASE, Ring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.tracer.state import Run, Worker

PING_NS = 500_000_000  # how often a silent monitor is asked
YOUNG_NS = 100_000_000
SILENT_NS = 1_000_000_000  # a monitor that has not answered so long is replaced (G8)


def start_monitor(run: Run) -> None:
    """Fork the monitor; it may be started at any moment of a run.  Raises OSError."""
    ours, theirs = seqpacket_pair()
    ours.setblocking(False)
    page = Ring(sealed_memfd("syd-monitor", p.MONITOR_SIZE), p.MONITOR_SIZE, False)
    try:
        pid = os.fork()
    except OSError:
        os.close(page.fd)
        page.close()
        for end in (ours, theirs):
            end.close()
        raise
    if pid == 0:
        from monitor.main import run as run_monitor

        assert run.log_out is not None
        run_monitor(theirs.fileno(), run.control.fd, run.log_out.fileno(), page.fd, run.monitor_config)
    theirs.close()
    if run.monitor is not None:
        run.others.unregister(run.monitor)
        run.monitor.close()
    if run.monitor_page is not None:
        os.close(run.monitor_page.fd)
        run.monitor_page.close()
    run.monitor, run.monitor_pid, run.monitor_page = ours, pid, page
    run.control.q[c.H_MONITOR] = pid
    run.control.q[c.H_MONITORS] += 1
    run.others.register(ours, 1)  # POLLIN
    run.beat, run.beat_at, run.pinged = 0, monotonic_ns(), False
    run.monitor_born = run.beat_at
    for worker in run.workers.values():
        new_worker(run, worker)


def reap_monitor(run: Run) -> None:
    """It has died: no call depends on it, so only a new one is started (G8)."""
    run.control.q[c.H_MONITOR] = 0
    run.monitor_pid = 0
    if not (run.ended or run.ghost) and monotonic_ns() - run.monitor_born > YOUNG_NS:
        _restart_monitor(run)  # else it dies at birth: check_monitor() tries again, at its own pace


def _restart_monitor(run: Run) -> None:
    """As start_monitor(); where there is no process for it now, check_monitor() tries again."""
    try:
        start_monitor(run)
    except OSError as error:
        run.log("monitor", run.eldest, "cannot be replaced yet", str(error))


def check_monitor(run: Run) -> None:
    """Called every PING_NS: a monitor that is stopped or stuck is killed; its reaping starts another."""
    if run.ghost:
        return
    if not run.monitor_pid:
        _restart_monitor(run)
    if run.monitor_page is None or not run.monitor_pid:
        return
    for worker in list(run.untold):
        new_worker(run, worker)
    beat, now = run.monitor_page.q[p.M_BEAT], monotonic_ns()
    if beat != run.beat:
        run.beat, run.beat_at, run.pinged = beat, now, False
    elif run.pinged and now - run.beat_at > SILENT_NS:
        os.kill(run.monitor_pid, SIGKILL)
        return
    _tell(run, p.PING, 0, 0, now)
    if not run.pinged:
        run.pinged, run.beat_at = True, now


def change_log(run: Run) -> None:
    """log/level, log/verbose: the monitor writes the log, and a new one knows the new level."""
    level = run.config.rules.option("log/level")
    if isinstance(level, int) and level != run.monitor_config.log_level:
        run.monitor_config.log_level = level
        tell_exit(run)  # it writes what is waiting first


def _tell(run: Run, kind: int, index: int = 0, generation: int = 0, argument: int = 0) -> None:
    if run.monitor is None:
        return
    try:
        run.monitor.send(p.MESSAGE.pack(kind, index, generation & 0xFFFFFFFF, argument, 0))
    except OSError:
        return  # a lost message costs the monitor one tick (protocol.py)


def wake(run: Run) -> None:
    """Something changed that the monitor should look at now."""
    _tell(run, p.WAKE)


def new_worker(run: Run, worker: Worker) -> None:
    """Give the monitor the page of a worker."""
    if run.monitor is None:
        return
    try:
        send_fd(run.monitor, p.MESSAGE.pack(p.NEW_WORKER, worker.index, worker.generation, 0, 0), worker.page.fd)
    except OSError as error:  # the user's descriptors in flight may be at their limit (unix(7)): again soon
        if worker not in run.untold:
            run.log("monitor", worker.pid, "was not told of a worker yet", str(error))
            run.untold.append(worker)
        return
    if worker in run.untold:
        run.untold.remove(worker)


def dead_worker(run: Run, worker: Worker, status: int) -> None:
    """Tell how a worker died."""
    if worker in run.untold:
        run.untold.remove(worker)
    _tell(run, p.WORKER_DEAD, worker.index, worker.generation, p.death(status, worker.reason))


def tell_exit(run: Run) -> None:
    """Ask it to drain the log and leave."""
    _tell(run, p.EXIT)


def on_monitor(run: Run) -> None:
    """Do what the monitor asks, as far as it is still true."""
    from syd_pool.tracer import pool

    assert run.monitor is not None
    while True:
        try:
            message = run.monitor.recv(p.MESSAGE_SIZE)
        except (BlockingIOError, ConnectionError):
            return
        if len(message) != p.MESSAGE_SIZE:
            return
        kind, index, generation, argument, _key = p.MESSAGE.unpack(message)
        if kind == p.SPAWN:
            _spawn(run, argument)
            continue
        worker = run.slots[index] if index < len(run.slots) else None
        if worker is None or worker.generation != generation:
            continue
        if kind == p.RETIRE:
            pool.retire_worker(run, worker)
        elif kind == p.KILL:
            _kill(run, worker, argument)
        elif kind == p.INTERRUPT:
            pool.interrupt_worker(run, worker, argument)
        elif kind == p.KICK:
            os.eventfd_write(worker.bell, 1)
        elif kind == p.REVIVE:
            os.kill(worker.pid, SIGCONT)


def _spawn(run: Run, count: int) -> None:
    """Grow the pool, within its limit and without ever failing the run."""
    from syd_pool.tracer import pool

    if run.ended or run.ghost:
        return
    room = run.monitor_config.nproc_max - len(run.workers)
    if room < count:
        _tell(run, p.REFUSED)  # else the monitor would count on them
    for _ in range(min(count, room)):
        try:
            pool.spawn_worker(run)
        except OSError as error:
            _tell(run, p.REFUSED, argument=error.errno or 0)
            return
    if run.backlog:
        from syd_pool.tracer.dispatch import flush_backlog

        flush_backlog(run)


def _kill(run: Run, worker: Worker, argument: int) -> None:
    """Kill a worker that makes no progress: never in the descriptor phase, never one that moved on."""
    from syd_pool.tracer import pool

    words = worker.page.q
    in_descriptor = words[W_PHASE] & DESCRIPTOR and words[W_PHASE] >> 8 >= words[W_DONE]
    if words[W_DONE] != argument >> 8 or worker.read != words[W_COMPLETED] or worker.blocked or in_descriptor:
        return
    pool.kill_worker(run, worker, argument & 0xFF)
