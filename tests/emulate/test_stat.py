"""stat, lstat, newfstatat, statx, access, faccessat, faccessat2, readlink, readlinkat: beside the paths themselves."""

from __future__ import annotations

import os
from errno import EACCES, EFAULT, ENOENT
from typing import TYPE_CHECKING

import pytest

from syd_pool.emulate import access
from tests.emulate.fake import BUFFER, Caller, calling, open_as
from tests.emulate.test_open import build, ruleset

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
CALLS: list[tuple[str, tuple[int | bytes, ...], int]] = [
    ("stat", (b"{}", BUFFER), 0), ("lstat", (b"{}", BUFFER), 0), ("newfstatat", (AT_FDCWD, b"{}", BUFFER, 0), 1),
    ("statx", (AT_FDCWD, b"{}", 0, 0x7FF, BUFFER), 1), ("access", (b"{}", 4), 0),
    ("faccessat", (AT_FDCWD, b"{}", 4), 1), ("faccessat2", (AT_FDCWD, b"{}", 4, 0x200), 1),
    ("readlink", (b"{}", BUFFER, 99), 0),
    ("readlinkat", (AT_FDCWD, b"{}", BUFFER, 99), 1),
]  # fmt: skip
BAD = [0, 8, (1 << 64) - 1, 1 << 47, 0xFFFF800000000000]


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    build(tmp_path)

    def prepare() -> None:
        open_as(os.fsencode(tmp_path / "file"), os.O_RDONLY, 60)
        open_as(os.fsencode(tmp_path / "to-file"), os.O_PATH | os.O_NOFOLLOW, 61)
        os.dup2(os.pipe()[0], 62)

    with calling(ruleset(), tmp_path, prepare) as made:
        yield made


@pytest.mark.parametrize(("name", "args", "at"), CALLS)
def test_hidden_is_absent(tmp_path: Path, name: str, args: tuple[int | bytes, ...], at: int) -> None:
    """A hidden object is ENOENT, logged, by its name and through a link; anything else is untouched."""
    build(tmp_path)
    (tmp_path / "d/link").symlink_to("file")
    rules = ruleset("sandbox/stat:on", "allow/stat+/***", f"deny/stat+{tmp_path}/d/***")
    with calling(rules, tmp_path) as caller:

        def ask(path: bytes) -> int:
            return caller.ours(name, *(path if a == b"{}" else a for a in args))[0]

        for path in (b"d/file", b"d/link", os.fsencode(tmp_path / "d/link"), b"d", b"d/absent", b"to-dir/link", b"d/."):
            assert ask(path) == -ENOENT, path
        assert ask(b"to-file") >= 0


@pytest.mark.parametrize(("name", "args", "at"), CALLS)
@pytest.mark.parametrize("bad", BAD)
def test_bad_path(caller: Caller, name: str, args: tuple[int | bytes, ...], at: int, bad: int) -> None:
    """I2: a pointer that cannot be read is EFAULT, as natively."""
    words = [bad if a == b"{}" else a for a in args]
    assert caller.ours(name, *words)[0] == caller.native(name, *words)[0] == -EFAULT


@pytest.mark.parametrize(("name", "args", "at"), [call for call in CALLS if BUFFER in call[1]])
@pytest.mark.parametrize("bad", BAD)
def test_bad_buffer(caller: Caller, name: str, args: tuple[int | bytes, ...], at: int, bad: int) -> None:
    """I2: a pointer that cannot be written is EFAULT, after the errors of the path."""
    for path in (b"to-file", b"missing", b"file/x"):
        words = [bad if a == BUFFER else path if a == b"{}" else a for a in args]
        assert caller.ours(name, *words)[0] == caller.native(name, *words)[0] < 0


@pytest.mark.parametrize("fd", [60, 61, 62, 0, 99, -1, AT_FDCWD, 1 << 32 | 60])
@pytest.mark.parametrize("path", [b"", 0, b"x"])
def test_descriptors(caller: Caller, fd: int, path: int | bytes) -> None:
    """AT_EMPTY_PATH: the caller's own descriptor, whatever it is; NULL is an empty path as natively."""
    for name, args, size in (
        ("newfstatat", (fd, path, BUFFER, AT_EMPTY_PATH), 144),
        ("statx", (fd, path, AT_EMPTY_PATH, 0x7FF, BUFFER), 140),
        ("faccessat2", (fd, path, 4, AT_EMPTY_PATH), 0), ("readlinkat", (fd, path, BUFFER, 99), 10),
        ("newfstatat", (fd, path, 8, AT_EMPTY_PATH), 0),
    ):  # fmt: skip
        native, ours = caller.native(name, *args), caller.ours(name, *args)
        assert (ours[0], ours[1][:size]) == (native[0], native[1][:size]), name


def test_descriptors_are_not_judged(tmp_path: Path) -> None:
    """What is open may be asked, as by fstat(2), though its name is hidden."""
    build(tmp_path)
    rules = ruleset("sandbox/stat:on", "allow/stat+/***", f"deny/stat+{tmp_path}/***")
    with calling(rules, tmp_path, lambda: open_as(os.fsencode(tmp_path / "file"), os.O_RDONLY, 60)) as caller:
        assert caller.ours("newfstatat", 60, b"", BUFFER, AT_EMPTY_PATH)[0] == 0
        assert caller.ours("statx", 60, b"", AT_EMPTY_PATH, 0x7FF, BUFFER)[0] == 0
        assert caller.ours("newfstatat", AT_FDCWD, b"file", BUFFER, 0)[0] == -ENOENT


def test_links_of_proc(caller: Caller) -> None:
    """/proc/self and its kin say to the caller what they say to it natively; another's links are EACCES."""
    ways = "/proc/self /proc/thread-self /proc/self/exe /proc/self/cwd /proc/self/fd/62 /dev/fd /proc/self/../self"
    for path in (*ways.encode().split(), b"/proc/%d" % caller.pid, b"/proc/%d/exe" % caller.pid):
        for size in (200, 3):
            native, ours = (ask("readlink", path, BUFFER, size) for ask in (caller.native, caller.ours))
            assert (ours[0], ours[1][:200]) == (native[0], native[1][:200]), path
    other = b"/proc/%d/exe" % os.getppid()
    assert caller.ours("readlink", other, BUFFER, 200)[0] == -EACCES
    assert caller.native("readlink", other, BUFFER, 200)[0] > 0 or os.geteuid()


def test_real_ids_count_for_access(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that changed its identity is asked with what the worker put on: its effective ids (B7)."""
    asked: list[int] = []

    def remember(fd: int, path: bytes, mode: int, flags: int) -> int:
        asked.append(flags)
        return 0

    monkeypatch.setattr(access, "raw_faccessat2", remember)
    for changed in (0, 1):
        call = caller.call("access", b"file", 4)
        call.cred_gen = changed
        assert call.run(access.access) == 0
        call.close_kept()
    assert asked == [AT_EMPTY_PATH, AT_EMPTY_PATH | 0x200]
