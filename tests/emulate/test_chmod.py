"""chmod, fchmodat and fchmodat2."""

from __future__ import annotations

import os
from errno import EACCES, EINVAL, ENOENT, EOPNOTSUPP
from pathlib import Path

import pytest

from tests.emulate.trees import Trees
from tests.emulate.words import BAD

AT_FDCWD = -100
NOFOLLOW, EMPTY = 0x100, 0x1000
PATHS = [
    b"ok/f", b"ok/f/", b"ok/f/.", b"ok/d", b"ok/d/", b"ok/d/.", b"ok/d/..", b"ok/l", b"ok/l/", b"ok/dl",
    b"ok/ld", b"ok/ld/", b"ok/p", b"ok/missing", b"ok/missing/x", b"ok/f/x", b"", b"ok/lhf", b"x" * 256,
    b"x" * 4096, b"/proc/self/stat", b"/proc/self/cwd/ok/f",
]  # fmt: skip
DENY = ["sandbox/chmod:on", "allow/chmod+/***", "deny/chmod+@/hid/***"]


@pytest.mark.parametrize("path", PATHS)
def test_every_path_as_natively(tmp_path: Path, path: bytes) -> None:
    """Result, errno and tree are the kernel's."""
    Trees(tmp_path).both("chmod", path, 0o751)


@pytest.mark.parametrize("mode", [0, 0o7777, 0o4755, 0o100644, 0o40777, 1 << 32 | 0o711, 1 << 16 | 0o600, -1])
@pytest.mark.parametrize("path", [b"ok/f", b"ok/d"])
def test_every_mode_as_natively(tmp_path: Path, path: bytes, mode: int) -> None:
    """Bits that are no permissions are dropped, and so are those beyond umode_t (I7)."""
    assert Trees(tmp_path).both("chmod", path, mode) == 0


@pytest.mark.parametrize("dirfd", [AT_FDCWD, 7, 8, 9, -1, 999, 1 << 32 | 7])
@pytest.mark.parametrize("path", [b"x", b"", b"ok/f", b"."])
def test_fchmodat_of_every_descriptor(tmp_path: Path, dirfd: int, path: bytes) -> None:
    """7 is a directory, 8 a file, 9 an O_PATH directory; the others are not open."""
    trees = Trees(tmp_path, descriptors={7: b"ok/full", 8: b"ok/f", 9: b"ok/full"})
    trees.both("fchmodat", dirfd, path, 0o700)


@pytest.mark.parametrize("flags", [0, NOFOLLOW, EMPTY, NOFOLLOW | EMPTY, 0x200, 0x400, 1 << 31, 1 << 32])
@pytest.mark.parametrize(
    ("dirfd", "path"), [(7, b""), (8, b""), (9, b""), (7, b"x"), (AT_FDCWD, b"ok/l"), (AT_FDCWD, b"ok/ld/"), (99, b"")]
)
def test_fchmodat2_of_every_flag(tmp_path: Path, dirfd: int, path: bytes, flags: int) -> None:
    """A link itself has no mode to change (EOPNOTSUPP); unknown flags are EINVAL."""
    trees = Trees(tmp_path, descriptors={7: b"ok/full", 8: b"ok/f", 9: b"ok/l"})
    trees.both("fchmodat2", dirfd, path, 0o700, flags)


def test_link_itself(tmp_path: Path) -> None:
    """The two errnos by name, so that the comparison above cannot compare nothing with nothing."""
    trees = Trees(tmp_path)
    assert trees.both("fchmodat2", AT_FDCWD, b"ok/l", 0o700, NOFOLLOW) == -EOPNOTSUPP
    assert trees.both("fchmodat2", AT_FDCWD, b"ok/f", 0o700, 1) == -EINVAL


@pytest.mark.parametrize("call", ["chmod", "fchmodat", "fchmodat2"])
def test_bad_pointer(tmp_path: Path, call: str) -> None:
    """EFAULT, and nothing is begun."""
    trees = Trees(tmp_path)
    args = (BAD, 0o700) if call == "chmod" else (AT_FDCWD, BAD, 0o700, 0)
    assert trees.both(call, *args) < 0
    assert not trees.call.effects


@pytest.mark.parametrize("name", [b"hid/f", b"hid/sub", b"ok/lhf", b"ok/../hid/f"])
def test_denied_object(tmp_path: Path, name: bytes) -> None:
    """EACCES, logged, unchanged, by whatever name; elsewhere it works."""
    trees = Trees(tmp_path, DENY)
    target = trees.top / "hid" / ("sub" if name.endswith(b"sub") else "f")
    before = target.stat().st_mode
    assert trees.ours("chmod", name, 0o700) == -EACCES
    assert trees.call.denied == [("chmod", str(target))]
    assert trees.call.effects == 0
    assert trees.ours("fchmodat", AT_FDCWD, name, 0o700) == -EACCES
    assert trees.ours("fchmodat2", AT_FDCWD, name, 0o700, 0) == -EACCES
    assert target.stat().st_mode == before
    assert trees.ours("chmod", b"ok/f", 0o751) == 0  # positive control
    assert trees.call.effects == 1
    assert (trees.top / "ok/f").stat().st_mode & 0o7777 == 0o751


@pytest.mark.parametrize("hides", ["stat", "walk"])
@pytest.mark.parametrize("name", [b"hid/sub/x", b"hid/sub/y"])
def test_hidden_and_absent_names_are_alike(tmp_path: Path, hides: str, name: bytes) -> None:
    """C7: ENOENT before the category's own EACCES, whether it is there or not."""
    trees = Trees(tmp_path, [f"sandbox/{hides},chmod:on", f"allow/{hides}+/***", f"deny/{hides}+@/hid/***"])
    (trees.top / "hid/sub/x").touch()
    assert trees.ours("chmod", name, 0o700) == -ENOENT


def test_object_that_is_exchanged_after_the_judgement(tmp_path: Path) -> None:
    """C1: the judged object changes, not what took its name."""
    trees = Trees(tmp_path, DENY)
    (trees.top / "hid/f").chmod(0o600)

    def swap() -> None:
        os.rename(trees.top / "ok/f", trees.top / "ok/away")
        os.symlink("../hid/f", trees.top / "ok/f")

    trees.before_effect = swap
    assert trees.ours("chmod", b"ok/f", 0o777) == 0
    assert (trees.top / "hid/f").stat().st_mode & 0o777 == 0o600
    assert (trees.top / "ok/away").stat().st_mode & 0o777 == 0o777
