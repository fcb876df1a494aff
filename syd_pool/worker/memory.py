"""The caller's memory: process_vm_readv(2) and process_vm_writev(2), read once and never trusted twice.

Writing goes by process_vm_writev, which honours the caller's page protection where /proc/TID/mem would write
through it.  Reading falls back on /proc/TID/mem for one case: a page the caller may write but not read.  The
processor lets the kernel read such a page, so a native call succeeds (bad-pointer test I2).

trace/memory_access: 2, the default, is as above; 1 uses /proc/TID/mem alone, and 0 where the kernel has no
process_vm_readv(2).  There the mapping is looked up before every access, so that protections count all the same.

Each function is a method of worker/caller.py's Caller; valid() follows before anything is done with what
was read (I6).
"""

from __future__ import annotations

import os
from ctypes import addressof, create_string_buffer, memmove, string_at
from errno import EFAULT, ENAMETOOLONG, ENOENT, ENOSYS, EPERM, ESRCH

from syd_pool.linux import libc, proc
from syd_pool.linux.notify import Gone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from syd_pool.emulate.call import Call

PATH_MAX = 4096
PAGE = 4096
_FIRST_READ = 256  # most paths are shorter; a longer one costs a second read

_text_buffer = create_string_buffer(PATH_MAX + 1)
_text = addressof(_text_buffer)

# What reads and writes; use() chooses
_readv, _writev = libc.raw_vm_readv, libc.raw_vm_writev


def string(call: Call, address: int) -> bytes:
    """The C string at `address`, at most 4095 bytes.  Raises OSError EFAULT, ENAMETOOLONG, EPERM; Gone."""
    # Never across a page end in one read: the next page may be unmapped and the string end before it.
    have = b""
    size = min(_FIRST_READ, PAGE - (address & 4095))
    while True:
        n = _readv(call.tid, address, _text, size)
        if n <= 0:
            n = _read_write_only(call, address, _text, size, -n)
        _text_buffer[n] = b"\0"
        part = _text_buffer.value
        have = have + part if have else part
        if len(part) < n:
            return have
        if len(have) >= PATH_MAX:
            raise OSError(ENAMETOOLONG, "path")
        address += n
        size = min(PATH_MAX - len(have), PAGE - (address & 4095))


def read(call: Call, address: int, size: int) -> bytes:
    """Exactly `size` bytes.  Raises OSError EFAULT, EPERM; Gone."""
    buffer = create_string_buffer(size)
    done = 0
    while done < size:
        n = _readv(call.tid, address + done, addressof(buffer) + done, size - done)
        if n <= 0:
            n = _read_write_only(call, address + done, addressof(buffer) + done, size - done, -n)
        done += n
    return buffer.raw


def write(call: Call, address: int, data: bytes | bytearray | memoryview) -> None:
    """Write `data`.  Raises OSError EFAULT, EPERM; Gone."""
    raw = bytes(data)
    buffer = create_string_buffer(raw, len(raw) or 1)  # named: addressof() does not keep it alive
    write_from(call, address, addressof(buffer), len(raw))


def write_from(call: Call, address: int, buffer: int, size: int) -> None:
    """Write `size` bytes at our address `buffer`.  Raises OSError EFAULT, EPERM; Gone."""
    n = _writev(call.tid, address, buffer, size)
    if n != size:
        _unreadable(-n if n < 0 else EFAULT)


def _unreadable(errno: int) -> NoReturn:
    if errno == ESRCH:
        raise Gone
    if errno == EPERM:  # we may not look: refuse, never guess
        raise OSError(EPERM, "caller's memory")
    raise OSError(EFAULT, "caller's memory")


def _read_write_only(call: Call, address: int, buffer: int, size: int, errno: int) -> int:
    """What a failed read of a write-only page gives natively: bytes.  Returns how many; raises as read()."""
    if errno != EFAULT:
        _unreadable(errno or EFAULT)
    end = _end_of_write_only(call, address)
    if end <= address:
        _unreadable(EFAULT)
    return _peek(call.tid, address, buffer, min(size, end - address)) or _unreadable(EFAULT)


def _peek(tid: int, address: int, buffer: int, size: int) -> int:
    """Read by /proc/TID/mem, whatever the protection: how many bytes.  Raises OSError."""
    fd = os.open(b"/proc/%d/mem" % tid, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(fd, size, address)
    finally:
        os.close(fd)
    memmove(buffer, data, len(data))
    return len(data)


def _end_of_write_only(call: Call, address: int) -> int:
    """The end of the mapping at `address` if it may be written and not read, else 0."""
    for where, permissions, *_ in proc.mappings(call.tid):
        first, last = proc.span(where)
        if first <= address < last:
            return last if permissions[:2] == b"-w" else 0
    return 0


# --- trace/memory_access -------------------------------------------------------------------------


def use(mode: int) -> None:
    """Choose how memory is reached: the value of trace/memory_access.  To be called before the first access."""
    global _readv, _writev
    if mode == 1 or (mode == 0 and libc.raw_vm_readv(os.getpid(), _text, _text, 1) == -ENOSYS):
        _readv, _writev = _mem_readv, _mem_writev
    else:
        _readv, _writev = libc.raw_vm_readv, libc.raw_vm_writev


def _mem_readv(pid: int, address: int, buffer: int, size: int) -> int:
    """As libc.raw_vm_readv, by /proc/TID/mem."""
    try:
        size = min(size, _permitted(pid, address, b"r") - address)
        return _peek(pid, address, buffer, size) if size > 0 else -EFAULT
    except OSError as error:
        return -(ESRCH if error.errno == ENOENT else error.errno or EFAULT)


def _mem_writev(pid: int, address: int, buffer: int, size: int) -> int:
    """As libc.raw_vm_writev, by /proc/TID/mem; never through a page that the task may not write."""
    try:
        size = min(size, _permitted(pid, address, b"w") - address)
        if size <= 0:
            return -EFAULT
        fd = os.open(b"/proc/%d/mem" % pid, os.O_RDWR | os.O_CLOEXEC)
        try:
            return os.pwrite(fd, string_at(buffer, size), address)
        finally:
            os.close(fd)
    except OSError as error:
        return -(ESRCH if error.errno == ENOENT else error.errno or EFAULT)


def _permitted(tid: int, address: int, permission: bytes) -> int:
    """Where the mappings from `address` on that have `permission` without a gap end; 0: it has none."""
    end = 0
    for where, permissions, *_ in proc.mappings(tid):
        first, last = proc.span(where)
        if permission not in permissions or (end and first != end):
            if end:
                break
            continue
        if end or first <= address < last:
            end = last
    return end
