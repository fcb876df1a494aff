"""The walk: a path that is not plain, taken apart and opened without following one link.

lookup.py says what this guarantees and why.
"""

from __future__ import annotations

import os
from ctypes import addressof, create_string_buffer, string_at
from errno import EACCES, EAGAIN, EBADF, EILSEQ, EINVAL, ELOOP, ENOENT, ENOTDIR, EXDEV
from stat import S_ISLNK

from syd_pool.emulate.call import AS_KERNEL, AT_FDCWD, DOTLESS, Found
from syd_pool.emulate.filenames import safe
from syd_pool.emulate.judge import judge_walk
from syd_pool.emulate.mounts import same_mount
from syd_pool.emulate.paths import (
    HOW_FOLLOW,
    HOW_LINK,
    O_CLOEXEC,
    O_DIRECTORY,
    O_NOFOLLOW,
    O_PATH,
    in_proc,
    is_own,
    pid_in,
    shown,
    text_of,
)
from syd_pool.emulate.sticky import is_shared, target_of_last
from syd_pool.linux.libc import (
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    raw_openat2,
    raw_openat2_how,
    raw_readlinkat,
)
from syd_pool.policy.forced import FILENAME, SYMLINKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from syd_pool.emulate.call import Call

MOST_LINKS = 40  # MAXSYMLINKS of the kernel
MOST_TRIES = 32  # of an openat2 that says EAGAIN because names move under it (C4)
PATH_MAX = 4096
_LONGEST_TEXT = 4000  # of what is opened at once; longer only after links were put in

# how a path ends: in a name; in a name and a slash; in "." or it is "/" (the place itself, to be searched);
# in ".." (the place itself)
NAME, SLASH, DOT, UP = 0, 1, 2, 3

_target_buffer = create_string_buffer(PATH_MAX)
_target = addressof(_target_buffer)

_NO_LINKS = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_SELVES = (b"/self", b"/thread-self")  # links of procfs that no option refuses: they mean the caller


def judge_way(call: Call, directory: bytes) -> None:
    """Judge `walk` for a directory and all above it."""
    if "walk" in call.rules.enabled and directory:
        judge_walk(call, directory)


def above(text: bytes) -> bytes:
    """The directory part of a link-free path; b"" for the root."""
    return text[: text.rfind(b"/")]


# --- what belongs to the caller ---------------------------------------------------------------------


def anchor(call: Call, dirfd: int) -> tuple[int, bytes]:
    """Where a relative path of the caller starts: (held O_PATH descriptor, its link-free text).

    A thread may have a descriptor table and a working directory of its own, so its tid is asked.
    """
    if dirfd == AT_FDCWD:
        link = b"/proc/%d/cwd" % call.tid
    elif dirfd < 0:
        raise OSError(EBADF, os.strerror(EBADF))
    elif call.cred_gen:
        # Its /proc/TID/fd is root's since it changed its ids, and we act with the new ones: ask for the descriptor.
        fd = call.own_fd(dirfd)
        return fd, named(fd, b"/proc/%d/fd" % call.tgid)
    else:
        link = b"/proc/%d/fd/%d" % (call.tid, dirfd)
    fd = raw_openat2(AT_FDCWD, link, O_PATH | O_CLOEXEC, 0)
    if fd < 0:
        call.valid()
        errno = EBADF if fd == -ENOENT and dirfd >= 0 else -fd
        raise OSError(errno, os.strerror(errno), link)
    return call.keep(fd), named(fd, b"/proc/%d/fd" % call.tgid)


def open_path(at: int, path: bytes, flags: int, resolve: int) -> int:
    """openat2(2) with O_PATH: a descriptor or -errno.

    EAGAIN means that a name anywhere was moved meanwhile, and ".." might have left the scope: it is tried again, and
    given up in the end, as by the kernel (openat2(2)).
    """
    fd = -EAGAIN
    for _ in range(MOST_TRIES):
        fd = raw_openat2(at, path, O_PATH | O_CLOEXEC | flags, resolve)
        if fd != -EAGAIN:
            break
    return fd


def start(call: Call, dirfd: int, path: bytes) -> tuple[int, bytes]:
    """The anchor of any path: AT_FDCWD and b"" for an absolute one."""
    return (AT_FDCWD, b"") if path[:1] == b"/" else anchor(call, dirfd)


def named(fd: int, beside: bytes) -> bytes:
    """Text of what we hold; what has no path ("pipe:[1]") is shown `beside` the link that led there."""
    text = text_of(fd)
    if text[:1] == b"/":
        return text
    if text[:1] == b"(":  # "(unreachable)": outside of the root
        raise OSError(EACCES, os.strerror(EACCES), text)
    return beside + b"/" + text


def is_refused_link(fd: int, text: bytes, forced: int) -> bool:
    """Is what we hold a link of a kind that may not even be the last component (syd 3.52.0)?"""
    if not S_ISLNK(os.fstat(fd).st_mode):
        return False
    inside = in_proc(text)
    if inside in _SELVES:
        return False
    return bool(forced & RESOLVE_NO_SYMLINKS or (inside is not None and pid_in(inside)))


def check_pid(call: Call, inside: bytes) -> None:
    """Raises OSError ENOENT for a path inside procfs that belongs to one of our processes."""
    pid = pid_in(inside)
    if pid and pid in call.own_pids:
        raise OSError(ENOENT, os.strerror(ENOENT), inside)


# --- the walk ---------------------------------------------------------------------------------------


class Walk:
    """A path on its way.

    at     the anchor: descriptor the names start from, AT_FDCWD for the root
    base   its text; b"" for the root
    names  what is still to be opened from there; "." and empty ones are gone
    end    NAME, SLASH, DOT or UP
    links  how many links were followed
    forced RESOLVE_NO_ flags of openat2(2) that hold on the whole way: XDEV, MAGICLINKS, SYMLINKS
    dotless  ".." is refused
    """

    __slots__ = ("at", "base", "call", "dotless", "end", "forced", "links", "names")

    def __init__(self, call: Call, at: int, base: bytes, path: bytes, how: int = 0):
        self.call = call
        self.at, self.base = at, base
        self.links = 0
        self.forced = call.rules.resolve
        if how & AS_KERNEL:
            self.forced &= RESOLVE_NO_MAGICLINKS
        self.dotless = how & DOTLESS
        self.names, self.end = split(path)

    def find(self, follow: int) -> Found:
        while True:
            self._climb()
            names, end = self.names, self.end
            if not names and end in (NAME, UP) and self.at != AT_FDCWD:  # what a link of /proc or ".." led to
                return self._found(self.at, -1, b"")
            fd = self._open(names, end, O_DIRECTORY if end else 0 if follow else O_NOFOLLOW)
            if fd >= 0:
                return self._found(self.call.keep(fd), -1, names[-1] if names else b"")
            if fd != -ELOOP:
                self.refuse(-fd)
            self._splice(len(names) if follow or end else len(names) - 1)

    def entry(self, follow: int) -> Found:
        while True:
            self._climb()
            names = self.names
            if not names or self.end >= DOT:
                return self.find(follow)
            parent = self._open_parent()
            if parent == -ELOOP:
                self._splice(len(names) - 1)
                continue
            if parent < 0:
                self.refuse(-parent)
            inside = in_proc(self.text())
            if inside is not None:
                check_pid(self.call, inside)
            how = HOW_FOLLOW if follow and self.end == NAME else HOW_LINK
            fd = raw_openat2_how(parent, names[-1], how)
            if fd >= 0:
                self.call.keep(fd)
                if self.forced & RESOLVE_NO_XDEV and not same_mount(parent, fd):
                    self.refuse(EXDEV)
            if fd != -ELOOP:
                return self._found(max(fd, -1), parent, names[-1])
            self._splice(len(names))

    def text(self, count: int = -1) -> bytes:
        """The link-free text so far, of the first `count` names."""
        names = self.names if count < 0 else self.names[:count]
        if not names:
            return self.base or b"/"
        return (self.base if self.base != b"/" else b"") + b"/" + b"/".join(names)

    def refuse(self, errno: int) -> NoReturn:
        """The lookup failed natively: say so, unless the rules hide where it failed (C7)."""
        self._judge_stat(self.text())
        if errno in (EACCES, ENOTDIR) and "stat" in self.call.rules.enabled:
            self._judge_culprit()
        raise OSError(errno, os.strerror(errno), self.text())

    def _judge_stat(self, text: bytes) -> None:
        text = shown(text, self.call.tgid)
        judge_way(self.call, above(text))
        if self.call.rules.verdicts["stat"][text]:
            self.call.judge("stat", text)

    def _judge_culprit(self) -> None:
        """The longest part of the path that is there is what stopped us, and the errno tells about it."""
        for count in range(len(self.names) - 1, 0, -1):
            fd = self._open(self.names[:count], NAME, O_NOFOLLOW)
            if fd >= 0:
                os.close(fd)
                self._judge_stat(self.text(count))
                return

    def _found(self, fd: int, parent: int, name: bytes) -> Found:
        text = self.text()
        if self.names and not safe[self.names[-1]] and not self.call.rules.lifted & FILENAME:
            self.refuse(EILSEQ)
        if fd >= 0 and self.forced & _NO_LINKS and is_refused_link(fd, text, self.forced):
            self.refuse(ELOOP)
        text = shown(text, self.call.tgid)
        judge_way(self.call, text if self.end >= DOT else above(text))
        return Found(fd, parent, b"" if self.end >= DOT else name, text, 0, self.end != NAME)

    def _spell(self, names: list[bytes]) -> bytes:
        if self.at == AT_FDCWD:
            return b"/" + b"/".join(names)
        return b"/".join(names) or b"."

    def _open(self, names: list[bytes], end: int, flags: int) -> int:
        """openat2 of some of the names without following a link: a descriptor or -errno.

        Raises OSError ENOENT for our own processes.
        """
        inside = in_proc(self.text(len(names)))
        if inside is not None:
            check_pid(self.call, inside)
        path = self._spell(names)
        if end == DOT and names:
            path += b"/."
        return open_path(self.at, path, flags, RESOLVE_NO_SYMLINKS | self.forced & RESOLVE_NO_XDEV)

    def _open_parent(self) -> int:
        """The directory of the last name, kept; or -errno."""
        if len(self.names) == 1 and self.at != AT_FDCWD:
            return self.at
        fd = self._open(self.names[:-1], SLASH, O_DIRECTORY)
        return self.call.keep(fd) if fd >= 0 else fd

    def _climb(self) -> None:
        """Until no ".." is left, and what is left can be opened at once."""
        while b".." in self.names:
            names = self.names
            if self.dotless:  # whatever is there
                raise OSError(EACCES, os.strerror(EACCES), self.text())
            i = names.index(b"..")
            if i == 0:
                self._up()
                continue
            fd = self._open(names[:i], DOT, O_DIRECTORY)
            if fd >= 0:
                os.close(fd)
                judge_way(self.call, shown(self.text(i), self.call.tgid))
                del names[i - 1 : i + 1]
            elif fd == -ELOOP:
                self._splice(i)
            else:
                self.refuse(-fd)
        while len(self._spell(self.names)) > _LONGEST_TEXT and len(self.names) > 1:
            self._advance()

    def _up(self) -> None:
        """From the anchor to the directory above it; above the root is the root."""
        if self.at == AT_FDCWD:
            del self.names[0]
            return
        fd = raw_openat2(self.at, b"..", O_PATH | O_CLOEXEC | O_DIRECTORY, self.forced & RESOLVE_NO_XDEV)
        if fd < 0:
            self.refuse(-fd)
        del self.names[0]
        self._start_at(fd, self.base)

    def _start_at(self, fd: int, beside: bytes) -> None:
        self.at = self.call.keep(fd)
        self.base = named(fd, beside)

    def _advance(self) -> None:
        """Make the anchor of the first half of the names."""
        count = len(self.names) // 2
        fd = self._open(self.names[:count], SLASH, O_DIRECTORY)
        if fd == -ELOOP:
            self._splice(count)
        elif fd < 0:
            self.refuse(-fd)
        else:
            self.base = self.text(count)
            self.at = self.call.keep(fd)
            del self.names[:count]

    # --- links ---

    def _splice(self, limit: int) -> None:
        """Put the target of the first link among the first `limit` names in its place.

        Finds none if the names were changed under us; that counts as a link too, and so ends.
        """
        self.links += 1
        if self.links > MOST_LINKS:
            self.refuse(ELOOP)
        for i in self._candidates(limit):
            text = self.text(i)
            inside = in_proc(text)
            if inside is not None:
                check_pid(self.call, inside)
            target = self._target(i, inside)
            if not target:
                continue
            if self.forced & RESOLVE_NO_SYMLINKS and inside not in _SELVES:
                self.refuse(ELOOP)
            if inside is None:
                target = self._trusted(i, target)
            _learn(text)
            judge_way(self.call, above(shown(text, self.call.tgid)))
            if inside is not None and pid_in(inside):
                self._jump(i, inside)
            else:
                self._replace(i, target)
            return

    def _candidates(self, limit: int) -> Iterator[int]:
        """Where to look for a link: where one was before, then everywhere in order.

        Guessing wrong costs time only: with a link before it, the one that is found leads to a path whose
        opening stops at the first.
        """
        if self.links < MOST_LINKS // 2:  # a wrong guess may not use up the count
            for i in range(1, limit + 1):
                if self.text(i) in _links:
                    yield i
                    break
        yield from range(1, limit + 1)

    def _target(self, i: int, inside: bytes | None) -> bytes:
        """Where the link of the first `i` names points to; b"" if it is no link."""
        if inside == b"/self":
            return b"%d" % self.call.tgid
        if inside == b"/thread-self":
            return b"%d/task/%d" % (self.call.tgid, self.call.tid)
        size = raw_readlinkat(self.at, self._spell(self.names[:i]), _target, PATH_MAX)
        if size >= 0:
            return string_at(_target, size)
        if size != -EINVAL:
            if inside is not None and size == -EACCES and not is_own(self.call, pid_in(inside)):
                raise OSError(EACCES, os.strerror(EACCES), inside)
            self.refuse(-size)
        return b""

    def _trusted(self, i: int, target: bytes) -> bytes:
        """What the link of the first `i` names says, if it may be followed in such a directory."""
        directory = self._spell(self.names[: i - 1])
        try:
            if not self.call.rules.lifted & SYMLINKS:
                if is_shared(os.stat(directory, dir_fd=self.at, follow_symlinks=False)):
                    self.refuse(ELOOP)
            elif i == len(self.names) and self.end < DOT:
                return target_of_last(self.at, directory, self._spell(self.names), target)
            return target
        except OSError as error:
            self.refuse(error.errno or EACCES)

    def _replace(self, i: int, target: bytes) -> None:
        names, end = split(target)
        if i == len(self.names):
            if self.end != DOT:
                self.end = max(end, self.end)
            self.names = names if target[:1] == b"/" else self.names[: i - 1] + names
        else:
            head = [] if target[:1] == b"/" else self.names[: i - 1]
            self.names = head + names + self.names[i:]
        if target[:1] == b"/":
            if self.forced & RESOLVE_NO_XDEV and self.at != AT_FDCWD and not same_mount(self.at, b"/"):
                self.refuse(EXDEV)
            self.at, self.base = AT_FDCWD, b""

    def _jump(self, i: int, inside: bytes) -> None:
        """Follow a link of /proc/PID: it leads to an object, not to a text."""
        pid = pid_in(inside)
        if not is_own(self.call, pid) and not self.call.rules.option("trace/allow_unsafe_magiclinks"):
            raise OSError(EACCES, os.strerror(EACCES), inside)
        if self.forced & RESOLVE_NO_MAGICLINKS:
            self.refuse(ELOOP)
        fd = raw_openat2(AT_FDCWD, b"/proc" + inside, O_PATH | O_CLOEXEC, 0)
        if fd < 0:
            self.call.valid()
            self.refuse(-fd)
        if self.forced & RESOLVE_NO_XDEV and not same_mount(fd, b"/proc"):
            os.close(fd)
            self.refuse(EXDEV)
        del self.names[:i]
        self._start_at(fd, b"/proc" + above(inside))


_links: set[bytes] = set()  # texts of links that were met before; a hint, bounded
_MOST_HINTS = 512


def _learn(text: bytes) -> None:
    if len(_links) >= _MOST_HINTS:
        _links.clear()
    _links.add(text)


def split(path: bytes) -> tuple[list[bytes], int]:
    """The names of a path without "." and empty ones, and how it ends."""
    names = [name for name in path.split(b"/") if name and name != b"."]
    bare = path.rstrip(b"/")
    last = bare[bare.rfind(b"/") + 1 :]
    if last in (b"", b".", b".."):
        return names, UP if last == b".." else DOT
    return names, SLASH if path.endswith(b"/") else NAME
