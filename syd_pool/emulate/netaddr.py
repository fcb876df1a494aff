"""What a socket address says: read once, judged as text, and given to the kernel as our copy.

    sockaddr in the caller --read()--> bytes --aim()--> (bytes for the kernel, text for the rules)

Which fields count depends on the socket, not on the address alone: an AF_INET socket takes the family
AF_UNSPEC for AF_INET when it sends or binds (udp_sendmsg, raw_sendmsg, inet_bind), a raw AF_INET6 socket
likewise, and connect(2) with AF_UNSPEC only lets go of the peer.

Rewritten unless an option lifts it (syd(2)): the scope of an IPv6 address becomes 0, binding to the any
address becomes loopback, and connecting or sending to it is ENETUNREACH.  With trace/force_local_net every
address becomes loopback, with its port; that is what the rules judge then.
"""

from __future__ import annotations

import os
from _socket import AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, AF_UNSPEC, SOCK_RAW, inet_ntop
from errno import EAFNOSUPPORT, EINVAL, ENETUNREACH

from syd_pool.emulate.call import AT_FDCWD, FOLLOW
from syd_pool.linux.libc import SO_TYPE, raw_socket_option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

UNNAMED = b"!unnamed"
LONGEST = 128  # sizeof(struct sockaddr_storage)
UNIX_LONGEST = 110  # sizeof(struct sockaddr_un)
AF_ALG, AF_SMC = 38, 43
IP_DOMAINS = (AF_INET, AF_INET6, AF_SMC)

BIND, CONNECT, SEND = range(3)

_IN_SIZE, _IN6_SIZE, _SCOPE = 16, 24, slice(24, 28)
_MAPPED = bytes(10) + b"\xff\xff"
_LOOPBACK4, _LOOPBACK6 = b"\x7f\0\0\1", bytes(15) + b"\1"
_ANY4, _ANY6 = bytes(4), bytes(16)


def fail(errno: int) -> OSError:
    """The error of a call that its arguments doom."""
    return OSError(errno, os.strerror(errno))


def read(call: Call, address: int, size: int) -> bytes:
    """The caller's sockaddr, as move_addr_to_kernel() takes it.  Raises OSError EINVAL, EFAULT."""
    if not 0 <= size <= LONGEST:
        raise fail(EINVAL)
    return call.read(address, size) if size else b""


def unix(path: bytes) -> bytes:
    """A sockaddr_un for a path."""
    return AF_UNIX.to_bytes(2, "little") + path + b"\0"


def unix_path(raw: bytes) -> bytes:
    """The path of a sockaddr_un; b"" for an abstract or unnamed one.  Raises OSError EINVAL.

    As unix_validate_addr() and unix_mkname_bsd() of net/unix/af_unix.c.
    """
    if not 2 <= len(raw) <= UNIX_LONGEST or raw[:2] != unix(b"")[:2]:
        raise fail(EINVAL)
    return raw[2:].partition(b"\0")[0]


def unix_text(raw: bytes) -> bytes:
    """The text of a sockaddr_un without a path: @name with every byte of it, or !unnamed."""
    return b"@" + raw[3:] if len(raw) > 2 else UNNAMED


def aim(call: Call, own: int, domain: int, raw: bytes, use: int) -> tuple[bytes, bytes]:
    """(address for the kernel, text to be judged; b"" when there is nothing to judge).

    raw is at least two bytes long; paths to bind to are not for here.  Raises OSError as the kernel would,
    EAFNOSUPPORT for families that no rule can be about.
    """
    if domain == AF_UNIX:
        return _aim_unix(call, raw, use)
    if domain in IP_DOMAINS:
        return _aim_ip(call, own, domain, raw, use)
    option = "trace/allow_unsafe_kcapi" if domain == AF_ALG else "trace/allow_unsupp_socket"
    if domain != AF_NETLINK and not call.rules.option(option) and not call.rules.option("trace/allow_unsupp_socket"):
        raise fail(EAFNOSUPPORT)
    return raw, b""


def _aim_unix(call: Call, raw: bytes, use: int) -> tuple[bytes, bytes]:
    if use == CONNECT and raw[:2] == b"\0\0":
        return raw, b""  # lets go of the peer
    path = unix_path(raw)
    if not path:
        if len(raw) == 2 and use != BIND:
            raise fail(EINVAL)
        return raw, unix_text(raw)
    found = call.find(call, AT_FDCWD, path, FOLLOW)
    if call.rules.verdicts["stat"][found.path]:
        call.judge("stat", found.path)
    return unix(b"/proc/self/fd/%d" % found.fd), found.path


def _aim_ip(call: Call, own: int, domain: int, raw: bytes, use: int) -> tuple[bytes, bytes]:
    family = int.from_bytes(raw[:2], "little")
    if family == AF_UNSPEC:
        if use == CONNECT:
            return raw, b""
        if domain == AF_INET6:
            if use == SEND and raw_socket_option(own, SO_TYPE) != SOCK_RAW:
                return raw, b""  # udpv6_sendmsg(): to the peer it is connected to
            family = AF_INET6
        else:
            family = AF_INET
    if family == AF_INET and len(raw) >= _IN_SIZE:
        host, begin = raw[4:8], 4
    elif family == AF_INET6 and len(raw) >= _IN6_SIZE:
        host, begin = raw[8:24], 8
        if raw[_SCOPE] and not call.rules.option("trace/allow_unsafe_ipv6_scope"):
            raw = raw[: _SCOPE.start] + bytes(len(raw[_SCOPE])) + raw[_SCOPE.stop :]
    else:
        short = len(raw) < (_IN6_SIZE if domain == AF_INET6 else _IN_SIZE)
        raise fail(EINVAL if short or family in (AF_INET, AF_INET6) else EAFNOSUPPORT)
    if call.rules.option("trace/force_local_net"):
        instead = _local(host)
    elif not call.rules.option("trace/allow_unsafe_any_addr"):
        instead = _not_any(host, use)
    else:
        instead = host
    if instead != host:
        # inet_bind() takes AF_UNSPEC for the any address only
        raw = family.to_bytes(2, "little") + raw[2:begin] + instead + raw[begin + len(host) :]
        host = instead
    return raw, text(host, int.from_bytes(raw[2:4], "big"))


def _local(host: bytes) -> bytes:
    """`host` if it is this machine's by its number, else loopback (trace/force_local_net)."""
    if len(host) == 4 or host[:-4] == _MAPPED:
        return host if host[-4] == _LOOPBACK4[0] else host[:-4] + _LOOPBACK4
    return _LOOPBACK6


def _not_any(host: bytes, use: int) -> bytes:
    """`host`, or loopback for the any address.  Raises OSError ENETUNREACH where that would be a peer."""
    v4 = host[-4:]
    if host == _ANY6:
        instead = _LOOPBACK6
    elif v4 == _ANY4 and host[:-4] in (b"", _MAPPED):
        instead = host[:-4] + _LOOPBACK4
    else:
        return host
    if use != BIND:
        raise fail(ENETUNREACH)
    return instead


def text_of(raw: bytes) -> bytes:
    """The text of a sockaddr that the kernel has written."""
    host = raw[4:8] if int.from_bytes(raw[:2], "little") == AF_INET else raw[8:24]
    return text(host, int.from_bytes(raw[2:4], "big"))


def text(host: bytes, port: int) -> bytes:
    """ADDRESS!PORT, as the rules and the log have it; a v4-mapped address is the v4 it is."""
    if host[:-4] == _MAPPED:
        host = host[-4:]
    return b"%s!%d" % (inet_ntop(AF_INET if len(host) == 4 else AF_INET6, host).encode(), port)
