"""access(2), faccessat(2), faccessat2(2): category `stat`, then the kernel's answer for the held object."""

from __future__ import annotations

from errno import EINVAL

from syd_pool.emulate.call import AT_FDCWD, EMPTY, FOLLOW
from syd_pool.linux.libc import AT_EACCESS, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, raw_faccessat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

_MODES = 7  # R_OK, W_OK, X_OK


def access(call: Call) -> int:
    """access(path, mode)"""
    return _access(call, AT_FDCWD, call.args[0], call.int(1), 0)


def faccessat(call: Call) -> int:
    """faccessat(dirfd, path, mode): the system call has no flags"""
    return _access(call, call.fd(0), call.args[1], call.int(2), 0)


def faccessat2(call: Call) -> int:
    """faccessat2(dirfd, path, mode, flags)"""
    return _access(call, call.fd(0), call.args[1], call.int(2), call.int(3))


def _access(call: Call, dirfd: int, address: int, mode: int, flags: int) -> int:
    if mode & ~_MODES or flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        return -EINVAL
    how = (0 if flags & AT_SYMLINK_NOFOLLOW else FOLLOW) | (EMPTY if flags & AT_EMPTY_PATH else 0)
    empty = not address and flags & AT_EMPTY_PATH
    found = call.find(call, dirfd, b"" if empty else call.string(address), how)
    if call.rules.verdicts["stat"][found.path]:
        call.judge("stat", found.path)
    # A worker that has taken on its caller's identity took the ids the flags ask for (worker/main.py):
    # its own real ids are not the caller's.
    effective = AT_EACCESS if call.cred_gen else flags & AT_EACCESS
    return raw_faccessat2(found.fd, b"", mode, AT_EMPTY_PATH | effective)
