"""unlink(2), rmdir(2), unlinkat(2): category `delete`, and `rmdir` for directories."""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENOTEMPTY

from syd_pool.emulate.call import AT_FDCWD, UNOPENED
from syd_pool.emulate.names import may_remove, spot
from syd_pool.linux.libc import AT_REMOVEDIR, raw_unlinkat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

# rmdir of what is no name: do_rmdir() in fs/namei.c
_RMDIR_OF = {b".": -EINVAL, b"..": -ENOTEMPTY, b"": -EBUSY}


def unlink(call: Call) -> int:
    """unlink(path)"""
    return _remove(call, AT_FDCWD, call.args[0], "delete", 0)


def rmdir(call: Call) -> int:
    """rmdir(path)"""
    return _remove(call, AT_FDCWD, call.args[0], "rmdir", AT_REMOVEDIR)


def unlinkat(call: Call) -> int:
    """unlinkat(dirfd, path, flags)"""
    flags = call.int(2)
    if flags & ~AT_REMOVEDIR:
        return -EINVAL
    return _remove(call, call.fd(0), call.args[1], "rmdir" if flags else "delete", flags)


def _remove(call: Call, dirfd: int, address: int, category: str, flags: int) -> int:
    path = call.string(address)
    at = call.entry(call, dirfd, path, UNOPENED)
    if flags and not at.name:
        if call.rules.verdicts["stat"][at.path]:
            call.judge("stat", at.path)
        return _RMDIR_OF[path.rstrip(b"/").rpartition(b"/")[2]]
    refused = may_remove(call, at, category)
    if refused:
        return refused
    parent, name = spot(at, path)
    call.valid()
    call.begin_effect()
    return raw_unlinkat(parent, name, flags)
