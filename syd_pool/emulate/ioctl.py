"""ioctl(2): category `ioctl`, by the request, which is a register: what is allowed is continued (I5).

In a locked run the filter has decided the most (boundary/request_filter.py); what comes here is refused with a line
of the log, or warned about, or the run is open.
"""

from __future__ import annotations

from errno import EOPNOTSUPP

from syd_pool.emulate.judge import act
from syd_pool.policy.requests import name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

# fallocate(2) by another name, <linux/falloc.h>: FS_IOC_RESVSP, _UNRESVSP, both with 64, _ZERO_RANGE; and
# F2FS_IOC_MOVE_RANGE, which takes what it moves away
ALLOCATING = frozenset((0x40305828, 0x40305829, 0x4030582A, 0x4030582B, 0x40305839, 0xC020F509))


def ioctl(call: Call) -> int | None:
    """ioctl(fd, request, argument)"""
    request = call.int(1)
    rules = call.rules
    action = rules.requested[request]
    if action:
        act(call, "ioctl", name_of(request).encode(), action)
    if rules.appended is not None and request in ALLOCATING:
        return -EOPNOTSUPP
    call.valid()
    call.resume()
    return None
