"""Extended attributes by path."""

from __future__ import annotations

import os
from errno import E2BIG, EACCES, EEXIST, EFAULT, EINVAL, ENODATA, ENOENT, EOPNOTSUPP, EPERM, ERANGE
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.emulate.trees import Trees
from tests.emulate.words import BAD, Shared

if TYPE_CHECKING:
    from tests.emulate.native import Answer

PATHS = [
    b"ok/f", b"ok/f/", b"ok/f/.", b"ok/d", b"ok/d/", b"ok/d/.", b"ok/d/..", b"ok/l", b"ok/l/", b"ok/dl", b"ok/ld",
    b"ok/ld/", b"ok/ld/.", b"ok/p", b"ok/missing", b"ok/f/x", b"", b"ok/lhf", b"x" * 256, b"/proc/self/stat",
    b"/proc/self/exe", b"/dev/null", b"/dev/shm", b".", b"/",
]  # fmt: skip
NAMES = [
    b"user.a", b"user.absent", b"user.", b"user", b"", b"nonsense", b"nonsense.a", b"x" * 255, b"user." + b"x" * 250,
    b"user." + b"x" * 251, b"x" * 5000, b"trusted.t", b"security.selinux", b"security.capability",
    b"system.posix_acl_access", b"system.posix_acl_default", b"system.nonsense",
]  # fmt: skip
SIZES = [0, 1, 4, 5, 6, 4096, 65535, 65536, 65537, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1]
LARGEST = 3000  # what ext4 holds beside the inode


def attributes(top: Path) -> dict[str, dict[str, bytes]]:
    """Every attribute of everything."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(top.glob("**/*")):
        names = os.listxattr(path, follow_symlinks=False)
        found[str(path.relative_to(top))] = {n: os.getxattr(path, n, follow_symlinks=False) for n in names}
    return found


def dress(trees: Trees) -> None:
    """user.a on files and directories, trusted.t on a link where we may."""
    for top in (trees.top, trees.native_top):
        for name in ("ok/f", "ok/d", "hid/f", "ok"):
            os.setxattr(top / name, "user.a", b"value")
        os.setxattr(top / "ok/g", "user.big", b"b" * LARGEST)
        if not os.getuid():
            os.setxattr(top / "ok/l", "trusted.t", b"link", follow_symlinks=False)


def make(tmp_path: Path, rules: list[str] | None = None) -> Trees:
    trees = Trees(tmp_path, rules or [])
    dress(trees)
    return trees


def both(trees: Trees, name: str, *args: int | bytes, out: Shared | None = None) -> Answer:
    """As Trees.both(), and what is written and the attributes are alike too."""
    if out:
        out.fill()
    native, by_kernel = trees.native(name, *args), out and out.data()
    if out:
        out.fill()
    ours, by_us = trees.ours(name, *args), out and out.data()
    assert ours == native, f"{name}{args}: {ours}, natively {native}"
    assert by_us == by_kernel, f"{name}{args}"
    assert attributes(trees.top) == attributes(trees.native_top), f"{name}{args}"
    return native


@pytest.mark.parametrize("path", PATHS)
def test_every_path_as_natively(tmp_path: Path, path: bytes) -> None:
    """Result, errno, attributes and what is written are the kernel's, of all eight calls."""
    trees, out = make(tmp_path), Shared()
    new = Shared()
    value = new.fill(b"new")
    for link in ("", "l"):
        for name in (b"user.a", b"trusted.t"):
            both(trees, link + "getxattr", path, name, out.address, 100, out=out)
        both(trees, link + "listxattr", path, out.address, 100, out=out)
        if path.startswith(b"ok"):
            for name in (b"user.new", b"trusted.new"):
                both(trees, link + "setxattr", path, name, value, 3, 0)
            for name in (b"user.new", b"trusted.new", b"user.a"):
                both(trees, link + "removexattr", path, name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", [b"ok/f", b"ok/d", b"ok/l", b"ok/missing"])
def test_every_name_as_natively(tmp_path: Path, path: bytes, name: bytes) -> None:
    """Empty and too long names are ERANGE, before the path is looked at."""
    trees, out = make(tmp_path), Shared()
    new = Shared()
    value = new.fill(b"new")
    for link in ("", "l"):
        both(trees, link + "getxattr", path, name, out.address, 100, out=out)
        both(trees, link + "setxattr", path, name, value, 3, 0)
        both(trees, link + "removexattr", path, name)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_of_a_buffer(tmp_path: Path, size: int) -> None:
    """0 asks for the length, too small is ERANGE, what is too large is cut down: nobody makes us take memory."""
    trees, out = make(tmp_path), Shared(1 << 17)
    both(trees, "getxattr", b"ok/f", b"user.a", out.address, size, out=out)
    both(trees, "getxattr", b"ok/g", b"user.big", out.address, size, out=out)
    both(trees, "getxattr", b"ok/f", b"user.absent", out.address, size, out=out)
    both(trees, "listxattr", b"ok/f", out.address, size, out=out)
    both(trees, "llistxattr", b"ok/l", out.address, size, out=out)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4, 1 << 31, 1 << 32, 1 << 32 | 1])
def test_every_size_and_flag_of_a_value(tmp_path: Path, size: int, flags: int) -> None:
    """XATTR_CREATE and XATTR_REPLACE, lower 32 bits (I7); more than 64 KiB is E2BIG."""
    trees, value = make(tmp_path), Shared(1 << 17)
    value.fill(b"v" * 100)
    both(trees, "setxattr", b"ok/f", b"user.a", value.address, size, flags)
    both(trees, "setxattr", b"ok/f", b"user.n", value.address, size, flags)
    both(trees, "setxattr", b"ok/missing", b"user.n", value.address, size, flags)


def test_by_value(tmp_path: Path) -> None:
    """So that the comparisons cannot compare nothing with nothing."""
    trees, out = make(tmp_path), Shared()
    assert both(trees, "getxattr", b"ok/l", b"user.a", out.address, 5, out=out) == 5
    assert out.data()[:6] == b"value\xee"
    assert both(trees, "getxattr", b"ok/f", b"user.a", 0, 0) == 5
    assert both(trees, "getxattr", b"ok/f", b"user.a", out.address, 4, out=out) == -ERANGE
    assert both(trees, "getxattr", b"ok/f", b"user.absent", out.address, 4, out=out) == -ENODATA
    assert both(trees, "listxattr", b"ok/f", out.address, 100, out=out) == 7
    assert out.data()[:8] == b"user.a\0\xee"
    assert both(trees, "setxattr", b"ok/f", b"user.a", out.fill(b"xy"), 2, 1) == -EEXIST
    assert both(trees, "setxattr", b"ok/f", b"user.n", out.fill(b"xy"), 2, 2) == -ENODATA
    assert both(trees, "setxattr", b"ok/f", b"user.n", out.fill(b"xy"), 65537, 0) == -E2BIG
    assert both(trees, "setxattr", b"ok/f", b"user.n", out.fill(b"xy"), 2, 4) == -EINVAL
    assert both(trees, "setxattr", b"ok/f", b"user.n", out.fill(b"x\0y"), 3, 0) == 0
    assert trees.call.effects == 1
    assert os.getxattr(trees.top / "ok/f", "user.n") == b"x\0y"
    assert both(trees, "removexattr", b"ok/f", b"user.n") == 0
    assert trees.call.effects == 1
    assert both(trees, "lsetxattr", b"ok/l", b"user.n", out.fill(b"xy"), 2, 0) == -EPERM
    assert both(trees, "getxattr", b"ok/f", b"nonsense.a", out.address, 4, out=out) == -EOPNOTSUPP


@pytest.mark.root
def test_attribute_of_a_link_itself(tmp_path: Path) -> None:
    """The l* calls mean the link, the others what it leads to."""
    trees, out = make(tmp_path), Shared()
    assert both(trees, "lgetxattr", b"ok/l", b"trusted.t", out.address, 9, out=out) == 4
    assert out.data()[:5] == b"link\xee"
    assert both(trees, "getxattr", b"ok/l", b"trusted.t", out.address, 9, out=out) == -ENODATA
    assert both(trees, "lsetxattr", b"ok/dl", b"trusted.n", out.fill(b"new"), 3, 0) == 0
    assert both(trees, "lremovexattr", b"ok/l", b"trusted.t") == 0
    assert both(trees, "llistxattr", b"ok/l", out.address, 100, out=out) == 0


def test_bad_pointers(tmp_path: Path) -> None:
    """EFAULT, and nothing is begun, in the kernel's order of looking at the arguments."""
    trees, out = make(tmp_path), Shared()
    assert both(trees, "getxattr", b"ok/f", b"user.a", BAD, 9) == -EFAULT
    assert both(trees, "getxattr", b"ok/f", b"user.a", BAD, 4) == -ERANGE
    assert both(trees, "getxattr", b"ok/f", BAD, out.address, 9) == -EFAULT
    assert both(trees, "getxattr", b"ok/missing", BAD, out.address, 9) == -EFAULT
    assert both(trees, "getxattr", BAD, b"user.a", out.address, 9) == -EFAULT
    assert both(trees, "getxattr", BAD, b"", out.address, 9) == -ERANGE
    assert both(trees, "listxattr", b"ok/f", BAD, 99) == -EFAULT
    assert both(trees, "listxattr", BAD, out.address, 99) == -EFAULT
    for where in range(3):
        args: list[int | bytes] = [b"ok/f", b"user.n", out.address, 3, 0]
        args[where] = BAD
        assert both(trees, "setxattr", *args) == -EFAULT
        assert not trees.call.effects
    assert both(trees, "setxattr", b"ok/missing", b"user.n", BAD, 3, 0) == -EFAULT
    assert both(trees, "setxattr", b"ok/f", b"user.n", BAD, 0, 0) == 0
    assert both(trees, "removexattr", b"ok/f", BAD) == -EFAULT
    assert both(trees, "removexattr", BAD, b"user.n") == -EFAULT


@pytest.mark.parametrize("link", ["", "l"])
@pytest.mark.parametrize("name", [b"hid/f", b"ok/lh/f"])
def test_denied_object(tmp_path: Path, name: bytes, link: str) -> None:
    """`read` for looking, `chattr` for changing: EACCES, logged, nothing told or changed; elsewhere it works."""
    trees = make(tmp_path, ["sandbox/read,chattr:on", "allow/read,chattr+/***", "deny/read,chattr+@/hid/***"])
    out, hidden = Shared(), str(trees.top / "hid/f")
    looking = (("getxattr", (name, b"user.a", out.address, 9)), ("listxattr", (name, out.address, 99)))
    new = Shared()
    value = new.fill(b"new")
    changing = (("setxattr", (name, b"user.a", value, 3, 0)), ("removexattr", (name, b"user.a")))
    for category, calls in (("read", looking), ("chattr", changing)):
        for call, args in calls:
            out.fill()
            assert trees.ours(link + call, *args) == -EACCES
            assert trees.call.denied == [(category, hidden)]
            assert trees.call.effects == 0
            assert out.data() == b"\xee" * 4096
    assert os.getxattr(hidden, "user.a") == b"value"
    assert trees.ours(link + "getxattr", b"ok/f", b"user.a", out.address, 9) == 5  # positive controls
    assert trees.ours(link + "setxattr", b"ok/f", b"user.a", value, 3, 0) == 0
    assert os.getxattr(trees.top / "ok/f", "user.a") == b"new"


@pytest.mark.root
def test_denied_link_itself(tmp_path: Path) -> None:
    """The link is judged by its own path."""
    trees = make(tmp_path, ["sandbox/chattr:on", "allow/chattr+/***", "deny/chattr+@/ok/l"])
    new = Shared()
    value = new.fill(b"new")
    assert trees.ours("lsetxattr", b"ok/l", b"trusted.t", value, 3, 0) == -EACCES
    assert os.getxattr(trees.top / "ok/l", "trusted.t", follow_symlinks=False) == b"link"
    assert trees.ours("setxattr", b"ok/l", b"user.a", value, 3, 0) == 0  # what it leads to
    assert trees.ours("lsetxattr", b"ok/dl", b"trusted.t", value, 3, 0) == 0


def test_hidden_object(tmp_path: Path) -> None:
    """C7: ENOENT first, whether it is there or not."""
    trees = make(tmp_path, ["sandbox/stat,chattr,read:on", "allow/stat+/***", "deny/stat+@/hid/***"])
    for name in (b"hid/f", b"hid/n"):
        for link in ("", "l"):
            assert trees.ours(link + "getxattr", name, b"user.a", 0, 0) == -ENOENT
            assert trees.ours(link + "removexattr", name, b"user.a") == -ENOENT


@pytest.mark.parametrize("link", ["", "l"])
def test_object_that_is_exchanged_after_the_judgement(tmp_path: Path, link: str) -> None:
    """C1: the judged object changes, not what took its name."""
    trees = make(tmp_path, ["sandbox/chattr:on", "allow/chattr+/***", "deny/chattr+@/hid/***"])

    def swap() -> None:
        os.rename(trees.top / "ok/f", trees.top / "ok/away")
        os.link(trees.top / "hid/f", trees.top / "ok/f")

    trees.before_effect = swap
    assert trees.ours(link + "removexattr", b"ok/f", b"user.a") == 0
    assert os.getxattr(trees.top / "hid/f", "user.a") == b"value"
    assert "user.a" not in os.listxattr(trees.top / "ok/away")


@pytest.mark.root
def test_link_that_is_exchanged_after_the_judgement(tmp_path: Path) -> None:
    """C1: what takes the judged link's name is not followed to where the rules forbid."""
    trees = make(tmp_path, ["sandbox/chattr:on", "allow/chattr+/***", "deny/chattr+@/hid/***"])
    os.setxattr(trees.top / "hid/f", "trusted.t", b"hidden")

    def swap() -> None:
        os.rename(trees.top / "ok", trees.top / "away")
        os.symlink("hid", trees.top / "ok")
        os.unlink(trees.top / "away/l")
        os.symlink("../hid/f", trees.top / "away/l")

    trees.before_effect = swap
    assert trees.ours("lremovexattr", b"ok/l", b"trusted.t") == -ENODATA
    assert os.getxattr(trees.top / "hid/f", "trusted.t") == b"hidden"
