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
from select import POLLIN, POLLOUT
from struct import Struct
from time import monotonic_ns

from monitor import log as logs
from monitor import protocol as p
from monitor.decide import scale, sweep
from monitor.guard import tick
from monitor.hear import hear
from monitor.look import look
from monitor.scale import MS
from monitor.state import Monitor
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
from syd_pool.shm.ring import Ring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from monitor.config import Config

_CAPABILITY_VERSION_3 = 0x20080522
_CAP_SYS_PTRACE = 1 << 19
_RLIMIT_NOFILE = 7
EXIT_BUG = 70  # EX_SOFTWARE: an exception nobody expected; the tracer starts another monitor


def timeout_ms(this: Monitor, now: int) -> int:
    """Until the next time to look."""
    at = this.tick_at
    for other in (this.sweep_at, this.grow_at, this.wake_at):
        if other and other < at:
            at = other
    left = -(-(at - now) // MS)
    hold = this.log.hold_left_ms() if this.log.holding else 0.0
    if hold > 0:
        left = min(left, int(hold) + 1)
    return max(0, left)


def register(this: Monitor, log_fd: int) -> None:
    """Lines wait for the sink or the sink for lines: poll for the one that is missing."""
    held = this.log.holding
    sink = this.log.sink.fd if held and this.log.sink.pollable else -1
    wanted = -1 if held and this.log.hold_left_ms() > 0 else log_fd
    this.log_wanted = swap(this, this.log_wanted, wanted, POLLIN)
    this.sink_wanted = swap(this, this.sink_wanted, sink, POLLOUT)


def swap(this: Monitor, before: int, wanted: int, events: int) -> int:
    """Poll `wanted` in place of `before`; -1 is none."""
    if before != wanted:
        if before >= 0:
            this.poll.unregister(before)
        if wanted >= 0:
            this.poll.register(wanted, events)
    return wanted


def turn(this: Monitor, log_fd: int) -> bool:
    """One turn: sleep, hear, look, decide.  False when it is time to leave."""
    register(this, log_fd)
    this.poll.poll(timeout_ms(this, monotonic_ns()))
    hear(this)
    if this.leaving or this.page.q[c.H_EXIT]:
        return False
    now = monotonic_ns()
    this.words[p.M_BEAT] += 1
    this.words[p.M_TIME] = now
    this.log.pump()
    counts = this.counts = look(this, now)
    scale(this, counts, now)
    if now >= this.sweep_at:
        sweep(this, now)
    if now >= this.tick_at:
        tick(this, counts, now)
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
        while turn(monitor, log_fd):
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
