"""socket(2), accept(2), accept4(2), memfd_create(2): new descriptors without a path, while the options force something
on them (trace/force_cloexec, trace/force_rand_fd); else the kernel goes on by itself.

Nothing is judged here but the peer of a connection (block, net/accept): one that is refused is taken and closed, and
the call fails with ECONNABORTED, as when the peer went away again.  A worker makes the object, or accepts on a
duplicate of the caller's socket, and installs it; its own descriptor is closed before the answer, because a socket
keeps its address while anybody holds it.

The other calls that make descriptors (dup, pipe, epoll_create, eventfd, socketpair, ...) are native: the manual names
these four and the family of open(2).
"""

from __future__ import annotations

import os
from errno import EINVAL, ENAMETOOLONG
from fcntl import F_GETFL, fcntl

from syd_pool.emulate.held import opened_fd
from syd_pool.emulate.sockets import judge_peer
from syd_pool.linux.libc import MFD_CLOEXEC, raw_accept4, raw_memfd_create, raw_socket
from syd_pool.policy.forced import CLOEXEC, RANDOM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

SOCK_CLOEXEC, SOCK_NONBLOCK = 0o2000000, 0o4000
_INT = 4


def socket(call: Call) -> int | None:
    """socket(family, type, protocol)"""
    if not call.rules.opens & (CLOEXEC | RANDOM):
        call.resume()
        return None
    kind = call.int(1)
    return _give(call, raw_socket(call.int(0), kind | SOCK_CLOEXEC, call.int(2)), kind & SOCK_CLOEXEC)


def memfd_create(call: Call) -> int | None:
    """memfd_create(name, flags)"""
    if not call.rules.opens & (CLOEXEC | RANDOM):
        call.resume()
        return None
    flags = call.int(1)
    try:
        name = call.string(call.args[0])
    except OSError as error:
        if error.errno != ENAMETOOLONG:
            raise
        return -EINVAL  # as the kernel says of too long a name
    return _give(call, raw_memfd_create(name, flags | MFD_CLOEXEC), flags & MFD_CLOEXEC)


def accept(call: Call) -> int | None:
    """accept(fd, address, length)"""
    return _accept(call, 0)


def accept4(call: Call) -> int | None:
    """accept4(fd, address, length, flags)"""
    return _accept(call, call.int(3))


def _accept(call: Call, flags: int) -> int | None:
    rules = call.rules
    judged = rules.blocked is not None or rules.accepted is not None
    if not judged and not rules.opens & (CLOEXEC | RANDOM):
        call.resume()
        return None
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        return -EINVAL
    own = opened_fd(call, call.fd(0))
    call.room()
    call.valid()
    call.begin_effect()
    how = flags | SOCK_CLOEXEC
    if fcntl(own, F_GETFL) & os.O_NONBLOCK:
        fd, peer = raw_accept4(own, how)
    else:
        peer = b""

        def wait() -> int:
            nonlocal peer
            made, peer = raw_accept4(own, how)
            return made

        fd = call.blocking(wait)
    if fd >= 0 and (judged or call.args[1]):
        try:
            if judged:
                judge_peer(call, peer)
            if call.args[1]:
                _tell(call, peer)
        except OSError:
            os.close(fd)  # as the kernel: the connection is lost
            raise
    return _give(call, fd, flags & SOCK_CLOEXEC)


def _tell(call: Call, peer: bytes) -> None:
    """Who it is that connected, as move_addr_to_user() of net/socket.c writes it.  Raises OSError."""
    address, length_at = call.args[1], call.args[2]
    room = int.from_bytes(call.read(length_at, _INT), "little", signed=True)
    if room < 0:
        raise OSError(EINVAL, os.strerror(EINVAL))
    call.valid()
    if shown := peer[:room]:
        call.write(address, shown)
    call.write(length_at, len(peer).to_bytes(_INT, "little"))


def _give(call: Call, fd: int, cloexec: int) -> int | None:
    if fd < 0:
        return fd
    call.install(fd, os.O_CLOEXEC if cloexec else 0, True)
    return None
