"""sendto(2), sendmsg(2), sendmmsg(2): net/connect for an address, net/sendfd for descriptors.

    header, address, segments, control --all read once--> judged --> our own sendmsg(2) on a duplicate

A message goes at once if it can (MSG_DONTWAIT); only one that has to wait is announced as blocking.  What
was sent must never be sent again, so a call that has sent something ends with that count when a signal
comes, as the kernel ends it; one that has not is made again by the caller (I3).

SIGPIPE is for the caller: we always send with MSG_NOSIGNAL and raise it there where the kernel would.

The receiver of a Unix message sees the sender's pid and ids if it asked for them (SO_PASSCRED), and the
sender would be us.  So the caller's are put into every such message.  The kernel takes a foreign pid from
CAP_SYS_ADMIN only: without it the receiver sees a worker's pid (known difference).

A datagram may be 16 MiB long.  MSG_ZEROCOPY is refused with ENOBUFS, which sends programs back to copying.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_STREAM
from errno import EAGAIN, EFAULT, EINTR, EINVAL, EMSGSIZE, ENOBUFS, ENOTCONN, EPERM, EPIPE
from struct import Struct

from syd_pool.emulate import control, netaddr
from syd_pool.emulate.netaddr import SEND, UNNAMED, aim, fail
from syd_pool.emulate.sockets import MSG_DONTWAIT, judge, judge_block, may_wait, socket_of
from syd_pool.linux import caps
from syd_pool.linux.libc import SO_TYPE, pidfd_open_task, pidfd_send_signal, raw_sendmsg, raw_socket_option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

MSG_EOR, MSG_NOSIGNAL, MSG_ZEROCOPY, MSG_FASTOPEN = 0x80, 0x4000, 0x4000000, 0x20000000
SIGPIPE = 13

_MSGHDR = Struct("Qi4xQQQQi4x")  # name, namelen, iov, iovlen, control, controllen, flags
_MMSGHDR_SIZE, _MSG_LEN = 64, 56
_IOVEC = Struct("QQ")
_MOST_SEGMENTS = 1024  # UIO_MAXIOV
_MOST_MESSAGES = 1024
_MOST_BYTES = 0x7FFFF000  # MAX_RW_COUNT
_MOST_DATAGRAM = 16 << 20
_MOST_CONTROL = 1 << 20
_CHUNK = 256 << 10

Segments = list[tuple[int, int]]  # address in the caller, size


class Outgoing:
    """One message, read and judged: everything our sendmsg(2) needs but the data."""

    __slots__ = ("address", "control", "flags", "named", "own", "segments", "size", "stream", "vouched", "waits")

    def __init__(self, own: int, flags: int) -> None:
        kind = raw_socket_option(own, SO_TYPE)
        self.own = own
        self.stream = kind == SOCK_STREAM
        self.waits = may_wait(own, flags)
        self.flags = flags
        self.address: bytes | None = None
        self.control = b""
        self.segments: Segments = []
        self.size = 0
        self.vouched = False  # control ends with credentials that we added
        self.named = False  # control says who the caller is, and nothing else about anybody


def sendto(call: Call) -> int:
    """sendto(fd, data, size, flags, address, address size)"""
    own, domain = socket_of(call, call.fd(0))
    out = Outgoing(own, call.int(3))
    address, size = call.args[4], call.fd(5)
    raw = netaddr.read(call, address, size) if address else None
    out.segments = [(call.args[1], min(call.args[2], _MOST_BYTES))]
    out.size = out.segments[0][1]
    _judge(call, out, domain, raw, [])
    return _send(call, out)


def sendmsg(call: Call) -> int:
    """sendmsg(fd, header, flags)"""
    own, domain = socket_of(call, call.fd(0))
    return _send(call, _read_message(call, own, domain, call.args[1], call.int(2)))


def sendmmsg(call: Call) -> int:
    """sendmmsg(fd, headers, count, flags)"""
    own, domain = socket_of(call, call.fd(0))
    for done in range(min(call.int(2), _MOST_MESSAGES)):
        header = call.args[1] + done * _MMSGHDR_SIZE
        try:
            result = _send(call, _read_message(call, own, domain, header, call.int(3)), again=not done)
            if result >= 0:
                call.write(header + _MSG_LEN, result.to_bytes(4, "little"))
        except OSError as error:
            result = -(error.errno or EFAULT)
        if result < 0:
            return done or result
    return min(call.int(2), _MOST_MESSAGES)


# --- reading and judging ----------------------------------------------------------------------------


def _read_message(call: Call, own: int, domain: int, header: int, flags: int) -> Outgoing:
    """The message behind a struct msghdr.  Raises OSError as ___sys_sendmsg(), or when refused."""
    name, name_size, iov, iov_count, extra, extra_size, _ = _MSGHDR.unpack(call.read(header, _MSGHDR.size))
    if name_size < 0:
        raise fail(EINVAL)
    raw = netaddr.read(call, name, min(name_size, netaddr.LONGEST)) if name else None
    out = Outgoing(own, flags)
    out.segments = _read_segments(call, iov, iov_count)
    out.size = sum(size for _, size in out.segments)
    if extra_size > _MOST_CONTROL:
        raise fail(ENOBUFS)
    messages = control.split(call.read(extra, extra_size)) if extra_size else []
    _judge(call, out, domain, raw, messages)
    return out


def _read_segments(call: Call, iov: int, count: int) -> Segments:
    """As import_iovec(): a negative size is EINVAL, everything together is cut at MAX_RW_COUNT."""
    if count > _MOST_SEGMENTS:
        raise fail(EMSGSIZE)
    found, room = [], _MOST_BYTES
    for base, size in _IOVEC.iter_unpack(call.read(iov, count * _IOVEC.size)) if count else ():
        if size >> 63:
            raise fail(EINVAL)
        size = min(size, room)
        room -= size
        found.append((base, size))
    return found


def _judge(call: Call, out: Outgoing, domain: int, raw: bytes | None, messages: list[control.Message]) -> None:
    """Judge where a message goes and what it carries; fill in what the kernel is to get."""
    if out.flags & MSG_ZEROCOPY:
        raise fail(ENOBUFS)
    peer = UNNAMED
    if raw:
        if len(raw) < 2:
            raise fail(EINVAL)
        raw, text = aim(call, out.own, domain, raw, SEND)
        if call.rules.blocked is not None:
            judge_block(call, text, ENOTCONN)
        judge(call, "net/connect", text, ENOTCONN)
        peer = text or UNNAMED
    out.address = raw
    if domain == AF_UNIX:
        if control.passes_rights(messages):
            call.judge("net/sendfd", peer)
        messages = control.take_rights(call, messages)
        out.vouched = _vouches and not control.has_credentials(messages)
        if out.vouched:
            messages.append(control.credentials(call))
        out.named = control.names_caller(call, messages)
    else:
        messages = control.without_steering(call, messages)
    out.control = control.join(messages)


# --- sending ------------------------------------------------------------------------------------------

_vouches = True  # False once the kernel did not take a caller's pid from us


def _send(call: Call, out: Outgoing, again: bool = True) -> int:
    """Send a message.  again: nothing of the call was sent before, so a signal may restart it."""
    if out.stream:
        result = _send_stream(call, out, again)
        if result == -EPIPE and not out.flags & MSG_NOSIGNAL:
            _raise_sigpipe(call)
        return result
    if out.size > _MOST_DATAGRAM:
        return -EMSGSIZE
    data = _gather(call, out.segments, 0, out.size)
    call.valid()
    call.begin_effect()
    return _put(call, out, data, out.flags, again)


def _send_stream(call: Call, out: Outgoing, again: bool) -> int:
    """A stream takes a message in parts; only the first carries address and control messages."""
    sent = 0
    while True:
        data = _gather(call, out.segments, sent, min(_CHUNK, out.size - sent))
        last = sent + len(data) == out.size
        call.valid()
        call.begin_effect()
        result = _put(call, out, data, out.flags if last else out.flags & ~MSG_EOR, again and not sent)
        if result < 0:
            return sent or result
        sent += result
        if sent >= out.size or (result < len(data) and not out.waits):
            return sent
        out.address, out.control, out.vouched = None, b"", False


def _put(call: Call, out: Outgoing, data: bytes, flags: int, again: bool) -> int:
    """One sendmsg(2), with the capability to name the caller as its sender if we have it (unix(7))."""
    effective, permitted = caps.current() if out.named else (0, 0)
    if not caps.bit(caps.CAP_SYS_ADMIN) & permitted & ~effective:
        return _wait_and_put(call, out, data, flags, again)
    caps.put_on(effective | caps.bit(caps.CAP_SYS_ADMIN), permitted)
    try:
        return _wait_and_put(call, out, data, flags, again)
    finally:
        caps.put_on(effective, permitted)


def _wait_and_put(call: Call, out: Outgoing, data: bytes, flags: int, again: bool) -> int:
    """One sendmsg(2), waiting only if it must.  A signal restarts the call if `again`, else it is -EAGAIN."""
    flags |= MSG_NOSIGNAL
    # A connect within the send (MSG_FASTOPEN) would be left half done by MSG_DONTWAIT
    at_once = flags if out.waits and flags & MSG_FASTOPEN else flags | MSG_DONTWAIT
    if at_once & MSG_DONTWAIT:
        result = _vouched_sendmsg(call, out, data, at_once)
        if result != -EAGAIN or not out.waits:
            return result
    return call.blocking(raw_sendmsg if again else _no_restart, out.own, out.address, data, out.control, flags)


def _no_restart(own: int, address: bytes | None, data: bytes, extra: bytes, flags: int) -> int:
    result = raw_sendmsg(own, address, data, extra, flags)
    return -EAGAIN if result == -EINTR else result


def _vouched_sendmsg(call: Call, out: Outgoing, data: bytes, flags: int) -> int:
    """sendmsg(2) with the caller's credentials, or without where the kernel does not take them from us."""
    global _vouches
    result = raw_sendmsg(out.own, out.address, data, out.control, flags)
    if result != -EPERM or not out.vouched:
        return result
    messages = control.split(out.control)[:-1]
    out.control, out.vouched = control.join(messages), False
    result = raw_sendmsg(out.own, out.address, data, out.control, flags)
    if result >= 0 and not call.cred_gen:
        _vouches = False
    return result


def _gather(call: Call, segments: Segments, skip: int, size: int) -> bytes:
    """`size` bytes of the segments, after the first `skip`.  Raises OSError EFAULT."""
    parts = []
    for base, length in segments:
        if skip >= length:
            skip -= length
            continue
        take = min(length - skip, size)
        if take:
            parts.append(call.read(base + skip, take))
        size -= take
        skip = 0
        if not size:
            break
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _raise_sigpipe(call: Call) -> None:
    """SIGPIPE for the calling thread, as the kernel's send_sig(); before Linux 6.9 for its process."""
    pidfd = pidfd_open_task(call.tid, call.tgid)
    try:
        call.valid()
        pidfd_send_signal(pidfd, SIGPIPE)
    finally:
        os.close(pidfd)
