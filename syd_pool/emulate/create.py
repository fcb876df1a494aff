"""New files: the halves of open(2) that make one.

A new file is made in the directory that is held, with O_EXCL: either it is new, as it was judged, or the
caller's open starts over with what has come to be there.
"""

from __future__ import annotations

import os

from syd_pool.emulate.held import forced_mode
from syd_pool.emulate.judge import act
from syd_pool.emulate.kept import check_open, is_kept
from syd_pool.linux.libc import AT_FDCWD, O_LARGEFILE, RESOLVE_NO_SYMLINKS, fstatfs_type, raw_openat2, wear_umask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call, Found

_ACCMODE = 3
# access mode -> what a new file is judged by; 3 is for ioctl(2) only, which reads and writes
_ASKED = (("create", "read"), ("create", "write"), ("create", "read", "write"), ("create", "read", "write"))
_CREAT, _EXCL, _NOCTTY = os.O_CREAT, os.O_EXCL, os.O_NOCTTY


def judge_new(call: Call, at: Found, flags: int) -> None:
    """May the file that entry() did not find be made?  Raises OSError when the rules refuse."""
    verdicts = call.rules.verdicts
    path = at.path
    for category in _ASKED[flags & _ACCMODE]:
        if verdicts[category][path]:
            call.judge(category, path)
    if "fs" in call.rules.enabled:
        judge_filesystem(call, at.parent, path)
    if call.rules.kept:
        check_open(call, path, flags)


def create(call: Call, at: Found, flags: int, mode: int) -> int | None:
    """Make the file that judge_new() allows.  -EEXIST: it is there by now."""
    return _make(call, at.parent, at.name, _new(flags), mode)


def may_create_at_once(call: Call, path: bytes, flags: int) -> bool:
    """Is there nothing in the rules that could refuse to make the plain `path`?"""
    rules = call.rules
    verdicts = rules.verdicts
    if verdicts["stat"][path] or "fs" in rules.enabled or rules.resolve or (rules.kept and is_kept(call, path)):
        return False
    for category in _ASKED[flags & _ACCMODE]:
        if verdicts[category][path]:
            return False
    return "walk" not in rules.enabled or not rules.walk[path[: path.rfind(b"/")] or b"/"]


def create_at_once(call: Call, path: bytes, flags: int, mode: int) -> int | None:
    """Make what may_create_at_once() allows.

    Any -errno means that nothing was made, but EINVAL with O_DIRECT; which one the caller should see is for create()
    to find out.
    """
    return _make(call, AT_FDCWD, path, _new(flags), mode)


def create_nameless(call: Call, directory: int, flags: int, mode: int) -> int | None:
    """O_TMPFILE: a file without a name; O_EXCL keeps it from ever getting one."""
    return _make(call, directory, b".", flags, mode)


def judge_filesystem(call: Call, held: int, path: bytes) -> None:
    """Judge `fs` by the file system of what is held."""
    action = call.rules.filesystem[fstatfs_type(held)]
    if action:
        act(call, "fs", path, action)


def _new(flags: int) -> int:
    """The flags for a file that must not be there yet; O_EXCL follows no link."""
    return flags & ~os.O_NOFOLLOW | _CREAT | _EXCL


def _make(call: Call, directory: int, path: bytes, how: int, mode: int) -> int | None:
    """Under the caller's umask itself: a default ACL of the directory takes its place (acl(5)).

    A plain path that opens with RESOLVE_NO_SYMLINKS is the real path (I5), and so is a name in a held directory.
    """
    mask = call.umask_with_room()
    call.begin_effect()
    wear_umask(mask)
    opened = how | _NOCTTY | os.O_CLOEXEC | O_LARGEFILE
    fd = raw_openat2(directory, path, opened, RESOLVE_NO_SYMLINKS, forced_mode(call, mode) & 0o7777)
    if fd < 0:
        return fd
    call.install(fd, how & (os.O_CLOEXEC | _ACCMODE))
    return None
