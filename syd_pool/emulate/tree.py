"""Whose a process is: the command's, ours, or somebody else's.

    keeper -- tracer -- eldest -- whatever the command forks     the command's
       |        +------ workers, monitor, helpers                ours
       +-- orphans of the command                                the command's
    everything that does not descend from the keeper             somebody else's

A process that clone(2) made with CLONE_PARENT is the tracer's child too; but it is traced, and none of ours is.
(Without ptrace it counts as ours.)

The parents that /proc/PID shows tell it, so a process that the tracer has just forked is ours before anybody
has published its pid.  What is asked about a number says nothing about a later holder of that number: who
acts on it holds a pidfd, or says in the table why it need not.
"""

from __future__ import annotations

import os
from errno import EPERM, ESRCH

from syd_pool.linux import proc
from syd_pool.linux.proc import field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

_MOST_STEPS = 65536  # from a process to the keeper; orphans on the way are followed anew


class Kin:
    """One process of the tree: parent, process group, session."""

    __slots__ = ("group", "parent", "session")

    def __init__(self, parent: int, group: int, session: int):
        self.parent = parent
        self.group = group
        self.session = session


def no_process(pid: int) -> OSError:
    """ESRCH."""
    return OSError(ESRCH, f"{os.strerror(ESRCH)}: {pid}")


def status(tid: int) -> bytes:
    """proc_pid_status(5) of a thread.  Raises OSError ESRCH when there is none."""
    try:
        return proc.status(tid)
    except OSError:
        raise no_process(tid) from None


def _above(tid: int) -> tuple[int, int]:
    """(thread group, parent) of a thread."""
    text = status(tid)
    return int(field(text, b"Tgid:")), int(field(text, b"PPid:"))


def belongs(call: Call, tid: int) -> bool:
    """Is this thread of the command's tree?  Raises OSError ESRCH when there is no such thread."""
    keeper, tracer, eldest = call.own_pids.family()
    tgid, parent = _above(tid)
    for _ in range(_MOST_STEPS):
        if tgid in call.own_pids or (parent == tracer and not _is_first(tgid, tracer, eldest)):
            return False
        if parent in (keeper, tracer):
            return True
        if parent <= 1:
            return False
        try:
            tgid, parent = _above(parent)
        except OSError:  # it has died, and its children have another parent by now
            tgid, parent = _above(tid)
    return False


def _is_first(pid: int, tracer: int, eldest: int) -> bool:
    """Is this child of the tracer the command's?  Raises OSError ESRCH."""
    return pid == eldest or int(field(status(pid), b"TracerPid:")) == tracer


def own_only(call: Call, tid: int, ctx: bytes, what: bytes) -> int | None:
    """Let the kernel do it to a thread of the command's tree, EPERM for others; numbers below 1 it judges itself.

    ctx, what: of the log line, `what` with a place for the number.  Raises OSError ESRCH; Gone.
    """
    if tid > 0 and not belongs(call, tid):
        return refuse(call, ctx, what % tid)
    call.valid()
    call.resume()
    return None


def refuse(call: Call, ctx: bytes, what: bytes) -> int:
    """EPERM, and a log line that says why."""
    call.log([("level", b"warn"), ("ctx", ctx), ("msg", what), ("pid", call.tid), ("tgid", call.tgid)])
    return -EPERM


def kin(pid: int) -> Kin | None:
    """proc_pid_stat(5) of a process; None when it is gone."""
    try:
        fd = os.open(b"/proc/%d/stat" % pid, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 1024)
    except OSError:
        return None
    finally:
        os.close(fd)
    _, parent, group, session, _ = text[text.rindex(b")") + 2 :].split(b" ", 4)
    return Kin(int(parent), int(group), int(session))


def everybody() -> dict[int, Kin]:
    """Every process that /proc shows."""
    return {pid: one for name in os.listdir("/proc") if name.isdigit() and (one := kin(pid := int(name)))}


def _still(pid: int, tracer: int, eldest: int) -> bool:
    try:
        return _is_first(pid, tracer, eldest)
    except OSError:
        return False


def members(call: Call, processes: dict[int, Kin]) -> set[int]:
    """Those of `processes` that are the command's."""
    keeper, tracer, eldest = call.own_pids.family()
    children: dict[int, list[int]] = {}
    for pid, one in processes.items():
        children.setdefault(one.parent, []).append(pid)
    level = [pid for pid in children.get(keeper, ()) if pid != tracer]
    level += [pid for pid in children.get(tracer, ()) if _still(pid, tracer, eldest)]
    found: set[int] = set()
    while level:
        level = [pid for pid in level if pid not in call.own_pids and pid not in found]
        found.update(level)
        level = [child for pid in level for child in children.get(pid, ())]
    return found
