"""syd_main: the tracer, main process of a run.

      command ==notification==> listener ---> [ receive | choose ] ---slots---> workers
         |                                                                        |
         +==ptrace stop==> wait status ---> [ events ] ---slots---> workers       |
                                                 ^--------- completions ----------+
      monitor <--- control page, socket ---> [ watch ]

Who talks to it: the kernel (listener, wait statuses), the workers (rings), the monitor (socket), the keeper
(its parent; signals).
Guarantees: the command is executed only when every part stands (I1); it alone receives (I4); at its end
`received = answered + gone`; if it dies, everything it started dies (I10).
Writes: the request rings, the control page.
"""

from __future__ import annotations

import gc
import os
from errno import EACCES, EBUSY, ECHILD, EFAULT, ENOMEM
from time import monotonic

from monitor.config import NPROC_MAX
from monitor.config import Config as MonitorConfig
from syd_pool.boundary import keeper, privileges, spawn, worker_filter
from syd_pool.emulate.table import NOTE, NOTIFY, TRACE, in_force, keeps_log, makes_sockets
from syd_pool.linux import caps, libc, notify
from syd_pool.linux.numbers import NR
from syd_pool.linux.signals import ITIMER_REAL, SIGALRM, SIGCHLD, SIGHUP, SIGKILL, SIGTERM, block_all, setitimer
from syd_pool.linux.sockets import datagram_pair
from syd_pool.policy.actions import ALLOW
from syd_pool.shm import control as c
from syd_pool.shm.ring import (
    CHDIR,
    EXEC,
    MAP,
    UMASK_SHIFT,
    UMASK_UNKNOWN,
    W_ANSWERED,
    W_DROPPED,
    W_GONE,
    W_READY,
)
from syd_pool.tracer import (
    commands,
    control_socket,
    deaths,
    dispatch,
    events,
    ledger,
    outside,
    pool,
    ptrace,
    status,
    watch,
)
from syd_pool.tracer.state import Run
from syd_pool.tracer.tasks import adopt, forget_dead
from syd_pool.worker.main import handlers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from mmap import mmap

    from syd_pool.cli.config import RunConfig
    from syd_pool.policy import Ruleset

EXIT_TIMEOUT = 124  # spec 1.16
EXIT_BUG = 70  # EX_SOFTWARE
POLLIN, POLLHUP = 1, 16
WALL_NOHANG = 0x40000000 | os.WNOHANG | os.WUNTRACED  # __WALL: see wait(2)
RUN_ID = 1
FAREWELL_MS = 1000
MOST_SWEPT = 64  # tracees up to which one waitpid(-1), which walks them all, is cheaper than two more by pid
TICK = 0.5  # seconds between two looks at the monitor and the CPUs we may use

_TRACED = {"execve": EXEC, "execveat": EXEC, "chdir": CHDIR, "fchdir": CHDIR, "mmap": MAP}


def run(config: RunConfig) -> int:
    """Run the command; returns the exit status of spec 1.16."""
    if config.export:
        from syd_pool.boundary import export

        return export.export(config)
    if not _can_filter():
        os.write(2, b"syd-pool: seccomp(2) is refused here: this is already inside a sandbox; start the command bare\n")
        return EBUSY
    keeper.hold_standard_fds()
    keeper.remember_signals()
    helper = outside.start(config.rules)
    keeper.become_tracer()
    code = 70
    try:
        code = _trace(config, helper)
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    os._exit(code)


def _can_filter() -> bool:
    """Would seccomp(2) take a filter?  Inside another sandbox of ours it does not (attacks.md E7).

    A filter at address 0 is EFAULT where filters are taken (seccomp(2)); nothing is installed.
    """
    try:
        libc.syscall("seccomp", notify.SECCOMP_SET_MODE_FILTER, 0, 0)
    except OSError as error:
        return error.errno == EFAULT
    return True


def _trace(config: RunConfig, helper: outside.Helper | None) -> int:
    """In the tracer, child of the keeper: the whole run."""
    block_all()
    libc.set_name("syd_main")
    this = _create(config)
    outside.watch(this, helper)
    try:
        _start(this)
        _loop(this)
    except (spawn.SetupFailed, events.Unexpected) as failed:
        _failed(this, failed)
    except OSError as failed:
        _failed(this, spawn.SetupFailed(failed.errno or 1, "internal", f"tracer: {failed}"))
        raise
    finally:
        _finish(this)
    return this.status


def _failed(this: Run, failed: spawn.SetupFailed | events.Unexpected) -> None:
    """The run cannot go on: one line, and our own reason in the status."""
    errno = failed.errno if isinstance(failed, spawn.SetupFailed) else None
    this.status = (errno or EXIT_BUG) & 0xFF
    this.reason = failed.reason if isinstance(failed, spawn.SetupFailed) else "internal"
    os.write(2, f"syd-pool: {failed}\n".encode("utf-8", "backslashreplace"))


def _start(this: Run) -> None:
    """From nothing to a command that executes.  Every part stands before it is let go (I1)."""
    config, identity = this.config, _may_change_identity(this.config)
    prepared = spawn.prepare(config, this.ptrace, identity, privileges.limits(config.rules))
    this.prepared = prepared
    if "lock" in config.rules.enabled:
        _confine(this)
    pid = this.fork(lambda: spawn.child(prepared))
    this.eldest = this.control.q[c.H_ELDEST] = pid
    this.eldest_pidfd = os.pidfd_open(pid)
    adopt(this, pid)
    if this.ptrace and not ptrace.seize(pid):
        raise spawn.SetupFailed(ECHILD, "internal", "the child died before it was seized")
    spawn.adopt(prepared)
    status.report(config.status_fd, "started", pid=pid)
    # while the child loads its filters
    this.signals = libc.signalfd([SIGCHLD, SIGTERM, SIGHUP, SIGALRM])
    this.handlers = handlers(config.rules, identity, config.signal_scope, config.test_null)
    this.capabilities = privileges.of_worker(config.rules, caps.current()[1])
    cookies = not config.rules.option("trace/allow_unsafe_nocookie")
    this.confine = worker_filter.confinement(cookies, makes_sockets(config.rules))
    gc.freeze()
    for _ in range(this.control.q[c.H_NPROC]):
        pool.spawn_worker(this)
    watch.start_monitor(this)
    control_socket.start(this)
    _stand(this)
    if this.ended and not this.eldest_ended:
        return
    _set_alarm(this)
    spawn.take_listener(prepared, pid, this.eldest_pidfd, lambda listener: _listen(this, listener))


def _confine(this: Run) -> None:
    """sandbox/lock: command and workers are born inside a Landlock domain.  Raises SetupFailed."""
    from syd_pool.tracer import inside

    this.fork = inside.choose(this.config.rules, lambda text: this.log("lock", os.getpid(), "sandbox/lock", text))


def _listen(this: Run, listener: int) -> None:
    """The last step before the command is let go."""
    if this.config.rules.option("trace/sync_seccomp"):
        notify.sync_wake_up(listener)
    this.listeners[listener] = RUN_ID
    for worker in this.workers.values():
        dispatch.open_run(this, worker, RUN_ID)
    this.poller.register(listener, POLLIN)
    this.others.register(this.prepared.parent_end, POLLIN)
    status.report(this.config.status_fd, "ready")


def _stand(this: Run) -> None:
    """Until the child has its filters and a worker has its own; serves what happens meanwhile (G15).

    A child that is killed here stands at its exit event until we let it go, and workers that cannot start
    end the run before the command has begun.
    """
    child = this.prepared.parent_end
    for fd in (this.signals, this.back_bell, child):
        this.others.register(fd, POLLIN)
    reported = False
    while not (this.ended or this.eldest_ended or (reported and any(w.page.q[W_READY] for w in this.workers.values()))):
        for fd, _ in this.others.poll():
            if fd == child:
                reported = True
                this.others.unregister(child)
            else:
                _serve(this, fd)
    if not reported:
        this.others.unregister(child)


def _on_outcome(this: Run) -> None:
    """The child has executed the command, or could not."""
    this.others.unregister(this.prepared.parent_end)
    failed = spawn.outcome(this.prepared)
    if failed is None:
        status.report(this.config.status_fd, "exec")
        this.log_line(b"info", "run", this.eldest, "the command has been started")
        return
    _failed(this, failed)
    if failed.reason == "exec" and failed.errno == EACCES:
        os.write(2, _nothing_executes(this.config.rules))
    this.ended = True


def _nothing_executes(rules: Ruleset) -> bytes:
    """How to begin, for rules that let nothing at all be executed; b"" where they do."""
    if "lock" in rules.enabled and all(right != "exec" for right, _ in rules.landlock):
        return b"syd-pool: sandbox/lock lets nothing be executed: try -p landlock, or -m allow/lock/rpath,exec+/usr\n"
    if "exec" in rules.enabled and not rules.has_rules(ALLOW, ["exec"]):
        return b"syd-pool: no rule allows to execute anything: try `-p user', or -m 'allow/exec+/usr/***'\n"
    return b""


def _create(config: RunConfig) -> Run:
    """The shared pages, the bells and the log, before anybody is forked."""
    import select

    rules = config.rules
    cpus = sorted(os.sched_getaffinity(0))
    nproc = config.nproc or len(cpus)
    most = max(config.nproc_max or NPROC_MAX, nproc)
    this = Run(config, c.create_control(os.getpid(), nproc, most))
    this.control.q[c.H_KEEPER] = os.getppid()
    commands.prepare(this)
    this.cpus = cpus
    this.by_cpu = [None] * max(os.sysconf("SC_NPROCESSORS_CONF"), cpus[-1] + 1)
    this.ptrace = not rules.option("trace/allow_unsafe_ptrace")
    this.back_bell = os.eventfd(0, os.EFD_CLOEXEC)
    this.log_out, this.log_in = datagram_pair()
    this.log_in.setblocking(False)
    this.monitor_config = _monitor_config(config, nproc, most)
    if keeps_log(rules):
        this.log_ring = this.monitor_config.ring = _log_ring(config)
    rows = list(in_force(rules, _may_change_identity(config), config.signal_scope))
    this.notified = frozenset(NR[row[0]] for row in rows if row[1] == NOTIFY or (row[1] == TRACE and not this.ptrace))
    if this.ptrace:
        this.noted = frozenset(NR[row[0]] for row in rows if row[1] == NOTE)
        this.traced = {NR[row[0]]: _TRACED[row[0]] for row in rows if row[1] == TRACE}
    else:
        this.facts = UMASK_UNKNOWN << UMASK_SHIFT
        if not config.signal_scope:
            why = "before Linux 6.12 ptrace(2) of the command's own does nothing"
            this.log("ptrace", os.getpid(), "trace/allow_unsafe_ptrace", why)
    if config.timeout is not None:
        this.deadline = monotonic() + config.timeout
    # Every descriptor of a poll costs each call: the listeners, and all the rest behind one
    this.poller, this.others = select.poll(), select.epoll()
    this.poller.register(this.others, POLLIN)
    return this


def _log_ring(config: RunConfig) -> mmap:
    """Memory for the log's last lines.  Raises SetupFailed."""
    from syd_pool.shm import logring

    try:
        return logring.create(config.log_buffer or logring.SIZE)
    except (OSError, ValueError, OverflowError):
        raise spawn.SetupFailed(ENOMEM, "internal", f"no memory for a log of {config.log_buffer} bytes") from None


def _may_change_identity(config: RunConfig) -> bool:
    """Only who has a capability can take on another identity; the calls of others need no note."""
    return privileges.kept_by_command(config.rules, caps.current()[1]) != 0


def _monitor_config(config: RunConfig, nproc: int, most: int) -> MonitorConfig:
    told = MonitorConfig(nproc, most)
    told.log_fd, told.log_level = config.log_fd, config.log_level
    told.pretty = config.log_pretty
    told.sandbox = config.run_id
    told.syd = os.getpid()
    stall = os.environ.get("SYD_POOL_STALL_MS")
    if stall:
        told.stall_ms = int(stall)
    return told


def _loop(this: Run) -> None:
    """Serve until the run has ended."""
    listeners, others = this.listeners, this.others
    poll, receive = this.poller.poll, dispatch.receive
    while not this.ended:
        # what waits for room has nobody who rings: look again soon
        for fd, what in poll(1 if this.capped or this.backlog or this.delayed else None):
            if fd in listeners:
                if what & POLLIN:
                    receive(this, fd)
                elif what & POLLHUP:
                    _hang_up(this, fd)
            else:
                for other, _ in others.poll(0):
                    _serve(this, other)
        if this.capped:
            dispatch.uncap(this)
        if this.backlog:
            dispatch.flush_backlog(this)
        if this.delayed:
            events.retry_delayed(this)


def _serve(this: Run, fd: int) -> None:
    """What is not a call: who else has something for us."""
    if fd == this.back_bell:
        pool.on_completions(this)
    elif fd == this.signals:
        _on_signals(this)
    elif fd in this.watched:
        this.watched[fd](this)
    elif fd == this.prepared.parent_end:
        _on_outcome(this)
    else:
        watch.on_monitor(this)


def _set_alarm(this: Run) -> None:
    """SIGALRM through the signalfd for what is due by time: no clock is read on the way of a call."""
    wait = TICK
    if this.deadline:
        wait = min(wait, max(0.001, this.deadline - monotonic()))
    setitimer(ITIMER_REAL, wait)


def _on_alarm(this: Run) -> None:
    if this.deadline and monotonic() >= this.deadline:
        this.status, this.ended, this.reason = EXIT_TIMEOUT, True, "timeout"
        return
    watch.check_monitor(this)
    pool.find_omission(this)
    _follow_cpuset(this)
    if not this.ptrace:
        forget_dead(this)
    _set_alarm(this)


def _follow_cpuset(this: Run) -> None:
    """The CPUs we may use have changed: pin the workers anew."""
    cpus = sorted(os.sched_getaffinity(0))
    if cpus == this.cpus:
        return
    this.cpus = cpus
    for worker in this.workers.values():
        worker.cpu = cpus[worker.index % len(cpus)]
        os.sched_setaffinity(worker.pid, {worker.cpu})
    pool.rank(this)


def _hang_up(this: Run, listener: int) -> None:
    """The last task under this listener's filter is gone."""
    this.poller.unregister(listener)
    this.hung_up = True
    if this.eldest_ended:
        this.ended = True


def _on_signals(this: Run) -> None:
    """SIGCHLD: wait statuses.  SIGTERM, SIGHUP (from the keeper): end the run."""
    try:
        information = os.read(this.signals, 128 * 32)
    except BlockingIOError:
        return
    for at in range(0, len(information), 128):
        signal = int.from_bytes(information[at : at + 4], "little")
        pid = int.from_bytes(information[at + 12 : at + 16], "little")
        if signal == SIGALRM:
            _on_alarm(this)
        elif signal != SIGCHLD:
            this.status, this.ended, this.reason = 128 + signal, True, "killed"
            return
        elif len(this.tasks) > MOST_SWEPT:
            _wait(this, pid)
    # Signals coalesce: one sweep per batch finds what the pids named did not (kernel-facts 3.13)
    _wait(this, -1)


def _wait(this: Run, pid: int) -> None:
    """Take every wait status of `pid` (-1: of anybody) that is there."""
    while not this.ended:
        try:
            found, status_word = os.waitpid(pid, WALL_NOHANG)
        except ChildProcessError:
            return
        if not found:
            return
        _on_wait(this, found, status_word)


def _on_wait(this: Run, pid: int, status_word: int) -> None:
    over = not os.WIFSTOPPED(status_word)
    worker = this.workers.get(pid)
    if worker is not None:
        if over:
            deaths.reap_worker(this, worker, status_word)
    elif pid == this.monitor_pid:
        if over:
            watch.reap_monitor(this)
        else:
            os.kill(pid, SIGKILL)  # stopped: its reaping starts another (G8)
    elif pid == this.ipc_pid:
        if over:
            control_socket.reap(this)
    else:
        events.on_status(this, pid, status_word)
        if over and pid == this.eldest:
            _eldest_ended(this, status_word)
        # without ptrace nobody tells of the others' ends but the listener's hang-up
        if over and this.eldest_ended and (this.hung_up if not this.ptrace else not this.tasks):
            this.ended = True


def _eldest_ended(this: Run, status_word: int) -> None:
    """The command itself has ended: its status is the run's; `lock:exec` becomes `lock:on`."""
    code = os.waitstatus_to_exitcode(status_word)
    this.status = code if code >= 0 else 128 - code
    this.reason = "exited" if code >= 0 else "signalled"
    this.eldest_ended = True
    commands.eldest_ended(this)
    if not this.config.rules.option("trace/exit_wait_all"):
        this.ended = True


def _finish(this: Run) -> None:
    """End what is left, see that every call was accounted for, let the log be written."""
    this.ended = True
    control = this.control.q
    control[c.H_EXIT] = 1
    watch.tell_exit(this)
    _kill_tree(this)
    for worker in this.workers.values():
        pool.read_completions(this, worker)
    closed, outstanding = ledger.balance(this)
    control[c.H_GONE] = outstanding
    for pid in this.workers:
        os.kill(pid, SIGKILL)
    _await_monitor(this)
    _report_end(this, outstanding)
    if this.received != closed + outstanding:
        os.write(2, b"syd-pool: ledger: received %d, closed %d, cut off %d\n" % (this.received, closed, outstanding))
        this.status = this.status or 70


def _kill_tree(this: Run) -> None:
    """SIGKILL every process of the tree that is left; the keeper waits for them."""
    for tgid in {task.tgid for task in this.tasks.values()}:
        try:
            os.kill(tgid, SIGKILL)
        except ProcessLookupError:
            continue


def _await_monitor(this: Run) -> None:
    """Give the monitor a second to write the log's rest; write it ourselves if it does not."""
    if this.monitor is None or this.log_out is None:
        return
    import select

    poller = select.poll()
    poller.register(this.monitor, 0)  # POLLHUP when it has gone
    if this.monitor_pid and not poller.poll(FAREWELL_MS):
        os.kill(this.monitor_pid, SIGKILL)
    _tell_dropped(this)
    if _waiting(this.log_out):
        from monitor.log import drain

        drain(this.log_out.fileno(), this.monitor_config)


def _tell_dropped(this: Run) -> None:
    """The last line: how many lines found the way to the log full (the kernel queues few datagrams, unix(7))."""
    dropped = this.control.q[c.H_LOG_DROPPED] + sum(worker.page.q[W_DROPPED] for worker in this.workers.values())
    if dropped:
        more: list[tuple[str, bytes | int]] = [("act", b"drop"), ("count", dropped)]
        this.log_line(
            b"warn",
            "log",
            os.getpid(),
            "log lines not written: more than the log takes",
            more,
        )


def _waiting(socket: socket) -> bool:
    import select

    poller = select.poll()
    poller.register(socket, POLLIN)
    return bool(poller.poll(0))


def _report_end(this: Run, outstanding: int) -> None:
    fd = this.config.status_fd
    if fd < 0:
        return
    control = this.control.q
    if this.reason != "setup":
        status.report(fd, "exit", status=this.status, reason=this.reason)
    status.report(
        fd,
        "summary",
        received=this.received,
        answered=this.answered + sum(w.page.q[W_ANSWERED] for w in this.workers.values()),
        gone=this.gone + outstanding + sum(w.page.q[W_GONE] for w in this.workers.values()),
        again=control[c.H_AGAIN],
        eio=control[c.H_EIO],
        unknown=control[c.H_UNKNOWN],
        interrupted=control[c.H_INTERRUPTED],
        workers_spawned=control[c.H_SPAWNED],
        workers_died=control[c.H_DIED],
        workers_killed=control[c.H_KILLED],
        monitors=control[c.H_MONITORS],
    )
