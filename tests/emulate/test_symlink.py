"""symlink and symlinkat."""

from __future__ import annotations

from errno import EACCES, EEXIST, ENOENT
from pathlib import Path

import pytest

from tests.emulate.trees import Trees

AT_FDCWD = -100
PATHS = [
    b"ok/n", b"ok/n/", b"ok/n/.", b"ok/n/m", b"ok/f", b"ok/f/", b"ok/d", b"ok/d/", b"ok/d/.", b"ok/d/..",
    b"ok/d/n", b"ok/l", b"ok/l/", b"ok/dl", b"ok/dl/", b"ok/ld", b"ok/ld/n", b"ok/lh/n", b"", b".", b"..",
    b"/", b"x" * 256, b"x" * 4096, b"/proc/self/n",
]  # fmt: skip
TARGETS = [b"x", b"", b"/", b"y" * 4095, b"y" * 4096, b"../hid/f", b"a//b/./..", b"\xff\n"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("target", [b"target", b""])
def test_every_path_as_natively(tmp_path: Path, target: bytes, path: bytes) -> None:
    """Result, errno and tree are the kernel's."""
    Trees(tmp_path).both("symlink", target, path)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_as_natively(tmp_path: Path, target: bytes) -> None:
    """The target is text: it is not resolved, not judged and stored as it is."""
    Trees(tmp_path).both("symlink", target, b"ok/n")


@pytest.mark.parametrize("dirfd", [AT_FDCWD, 7, 8, 9, -1, 1 << 32 | 7])
@pytest.mark.parametrize("path", [b"n", b"", b"/dev/null", b"f", b"n/"])
def test_symlinkat_of_every_descriptor(tmp_path: Path, dirfd: int, path: bytes) -> None:
    """7 is a directory, 8 a file, 9 an O_PATH directory."""
    trees = Trees(tmp_path, descriptors={7: b"ok", 8: b"ok/f", 9: b"ok/d"})
    trees.both("symlinkat", b"target", dirfd, path)


@pytest.mark.parametrize("args", [(8, b"ok/n"), (b"t", 8), (8, 8), (b"", 8), (8, b"")])
def test_bad_pointers(tmp_path: Path, args: tuple[int | bytes, int | bytes]) -> None:
    """The first bad argument decides, as natively."""
    trees = Trees(tmp_path)
    assert trees.both("symlink", *args) < 0
    assert not trees.call.effects


def test_denied_name(tmp_path: Path) -> None:
    """EACCES for a name below hid/, also through a link; EEXIST first where it exists."""
    trees = Trees(tmp_path, ["sandbox/symlink:on", "allow/symlink+/***", "deny/symlink+@/hid/***"])
    assert trees.ours("symlink", b"t", b"hid/n") == -EACCES
    assert trees.ours("symlink", b"t", b"ok/lh/n") == -EACCES
    assert trees.ours("symlink", b"t", b"hid/f") == -EEXIST
    assert not (trees.top / "hid/n").is_symlink()
    assert trees.ours("symlink", b"../hid/f", b"ok/n") == 0  # positive control; the target is not judged
    assert (trees.top / "ok/n").is_symlink()


@pytest.mark.parametrize("path", [b"hid/f", b"hid/n", b"hid/sub/."])
def test_hidden_and_absent_names_are_alike(tmp_path: Path, path: bytes) -> None:
    """C7: ENOENT whatever is there."""
    trees = Trees(tmp_path, ["sandbox/stat,symlink:on", "allow/stat,symlink+/***", "deny/stat+@/hid/***"])
    assert trees.ours("symlink", b"t", path) == -ENOENT
    assert not (trees.top / "hid/n").is_symlink()
