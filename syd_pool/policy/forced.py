"""What the options force on every look-up and every open, as bits of two words: where both are 0 a call pays nothing.

resolve  RESOLVE_ flags of openat2(2) that hold for every path that is resolved
opens    the bits below, for calls that open
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


def forced(values: Mapping[str, Value]) -> tuple[int, int]:
    """(resolve, opens) of the options that were set."""
    return _bits(_RESOLVE, values), _bits(_OPENS, values)


def _bits(options: Mapping[str, int], values: Mapping[str, Value]) -> int:
    found = 0
    for name, bit in options.items():
        if values.get(name):
            found |= bit
    return found
