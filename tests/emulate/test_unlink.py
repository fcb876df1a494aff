"""unlink, rmdir and unlinkat."""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOENT
from pathlib import Path

import pytest

from tests.emulate.trees import Trees

AT_FDCWD = -100
AT_REMOVEDIR = 0x200
PATHS = [
    b"ok/f", b"ok/f/", b"ok/f/.", b"ok/n", b"ok/n/", b"ok/d", b"ok/d/", b"ok/d//", b"ok/d/.", b"ok/d/./",
    b"ok/d/..", b"ok/full", b"ok/full/", b"ok/l", b"ok/l/", b"ok/dl", b"ok/dl/", b"ok/ld", b"ok/ld/",
    b"ok/ld/.", b"ok/lh/f", b"ok/lh/sub", b"ok/p", b"ok/p/", b"ok/g2", b"", b".", b"..", b"/", b"./",
    b"../", b"ok", b"ok/./f", b"ok/../ok/f", b"ok/missing/../f", b"ok/f/../f", b"x" * 256, b"x" * 4096,
    b"/proc/self/status", b"/proc/self/fd",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["unlink", "rmdir"])
def test_every_path_as_natively(tmp_path: Path, name: str, path: bytes) -> None:
    """Result, errno and tree are the kernel's."""
    Trees(tmp_path).both(name, path)


@pytest.mark.parametrize("dirfd", [AT_FDCWD, 7, 8, 9, -1])
def test_unlinkat_of_every_descriptor_and_flag(tmp_path: Path, dirfd: int) -> None:
    """7 is a directory, 8 a file, 9 an O_PATH directory; flags are 32 bits (I7)."""
    for flags in (0, AT_REMOVEDIR, 1, 0x100, AT_REMOVEDIR | 1, 1 << 32, AT_REMOVEDIR | 1 << 40):
        trees = Trees(tmp_path / str(flags), descriptors={7: b"ok", 8: b"hid/f", 9: b"ok/full"})
        for path in (b"n", b"", b"/dev/null/x", b".", b"f", b"d", b"f", b"d"):
            trees.both("unlinkat", dirfd, path, flags)


def test_a_busy_directory_is_busy(tmp_path: Path) -> None:
    """EBUSY of a mount point comes from the kernel."""
    Trees(tmp_path).both("rmdir", b"/proc")
    Trees(tmp_path / "again").both("rmdir", b"/proc/")


@pytest.mark.parametrize(
    ("name", "args"),
    [("unlink", (8,)), ("rmdir", (8,)), ("unlinkat", (AT_FDCWD, 8, 0)), ("unlinkat", (7, 8, 1))],
)
def test_bad_pointer(tmp_path: Path, name: str, args: tuple[int, ...]) -> None:
    """EFAULT, but EINVAL for bad flags comes first; nothing is begun."""
    trees = Trees(tmp_path)
    assert trees.both(name, *args) < 0
    assert not trees.call.effects


@pytest.mark.parametrize(
    ("name", "args", "category"),
    [
        ("unlink", (b"hid/f",), "delete"),
        ("unlinkat", (AT_FDCWD, b"hid/f", 0), "delete"),
        ("rmdir", (b"hid/sub",), "rmdir"),
        ("unlinkat", (AT_FDCWD, b"hid/sub", AT_REMOVEDIR), "rmdir"),
        ("unlinkat", (AT_FDCWD, b"ok/lh/sub/", AT_REMOVEDIR), "rmdir"),
    ],
)
def test_denied_name(tmp_path: Path, name: str, args: tuple[int | bytes, ...], category: str) -> None:
    """EACCES and a log line; the other category does not deny it; missing is ENOENT first."""
    common = ["sandbox/delete,rmdir:on", "allow/delete,rmdir+/***"]
    other = {"delete": "rmdir", "rmdir": "delete"}[category]
    control = Trees(tmp_path / "control", [*common, f"deny/{other}+@/hid/***"])
    assert control.ours(name, *args) == 0

    trees = Trees(tmp_path / "test", [*common, f"deny/{category}+@/hid/***"])
    assert trees.ours(name, *args) == -EACCES
    assert [line[0] for line in trees.call.denied] == [category]
    assert (trees.top / "hid/f").exists()
    assert (trees.top / "hid/sub").exists()
    missing = tuple(b"hid/n" if isinstance(a, bytes) else a for a in args)
    assert trees.ours(name, *missing) == -ENOENT


@pytest.mark.parametrize("name", ["unlink", "rmdir"])
@pytest.mark.parametrize("path", [b"hid/f", b"hid/sub", b"hid/n", b"hid/sub/.", b"hid/sub/..", b"hid"])
def test_hidden_and_absent_names_are_alike(tmp_path: Path, name: str, path: bytes) -> None:
    """C7: ENOENT whatever is there."""
    rules = ["sandbox/stat,delete,rmdir:on", "allow/stat,delete,rmdir+/***", "deny/stat+@/hid/***"]
    assert Trees(tmp_path, rules).ours(name, path) == -ENOENT


def test_rmdir_of_no_name_is_not_judged(tmp_path: Path) -> None:
    """ "." is EINVAL whether denied or not, as natively."""
    trees = Trees(tmp_path, ["sandbox/rmdir:on", "deny/rmdir+/***"])
    assert trees.ours("rmdir", b"hid/sub/.") == -EINVAL
    assert trees.call.denied == []
