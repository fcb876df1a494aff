"""access(2), faccessat(2), faccessat2(2): category `stat`; hidden is ENOENT.

The kernel answers, about the object we hold.  access(2) asks with the *real* ids.  A worker has its
caller's; where the caller has changed its identity the worker put on the ids that count for this call
as its effective ones (worker/creds.py), so those are asked.
"""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOENT

from syd_pool.emulate.call import AT_FDCWD
from syd_pool.emulate.paths import HOW_FOLLOW, plain
from syd_pool.emulate.quick import quick
from syd_pool.emulate.stat import find_flags
from syd_pool.linux.libc import (
    AT_EACCESS,
    AT_EMPTY_PATH,
    AT_SYMLINK_NOFOLLOW,
    raw_faccessat2,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

_FLAGS = AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH


def access(call: Call) -> int:
    """access(path, mode)"""
    mode = call.args[1] & 0xFFFFFFFF
    return -EINVAL if mode & ~7 else _access(call, AT_FDCWD, call.string(call.args[0]), mode, 0)


def faccessat(call: Call) -> int:
    """faccessat(dirfd, path, mode): the system call has no flags"""
    mode = call.args[2] & 0xFFFFFFFF
    return -EINVAL if mode & ~7 else _access(call, call.fd(0), call.string(call.args[1]), mode, 0)


def faccessat2(call: Call) -> int:
    """faccessat2(dirfd, path, mode, flags)"""
    mode, flags = call.int(2), call.int(3)
    if mode & ~7 or flags & ~_FLAGS:
        return -EINVAL
    return _access(call, call.fd(0), call.string(call.args[1]), mode, flags)


def _access(call: Call, dirfd: int, path: bytes, mode: int, flags: int) -> int:
    how = AT_EMPTY_PATH | (AT_EACCESS if call.cred_gen else flags & AT_EACCESS)
    if plain[path] and not flags & AT_SYMLINK_NOFOLLOW:
        fd = quick(call, path, HOW_FOLLOW)
        if fd >= 0:
            return raw_faccessat2(fd, b"", mode, how)
        if fd == -ENOENT:
            return fd
    found = call.find(call, dirfd, path, find_flags(flags))
    if call.rules.verdicts["stat"][found.path]:
        call.judge("stat", found.path)
    result = raw_faccessat2(found.fd, b"", mode, how)
    if result == -EACCES and found.path.startswith(b"/proc/self/") and found.path.endswith((b"/fd", b"/map_files")):
        return 0  # proc_fd_permission() of fs/proc/fd.c: one's own, whatever the mode says
    return result
