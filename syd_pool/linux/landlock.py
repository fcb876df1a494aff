"""Landlock for one thread: rulesets of paths, ports and scopes, and the domain they become.

    create() --add_path(), add_port()--> a ruleset --restrict()--> the domain of the calling thread

A domain belongs to a thread, goes to what the thread forks or starts, and is never left.
Source: landlock(7), include/uapi/linux/landlock.h up to ABI 7 (Linux 6.15).
"""

from __future__ import annotations

import os
from ctypes import addressof, create_string_buffer
from struct import Struct

from syd_pool.linux.libc import syscall

LANDLOCK_ACCESS_FS_EXECUTE = 1 << 0
LANDLOCK_ACCESS_FS_WRITE_FILE = 1 << 1
LANDLOCK_ACCESS_FS_READ_FILE = 1 << 2
LANDLOCK_ACCESS_FS_READ_DIR = 1 << 3
LANDLOCK_ACCESS_FS_REMOVE_DIR = 1 << 4
LANDLOCK_ACCESS_FS_REMOVE_FILE = 1 << 5
LANDLOCK_ACCESS_FS_MAKE_CHAR = 1 << 6
LANDLOCK_ACCESS_FS_MAKE_DIR = 1 << 7
LANDLOCK_ACCESS_FS_MAKE_REG = 1 << 8
LANDLOCK_ACCESS_FS_MAKE_SOCK = 1 << 9
LANDLOCK_ACCESS_FS_MAKE_FIFO = 1 << 10
LANDLOCK_ACCESS_FS_MAKE_BLOCK = 1 << 11
LANDLOCK_ACCESS_FS_MAKE_SYM = 1 << 12
LANDLOCK_ACCESS_FS_REFER = 1 << 13  # ABI 2, Linux 5.19
LANDLOCK_ACCESS_FS_TRUNCATE = 1 << 14  # ABI 3, Linux 6.2
LANDLOCK_ACCESS_FS_IOCTL_DEV = 1 << 15  # ABI 5, Linux 6.10

# What a rule about something that is no directory may hold (ACCESS_FILE of security/landlock/fs.c)
ACCESS_FILE = (
    LANDLOCK_ACCESS_FS_EXECUTE
    | LANDLOCK_ACCESS_FS_WRITE_FILE
    | LANDLOCK_ACCESS_FS_READ_FILE
    | LANDLOCK_ACCESS_FS_TRUNCATE
    | LANDLOCK_ACCESS_FS_IOCTL_DEV
)

LANDLOCK_ACCESS_NET_BIND_TCP = 1 << 0  # ABI 4, Linux 6.7
LANDLOCK_ACCESS_NET_CONNECT_TCP = 1 << 1

LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET = 1  # ABI 6, Linux 6.12
LANDLOCK_SCOPE_SIGNAL = 2

LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF = 1  # ABI 7, Linux 6.15
LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON = 2
LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF = 4

LANDLOCK_RULE_PATH_BENEATH = 1
LANDLOCK_RULE_NET_PORT = 2

_CREATE_RULESET_VERSION = 1
_SCOPE_ABI = 6
LOG_ABI = 7  # that of the flags of restrict()
# handled_access_fs, handled_access_net, scoped: an older kernel takes the longer structure while the rest is 0
_RULESET_ATTR = Struct("<QQQ")
_PATH_BENEATH_ATTR = Struct("=Qi")  # allowed_access, parent_fd; the structure is packed
_NET_PORT_ATTR = Struct("=QQ")  # allowed_access, port


def abi() -> int:
    """The kernel's Landlock ABI, 0 without it."""
    try:
        return syscall("landlock_create_ruleset", 0, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def signal_scope() -> bool:
    """Can Landlock keep signals inside a domain?"""
    return abi() >= _SCOPE_ABI


def create(fs: int, net: int = 0, scoped: int = 0) -> int:
    """A ruleset, as a close-on-exec descriptor, under which nothing of `fs` and `net` is allowed yet.

    Raises OSError (ENOSYS, EOPNOTSUPP: no Landlock here; E2BIG, EINVAL: a right that this kernel does not know).
    """
    attr = create_string_buffer(_RULESET_ATTR.pack(fs, net, scoped), _RULESET_ATTR.size)
    return syscall("landlock_create_ruleset", addressof(attr), _RULESET_ATTR.size, 0)


def add_path(ruleset: int, access: int, fd: int) -> None:
    """Allow `access` to what `fd` is, and to everything below it.  Raises OSError."""
    rule = create_string_buffer(_PATH_BENEATH_ATTR.pack(access, fd), _PATH_BENEATH_ATTR.size)
    syscall("landlock_add_rule", ruleset, LANDLOCK_RULE_PATH_BENEATH, addressof(rule), 0)


def add_port(ruleset: int, access: int, port: int) -> None:
    """Allow `access` to one TCP port.  Raises OSError."""
    rule = create_string_buffer(_NET_PORT_ATTR.pack(access, port), _NET_PORT_ATTR.size)
    syscall("landlock_add_rule", ruleset, LANDLOCK_RULE_NET_PORT, addressof(rule), 0)


def restrict(ruleset: int, flags: int = 0) -> None:
    """Put this thread into a domain of its own that the ruleset describes, below the one it is in.

    Needs no_new_privs or CAP_SYS_ADMIN.  Raises OSError (E2BIG: sixteen domains are above it already).
    """
    syscall("landlock_restrict_self", ruleset, flags)


def restrict_this_thread(access: int, parent: int) -> None:
    """From now on this thread has `access` below the directory held as `parent`, and nowhere else.

    Needs no_new_privs or CAP_SYS_ADMIN.  Raises OSError (ENOSYS, EOPNOTSUPP: this kernel has no Landlock).
    """
    ruleset = create(access)
    try:
        add_path(ruleset, access, parent)
        restrict(ruleset)
    finally:
        os.close(ruleset)
