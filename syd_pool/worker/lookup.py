"""Where a path leads: safe resolution for the caller, in the caller's view (I5, I6).

    path --> fast: one openat2(NO_SYMLINKS) says that the text is the path
         \\-> walk: component by component; links are read here and spliced into the text, `..` pops it

The text that is built is always link-free, and the descriptor that is returned was opened by that whole text
with RESOLVE_NO_SYMLINKS.  So what is judged (the text) is what is held (the descriptor): a component that
was swapped in between makes openat2 fail with ELOOP, and the walk starts over a bounded number of times.

The caller's root is ours, because chroot, pivot_root, mount and unshare are refused to the command.
/proc/self and /proc/thread-self are textually the caller's.  Magic links (/proc/PID/fd/N, cwd, exe ...) are
followed by the kernel, only for the caller's own thread group; their text is read back from the
descriptor that was got, never from the link.

Sources: path_resolution(7), openat2(2), proc(5); fs/namei.c for errno and order.
"""

from __future__ import annotations

import os
from ctypes import addressof, create_string_buffer
from errno import EACCES, EAGAIN, EBADF, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR
from stat import S_ISDIR, S_ISLNK

from syd_pool.emulate.call import AT_FDCWD, EMPTY, FOLLOW, Found
from syd_pool.emulate.judge import judge_walk
from syd_pool.linux.libc import (
    O_PATH,
    PROC_SUPER_MAGIC,
    RESOLVE_BENEATH,
    RESOLVE_NO_SYMLINKS,
    fstatfs_type,
    raw_openat2,
    raw_readlinkat,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from syd_pool.emulate.call import Call

MOST_LINKS = 40  # MAXSYMLINKS, include/linux/namei.h
NAME_MAX = 255
MOST_RETRIES = 32  # of a walk whose components are being swapped, of an openat2 that says EAGAIN

_HOLD = O_PATH | os.O_CLOEXEC
_HOLD_LINK = _HOLD | os.O_NOFOLLOW
_target_buffer = create_string_buffer(4096)
_target = addressof(_target_buffer)


def find(call: Call, dirfd: int, path: bytes, flags: int) -> Found:
    """The object that `path` names.  Raises OSError as the kernel would, Gone.

    flags: FOLLOW a final symbolic link; EMPTY: an empty path is dirfd itself.
    """
    if path[:1] == b"/" and path[:5] != b"/proc" and _plain(path):
        slash = path[-1:] == b"/"
        fd = raw_openat2(AT_FDCWD, path, _HOLD if flags & FOLLOW or slash else _HOLD_LINK, RESOLVE_NO_SYMLINKS)
        if fd != -ELOOP and fd != -EAGAIN:
            text = path.rstrip(b"/") if slash else path
            if fd >= 0:
                call.keep(fd)
            if "walk" in call.rules.enabled:
                judge_walk(call, text[: text.rfind(b"/")])
            if fd < 0:
                _missing(call, fd, text)
            at = text.rfind(b"/")
            return Found(fd, -1, text[at + 1 :], text or b"/", 0, slash)
    return _find(call, dirfd, path, flags)


def entry(call: Call, dirfd: int, path: bytes, flags: int) -> Found:
    """The directory entry that `path` names; the object may be missing (fd -1), its directory is held.

    flags: FOLLOW a final symbolic link, even a dangling one (open with O_CREAT).
    """
    for _ in range(MOST_RETRIES):
        text, slash, magic = _resolve(call, dirfd, path, bool(flags & FOLLOW), missing_ok=True)
        if magic >= 0:
            return Found(magic, -1, b"", text, 0, slash)
        at = text.rfind(b"/")
        parent_text, name = text[:at] or b"/", text[at + 1 :]
        if not name or _ends_in_dots(path):
            fd = call.keep(_open(text or b"/", _HOLD | os.O_DIRECTORY))
            judge_walk(call, text)
            return Found(fd, -1, b"", text or b"/", 0, slash)
        parent = call.keep(_open(parent_text, _HOLD | os.O_DIRECTORY))
        fd = raw_openat2(parent, name, _HOLD_LINK, RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH)
        mode = 0
        if fd >= 0:
            call.keep(fd)
            if flags & FOLLOW:
                mode = os.fstat(fd).st_mode
                if S_ISLNK(mode):
                    continue  # swapped since it was resolved
        elif fd not in (-ENOENT, -EACCES, -ENAMETOOLONG):
            _raise(-fd, text)
        return Found(max(fd, -1), parent, name, _shown(call, text), mode, slash)
    _raise(ELOOP, path)


def _open(text: bytes, how: int) -> int:
    """A held directory by its link-free text.  Raises OSError."""
    fd = raw_openat2(AT_FDCWD, text, how, RESOLVE_NO_SYMLINKS)
    if fd < 0:
        _raise(-fd, text)
    return fd


# --- the walk ------------------------------------------------------------------------------------


def _find(call: Call, dirfd: int, path: bytes, flags: int) -> Found:
    if not path:
        return _dirfd_itself(call, dirfd, flags)
    slash = path[-1:] == b"/" or path[-2:] == b"/."
    quick = _quick(call, dirfd, path, flags, slash)
    if quick is not None:
        return quick
    for _ in range(MOST_RETRIES):
        text, slash, magic = _resolve(call, dirfd, path, bool(flags & FOLLOW), missing_ok=False)
        if magic >= 0:
            return Found(magic, -1, b"", text, 0, slash)
        how = _HOLD_LINK | os.O_DIRECTORY if slash else _HOLD_LINK
        fd = raw_openat2(AT_FDCWD, text or b"/", how, RESOLVE_NO_SYMLINKS)
        if fd in (-ELOOP, -EAGAIN):
            continue
        if fd < 0:
            _missing(call, fd, text)
        call.keep(fd)
        if slash or flags & FOLLOW:
            mode = os.fstat(fd).st_mode
            if S_ISLNK(mode):
                continue
        return Found(fd, -1, text[text.rfind(b"/") + 1 :], _shown(call, text) or b"/", 0, slash)
    _raise(ELOOP, path)


def _quick(call: Call, dirfd: int, path: bytes, flags: int, slash: bool) -> Found | None:
    """Relative paths and the caller's own /proc without a walk; None when only a walk can tell."""
    if not _plain(path):
        return None
    if path[:1] == b"/":
        text = _own_proc(call, path)
        if text is None:
            return None
        base, rest, resolve = AT_FDCWD, text, RESOLVE_NO_SYMLINKS
    else:
        base, start = _base(call, dirfd)
        if start[:5] == b"/proc":
            return None
        text, rest = (b"" if start == b"/" else start) + b"/" + path, path
        resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH
    fd = raw_openat2(base, rest, _HOLD if flags & FOLLOW or slash else _HOLD_LINK, resolve)
    if fd in (-ELOOP, -EAGAIN):
        return None
    text = text.rstrip(b"/")
    if fd >= 0:
        call.keep(fd)
    judge_walk(call, text[: text.rfind(b"/")])
    if fd < 0:
        _missing(call, fd, text)
    return Found(fd, -1, text[text.rfind(b"/") + 1 :], _shown(call, text), 0, slash)


def _own_proc(call: Call, path: bytes) -> bytes | None:
    """`path` below /proc with self and thread-self replaced, if it is below the caller's own entry."""
    parts = path.split(b"/", 3)
    if parts[1] != b"proc" or len(parts) < 3:
        return None
    if parts[2] == b"self":
        parts[2] = b"%d" % call.tgid
    elif parts[2] == b"thread-self":
        parts[2] = b"%d/task/%d" % (call.tgid, call.tid)
    elif parts[2].isdigit():
        if int(parts[2]) != call.tgid:
            return None
    else:
        return None
    return b"/".join(parts)


def _resolve(call: Call, dirfd: int, path: bytes, follow: bool, missing_ok: bool) -> tuple[bytes, bool, int]:
    """Walk `path`.  Returns (link-free text, whether it must be a directory, descriptor of a magic link's object).

    The text is b"" for the root; the descriptor is -1 unless the path ended in a magic link.
    """
    if not path:
        _raise(ENOENT, path)
    here = b""
    if path[:1] != b"/":
        _, start = _base(call, dirfd)
        here = b"" if start == b"/" else start
    todo = path.split(b"/")[::-1]
    links = 0
    slash = path[-1:] == b"/"
    while todo:
        name = todo.pop()
        if not name or name == b".":
            slash = not any(todo) or slash
            continue
        if name == b"..":
            here = _up(call, here)
            continue
        last = not any(part not in (b"", b".") for part in todo)
        trailing = last and bool(todo)
        slash = trailing
        if len(name) > NAME_MAX:
            _raise(ENAMETOOLONG, path)
        name = _for_caller(call, here, name)
        text = here + b"/" + name
        fd = raw_openat2(AT_FDCWD, text, _HOLD_LINK, RESOLVE_NO_SYMLINKS)
        if fd < 0:
            if fd == -ENOENT and last and missing_ok:
                judge_walk(call, here)
                return text, trailing, -1
            _missing(call, fd, text)
        try:
            mode = os.fstat(fd).st_mode
            if not S_ISLNK(mode):
                if not last and not S_ISDIR(mode):
                    _raise(ENOTDIR, text)
                here = text
                continue
            # the last component of a name to be made or removed is never followed, slash or not; "link/." is
            if last and not follow and (not trailing or (missing_ok and b"." not in todo)):
                here = text
                continue
            judge_walk(call, here)
            links += 1
            if links > MOST_LINKS:
                _raise(ELOOP, path)
            if fstatfs_type(fd) == PROC_SUPER_MAGIC and _is_magic(call, text):
                target, magic = _follow_magic(call, text)
                if last:
                    return _shown(call, target), trailing, magic
                here = _as_directory(target, magic)
                continue
            target = _read_link(fd)
        finally:
            os.close(fd)
        if target[:1] == b"/":
            here = b""
        todo += target.split(b"/")[::-1]
        if not target:
            _raise(ENOENT, text)
    judge_walk(call, here[: here.rfind(b"/")] if here else here)
    return here, slash, -1


def _up(call: Call, here: bytes) -> bytes:
    """`..` of a link-free directory; asked of the kernel too, which wants search permission (and a directory)."""
    judge_walk(call, here)
    fd = raw_openat2(AT_FDCWD, here + b"/..", _HOLD, RESOLVE_NO_SYMLINKS)
    if fd < 0:
        _missing(call, fd, here)
    os.close(fd)
    return here[: here.rfind(b"/")] if here else b""


def _for_caller(call: Call, here: bytes, name: bytes) -> bytes:
    """A name below /proc as the caller means it; our own processes are not there."""
    if here != b"/proc":
        return name
    if name == b"self":
        return b"%d" % call.tgid
    if name == b"thread-self":
        return b"%d/task/%d" % (call.tgid, call.tid)
    if name.isdigit() and int(name) in call.own_pids:
        judge_walk(call, here)
        _raise(ENOENT, here + b"/" + name)
    return name


def _is_magic(call: Call, text: bytes) -> bool:
    """Is this link of a procfs magic, and may the caller follow it?  Raises OSError EACCES if not (C3)."""
    parts = text.split(b"/")
    if parts[1] != b"proc":
        _raise(EACCES, text)  # another procfs: its /self would be ours, its processes are not told apart
    if len(parts) < 4 or not parts[2].isdigit():
        return False  # /proc/mounts and kin are ordinary links
    if not _own_task(call, int(parts[2])) and not call.rules.option("trace/allow_unsafe_magiclinks"):
        _raise(EACCES, text)
    return True


def _own_task(call: Call, pid: int) -> bool:
    return pid in (call.tgid, call.tid) or os.path.exists(b"/proc/%d/task/%d" % (call.tgid, pid))


def _follow_magic(call: Call, text: bytes) -> tuple[bytes, int]:
    """Have the kernel follow a magic link.  Returns the object's text, read from the descriptor, and it."""
    fd = raw_openat2(AT_FDCWD, text, _HOLD, 0)
    if fd < 0:
        _raise(-fd, text)
    call.keep(fd)
    call.valid()
    return text_of(fd), fd


def _as_directory(target: bytes, magic: int) -> bytes:
    """A magic link in the middle of a path: go on at its directory's text."""
    if not S_ISDIR(os.fstat(magic).st_mode):
        _raise(ENOTDIR, target)
    return _walkable(target)


def _walkable(text: bytes) -> bytes:
    """The text of a held directory, as the start of a walk.  Raises OSError if nothing can be named below it."""
    if text[:1] != b"/":
        _raise(EACCES, text)  # (unreachable)
    if text.endswith(b" (deleted)") and not os.path.exists(text):
        _raise(ENOENT, text)
    return b"" if text == b"/" else text


def text_of(fd: int) -> bytes:
    """What one of our descriptors is called: a path, `pipe:[1]`, `/tmp/x (deleted)`."""
    return os.readlink(b"/proc/self/fd/%d" % fd)


def _read_link(fd: int) -> bytes:
    n = raw_readlinkat(fd, b"", _target, 4096)
    if n < 0:
        _raise(-n, None)
    return _target_buffer[:n]


# --- where it starts -----------------------------------------------------------------------------


def _base(call: Call, dirfd: int) -> tuple[int, bytes]:
    """The directory a relative path starts at: a kept descriptor and its text.  Raises OSError."""
    if dirfd == AT_FDCWD:
        link = b"/proc/%d/cwd" % call.tid
    elif dirfd < 0:
        _raise(EBADF, None)
    else:
        link = b"/proc/%d/fd/%d" % (call.tid, dirfd)
    fd = raw_openat2(AT_FDCWD, link, _HOLD, 0)
    if fd < 0:
        call.valid()
        _raise(EBADF if fd == -ENOENT and dirfd >= 0 else -fd, link)
    call.keep(fd)
    call.valid()
    if dirfd >= 0 and not S_ISDIR(os.fstat(fd).st_mode):
        _raise(ENOTDIR, None)
    text = text_of(fd)
    return fd, _walkable(text) or b"/"


def _dirfd_itself(call: Call, dirfd: int, flags: int) -> Found:
    """AT_EMPTY_PATH: the object that dirfd refers to, whatever its type."""
    if not flags & EMPTY:
        _raise(ENOENT, b"")
    if dirfd == AT_FDCWD:
        fd, text = _base(call, dirfd)
    elif dirfd < 0:
        _raise(EBADF, None)
    else:
        fd = call.own_fd(dirfd)
        text = text_of(fd)
    return Found(fd, -1, b"", _shown(call, text))


# --- texts and errors ----------------------------------------------------------------------------


def _plain(path: bytes) -> bool:
    """No `..`, nothing to collapse and no name too long to be one: the text stands for itself."""
    return b"//" not in path and b"/." not in path and path[:1] != b"." or _only_hidden(path)


def _only_hidden(path: bytes) -> bool:
    """The dots of `path` begin names (.git) and are no `.` or `..`; no empty component."""
    parts = path.rstrip(b"/").split(b"/")
    return b"." not in parts and b".." not in parts and b"" not in parts[1:]


def _ends_in_dots(path: bytes) -> bool:
    return path.rstrip(b"/").rsplit(b"/", 1)[-1] in (b".", b"..")


def _shown(call: Call, text: bytes) -> bytes:
    """The text for the rules: the caller's own /proc/TGID is /proc/self."""
    if text[:6] == b"/proc/":
        own = b"/proc/%d" % call.tgid
        if text.startswith(own) and text[len(own) : len(own) + 1] in (b"", b"/"):
            return b"/proc/self" + text[len(own) :]
    return text


def _missing(call: Call, result: int, text: bytes) -> NoReturn:
    """An error on the way: what a hidden directory would tell is judged first."""
    judge_walk(call, text[: text.rfind(b"/")])
    if result == -EINVAL:
        result = -ENOENT
    _raise(-result, text)


def _raise(errno: int, path: bytes | None) -> NoReturn:
    raise OSError(errno, os.strerror(errno), path)
