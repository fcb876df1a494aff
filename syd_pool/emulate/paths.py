"""What the text of a path says before anything is looked up, and the two ways to open it at once.

A path is plain when its text is the only name the object can have, unless a symbolic link is in it:
absolute, no empty, "." or ".." component, no slash at the end, a safe name at the end (filenames.py), not below a
process of procfs, where the same name means something else to the caller than to us, not the run-time interface and
not one of MACHINE_FILES.  A plain path that openat2() opens with RESOLVE_NO_SYMLINKS *is* the real path (design.md
I5), so its text is what the rules judge.

A path that had a link when it was last looked at is no longer called plain, so that the next look-up goes
straight to the walk; that is a matter of speed only.
"""

from __future__ import annotations

import os
from errno import ENAMETOOLONG

from syd_pool.emulate.deep import deep_text
from syd_pool.emulate.filenames import safe
from syd_pool.linux.libc import RESOLVE_NO_SYMLINKS, open_how

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from syd_pool.emulate.call import Call

O_PATH, O_CLOEXEC, O_NOFOLLOW, O_DIRECTORY = os.O_PATH, os.O_CLOEXEC, os.O_NOFOLLOW, os.O_DIRECTORY

HOW_FOLLOW = open_how(O_PATH | O_CLOEXEC, RESOLVE_NO_SYMLINKS)
HOW_LINK = open_how(O_PATH | O_CLOEXEC | O_NOFOLLOW, RESOLVE_NO_SYMLINKS)
HOW_DIRECTORY = open_how(O_PATH | O_CLOEXEC | O_DIRECTORY, RESOLVE_NO_SYMLINKS)

MAGIC = b"/dev/syd"
# What names the machine (machine-id(5), gethostid(3)); see substitute.py
MACHINE_FILES = frozenset((b"/etc/machine-id", b"/etc/hostid", b"/var/adm/hostid", b"/sys/class/dmi/id/product_uuid"))
LIBRARIES = {MAGIC + b".sh": "syd.sh", MAGIC + b".el": "syd.el"}  # to be read where MAGIC may be spoken to

# find() and entry() take the RESOLVE_ flags of openat2(2) above their own flags
RESOLVE_SHIFT = 8

_MOST_KEPT = 8192
_LONGEST_KEPT = 512


class _Known(dict[bytes, bool]):
    """path -> what its text says.  One dictionary look-up for a path seen before; bounded."""

    __slots__ = ("_decide",)

    def __init__(self, decide: Callable[[bytes], bool]):
        super().__init__()
        self._decide = decide

    def __missing__(self, path: bytes) -> bool:
        answer = self._decide(path)
        if len(path) <= _LONGEST_KEPT:
            self.learn(path, answer)
        return answer

    def learn(self, path: bytes, answer: bool) -> None:
        if len(self) >= _MOST_KEPT:
            self.clear()
        self[path] = answer


def _is_plain(path: bytes) -> bool:
    if path[:1] != b"/" or not _is_simple(path[1:]) or is_magic(path) or path in MACHINE_FILES:
        return False
    inside = in_proc(path)
    if inside is None:
        return True
    first = inside[1:].partition(b"/")[0]
    return not first.isdigit() and first not in (b"self", b"thread-self")


def is_magic(path: bytes) -> bool:
    """Is it the text of the run-time interface (syd(2))?  Only so spelled: no link and no `..` leads there."""
    return path.startswith(MAGIC) and path[len(MAGIC) : len(MAGIC) + 1] in (b"", b"/")


def _is_simple(path: bytes) -> bool:
    """A relative path whose names are all names, the last one safe (filenames.py)."""
    if not path or path[:1] == b"/" or path[-1:] == b"/" or b"//" in path:
        return False
    if not safe[path[path.rfind(b"/") + 1 :]]:
        return False
    return b"." not in path or not {b".", b".."}.intersection(path.split(b"/"))


plain = _Known(_is_plain)
simple = _Known(_is_simple)


# --- procfs ---------------------------------------------------------------------------------------

_proc_mounts: list[tuple[bytes, bytes]] = []  # (where, what of procfs), the longest first
_proc_places: tuple[bytes, ...] = (b"/",)  # the same places, for a first look; "/" until they are known


def in_proc(text: bytes) -> bytes | None:
    """The path inside procfs of a link-free absolute path ("/" is procfs itself); None if elsewhere.

    Mounts are read once: the command cannot make any, and who mounts another procfs from outside while
    it runs decides himself what to show it.
    """
    if not text.startswith(_proc_places):
        return None
    if not _proc_mounts:
        know_mounts(_read_mounts())
    for where, what in _proc_mounts:
        if text.startswith(where) and (len(text) == len(where) or text[len(where)] == 47):
            return what + text[len(where) :] or b"/"
    return None


def know_mounts(mounts: list[tuple[bytes, bytes]]) -> None:
    """From now on procfs is there."""
    global _proc_places
    _proc_mounts[:] = mounts
    _proc_places = tuple(where for where, _ in mounts)


def _read_mounts() -> list[tuple[bytes, bytes]]:
    """Every mount of procfs or of a part of it; see proc_pid_mountinfo(5)."""
    found = {b"/proc": b""}
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields, _, kind = line.partition(b" - ")
            if kind.startswith(b"proc "):
                _, _, _, what, where = fields.split(b" ")[:5]
                found[_unescape(where).rstrip(b"/")] = _unescape(what).rstrip(b"/")
    return sorted(found.items(), key=lambda mount: -len(mount[0]))


def _unescape(field: bytes) -> bytes:
    """mountinfo writes blanks and backslashes as \\ooo."""
    head, *rest = field.split(b"\\")
    return head + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest)


def pid_in(inside: bytes) -> int:
    """The process or thread that a path inside procfs belongs to; 0 for none."""
    first = inside[1:].partition(b"/")[0]
    return int(first) if first.isdigit() else 0


def is_own(call: Call, pid: int) -> bool:
    """Does /proc/PID belong to the caller's thread group?"""
    if pid in (call.tgid, call.tid):
        return True
    try:
        os.stat(b"/proc/%d/task/%d" % (call.tgid, pid))
    except OSError:
        return False
    return True


def shown(text: bytes, tgid: int) -> bytes:
    """A link-free path as the rules see it: the caller's own /proc/TGID is /proc/self."""
    inside = in_proc(text)
    if inside is None:
        return text
    own = b"/%d" % tgid
    if (inside != own and not inside.startswith(own + b"/")) or not text.endswith(inside):
        return text
    return text[: len(text) - len(inside)] + b"/self" + inside[len(own) :]


def text_of(fd: int) -> bytes:
    """The kernel's name for what our descriptor holds; not a path for pipes, sockets and the like.

    Raises OSError ENAMETOOLONG where neither the kernel can say it nor we (deep.py).
    """
    try:
        text = os.readlink(b"/proc/self/fd/%d" % fd)
    except OSError as error:
        if error.errno != ENAMETOOLONG:
            raise
        return deep_text(fd)
    return _living_name(fd, text) if text.endswith(b" (deleted)") else text


def _living_name(fd: int, text: bytes) -> bytes:
    """The name a deleted object had, unless " (deleted)" really belongs to its name."""
    try:
        named = os.lstat(text)
    except OSError:
        return text[:-10]
    status = os.fstat(fd)
    return text if (named.st_dev, named.st_ino) == (status.st_dev, status.st_ino) else text[:-10]
