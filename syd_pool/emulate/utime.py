"""utime(2), utimes(2), futimesat(2), utimensat(2): category `utime`.

futimens(3) is utimensat(2) without a path: it is judged by the path of the descriptor, because a
descriptor that was opened for reading is enough to change the times of one's own file.
The order of the checks is that of fs/utimes.c.
"""

from __future__ import annotations

from ctypes import addressof, create_string_buffer
from errno import EINVAL
from struct import Struct

from syd_pool.emulate.call import AT_FDCWD, EMPTY, FOLLOW
from syd_pool.emulate.held import judge_change, opened_fd
from syd_pool.linux.libc import AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, raw_utimensat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call, Found

UTIME_OMIT = (1 << 30) - 2
_TIMES = Struct("<qqqq")  # struct timespec[2], struct timeval[2]: access, modification
_UTIMBUF = Struct("<qq")
_SECOND = 1_000_000  # in microseconds

_storage = create_string_buffer(_TIMES.size)
_times = addressof(_storage)


def utime(call: Call) -> int:
    """utime(path, times)"""
    times = call.args[1]
    if times:
        access, modification = _UTIMBUF.unpack(call.read(times, _UTIMBUF.size))
        _TIMES.pack_into(_storage, 0, access, 0, modification, 0)
    return _touch(call, AT_FDCWD, call.args[0], _times if times else 0, 0)


def utimes(call: Call) -> int:
    """utimes(path, times)"""
    return _with_microseconds(call, AT_FDCWD, call.args[0], call.args[1])


def futimesat(call: Call) -> int:
    """futimesat(dirfd, path, times)"""
    return _with_microseconds(call, call.fd(0), call.args[1], call.args[2])


def utimensat(call: Call) -> int:
    """utimensat(dirfd, path, times, flags)"""
    times = call.args[2]
    if times:
        fields = _TIMES.unpack(call.read(times, _TIMES.size))
        if fields[1] == fields[3] == UTIME_OMIT:
            return 0  # the kernel does not even look at the path
        _TIMES.pack_into(_storage, 0, *fields)
    return _touch(call, call.fd(0), call.args[1], _times if times else 0, call.int(3))


def _with_microseconds(call: Call, dirfd: int, address: int, times: int) -> int:
    if times:
        access, access_us, modification, modification_us = _TIMES.unpack(call.read(times, _TIMES.size))
        if not (0 <= access_us < _SECOND and 0 <= modification_us < _SECOND):
            return -EINVAL
        _TIMES.pack_into(_storage, 0, access, access_us * 1000, modification, modification_us * 1000)
    return _touch(call, dirfd, address, _times if times else 0, 0)


def _touch(call: Call, dirfd: int, address: int, times: int, flags: int) -> int:
    """times: address of ours, or 0 for now.  Wrong nanoseconds are left to the kernel to refuse."""
    if not address and dirfd != AT_FDCWD:
        if flags:
            return -EINVAL
        found = _descriptor(call, dirfd)
    else:
        if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
            return -EINVAL
        how = (0 if flags & AT_SYMLINK_NOFOLLOW else FOLLOW) | (EMPTY if flags & AT_EMPTY_PATH else 0)
        found = call.find(call, dirfd, call.string(address), how)
    judge_change(call, found.path, "utime")
    call.valid()
    call.begin_effect()
    return raw_utimensat(found.fd, b"", times, AT_EMPTY_PATH)


def _descriptor(call: Call, fd: int) -> Found:
    """What the caller has open as `fd`.  Raises OSError EBADF, as natively for an O_PATH descriptor too."""
    opened_fd(call, fd)
    return call.find(call, fd, b"", EMPTY)
