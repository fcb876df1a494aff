"""getdents64(2): entries that `stat` denies are cut out, and so are our own processes in /proc."""

from __future__ import annotations

import os
from ctypes import addressof, create_string_buffer
from struct import Struct

from syd_pool.linux.libc import PROC_SUPER_MAGIC, fstatfs_type, raw_getdents64
from syd_pool.policy.actions import WARN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from syd_pool.emulate.call import Call

# struct linux_dirent64: inode, offset of the next entry, length of this one, type; then the name
_ENTRY = Struct("<QqHB")
_NAME = _ENTRY.size  # 19
_MOST = 32768
_storage = create_string_buffer(_MOST)
_buffer = addressof(_storage)


def getdents64(call: Call) -> int:
    """getdents64(fd, dirp, count), on a duplicate that shares the caller's offset"""
    fd = call.own_fd(call.fd(0))
    size = min(call.int(2), _MOST)
    call.valid()
    # Entries may all be cut: an empty answer would be the end of the directory, so read on.
    while True:
        n = raw_getdents64(fd, _buffer, size)
        if n <= 0:
            return n
        kept = b"".join(_allowed(call, fd, memoryview(_storage).cast("B")[:n]))
        if kept:
            call.write(call.args[1], kept)
            return len(kept)


def _allowed(call: Call, fd: int, entries: memoryview) -> Iterator[bytes]:
    """The raw entries that the caller may see."""
    directory = os.readlink(b"/proc/self/fd/%d" % fd)
    prefix = b"" if directory == b"/" else directory
    own = fstatfs_type(fd) == PROC_SUPER_MAGIC and prefix == b"/proc"
    verdicts = call.rules.verdicts["stat"]
    at = 0
    while at < len(entries):
        length = _ENTRY.unpack_from(entries, at)[2]
        raw = bytes(entries[at : at + length])
        at += length
        name = raw[_NAME : raw.index(0, _NAME)]
        if name not in (b".", b".."):
            if own and name.isdigit() and int(name) in call.own_pids:
                continue
            if verdicts[prefix + b"/" + name] > WARN:  # a listing is not logged
                continue
        yield raw


