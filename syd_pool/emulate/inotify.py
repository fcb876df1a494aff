"""inotify_add_watch(2): category `notify`.

The watch is added to a duplicate of the caller's inotify descriptor, which is the same instance, on the
object that was judged.
"""

from __future__ import annotations

import os
from errno import EINVAL
from stat import S_ISBLK, S_ISCHR

from syd_pool.emulate.call import FOLLOW
from syd_pool.emulate.held import judge_object, opened_fd, own_path, reach
from syd_pool.linux.libc import raw_inotify_add_watch
from syd_pool.policy.forced import NOTIFY_BDEV, NOTIFY_CDEV

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

# <linux/inotify.h>
IN_ACCESS, IN_MODIFY = 1, 2
IN_DONT_FOLLOW = 0x02000000
IN_MASK_CREATE = 0x10000000
IN_MASK_ADD = 0x20000000
ALL_INOTIFY_BITS = 0xF700EFFF

_INSTANCE = b"anon_inode:inotify"


def _safe_mask(call: Call, path: bytes, link: bool, mask: int) -> int:
    """Without the events that tell when a device is used (syd(7), Device Sidechannel Mitigations)."""
    kind = os.stat(path, follow_symlinks=not link).st_mode
    if S_ISBLK(kind) or S_ISCHR(kind):
        if not call.rules.lifted & (NOTIFY_BDEV if S_ISBLK(kind) else NOTIFY_CDEV):
            return mask & ~(IN_ACCESS | IN_MODIFY)
    return mask


def inotify_add_watch(call: Call) -> int:
    """inotify_add_watch(fd, path, mask)"""
    mask = call.int(2)
    if not mask & ALL_INOTIFY_BITS:
        return -EINVAL
    fd = opened_fd(call, call.fd(0))
    if mask & IN_MASK_ADD and mask & IN_MASK_CREATE:
        return -EINVAL
    if os.readlink(own_path(fd)) != _INSTANCE:
        return -EINVAL
    text, path, link = reach(call, call.string(call.args[1]), 0 if mask & IN_DONT_FOLLOW else FOLLOW)
    judge_object(call, text, "notify")
    mask = _safe_mask(call, path, link, mask)
    if not mask & ALL_INOTIFY_BITS:
        return -EINVAL
    # A path of ours that is no link goes through one of /proc, which must be followed.
    mask = mask | IN_DONT_FOLLOW if link else mask & ~IN_DONT_FOLLOW
    call.valid()
    call.begin_effect()
    return raw_inotify_add_watch(fd, path, mask)
