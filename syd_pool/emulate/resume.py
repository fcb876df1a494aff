"""CONTINUE: the one place that builds it (I5)."""

from __future__ import annotations

from fcntl import ioctl

from syd_pool.emulate.table import CONTINUE
from syd_pool.linux.notify import RESP, SECCOMP_IOCTL_NOTIF_SEND, SECCOMP_USER_NOTIF_FLAG_CONTINUE
from syd_pool.linux.numbers import NAME


def send_continue(listener: int, notification: int, nr: int) -> None:
    """Let the kernel perform call `nr` itself, if CONTINUE lists it with a reason.

    Raises OSError as SECCOMP_IOCTL_NOTIF_SEND does, AssertionError for a call that is not listed.
    """
    if NAME[nr] not in CONTINUE:
        raise AssertionError(f"{NAME[nr]} must not be continued")
    ioctl(
        listener,
        SECCOMP_IOCTL_NOTIF_SEND,
        RESP.pack(notification, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE),
    )
