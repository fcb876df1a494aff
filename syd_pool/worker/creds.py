"""A worker acts with its identity, so it takes its caller's first when that may differ (B7).

Only a caller that has changed its identity (set-id calls, capset: emulate/table.py IDENTITY) comes here.
Its ids, groups and effective capabilities are read from /proc/TID/status and put on for one call, by
the system calls themselves: libc's wrappers would change every thread and refuse to be asked twice.
Sources: credentials(7), setfsuid(2), capabilities(7) "Effect of user ID changes on capabilities".
"""

from __future__ import annotations

from ctypes import addressof, create_string_buffer

from syd_pool.linux import caps, proc
from syd_pool.linux.libc import syscall

# Capabilities that only let us look at the caller (its memory, cwd, descriptors) and act on a verdict:
# they stay, because a caller that changed its ids is not dumpable.  open.py refuses other tasks' /proc.
_KEPT = caps.bit(caps.CAP_SYS_PTRACE) | caps.bit(caps.CAP_KILL)

Identity = tuple[int, int, tuple[int, ...], int]  # fsuid, fsgid, groups, effective capabilities


def of_task(tid: int, real: bool) -> Identity:
    """The identity of a task from /proc/TID/status; `real`: its real ids, as access(2) uses.

    Raises OSError when the task is gone.
    """
    text = proc.status(tid)
    column = 0 if real else 3
    uid = int(proc.field(text, b"Uid:").split()[column])
    gid = int(proc.field(text, b"Gid:").split()[column])
    groups = tuple(int(g) for g in proc.field(text, b"Groups:").split())
    if real:  # access(2): the permitted set for root, nothing for anybody else
        effective = int(proc.field(text, b"CapPrm:"), 16) if uid == 0 else 0
    else:
        effective = int(proc.field(text, b"CapEff:"), 16)
    return uid, gid, groups, effective


def effective_of(tid: int) -> tuple[int, int]:
    """(euid, egid) of a task.  Raises OSError when it is gone."""
    text = proc.status(tid)
    return int(proc.field(text, b"Uid:").split()[1]), int(proc.field(text, b"Gid:").split()[1])


def put_on_effective(uid: int, gid: int, permitted: int) -> None:
    """Take on effective ids: what a peer is shown of who connects (SO_PEERCRED, unix(7)) are these.

    Before put_on(), which sets the rest: the kernel takes the file system ids and the capabilities along.
    """
    caps.put_on(permitted, permitted)
    syscall("setresgid", -1, gid, -1)
    syscall("setresuid", -1, uid, -1)
    caps.put_on(permitted, permitted)


def put_on(identity: Identity, permitted: int) -> None:
    """Take on `identity` in this (single) thread.  Raises OSError: then the call must be refused."""
    uid, gid, groups, effective = identity
    _setgroups(groups)
    _must("setfsgid", gid)
    _must("setfsuid", uid)
    caps.put_on((effective & permitted) | (_KEPT & permitted), permitted)


def _setgroups(groups: tuple[int, ...]) -> None:
    packed = b"".join(g.to_bytes(4, "little") for g in groups)
    buffer = create_string_buffer(packed, len(packed) + 4)
    syscall("setgroups", len(groups), addressof(buffer))


def _must(name: str, value: int) -> None:
    """setfsuid(2) and setfsgid(2) report no failure: ask again and compare."""
    syscall(name, value)
    if syscall(name, -1) != value:
        raise OSError(1, f"{name}({value}) was refused")
