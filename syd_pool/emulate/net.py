"""bind(2), connect(2), socketpair(2): categories net/bind and net/connect.  send.py has the calls that send.

    address --read once--> judged as text (netaddr.py) --> the call, on a duplicate of the caller's socket

Whatever the caller's memory, its descriptors or its paths mean by now: the kernel gets our copy of the
judged address, the judged socket file itself (/proc/self/fd/N of what is held), and the judged socket.

A denied call fails with ECONNREFUSED (connect), EADDRNOTAVAIL (bind), EOPNOTSUPP (socketpair), ENOTCONN (what
sends), as in syd; with EACCES where descriptors may not be sent.

Sockets of other families than Unix, IP and netlink have no rules; their addresses are EAFNOSUPPORT unless
trace/allow_unsupp_socket is set.  Netlink is not judged (allow/net/link is not built).

Who accepts a connection that we make is told its caller by SO_PEERCRED and SO_PEERPIDFD (peer.py).
"""

from __future__ import annotations

from _socket import AF_UNIX, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM
from errno import EADDRNOTAVAIL, ECONNREFUSED, EINVAL, EOPNOTSUPP

from syd_pool.emulate import netaddr, peer
from syd_pool.emulate.bind import bind_path
from syd_pool.emulate.netaddr import BIND, CONNECT, UNNAMED, aim
from syd_pool.emulate.send import sendmmsg, sendmsg, sendto
from syd_pool.emulate.sockets import judge, judge_block, may_wait, socket_of
from syd_pool.linux.libc import SO_TYPE, raw_bind, raw_connect, raw_socket_option
from syd_pool.policy import network  # noqa: F401  # rules.py imports it late, which a confined worker cannot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

__all__ = ["bind", "connect", "sendmmsg", "sendmsg", "sendto", "socketpair"]


def bind(call: Call) -> int:
    """bind(fd, address, size)"""
    own, domain = socket_of(call, call.fd(0))
    raw = netaddr.read(call, call.args[1], call.fd(2))
    if len(raw) < 2:
        return -EINVAL
    path = netaddr.unix_path(raw) if domain == AF_UNIX else b""
    if path:
        return bind_path(call, own, raw, path, call.rules.option("trace/allow_safe_bind"))
    raw, text = aim(call, own, domain, raw, BIND)
    judge(call, "net/bind", text, EADDRNOTAVAIL)
    call.valid()
    call.begin_effect()
    result = raw_bind(own, raw)
    if not result and text and call.rules.option("trace/allow_safe_bind"):
        call.hand_bound(b"")
    return result


def connect(call: Call) -> int:
    """connect(fd, address, size)"""
    own, domain = socket_of(call, call.fd(0))
    raw = netaddr.read(call, call.args[1], call.fd(2))
    if len(raw) < 2:
        return -EINVAL
    raw, text = aim(call, own, domain, raw, CONNECT)
    if call.rules.blocked is not None:
        judge_block(call, text, ECONNREFUSED)
    judge(call, "net/connect", text, ECONNREFUSED)
    shown = domain == AF_UNIX and raw_socket_option(own, SO_TYPE) != SOCK_DGRAM
    who = peer.identity_of_caller(call) if shown else 0
    call.valid()
    call.begin_effect()
    result = _connect(call, own, raw)
    if shown and not result:
        peer.note(call, own, who)
    return result


def _connect(call: Call, own: int, raw: bytes) -> int:
    """connect(2), announced where it may block."""
    # A call that a signal interrupts is made again by the caller: the kernel then waits for the same connection.
    if may_wait(own, 0) and raw_socket_option(own, SO_TYPE) in (SOCK_STREAM, SOCK_SEQPACKET):
        return call.blocking(raw_connect, own, raw)
    return raw_connect(own, raw)


def socketpair(call: Call) -> None:
    """socketpair(domain, type, protocol, pair)"""
    judge(call, "net/bind", UNNAMED, EOPNOTSUPP)
    return call.resume()
