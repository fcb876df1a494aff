"""inotify_add_watch."""

from __future__ import annotations

import ctypes
import mmap
import os
from errno import EACCES, EBADF, EEXIST, EFAULT, EINVAL, ENOENT, ENOTDIR
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.emulate.native import fork_caller, raw
from tests.emulate.trees import Trees, handler
from tests.emulate.words import BAD

if TYPE_CHECKING:
    from syd_pool.emulate.call import Call
    from tests.emulate.native import Answer

_libc = ctypes.CDLL(None, use_errno=True)
INSTANCE = 5
MODIFY, ALL = 0x2, 0xFFF
ONLYDIR, DONT_FOLLOW, EXCL_UNLINK = 1 << 24, 1 << 25, 1 << 26
MASK_CREATE, MASK_ADD, ONESHOT = 1 << 28, 1 << 29, 1 << 31
PATHS = [
    b"ok/f", b"ok/f/", b"ok/d", b"ok/d/", b"ok/d/.", b"ok/l", b"ok/l/", b"ok/dl", b"ok/ld", b"ok/ld/", b"ok/p",
    b"ok/missing", b"ok/f/x", b"", b".", b"/", b"x" * 256, b"x" * 4096, b"/proc/self/exe", b"/dev/null",
]  # fmt: skip
DENY = ["sandbox/notify:on", "allow/notify+/***", "deny/notify+@/hid/***"]


class Watching(Trees):
    """Trees whose caller has an inotify instance as descriptor 5.

    before  paths it watches (for opening) before its call
    """

    before: tuple[bytes, ...] = ()

    def prepare(self) -> None:
        super().prepare()
        os.dup2(_libc.inotify_init1(0), INSTANCE)
        for path in self.before:
            raw("inotify_add_watch", INSTANCE, path, 0x20)

    def watch(self, *args: int | bytes) -> tuple[Answer | None, list[str]]:
        """Our answer, and what the caller watches then."""
        function = handler("inotify_add_watch")
        seen: list[str] = []

        def look(call: Call) -> int | None:
            try:
                return function(call)
            finally:
                seen.extend(watches(call.tid))

        return self.ask(look, "inotify_add_watch", *args), seen

    def kernels(self, *args: int | bytes) -> tuple[Answer, list[str]]:
        """The kernel's answer and what is watched then; in the same tree, so that the inodes are the same."""
        answer = mmap.mmap(-1, 8)

        def act() -> None:
            self.prepare()
            answer[:] = raw("inotify_add_watch", *args).to_bytes(8, "little", signed=True)

        child = fork_caller(self.top, act)
        try:
            return int.from_bytes(answer[:], "little", signed=True), watches(child.pid)
        finally:
            child.end()

    def both_watch(self, *args: int | bytes) -> Answer:
        """The answer, after the kernel's and ours, and what is watched, were found equal."""
        natively, ours = self.kernels(*args), self.watch(*args)
        assert ours == natively, args
        return natively[0]


def watches(pid: int) -> list[str]:
    """Inode and mask of each watch of the caller's instance; see proc_pid_fdinfo(5)."""
    with open(f"/proc/{pid}/fdinfo/{INSTANCE}") as file:
        return [line.strip() for line in file if line.startswith("inotify")]


@pytest.mark.parametrize("flags", [0, DONT_FOLLOW, ONLYDIR, ONLYDIR | DONT_FOLLOW])
@pytest.mark.parametrize("path", PATHS)
def test_every_path_as_natively(tmp_path: Path, path: bytes, flags: int) -> None:
    """Number or errno, and the inode and mask that are watched, are the kernel's."""
    trees = Watching(tmp_path)
    if path == b"/proc/self/exe":  # a link of /proc is another inode for each process
        flags &= ~DONT_FOLLOW
    trees.both_watch(INSTANCE, path, MODIFY | flags)


@pytest.mark.parametrize(
    "mask",
    [0, 1, ALL, 0x1000, 0x2000, 0x8000, 1 << 27, 1 << 30, 1 << 32, 1 << 32 | MODIFY, MASK_ADD | MODIFY, MASK_ADD,
     MASK_CREATE | MODIFY, MASK_CREATE | MASK_ADD | MODIFY, ONESHOT | MODIFY, EXCL_UNLINK | MODIFY, 0xFFFFFFFF],
)  # fmt: skip
@pytest.mark.parametrize("watched", [(), (b"ok/f",), (b"ok/d", b"ok/l")])
def test_every_mask_as_natively(tmp_path: Path, mask: int, watched: tuple[bytes, ...]) -> None:
    """On the caller's own instance: a watch that exists is changed, added to or refused."""
    trees = Watching(tmp_path)
    trees.before = watched
    trees.both_watch(INSTANCE, b"ok/f", mask)


@pytest.mark.parametrize("fd", [6, 7, 8, -1, 999, 1 << 32 | INSTANCE, 1 << 31])
@pytest.mark.parametrize("path", [b"ok/f", b"ok/missing"])
def test_every_descriptor_as_natively(tmp_path: Path, path: bytes, fd: int) -> None:
    """What is no inotify instance is refused before the path is looked at."""
    trees = Watching(tmp_path, descriptors={6: b"ok/f", 7: b"ok/d", 8: b"ok/f"})
    trees.both_watch(fd, path, MODIFY)
    trees.both_watch(fd, path, 0)
    trees.both_watch(fd, path, MODIFY | MASK_ADD | MASK_CREATE)


def test_by_value(tmp_path: Path) -> None:
    """So that the comparisons cannot compare nothing with nothing."""
    trees = Watching(tmp_path)
    trees.before = (b"ok/d",)
    answer, seen = trees.watch(INSTANCE, b"ok/l", MODIFY)
    assert answer == 2
    assert trees.call.effects == 1
    assert any(f"ino:{(trees.top / 'ok/f').stat().st_ino:x} " in line for line in seen)
    answer, seen = trees.watch(INSTANCE, b"ok/l", MODIFY | DONT_FOLLOW)
    assert answer == 2
    assert any(f"ino:{(trees.top / 'ok/l').lstat().st_ino:x} " in line for line in seen)
    assert trees.both_watch(INSTANCE, b"ok/l", MODIFY | ONLYDIR) == -ENOTDIR
    assert trees.both_watch(INSTANCE, b"ok/d", MODIFY | MASK_CREATE) == -EEXIST
    assert trees.both_watch(INSTANCE, BAD, MODIFY) == -EFAULT
    assert trees.both_watch(99, BAD, MODIFY) == -EBADF
    assert trees.both_watch(INSTANCE, BAD, 0) == -EINVAL
    assert not trees.call.effects


@pytest.mark.parametrize("flags", [0, DONT_FOLLOW, ONLYDIR])
@pytest.mark.parametrize("name", [b"hid/f", b"hid/sub", b"ok/lh/f", b"ok/../hid/f"])
def test_denied_object(tmp_path: Path, name: bytes, flags: int) -> None:
    """EACCES, logged, not watched; elsewhere it works."""
    trees = Watching(tmp_path, DENY)
    answer, seen = trees.watch(INSTANCE, name, MODIFY | flags)
    assert (answer, seen) == (-EACCES, [])
    assert trees.call.denied == [("notify", os.path.realpath(trees.top / os.fsdecode(name)))]
    assert trees.call.effects == 0
    answer, seen = trees.watch(INSTANCE, b"ok/d", MODIFY | flags)  # positive control
    assert (answer, len(seen)) == (1, 1)


def test_denied_link_itself(tmp_path: Path) -> None:
    """A link is judged by its own path when it is not followed, else by where it leads."""
    trees = Watching(tmp_path, [*DENY, "deny/notify+@/ok/l"])
    assert trees.watch(INSTANCE, b"ok/l", MODIFY | DONT_FOLLOW) == (-EACCES, [])
    assert trees.watch(INSTANCE, b"ok/l", MODIFY)[0] == 1
    assert trees.watch(INSTANCE, b"ok/lhf", MODIFY) == (-EACCES, [])
    assert trees.watch(INSTANCE, b"ok/lhf", MODIFY | DONT_FOLLOW)[0] == 1


@pytest.mark.parametrize("name", [b"hid/f", b"hid/n"])
def test_hidden_object(tmp_path: Path, name: bytes) -> None:
    """C7: ENOENT first, whether it is there or not."""
    trees = Watching(tmp_path, ["sandbox/stat,notify:on", "allow/stat+/***", "deny/stat+@/hid/***"])
    assert trees.watch(INSTANCE, name, MODIFY) == (-ENOENT, [])


def test_object_that_is_exchanged_after_the_judgement(tmp_path: Path) -> None:
    """C1: the judged object is watched, not what took its name."""
    trees = Watching(tmp_path, DENY)
    inode = (trees.top / "ok/f").stat().st_ino

    def swap() -> None:
        os.rename(trees.top / "ok/f", trees.top / "ok/away")
        os.symlink("../hid/f", trees.top / "ok/f")

    trees.before_effect = swap
    answer, seen = trees.watch(INSTANCE, b"ok/f", MODIFY)
    assert answer == 1
    assert len(seen) == 1 and f"ino:{inode:x} " in seen[0], seen
