"""What /proc says of a process: whole files, fields of proc_pid_status(5), mappings of proc_pid_maps(5)."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PART = 65536


def whole(path: bytes | str) -> bytes:
    """Everything in a file.  Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while part := os.read(fd, _PART):
            text += part
        return text
    finally:
        os.close(fd)


def status(tid: int) -> bytes:
    """proc_pid_status(5) of a thread, whole: 65,536 groups are possible.  Raises OSError when it is gone."""
    return whole(b"/proc/%d/status" % tid)


def start_time(pid: int) -> int:
    """When a process started: clock ticks since the boot, proc_pid_stat(5).  Raises OSError when it is gone."""
    return int(whole(b"/proc/%d/stat" % pid).rpartition(b")")[2].split()[19])


def field(text: bytes, name: bytes) -> bytes:
    """One field of proc_pid_status(5) and its kin, by its name with the colon.

    The first line, which the task chooses, cannot imitate another: a name holds no line break there.
    """
    at = text.index(b"\n" + name) + len(name) + 1
    return text[at : text.index(b"\n", at)].strip()


def mappings(who: int | bytes) -> Iterator[tuple[bytes, bytes, bytes, bytes, bytes]]:
    """(range, permissions, device, inode, path) of each mapping of a thread, or of b"self"; proc_pid_maps(5).

    The path is b"" where there is none, and as the kernel writes it (a line break is \\012).  Raises OSError.
    """
    name = b"/proc/%b/maps" % who if isinstance(who, bytes) else b"/proc/%d/maps" % who
    for line in whole(name).split(b"\n")[:-1]:  # a name may hold any other line end
        where, permissions, _, device, inode, *path = line.split(None, 5)
        yield where, permissions, device, inode, path[0] if path else b""


def span(where: bytes) -> tuple[int, int]:
    """The first address of a range of mappings(), and the one behind it."""
    first, _, last = where.partition(b"-")
    return int(first, 16), int(last, 16)
