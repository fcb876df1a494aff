"""mknod and mknodat."""

from __future__ import annotations

import os
import stat
from errno import EACCES, EADDRNOTAVAIL, EEXIST, EINVAL, ENOENT, EPERM
from pathlib import Path

import pytest

from tests.emulate.trees import Trees
from tests.emulate.words import BAD

AT_FDCWD = -100
KINDS = [0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR, stat.S_IFLNK, 0o170000]
PATHS = [
    b"ok/n", b"ok/n/", b"ok/n/.", b"ok/n/m", b"ok/f", b"ok/f/", b"ok/f/n", b"ok/d", b"ok/d/", b"ok/d/.", b"ok/d/..",
    b"ok/l", b"ok/dl", b"ok/dl/", b"ok/ld/n", b"ok/lh/n", b"", b".", b"..", b"/", b"x" * 256, b"x" * 4096,
]  # fmt: skip
CATEGORY = {
    0: "create",
    stat.S_IFREG: "create",
    stat.S_IFIFO: "mkfifo",
    stat.S_IFSOCK: "net/bind",
    stat.S_IFCHR: "mkcdev",
    stat.S_IFBLK: "mkbdev",
}
_ALL = sorted(set(CATEGORY.values()))
ALLOWED = [f"sandbox/{','.join(_ALL)}:on", *(f"allow/{category}+/***" for category in _ALL)]


@pytest.mark.parametrize("kind", [stat.S_IFIFO, 0, stat.S_IFDIR])
@pytest.mark.parametrize("path", PATHS)
def test_every_path_as_natively(tmp_path: Path, path: bytes, kind: int) -> None:
    """Result, errno and tree are the kernel's; what cannot be made is refused in the same order."""
    Trees(tmp_path).both("mknod", path, kind | 0o644, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("extra", [0o644, 0o7777, 1 << 16 | 0o600, 1 << 32 | 0o600])
@pytest.mark.parametrize("umask", [0o22, 0o777])
def test_every_kind_and_mode(tmp_path: Path, kind: int, extra: int, umask: int) -> None:
    """Type, mode under the caller's umask and device number are the kernel's."""
    trees = Trees(tmp_path)
    trees.umask = umask
    if trees.both("mknod", b"ok/n", kind | extra, os.makedev(1, 3)) == 0:
        assert os.stat(trees.top / "ok/n").st_rdev == os.stat(trees.native_top / "ok/n").st_rdev


@pytest.mark.parametrize("device", [0, 1 << 32 | 0x103, 0xFFFFFFFF])
def test_device_numbers(tmp_path: Path, device: int) -> None:
    """Only the lower 32 bits are looked at (I7); device 0 is a whiteout, which needs no capability."""
    trees = Trees(tmp_path)
    if trees.both("mknod", b"ok/n", stat.S_IFCHR | 0o600, device) == 0:
        assert os.stat(trees.top / "ok/n").st_rdev == os.stat(trees.native_top / "ok/n").st_rdev


@pytest.mark.parametrize("dirfd", [AT_FDCWD, 7, 8, 9, -1, 999, 1 << 32 | 7])
@pytest.mark.parametrize("path", [b"n", b"", b"."])
def test_mknodat_of_every_descriptor(tmp_path: Path, dirfd: int, path: bytes) -> None:
    """7 is a directory, 8 a file, 9 an O_PATH directory; the others are not open."""
    trees = Trees(tmp_path, descriptors={7: b"ok", 8: b"ok/f", 9: b"ok/d"})
    trees.both("mknodat", dirfd, path, stat.S_IFIFO | 0o644, 0)


def test_wrong_arguments(tmp_path: Path) -> None:
    """By name, so that the comparisons cannot compare nothing with nothing."""
    trees = Trees(tmp_path)
    assert trees.both("mknod", b"ok/n", stat.S_IFDIR, 0) == -EPERM
    assert trees.both("mknod", b"ok/n", stat.S_IFLNK, 0) == -EINVAL
    for kind in (stat.S_IFIFO, stat.S_IFDIR, stat.S_IFLNK):
        assert trees.both("mknod", BAD, kind, 0) < 0
        assert not trees.call.effects


@pytest.mark.parametrize("kind", CATEGORY)
def test_denied_kind(tmp_path: Path, kind: int) -> None:
    """Each kind is judged by its own category and no other; what exists is EEXIST first, as natively."""
    category = CATEGORY[kind]
    trees = Trees(tmp_path, [*ALLOWED, f"deny/{category}+@/hid/***"])
    refused = -EADDRNOTAVAIL if category == "net/bind" else -EACCES
    assert trees.ours("mknod", b"hid/n", kind | 0o600, 0x103) == refused
    assert trees.call.denied == [(category, str(trees.top / "hid/n"))]
    assert trees.call.effects == 0
    assert trees.ours("mknod", b"ok/lh/n", kind | 0o600, 0x103) == refused
    assert trees.ours("mknod", b"hid/f", kind | 0o600, 0x103) == -EEXIST
    assert not (trees.top / "hid/n").exists()
    other = stat.S_IFREG if category != "create" else stat.S_IFIFO
    assert trees.ours("mknod", b"hid/n", other | 0o600, 0) == 0
    if kind not in (stat.S_IFCHR, stat.S_IFBLK) or not os.getuid():
        assert trees.ours("mknod", b"ok/n", kind | 0o600, 0x103) == 0  # positive control


@pytest.mark.parametrize("name", [b"hid/f", b"hid/n"])
def test_hidden_and_absent_names_are_alike(tmp_path: Path, name: bytes) -> None:
    """C7: ENOENT, whether it is there or not."""
    trees = Trees(tmp_path, ["sandbox/stat,mkfifo:on", "allow/stat,mkfifo+/***", "deny/stat+@/hid/***"])
    assert trees.ours("mknod", name, stat.S_IFIFO | 0o600, 0) == -ENOENT
    assert not (trees.top / "hid/n").exists()


def test_parent_that_is_exchanged_after_the_judgement(tmp_path: Path) -> None:
    """C1: made in the parent that was judged, not in what took its place."""
    trees = Trees(tmp_path, [*ALLOWED, "deny/mkfifo+@/hid/***"])

    def swap() -> None:
        os.rename(trees.top / "ok/d", trees.top / "ok/away")
        os.symlink("../hid", trees.top / "ok/d")

    trees.before_effect = swap
    assert trees.ours("mknod", b"ok/d/n", stat.S_IFIFO | 0o600, 0) == 0
    assert not (trees.top / "hid/n").exists()
    assert (trees.top / "ok/away/n").is_fifo()
