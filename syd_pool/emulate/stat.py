"""stat(2), lstat(2), newfstatat(2), statx(2): category `stat`.

What is hidden does not exist: ENOENT.  A descriptor asked with AT_EMPTY_PATH is not judged, as fstat(2)
is not: it was when it was opened.  The hot way, an absolute path without a link, is written out here,
because what it costs is paid by every build: read the path, open it, ask it, write, answer.
"""

from __future__ import annotations

import os
from ctypes import addressof, create_string_buffer
from errno import EBADF, EFAULT, EINVAL, ENOENT
from struct import Struct

from syd_pool.emulate.call import AT_FDCWD, EMPTY, FOLLOW
from syd_pool.emulate.held import own_path
from syd_pool.emulate.magic import STAT, STATX, command
from syd_pool.emulate.paths import HOW_FOLLOW, HOW_LINK, is_magic, plain
from syd_pool.emulate.quick import quick
from syd_pool.emulate.substitute import MARK, copied, is_memory, original
from syd_pool.linux.libc import (
    AT_EMPTY_PATH,
    AT_SYMLINK_NOFOLLOW,
    raw_fstat,
    raw_fstatat,
    raw_statx,
)
from syd_pool.policy.forced import STAT_BDEV, STAT_CDEV

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

AT_NO_AUTOMOUNT = 0x800
AT_STATX_SYNC_TYPE = 0x6000
_FLAGS = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE
STATX__RESERVED = 0x80000000

_SIZE = 144  # struct stat of x86_64
_SIZE_X = 256  # struct statx
_buffer = create_string_buffer(_SIZE_X)
_status = addressof(_buffer)
_bytes = memoryview(_buffer).cast("B")

_DEVICE_OF = Struct("Q")  # st_dev
_COPY = b"/memfd:" + MARK

# Where the upper half of the mode is, and (last access, last change of the content, change of the status)
_MODE_AT, _TIMES = 25, (72, 88, 104)
_STATX_MODE_AT, _STATX_TIMES = 29, (64, 112, 96)
_KIND, _DEVICE, _BLOCK = 0xB0, 0x20, 0x40  # of that half: S_IFCHR is 0x20, S_IFBLK 0x60


def _without_times(call: Call, half: int, places: tuple[int, int, int]) -> None:
    """When a device was used last tells what others type and write (syd(7), Device Sidechannel Mitigations)."""
    if not call.rules.lifted & (STAT_BDEV if half & _BLOCK else STAT_CDEV):
        access, change, status = places
        _bytes[access : access + 12] = _bytes[change : change + 12] = _bytes[status : status + 12]


def stat(call: Call) -> int:
    """stat(path, buffer)"""
    return _stat(call, AT_FDCWD, call.string(call.args[0]), call.args[1], FOLLOW)


def lstat(call: Call) -> int:
    """lstat(path, buffer)"""
    return _stat(call, AT_FDCWD, call.string(call.args[0]), call.args[1], 0)


def newfstatat(call: Call) -> int:
    """newfstatat(dirfd, path, buffer, flags)"""
    flags = call.args[3] & 0xFFFFFFFF
    if not flags:
        return _stat(call, call.fd(0), call.string(call.args[1]), call.args[2], FOLLOW)
    if flags & ~_FLAGS:
        return -EINVAL
    path = optional_path(call, 1, flags)
    if not path and flags & AT_EMPTY_PATH and call.fd(0) != AT_FDCWD:
        return _descriptor(call, call.fd(0), call.args[2])
    return _stat(call, call.fd(0), path, call.args[2], find_flags(flags))


def statx(call: Call) -> int:
    """statx(dirfd, path, flags, mask, buffer)"""
    flags, mask = call.int(2), call.int(3)
    if mask & STATX__RESERVED or flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE or flags & ~_FLAGS:
        return -EINVAL
    path = optional_path(call, 1, flags)
    if call.magic and is_magic(path):
        command(call, call.args[4], STATX)
    found = call.find(call, call.fd(0), path, find_flags(flags))
    if path or call.fd(0) == AT_FDCWD:
        _judge(call, found.path)
    how = flags & (AT_STATX_SYNC_TYPE | AT_NO_AUTOMOUNT) | AT_EMPTY_PATH
    result = raw_statx(found.fd, b"", how, mask, _status)
    if result == 0 and found.path.startswith(_COPY):
        name = original(found.path + b" (deleted)")
        if not name.startswith(_COPY):
            result = raw_statx(AT_FDCWD, name, how & ~AT_EMPTY_PATH, mask, _status)
    if result < 0:
        return result
    if _bytes[_STATX_MODE_AT] & _KIND == _DEVICE:
        _without_times(call, _bytes[_STATX_MODE_AT], _STATX_TIMES)
    call.valid()
    call.write_from(call.args[4], _status, _SIZE_X)
    return 0


def find_flags(flags: int) -> int:
    """AT_ flags of a call as flags of find()."""
    return (0 if flags & AT_SYMLINK_NOFOLLOW else FOLLOW) | (EMPTY if flags & AT_EMPTY_PATH else 0)


def optional_path(call: Call, i: int, flags: int) -> bytes:
    """The path of argument `i`; NULL is an empty one with AT_EMPTY_PATH, where the kernel takes it so."""
    address = call.args[i]
    if not address and flags & AT_EMPTY_PATH and _null_is_empty():
        return b""
    return call.string(address)


_null: list[bool] = []  # the kernel's answer, once asked


def _null_is_empty() -> bool:
    """Since Linux 6.11 a NULL path with AT_EMPTY_PATH is an empty one; before it was EFAULT."""
    if not _null:
        from syd_pool.linux.libc import raw_syscall
        from syd_pool.linux.numbers import NR

        fd = os.open("/", os.O_PATH)
        _null.append(raw_syscall(NR["newfstatat"], fd, 0, _status, AT_EMPTY_PATH, 0, 0) == 0)
        os.close(fd)
    return _null[0]


def _judge(call: Call, path: bytes) -> None:
    if call.rules.verdicts["stat"][path]:
        call.judge("stat", path)


def _stat(call: Call, dirfd: int, path: bytes, buffer: int, flags: int) -> int:
    if plain[path]:
        fd = quick(call, path, HOW_FOLLOW if flags & FOLLOW else HOW_LINK)
        if fd >= 0:
            return _answer(call, fd, buffer)
        if fd == -ENOENT:
            return fd
    elif call.magic and is_magic(path):
        command(call, buffer, STAT)
    found = call.find(call, dirfd, path, flags)
    _judge(call, found.path)
    return _answer(call, found.fd, buffer)


def _answer(call: Call, fd: int, buffer: int) -> int:
    result = raw_fstat(fd, _status)
    if result < 0:
        return result
    if _bytes[_MODE_AT] & _KIND == _DEVICE:
        _without_times(call, _bytes[_MODE_AT], _TIMES)
    call.valid()
    call.write_from(buffer, _status, _SIZE)
    return 0


def _descriptor(call: Call, fd: int, buffer: int) -> int:
    """fstat(2) of the caller's descriptor, without taking it over: its /proc link leads to the object."""
    if fd < 0:
        return -EBADF
    if call.cred_gen:  # its /proc/TID/fd is root's since it changed its ids
        link = own_path(call.own_fd(fd))
    else:
        link = b"/proc/%d/fd/%d" % (call.tid, fd)
    result = raw_fstatat(AT_FDCWD, link, _status, 0)
    if result == 0 and is_memory(_DEVICE_OF.unpack_from(_buffer)[0]) and (name := copied(link)):
        result = raw_fstatat(AT_FDCWD, name, _status, 0)  # as cp(1), which compares, has to see it
    call.valid()
    if result < 0:
        return -EBADF if result == -ENOENT else result
    if not buffer:
        return -EFAULT
    if _bytes[_MODE_AT] & _KIND == _DEVICE:
        _without_times(call, _bytes[_MODE_AT], _TIMES)
    call.write_from(buffer, _status, _SIZE)
    return 0
