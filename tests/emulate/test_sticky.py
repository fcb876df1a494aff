"""fs.protected_symlinks, protected_regular and protected_fifos, as fs/namei.c has them, by our own hand."""

from __future__ import annotations

import os
from errno import EACCES
from itertools import product
from typing import TYPE_CHECKING

import pytest

from syd_pool.emulate import sticky
from syd_pool.policy import Ruleset
from tests.emulate.fake import Opened, calling
from tests.emulate.native import unguarded
from tests.emulate.trees import EVERYTHING_ALLOWED

if TYPE_CHECKING:
    from pathlib import Path

ROOT, OTHER, THIRD = 0, 1001, 1002
SETTINGS = ("symlinks", "regular", "fifos")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make files of others"),
]


def allowed() -> Ruleset:
    """Rules that allow everything."""
    rules = unguarded()
    for line in EVERYTHING_ALLOWED:
        rules.apply(line)
    return rules


def directory(top: Path, mode: int, owner: int) -> Path:
    """An empty directory."""
    path = top / f"{mode:o}-{owner}"
    path.mkdir(exist_ok=True)
    path.chmod(mode)
    os.chown(path, owner, owner)
    return path


@pytest.fixture
def settings(monkeypatch) -> dict[str, int]:
    """The three settings, as a test wants them, without touching the machine's."""
    values = dict.fromkeys(SETTINGS, 0)
    monkeypatch.setattr(sticky, "setting", values.__getitem__)
    return values


def refused_link(setting: int, mode: int, owner: int, of_directory: int, fsuid: int) -> bool:
    """may_follow_link()"""
    if not setting or owner == fsuid or mode & 0o1002 != 0o1002:
        return False
    return owner != of_directory


def refused_file(setting: int, mode: int, owner: int, of_directory: int, fsuid: int) -> bool:
    """may_create_in_sticky() of a regular file or a FIFO, whose setting it is"""
    if not mode & 0o1000 or not setting or owner in (of_directory, fsuid):
        return False
    return bool(mode & 0o002 or (mode & 0o020 and setting >= 2))


MODES, OWNERS = (0o1777, 0o777, 0o1775, 0o1755, 0o1707), (ROOT, OTHER, THIRD)


def test_links_at_the_end_of_a_path(tmp_path: Path, settings: dict[str, int]) -> None:
    """Each setting x mode of the directory x its owner x owner of the link, followed by root; in four spellings."""
    (tmp_path / "target").write_text("x")
    for setting, mode, of_directory, owner in product((0, 1), MODES, OWNERS, OWNERS):
        settings["symlinks"] = setting
        where = directory(tmp_path, mode, of_directory)
        link = where / f"link{owner}"
        if not link.is_symlink():
            link.symlink_to("../target")
            os.chown(link, owner, owner, follow_symlinks=False)
        want = refused_link(setting, mode, owner, of_directory, ROOT)
        with calling(allowed(), where) as caller:
            name = link.name.encode()
            for dirfd, path in (
                (-100, os.fsencode(link)),
                (-100, name),
                (-100, b"./" + name),
                (-100, b"../" + os.fsencode(where.name) + b"/" + name),
            ):
                result = caller.ours("newfstatat", dirfd, path, 0, 0)[0]
                assert result in (0, -14, -EACCES)  # -14: no buffer, so it was found
                assert (result == -EACCES) is want, (setting, oct(mode), of_directory, owner, path)
            assert (caller.our_open("open", name, os.O_RDONLY) == -EACCES) is want
            assert isinstance(caller.our_open("open", name, os.O_PATH | os.O_NOFOLLOW), (int, Opened))


def test_links_on_the_way_are_followed(tmp_path: Path, settings: dict[str, int]) -> None:
    """Only the last component counts, and "link/." does not end in the link."""
    settings["symlinks"] = 1
    where = directory(tmp_path, 0o1777, ROOT)
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_text("x")
    (where / "link").symlink_to("../d")
    os.chown(where / "link", OTHER, OTHER, follow_symlinks=False)
    with calling(allowed(), where) as caller:
        for path, want in (
            (b"link/file", False),
            (b"link/.", False),
            (b"link", True),
            (b"link/", True),
            (b"link/../d", False),
        ):
            assert (caller.our_open("open", path, os.O_RDONLY) == -EACCES) is want, path


@pytest.mark.parametrize("kind", ["regular", "fifos"])
def test_what_others_have_put_there_is_not_opened_to_create(
    tmp_path: Path, settings: dict[str, int], kind: str
) -> None:
    """Each setting x mode of the directory x its owner x owner of the file; without O_CREAT it is opened."""
    for setting, mode, of_directory, owner in product((0, 1, 2), MODES, OWNERS, OWNERS):
        settings[kind] = setting
        path = directory(tmp_path, mode, of_directory) / f"file{owner}"
        if not path.exists():
            if kind == "fifos":
                os.mkfifo(path)
            else:
                path.write_text("x")
            os.chown(path, owner, owner)
        want = refused_file(setting, mode, owner, of_directory, ROOT)
        with calling(allowed(), tmp_path) as caller:
            flags = os.O_RDWR | os.O_NONBLOCK
            result = caller.our_open("open", os.fsencode(path), flags | os.O_CREAT, 0o600)
            assert (result == -EACCES) is want, (setting, oct(mode), of_directory, owner)
            assert isinstance(caller.our_open("open", os.fsencode(path), flags), Opened)


def test_the_kernels_answer(tmp_path: Path) -> None:
    """With this machine's own settings the kernel and our handlers answer alike."""
    where = directory(tmp_path, 0o1777, OTHER)
    (tmp_path / "target").write_text("x")
    for owner in OWNERS:
        (where / f"link{owner}").symlink_to("../target")
        (where / f"file{owner}").write_text("x")
        os.mkfifo(where / f"fifo{owner}")
        for name in ("link", "file", "fifo"):
            os.chown(where / f"{name}{owner}", owner, owner, follow_symlinks=False)
    with calling(allowed(), where) as caller:
        for entry in sorted(os.listdir(where)):
            for flags in (os.O_RDWR | os.O_NONBLOCK, os.O_RDWR | os.O_NONBLOCK | os.O_CREAT):
                native = caller.native_open("open", entry.encode(), flags, 0o600)
                assert caller.our_open("open", entry.encode(), flags, 0o600) == native, (entry, flags)
