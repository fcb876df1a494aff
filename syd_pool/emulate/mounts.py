"""Which mount something is in: statx(2), STATX_MNT_ID (Linux 5.8)."""

from __future__ import annotations

import os
from ctypes import addressof, create_string_buffer
from struct import Struct

from syd_pool.linux.libc import AT_EMPTY_PATH, AT_FDCWD, raw_statx

STATX_MNT_ID = 0x1000  # <linux/stat.h>
_MNT_ID, _MNT_ID_AT = Struct("Q"), 0x90  # stx_mnt_id of struct statx
_buffer = create_string_buffer(256)
_statx = addressof(_buffer)


def same_mount(one: int, other: int | bytes) -> bool:
    """Are two that we hold, or may name, in the same mount?  Raises OSError."""
    return _mount(one) == _mount(other)


def _mount(what: int | bytes) -> int:
    at, path = (AT_FDCWD, what) if isinstance(what, bytes) else (what, b"")
    result = raw_statx(at, path, AT_EMPTY_PATH, STATX_MNT_ID, _statx)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return int(_MNT_ID.unpack_from(_buffer, _MNT_ID_AT)[0])
