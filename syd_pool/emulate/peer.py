"""getsockopt(2) of SO_PEERCRED and SO_PEERPIDFD: who is at the other end of a Unix socket (unix(7)).

Connections are made by workers, so the kernel believes that a worker is the peer of who accepted.  What else it
shows is right: a worker connects with its caller's ids and groups, and who listens, or makes a pair, does that
by itself.  So the worker that has connected says for whom, and who asks is told that process:

    connect: cookie of the socket, caller --> tracer --> page (shm/peers.py)
    ask:     accepted socket --sock_diag--> its peer's cookie --page--> caller

Only while the other end is open can the kernel name it.  Once it is closed, or if the page had no room for it,
a number that was ever a worker's is not told: the pid is 0, as the kernel shows a process of another pid
namespace, and there is no pidfd (ESRCH, as of a process that has ended).

Who is not in the sandbox sees the worker's pid: its getsockopt(2) is not ours to answer.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX
from errno import EINVAL, ESRCH
from struct import Struct

from syd_pool.emulate.netaddr import fail
from syd_pool.emulate.sockets import socket_of
from syd_pool.linux import proc
from syd_pool.linux.libc import (
    SO_COOKIE,
    SO_PEERCRED,
    SO_PEERPIDFD,
    fstatfs_type,
    pidfd_open,
    raise_errno,
    raw_socket_option,
    socket_option,
)
from syd_pool.linux.unix_diag import peer_cookie
from syd_pool.shm import peers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

_UCRED = Struct("iII")  # struct ucred
_PID_FS_MAGIC = 0x50494446


def identity(pid: int, pidfd: int) -> int:
    """What tells a process, of which we hold a pidfd, from a later one with its number.

    The inode of its pidfd, since Linux 6.9; before that when it started, from proc_pid_stat(5).  Raises OSError.
    """
    if fstatfs_type(pidfd) == _PID_FS_MAGIC:
        return os.fstat(pidfd).st_ino
    return proc.start_time(pid)


def identity_of_caller(call: Call) -> int:
    """identity() of the calling process; valid() must follow.  0 when it cannot be looked at any more."""
    try:
        pidfd = pidfd_open(call.tgid)
    except OSError:
        return 0
    try:
        return identity(call.tgid, pidfd)
    except OSError:
        return 0
    finally:
        os.close(pidfd)


def note(call: Call, own: int, who: int) -> None:
    """This socket is connected now, for the caller, whose identity() is `who`."""
    call.note_connected(cookie_of(own), who, os.fstat(own).st_ino)


def cookie_of(own: int) -> int:
    """The number that the kernel has given to this socket, and to no other since it started.  Raises OSError."""
    return int.from_bytes(socket_option(own, SO_COOKIE, 8), "little")


def getsockopt(call: Call) -> int:
    """getsockopt(fd, SOL_SOCKET, SO_PEERCRED or SO_PEERPIDFD, value, size)"""
    own, domain = socket_of(call, call.fd(0))
    size = int.from_bytes(call.read(call.args[4], 4), "little", signed=True)
    if size < 0:
        return -EINVAL
    pid, uid, gid = _UCRED.unpack(socket_option(own, SO_PEERCRED, _UCRED.size))
    found = _connector(call, own, pid) if domain == AF_UNIX else None
    shown = found[0] if found else pid
    if call.int(2) == SO_PEERCRED:
        call.valid()
        return _tell(call, _UCRED.pack(shown, uid, gid), size)
    return _tell_pidfd(call, own, found, size)


def _connector(call: Call, own: int, pid: int) -> tuple[int, int] | None:
    """(thread group, identity) of the process for which a worker made this connection; (0, 0) when it is not known.

    None when no worker made it: then the kernel is right.
    """
    page, diag = call.peers
    if not peers.was_ours(page, pid):
        return None
    peer = peer_cookie(diag, os.fstat(own).st_ino, cookie_of(own))
    if not peer:
        return 0, 0
    # who accepted may ask before the tracer has heard of the connection
    return call.await_note(lambda: peers.find(page, peer)) or (0, 0)


def _tell(call: Call, value: bytes, size: int) -> int:
    """Value and size to the caller, as sk_getsockopt() writes them."""
    value = value[:size]
    call.write(call.args[3], value)
    call.write(call.args[4], len(value).to_bytes(4, "little"))
    return 0


def _tell_pidfd(call: Call, own: int, found: tuple[int, int] | None, size: int) -> int:
    """A pidfd of the peer as a new descriptor of the caller's, close-on-exec as natively."""
    pidfd = raise_errno(raw_socket_option(own, SO_PEERPIDFD)) if found is None else _open(*found)
    call.keep(pidfd)
    call.valid()
    _tell(call, b"\xff" * 4, size)  # where this fails no descriptor may be installed
    call.begin_effect()
    return _tell(call, call.place(pidfd, os.O_CLOEXEC).to_bytes(4, "little"), size)


def _open(tgid: int, who: int) -> int:
    """A pidfd of this very process.  Raises OSError ESRCH when it has ended or is not known."""
    if not tgid or not who:
        raise fail(ESRCH)
    try:
        pidfd = pidfd_open(tgid)
    except OSError as error:
        raise fail(ESRCH) from error
    try:
        if identity(tgid, pidfd) == who:
            return pidfd
    except OSError:
        pass
    os.close(pidfd)
    raise fail(ESRCH)
