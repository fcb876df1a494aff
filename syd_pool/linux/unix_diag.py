"""sock_diag(7) for Unix sockets: which socket is at the other end.  <linux/unix_diag.h>, <linux/sock_diag.h>

The socket of sock_diag is a plain descriptor that is written to and read from: without an address a netlink
message goes to the kernel, which has answered when write(2) returns.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW, socket
from struct import Struct

_AF_NETLINK, _NETLINK_SOCK_DIAG = 16, 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_UDIAG_SHOW_PEER = 4
_UNIX_DIAG_PEER = 2
_NLMSGHDR = Struct("IHHII")  # length, type, flags, sequence number, port
_REQUEST = Struct("IHHIIBBHIIIQ")  # ... and struct unix_diag_req
_ANSWER = Struct("BBBxIQ")  # struct unix_diag_msg: family, type, state, inode, cookie
_ATTRIBUTE = Struct("HH")
_ANY_COOKIE = 0xFFFFFFFFFFFFFFFF
_LARGEST = 1024


def open_diag() -> int:
    """A socket to ask by.  Raises OSError."""
    return socket(_AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, _NETLINK_SOCK_DIAG).detach()


def look(diag: int, inode: int, cookie: int = _ANY_COOKIE) -> tuple[int, int] | None:
    """(cookie, inode of the peer or 0) of the socket with `inode`, as fstat(2) shows it, and `cookie`, if given.

    None when there is none, or when the kernel cannot tell (no unix_diag).
    """
    request = _REQUEST.pack(
        _REQUEST.size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, inode, 0, AF_UNIX, 0, 0, 0xFFFFFFFF, inode,
        _UDIAG_SHOW_PEER, cookie,
    )  # fmt: skip
    try:
        os.write(diag, request)
        while True:  # an answer to an earlier question that was not taken is not ours
            answer = os.read(diag, _LARGEST)
            if _NLMSGHDR.unpack_from(answer)[3] == inode:
                return _parse(answer, inode)
    except OSError:
        return None


def _parse(answer: bytes, inode: int) -> tuple[int, int] | None:
    size, kind, _, _, _ = _NLMSGHDR.unpack_from(answer)
    if kind != _SOCK_DIAG_BY_FAMILY:
        return None  # NLMSG_ERROR: ENOENT, ESTALE
    _, _, _, found, cookie = _ANSWER.unpack_from(answer, _NLMSGHDR.size)
    if found != inode:
        return None
    at, peer = _NLMSGHDR.size + _ANSWER.size, 0
    while at + _ATTRIBUTE.size <= size:
        length, what = _ATTRIBUTE.unpack_from(answer, at)
        if length < _ATTRIBUTE.size:
            break
        if what == _UNIX_DIAG_PEER:
            peer = int.from_bytes(answer[at + 4 : at + 8], "little")
        at += length + 3 & ~3
    return cookie, peer


def peer_cookie(diag: int, inode: int, cookie: int) -> int:
    """The cookie of the socket that is connected to this one; 0 when it is closed or nobody can tell."""
    own = look(diag, inode, cookie)
    if own is None or not own[1]:
        return 0
    peer = look(diag, own[1])
    # inodes are 32 bits and come again after four thousand millions: the peer's peer must be this one
    return peer[0] if peer is not None and peer[1] == inode else 0
