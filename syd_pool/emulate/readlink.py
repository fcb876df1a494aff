"""readlink(2), readlinkat(2): category `stat`; /proc/self/exe and its kin are the caller's."""

from __future__ import annotations

from ctypes import addressof, create_string_buffer
from errno import EINVAL, ENOENT

from syd_pool.emulate.call import AT_FDCWD, EMPTY
from syd_pool.linux.libc import raw_readlinkat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

_MOST = 4096
_storage = create_string_buffer(_MOST)
_buffer = addressof(_storage)


def readlink(call: Call) -> int:
    """readlink(path, buf, bufsiz)"""
    return _readlink(call, AT_FDCWD, call.args[0], call.args[1], call.int(2))


def readlinkat(call: Call) -> int:
    """readlinkat(dirfd, path, buf, bufsiz)"""
    return _readlink(call, call.fd(0), call.args[1], call.args[2], call.int(3))


def _readlink(call: Call, dirfd: int, path_address: int, address: int, size: int) -> int:
    if size == 0 or size & 0x80000000:  # int bufsiz <= 0
        return -EINVAL
    path = call.string(path_address)
    if path in (b"/proc/self", b"/proc/thread-self"):
        return _proc_self(call, path, address, size)
    found = call.find(call, dirfd, path, EMPTY)
    if call.rules.verdicts["stat"][found.path]:
        call.judge("stat", found.path)
    if found.slash:
        return -EINVAL
    n = raw_readlinkat(found.fd, b"", _buffer, min(size, _MOST))
    if n > 0:
        call.valid()
        call.write_from(address, _buffer, n)
    elif n == -ENOENT and path:
        return -EINVAL  # an empty path of a held object that is no link says ENOENT
    return n


def _proc_self(call: Call, path: bytes, address: int, size: int) -> int:
    """The two links whose text is the reader: the caller, not the worker (I6)."""
    call.judge("stat", path)
    text = b"%d" % call.tgid if path == b"/proc/self" else b"%d/task/%d" % (call.tgid, call.tid)
    call.valid()
    call.write(address, text[:size])
    return min(len(text), size)
