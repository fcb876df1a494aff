"""mkdir and mkdirat."""

from __future__ import annotations

import os
from errno import EACCES, EEXIST, ENOENT
from pathlib import Path

import pytest

from tests.emulate.trees import Trees

AT_FDCWD = -100
PATHS = [
    b"ok/n", b"ok/n/", b"ok/n//", b"ok/n/.", b"ok/n/..", b"ok/n/m", b"ok/f", b"ok/f/", b"ok/f/.",
    b"ok/f/n", b"ok/d", b"ok/d/", b"ok/d/.", b"ok/d/..", b"ok/l", b"ok/l/", b"ok/l/n", b"ok/dl",
    b"ok/dl/", b"ok/dl/n", b"ok/ld", b"ok/ld/", b"ok/ld/n", b"ok/lh/n", b"ok/p", b"ok/p/n", b"", b".",
    b"..", b"/", b"//", b"./", b"/..", b"ok/./n", b"ok/../n", b"ok/missing/../n", b"x" * 255, b"x" * 256,
    b"ok/" + b"x" * 256 + b"/", b"/" + b"x/" * 2046 + b"y", b"x" * 4096, b"ok/" + b"./" * 2040 + b"n",
    b"ok/\xff\x01\n", b"/proc/self/n", b"/dev/null", b"/dev/null/n",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_every_path_as_natively(tmp_path: Path, path: bytes) -> None:
    """Result, errno and tree are the kernel's."""
    trees = Trees(tmp_path)
    trees.both("mkdir", path, 0o755)


@pytest.mark.parametrize("mode", [0, 0o777, 0o1777, 0o7777, 0o40777, 0o100000 | 0o700, 1 << 32 | 0o711, -1])
@pytest.mark.parametrize("umask", [0, 0o22, 0o77, 0o777])
def test_mode_and_umask_of_the_caller(tmp_path: Path, mode: int, umask: int) -> None:
    """The caller's umask is applied, the upper bits of mode are not looked at (I7)."""
    trees = Trees(tmp_path)
    trees.umask = umask
    assert trees.both("mkdir", b"ok/n", mode) == 0


def test_setgid_of_the_parent_is_inherited(tmp_path: Path) -> None:
    """A directory made in a setgid directory takes its group and is setgid."""
    trees = Trees(tmp_path)
    for top in (trees.top, trees.native_top):
        (top / "ok/d").chmod(0o2775)
    assert trees.both("mkdir", b"ok/d/n", 0o755) == 0


@pytest.mark.parametrize("dirfd", [AT_FDCWD, 7, 8, 9, -1, 999, 0xFFFFFF9C, 1 << 32 | 7])
@pytest.mark.parametrize("path", [b"n", b"", b"/dev/null", b".", b"f"])
def test_mkdirat_of_every_descriptor(tmp_path: Path, dirfd: int, path: bytes) -> None:
    """7 is a directory, 8 a file, 9 an O_PATH directory; the others are not open."""
    trees = Trees(tmp_path, descriptors={7: b"ok", 8: b"ok/f", 9: b"ok/d"})
    trees.both("mkdirat", dirfd, path, 0o755)


def test_bad_pointer(tmp_path: Path) -> None:
    """EFAULT, and nothing is begun."""
    trees = Trees(tmp_path)
    assert trees.both("mkdir", 8, 0o755) < 0
    assert not trees.call.effects


def test_denied_name(tmp_path: Path) -> None:
    """EACCES, logged, not made; a name that exists is EEXIST first, as natively; elsewhere it works."""
    trees = Trees(tmp_path, ["sandbox/mkdir:on", "allow/mkdir+/***", "deny/mkdir+@/hid/***"])
    assert trees.ours("mkdir", b"hid/n", 0o755) == -EACCES
    assert trees.call.denied == [("mkdir", str(trees.top / "hid/n"))]
    assert not (trees.top / "hid/n").exists()
    assert trees.ours("mkdir", b"ok/lh/n", 0o755) == -EACCES
    assert trees.ours("mkdir", b"hid/f", 0o755) == -EEXIST
    assert trees.ours("mkdir", b"ok/n", 0o755) == 0  # positive control
    assert (trees.top / "ok/n").is_dir()


@pytest.mark.parametrize("hides", ["stat", "walk", "stat,walk"])
@pytest.mark.parametrize("name", [b"hid/f", b"hid/n", b"hid/sub", b"hid/sub/", b"hid/.", b"hid/sub/..", b"ok/lh/f"])
def test_hidden_and_absent_names_are_alike(tmp_path: Path, hides: str, name: bytes) -> None:
    """C7: existing and missing names below a hidden directory give the same ENOENT."""
    rules = [f"sandbox/{hides},mkdir:on", f"allow/{hides},mkdir+/***", f"deny/{hides}+@/hid/***"]
    trees = Trees(tmp_path, rules)
    assert trees.native("mkdir", name, 0o755) in (0, -EEXIST)
    assert trees.ours("mkdir", name, 0o755) == -ENOENT
    assert not (trees.top / "hid/n").exists()


def test_warned_name_is_made(tmp_path: Path) -> None:
    """`warn` logs and lets the call happen."""
    trees = Trees(tmp_path, ["sandbox/mkdir:on", "warn/mkdir+/***"])
    assert trees.ours("mkdir", b"ok/n", 0o755) == 0
    assert (trees.top / "ok/n").is_dir()


def test_effect_is_announced_only_when_it_comes(tmp_path: Path) -> None:
    """I3: begin_effect() once for a call that reaches the kernel, never for one refused before."""
    trees = Trees(tmp_path, ["sandbox/mkdir:on", "allow/mkdir+/***", "deny/mkdir+@/hid/***"])
    trees.ours("mkdir", b"ok/n", 0o755)
    assert trees.call.effects == 1
    trees.ours("mkdir", b"hid/n", 0o755)
    assert trees.call.effects == 0


def test_parent_that_is_exchanged_after_the_judgement(tmp_path: Path) -> None:
    """C1: the directory is made in the parent that was judged, not in what took its place."""
    trees = Trees(tmp_path, ["sandbox/mkdir:on", "allow/mkdir+/***", "deny/mkdir+@/hid/***"])

    def swap() -> None:
        os.rename(trees.top / "ok/d", trees.top / "ok/away")
        os.symlink("../hid", trees.top / "ok/d")

    trees.before_effect = swap
    assert trees.ours("mkdir", b"ok/d/n", 0o755) == 0
    assert not (trees.top / "hid/n").exists()
    assert (trees.top / "ok/away/n").is_dir()
