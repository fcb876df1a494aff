"""utime, utimes, futimesat and utimensat."""

from __future__ import annotations

import os
import struct
from errno import EACCES, EBADF, EFAULT, EINVAL, ENOENT
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.emulate.trees import Trees
from tests.emulate.words import BAD, Shared

if TYPE_CHECKING:
    from tests.emulate.native import Answer

AT_FDCWD = -100
NOFOLLOW, EMPTY = 0x100, 0x1000
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
PATHS = [
    b"ok/f", b"ok/f/", b"ok/d", b"ok/d/.", b"ok/l", b"ok/l/", b"ok/dl", b"ok/ld", b"ok/ld/", b"ok/p",
    b"ok/missing", b"ok/f/x", b"", b"ok/lhf", b"x" * 256, b"/proc/self/stat",
]  # fmt: skip
DENY = ["sandbox/utime:on", "allow/utime+/***", "deny/utime+@/hid/***"]
OLD = 1_000_000_000  # seconds; every object of a tree gets its own time before the calls


def age(top: Path) -> None:
    """Give everything times that no clock of today gives."""
    for number, path in enumerate(sorted(top.glob("**/*"))):
        os.utime(path, ns=(number, number + 7), follow_symlinks=False)


def times(top: Path) -> dict[str, tuple[object, ...]]:
    """The times of everything; those of today are all alike."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.glob("**/*")):
        status = path.lstat()
        pair = (status.st_atime_ns, status.st_mtime_ns)
        found[str(path.relative_to(top))] = tuple("now" if t > 1_600_000_000 * 10**9 else t for t in pair)
    return found


def both(trees: Trees, name: str, *args: int | bytes) -> Answer:
    """Trees.both(), and the times are alike too."""
    for top in (trees.top, trees.native_top):
        age(top)
    native, ours = trees.native(name, *args), trees.ours(name, *args)
    assert ours == native, f"{name}{args}: {ours}, natively {native}"
    assert times(trees.top) == times(trees.native_top), f"{name}{args}"
    return native


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", ["now", "then"])
def test_every_path_as_natively(tmp_path: Path, path: bytes, how: str) -> None:
    """Result, errno and times are the kernel's, of all four calls."""
    trees, words = Trees(tmp_path), Shared()
    pair = words.pack("<4q", OLD, 5, OLD + 1, 6) if how == "then" else 0
    both(trees, "utimes", path, pair)
    both(trees, "futimesat", AT_FDCWD, path, pair)
    both(trees, "utimensat", AT_FDCWD, path, pair, 0)
    both(trees, "utimensat", AT_FDCWD, path, pair, NOFOLLOW)
    both(trees, "utime", path, words.pack("<2q", OLD, OLD + 1) if pair else 0)


def test_times_are_set(tmp_path: Path) -> None:
    """By value, so that the comparisons cannot compare nothing with nothing; microseconds are not nanoseconds."""
    trees, words = Trees(tmp_path), Shared()
    file = trees.top / "ok/f"
    assert trees.ours("utimes", b"ok/f", words.pack("<4q", OLD, 5, OLD + 1, 6)) == 0
    assert (file.stat().st_atime_ns, file.stat().st_mtime_ns) == (OLD * 10**9 + 5000, (OLD + 1) * 10**9 + 6000)
    assert trees.ours("utimensat", AT_FDCWD, b"ok/f", words.pack("<4q", OLD, 5, OLD + 1, 6), 0) == 0
    assert (file.stat().st_atime_ns, file.stat().st_mtime_ns) == (OLD * 10**9 + 5, (OLD + 1) * 10**9 + 6)
    assert trees.ours("utime", b"ok/f", words.pack("<2q", OLD + 2, OLD + 3)) == 0
    assert (file.stat().st_atime, file.stat().st_mtime) == (OLD + 2, OLD + 3)
    assert trees.call.effects == 1


@pytest.mark.parametrize("access", [0, 999_999_999, 10**9, -1, NOW, OMIT, NOW + 1])
@pytest.mark.parametrize("modification", [0, 10**9, NOW, OMIT])
@pytest.mark.parametrize("path", [b"ok/f", b"ok/missing"])
def test_every_nanosecond_as_natively(tmp_path: Path, path: bytes, access: int, modification: int) -> None:
    """UTIME_NOW, UTIME_OMIT (both: not even the path is looked at) and wrong values."""
    trees, words = Trees(tmp_path), Shared()
    both(trees, "utimensat", AT_FDCWD, path, words.pack("<4q", OLD, access, -5, modification), 0)


@pytest.mark.parametrize("access", [0, 999_999, 10**6, -1, NOW, OMIT])
@pytest.mark.parametrize("modification", [0, 999_999, 10**6, -1])
def test_every_microsecond_as_natively(tmp_path: Path, access: int, modification: int) -> None:
    trees, words = Trees(tmp_path), Shared()
    both(trees, "utimes", b"ok/f", words.pack("<4q", OLD, access, OLD, modification))
    both(trees, "utimes", b"ok/missing", words.pack("<4q", OLD, access, OLD, modification))


@pytest.mark.parametrize("flags", [0, NOFOLLOW, EMPTY, NOFOLLOW | EMPTY, 0x200, 1 << 31, 1 << 32])
@pytest.mark.parametrize("path", [0, b"", b"x", b"ok/l"])
@pytest.mark.parametrize("dirfd", [AT_FDCWD, 6, 7, 8, 9, -1, 999])
def test_every_descriptor_and_flag(tmp_path: Path, dirfd: int, path: int | bytes, flags: int) -> None:
    """No path means the descriptor, unless it is an O_PATH one (8 a file, 9 a link), 7 is a directory, 6 a file."""
    trees = Trees(tmp_path, descriptors={6: b"ok/f", 7: b"ok/full", 8: b"ok/f", 9: b"ok/l"})
    words = Shared()
    both(trees, "utimensat", dirfd, path, words.pack("<4q", OLD, 1, OLD, 2), flags)
    if flags == 0:
        both(trees, "futimesat", dirfd, path, words.address)
        both(trees, "utimensat", dirfd, path, 0, 0)


def test_descriptor_without_a_name(tmp_path: Path) -> None:
    """futimens(3) of a file that never had a name."""
    trees, words = Trees(tmp_path, unnamed={6: b"ok"}), Shared()
    assert both(trees, "utimensat", 6, 0, words.pack("<4q", OLD, 1, OLD, 2), 0) == 0
    assert trees.call.effects == 1


def test_bad_pointers(tmp_path: Path) -> None:
    """EFAULT, and nothing is begun; half a structure at the end of what is mapped too."""
    trees, words = Trees(tmp_path), Shared()
    end = words.address + 4096 - 8  # nothing is known to be mapped behind; both calls see the same memory
    for address in (BAD, end):
        for name, args in (
            ("utime", (b"ok/missing", address)),
            ("utimes", (b"ok/missing", address)),
            ("futimesat", (AT_FDCWD, b"ok/missing", address)),
            ("utimensat", (AT_FDCWD, b"ok/missing", address, 1)),
        ):
            both(trees, name, *args)
            assert not trees.call.effects
    assert both(trees, "utimes", b"ok/f", BAD) == -EFAULT
    assert both(trees, "utime", BAD, 0) == -EFAULT
    assert both(trees, "utimensat", AT_FDCWD, 0, 0, 0) == -EFAULT
    assert both(trees, "utimensat", 99, 0, 0, 0) == -EBADF
    assert both(trees, "utimensat", AT_FDCWD, b"ok/f", 0, 1) == -EINVAL


@pytest.mark.parametrize("name", [b"hid/f", b"hid/sub", b"ok/lhf"])
def test_denied_object(tmp_path: Path, name: bytes) -> None:
    """EACCES, logged, unchanged, by every call; elsewhere it works."""
    trees, words = Trees(tmp_path, DENY), Shared()
    age(trees.top)
    before = times(trees.top / "hid")
    pair = words.pack("<4q", OLD, 0, OLD, 0)
    for call, args in (
        ("utime", (name, pair)),
        ("utimes", (name, pair)),
        ("utimes", (name, 0)),
        ("futimesat", (AT_FDCWD, name, pair)),
        ("utimensat", (AT_FDCWD, name, pair, 0)),
    ):
        assert trees.ours(call, *args) == -EACCES
        assert trees.call.denied == [("utime", os.path.realpath(os.fsencode(trees.top) + b"/" + name).decode())]
        assert trees.call.effects == 0
    assert times(trees.top / "hid") == before
    assert trees.ours("utimes", b"ok/f", pair) == 0  # positive control
    assert (trees.top / "ok/f").stat().st_mtime == OLD


def test_denied_descriptor(tmp_path: Path) -> None:
    """futimens(3) is judged by the path of what is open; an empty path as well."""
    trees, words = Trees(tmp_path, DENY, descriptors={6: b"hid/f", 7: b"ok/f"}), Shared()
    pair = words.pack("<4q", OLD, 0, OLD, 0)
    assert trees.ours("utimensat", 6, 0, pair, 0) == -EACCES
    assert trees.call.denied == [("utime", str(trees.top / "hid/f"))]
    assert trees.ours("utimensat", 6, b"", pair, EMPTY) == -EACCES
    assert (trees.top / "hid/f").stat().st_mtime != OLD
    assert trees.ours("utimensat", 7, 0, pair, 0) == 0  # positive control
    assert (trees.top / "ok/f").stat().st_mtime == OLD


def test_hidden_object(tmp_path: Path) -> None:
    """C7: ENOENT first, whether it is there or not."""
    trees = Trees(tmp_path, ["sandbox/stat,utime:on", "allow/stat+/***", "deny/stat+@/hid/***"])
    for name in (b"hid/f", b"hid/n"):
        assert trees.ours("utimes", name, 0) == -ENOENT


def test_object_that_is_exchanged_after_the_judgement(tmp_path: Path) -> None:
    """C1: the judged object changes, not what took its name."""
    trees, words = Trees(tmp_path, DENY), Shared()

    def swap() -> None:
        os.rename(trees.top / "ok/f", trees.top / "ok/away")
        os.symlink("../hid/f", trees.top / "ok/f")

    trees.before_effect = swap
    assert trees.ours("utimes", b"ok/f", words.pack("<4q", OLD, 0, OLD, 0)) == 0
    assert (trees.top / "hid/f").stat().st_mtime != OLD
    assert (trees.top / "ok/away").stat().st_mtime == OLD


def test_structure_is_read_once(tmp_path: Path) -> None:
    """What the caller writes after the judgement does not count (double fetch)."""
    trees, words = Trees(tmp_path), Shared()
    pair = words.pack("<4q", OLD, 0, OLD, 0)
    trees.before_effect = lambda: words.fill(struct.pack("<4q", 5, 0, 5, 0))
    assert trees.ours("utimensat", AT_FDCWD, b"ok/f", pair, 0) == 0
    assert (trees.top / "ok/f").stat().st_mtime == OLD
