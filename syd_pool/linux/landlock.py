"""Landlock for one thread: what it may make, and below which directory.

Source: landlock(7), include/uapi/linux/landlock.h; ABI 1 (Linux 5.13).
"""

from __future__ import annotations

import os
from ctypes import addressof, create_string_buffer
from struct import Struct

from syd_pool.linux.libc import syscall

LANDLOCK_ACCESS_FS_MAKE_SOCK = 1 << 9
LANDLOCK_SCOPE_SIGNAL = 2
_CREATE_RULESET_VERSION = 1
_SCOPE_ABI = 6  # Linux 6.12
LANDLOCK_RULE_PATH_BENEATH = 1
_RULESET_ATTR = Struct("Q")  # handled_access_fs
_PATH_BENEATH_ATTR = Struct("=Qi")  # allowed_access, parent_fd; the structure is packed


def abi() -> int:
    """The kernel's Landlock ABI, 0 without it."""
    try:
        return syscall("landlock_create_ruleset", 0, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def signal_scope() -> bool:
    """Can Landlock keep signals inside a domain?"""
    return abi() >= _SCOPE_ABI


def restrict_this_thread(access: int, parent: int) -> None:
    """From now on this thread has `access` below the directory held as `parent`, and nowhere else.

    Needs no_new_privs or CAP_SYS_ADMIN.  Raises OSError (ENOSYS, EOPNOTSUPP: this kernel has no Landlock).
    """
    attr = create_string_buffer(_RULESET_ATTR.pack(access), _RULESET_ATTR.size)
    ruleset = syscall("landlock_create_ruleset", addressof(attr), _RULESET_ATTR.size, 0)
    try:
        rule = create_string_buffer(_PATH_BENEATH_ATTR.pack(access, parent), _PATH_BENEATH_ATTR.size)
        syscall("landlock_add_rule", ruleset, LANDLOCK_RULE_PATH_BENEATH, addressof(rule), 0)
        syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
