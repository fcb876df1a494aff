"""stat("/dev/syd/COMMAND"): the caller speaks to its sandbox (syd(2)).

The worker only recognises it and fills in the caller's buffer, with what a character device without a name
looks like; the tracer reads the command anew from the caller, judges who may say it, carries it out and
answers.  So a worker can neither edit the rules nor say that somebody asked for it.
"""

from __future__ import annotations

from stat import S_IFCHR
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from syd_pool.emulate.call import Call

_NULL = 1, 3  # the device of null(4)
# struct stat of x86_64: st_dev, st_ino, st_nlink, st_mode, uid, gid, pad, st_rdev, then sizes and times
STAT = Struct("<QQQIIIIQ96x").pack(0, 0, 1, S_IFCHR, 0, 0, 0, _NULL[0] << 8 | _NULL[1])
# struct statx: mask, blksize, attributes, nlink, uid, gid, mode, pad, then ino ... and rdev_major at 128
STATX = Struct("<IIQIIIH2x96xII120x").pack(0x7FF, 0, 0, 1, 0, 0, S_IFCHR, *_NULL)
assert (len(STAT), len(STATX)) == (144, 256)


def command(call: Call, buffer: int, status: bytes) -> NoReturn:
    """Hand a command over.  buffer: may be NULL, as in the examples of syd(2).  Raises Gone; OSError EFAULT."""
    call.valid()
    if buffer:
        call.write(buffer, status)
    call.hand_command()
    raise AssertionError("handed over")
