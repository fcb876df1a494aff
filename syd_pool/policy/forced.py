"""What the options force on every look-up and every open, as bits of words: where they are 0 a call pays nothing.

resolve  RESOLVE_ flags of openat2(2) that hold for every path that is resolved
opens    the bits below, for calls that open
lifted   guards that are on unless an option lifts them
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from syd_pool.policy.values import Value

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 1, 2, 4  # <linux/openat2.h>; libc.py costs ctypes
NO_DOTDOT = 1  # a path of open and chdir may not have a ".." in it, nor a link on its way
READ_ONLY = 2
CLOEXEC = 4
RANDOM = 8  # the number of a new descriptor

# lifted
FILENAME, SYMLINKS, CREATE, SUID, HARDLINKS = 1, 2, 4, 8, 16
XATTR, MACHINE_ID, PID_STATUS, KFD = 32, 64, 128, 256
STAT_BDEV, STAT_CDEV, NOTIFY_BDEV, NOTIFY_CDEV, STICKY = 512, 1024, 2048, 4096, 8192

_RESOLVE = {
    "trace/force_no_xdev": RESOLVE_NO_XDEV,
    "trace/force_no_magiclinks": RESOLVE_NO_MAGICLINKS,
    "trace/force_no_symlinks": RESOLVE_NO_SYMLINKS,
}
_OPENS = {
    "trace/deny_dotdot": NO_DOTDOT,
    "trace/force_ro_open": READ_ONLY,
    "trace/force_cloexec": CLOEXEC,
    "trace/force_rand_fd": RANDOM,
}


GUARDS = {
    "trace/allow_unsafe_filename": FILENAME,
    "trace/allow_unsafe_symlinks": SYMLINKS,
    "trace/allow_unsafe_create": CREATE,
    "trace/allow_unsafe_open_suid": SUID,
    "trace/allow_unsafe_hardlinks": HARDLINKS,
    "trace/allow_unsafe_xattr": XATTR,
    "trace/allow_unsafe_machine_id": MACHINE_ID,
    "trace/allow_unsafe_proc_pid_status": PID_STATUS,
    "trace/allow_unsafe_open_kfd": KFD,
    "trace/allow_unsafe_stat_bdev": STAT_BDEV,
    "trace/allow_unsafe_stat_cdev": STAT_CDEV,
    "trace/allow_unsafe_notify_bdev": NOTIFY_BDEV,
    "trace/allow_unsafe_notify_cdev": NOTIFY_CDEV,
    "trace/allow_unsafe_sticky": STICKY,
}


def forced(values: Mapping[str, Value]) -> tuple[int, int, int]:
    """(resolve, opens, lifted) of the options that were set."""
    return _bits(_RESOLVE, values), _bits(_OPENS, values), _bits(GUARDS, values)


def _bits(options: Mapping[str, int], values: Mapping[str, Value]) -> int:
    found = 0
    for name, bit in options.items():
        if values.get(name):
            found |= bit
    return found
