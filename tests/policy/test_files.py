"""Configuration files, includes and profiles (syd(5))."""

from __future__ import annotations

import os
from errno import EACCES, EBADFD, EILSEQ, EINVAL, ELOOP, ENOENT, EOPNOTSUPP, EPERM
from pathlib import Path

import pytest

from syd_pool.policy import Ruleset, expand, files
from syd_pool.policy.categories import LOCK_DEFAULTS
from syd_pool.policy.errors import BadRule
from syd_pool.policy.files import left_out, profile_commands


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory whose path has no symbolic link."""
    place = tmp_path.resolve()
    monkeypatch.chdir(place)
    return place


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o644)
    return path


def refused(path: str | Path) -> BadRule:
    with pytest.raises(BadRule) as caught:
        Ruleset().load(str(path))
    return caught.value


def test_lines(folder: Path) -> None:
    """Comments and blank lines are skipped; the last line may lack its end."""
    write(folder / "a.syd-3", "# one\n\n   \nsandbox/stat:on\nallow/stat+/x#y\nlock:off")
    rules = Ruleset()
    rules.load("./a.syd-3")
    assert rules.lock == "off"
    assert rules.explain("stat", b"/x#y") == "allow/stat+/x#y"


@pytest.mark.parametrize(
    ("text", "errno", "line"),
    [
        ("lock:off\n\nfoo:1\n", EINVAL, 3),
        ("  lock:off\n", EINVAL, 1),
        ("lock:off # no comments here\n", EINVAL, 1),
        ("lock:off\r\n", EINVAL, 1),
        ("lock:on\nlock:off\n", EPERM, 2),
        ("\n\nunshare/user:1\n", EOPNOTSUPP, 3),
        (b"lock:off\n\xff\n", EILSEQ, 2),
        ("include\n", EINVAL, 1),
        ("include nowhere.syd-3\n", ENOENT, 1),
        ("include ../a.syd-3\n", EPERM, 1),
        ("include a.txt\n", EOPNOTSUPP, 1),
        ("include a.netset\n", ENOENT, 1),
        ("include_profile nope\n", EINVAL, 1),
        ("include_profile container\n", EOPNOTSUPP, 1),
        ("include main.syd-3\n", ELOOP, 1),
        ("lock:on\ninclude main.syd-3\n", EPERM, 2),
        ("load/3\n", EINVAL, 1),
    ],
)
def test_a_wrong_line_is_named(folder: Path, text: str | bytes, errno: int, line: int) -> None:
    """The message begins with file and line; the errno is the exit status."""
    path = write(folder / "main.syd-3", text)
    error = refused(path)
    assert error.errno == errno
    assert str(error).startswith(f"{path}:{line}: ")


def test_include_is_relative_to_the_file(folder: Path) -> None:
    """Not to the working directory; twice is no loop; profiles too; variables are expanded."""
    write(folder / "sub" / "inner.syd-3", "allow/stat+/inner\n")
    write(folder / "inner.syd-3", "allow/stat+/wrong\n")
    write(
        folder / "sub" / "main.syd-3",
        "include inner.syd-3\ninclude ${NOPE:-inner}.syd-3\ninclude_profile h\n",
    )
    rules = Ruleset()
    rules.load(str(folder / "sub" / "main.syd-3"))
    assert "stat" in rules.enabled
    assert rules.explain("stat", b"/inner") == "allow/stat+/inner"
    assert rules.explain("stat", b"/wrong") == "default/stat:deny"


def test_an_error_in_an_included_file_names_that_file(folder: Path) -> None:
    inner = write(folder / "inner.syd-3", "\nbad\n")
    write(folder / "main.syd-3", "include inner.syd-3\n")
    assert refused(folder / "main.syd-3").source == f"{inner}:2"


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o622])
def test_include_refuses_files_that_others_may_write(folder: Path, mode: int) -> None:
    write(folder / "inner.syd-3", "lock:off\n").chmod(mode)
    write(folder / "main.syd-3", "include inner.syd-3\n")
    assert refused(folder / "main.syd-3").errno == EACCES


def test_a_loop_over_two_files(folder: Path) -> None:
    write(folder / "a.syd-3", "include b.syd-3\n")
    write(folder / "b.syd-3", "include a.syd-3\n")
    assert refused(folder / "a.syd-3").errno == ELOOP


def test_which_files_are_read(folder: Path) -> None:
    """Suffix, symbolic links anywhere, `..`, kinds of files."""
    write(folder / "ok.syd-3", "lock:off\n")
    (folder / "link.syd-3").symlink_to("ok.syd-3")
    (folder / "dir").symlink_to(".")
    (folder / "folder.syd-3").mkdir()
    os.mkfifo(folder / "fifo.syd-3")
    for name, errno in {
        "ok.txt": EOPNOTSUPP,
        "ok.syd-2": EOPNOTSUPP,
        "/dev/null": EOPNOTSUPP,
        "none.syd-3": ENOENT,
        "link.syd-3": ELOOP,
        "dir/ok.syd-3": ELOOP,
        "folder.syd-3/../ok.syd-3": EPERM,
        "folder.syd-3": EBADFD,
        "fifo.syd-3": EBADFD,
    }.items():
        assert refused(name).errno == errno, name


def test_profiles() -> None:
    """By name, other name and joined letters; what is not built is refused as such, what is unknown too."""
    rules = Ruleset()
    rules.profile("MP")
    assert rules.option("allow_unsafe_exec_memory") is True
    assert rules.option("allow_unsafe_exec_nopie") is True
    rules.profile("lib")
    assert not rules.enabled
    assert rules.lock == "exec"
    refusals = dict.fromkeys(("", "nope", "zz", "OFF", "../off"), EINVAL)
    refusals |= dict.fromkeys(("container", "i", "immutable", "MPc"), EOPNOTSUPP)
    for name, errno in refusals.items():
        with pytest.raises(BadRule) as caught:
            rules.profile(name)
        assert caught.value.errno == errno, name


def test_only_profiles_may_leave_lines_out(folder: Path) -> None:
    """if_built and unbuilt are no commands in a user's file: a line there is carried out or refused."""
    for line in ("if_built trace/force_rand_fd:1", "unbuilt nothing", "if_exists allow/lock/read+/usr"):
        assert refused(write(folder / "x.syd-3", line + "\n")).errno == EINVAL


def test_what_a_profile_leaves_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines that are not in force, with their place and the reason, also of a profile within."""
    texts = {"hide": "include_profile quiet\nsandbox/walk:on\n", "quiet": "if_built crypt+/x\nif_built lock:off\n"}
    monkeypatch.setattr(files, "text_of", texts.__getitem__)
    rules = Ruleset()
    missing = dict(left_out(rules, "hide"))
    assert list(missing) == ["quiet.syd-3:1: crypt+/x"] and all(missing.values())
    assert "walk" in rules.enabled and rules.lock == "off"


def test_lock_rules_of_profiles_are_for_paths_that_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """if_exists: at the start and where the path is there; a running sandbox takes no lock rule."""
    monkeypatch.chdir(tmp_path)
    rules = Ruleset()
    rules.profile("cwd")
    assert ("write", str(tmp_path)) in rules.landlock
    assert profile_commands(rules, "cwd") == [f"allow/all+{tmp_path}/***"]
    monkeypatch.setitem(expand._COMPUTED, "SYD_PWD", lambda: "/no/such/place")
    rules = Ruleset()
    rules.profile("cwd")
    assert rules.landlock == list(LOCK_DEFAULTS)


def test_a_profile_may_be_locked_out() -> None:
    """lock:on inside a site-wide file keeps later sources from being read."""
    rules = Ruleset()
    rules.apply("lock:on")
    with pytest.raises(BadRule):
        rules.profile("off")
    assert rules.enabled
