"""link(2), linkat(2): category `rename` on the source and `create` on the new name.

The source is linked from the descriptor that was judged, never by its name again.
"""

from __future__ import annotations

import os
from errno import EINVAL, EPERM
from stat import S_ISDIR, S_ISLNK, S_ISREG

from syd_pool.emulate.call import AT_FDCWD, EMPTY, FOLLOW, UNOPENED
from syd_pool.emulate.names import may_make, spot
from syd_pool.linux.libc import AT_EACCESS, AT_EMPTY_PATH, AT_SYMLINK_FOLLOW, raw_faccessat2, raw_linkat
from syd_pool.policy.forced import HARDLINKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

_SET_UID, _SET_GID_EXECUTABLE = 0o4000, 0o2010


def link(call: Call) -> int:
    """link(old, new)"""
    return _link(call, AT_FDCWD, call.args[0], AT_FDCWD, call.args[1], 0)


def linkat(call: Call) -> int:
    """linkat(olddirfd, old, newdirfd, new, flags)"""
    return _link(call, call.fd(0), call.args[1], call.fd(2), call.args[3], call.int(4))


def _link(call: Call, olddir: int, old_address: int, newdir: int, new_address: int, flags: int) -> int:
    if flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH):
        return -EINVAL
    how = (FOLLOW if flags & AT_SYMLINK_FOLLOW else 0) | (EMPTY if flags & AT_EMPTY_PATH else 0)
    source = call.find(call, olddir, call.string(old_address), how)
    verdicts = call.rules.verdicts
    if verdicts["stat"][source.path]:
        call.judge("stat", source.path)
    new = call.string(new_address)
    at = call.entry(call, newdir, new, UNOPENED)
    refused = may_make(call, at, "create")
    if refused:
        return refused
    if verdicts["rename"][source.path]:
        call.judge("rename", source.path)
    if not call.rules.lifted & HARDLINKS and not _may_be_linked(source.fd):
        return -EPERM
    parent, name = spot(at, new)
    call.valid()
    call.begin_effect()
    return _link_held(source.fd, parent, name)


def _may_be_linked(fd: int) -> bool:
    """syd(7), Trusted Hardlinks: a regular file that the caller may read and write, and that gives nobody an identity.

    What the kernel will not link in any case, and a symbolic link itself, is left to it.
    """
    mode = os.fstat(fd).st_mode
    if S_ISLNK(mode) or S_ISDIR(mode):
        return True
    if not S_ISREG(mode) or mode & _SET_UID or mode & _SET_GID_EXECUTABLE == _SET_GID_EXECUTABLE:
        return False
    return raw_faccessat2(fd, b"", os.R_OK | os.W_OK, AT_EMPTY_PATH | AT_EACCESS) == 0


def _link_held(fd: int, parent: int, name: bytes) -> int:
    """A new name for the object behind our own O_PATH descriptor; 0 or -errno.

    Over /proc and not with AT_EMPTY_PATH, which wants CAP_DAC_READ_SEARCH or, since Linux 6.10, a
    descriptor opened with our credentials.  It gives the caller nothing it has not: it may link each of
    its own descriptors that way (linkat(2)).
    """
    return raw_linkat(AT_FDCWD, b"/proc/self/fd/%d" % fd, parent, name, AT_SYMLINK_FOLLOW)
