"""ptrace events: one function for what each wait status of a tracee means.  See ptrace(2).

    status --> exit | killed | group stop | event stop | signal delivery | system call stop

Guarantees: every stop is answered by exactly one of CONT, SYSCALL, LISTEN, or a slot whose verdict will
answer it; a status that is none of these raises Unexpected and ends the run, never a silent continue.
"""

from __future__ import annotations

import os
from errno import EACCES
from time import monotonic

from syd_pool.boundary import keeper
from syd_pool.linux.notify import NOTIF
from syd_pool.linux.numbers import NR
from syd_pool.linux.signals import SIGSTOP, SIGTRAP, SIGTSTP, SIGTTIN, SIGTTOU
from syd_pool.shm.ring import (
    CHDIR,
    CHDIR_DONE,
    DESCRIPTOR,
    EXEC,
    EXEC_DONE,
    HANDED,
    MAP,
    MAP_DONE,
    W_DONE,
    W_PHASE,
)
from syd_pool.tracer import ptrace, segvguard
from syd_pool.tracer.condemn import kill_caller
from syd_pool.tracer.dispatch import submit
from syd_pool.tracer.ptrace import (
    PTRACE_EVENT_CLONE,
    PTRACE_EVENT_EXEC,
    PTRACE_EVENT_FORK,
    PTRACE_EVENT_SECCOMP,
    PTRACE_EVENT_STOP,
    PTRACE_EVENT_VFORK,
)
from syd_pool.tracer.tasks import adopt, born_of, executed, forget, note_umask, subject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.tracer.state import Run, Task, Worker

_GROUP_STOPS = (SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU)
_SYSCALL_STOP = SIGTRAP | 0x80
_NR_MMAP = NR["mmap"]
DONE = {EXEC_DONE: NR["execve"], CHDIR_DONE: NR["chdir"], MAP_DONE: _NR_MMAP}  # what is verified after which call
# include/linux/errno.h: what a call returns that a signal interrupted, before the kernel turns it
# into a restart or EINTR
ERESTARTSYS = 512
ERESTARTNOINTR = 513
# These may be continued and wait in the kernel: a signal is theirs to see, there and before we received them
_WAITING = (NR["accept"], NR["accept4"])
LONGEST_DELAY = 1.0  # seconds an execution waits for workers to close what they installed; it takes microseconds


class Unexpected(Exception):
    """A wait status that no rule covers: the run must end (fail closed).  Carries the raw status."""


def on_status(run: Run, tid: int, status: int) -> None:
    """One wait status of a thread of the sandboxed tree."""
    if not os.WIFSTOPPED(status):
        if os.WIFSIGNALED(status) and EXEC in run.traced.values():
            segvguard.note_end(run, tid, os.WTERMSIG(status))
        forget(run, tid)
        return
    signal = status >> 8 & 0xFF
    event = status >> 16
    if event == 0:
        if signal == _SYSCALL_STOP:
            _on_syscall_exit(run, tid)
        else:
            _on_signal(run, tid, signal)
    elif event == PTRACE_EVENT_STOP:
        if tid not in run.tasks:
            run.early_dead.discard(tid)
            adopt(run, tid)
        if signal in _GROUP_STOPS:
            _stop_with_it(run, tid)
            ptrace.listen(tid)
        else:
            _go_on_with_it(run, tid)
            ptrace.cont(tid)  # a new task's first stop, an INTERRUPT, or the end of a group stop
    elif event in (PTRACE_EVENT_FORK, PTRACE_EVENT_VFORK, PTRACE_EVENT_CLONE):
        child = ptrace.event_message(tid)
        parent = adopt(run, tid)
        parent.alone = False
        if child:
            _on_birth(run, child, parent)
        ptrace.cont(tid)
    elif event == PTRACE_EVENT_EXEC:
        _on_exec(run, tid)
    elif event == PTRACE_EVENT_SECCOMP:
        _on_seccomp(run, tid)
    else:
        from syd_pool.tracer.diagnose import describe

        raise Unexpected(describe(tid, status))


def _on_birth(run: Run, child: int, parent: Task) -> None:
    """A thread tells of one that it has made, which may have been seen before, or have died already.

    Then its number may belong to another by now: one of this parent's it is only if /proc says so.  That is asked only
    where a wrong parent would matter: for its number among the dead, and once identities differ.
    """
    seen = child in run.early_dead or (run.cred_counter and child in run.tasks)
    run.early_dead.discard(child)
    if not seen or born_of(child, parent.tgid):
        adopt(run, child, parent)  # which event it is does not tell a thread from a process (kernel_clone())


def _stop_with_it(run: Run, tid: int) -> None:
    """^Z: when the command itself stops, the process the shell waits for stops too."""
    if tid == run.eldest and not run.stopped:
        run.stopped = True
        keeper.stop_too(os.getppid())


def _go_on_with_it(run: Run, tid: int) -> None:
    if tid == run.eldest and run.stopped:
        run.stopped = False
        keeper.continue_too(os.getppid())


def _on_signal(run: Run, tid: int, signal: int) -> None:
    """Signal delivery.  A call that the signal interrupted before we received it restarts (H1).

    Its result is -ERESTARTSYS then, and a handler without SA_RESTART would make it EINTR, which the call
    natively never returns; -ERESTARTNOINTR restarts it after the handler (kernel-facts 3.4).
    """
    if ptrace.result(tid) == -ERESTARTSYS and (number := ptrace.number(tid)) in run.notified:
        task = run.tasks.get(tid)
        if task is not None and task.interrupted:
            task.interrupted = False  # by us, for this signal: EINTR or a restart, as the handler says
        elif number not in _WAITING:
            ptrace.set_result(tid, -ERESTARTNOINTR)
    ptrace.cont(tid, signal)


def _on_seccomp(run: Run, tid: int) -> None:
    """execve, execveat, chdir, fchdir or mmap at entry: a worker judges, the tracee waits.  umask: see its exit."""
    task = adopt(run, tid)
    entry = ptrace.syscall_entry(tid)
    if entry is None:
        return
    arch, nr, args = entry
    if nr in run.noted:
        task.noting = True
        ptrace.cont_to_exit(tid)
        return
    kind = run.traced.get(nr)
    if kind is None:
        raise Unexpected(f"seccomp stop of thread {tid} at system call {nr}")
    if run.poisoned and (subject(task.tgid), nr) in run.poisoned:
        on_verdict(run, task, kind, EACCES, ())
        return
    submit(run, kind, 1, task, NOTIF.pack(0, tid, 0, nr, arch, 0, *args))


def _on_exec(run: Run, tid: int) -> None:
    """The kernel has executed: forget the old memory, then verify what was really mapped (I5)."""
    task = executed(run, tid, ptrace.event_message(tid) or tid)
    if EXEC not in run.traced.values():
        ptrace.cont(tid)
        return
    _verify(run, task, EXEC_DONE)


def _on_syscall_exit(run: Run, tid: int) -> None:
    """chdir, fchdir or mmap has returned: verify what has come of it, unless the kernel refused."""
    task = adopt(run, tid)
    if task.noting:
        task.noting = False
        note_umask(run)
        ptrace.cont(tid)
        return
    result = ptrace.result(tid)
    if result is None:
        return
    if result < 0:
        ptrace.cont(tid)
    else:
        _verify(run, task, MAP_DONE if ptrace.number(tid) == _NR_MMAP else CHDIR_DONE)


def _verify(run: Run, task: Task, kind: int) -> None:
    submit(run, kind, 1, task, NOTIF.pack(0, task.tid, 0, 0, 0xC000003E, 0, *task.expected, 0, 0))


def on_verdict(
    run: Run, task: Task, kind: int, errno: int, words: tuple[int, ...], why: str = "it is not what was judged"
) -> None:
    """A worker has judged a tracee that waits in its stop; `why` it is refused, for the log.

    A leader whose sibling has executed is gone without an event, and its id is now that of the new program,
    which waits for another verdict: the old one must not let it go.
    """
    if run.tasks.get(task.tid) is not task:
        return
    task.held = 0
    tid = task.tid
    if kind in (EXEC, CHDIR, MAP):
        if kind == EXEC and run.suspended and not errno:
            errno = segvguard.refusal(run, task, words)
        if errno:
            ptrace.refuse(tid, errno)
            ptrace.cont(tid)
            return
        task.expected = words
        if kind == EXEC:
            _execute(run, task, 0.0)
        elif kind == MAP and task.alone:  # nobody can exchange its descriptor meanwhile
            ptrace.cont(tid)
        else:
            ptrace.cont_to_exit(tid)
    elif errno:
        # what happened cannot be undone: it must not run on
        kill_caller(run, task.tgid, task.tid, DONE[kind], why)
    else:
        if kind == EXEC_DONE:
            task.program = task.expected[0], task.expected[1]
        ptrace.cont(tid)


def _execute(run: Run, task: Task, until: float) -> None:
    """Let the kernel execute, unless a worker still has open for writing what it has just handed out.

    A program that its caller has written and closed would be busy for a moment (ETXTBSY), which it never is natively.
    until: CLOCK_MONOTONIC seconds, when waiting ends whatever a worker says; 0.0 at the first look
    """
    if any(_is_installing(worker) for worker in run.workers.values()) and (not until or monotonic() < until):
        run.delayed.append((task, until or monotonic() + LONGEST_DELAY))
    else:
        ptrace.cont(task.tid)


def retry_delayed(run: Run) -> None:
    """Executions that waited for a worker to close its side of a descriptor: look again."""
    waiting, run.delayed = run.delayed, []
    for task, until in waiting:
        if run.tasks.get(task.tid) is task:
            _execute(run, task, until)


def _is_installing(worker: Worker) -> bool:
    """Does the call in hand hand out a descriptor?  It is closed before W_DONE (two-step: before the answer)."""
    phase = worker.page.q[W_PHASE]
    return phase & (DESCRIPTOR | HANDED) != 0 and phase >> 8 >= worker.page.q[W_DONE]
