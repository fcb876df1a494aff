"""chdir and fchdir: the judgement before, the verification after, the way without ptrace."""

from __future__ import annotations

import os
from errno import EACCES, EBADF, ENOENT, ENOTDIR
from typing import TYPE_CHECKING

import pytest

from syd_pool.emulate.chdir import judge_chdir, verify_chdir
from tests.emulate.native import fork_caller
from tests.emulate.trees import TreeCall, Trees

if TYPE_CHECKING:
    from pathlib import Path

    from syd_pool.emulate.call import Call

ON = ["sandbox/chdir:on", "allow/chdir+/***"]
PATHS = [
    b"ok", b"ok/", b"ok/.", b"ok/..", b"ok/d/../d", b"ok/f", b"ok/f/", b"ok/f/..", b"ok/n", b"ok/n/..",
    b"ok/l", b"ok/ld", b"ok/ld/", b"ok/ld/..", b"ok/dl", b"ok/lh", b"ok/lh/sub", b"ok/p", b"", b".",
    b"..", b"/", b"//", b"x" * 256, b"x" * 4096, b"/proc/self/fd", b"/proc/self/cwd", b"/proc/self/fd/7",
    b"/proc/self/fd/6", b"/dev/null",
]  # fmt: skip


def _judge(call: Call) -> int:
    """judge_chdir as an answer: 0 (and the directory in the call's result) or -errno."""
    assert isinstance(call, TreeCall)
    verdict = judge_chdir(call)
    call.result = verdict.directory
    return -verdict.errno


def _identity(path: Path | bytes) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


@pytest.mark.parametrize("path", PATHS)
def test_verdict_is_the_kernels_answer(tmp_path: Path, path: bytes) -> None:
    """Without a rule against it: the errno of chdir(2)."""
    trees = Trees(tmp_path, ON, descriptors={6: b"ok/f", 7: b"ok/d"})
    assert trees.ask(_judge, "chdir", path) == trees.native("chdir", path)


@pytest.mark.parametrize("fd", [6, 7, 8, 9, -1, -100, 99, 1 << 32 | 7])
def test_fchdir_verdict_is_the_kernels_answer(tmp_path: Path, fd: int) -> None:
    """6 is a file, 7 a directory, 8 an O_PATH directory, 9 an O_PATH link; AT_FDCWD is no descriptor here."""
    trees = Trees(tmp_path, ON, descriptors={6: b"ok/f", 7: b"ok/d", 8: b"hid", 9: b"ok/ld"})
    native = trees.native("fchdir", fd)
    assert trees.ask(_judge, "fchdir", fd) == native
    if fd < 0:
        assert native == -EBADF


@pytest.mark.parametrize(
    ("name", "argument", "where"),
    [
        ("chdir", b"ok/ld/", "ok/d"),
        ("chdir", b"hid/..", "."),
        ("chdir", b"/proc/self/fd/7", "ok"),
        ("fchdir", 7, "ok"),
    ],
)
def test_verdict_names_the_directory(tmp_path: Path, name: str, argument: bytes | int, where: str) -> None:
    """The verdict carries the device and inode of where the path leads."""
    trees = Trees(tmp_path, ON, descriptors={7: b"ok"})
    assert trees.ask(_judge, name, argument) == 0
    assert trees.call.result == _identity(trees.top / where)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("chdir", b"hid"),
        ("chdir", b"hid/sub/"),
        ("chdir", b"ok/lh"),
        ("fchdir", 7),
        ("chdir", b"/proc/self/fd/7"),
    ],
)
def test_denied_directory(tmp_path: Path, name: str, argument: bytes | int) -> None:
    """EACCES and a log line, by whatever path or descriptor; ok/ is a control."""
    trees = Trees(tmp_path, [*ON, "deny/chdir+@/hid/***"], descriptors={7: b"hid/sub"})
    assert trees.native(name, argument) == 0  # positive control
    assert trees.ask(_judge, name, argument) == -EACCES
    assert [line[0] for line in trees.call.denied] == ["chdir"]
    assert trees.ask(_judge, "chdir", b"ok") == 0


def test_what_is_no_directory_is_not_judged(tmp_path: Path) -> None:
    """ENOTDIR and ENOENT come before EACCES, as natively."""
    trees = Trees(tmp_path, [*ON, "deny/chdir+@/hid/***"])
    assert trees.ask(_judge, "chdir", b"hid/f") == -ENOTDIR
    assert trees.ask(_judge, "chdir", b"hid/n") == -ENOENT
    assert trees.call.denied == []


@pytest.mark.parametrize("hides", ["stat", "walk"])
@pytest.mark.parametrize("path", [b"hid", b"hid/f", b"hid/n", b"hid/sub", b"ok/lh"])
def test_hidden_directory(tmp_path: Path, hides: str, path: bytes) -> None:
    """ENOENT for what stat or walk hides."""
    trees = Trees(tmp_path, [*ON, f"sandbox/{hides}:on", f"allow/{hides}+/***", f"deny/{hides}+@/hid/***"])
    assert trees.ask(_judge, "chdir", path) == -ENOENT


def test_without_ptrace_the_kernel_continues(tmp_path: Path) -> None:
    """The handlers answer a denied call and let an allowed one continue."""
    trees = Trees(tmp_path, [*ON, "deny/chdir+@/hid/***"], descriptors={7: b"ok", 6: b"hid"})
    for name, argument in (("chdir", b"ok"), ("fchdir", 7)):
        assert trees.ours(name, argument) is None
        assert trees.call.resumed
    for name, argument in (("chdir", b"hid"), ("fchdir", 6)):
        assert trees.ours(name, argument) == -EACCES
        assert not trees.call.resumed


# --- afterwards ----------------------------------------------------------------------------------


def _verify(trees: Trees, went: str, expected: tuple[int, int]) -> bool:
    """What verify_chdir says of a caller that is now in `went`."""
    caller = fork_caller(trees.top / went)
    try:
        return verify_chdir(TreeCall(trees.rules, caller.pid, "chdir", (0,)), expected)
    finally:
        caller.end()


def test_arrival_where_it_was_allowed(tmp_path: Path) -> None:
    """The approved directory passes, even if it has been renamed since."""
    trees = Trees(tmp_path, [*ON, "deny/chdir+@/hid/***"])
    assert _verify(trees, "ok/d", _identity(trees.top / "ok/d"))
    assert _verify(trees, "ok/ld", _identity(trees.top / "ok/d"))


@pytest.mark.parametrize("category", ["chdir", "stat", "walk"])
def test_arrival_in_a_denied_directory_is_fatal(tmp_path: Path, category: str) -> None:
    """A6: approved ok/d, arrived in hid/ or below: False, so the tracer kills."""
    rules = [*ON, f"sandbox/{category}:on", f"allow/{category}+/***", f"deny/{category}+@/hid/***"]
    trees = Trees(tmp_path, rules)
    approved = _identity(trees.top / "ok/d")
    assert not _verify(trees, "hid", approved)
    assert not _verify(trees, "hid/sub", approved)
    assert not _verify(trees, "hid", (0, 0))  # nothing was approved


def test_another_thread_may_have_moved_on(tmp_path: Path) -> None:
    """Threads share their directory: another allowed place is no reason to kill."""
    trees = Trees(tmp_path, [*ON, "deny/chdir+@/hid/***"])
    assert _verify(trees, "ok", _identity(trees.top / "ok/d"))


def test_caller_that_is_gone_fails(tmp_path: Path) -> None:
    """What cannot be looked at is not approved."""
    trees = Trees(tmp_path, ON)
    caller = fork_caller(trees.top)
    call = TreeCall(trees.rules, caller.pid, "chdir", (0,))
    caller.end()
    assert not verify_chdir(call, _identity(trees.top))
