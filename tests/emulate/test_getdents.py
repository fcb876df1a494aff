"""getdents64."""

from __future__ import annotations

import os
import struct
from errno import EBADF, EFAULT, EINVAL, ENOTDIR
from typing import TYPE_CHECKING

import pytest

from tests.emulate.fake import BUFFER, Caller, calling, open_as
from tests.emulate.native import raw
from tests.emulate.test_open import ruleset

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DIRECTORY, FILE, HELD, PIPE = 60, 61, 62, 63
COUNT = 300


def build(top: Path) -> None:
    for i in range(COUNT):
        (top / f"{'seen' if i % 3 else 'hidden'}-{i:03}-{'x' * (i % 40)}").touch()


def prepare(top: Path) -> Callable[[], None]:
    def hold() -> None:
        open_as(os.fsencode(top), os.O_RDONLY, DIRECTORY)
        open_as(b"/etc/passwd", os.O_RDONLY, FILE)
        open_as(os.fsencode(top), os.O_PATH, HELD)
        os.dup2(os.pipe()[0], PIPE)

    return hold


def entries(buffer: bytes) -> list[tuple[int, int, int, int, bytes]]:
    """Packed entries without the padding, which the kernel does not write: inode, offset, size, type, name."""
    found, at = [], 0
    while at < len(buffer):
        inode, offset, size, kind = struct.unpack_from("QqHB", buffer, at)
        found.append((inode, offset, size, kind, buffer[at + 19 : buffer.index(0, at + 19)]))
        at += size
    return found


def names(buffer: bytes) -> list[bytes]:
    """The names of packed entries."""
    return [entry[-1] for entry in entries(buffer)]


def listing(caller: Caller, size: int, number: int = DIRECTORY) -> list[bytes]:
    """Everything our handler gives until it says 0."""
    caller.do(os.lseek, number, 0, os.SEEK_SET)
    found: list[bytes] = []
    while True:
        length, buffer = caller.ours("getdents64", number, BUFFER, size)
        assert length >= 0
        if not length:
            return found
        found += names(buffer[:length])


@pytest.mark.parametrize("size", [100, 500, 4096, 16000])
def test_whole_directory(tmp_path: Path, size: int) -> None:
    """The kernel's entries, chunk by chunk, and the end where it is, for every size of buffer."""
    build(tmp_path)
    with calling(ruleset(), tmp_path, prepare(tmp_path)) as caller:
        native: list[tuple[int, bytes]] = []
        while not native or native[-1][0]:
            result, buffer = caller.native("getdents64", DIRECTORY, BUFFER, size)
            native.append((result, buffer[: max(result, 0)]))
        caller.do(os.lseek, DIRECTORY, 0, os.SEEK_SET)
        for result, expected in native:
            ours, buffer = caller.ours("getdents64", DIRECTORY, BUFFER, size)
            assert ours == result and entries(buffer[:ours]) == entries(expected)


@pytest.mark.parametrize("size", [100, 4096])
def test_hidden_entries_are_cut(tmp_path: Path, size: int) -> None:
    """Hidden names do not appear, others all do, and a chunk of hidden ones is not the end."""
    build(tmp_path)
    rules = ruleset("sandbox/stat:on", "allow/stat+/***", f"deny/stat+{tmp_path}/hidden-*")
    with calling(rules, tmp_path, prepare(tmp_path)) as caller:
        expected = {os.fsencode(n) for n in os.listdir(tmp_path) if n.startswith("seen")} | {b".", b".."}
        found = listing(caller, size)
        assert set(found) == expected and len(found) == len(expected)
    rules = ruleset("sandbox/stat:on", "allow/stat+/***", f"deny/stat+{tmp_path}/*")
    with calling(rules, tmp_path, prepare(tmp_path)) as caller:
        assert sorted(listing(caller, 200)) == [b".", b".."]


def test_padding_is_not_of_another_directory(tmp_path: Path) -> None:
    """What the kernel leaves untouched between entries is zero, not what somebody else's directory held."""
    build(tmp_path)
    (tmp_path / "few").mkdir()
    (tmp_path / "few/x").touch()
    with calling(ruleset(), tmp_path, prepare(tmp_path)) as caller:
        listing(caller, 4096)
        caller.do(open_as, os.fsencode(tmp_path / "few"), os.O_RDONLY, FILE)
        length, buffer = caller.ours("getdents64", FILE, BUFFER, 4096)
        for entry in entries(buffer[:length]):
            size, name = entry[2], entry[4]
            start = buffer.index(name + b"\0", 19)
            assert not any(buffer[start + len(name) : start + size - 19])


def test_errors(tmp_path: Path) -> None:
    """EBADF, ENOTDIR, EINVAL for a buffer too small, EFAULT, as natively; EFAULT costs no entry."""
    build(tmp_path)
    with calling(ruleset(), tmp_path, prepare(tmp_path)) as caller:
        for args, errno in (
            ((999, BUFFER, 4096), EBADF), ((-1, BUFFER, 4096), EBADF), ((FILE, BUFFER, 4096), ENOTDIR),
            ((HELD, BUFFER, 4096), EBADF), ((PIPE, BUFFER, 4096), ENOTDIR), ((DIRECTORY, BUFFER, 10), EINVAL),
            ((DIRECTORY, BUFFER, 0), EINVAL), ((DIRECTORY, 8, 4096), EFAULT),
        ):  # fmt: skip
            caller.do(os.lseek, DIRECTORY, 0, os.SEEK_SET)
            assert caller.native("getdents64", *args)[0] == -errno, args
            caller.do(os.lseek, DIRECTORY, 0, os.SEEK_SET)
            assert caller.ours("getdents64", *args)[0] == -errno, args
            assert caller.do(os.lseek, DIRECTORY, 0, os.SEEK_CUR) == 0


def test_the_offset_is_the_callers(tmp_path: Path) -> None:
    """What we read counts as read in the caller, also for its own next getdents64."""
    build(tmp_path)
    with calling(ruleset(), tmp_path, prepare(tmp_path)) as caller:
        length, buffer = caller.ours("getdents64", DIRECTORY, BUFFER, 1000)
        length2, buffer2 = caller.native("getdents64", DIRECTORY, BUFFER, 1000)
        assert length > 0 and length2 > 0
        assert not set(names(buffer[:length])) & set(names(buffer2[:length2]))


def test_our_processes_are_not_in_proc(tmp_path: Path) -> None:
    """Our pids are cut from procfs, not from a directory that only looks like it."""
    (tmp_path / str(os.getpid())).touch()

    def hold() -> None:
        open_as(b"/proc", os.O_RDONLY, DIRECTORY)
        open_as(os.fsencode(tmp_path), os.O_RDONLY, FILE)

    with calling(ruleset(), tmp_path, hold) as caller:
        for number, there in ((DIRECTORY, False), (FILE, True)):
            call = caller.call("getdents64", number, BUFFER, 16000)
            call.own_pids = {os.getpid()}
            length = call.run(handler())
            call.close_kept()
            assert length is not None and length > 0
            buffer = caller.do(_buffer, length)
            assert (b"%d" % os.getpid() in names(buffer)) is there
            if number == DIRECTORY:
                assert b"%d" % caller.pid in names(buffer)  # positive control


def handler() -> Callable[..., int]:
    from syd_pool.emulate.getdents import getdents64

    return getdents64


def _buffer(length: int) -> bytes:
    import ctypes

    return ctypes.string_at(BUFFER, length)


def test_the_control_is_the_kernel() -> None:
    """The comparison would notice: an open directory read natively gives entries."""
    fd = os.open("/", os.O_RDONLY)
    assert raw("getdents64", fd, BUFFER, 4096) > 0
    os.close(fd)
