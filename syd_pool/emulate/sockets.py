"""What every call on a caller's socket begins with: the socket itself, and the question to the rules."""

from __future__ import annotations

import os
from _socket import AF_INET, AF_INET6
from errno import ECONNABORTED
from fcntl import F_GETFL, fcntl

from syd_pool.emulate.judge import act
from syd_pool.emulate.netaddr import text_of
from syd_pool.linux.libc import SO_DOMAIN, raise_errno, raw_socket_option
from syd_pool.policy.actions import DENY

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


def judge_block(call: Call, text: bytes, errno: int) -> None:
    """Is the IP address blocked (syd(2), block)?  Raises OSError `errno`; b"" and Unix sockets are not."""
    blocked = call.rules.blocked
    if blocked is not None and text and text[0] not in b"/@!" and text in blocked:
        refuse(call, "block", text, call.rules.defaults.get("block", DENY), errno)


def judge_peer(call: Call, address: bytes) -> None:
    """May who has this sockaddr connect to us?  Raises OSError ECONNABORTED; only IP addresses are judged."""
    if int.from_bytes(address[:2], "little") not in (AF_INET, AF_INET6):
        return
    text = text_of(address)
    judge_block(call, text, ECONNABORTED)
    action = call.rules.accepted[text] if call.rules.accepted is not None else 0
    if action:
        refuse(call, "net/accept", text, action, ECONNABORTED)


def refuse(call: Call, category: str, text: bytes, action: int, errno: int) -> None:
    """Carry out an action, with the errno of the call instead of the category's."""
    try:
        act(call, category, text, action)
    except OSError as error:
        raise OSError(errno, os.strerror(errno), text) from error


def judge(call: Call, category: str, text: bytes, errno: int) -> None:
    """As call.judge(), with the errno of the call instead of the category's; b"" is allowed."""
    if text and call.rules.verdicts[category][text]:
        try:
            call.judge(category, text)
        except OSError as error:
            raise OSError(errno, os.strerror(errno), text) from error
