"""chown(2), lchown(2), fchownat(2), fchown(2): category `chown` for the owner, `chgrp` for the group.

An id of -1 is left alone and asks for nothing, so a call that changes neither is judged as `stat` only.
"""

from __future__ import annotations

from errno import EINVAL

from syd_pool.emulate.call import AT_FDCWD, EMPTY, FOLLOW
from syd_pool.emulate.held import judge_change, judged_fd
from syd_pool.linux.libc import AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, raw_fchownat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

_UNCHANGED = 0xFFFFFFFF  # (uid_t) -1


def chown(call: Call) -> int:
    """chown(path, owner, group)"""
    return _chown(call, AT_FDCWD, 0, FOLLOW)


def lchown(call: Call) -> int:
    """lchown(path, owner, group)"""
    return _chown(call, AT_FDCWD, 0, 0)


def fchownat(call: Call) -> int:
    """fchownat(dirfd, path, owner, group, flags)"""
    flags = call.int(4)
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        return -EINVAL
    how = (0 if flags & AT_SYMLINK_NOFOLLOW else FOLLOW) | (EMPTY if flags & AT_EMPTY_PATH else 0)
    return _chown(call, call.fd(0), 1, how)


def fchown(call: Call) -> int:
    """fchown(fd, owner, group)"""
    owner, group = call.int(1), call.int(2)
    own = judged_fd(call, call.fd(0), *_categories(owner, group))
    call.valid()
    call.begin_effect()
    return raw_fchownat(own, b"", owner, group, AT_EMPTY_PATH)


def _categories(owner: int, group: int) -> list[str]:
    wanted = (("chown", owner), ("chgrp", group))
    return [category for category, number in wanted if number != _UNCHANGED]


def _chown(call: Call, dirfd: int, first: int, how: int) -> int:
    """first: the argument that is the path; owner and group follow it."""
    owner, group = call.int(first + 1), call.int(first + 2)
    found = call.find(call, dirfd, call.string(call.args[first]), how)
    judge_change(call, found.path, *_categories(owner, group))
    call.valid()
    call.begin_effect()
    return raw_fchownat(found.fd, b"", owner, group, AT_EMPTY_PATH)
