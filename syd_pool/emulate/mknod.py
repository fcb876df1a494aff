"""mknod(2), mknodat(2): the category is that of what is made.

regular file  create      block device      mkbdev
FIFO          mkfifo      character device  mkcdev
socket        net/bind, on its path: a name that others connect to (EADDRNOTAVAIL when denied)
"""

from __future__ import annotations

from errno import EINVAL, EPERM
from stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK

from syd_pool.emulate.call import AT_FDCWD, UNOPENED
from syd_pool.emulate.held import forced_mode
from syd_pool.emulate.names import may_make, spot
from syd_pool.linux.libc import raw_mknodat, wear_umask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

_CATEGORY = {
    0: "create",
    S_IFREG: "create",
    S_IFIFO: "mkfifo",
    S_IFBLK: "mkbdev",
    S_IFCHR: "mkcdev",
    S_IFSOCK: "net/bind",
}


def mknod(call: Call) -> int:
    """mknod(path, mode, dev)"""
    return _make(call, AT_FDCWD, call.args[0], call.int(1), call.int(2))


def mknodat(call: Call) -> int:
    """mknodat(dirfd, path, mode, dev)"""
    return _make(call, call.fd(0), call.args[1], call.int(2), call.int(3))


def _make(call: Call, dirfd: int, address: int, mode: int, device: int) -> int:
    category = _CATEGORY.get(S_IFMT(mode))
    if category is None:
        return -EPERM if S_IFMT(mode) == S_IFDIR else -EINVAL
    path = call.string(address)
    at = call.entry(call, dirfd, path, UNOPENED)
    refused = may_make(call, at, category)
    if refused:
        return refused
    parent, name = spot(at, path)
    # The umask itself, not mode & ~umask: a default ACL of the parent replaces it (acl(5)).
    mask = call.umask()  # asks valid()
    wear_umask(mask)
    call.begin_effect()
    if category == "create":  # a regular file
        mode = forced_mode(call, mode & 0o7777) | S_IFMT(mode)
    return raw_mknodat(parent, name, mode & 0xFFFF, device)  # umode_t is 16 bits wide
