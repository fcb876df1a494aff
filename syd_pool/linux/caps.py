"""Capabilities of this thread: capget(2), capset(2), and their numbers in <linux/capability.h>.

A set is an integer with one bit for each capability.
"""

from __future__ import annotations

from ctypes import addressof, create_string_buffer
from struct import Struct

from syd_pool.linux.libc import syscall

CAP_CHOWN = 0
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7
CAP_SETPCAP = 8
CAP_NET_BIND_SERVICE = 10
CAP_NET_RAW = 13
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_SYS_TIME = 25
CAP_MKNOD = 27
CAP_SYSLOG = 34
MOST = 64  # there are fewer; the kernel says EINVAL to a number it does not know

_VERSION_3 = 0x20080522
_HEADER = Struct("<Ii")
_DATA = Struct("<6I")  # effective, permitted, inheritable: first the low 32 bits of all, then the high ones


def bit(capability: int) -> int:
    """The set of one capability."""
    return 1 << capability


def members(capabilities: int) -> list[int]:
    """The numbers in a set."""
    return [number for number in range(MOST) if capabilities >> number & 1]


def header() -> bytes:
    """struct __user_cap_header_struct of this thread."""
    return _HEADER.pack(_VERSION_3, 0)


def data(effective: int, permitted: int, inheritable: int = 0) -> bytes:
    """struct __user_cap_data_struct[2]."""
    low, sets = 0xFFFFFFFF, (effective, permitted, inheritable)
    return _DATA.pack(*(s & low for s in sets), *(s >> 32 for s in sets))


def current() -> tuple[int, int]:
    """(effective, permitted) sets of this thread."""
    head, sets = create_string_buffer(header(), _HEADER.size), create_string_buffer(_DATA.size)
    syscall("capget", addressof(head), addressof(sets))
    e0, p0, _, e1, p1, _ = _DATA.unpack(sets.raw)
    return e0 | e1 << 32, p0 | p1 << 32


def put_on(effective: int, permitted: int, inheritable: int = 0) -> None:
    """capset(2) for this thread.  Raises OSError EPERM."""
    head = create_string_buffer(header(), _HEADER.size)
    sets = create_string_buffer(data(effective, permitted, inheritable), _DATA.size)
    syscall("capset", addressof(head), addressof(sets))
