"""Trusted path execution, category `tpe` (syd(7)): a file is executed, or mapped to be executed, only if neither it nor
its directory can be written by their group or by others.

Options ask for more of both: tpe/root_owned, tpe/user_owned, tpe/root_mount; tpe/gid and tpe/negate say whom it is
about.  The directory is the one that the link-free path names, and counts only while the very file is in it.
"""

from __future__ import annotations

import os

from syd_pool.emulate.judge import act
from syd_pool.emulate.mounts import same_mount
from syd_pool.emulate.sticky import file_group, file_user
from syd_pool.linux.libc import AT_FDCWD, O_PATH, RESOLVE_NO_SYMLINKS, raw_openat2
from syd_pool.policy.actions import DENY, FILTER, WARN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call
    from syd_pool.policy import Ruleset

_GROUP, _OTHERS = 0o020, 0o002


def judge_trusted(call: Call, fd: int, path: bytes) -> None:
    """May what is held as `fd`, found at the link-free `path`, be executed?  Raises OSError when it is not trusted."""
    why = _distrust(call.rules, fd, path)
    if why:
        act(call, "tpe", path, _action(call.rules), why)


def refuses(rules: Ruleset) -> bool:
    """Does what is not trusted stop the calling process at all?"""
    return "tpe" in rules.enabled and _action(rules) > WARN and _is_about(rules)


def is_refused(rules: Ruleset, fd: int, path: bytes) -> bool:
    """Asks only: does judge_trusted() refuse this, without ending anybody?"""
    return "tpe" in rules.enabled and _action(rules) in (FILTER, DENY) and bool(_distrust(rules, fd, path))


def is_trusted(rules: Ruleset, path: bytes, gone: bool) -> bool:
    """Asks only, of a file that is mapped; of one that is gone by now its directory tells."""
    fd = raw_openat2(AT_FDCWD, path, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, RESOLVE_NO_SYMLINKS) if not gone else -1
    try:
        return not _distrust(rules, fd, path)
    finally:
        if fd >= 0:
            os.close(fd)


def _action(rules: Ruleset) -> int:
    return rules.defaults.get("tpe", DENY)


def _is_about(rules: Ruleset) -> bool:
    """Is the caller, whose identity we have, one that has to be careful?"""
    group = rules.option("tpe/gid")
    if group is None:
        return True
    return (group == file_group() or group in os.getgroups()) != bool(rules.option("tpe/negate"))


def _distrust(rules: Ruleset, fd: int, path: bytes) -> str:
    """Why it is not trusted; "" if it is.  fd -1: of the file itself nothing is asked."""
    if not _is_about(rules):
        return ""
    cut = path.rfind(b"/")
    flags = O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    directory = raw_openat2(AT_FDCWD, path[:cut] or b"/", flags, RESOLVE_NO_SYMLINKS)
    if directory < 0:
        return "its directory cannot be looked at"
    try:
        if fd >= 0:
            status = os.fstat(fd)
            if not _is_in(directory, path[cut + 1 :], status):
                return "it is not in its directory any more"
            why = _flaw(rules, fd, status)
            if why:
                return f"it {why}"
        why = _flaw(rules, directory, os.fstat(directory))
        return why and f"its directory {why}"
    finally:
        os.close(directory)


def _is_in(directory: int, name: bytes, status: os.stat_result) -> bool:
    try:
        there = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino)


def _flaw(rules: Ruleset, fd: int, status: os.stat_result) -> str:
    if status.st_mode & _GROUP:
        return "can be written by its group"
    if status.st_mode & _OTHERS:
        return "can be written by others"
    if rules.option("tpe/root_owned") and status.st_uid:
        return "is not owned by root"
    if rules.option("tpe/user_owned") and status.st_uid not in (0, file_user()):
        return "is owned by another user"
    if rules.option("tpe/root_mount") and not same_mount(fd, b"/"):
        return "is not in the mount of /"
    return ""
