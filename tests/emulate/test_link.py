"""link and linkat."""

from __future__ import annotations

import os
from errno import EACCES, EEXIST, EINVAL, ENOENT
from pathlib import Path

import pytest

from syd_pool.emulate.link import _link_held
from tests.emulate.trees import Trees

AT_FDCWD = -100
AT_SYMLINK_FOLLOW = 0x400
AT_EMPTY_PATH = 0x1000
OLD = [
    b"ok/f", b"ok/f/", b"ok/f/.", b"ok/n", b"ok/d", b"ok/d/", b"ok/l", b"ok/l/", b"ok/dl", b"ok/ld",
    b"ok/ld/", b"ok/lhf", b"ok/lha", b"ok/p", b"ok/g", b"", b".", b"/", b"x" * 256, b"x" * 4096,
    b"/proc/self/status", b"/dev/null",
]  # fmt: skip
NEW = [
    b"ok/n", b"ok/n/", b"ok/n/.", b"ok/n/m", b"ok/f", b"ok/f/", b"ok/d", b"ok/d/", b"ok/d/n", b"ok/l",
    b"ok/dl", b"ok/dl/", b"ok/lh/n", b"", b".", b"/", b"x" * 256, b"/proc/self/n",
    b"/dev/shm/syd-pool-test-link/n",
]  # fmt: skip


@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("flags", [0, AT_SYMLINK_FOLLOW])
def test_every_source_as_natively(tmp_path: Path, old: bytes, flags: int) -> None:
    """Result, errno and tree are the kernel's."""
    Trees(tmp_path).both("linkat", AT_FDCWD, old, AT_FDCWD, b"ok/new", flags)


@pytest.mark.parametrize("new", NEW)
def test_every_destination_as_natively(tmp_path: Path, new: bytes) -> None:
    """Result, errno and tree are the kernel's."""
    Trees(tmp_path).both("link", b"ok/g", new)


def test_another_file_system_is_exdev(tmp_path: Path) -> None:
    """EXDEV, or EEXIST before it, comes from the kernel."""
    trees = Trees(tmp_path)
    assert trees.both("link", b"ok/f", b"/dev/syd-pool-test-link") < 0
    assert trees.both("link", b"ok/f", b"/dev/null") == -EEXIST


@pytest.mark.parametrize("flags", [1, 2, 0x100, 0x200, 0x800, 0x1401, 1 << 31, 1 << 32])
def test_flags(tmp_path: Path, flags: int) -> None:
    """Unknown flags are EINVAL before anything else; the upper 32 bits are not looked at (I7)."""
    trees = Trees(tmp_path)
    trees.both("linkat", AT_FDCWD, b"ok/f", AT_FDCWD, b"ok/n", flags)
    trees.both("linkat", AT_FDCWD, 8, AT_FDCWD, 8, flags)


@pytest.mark.parametrize("flags", [0, AT_EMPTY_PATH, AT_EMPTY_PATH | AT_SYMLINK_FOLLOW])
@pytest.mark.parametrize("olddir", [AT_FDCWD, 6, 7, 8, 9, -1])
@pytest.mark.parametrize("old", [b"", b"f", b"l"])
def test_descriptors_as_source(tmp_path: Path, olddir: int, old: bytes, flags: int) -> None:
    """6 is a file, 7 a directory, 8 a FIFO by O_PATH, 9 a symbolic link by O_PATH."""
    trees = Trees(tmp_path, descriptors={6: b"ok/f", 7: b"ok", 8: b"ok/p", 9: b"ok/dl"})
    trees.both("linkat", olddir, old, AT_FDCWD, b"ok/n", flags)


@pytest.mark.parametrize("newdir", [AT_FDCWD, 6, 7, -1])
@pytest.mark.parametrize("new", [b"n", b"f", b"", b"n/"])
def test_descriptors_as_destination(tmp_path: Path, newdir: int, new: bytes) -> None:
    """6 is a file, 7 a directory."""
    trees = Trees(tmp_path, descriptors={6: b"ok/f", 7: b"ok"})
    trees.both("linkat", AT_FDCWD, b"ok/g", newdir, new, 0)


@pytest.mark.parametrize("flags", [0, AT_SYMLINK_FOLLOW])
@pytest.mark.parametrize("fd", [5, 6, 7, 8, 99])
def test_own_descriptor_through_proc(tmp_path: Path, fd: int, flags: int) -> None:
    """/proc/self/fd/N is the caller's N (I6): 5 an O_TMPFILE file, 6 a file, 7 a directory, 8 a FIFO."""
    trees = Trees(tmp_path, descriptors={6: b"ok/f", 7: b"ok", 8: b"ok/p"}, unnamed={5: b"ok"})
    trees.both("linkat", AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, b"ok/n", flags)


@pytest.mark.parametrize("args", [(8, b"ok/n"), (b"ok/f", 8), (b"ok/missing", 8), (8, 8), (b"", 8)])
def test_bad_pointers(tmp_path: Path, args: tuple[int | bytes, int | bytes]) -> None:
    """The old path is resolved before the new one is looked at, as natively."""
    trees = Trees(tmp_path)
    assert trees.both("link", *args) < 0
    assert not trees.call.effects


@pytest.mark.parametrize("new", [b"ok/n", b"hid/n", b"ok/f", b"hid/f"])
@pytest.mark.parametrize("old", [b"ok/g", b"hid/f"])
@pytest.mark.parametrize("denied", ["", "rename", "create"])
def test_only_allowed_to_allowed_is_linked(tmp_path: Path, old: bytes, new: bytes, denied: str) -> None:
    """C8: `rename` denies a source, `create` a destination; an existing destination is EEXIST first."""
    rules = ["sandbox/rename,create:on", "allow/rename,create+/***"]
    trees = Trees(tmp_path, [*rules, f"deny/{denied}+@/hid/***"] if denied else rules)
    refused = (denied == "rename" and b"hid" in old) or (denied == "create" and b"hid" in new)
    answer = trees.ours("link", old, new)
    if new.endswith(b"f"):
        assert answer in ((-EEXIST, -EACCES) if refused else (-EEXIST,))
    else:
        assert answer == (-EACCES if refused else 0)
        assert (trees.top / os.fsdecode(new)).exists() is not refused


def test_followed_source_is_judged_where_it_leads(tmp_path: Path) -> None:
    """The link itself may be linked; with AT_SYMLINK_FOLLOW its target is judged."""
    trees = Trees(tmp_path, ["sandbox/rename:on", "allow/rename+/***", "deny/rename+@/hid/***"])
    assert trees.ours("linkat", AT_FDCWD, b"ok/lhf", AT_FDCWD, b"ok/n", AT_SYMLINK_FOLLOW) == -EACCES
    assert trees.ours("linkat", AT_FDCWD, b"ok/lhf", AT_FDCWD, b"ok/n", 0) == 0


def test_descriptor_of_a_denied_file_is_judged(tmp_path: Path) -> None:
    """A descriptor does not carry its file past the rules."""
    rules = ["sandbox/rename:on", "allow/rename+/***", "deny/rename+@/hid/***"]
    trees = Trees(tmp_path, rules, descriptors={6: b"hid/f", 7: b"ok/f"})
    assert trees.ours("linkat", 6, b"", AT_FDCWD, b"ok/n", AT_EMPTY_PATH) == -EACCES
    assert trees.ours("linkat", AT_FDCWD, b"/proc/self/fd/6", AT_FDCWD, b"ok/n", AT_SYMLINK_FOLLOW) == -EACCES
    assert trees.ours("linkat", 7, b"", AT_FDCWD, b"ok/n", AT_EMPTY_PATH) == 0


@pytest.mark.parametrize("old", [b"hid/f", b"hid/n", b"ok/lh/f"])
@pytest.mark.parametrize("new", [b"ok/n", b"ok/f"])
def test_hidden_and_absent_names_are_alike(tmp_path: Path, old: bytes, new: bytes) -> None:
    """C7: ENOENT for a hidden source and for a hidden destination, whatever is there."""
    rules = ["sandbox/stat,rename,create:on", "allow/stat,rename,create+/***", "deny/stat+@/hid/***"]
    trees = Trees(tmp_path, rules)
    assert trees.ours("link", old, new) == -ENOENT
    assert trees.ours("link", b"ok/g", old) == -ENOENT


def test_bad_flags_before_the_rules(tmp_path: Path) -> None:
    """EINVAL tells nothing about a name."""
    trees = Trees(tmp_path, ["sandbox/create,rename:on", "deny/create,rename+/***"])
    assert trees.ours("linkat", AT_FDCWD, b"hid/f", AT_FDCWD, b"hid/n", 1) == -EINVAL
    assert trees.call.denied == []


def test_source_that_is_exchanged_after_the_judgement(tmp_path: Path) -> None:
    """C1: what is linked is the file that was judged, whatever bears its name by then."""
    trees = Trees(tmp_path, ["sandbox/rename,create:on", "allow/rename,create+/***", "deny/rename+@/hid/***"])

    def swap() -> None:
        os.rename(trees.top / "ok/f", trees.top / "ok/away")
        os.rename(trees.top / "hid/f", trees.top / "ok/f")

    trees.before_effect = swap
    assert trees.ours("link", b"ok/f", b"ok/n") == 0
    assert (trees.top / "ok/n").samefile(trees.top / "ok/away")


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_an_ordinary_user_needs_no_capability(tmp_path: Path) -> None:
    """Without CAP_DAC_READ_SEARCH, and with a descriptor of other credentials: it is linked."""
    trees = Trees(tmp_path)
    os.chmod(tmp_path, 0o755)
    os.chmod(trees.top / "ok", 0o777)
    os.chown(trees.top / "ok/f", 65534, 65534)
    fd = os.open(trees.top / "ok/f", os.O_PATH)
    parent = os.open(trees.top / "ok", os.O_PATH)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            code = -_link_held(fd, parent, b"n")
        finally:
            os._exit(code)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert (trees.top / "ok/n").samefile(trees.top / "ok/f")
    finally:
        os.close(fd)
        os.close(parent)
