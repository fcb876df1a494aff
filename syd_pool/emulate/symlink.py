"""symlink(2), symlinkat(2): category `symlink` on the link; its target is judged when it is followed."""

from __future__ import annotations

from errno import ENOENT

from syd_pool.emulate.call import AT_FDCWD, UNOPENED
from syd_pool.emulate.names import may_make, spot
from syd_pool.linux.libc import raw_symlinkat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call


def symlink(call: Call) -> int:
    """symlink(target, path)"""
    return _make(call, call.args[0], AT_FDCWD, call.args[1])


def symlinkat(call: Call) -> int:
    """symlinkat(target, dirfd, path)"""
    return _make(call, call.args[0], call.fd(1), call.args[2])


def _make(call: Call, target_address: int, dirfd: int, address: int) -> int:
    target = call.string(target_address)
    if not target:
        return -ENOENT
    path = call.string(address)
    at = call.entry(call, dirfd, path, UNOPENED)
    refused = may_make(call, at, "symlink")
    if refused:
        return refused
    parent, name = spot(at, path)
    call.valid()
    call.begin_effect()
    return raw_symlinkat(target, parent, name)
