"""The text of a directory that is too deep for the kernel to say: d_path() stops at 4,096 bytes, directories do not.

From the directory upwards, as getcwd(3) of libc once did, until the kernel can name where we are; then down again
under that text without following a link, and only the same directory counts: whoever moves directories meanwhile
chooses nothing but an error (I5).
"""

from __future__ import annotations

import os
from errno import ENAMETOOLONG, ENOENT
from stat import S_ISDIR

from syd_pool.linux.libc import RESOLVE_NO_SYMLINKS, openat2

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MOST_LEVELS = 4096
_MOST_ENTRIES = 100_000  # looked at in all: a worker may not be kept busy by a few huge directories
_MOST_AT_ONCE = 2000  # bytes of a path that is opened


def deep_text(fd: int) -> bytes:
    """The path of the directory held as `fd`.

    Raises OSError: ENAMETOOLONG for what is no directory or cannot be told.
    """
    status = os.fstat(fd)
    if not S_ISDIR(status.st_mode):
        raise _too_long()
    known = _known.get((status.st_dev, status.st_ino))
    if known is not None and _leads_to(known, status):
        return known
    names: list[bytes] = []
    entries = [_MOST_ENTRIES]
    here, place = os.open(b".", _DIRECTORY, dir_fd=fd), status
    try:
        for _ in range(_MOST_LEVELS):
            above = os.open(b"..", _DIRECTORY, dir_fd=here)
            os.close(here)
            here = above
            names.append(_name_in(here, place, entries))
            place = os.fstat(here)
            known = _known.get((place.st_dev, place.st_ino))
            if known is not None and _leads_to(text := _joined(known, names), status):
                return _learn(status, text)
            base = _text(here)
            if base is not None:
                if not _leads_to(text := _joined(base, names), status):
                    raise _too_long()
                return _learn(status, text)
    finally:
        os.close(here)
    raise _too_long()


# (st_dev, st_ino) -> text that a directory had; a hint, which is tried like any other text
_known: dict[tuple[int, int], bytes] = {}
_MOST_KNOWN = 64


def _learn(status: os.stat_result, text: bytes) -> bytes:
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[status.st_dev, status.st_ino] = text
    return text


def _joined(base: bytes, names: list[bytes]) -> bytes:
    """`names`, the lowest first, below `base`."""
    return base.rstrip(b"/") + b"/" + b"/".join(reversed(names))


def _too_long() -> OSError:
    return OSError(ENAMETOOLONG, os.strerror(ENAMETOOLONG))


def _text(fd: int) -> bytes | None:
    """What the kernel calls it; None if that is too long.  Raises OSError for what has no place any more."""
    try:
        text = os.readlink(b"/proc/self/fd/%d" % fd)
    except OSError as error:
        if error.errno != ENAMETOOLONG:
            raise
        return None
    if text[:1] != b"/" or text.endswith(b" (deleted)"):
        raise _too_long()
    return text


def _name_in(directory: int, child: os.stat_result, entries: list[int]) -> bytes:
    """The name that `directory` has for a directory in it; takes from `entries`, how many may still be looked at.

    Raises OSError ENOENT, EACCES, ENAMETOOLONG.
    """
    readable = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        mount_point = os.fstat(readable).st_dev != child.st_dev  # its entry has the number of what it covers
        with os.scandir(readable) as found_there:
            for entry in found_there:
                entries[0] -= 1
                if entries[0] < 0:
                    raise _too_long()
                if not mount_point and entry.inode() != child.st_ino:
                    continue
                name = os.fsencode(entry.name)
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if (found.st_dev, found.st_ino) == (child.st_dev, child.st_ino):
                    return name
    finally:
        os.close(readable)
    raise OSError(ENOENT, os.strerror(ENOENT))


def _leads_to(text: bytes, wanted: os.stat_result) -> bool:
    """Is the directory that this text leads to, without a link, the one that is wanted?"""
    left = text.split(b"/")[1:]
    left.reverse()
    here = os.open(b"/", _DIRECTORY)
    try:
        while left:
            part = left.pop()
            while left and len(part) + len(left[-1]) < _MOST_AT_ONCE:
                part += b"/" + left.pop()
            below = openat2(here, part, _DIRECTORY, RESOLVE_NO_SYMLINKS)
            os.close(here)
            here = below
        found = os.fstat(here)
    except OSError:
        return False
    finally:
        os.close(here)
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
