"""What the options force on look-ups and opens: as the kernel's own RESOLVE_ flags, for every family of calls."""

from __future__ import annotations

import os
from errno import EACCES, ELOOP, ENOENT, EPERM, EXDEV
from typing import TYPE_CHECKING

import pytest

from syd_pool.emulate.chdir import judge_chdir, verify_chdir
from syd_pool.emulate.exec import judge_exec
from syd_pool.emulate.table import in_force
from syd_pool.linux.libc import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV
from syd_pool.policy.forced import forced
from tests.emulate.fake import BUFFER, Caller, Opened, calling, judged, open_as, open_how
from tests.emulate.test_open import ruleset

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT_FDCWD = -100
ALL = ("sandbox/all:on", "allow/all+/***")
FLAGS = {
    "trace/force_no_xdev": RESOLVE_NO_XDEV,
    "trace/force_no_magiclinks": RESOLVE_NO_MAGICLINKS,
    "trace/force_no_symlinks": RESOLVE_NO_SYMLINKS,
}
PROC, ROOT = 60, 61  # descriptors of the caller


def build(top: Path) -> None:
    (top / "d/sub").mkdir(parents=True)
    for name in ("file", "d/file", "d/sub/file"):
        (top / name).write_text(name)
    for name, target in {
        "to-file": "file", "to-dir": "d", "up": "d/..", "abs": f"{top}/d", "null": "/dev/null", "out": "/proc/version",
        "me": "/proc/self/status", "d/back": "../file", "exe": "/proc/self/exe",
    }.items():  # fmt: skip
        (top / name).symlink_to(target)


def caller_of(rules: tuple[str, ...], top: Path) -> Iterator[Caller]:
    build(top)

    def prepare() -> None:
        open_as(b"/proc", os.O_RDONLY, PROC)
        open_as(b"/", os.O_RDONLY, ROOT)

    with calling(ruleset(*ALL, *rules), top, prepare) as made:
        yield made


@pytest.fixture(params=[*FLAGS, None], ids=lambda option: option or "none")
def under(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Caller, int]]:
    """A caller under one of the options, and the flag it stands for."""
    rules = (f"{request.param}:1",) if request.param else ()
    for made in caller_of(rules, tmp_path):
        yield made, FLAGS.get(request.param, 0)


PLACES = (
    "file to-file to-dir to-dir/file d/../file up up/file abs abs/file null out me d/back d/sub/../file . .. / d/ d/. "
    "{top}/file {top}/to-file {top}/abs/file {top}/d/../file {top}/missing /dev/null /dev /proc /proc/version "
    "/proc/self /proc/self/status /proc/thread-self/stat /proc/self/cwd /proc/self/cwd/file /proc/self/root/dev/null "
    "/proc/self/fd/60/version /proc/mounts /dev/fd/0 exe ../{name}/file missing/x /proc/../dev/null"
).split()
# syd 3.52.0 follows the two links of procfs that mean the caller, whatever is forced
SELVES = {"/proc/self", "/proc/self/status", "/proc/thread-self/stat"}
# What a relative path's absolute link means to NO_XDEV: the kernel compares with a root it does not know yet
# (nd_jump_root of fs/namei.c) and says EXDEV to every one; we to those that lead to another mount.
LAX = {"abs", "abs/file", "up"}


@pytest.mark.parametrize("place", PLACES)
def test_as_the_kernel_with_the_flag(under: tuple[Caller, int], tmp_path: Path, place: str) -> None:
    """open(2) under the option answers as openat2(2) with the flag: object and errno."""
    caller, flag = under
    if flag == RESOLVE_NO_XDEV and place in LAX:
        pytest.skip("see LAX")
    path = place.format(top=tmp_path, name=tmp_path.name).encode()
    if flag == RESOLVE_NO_SYMLINKS and place in SELVES:
        assert isinstance(caller.our_open("open", path, os.O_RDONLY), Opened)
        return
    native = caller.native_open("openat2", AT_FDCWD, path, open_how(os.O_RDONLY, 0, flag), 24)
    assert caller.our_open("open", path, os.O_RDONLY) == native
    native = caller.native_open("openat2", AT_FDCWD, path, open_how(os.O_RDONLY, 0, flag | RESOLVE_NO_XDEV), 24)
    if place not in LAX:  # with a flag of its own
        ours = caller.our_open("openat2", AT_FDCWD, path, open_how(os.O_RDONLY, 0, RESOLVE_NO_XDEV), 24)
        assert ours == native


LINKS = {
    b"to-file": RESOLVE_NO_SYMLINKS, b"/proc/self/exe": 6, b"/proc/self/fd/60": 6, b"/proc/self": 0, b"file": 0,
    b"/proc/thread-self": 0, b"/proc/mounts": RESOLVE_NO_SYMLINKS,
}  # fmt: skip


@pytest.mark.parametrize("path", LINKS)
def test_a_link_at_the_end_is_refused_too(under: tuple[Caller, int], path: bytes) -> None:
    """syd(2): all components must be none; also for calls that would not follow it."""
    caller, flag = under
    refused = bool(flag & LINKS[path])
    for name, args in (("lstat", (path, BUFFER)), ("unlink", (path,)), ("rename", (path, b"/dev/null/x"))):
        assert (caller.ours(name, *args)[0] == -ELOOP) == refused or flag == RESOLVE_NO_XDEV, name
    if path not in (b"file", b"/proc/self", b"/proc/thread-self"):
        assert (caller.ours("readlink", path, BUFFER, 99)[0] == -ELOOP) == refused


@pytest.mark.parametrize("place", ["version", "self/status", "self/root/dev", "../dev", "../etc", "."])
@pytest.mark.parametrize("dirfd", [PROC, ROOT])
def test_from_a_directory_of_the_caller(under: tuple[Caller, int], dirfd: int, place: str) -> None:
    """What is below a dirfd in another mount may be reached from there."""
    caller, flag = under
    if flag == RESOLVE_NO_SYMLINKS and dirfd == PROC and place.startswith("self/s"):
        assert isinstance(caller.our_open("openat", dirfd, place.encode(), os.O_RDONLY), Opened)
        return
    native = caller.native_open("openat2", dirfd, place.encode(), open_how(os.O_RDONLY, 0, flag), 24)
    assert caller.our_open("openat", dirfd, place.encode(), os.O_RDONLY) == native


# call -> its arguments with {} for the path; all but the last component is followed by every one
FAMILIES: dict[str, tuple[object, ...]] = {
    "stat": (b"{}", BUFFER), "lstat": (b"{}/.", BUFFER), "newfstatat": (AT_FDCWD, b"{}", BUFFER, 0),
    "statx": (AT_FDCWD, b"{}", 0, 0xFFF, BUFFER), "access": (b"{}", 0), "faccessat2": (AT_FDCWD, b"{}", 0, 0),
    "readlink": (b"{}/to-file", BUFFER, 99),
    "mkdir": (b"{}/m", 0o700), "rmdir": (b"{}/sub", ), "unlink": (b"{}/file",), "rename": (b"{}/file", b"{}/f2"),
    "link": (b"{}/file", b"{}/f3"), "symlink": (b"x", b"{}/s"), "truncate": (b"{}/file", 0), "statfs": (b"{}", BUFFER),
    "chmod": (b"{}", 0o700), "chown": (b"{}", -1 & 0xFFFFFFFF, -1 & 0xFFFFFFFF), "utimes": (b"{}", 0),
    "mknod": (b"{}/n", 0o100600, 0), "getxattr": (b"{}", b"user.x", BUFFER, 9), "listxattr": (b"{}", BUFFER, 9),
    "setxattr": (b"{}", b"user.x", b"1", 1, 0), "removexattr": (b"{}", b"user.x"),
}  # fmt: skip
WAYS = {
    "trace/force_no_xdev": (b"/dev", EXDEV),
    "trace/force_no_magiclinks": (b"/proc/self/cwd", ELOOP),
    "trace/force_no_symlinks": (b"to-dir", ELOOP),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("option", WAYS)
def test_every_family_is_stopped(tmp_path: Path, option: str, name: str) -> None:
    """The same call does something else without the option."""
    way, errno = WAYS[option]
    args = [a.replace(b"{}", way) if isinstance(a, bytes) else a for a in FAMILIES[name]]
    for caller in caller_of((f"{option}:1",), tmp_path / "on"):
        assert caller.ours(name, *args)[0] == -errno  # type: ignore[arg-type]
    if way != b"/dev":
        for caller in caller_of((), tmp_path / "off"):
            assert caller.ours(name, *args)[0] != -errno, "control"  # type: ignore[arg-type]


def test_exec_and_chdir(under: tuple[Caller, int]) -> None:
    """Both are judged on the way; interpreter and loader are the kernel's to find."""
    caller, flag = under
    for path, stopped_by in ((b"/proc/self/exe", 7), (b"to-file", RESOLVE_NO_SYMLINKS), (b"exe", 7)):
        errno = judged(judge_exec, caller.call("execve", path, 0, 0)).errno
        assert (errno in (ELOOP, EXDEV)) == bool(flag & stopped_by), (path, errno)
    program = os.path.realpath("/usr/bin/env").encode()
    if os.stat(program).st_dev == os.stat("/").st_dev:
        assert judged(judge_exec, caller.call("execve", program, 0, 0)).errno == 0
    for path, stopped_by in ((b"/proc/self/cwd", 7), (b"to-dir", RESOLVE_NO_SYMLINKS), (b"/proc", RESOLVE_NO_XDEV)):
        errno = judged(judge_chdir, caller.call("chdir", path)).errno
        assert (errno in (ELOOP, EXDEV)) == bool(flag & stopped_by), (path, errno)


def test_where_a_chdir_really_led(tmp_path: Path) -> None:
    """Who is elsewhere than judged came by a way that nobody has seen: killed; without an option the place decides."""
    for rules, kept in (("trace/force_no_symlinks:1", False), ("trace/deny_dotdot:1", False), ("lock:off", True)):
        for caller in caller_of((rules,), tmp_path / rules.replace("/", "-")):
            verdict = judged(judge_chdir, caller.call("chdir", b"d"))
            caller.do(os.chdir, "d/sub")
            assert verify_chdir(caller.call("chdir", b"d"), verdict.directory) is kept
            caller.do(os.chdir, "..")
            assert verify_chdir(caller.call("chdir", b"d"), verdict.directory)


def test_magic_links_are_not_listed(tmp_path: Path) -> None:
    """syd(2): proc(5) is listed without what could not be followed."""
    for rules, seen in ((("trace/force_no_magiclinks:1",), False), ((), True)):
        for caller in caller_of(rules, tmp_path / str(seen)):
            fd = caller.do(os.open, "/proc/self", os.O_RDONLY)
            found = caller.ours("getdents64", fd, BUFFER, 8000)[1]
            assert (b"\0cwd\0" in found or b"\x0acwd\0" in found) is seen
            assert b"status\0" in found
            fd = caller.do(os.open, "/proc", os.O_RDONLY)
            assert b"self\0" in caller.ours("getdents64", fd, BUFFER, 16000)[1]


# --- trace/deny_dotdot -----------------------------------------------------------------------------------

DOTS = ("..", "../{name}/file", "d/../file", "{top}/d/../file", "/../etc", "up", "up/file", "d/back", "d/..", "x/..")


@pytest.mark.parametrize("place", DOTS)
def test_dotdot(tmp_path: Path, place: str) -> None:
    """EACCES for open and chdir, in links too, whether it is there or not; other calls may (syd 3.52.0)."""
    path = place.format(top=tmp_path / "on", name="on").encode()
    for caller in caller_of(("trace/deny_dotdot:1",), tmp_path / "on"):
        for flags in (0, os.O_CREAT, os.O_PATH, os.O_CREAT | os.O_EXCL):
            if not (flags & os.O_EXCL and place in ("up", "d/back")):
                assert caller.our_open("open", path, flags) == -EACCES
        assert caller.our_open("openat2", AT_FDCWD, path, open_how(0, 0, RESOLVE_NO_XDEV), 24) == -EACCES
        assert caller.our_open("openat2", AT_FDCWD, path, open_how(os.O_CREAT, 0, RESOLVE_BENEATH), 24) == -EACCES
        assert judged(judge_chdir, caller.call("chdir", path)).errno == EACCES
        assert caller.ours("stat", path, BUFFER)[0] in (0, -ENOENT)
        for good in (b"file", b"to-file", b"abs/sub/file", b"..d"):
            assert isinstance(caller.our_open("open", good, 0), Opened) or good == b"..d"
        assert judged(judge_chdir, caller.call("chdir", b"abs")).errno == 0
    for caller in caller_of((), tmp_path / "off"):
        assert caller.our_open("open", path, 0) != -EACCES, "control"
        assert judged(judge_chdir, caller.call("chdir", path)).errno != EACCES, "control"


# --- trace/force_ro_open ----------------------------------------------------------------------------------

CHANGES = (
    (b"file", os.O_WRONLY), (b"file", os.O_RDWR), (b"file", os.O_CREAT), (b"new", os.O_CREAT), (b"file", os.O_TRUNC),
    (b"missing/x", os.O_WRONLY), (b".", os.O_WRONLY | os.O_TMPFILE), (b"/dev/null", os.O_WRONLY), (b"file", 3),
)  # fmt: skip


@pytest.mark.parametrize(("path", "flags"), CHANGES)
def test_read_only_opens(tmp_path: Path, path: bytes, flags: int) -> None:
    """EPERM whatever the path; reading and O_PATH may be (syd 3.52.0)."""
    for caller in caller_of(("trace/force_ro_open:1",), tmp_path / "on"):
        assert caller.our_open("open", path, flags, 0o600) == -EPERM
        how = open_how(flags, 0o600 if flags & (os.O_CREAT | os.O_TMPFILE) else 0)
        assert caller.our_open("openat2", AT_FDCWD, path, how, 24) == -EPERM
        assert caller.our_open("creat", path, 0o600) == -EPERM
        for good in (os.O_RDONLY, os.O_PATH, os.O_PATH | os.O_WRONLY, os.O_APPEND):
            assert isinstance(caller.our_open("open", b"file", good), Opened)
        assert not (tmp_path / "on/new").exists()
    for caller in caller_of((), tmp_path / "off"):
        assert caller.our_open("open", path, flags, 0o600) != -EPERM, "control"


# --- what is notified -------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", FLAGS)
def test_paths_are_ours_with_every_category_off(option: str) -> None:
    """An option that forces something brings the calls that it is about."""
    assert forced({option: True}) == (FLAGS[option], 0, 0)
    off = ruleset("lock:on")
    assert "stat" not in {row[0] for row in in_force(off)}
    on = {row[0] for row in in_force(ruleset(f"{option}:1", "lock:on"))}
    assert {"stat", "execve", "chdir", "mkdir", "getdents64", "connect", "inotify_add_watch", "getxattr"} <= on
    assert {"chdir"} <= {row[0] for row in in_force(ruleset("trace/deny_dotdot:1", "lock:on"))}


@pytest.mark.parametrize("option", [*FLAGS, "trace/deny_dotdot", "trace/force_ro_open"])
def test_an_edit_counts_at_once(tmp_path: Path, option: str) -> None:
    """On, off, and back after a failed file (restore)."""
    path, flags = {"trace/force_no_xdev": (b"/dev/null", 0), "trace/force_no_magiclinks": (b"/proc/self/cwd", 0),
                   "trace/force_no_symlinks": (b"to-file", 0), "trace/deny_dotdot": (b"d/../file", 0)}.get(
                       option, (b"file", os.O_WRONLY))  # fmt: skip
    for caller in caller_of((), tmp_path):
        assert isinstance(caller.our_open("open", path, flags), Opened)
        before = caller.rules.save()
        caller.rules.apply(f"{option}:1")
        assert isinstance(caller.our_open("open", path, flags), int)
        caller.rules.restore(before)
        assert isinstance(caller.our_open("open", path, flags), Opened)
        caller.rules.apply(f"{option}:1")
        caller.rules.reset()
        assert not caller.rules.resolve
        assert not caller.rules.opens
