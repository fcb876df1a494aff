"""getdents64(2): category `stat`; hidden entries are cut out, and so are our processes from procfs.

So are names that are not safe (filenames.py), and with trace/force_no_magiclinks the links of /proc/PID, which could
not be followed (syd(2)).

The caller's own open directory is read, through a duplicate that shares its offset, so whatever is
read counts as read: the effect is announced, and undone when the caller's buffer turns out to be bad.
Cut entries only make an answer shorter; a chunk that is cut away whole is followed by the next, because
0 would mean the end.
"""

from __future__ import annotations

import os
from ctypes import addressof, create_string_buffer, memset
from struct import Struct

from syd_pool.emulate.filenames import safe
from syd_pool.emulate.paths import in_proc, pid_in, shown, text_of
from syd_pool.linux.libc import PROC_SUPER_MAGIC, RESOLVE_NO_MAGICLINKS, fstatfs_type, raw_getdents64
from syd_pool.policy.actions import WARN
from syd_pool.policy.forced import FILENAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

_MOST = 65536  # read at once; a longer buffer is filled by further calls, as getdents64(2) allows
_buffer = create_string_buffer(_MOST)
_entries = addressof(_buffer)
_view = memoryview(_buffer).cast("B")
_RECLEN = Struct("H")
_RECLEN_AT, _TYPE_AT, _NAME_AT = 16, 18, 19  # in struct linux_dirent64: d_ino, d_off, d_reclen, d_type, d_name
_PROC_ROOT_INO = 1
_DT_LNK = 10


def getdents64(call: Call) -> int:
    """getdents64(fd, buffer, count)"""
    fd = call.own_fd(call.fd(0))
    size = min(call.int(2), _MOST)
    place = text_of(fd)
    text = shown(place, call.tgid)
    links = call.rules.resolve & RESOLVE_NO_MAGICLINKS and pid_in(in_proc(place) or b"/")
    pids = fstatfs_type(fd) == PROC_SUPER_MAGIC and os.fstat(fd).st_ino == _PROC_ROOT_INO
    call.valid()
    call.begin_effect()
    while True:
        before = _offset(fd)
        memset(_entries, 0, size)  # the kernel leaves the padding between entries as it was: not another run's
        length = raw_getdents64(fd, _entries, size)
        if length <= 0:
            return length
        length = _cut(call, text, length, pids, bool(links))
        if length:
            break
    try:
        call.write_from(call.args[1], _entries, length)
    except OSError:
        os.lseek(fd, before, os.SEEK_SET)
        raise
    return length


def _offset(fd: int) -> int:
    """Where a descriptor stands; 0 for what cannot be read as a directory either."""
    try:
        return os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return 0


def _cut(call: Call, directory: bytes, length: int, pids: bool, links: bool) -> int:
    """Close the gaps that hidden entries leave in _buffer; the new length.

    pids: entries may be processes of ours; links: symbolic links are hidden
    """
    verdicts = call.rules.verdicts["stat"]
    own_pids = call.own_pids
    guarded = not call.rules.lifted & FILENAME
    prefix = directory.rstrip(b"/") + b"/"
    raw = _view[:length].tobytes()
    at = kept = 0
    while at < length:
        size = _RECLEN.unpack_from(raw, at + _RECLEN_AT)[0]
        start = at + _NAME_AT
        name = raw[start : raw.index(0, start)]
        hidden = name not in (b".", b"..") and (
            verdicts[prefix + name] > WARN
            or (pids and name.isdigit() and int(name) in own_pids)
            or (guarded and not safe[name])
            or (links and raw[at + _TYPE_AT] == _DT_LNK)
        )
        if not hidden:
            if kept != at:
                _view[kept : kept + size] = raw[at : at + size]
            kept += size
        at += size
    return kept
