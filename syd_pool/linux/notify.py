"""Seccomp user notifications: structures and ioctls of <linux/seccomp.h>.

Source: seccomp_unotify(2) and include/uapi/linux/seccomp.h.
"""

from __future__ import annotations

from fcntl import ioctl
from struct import Struct

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_NOTIF_SIZES = 3

SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5

SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP = 1
SECCOMP_ADDFD_FLAG_SETFD = 1
SECCOMP_ADDFD_FLAG_SEND = 2

AUDIT_ARCH_X86_64 = 0xC000003E

# _IOC(direction, '!', number, size): write is 1, read is 2
SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101
SECCOMP_IOCTL_NOTIF_ID_VALID = 0x40082102
SECCOMP_IOCTL_NOTIF_ADDFD = 0x40182103
SECCOMP_IOCTL_NOTIF_SET_FLAGS = 0x40082104

NOTIF_SIZE = 80
# struct seccomp_notif: id, pid (a *thread* id), flags, nr, arch, instruction_pointer, args[6]
NOTIF = Struct("<QIIiIQ6Q")
# struct seccomp_notif_resp: id, val, error, flags
RESP = Struct("<QqiI")
# struct seccomp_notif_addfd: id, flags, srcfd, newfd, newfd_flags
ADDFD = Struct("<QIIII")


class Gone(Exception):
    """The notification is no longer valid: its caller was killed, or somebody answered it."""


def recv(listener: int, buf: bytearray) -> None:
    """SECCOMP_IOCTL_NOTIF_RECV into `buf` (80 bytes, zeroed by the caller before every use).

    Raises OSError: ENOENT when the caller vanished between POLLIN and here, EINTR on a signal.
    Blocks, even with O_NONBLOCK, when nothing is pending: call it on POLLIN only.
    """
    ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, buf)


def send_value(listener: int, notification: int, value: int) -> None:
    """Answer with a result.  Raises OSError ENOENT (caller gone) or EINPROGRESS (already answered)."""
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, RESP.pack(notification, value, 0, 0))


def send_error(listener: int, notification: int, errno: int) -> None:
    """Answer with -errno (`errno` positive).  Raises as send_value."""
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, RESP.pack(notification, 0, -errno, 0))


def valid(listener: int, notification: int) -> bool:
    """SECCOMP_IOCTL_NOTIF_ID_VALID: is the caller still waiting for this answer?"""
    try:
        ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, notification.to_bytes(8, "little"))
    except OSError:
        return False
    return True


def add_fd(listener: int, notification: int, fd: int, fd_flags: int, flags: int = 0, number: int = 0) -> int:
    """SECCOMP_IOCTL_NOTIF_ADDFD: install our `fd` in the caller; returns its number there.

    number: what it is to be, replacing what is open there; 0: the lowest that is free

    With SECCOMP_ADDFD_FLAG_SEND the same call answers.  Every signal must be blocked around it: an
    interrupted ADDFD+SEND makes the caller's system call return 0 (measured; design.md I2).
    """
    if number:
        flags |= SECCOMP_ADDFD_FLAG_SETFD
    request = bytearray(ADDFD.pack(notification, flags, fd, number, fd_flags))
    return int(ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, request))  # on bytes, ioctl() would return a copy


def sync_wake_up(listener: int) -> None:
    """SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (Linux 6.6): wake the receiver on the caller's own CPU."""
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
