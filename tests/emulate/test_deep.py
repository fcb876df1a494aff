"""Directories that are too deep for the kernel to name: their text, and that the rules judge it."""

from __future__ import annotations

import os
from errno import EACCES, ENAMETOOLONG
from typing import TYPE_CHECKING

import pytest

from syd_pool.emulate import deep
from syd_pool.emulate.paths import text_of
from tests.emulate.fake import Opened, calling
from tests.emulate.native import unguarded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEVELS = 24  # of 200 bytes


@pytest.fixture
def bottom(tmp_path: Path) -> Iterator[tuple[int, bytes]]:
    """The lowest directory, open, and its path; a file and a directory of another name are beside each one."""
    text = os.fsencode(tmp_path)
    fd = os.open(text, os.O_RDONLY | os.O_DIRECTORY)
    for level in range(LEVELS):
        name = b"%03d" % level + b"x" * 197
        os.mkdir(name, dir_fd=fd)
        os.mkdir(b"beside", dir_fd=fd)
        os.close(os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd, text = below, text + b"/" + name
    os.close(os.open(b"secret", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    yield fd, text
    os.close(fd)


def test_text(bottom: tuple[int, bytes]) -> None:
    """What the kernel refuses to say is put together, for any descriptor of the directory."""
    fd, text = bottom
    with pytest.raises(OSError) as refused:
        os.readlink(f"/proc/self/fd/{fd}")
    assert refused.value.errno == ENAMETOOLONG, "control"
    assert text_of(fd) == text and len(text) > 4800
    held = os.open(b".", os.O_PATH, dir_fd=fd)
    assert text_of(held) == text
    os.close(held)


def test_no_directory_and_no_end(bottom: tuple[int, bytes], monkeypatch) -> None:
    """A file has nothing above it to be asked; and there is an end to what is looked at."""
    fd, _ = bottom
    file = os.open(b"secret", os.O_PATH, dir_fd=fd)
    for limit in (None, "_MOST_LEVELS", "_MOST_ENTRIES"):
        if limit:
            monkeypatch.setattr(deep, limit, 3)
        deep._known.clear()
        with pytest.raises(OSError) as refused:
            text_of(fd if limit else file)
        assert refused.value.errno == ENAMETOOLONG
        monkeypatch.undo()
    os.close(file)


def test_directories_that_are_exchanged_meanwhile(bottom: tuple[int, bytes], monkeypatch) -> None:
    """Another directory under the names that were found is an error, never a text."""
    fd, text = bottom
    leads_to = deep._leads_to
    top = text[: text.index(b"/000")]
    first = text[: text.index(b"/001")]

    def later(text: bytes, wanted: os.stat_result) -> bool:
        if not os.path.exists(top + b"/away"):
            os.rename(first, top + b"/away")
            os.mkdir(first)
        return leads_to(text, wanted)

    monkeypatch.setattr(deep, "_leads_to", later)
    with pytest.raises(OSError):
        text_of(fd)


def test_a_directory_that_was_moved_since(bottom: tuple[int, bytes]) -> None:
    """What a directory was called before is tried, not believed."""
    fd, text = bottom
    assert text_of(fd) == text
    first = text[: text.index(b"/001")]
    os.rename(first, first[:-1] + b"y")
    assert text_of(fd) == first[:-1] + b"y" + text[len(first) :]
    os.rename(first[:-1] + b"y", first)
    assert text_of(fd) == text


def test_rules_down_there(bottom: tuple[int, bytes]) -> None:
    """Relative calls in it, and by descriptors of it, work as natively and are judged by the whole path."""
    fd, text = bottom
    rules = unguarded()
    top = text[: text.index(b"/000")].decode()
    for rule in ("sandbox/all:on", "allow/all+/***", f"deny/read,delete+{top}/***/secret", f"deny/mkdir+{top}/***/00*"):
        rules.apply(rule)
    os.set_inheritable(fd, True)

    def go_down() -> None:
        os.fchdir(fd)
        os.dup2(fd, 150)

    with calling(rules, "/", go_down) as caller:
        for dirfd in (-100, 150):
            assert caller.our_open("openat", dirfd, b"secret", os.O_RDONLY, 0) == -EACCES
            assert caller.ours("mkdirat", dirfd, b"00", 0o777)[0] == -EACCES
            assert caller.ours("unlinkat", dirfd, b"secret", 0)[0] == -EACCES
            assert isinstance(caller.our_open("openat", dirfd, b"secret", os.O_WRONLY, 0), Opened)
            assert caller.ours("mkdirat", dirfd, b"fine%d" % (dirfd > 0), 0o777)[0] == 0
            assert isinstance(caller.our_open("openat", dirfd, b"../file", os.O_RDONLY, 0), Opened)
        assert isinstance(caller.native_open("openat", -100, b"secret", os.O_RDONLY, 0), Opened), "control"
