"""The task table: facts about each thread of the sandboxed tree that workers cannot share."""

from __future__ import annotations

import os

from syd_pool.linux import proc
from syd_pool.shm.ring import UMASK_SHIFT, UMASK_UNKNOWN
from syd_pool.tracer.state import Run, Task

_FACTS = (1 << UMASK_SHIFT) - 1
MOST_UNSEEN = 256
MOST_DIED = 4096


def tgid_of(tid: int) -> int:
    """The thread group of a live thread.  Falls back on `tid` itself when it has died.

    pidfd_open(2) without PIDFD_THREAD refuses a thread that does not lead its group: much cheaper than
    reading /proc/TID/status, which only those need then.
    """
    try:
        os.close(os.pidfd_open(tid))
        return tid
    except OSError:  # EINVAL or ENOENT, by kernel, for a thread
        pass
    try:
        return int(proc.field(proc.status(tid), b"Tgid:"))
    except OSError:
        return tid


def adopt(run: Run, tid: int, parent: Task | None = None) -> Task:
    """Enter a thread seen for the first time; it starts with its parent's identity and program.

    Its own first stop, or call, may come before the event of its parent, and without ptrace there is none:
    then it is taken to have changed its identity if anybody has, and a worker looks (B7).
    """
    task = run.tasks.get(tid)
    if task is None:
        if tid in run.died:
            note_umask(run)
        run.exec_counter += 1  # a recycled thread id never meets what a worker cached of the old one
        task = run.tasks[tid] = Task(tid, tgid_of(tid), run.exec_counter & 0xFFFFFFFF)
        task.cred_gen, task.guessed = run.cred_counter & 0xFFFFFFFF, True
    if parent is not None and parent is not task and task.guessed:
        task.cred_gen, task.guessed = parent.cred_gen, False
        if task.program == (0, 0):
            task.program = parent.program
    return task


def note_identity(run: Run, task: Task) -> None:
    """The task is about to change its identity; without ptrace a thread id may be somebody else's by now."""
    run.cred_counter += 1
    for changed in (task,) if run.ptrace else run.tasks.values():
        changed.cred_gen, changed.guessed = run.cred_counter & 0xFFFFFFFF, False


def note_umask(run: Run) -> None:
    """Somebody has changed a umask: what workers remember of any is stale from the next slot on."""
    run.umask_gen = (run.umask_gen + 1) % UMASK_UNKNOWN or 1  # 0 was the first one
    run.facts = run.facts & _FACTS | run.umask_gen << UMASK_SHIFT
    run.died.clear()


def born_of(tid: int, parent: int) -> bool:
    """Does a thread live now that thread group `parent` has made: one of its own, or a child?

    Its number may have been that of one whose parent died before it could tell of it.
    """
    try:
        text = proc.status(tid)
    except OSError:
        return False
    return parent in (int(proc.field(text, b"Tgid:")), int(proc.field(text, b"PPid:")))


def executed(run: Run, tid: int, old_tid: int) -> Task:
    """exec: the calling thread has become the leader, its siblings are gone, the memory is new.

    ptrace(2): the caller's thread id changes to the thread group's, with no exit event for the old one.
    """
    leader = run.tasks.get(tid)
    caller = run.tasks.pop(old_tid, None) if old_tid != tid else leader
    task = Task(tid, tid, 0, run.cred_counter & 0xFFFFFFFF)
    task.alone = run.ptrace  # begin_new_exec() of fs/exec.c
    if caller is not None:
        task.cred_gen, task.guessed = caller.cred_gen, caller.guessed
        task.expected, task.program = caller.expected, caller.program
        task.traceme = caller.traceme
    # Another leader was ended without an event, perhaps in umask(2), and may have shared what it changed (CLONE_FS);
    # the caller has its id now, and may have had a umask of its own.
    if caller is not leader and (run.umask_gen or (leader is not None and leader.noting)):
        note_umask(run)
    run.exec_counter += 1
    task.exec_gen = run.exec_counter & 0xFFFFFFFF
    run.tasks[tid] = task
    return task


def forget(run: Run, tid: int) -> None:
    """The thread has died: drop its state.  The event of its parent may still be to come."""
    task = run.tasks.pop(tid, None)
    if run.ptrace and task is not None and task.guessed:
        run.early_dead.add(tid)
    if run.umask_gen:
        run.died.add(tid)
        if len(run.died) > MOST_DIED:
            note_umask(run)  # so that neither this set nor what workers remember grows without end
    if task is not None and task.noting:
        note_umask(run)  # others may share what it changed (CLONE_FS)
    run.condemned.discard(tid)
    if task is not None and task.held:
        for key, held in list(run.held.items()):
            if held is task:
                del run.held[key]


def forget_dead(run: Run) -> None:
    """Without ptrace no event tells of a death: look, now and then, so that the table does not grow for ever."""
    if len(run.tasks) > MOST_UNSEEN:
        for tid in [tid for tid in run.tasks if not os.path.exists(f"/proc/{tid}")]:
            forget(run, tid)


def subject(tgid: int) -> int:
    """Who is blamed for a poison call: the inode of the program, so that a fork does not make it new.

    The thread group itself when the program cannot be seen any more.
    """
    try:
        return os.stat(f"/proc/{tgid}/exe").st_ino
    except OSError:
        return tgid
