"""chmod(2), fchmodat(2), fchmodat2(2), fchmod(2): category `chmod`."""

from __future__ import annotations

import os
from errno import EINVAL
from stat import S_ISDIR, S_ISREG, S_ISVTX

from syd_pool.emulate.call import AT_FDCWD, EMPTY, FOLLOW
from syd_pool.emulate.held import forced_mode, judge_object, judged_fd, own_path
from syd_pool.emulate.paths import text_of
from syd_pool.linux.libc import AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, raw_fchmodat, raw_fchmodat2
from syd_pool.policy.forced import STICKY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call


def chmod(call: Call) -> int:
    """chmod(path, mode)"""
    return _followed(call, AT_FDCWD, call.args[0], call.args[1])


def fchmod(call: Call) -> int:
    """fchmod(fd, mode)"""
    own = judged_fd(call, call.fd(0), "chmod")
    call.valid()
    call.begin_effect()
    os.fchmod(own, _forced(call, own, call.args[1]))
    return 0


def fchmodat(call: Call) -> int:
    """fchmodat(dirfd, path, mode): the kernel's call has no flags"""
    return _followed(call, call.fd(0), call.args[1], call.args[2])


def fchmodat2(call: Call) -> int:
    """fchmodat2(dirfd, path, mode, flags)"""
    flags = call.int(3)
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        return -EINVAL
    how = (0 if flags & AT_SYMLINK_NOFOLLOW else FOLLOW) | (EMPTY if flags & AT_EMPTY_PATH else 0)
    fd = _judged(call, call.fd(0), call.args[1], how)
    return raw_fchmodat2(fd, b"", _forced(call, fd, call.args[2]), AT_EMPTY_PATH)  # umode_t is 16 bits wide


def _followed(call: Call, dirfd: int, address: int, mode: int) -> int:
    # Through /proc rather than by fchmodat2(2), which kernels before 6.6 do not have.
    fd = _judged(call, dirfd, address, FOLLOW)
    return raw_fchmodat(AT_FDCWD, own_path(fd), _forced(call, fd, mode))


def _forced(call: Call, fd: int, mode: int) -> int:
    """The mode that is set: trace/force_umask counts for regular files, syd(2); a directory stays sticky (syd(7))."""
    mode &= 0xFFFF
    now = os.fstat(fd).st_mode
    if S_ISREG(now):
        return forced_mode(call, mode)
    if S_ISDIR(now) and now & S_ISVTX and not mode & S_ISVTX and not call.rules.lifted & STICKY:
        call.log(
            [
                ("level", b"warn"), ("ctx", b"immutable_sticky"), ("msg", b"the sticky bit is kept"),
                ("path", text_of(fd)), ("pid", call.tid), ("tgid", call.tgid),
                ("tip", b"configure `trace/allow_unsafe_sticky:1'"),
            ]
        )  # fmt: skip
        mode |= S_ISVTX
    return mode


def _judged(call: Call, dirfd: int, address: int, how: int) -> int:
    """The object, judged, with the effect announced."""
    found = call.find(call, dirfd, call.string(address), how)
    judge_object(call, found.path, "chmod")
    call.valid()
    call.begin_effect()
    return found.fd
