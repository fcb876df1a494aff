"""What every call on a caller's socket begins with: the socket itself, and the question to the rules."""

from __future__ import annotations

import os
from fcntl import F_GETFL, fcntl

from syd_pool.linux.libc import SO_DOMAIN, raise_errno, raw_socket_option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

MSG_DONTWAIT = 0x40


def socket_of(call: Call, fd: int) -> tuple[int, int]:
    """A duplicate of the caller's socket, and its domain.  Raises OSError EBADF, ENOTSOCK."""
    own = call.own_fd(fd)
    return own, raise_errno(raw_socket_option(own, SO_DOMAIN))


def may_wait(own: int, flags: int) -> bool:
    """May a call on this socket wait?"""
    return not (flags & MSG_DONTWAIT or fcntl(own, F_GETFL) & os.O_NONBLOCK)


def judge(call: Call, category: str, text: bytes, errno: int) -> None:
    """As call.judge(), with the errno of the call instead of the category's; b"" is allowed."""
    if text and call.rules.verdicts[category][text]:
        try:
            call.judge(category, text)
        except OSError as error:
            raise OSError(errno, os.strerror(errno), text) from error
