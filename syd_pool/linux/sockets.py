"""Descriptors over Unix sockets, unix(7), without the `socket` module, whose import costs 5 ms at start."""

from __future__ import annotations

from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_SEQPACKET, SOL_SOCKET, socket, socketpair

MSG_DONTWAIT, _MSG_CMSG_CLOEXEC = 0x40, 0x40000000
CMSG_ONE_FD = 24  # CMSG_SPACE(sizeof(int))


def seqpacket_pair() -> tuple[socket, socket]:
    """socketpair(AF_UNIX, SOCK_SEQPACKET), close-on-exec."""
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)


def datagram_pair() -> tuple[socket, socket]:
    """socketpair(AF_UNIX, SOCK_DGRAM), close-on-exec."""
    return socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)


def send_fd(via: socket, data: bytes, fd: int) -> None:
    """One message with one descriptor.  Raises OSError."""
    via.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, fd.to_bytes(4, "little"))])


def receive_fd(via: socket, size: int, flags: int = 0) -> tuple[bytes, int]:
    """One message of at most `size` bytes and its descriptor, or -1.  b"" at the end.  Raises OSError."""
    data, ancillary, _, _ = via.recvmsg(size, CMSG_ONE_FD, _MSG_CMSG_CLOEXEC | flags)
    for level, kind, payload in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            return data, int.from_bytes(payload[:4], "little")
    return data, -1


__all__ = ["MSG_DONTWAIT", "datagram_pair", "receive_fd", "send_fd", "seqpacket_pair", "socket"]
