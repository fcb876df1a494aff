"""Calls that slow down, limit or move another process: setpriority(2), ioprio_set(2), sched_set*(2), prlimit(2) with a
new limit, migrate_pages(2), move_pages(2), perf_event_open(2).

The kernel asks for the same user only, and our processes have the caller's: whoever could pin the tracer on a busy
CPU would hold up every call, and a limit of no processor time would kill it.  So they may be about processes of
the command's tree (tree.py) only, with EPERM for others; what a process does to itself never comes here, the filter
lets it pass.  Then the kernel performs them: a number that is a new worker's by then costs that worker some speed
or its life, and no call (I2).
"""

from __future__ import annotations

from syd_pool.emulate import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

PRIO_PROCESS, PRIO_PGRP = 0, 1
PERF_FLAG_PID_CGROUP = 4
IOPRIO_WHO_PROCESS, IOPRIO_WHO_PGRP = 1, 2
_CTX, _OTHERS = b"priority", b"%d is not the command's alone"  # of the log line


def by_pid(call: Call) -> int | None:
    """A call whose first argument is the process or thread: sched_*, migrate_pages, move_pages."""
    return _process(call, call.fd(0))


def prlimit64(call: Call) -> int | None:
    """prlimit64(pid, resource, new, old): who only asks may ask about anybody."""
    return _process(call, call.fd(0) if call.args[2] else 0)


def perf_event_open(call: Call) -> int | None:
    """perf_event_open(attr, pid, cpu, group, flags); -1, everybody, is for the privileged

    With PERF_FLAG_PID_CGROUP the number is a descriptor of a cgroup, which the command may not be alone in.
    """
    if call.int(4) & PERF_FLAG_PID_CGROUP:
        return tree.refuse(call, _CTX, b"a cgroup is not the command's alone")
    return _process(call, call.fd(1))


def setpriority(call: Call) -> int | None:
    """setpriority(which, who, priority)"""
    return _many(call, PRIO_PROCESS, PRIO_PGRP)


def ioprio_set(call: Call) -> int | None:
    """ioprio_set(which, who, ioprio)"""
    return _many(call, IOPRIO_WHO_PROCESS, IOPRIO_WHO_PGRP)


def _process(call: Call, tid: int) -> int | None:
    return tree.own_only(call, tid, _CTX, _OTHERS)


def _many(call: Call, process: int, group: int) -> int | None:
    which, who = call.fd(0), call.fd(1)
    if which == process:
        return _process(call, who)
    if which != group:  # a user: us too
        return tree.refuse(call, _CTX, _OTHERS % who)
    everybody = tree.everybody()
    if not who and call.tgid in everybody:
        who = everybody[call.tgid].group
    if not {pid for pid, one in everybody.items() if one.group == who} <= tree.members(call, everybody):
        return tree.refuse(call, _CTX, _OTHERS % who)
    call.valid()
    call.resume()
    return None
