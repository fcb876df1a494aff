"""mkdir(2), mkdirat(2): category `mkdir`."""

from __future__ import annotations

from syd_pool.emulate.call import AT_FDCWD, UNOPENED
from syd_pool.emulate.names import may_make, spot
from syd_pool.linux.libc import raw_mkdirat, wear_umask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call


def mkdir(call: Call) -> int:
    """mkdir(path, mode)"""
    return _make(call, AT_FDCWD, call.args[0], call.args[1])


def mkdirat(call: Call) -> int:
    """mkdirat(dirfd, path, mode)"""
    return _make(call, call.fd(0), call.args[1], call.args[2])


def _make(call: Call, dirfd: int, address: int, mode: int) -> int:
    path = call.string(address)
    at = call.entry(call, dirfd, path, UNOPENED)
    refused = may_make(call, at, "mkdir")
    if refused:
        return refused
    parent, name = spot(at, path)
    # The umask itself, not mode & ~umask: a default ACL of the parent replaces it (acl(5)).
    mask = call.umask()  # asks valid()
    wear_umask(mask)
    call.begin_effect()
    return raw_mkdirat(parent, name, mode & 0xFFFF)  # umode_t is 16 bits wide
