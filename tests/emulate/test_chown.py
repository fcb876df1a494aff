"""chown, lchown and fchownat."""

from __future__ import annotations

import os
from errno import EACCES, EINVAL, ENOENT
from pathlib import Path

import pytest

from tests.emulate.trees import Trees
from tests.emulate.words import BAD

AT_FDCWD = -100
NOFOLLOW, EMPTY = 0x100, 0x1000
PATHS = [
    b"ok/f", b"ok/f/", b"ok/d", b"ok/d/.", b"ok/l", b"ok/l/", b"ok/dl", b"ok/ld", b"ok/ld/", b"ok/p",
    b"ok/missing", b"ok/f/x", b"", b"ok/lhf", b"x" * 256, b"/proc/self/stat",
]  # fmt: skip
BOTH = ["sandbox/chown,chgrp:on", "allow/chown,chgrp+/***"]


@pytest.mark.parametrize("call", ["chown", "lchown"])
@pytest.mark.parametrize("path", PATHS)
def test_every_path_as_natively(tmp_path: Path, call: str, path: bytes) -> None:
    """Result, errno and tree are the kernel's."""
    Trees(tmp_path).both(call, path, 12, 34)


@pytest.mark.parametrize("ids", [(-1, -1), (12, -1), (-1, 34), (1 << 32 | 12, 1 << 32), (0xFFFFFFFF, 0x7FFFFFFF)])
def test_every_id_as_natively(tmp_path: Path, ids: tuple[int, int]) -> None:
    """-1 leaves an id alone, only the lower 32 bits count (I7), set-id bits go."""
    trees = Trees(tmp_path)
    for top in (trees.top, trees.native_top):
        (top / "ok/f").chmod(0o6755)
    trees.both("chown", b"ok/f", *ids)


@pytest.mark.parametrize("flags", [0, NOFOLLOW, EMPTY, NOFOLLOW | EMPTY, 0x200, 0x400, 1 << 31, 1 << 32])
@pytest.mark.parametrize(
    ("dirfd", "path"), [(7, b""), (8, b""), (9, b""), (7, b"x"), (AT_FDCWD, b"ok/l"), (AT_FDCWD, b""), (99, b"")]
)
def test_fchownat_of_every_flag(tmp_path: Path, dirfd: int, path: bytes, flags: int) -> None:
    """7 is a directory, 8 an O_PATH file, 9 an O_PATH link."""
    trees = Trees(tmp_path, descriptors={7: b"ok/full", 8: b"ok/f", 9: b"ok/l"})
    trees.both("fchownat", dirfd, path, 12, 34, flags)


def test_wrong_arguments(tmp_path: Path) -> None:
    """By name, so that the comparisons cannot compare nothing with nothing."""
    trees = Trees(tmp_path)
    assert trees.both("fchownat", AT_FDCWD, b"ok/f", 1, 2, 1) == -EINVAL
    assert trees.both("chown", b"ok/missing", 1, 2) == -ENOENT
    assert trees.both("chown", BAD, 1, 2) < 0
    assert not trees.call.effects


@pytest.mark.root
@pytest.mark.parametrize(
    ("ids", "asked"),
    [((12, 34), ["chown", "chgrp"]), ((12, -1), ["chown"]), ((-1, 34), ["chgrp"]), ((-1, -1), [])],
)
@pytest.mark.parametrize("denied", ["chown", "chgrp"])
def test_the_id_that_changes_is_judged(tmp_path: Path, ids: tuple[int, int], asked: list[str], denied: str) -> None:
    """`chown` for the owner, `chgrp` for the group, neither when both are -1."""
    trees = Trees(tmp_path, [*BOTH, f"deny/{denied}+@/hid/***"])
    path = str(trees.top / "hid/f")
    before = os.stat(path)
    for name in (b"hid/f", b"ok/lhf"):
        want = -EACCES if denied in asked else 0
        assert trees.ours("chown", name, *ids) == want
        assert trees.call.denied == ([(denied, path)] if want else [])
        assert trees.call.effects == (not want)
        if want:
            after = os.stat(path)
            assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert trees.ours("chown", b"ok/f", os.getuid(), os.getgid()) == 0  # positive control


@pytest.mark.parametrize("ids", [(12, 34), (-1, -1)])
def test_hidden_object(tmp_path: Path, ids: tuple[int, int]) -> None:
    """C7: ENOENT first, even when nothing would change."""
    trees = Trees(tmp_path, ["sandbox/stat,chown:on", "allow/stat+/***", "deny/stat+@/hid/***"])
    assert trees.ours("lchown", b"hid/f", *ids) == -ENOENT


def test_link_that_takes_the_place_of_the_judged_object(tmp_path: Path) -> None:
    """C1: the judged object changes, not what took its name."""
    trees = Trees(tmp_path, [*BOTH, "deny/chown,chgrp+@/hid/***"])
    before = (trees.top / "hid/f").stat()

    def swap() -> None:
        os.rename(trees.top / "ok/f", trees.top / "ok/away")
        os.link(trees.top / "hid/f", trees.top / "ok/f")

    trees.before_effect = swap
    assert trees.ours("chown", b"ok/f", os.getuid(), os.getgid() if os.getuid() else 34) == 0
    after = (trees.top / "hid/f").stat()
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    if not os.getuid():
        assert (trees.top / "ok/away").stat().st_gid == 34
