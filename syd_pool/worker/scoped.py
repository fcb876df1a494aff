"""find() and entry() under the RESOLVE_ flags of openat2(2), which the kernel applies.

The kernel walks with our own /proc/self, not the caller's.  So what it finds below our /proc/PID, and the
magic links it stops at, are looked up again by our walk; such links leave any scope in any case
(nd_jump_link of fs/namei.c: EXDEV).
"""

from __future__ import annotations

import os
from ctypes import addressof, create_string_buffer, string_at
from errno import EACCES, EILSEQ, EINVAL, ELOOP, ENOENT, EXDEV

from syd_pool.emulate.call import AS_KERNEL, AT_FDCWD, DOTLESS, FOLLOW, Found
from syd_pool.emulate.filenames import safe
from syd_pool.emulate.paths import O_NOFOLLOW, in_proc, pid_in, shown, text_of
from syd_pool.emulate.sticky import is_shared, target_of_last
from syd_pool.linux.libc import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    raw_readlinkat,
)
from syd_pool.policy.forced import FILENAME, SYMLINKS
from syd_pool.worker.walk import (
    DOT,
    MOST_LINKS,
    NAME,
    PATH_MAX,
    Walk,
    above,
    anchor,
    check_pid,
    is_refused_link,
    judge_way,
    named,
    open_path,
    split,
    start,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from syd_pool.emulate.call import Call

_SCOPED = RESOLVE_BENEATH | RESOLVE_IN_ROOT

_target_buffer = create_string_buffer(PATH_MAX)
_target = addressof(_target_buffer)


def find_within(call: Call, dirfd: int, path: bytes, follow: int, resolve: int) -> Found:
    """find() under the caller's RESOLVE_ flags.  EAGAIN is tried again a few times, then the caller's, as natively."""
    resolve |= call.rules.resolve
    dotless, follow = follow & DOTLESS, follow & FOLLOW
    at = AT_FDCWD if path[:1] == b"/" and not resolve & _SCOPED else anchor(call, dirfd)[0]
    last = 0 if follow else O_NOFOLLOW
    careful = 0 if call.rules.lifted & SYMLINKS else RESOLVE_NO_SYMLINKS
    fd = open_path(at, path, last, resolve | RESOLVE_NO_MAGICLINKS | _straight(path, dotless) | careful)
    if fd == -ELOOP and careful and not dotless and not resolve & RESOLVE_NO_SYMLINKS:
        fd = open_path(at, path, last, resolve | RESOLVE_NO_MAGICLINKS)
        if fd >= 0:
            _check_links(call, call.keep(fd), dirfd, path, follow, resolve)
            return _of_caller(call, fd, follow, path.endswith(b"/"))
    if fd >= 0:
        return _of_caller(call, call.keep(fd), follow, path.endswith(b"/"))
    if fd != -ELOOP or resolve & (RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS):
        _fail(call, at, path, -fd)
    if dotless:
        raise OSError(EACCES, os.strerror(EACCES), path)
    found = Walk(call, *start(call, dirfd, path), path).find(follow)
    if resolve & (_SCOPED | RESOLVE_NO_XDEV):
        _fail(call, at, path, EXDEV)
    return found


def _check_links(call: Call, fd: int, dirfd: int, path: bytes, follow: int, resolve: int) -> None:
    """The kernel has followed links: our walk must come to the same, and it follows none in a shared directory.

    Raises OSError ELOOP; so does what only means something in a root of its own (RESOLVE_IN_ROOT).
    """
    if resolve & RESOLVE_IN_ROOT:
        path = path.lstrip(b"/") or b"."
    try:
        found = Walk(call, *start(call, dirfd, path), path).find(follow)
    except OSError as error:
        raise OSError(ELOOP, os.strerror(ELOOP), path) from error
    if not os.path.samestat(os.fstat(found.fd), os.fstat(fd)):
        own = in_proc(named(fd, b"/proc/self/fd"))  # the kernel's /proc/self is ours: looked up again in any case
        if own is None or pid_in(own) != os.getpid():
            raise OSError(ELOOP, os.strerror(ELOOP), path)


def _straight(path: bytes, dotless: int) -> int:
    """What the kernel is told where ".." is refused: its links could have one, so none is followed."""
    if not dotless:
        return 0
    if b".." in path.split(b"/"):
        raise OSError(EACCES, os.strerror(EACCES), path)
    return RESOLVE_NO_SYMLINKS


def _of_caller(call: Call, fd: int, follow: int, slash: bool) -> Found:
    """What the kernel found, or the caller's own where it found ours: it went through /proc/self."""
    text = named(fd, b"/proc/self/fd")
    inside = in_proc(text)
    if inside is not None and pid_in(inside) == os.getpid():
        own = inside.split(b"/")
        own[1] = b"%d" % call.tgid
        if own[2:4] == [b"task", b"%d" % os.getpid()]:
            own[3] = b"%d" % call.tid
        return Walk(call, AT_FDCWD, b"", b"/proc" + b"/".join(own), AS_KERNEL).find(follow)
    if inside is not None:
        check_pid(call, inside)
    judge_way(call, above(text))
    if not safe[text[text.rfind(b"/") + 1 :]] and text != b"/" and not call.rules.lifted & FILENAME:
        raise OSError(EILSEQ, os.strerror(EILSEQ), text)
    if call.rules.resolve and is_refused_link(fd, text, call.rules.resolve):
        raise OSError(ELOOP, os.strerror(ELOOP), text)
    return Found(fd, -1, b"", shown(text, call.tgid), 0, slash)


def _fail(call: Call, at: int, path: bytes, errno: int) -> NoReturn:
    """As Walk.refuse(), for a path whose text is only known as far as it was written."""
    if b".." not in path:
        base = b"" if at == AT_FDCWD else text_of(at)
        text = shown(base.rstrip(b"/") + b"/" + path.strip(b"/"), call.tgid)
        if call.rules.verdicts["stat"][text]:
            call.judge("stat", text)
    raise OSError(errno, os.strerror(errno), path)


def entry_within(call: Call, dirfd: int, path: bytes, follow: int, resolve: int) -> Found:
    """entry() under the caller's RESOLVE_ flags: the directory, then the name in it, then where a link leads."""
    resolve |= call.rules.resolve
    relative = path[:1] != b"/"
    for _ in range(MOST_LINKS + 1):
        names, end = split(path)
        if not names or end >= DOT:
            return find_within(call, dirfd, path, follow, resolve)
        straight = _straight(path, follow & DOTLESS)
        head, slash, name = path.rstrip(b"/").rpartition(b"/")
        parent = find_within(call, dirfd, head or slash or b".", follow | FOLLOW, resolve)
        if in_proc(parent.path) is not None and end == NAME:
            return find_within(call, dirfd, path, follow, resolve)
        size = raw_readlinkat(parent.fd, name, _target, PATH_MAX) if follow & FOLLOW and end == NAME else -EINVAL
        if size < 0:
            fd = open_path(parent.fd, name, O_NOFOLLOW, resolve & RESOLVE_NO_XDEV)
            if fd < 0 and fd != -ENOENT:
                _fail(call, parent.fd, name, -fd)
            text = parent.path.rstrip(b"/") + b"/" + name
            if not safe[name] and not call.rules.lifted & FILENAME:
                _fail(call, parent.fd, name, EILSEQ)
            if fd >= 0:
                call.keep(fd)
                if call.rules.resolve and is_refused_link(fd, text, call.rules.resolve):
                    _fail(call, parent.fd, name, ELOOP)
            return Found(max(fd, -1), parent.fd, name, text, 0, end != NAME)
        if straight or (not call.rules.lifted & SYMLINKS and is_shared(os.fstat(parent.fd))):
            errno = EACCES if straight else ELOOP
            raise OSError(errno, os.strerror(errno), path)
        if resolve & RESOLVE_NO_SYMLINKS:
            break
        target = target_of_last(parent.fd, b".", name, string_at(_target, size))
        if target[:1] != b"/":
            path = head + slash + target
        elif resolve & RESOLVE_NO_XDEV and (relative or os.fstat(parent.fd).st_dev != os.stat("/").st_dev):
            # nd_jump_root() compares with a root that it does not know yet when the path is a relative one
            _fail(call, parent.fd, name, EXDEV)
        else:
            path = target
    return _fail(call, parent.fd, name, ELOOP)
