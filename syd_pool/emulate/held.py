"""What the calls that act on an object that exists have in common.

The object is held by an O_PATH descriptor, and the call is made on that: whatever the path means by now,
it is the judged object that is looked at or changed (I5).
"""

from __future__ import annotations

import os
from errno import EBADF, ENOENT
from fcntl import F_GETFL, fcntl
from stat import S_ISLNK

from syd_pool.emulate.call import AT_FDCWD
from syd_pool.emulate.kept import protect
from syd_pool.emulate.paths import shown, text_of
from syd_pool.linux.libc import O_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call


def forced_mode(call: Call, mode: int) -> int:
    """The mode of a regular file, without what trace/force_umask takes from it."""
    mask = call.rules.option("trace/force_umask")
    return mode & ~mask if isinstance(mask, int) and mask >= 0 else mode


def judge_change(call: Call, path: bytes, *categories: str) -> None:
    """As judge_object(), for what changes it: not if it is masked or append-only.  Raises OSError."""
    judge_object(call, path, *categories)
    if call.rules.kept:
        protect(call, path)


def judge_object(call: Call, path: bytes, *categories: str) -> None:
    """May the categories be used on what exists at `path`?  Hidden comes first and is ENOENT (C7).

    Raises OSError when the rules refuse.
    """
    verdicts = call.rules.verdicts
    if verdicts["stat"][path]:
        call.judge("stat", path)
    for category in categories:
        if verdicts[category][path]:
            call.judge(category, path)


def own_path(fd: int) -> bytes:
    """A path of ours that leads to what we hold as `fd`, for calls that take no O_PATH descriptor."""
    return b"/proc/self/fd/%d" % fd


def opened_fd(call: Call, fd: int) -> int:
    """A duplicate of the caller's descriptor `fd`.  Raises OSError EBADF, for an O_PATH descriptor too."""
    own = call.own_fd(fd)
    if fcntl(own, F_GETFL) & O_PATH:
        raise OSError(EBADF, os.strerror(EBADF))
    return own


def judged_fd(call: Call, fd: int, *categories: str, changes: bool = True) -> int:
    """As opened_fd(), judged by the path of what is open: to have opened it for reading is no leave to change it.

    What has no name (a pipe, a memfd, a file that was removed) is nothing that a rule could be about.
    changes: the call changes the object, which must be neither masked nor append-only
    """
    own = opened_fd(call, fd)
    if os.fstat(own).st_nlink:
        text = shown(text_of(own), call.tgid)
        for category in categories if text[:1] == b"/" else ():
            if call.rules.verdicts[category][text]:
                call.judge(category, text)
        if changes and call.rules.kept:
            protect(call, text)
    return own


def reach(call: Call, path: bytes, follow: int) -> tuple[bytes, bytes, bool]:
    """Where `path` leads, for calls that take a path only: (text for the rules, path of ours, is it a link).

    Nothing leads to a symbolic link itself but its name, so it is named in the directory that is held, and
    the call must not follow it.  Whoever puts something else there gets it judged under this very name, and
    a link in its place is not followed either.
    """
    found = call.find(call, AT_FDCWD, path, follow)
    if follow or not S_ISLNK(os.fstat(found.fd).st_mode):
        return found.path, own_path(found.fd), False
    found = call.entry(call, AT_FDCWD, path, 0)
    if found.fd < 0:
        raise OSError(ENOENT, os.strerror(ENOENT), path)
    if not found.name:
        return found.path, own_path(found.fd), False
    return found.path, own_path(found.parent) + b"/" + found.name, True
