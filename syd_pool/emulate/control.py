"""Control messages of sendmsg(2): descriptors, credentials, and what would lead a packet elsewhere.

SCM_RIGHTS       each descriptor is judged by what it is (syd(7), Restricting File Descriptor Passing) and
                 passed as our duplicate; the caller cannot put another under its number meanwhile
SCM_CREDENTIALS  passed as it is: the kernel checks it against us, who have the caller's ids and
                 capabilities but not its pid.  So without CAP_SYS_ADMIN, which is put on for a message that
                 names the caller and nobody else, it is EPERM even for the own pid (an ordinary user's sandbox)
IP, IPV6         source routes, routing headers and packet information are taken out unless an option lifts it
others           passed as they are
"""

from __future__ import annotations

import os
from errno import EACCES, EINVAL, EPERM
from stat import S_ISBLK, S_ISCHR, S_ISDIR, S_ISFIFO, S_ISLNK, S_ISREG, S_ISSOCK
from struct import Struct

from syd_pool.emulate.netaddr import fail
from syd_pool.emulate.paths import in_proc, pid_in, text_of
from syd_pool.linux import proc
from syd_pool.linux.libc import SOL_SOCKET, fstatfs_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

SCM_RIGHTS, SCM_CREDENTIALS = 1, 2
_MOST_RIGHTS = 253  # SCM_MAX_FD
_HEADER = Struct("Qii")  # struct cmsghdr
_UCRED = Struct("iII")
_SECRETMEM_MAGIC = 0x5345434D

# (level, type) -> option that lets it pass; <linux/in.h>, <linux/in6.h>
_STEERING = {
    (0, 7): "trace/allow_unsafe_ip_retopts",  # IP_RETOPTS
    (0, 8): "trace/allow_unsafe_ip_pktinfo",  # IP_PKTINFO
    (41, 50): "trace/allow_unsafe_ip_pktinfo",  # IPV6_PKTINFO
    (41, 2): "trace/allow_unsafe_ip_pktinfo",  # IPV6_2292PKTINFO
    (41, 57): "trace/allow_unsafe_ipv6_rthdr",  # IPV6_RTHDR
    (41, 5): "trace/allow_unsafe_ipv6_rthdr",  # IPV6_2292RTHDR
}

Message = tuple[int, int, bytes]  # level, type, payload


def split(control: bytes) -> list[Message]:
    """The messages in a control buffer, as for_each_cmsghdr() finds them.  Raises OSError EINVAL."""
    found, at, end = [], 0, len(control)
    while at + _HEADER.size <= end:
        size, level, kind = _HEADER.unpack_from(control, at)
        if not _HEADER.size <= size <= end - at:
            raise fail(EINVAL)
        found.append((level, kind, control[at + _HEADER.size : at + size]))
        at += size + 7 & ~7
    return found


def join(messages: list[Message]) -> bytes:
    """The control buffer of messages."""
    out = b""
    for level, kind, payload in messages:
        out += bytes(-len(out) % 8)
        out += _HEADER.pack(_HEADER.size + len(payload), level, kind) + payload
    return out


def passes_rights(messages: list[Message]) -> bool:
    """Does any message carry descriptors?"""
    return any(m[:2] == (SOL_SOCKET, SCM_RIGHTS) and len(m[2]) >= 4 for m in messages)


def has_credentials(messages: list[Message]) -> bool:
    """Does any message carry credentials?"""
    return any(m[:2] == (SOL_SOCKET, SCM_CREDENTIALS) for m in messages)


def names_caller(call: Call, messages: list[Message]) -> bool:
    """Do the credentials among `messages` name the caller's process, and no other?"""
    pids = [_UCRED.unpack(m[2])[0] for m in messages if m[:2] == (SOL_SOCKET, SCM_CREDENTIALS) and len(m[2]) == 12]
    return bool(pids) and set(pids) == {call.tgid}


def credentials(call: Call) -> Message:
    """What the kernel would say of the caller by itself: its pid and real ids.  Raises OSError; Gone."""
    uid, gid = os.getuid(), os.getgid()
    if call.cred_gen:
        text = proc.status(call.tid)
        uid, gid = int(proc.field(text, b"Uid:").split()[0]), int(proc.field(text, b"Gid:").split()[0])
    return SOL_SOCKET, SCM_CREDENTIALS, _UCRED.pack(call.tgid, uid, gid)


def take_rights(call: Call, messages: list[Message]) -> list[Message]:
    """The messages with our duplicates in place of the caller's descriptors.

    Raises OSError: EBADF, EINVAL as natively, EACCES for a kind of file that may not be passed.
    """
    taken = []
    for level, kind, payload in messages:
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
            payload = _duplicates(call, payload)
        elif (level, kind) == (SOL_SOCKET, SCM_CREDENTIALS):
            _not_ours(payload)
        taken.append((level, kind, payload))
    return taken


def _duplicates(call: Call, payload: bytes) -> bytes:
    count = len(payload) // 4
    if count > _MOST_RIGHTS:
        raise fail(EINVAL)
    out = b""
    for i in range(count):
        own = call.own_fd(int.from_bytes(payload[4 * i : 4 * i + 4], "little", signed=True))
        kind = kind_of(own)
        if kind and not call.rules.option("trace/allow_unsafe_sendfd_" + kind):
            call.log([("level", b"warn"), ("ctx", b"sendfd"), ("msg", kind.encode()), ("pid", call.tid),
                      ("tip", b"configure `trace/allow_unsafe_sendfd_" + kind.encode() + b":1'")])  # fmt: skip
            raise fail(EACCES)
        out += own.to_bytes(4, "little")
    return out


def _not_ours(payload: bytes) -> None:
    """Raises OSError EPERM for credentials that would name this process: nobody but us may use them."""
    if len(payload) >= 4 and int.from_bytes(payload[:4], "little", signed=True) == os.getpid():
        raise fail(EPERM)


def kind_of(fd: int) -> str:
    """What syd calls this kind of file (trace/allow_unsafe_sendfd_KIND); "" for a regular one."""
    status = os.fstat(fd)
    mode = status.st_mode
    for test, kind in _KINDS:
        if test(mode):
            return kind
    if S_ISLNK(mode):
        inside = in_proc(text_of(fd))
        return "magiclink" if inside is not None and (pid_in(inside) or inside in _SELF) else "symlink"
    if not S_ISREG(mode):
        return "misc"
    if fstatfs_type(fd) == _SECRETMEM_MAGIC:
        return "secretmem"
    name = os.readlink(b"/proc/self/fd/%d" % fd)
    if name[:1] != b"/":
        return "misc"  # a pidfd, a namespace
    return "memfd" if name.startswith(b"/memfd:") and not status.st_nlink else ""


_SELF = (b"/self", b"/thread-self")  # of procfs
_KINDS = ((S_ISDIR, "dir"), (S_ISBLK, "bdev"), (S_ISCHR, "cdev"), (S_ISSOCK, "socket"), (S_ISFIFO, "fifo"))


def without_steering(call: Call, messages: list[Message]) -> list[Message]:
    """The messages that leave a packet on the way to the judged address."""
    return [m for m in messages if m[:2] not in _STEERING or call.rules.option(_STEERING[m[:2]])]
