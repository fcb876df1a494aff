"""New files: the halves of open(2) that make one.

A new file is made in the directory that is held, with O_EXCL: either it is new, as it was judged, or the
caller's open starts over with what has come to be there.
"""

from __future__ import annotations

import os

from syd_pool.emulate.held import forced_mode
from syd_pool.emulate.judge import act
from syd_pool.linux.libc import AT_FDCWD, O_LARGEFILE, RESOLVE_NO_SYMLINKS, fstatfs_type, raw_openat, raw_openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call, Found

_ACCMODE, _WRONLY = 3, 1
_CREAT, _EXCL, _NOCTTY = os.O_CREAT, os.O_EXCL, os.O_NOCTTY


def create(call: Call, at: Found, flags: int, mode: int) -> int | None:
    """Make the file that entry() did not find.  -EEXIST: it is there by now."""
    verdicts = call.rules.verdicts
    path = at.path
    access = flags & _ACCMODE
    if verdicts["create"][path]:
        call.judge("create", path)
    if access != _WRONLY and verdicts["read"][path]:
        call.judge("read", path)
    if access and verdicts["write"][path]:
        call.judge("write", path)
    if "fs" in call.rules.enabled:
        judge_filesystem(call, at.parent, path)
    how = flags & ~os.O_NOFOLLOW | _CREAT | _EXCL  # O_EXCL follows no link
    return _make(call, at.parent, at.name, how, mode)


def may_create_at_once(call: Call, path: bytes, flags: int) -> bool:
    """Is there nothing in the rules that could refuse to make the plain `path`?"""
    rules = call.rules
    verdicts = rules.verdicts
    access = flags & _ACCMODE
    if verdicts["stat"][path] or verdicts["create"][path] or "fs" in rules.enabled:
        return False
    if (access != _WRONLY and verdicts["read"][path]) or (access and verdicts["write"][path]):
        return False
    return "walk" not in rules.enabled or not rules.walk[path[: path.rfind(b"/")] or b"/"]


def create_at_once(call: Call, path: bytes, flags: int, mode: int) -> int | None:
    """Make what may_create_at_once() allows: a plain path that opens with RESOLVE_NO_SYMLINKS is the real path (I5).

    Any -errno means that nothing was made; which one the caller should see is for create() to find out.
    """
    mask = call.umask_with_room()
    call.begin_effect()
    os.umask(mask)
    how = flags & ~os.O_NOFOLLOW | _CREAT | _EXCL | _NOCTTY | os.O_CLOEXEC | O_LARGEFILE
    fd = raw_openat2(AT_FDCWD, path, how, RESOLVE_NO_SYMLINKS, forced_mode(call, mode) & 0o7777)
    os.umask(0)
    if fd < 0:
        return fd
    call.install(fd, flags & (os.O_CLOEXEC | _ACCMODE))
    return None


def create_nameless(call: Call, directory: int, flags: int, mode: int) -> int | None:
    """O_TMPFILE: a file without a name; O_EXCL keeps it from ever getting one."""
    return _make(call, directory, b".", flags, mode)


def judge_filesystem(call: Call, held: int, path: bytes) -> None:
    """Judge `fs` by the file system of what is held."""
    action = call.rules.filesystem[fstatfs_type(held)]
    if action:
        act(call, "fs", path, action)


def _make(call: Call, directory: int, name: bytes, how: int, mode: int) -> int | None:
    """Under the caller's umask itself: a default ACL of the directory takes its place (acl(5))."""
    mask = call.umask_with_room()
    call.begin_effect()
    os.umask(mask)
    fd = raw_openat(directory, name, how | _NOCTTY | os.O_CLOEXEC, forced_mode(call, mode) & 0o7777)
    os.umask(0)
    if fd < 0:
        return fd
    call.install(fd, how & (os.O_CLOEXEC | _ACCMODE))
    return None
