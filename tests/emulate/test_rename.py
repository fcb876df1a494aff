"""rename, renameat and renameat2."""

from __future__ import annotations

import os
from errno import EACCES, EEXIST, ENOENT
from pathlib import Path

import pytest

from tests.emulate.native import snapshot
from tests.emulate.trees import Trees

AT_FDCWD = -100
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
OLD = [
    b"ok/f", b"ok/f/", b"ok/f/.", b"ok/n", b"ok/n/", b"ok/d", b"ok/d/", b"ok/d/.", b"ok/d/..", b"ok/full",
    b"ok/full/", b"ok/l", b"ok/l/", b"ok/dl", b"ok/dl/", b"ok/ld", b"ok/ld/", b"ok/lh/f", b"ok/p",
    b"ok/g", b"ok/f/n", b"", b".", b"/", b"ok", b"x" * 256, b"x" * 4096, b"/proc/self/status",
]  # fmt: skip
NEW = [
    b"ok/n", b"ok/n/", b"ok/n/.", b"ok/n/m", b"ok/g2", b"ok/d", b"ok/d/", b"ok/d/n", b"ok/full",
    b"ok/full/n", b"ok/l", b"ok/l/", b"ok/dl", b"ok/ld/n", b"ok/lh/n", b"", b".", b"/", b"x" * 256,
    b"/proc/self/n", b"/dev/null", b"/dev/n/",
]  # fmt: skip


@pytest.mark.parametrize("flags", [0, NOREPLACE, EXCHANGE])
@pytest.mark.parametrize("old", OLD)
def test_every_pair_of_paths_as_natively(tmp_path: Path, old: bytes, flags: int) -> None:
    """Result, errno and tree are the kernel's, for each source with each destination."""
    trees = None
    for number, new in enumerate(NEW):
        trees = trees or Trees(tmp_path / str(number))
        if trees.both("renameat2", AT_FDCWD, old, AT_FDCWD, new, flags) == 0:
            trees = None  # it was changed


@pytest.mark.parametrize("flags", [3, 5, 6, 7, 8, 1 << 31, 1 << 32, 1 << 32 | 1])
def test_flags(tmp_path: Path, flags: int) -> None:
    """Bad combinations are EINVAL before the paths are read; the upper 32 bits are not looked at (I7)."""
    trees = Trees(tmp_path)
    trees.both("renameat2", AT_FDCWD, 8, AT_FDCWD, 8, flags)
    trees.both("renameat2", AT_FDCWD, b"ok/f", AT_FDCWD, b"ok/n", flags)


@pytest.mark.parametrize(
    ("old", "new"), [(b"ok/f", b"ok/n"), (b"ok/f", b"ok/g2"), (b"ok/n", b"ok/m"), (b"ok/d", b"ok/n")]
)
def test_whiteout(tmp_path: Path, old: bytes, new: bytes) -> None:
    """RENAME_WHITEOUT leaves a whiteout where the file system knows them."""
    Trees(tmp_path).both("renameat2", AT_FDCWD, old, AT_FDCWD, new, WHITEOUT)


def test_the_older_calls(tmp_path: Path) -> None:
    """rename and renameat are renameat2 without flags; a sixth argument is no flag."""
    trees = Trees(tmp_path, descriptors={7: b"ok", 8: b"hid"})
    assert trees.both("rename", b"ok/f", b"ok/n") == 0
    assert trees.both("renameat", 7, b"g", 8, b"g", EXCHANGE) == 0
    assert trees.both("renameat", 7, b"g", 99, b"g") < 0
    assert trees.both("renameat", 7, b"/dev/null/x", 99, b"g") < 0


@pytest.mark.parametrize(
    "args", [(8, b"ok/n"), (b"ok/f", 8), (b"ok/missing", 8), (b"ok/missing/x", 8), (8, 8), (b"", 8)]
)
def test_bad_pointers(tmp_path: Path, args: tuple[int | bytes, int | bytes]) -> None:
    """The directory of the old path is resolved before the new path is looked at, as natively."""
    trees = Trees(tmp_path)
    assert trees.both("rename", *args) < 0
    assert not trees.call.effects


# --- rules ---------------------------------------------------------------------------------------

ALL = "rename,create,delete,mkcdev"
ON = [f"sandbox/{ALL}:on", f"allow/{ALL}+/***"]
# (flags, category denied below hid/) -> which of: source there, missing destination there, existing one
DENIES = {
    (0, "rename"): "source",
    (0, "create"): "missing existing",
    (0, "delete"): "existing",
    (0, "mkcdev"): "",
    (NOREPLACE, "rename"): "source",
    (NOREPLACE, "create"): "missing",
    (NOREPLACE, "delete"): "",
    (EXCHANGE, "rename"): "source existing",
    (EXCHANGE, "create"): "source existing",
    (EXCHANGE, "delete"): "source existing",
    (WHITEOUT, "rename"): "source",
    (WHITEOUT, "create"): "missing existing",
    (WHITEOUT, "delete"): "existing",
    (WHITEOUT, "mkcdev"): "source",
}
MOVES = {"source": (b"hid/f", b"ok/g"), "missing": (b"ok/g", b"hid/n"), "existing": (b"ok/g", b"hid/f")}


@pytest.mark.parametrize("place", MOVES)
@pytest.mark.parametrize(("flags", "category"), DENIES)
def test_only_allowed_to_allowed_is_renamed(tmp_path: Path, flags: int, category: str, place: str) -> None:
    """C8, the whole matrix: a denied move is EACCES and changes nothing, any other is the kernel's."""
    old, new = MOVES[place]
    if flags == NOREPLACE and place == "source":
        new = b"ok/n"
    trees = Trees(tmp_path, [*ON, f"deny/{category}+@/hid/***"])
    native = trees.native("renameat2", AT_FDCWD, old, AT_FDCWD, new, flags)
    before = snapshot(trees.top)
    answer = trees.ours("renameat2", AT_FDCWD, old, AT_FDCWD, new, flags)
    if place in DENIES[flags, category].split():
        assert native == 0  # positive control
        assert answer == -EACCES
        assert snapshot(trees.top) == before
        assert trees.call.denied[0][0] == category
        assert trees.call.effects == 0
    else:
        assert answer == native
        assert snapshot(trees.top) == snapshot(trees.native_top)


def test_native_errors_come_before_a_denial(tmp_path: Path) -> None:
    """Missing source, existing destination with NOREPLACE, missing one with EXCHANGE: no rule is asked."""
    trees = Trees(tmp_path, [f"sandbox/{ALL}:on", f"deny/{ALL}+/***"])
    assert trees.ours("rename", b"hid/n", b"ok/n") == -ENOENT
    assert trees.ours("renameat2", AT_FDCWD, b"hid/f", AT_FDCWD, b"ok/f", NOREPLACE) == -EEXIST
    assert trees.ours("renameat2", AT_FDCWD, b"hid/f", AT_FDCWD, b"ok/n", EXCHANGE) == -ENOENT
    assert trees.call.denied == []


@pytest.mark.parametrize("flags", [0, NOREPLACE, EXCHANGE])
@pytest.mark.parametrize("name", [b"hid/f", b"hid/n", b"hid/sub", b"hid/sub/.", b"ok/lh/f"])
def test_hidden_and_absent_names_are_alike(tmp_path: Path, name: bytes, flags: int) -> None:
    """C7: ENOENT for a hidden source and for a hidden destination, whatever is there."""
    trees = Trees(tmp_path, [*ON, "sandbox/stat:on", "allow/stat+/***", "deny/stat+@/hid/***"])
    before = snapshot(trees.top)
    assert trees.ours("renameat2", AT_FDCWD, name, AT_FDCWD, b"ok/f", flags) == -ENOENT
    assert trees.ours("renameat2", AT_FDCWD, b"ok/f", AT_FDCWD, name, flags) == -ENOENT
    assert snapshot(trees.top) == before


def test_name_that_appears_after_the_judgement_survives(tmp_path: Path) -> None:
    """A destination that may not be deleted and was missing when judged is not replaced when it appears."""
    rules = [*ON, "deny/delete+@/hid/***"]
    trees = Trees(tmp_path, rules)
    late = trees.top / "hid/late"
    trees.before_effect = lambda: late.write_text("precious")
    assert trees.ours("rename", b"ok/f", b"hid/late") == -EACCES
    assert late.read_text() == "precious"
    assert (trees.top / "ok/f").exists()
    # positive control: without the rule the kernel replaces it
    control = Trees(tmp_path / "control", ON)
    late = control.top / "hid/late"
    control.before_effect = lambda: late.write_text("precious")
    assert control.ours("rename", b"ok/f", b"hid/late") == 0
    assert late.read_text() == "ok/f"


def test_parent_that_is_exchanged_after_the_judgement(tmp_path: Path) -> None:
    """C1: the name is made in the directory that was judged, not in what took its place."""
    trees = Trees(tmp_path, [*ON, f"deny/{ALL}+@/hid/***"])

    def swap() -> None:
        os.rename(trees.top / "ok/d", trees.top / "ok/away")
        os.symlink("../hid", trees.top / "ok/d")

    trees.before_effect = swap
    assert trees.ours("rename", b"ok/f", b"ok/d/n") == 0
    assert not (trees.top / "hid/n").exists()
    assert (trees.top / "ok/away/n").read_text() == "ok/f"
