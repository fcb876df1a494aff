"""accept(2), accept4(2): who may connect to us, by block and by the rules of net/accept.

A connection from a blocked address is taken and closed, and the call fails with ECONNABORTED, as when the peer went
away again.  It is accepted on a duplicate of the caller's socket, so that what is judged is what is handed over.
Only IP addresses are judged.  While no rule is about them, the call is continued: there is nothing to judge.
"""

from __future__ import annotations

import os
from errno import ECONNABORTED, EINVAL

from syd_pool.emulate import netaddr
from syd_pool.emulate.netaddr import IP_DOMAINS
from syd_pool.emulate.sockets import judge_block, may_wait, refuse, socket_of
from syd_pool.linux.libc import accepted, raise_errno, raw_accept4

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

SOCK_CLOEXEC, SOCK_NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
_INT = 4


def accept(call: Call) -> int | None:
    """accept(fd, address, size)"""
    return _accept(call, 0)


def accept4(call: Call) -> int | None:
    """accept4(fd, address, size, flags)"""
    return _accept(call, call.int(3))


def _accept(call: Call, flags: int) -> int | None:
    rules = call.rules
    if rules.blocked is None and rules.accepted is None:
        call.valid()
        call.resume()
        return None
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        return -EINVAL
    own, domain = socket_of(call, call.fd(0))
    call.umask_with_room()  # EMFILE comes before a connection is taken, and valid() is asked
    call.begin_effect()
    ours = flags & SOCK_NONBLOCK | SOCK_CLOEXEC
    fd = raise_errno(call.blocking(raw_accept4, own, ours) if may_wait(own, 0) else raw_accept4(own, ours))
    try:
        address = accepted()
        if domain in IP_DOMAINS:
            judge_peer(call, netaddr.text_of(address))
        if call.args[1]:
            _tell(call, address)
    except BaseException:
        os.close(fd)
        raise
    call.install(fd, flags & SOCK_CLOEXEC)
    return None


def judge_peer(call: Call, text: bytes) -> None:
    """May this peer connect to us?  Raises OSError ECONNABORTED."""
    rules = call.rules
    judge_block(call, text, ECONNABORTED)
    action = rules.accepted[text] if rules.accepted is not None else 0
    if action:
        refuse(call, "net/accept", text, action, ECONNABORTED)


def _tell(call: Call, address: bytes) -> None:
    """Write the peer's address as move_addr_to_user() does.  Raises OSError EFAULT, EINVAL."""
    room = int.from_bytes(call.read(call.args[2], _INT), "little", signed=True)
    if room < 0:
        raise OSError(EINVAL, os.strerror(EINVAL))
    if room and address:
        call.write(call.args[1], address[:room])
    call.write(call.args[2], len(address).to_bytes(_INT, "little"))
