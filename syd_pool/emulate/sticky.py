"""fs.protected_symlinks, protected_regular and protected_fifos (proc_sys_fs(5)) for what a worker does itself.

The kernel guards directories that everybody may write to, such as /tmp: a link there is only followed for its owner,
and what somebody else has put there is not opened with O_CREAT.  It does so where it follows the link and where it
sees O_CREAT; a worker reads links by itself and opens what exists without O_CREAT, so the two questions are asked
here, as may_follow_link() and may_create_in_sticky() of fs/namei.c ask them.  Hard links are made by the kernel,
which asks its own question (may_linkat()) about a worker that has the caller's identity.

syd asks for more, unless trace/allow_unsafe_symlinks and trace/allow_unsafe_create are set: is_shared() about every
link on the way, is_own_and_closed() about every file or FIFO that exists; then the kernel's questions are answered too.
"""

from __future__ import annotations

import os
from errno import EACCES
from stat import S_ISFIFO, S_ISREG

from syd_pool.linux.libc import RESOLVE_NO_SYMLINKS, raw_openat2, syscall
from syd_pool.linux.proc import whole

_STICKY, _WORLD, _GROUP = 0o1000, 0o002, 0o020


def is_shared(directory: os.stat_result) -> bool:
    """Is it a directory in which others may put links (syd(7), Trusted Symbolic Links)?"""
    return bool(directory.st_mode & (_STICKY | _WORLD | _GROUP))


def is_own_and_closed(found: os.stat_result) -> bool:
    """Is it the caller's and written by nobody else (syd(7), Trusted File Creation)?"""
    return not found.st_mode & (_WORLD | _GROUP) and found.st_uid == file_user()


def setting(name: str) -> int:
    """The value of fs.protected_NAME; 0 where the kernel has none."""
    try:
        return int(whole(f"/proc/sys/fs/protected_{name}"))
    except OSError:
        return 0


def file_user() -> int:
    """The user as whom this thread acts on files, setfsuid(2)."""
    return syscall("setfsuid", -1)


def file_group() -> int:
    """The group as which this thread acts on files, setfsgid(2)."""
    return syscall("setfsgid", -1)


def target_of_last(at: int, directory: bytes, link: bytes, target: bytes) -> bytes:
    """`target`, what the link says that a path ends in, if it may be followed.  Raises OSError EACCES.

    at, directory, link: where it is; `link` by a path that has no link on the way.
    """
    status = os.stat(directory, dir_fd=at, follow_symlinks=False)
    if status.st_mode & (_STICKY | _WORLD) != _STICKY | _WORLD or not setting("symlinks"):
        return target
    fd = raw_openat2(at, link, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, RESOLVE_NO_SYMLINKS)
    if fd < 0:  # gone, or a directory on the way has changed: the walk goes on and sees
        return target
    try:
        owner = os.fstat(fd).st_uid  # of the link that is read, whatever is there by now
        if owner not in (file_user(), status.st_uid):
            raise OSError(EACCES, os.strerror(EACCES), link)
        return os.readlink(b"", dir_fd=fd)
    finally:
        os.close(fd)


def may_open_to_create(found: os.stat_result, path: bytes) -> bool:
    """May what exists as `path`, a link-free text, be opened with O_CREAT?"""
    if found.st_uid == file_user():
        return True
    directory = os.stat(path[: path.rfind(b"/")] or b"/", follow_symlinks=False)
    mode = directory.st_mode
    if not mode & _STICKY or found.st_uid == directory.st_uid:
        return True
    kind = "regular" if S_ISREG(found.st_mode) else "fifos" if S_ISFIFO(found.st_mode) else ""
    level = setting(kind) if kind else 1
    return not (level and mode & _WORLD) and not (kind and level >= 2 and mode & _GROUP)
