"""Safe lookup: from what the caller wrote to an object we hold and the text the rules judge.

    plain path ---- openat2(O_PATH, NO_SYMLINKS) ----------------------------> held object, text = path
    any other  ---- split into names, then again and again:
                      leading ".."            step up from the anchor
                      "a/b/.."                b must be a directory without a link on the way: drop both
                      openat2(NO_SYMLINKS)    succeeds: done
                                              ELOOP: put the target of the first link in its place

Guarantees
- What is returned is held, and was opened under exactly the text that is returned, without following one
  symbolic link (or, through a link of /proc that is the caller's own, under the kernel's name for it).
  How that text came about need not be trusted: whoever swaps names while we read links only chooses
  another text, and it is the one that is judged (C1, C2).
- /proc/self, /proc/thread-self and the links of /proc/PID mean the caller's (I6, C3).  Links of other
  processes are EACCES, our own processes do not exist.
- Errors are the kernel's own, found on the way; a place that the rules hide is ENOENT whatever it is (C7).
- `walk` is judged for every directory on the way, also of the ways that links took.
- Nothing of the caller changes hands here, so ID_VALID is asked by the handlers: before they write into the
  caller, judge it by force or begin an effect.

The anchor is a descriptor of the caller (its working directory, a dirfd, the target of one of its links)
or the root, which the worker shares with the caller: chroot, mount and unshare are refused to commands.
"""

from __future__ import annotations

import os
from errno import ELOOP, ENOENT

from syd_pool.emulate.call import AT_FDCWD, DOTLESS, EMPTY, FOLLOW, UNOPENED, Found
from syd_pool.emulate.paths import HOW_DIRECTORY, HOW_FOLLOW, HOW_LINK, RESOLVE_SHIFT, in_proc, plain, shown, simple
from syd_pool.linux.libc import raw_openat2_how
from syd_pool.worker.scoped import entry_within, find_within
from syd_pool.worker.walk import Walk, anchor, judge_way, start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call


def find(call: Call, dirfd: int, path: bytes, flags: int) -> Found:
    """The object that `path` leads the caller to.  Raises OSError as the kernel would."""
    if path and flags <= FOLLOW and not call.rules.resolve:
        if plain[path]:
            at, text = AT_FDCWD, path
        elif simple[path]:
            at, base = anchor(call, dirfd)
            text = base + b"/" + path if base != b"/" else b"/" + path
        else:
            found = _own_proc(call, path, flags) if path.startswith(_SELF) else None
            return found or Walk(call, *start(call, dirfd, path), path).find(flags)
        if at == AT_FDCWD or in_proc(text) is None:
            fd = raw_openat2_how(at, path, HOW_FOLLOW if flags else HOW_LINK)
            if fd >= 0:
                cut = text.rfind(b"/")
                call.keep(fd)
                if "walk" in call.rules.enabled:
                    judge_way(call, text[:cut])
                return Found(fd, -1, text[cut + 1 :], text)
            if fd != -ELOOP:
                Walk(call, AT_FDCWD, b"", text).refuse(-fd)
            plain.learn(path, False)
        return Walk(call, at, b"" if at == AT_FDCWD else base, path).find(flags)
    if not path:
        return _empty(call, dirfd, flags)
    if flags >> RESOLVE_SHIFT:
        return find_within(call, dirfd, path, flags & (FOLLOW | DOTLESS), flags >> RESOLVE_SHIFT)
    if call.rules.resolve or flags & DOTLESS:
        return Walk(call, *start(call, dirfd, path), path, flags).find(flags & FOLLOW)
    return find(call, dirfd, path, flags & FOLLOW)


_SELF = b"/proc/self/"


def _own_proc(call: Call, path: bytes, follow: int) -> Found | None:
    """A name below /proc/self that has no link on its way, by far the most frequent of those; else None.

    A link at the end is held without FOLLOW.  The handlers ask valid() before they use what is held.
    """
    rest = path[len(_SELF) :]
    if not simple[rest] or in_proc(path) != path[5:]:
        return None
    fd = raw_openat2_how(AT_FDCWD, b"/proc/%d/%b" % (call.tgid, rest), HOW_FOLLOW if follow else HOW_LINK)
    if fd < 0:
        return None
    call.keep(fd)
    cut = path.rfind(b"/")
    judge_way(call, path[:cut])
    return Found(fd, -1, path[cut + 1 :], path)


def entry(call: Call, dirfd: int, path: bytes, flags: int) -> Found:
    """The directory that `path` names an entry of, held, and the object if there is one.

    Raises OSError as the kernel would.  That the last component cannot be opened is no error: it is
    missing, and if it is more than that (too long a name, no search permission), the kernel tells who
    uses the name.  With UNOPENED nobody may have tried.
    """
    if not path:
        raise OSError(ENOENT, os.strerror(ENOENT))
    if flags >> RESOLVE_SHIFT:
        return entry_within(call, dirfd, path, flags & (FOLLOW | DOTLESS), flags >> RESOLVE_SHIFT)
    if plain[path] and not call.rules.resolve:
        cut = path.rfind(b"/")
        name = path[cut + 1 :]
        parent = raw_openat2_how(AT_FDCWD, path[:cut] or b"/", HOW_DIRECTORY)
        if parent >= 0:
            call.keep(parent)
            if flags & UNOPENED:
                judge_way(call, path[:cut])
                return Found(-1, parent, name, path)
            fd = raw_openat2_how(parent, name, HOW_FOLLOW if flags else HOW_LINK)
            if fd != -ELOOP:
                judge_way(call, path[:cut])
                return Found(call.keep(fd) if fd >= 0 else -1, parent, name, path)
        elif parent != -ELOOP:
            Walk(call, AT_FDCWD, b"", path).refuse(-parent)
        plain.learn(path, False)
    return Walk(call, *start(call, dirfd, path), path, flags).entry(flags & FOLLOW)


def _empty(call: Call, dirfd: int, flags: int) -> Found:
    """An empty path: with EMPTY what the caller holds as dirfd."""
    if not flags & EMPTY:
        raise OSError(ENOENT, os.strerror(ENOENT))
    fd, text = anchor(call, dirfd)
    return Found(fd, -1, b"", shown(text, call.tgid))
