"""The guards of files that are on unless an option lifts them, each with the same call under its option.

Errnos are those of syd 3.52.0, measured; natively every one of these calls succeeds.
"""

from __future__ import annotations

import os
from errno import EACCES, EEXIST, EILSEQ, EINVAL, ELOOP, ENODATA, ENOENT, ENOSYS, EPERM, ERANGE
from typing import TYPE_CHECKING

import pytest

from syd_pool.emulate.chdir import judge_chdir
from syd_pool.emulate.exec import judge_exec
from syd_pool.emulate.filenames import safe
from syd_pool.emulate.link import _may_be_linked
from syd_pool.emulate.substitute import masked, original
from syd_pool.linux.libc import RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS
from syd_pool.policy import Ruleset
from tests.emulate.fake import BUFFER, Caller, Opened, calling, judged, open_how
from tests.emulate.trees import handler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT_FDCWD = -100
C, W, X, RW = os.O_CREAT, os.O_WRONLY, os.O_EXCL, os.O_RDWR
OTHER = 1001


def callers(top: Path, option: str) -> Iterator[tuple[Caller, bool]]:
    """A caller under the guard, and one under its option, each in a directory of its own: (caller, guarded)."""
    for guarded in (True, False):
        place = top / str(guarded)
        place.mkdir(parents=True)
        place.chmod(0o755)  # what makes files in this process leaves its umask at 0
        rules = Ruleset()
        rules.profile("off")
        for rule in ("sandbox/all:on", "allow/all+/***", *(() if guarded else (f"trace/{option}:1",))):
            rules.apply(rule)
        with calling(rules, place, lambda: os.umask(0) and None) as caller:
            yield caller, guarded


# --- names ------------------------------------------------------------------------------------------------

BAD = [
    b"a\x01", b"a\x7f", b"a\nb", b"a*", b"a?", b"a[", b"a]", b'a"', b"a<b", b"a>", b"a|", b"a(", b"a)", b"a&", b"a'",
    b"a!", b"a\\", b"a;", b"a$", b"a`", b"-a", b"~a", b" a", b"a ", b"a\xff", "\xa0a".encode(), "a\x85".encode(), b"[",
]  # fmt: skip
GOOD = [b"a b", b"a-", b"a~", b"a:b", b"a{}", b"a=", b"a%", b"a#", b"a+", b"a@", b"a,b", "ä".encode(), b"a^", b".a",
        "a\u2028b".encode()]  # fmt: skip


@pytest.mark.parametrize("name", BAD + GOOD)
def test_names(name: bytes) -> None:
    """What may be a name is what syd 3.52.0 takes."""
    assert safe[name] is (name in GOOD)


@pytest.mark.parametrize("name", [b"a*", b" a", b"a\xff"])
def test_an_unsafe_name_cannot_be_made_or_reached(tmp_path: Path, name: bytes) -> None:
    """EILSEQ for every family, by path, relative path, dirfd and link; what is missing is ENOENT."""
    calls: list[tuple[str, tuple[int | bytes, ...]]] = [
        ("mkdir", (b"new" + name, 0o700)), ("symlink", (b"x", b"l" + name)), ("mknod", (b"n" + name, 0o100600, 0)),
        ("stat", (name, BUFFER)), ("chmod", (name, 0o600)), ("truncate", (name, 0)), ("access", (name, 0)),
        ("link", (b"file", b"h" + name)), ("link", (name, b"h")), ("rename", (b"file", name)),
        ("rename", (name, b"file2")), ("stat", (b"link", BUFFER)), ("unlink", (name + b"2",)),
        ("rmdir", (name + b"d",)),
    ]  # fmt: skip
    if name == b" a":  # new names end in it: only its beginning is unsafe
        calls = [(call, args) for call, args in calls if name in args]
    for caller, guarded in callers(tmp_path, "allow_unsafe_filename"):
        place = os.fsencode(tmp_path / str(guarded)) + b"/"
        for made in (name, b"file", name + b"2"):
            (tmp_path / str(guarded) / os.fsdecode(made)).write_text("x")
        os.mkdir(place + name + b"d")
        os.symlink(name, place + b"link")
        (tmp_path / str(guarded) / "-d").mkdir()
        for path in (name, place + name, b"link", place + b"link", b"./" + name):
            assert (caller.our_open("open", path, 0) == -EILSEQ) == guarded
        assert (
            caller.our_open("open", b"made" + name if name != b" a" else b" made", C | W, 0o600) == -EILSEQ
        ) == guarded
        how = open_how(0, 0, RESOLVE_BENEATH)
        assert (caller.our_open("openat2", AT_FDCWD, name, how, 24) == -EILSEQ) == guarded
        assert (judged(judge_exec, caller.call("execve", name, 0, 0)).errno == EILSEQ) == guarded
        assert (judged(judge_chdir, caller.call("chdir", name + b"d")).errno == EILSEQ) == guarded
        for call, args in calls:
            assert (caller.ours(call, *args)[0] == -EILSEQ) == guarded, (call, args)
        assert caller.ours("stat", b"missing" + name, BUFFER)[0] == -ENOENT
        assert caller.ours("readlink", b"link", BUFFER, 99)[0] == len(name)
        assert isinstance(caller.our_open("open", b"-d/made", C | W, 0o600), Opened), "only the last name counts"


def test_unsafe_names_are_not_listed(tmp_path: Path) -> None:
    """Hidden as what `stat` hides."""
    for caller, guarded in callers(tmp_path, "allow_unsafe_filename"):
        for name in ("good", "ba*d", "-bad"):
            (tmp_path / str(guarded) / name).write_text("")
        fd = caller.do(os.open, ".", os.O_RDONLY)
        found = caller.ours("getdents64", fd, BUFFER, 8000)[1]
        assert b"good\0" in found
        assert (b"ba*d\0" in found) is (b"-bad\0" in found) is not guarded


# --- links ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1755, 0o1777])
def test_a_link_in_a_shared_directory_is_not_followed(tmp_path: Path, mode: int) -> None:
    """ELOOP, at the end or on the way; the link itself can be looked at; links elsewhere are followed."""
    for caller, guarded in callers(tmp_path, "allow_unsafe_symlinks"):
        top = tmp_path / str(guarded)
        for name, bits in (("shared", mode), ("own", 0o755)):
            (top / name / "d").mkdir(parents=True)
            (top / name / "f").write_text("x")
            (top / name / "d/f").write_text("x")
            (top / name / "l").symlink_to("f")
            (top / name / "dl").symlink_to("d")
            (top / name).chmod(bits)
        (top / "over").symlink_to("shared/l")
        for path in (b"shared/l", b"shared/dl/f", b"over", os.fsencode(top) + b"/shared/l", b"shared/../shared/l"):
            assert (caller.ours("stat", path, BUFFER)[0] == -ELOOP) == guarded, path
            assert (caller.our_open("open", path, 0) == -ELOOP) == guarded
            assert (judged(judge_exec, caller.call("execve", path, 0, 0)).errno == ELOOP) == guarded
            for resolve in (RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_IN_ROOT):
                if path[:1] != b"/":
                    how = open_how(0, 0, resolve)
                    assert (caller.our_open("openat2", AT_FDCWD, path, how, 24) == -ELOOP) == guarded, (path, resolve)
        assert (judged(judge_chdir, caller.call("chdir", b"shared/dl")).errno == ELOOP) == guarded
        for how in (open_how(C, 0o600, RESOLVE_BENEATH), open_how(0, 0, RESOLVE_IN_ROOT)):
            assert (caller.our_open("openat2", AT_FDCWD, b"shared/dl/f", how, 24) == -ELOOP) == guarded
        for path in (b"own/l", b"own/dl/f", b"shared/d/f", b"shared/f"):
            assert caller.ours("stat", path, BUFFER)[0] == 0
            for resolve in (RESOLVE_BENEATH, RESOLVE_IN_ROOT):
                how = open_how(0, 0, resolve)
                assert isinstance(caller.our_open("openat2", AT_FDCWD, path, how, 24), Opened), path
        assert caller.ours("lstat", b"shared/l", BUFFER)[0] == 0
        assert caller.ours("readlink", b"shared/l", BUFFER, 9)[0] == 1
        assert caller.ours("unlink", b"shared/l")[0] == 0
        caller.do(os.chdir, "shared")  # no parent in the path
        assert (caller.ours("stat", b"dl/f", BUFFER)[0] == -ELOOP) == guarded


# --- creation ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of others")
def test_what_somebody_else_may_have_put_there_is_not_opened_to_create(tmp_path: Path) -> None:
    """EACCES with O_CREAT for a file or FIFO of another user, or that others may write; ELOOP for a link."""
    for caller, guarded in callers(tmp_path, "allow_unsafe_create"):
        top = tmp_path / str(guarded)
        for name, mode, owner in (("own", 0o644, 0), ("group", 0o664, 0), ("all", 0o646, 0), ("theirs", 0o600, OTHER)):
            (top / name).write_text("x")
            (top / name).chmod(mode)
            os.chown(top / name, owner, owner)
            for flags in (C, C | W, C | W | os.O_TRUNC):
                refused = name != "own" and guarded
                assert (caller.our_open("open", name.encode(), flags, 0o600) == -EACCES) == refused, name
            assert caller.our_open("open", name.encode(), C | X, 0o600) == -EEXIST
            assert isinstance(caller.our_open("open", name.encode(), W), Opened)
        os.mkfifo(top / "fifo", 0o600)
        os.chmod(top / "fifo", 0o666)
        assert (caller.our_open("open", b"fifo", C | RW | os.O_NONBLOCK) == -EACCES) == guarded
        os.chmod(top / "fifo", 0o600)
        assert isinstance(caller.our_open("open", b"fifo", C | RW | os.O_NONBLOCK), Opened)
        (top / "link").symlink_to("own")
        (top / "dangling").symlink_to("new")
        for path in (b"link", b"dangling"):
            assert (caller.our_open("open", path, C | W, 0o600) == -ELOOP) == guarded
        assert (top / "new").exists() is not guarded
        assert isinstance(caller.our_open("open", b"link", W | os.O_TRUNC), Opened), "no O_CREAT"
        assert isinstance(caller.our_open("open", b"/dev/null", C | W), Opened), "a device"
        assert isinstance(caller.our_open("open", b"fresh", C | W, 0o666), Opened)


# --- set-id -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o2644])
def test_a_set_id_file_is_not_opened(tmp_path: Path, mode: int) -> None:
    """EACCES in every mode; it can be looked at and executed; a set-id directory can be opened."""
    for caller, guarded in callers(tmp_path, "allow_unsafe_open_suid"):
        place = tmp_path / str(guarded)
        (place / "f").write_text("x")
        (place / "f").chmod(mode)
        for flags in (0, W, RW, os.O_PATH):
            assert (caller.our_open("open", b"f", flags) == -EACCES) == guarded
        assert caller.ours("stat", b"f", BUFFER)[0] == 0
        assert judged(judge_exec, caller.call("execve", b"f", 0, 0)).errno == 0
        (place / "d").mkdir()
        (place / "d").chmod(0o2755)
        assert isinstance(caller.our_open("open", b"d", 0), Opened)


# --- hard links -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mode", "refused"),
    [("plain", 0o644, False), ("suid", 0o4755, True), ("sgid", 0o2755, True), ("lock", 0o2644, False),
     ("fifo", 0o600, True), ("link", 0o777, False)],
)  # fmt: skip
def test_hard_links(tmp_path: Path, name: str, mode: int, refused: bool) -> None:
    """EPERM for what is no regular file, or gives an identity away."""
    for caller, guarded in callers(tmp_path, "allow_unsafe_hardlinks"):
        place = tmp_path / str(guarded)
        if name == "fifo":
            os.mkfifo(place / name)
        elif name == "link":
            (place / name).symlink_to("nowhere")
        else:
            (place / name).write_text("x")
            (place / name).chmod(mode)
        assert caller.ours("link", name.encode(), b"new")[0] == (-EPERM if refused and guarded else 0)
        assert os.path.lexists(place / "new") is not (refused and guarded)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize(("mode", "may"), [(0o644, False), (0o646, True), (0o642, False)])
def test_only_what_can_be_read_and_written_is_linked(tmp_path: Path, mode: int, may: bool) -> None:
    """By the caller, whose identity the worker has."""
    (tmp_path / "f").write_text("x")
    (tmp_path / "f").chmod(mode)
    fd = os.open(tmp_path / "f", os.O_PATH)
    assert _may_be_linked(fd), "root"
    os.setegid(OTHER)
    os.seteuid(OTHER)
    try:
        assert _may_be_linked(fd) is may
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.close(fd)


# --- extended attributes ------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="trusted attributes need root")
def test_closed_namespaces_of_attributes(tmp_path: Path) -> None:
    """ENODATA, EPERM and not listed, by path and by descriptor, while the caller may not edit the rules."""
    for caller, guarded in callers(tmp_path, "allow_unsafe_xattr"):
        path = tmp_path / str(guarded) / "f"
        path.write_text("x")
        for name in ("user.a", "trusted.a", "security.a"):
            os.setxattr(path, name, b"1")
        fd = caller.do(os.open, "f", os.O_RDWR)
        for first, mark in ((b"f", ""), (fd, "f")):
            for name in (b"trusted.a", b"security.a"):
                assert (caller.ours(f"{mark}getxattr", first, name, BUFFER, 9)[0] == -ENODATA) == guarded
                assert (caller.ours(f"{mark}setxattr", first, name, b"2", 1, 0)[0] == -EPERM) == guarded
            size, text = caller.ours(f"{mark}listxattr", first, BUFFER, 999)
            assert (b"trusted.a\0" in text[:size]) is (b"security.a\0" in text[:size]) is not guarded
            assert b"user.a\0" in text[:size]
            assert caller.ours(f"{mark}listxattr", first, BUFFER, 0)[0] == size
            assert caller.ours(f"{mark}listxattr", first, BUFFER, size - 1)[0] == -ERANGE
            assert caller.ours(f"{mark}getxattr", first, b"user.a", BUFFER, 9)[0] == 1
        assert (caller.ours("removexattr", b"f", b"trusted.a")[0] == -ENODATA) == guarded
        assert ("trusted.a" in os.listxattr(path)) is guarded
        caller.rules.apply("lock:off")
        assert caller.ours("getxattr", b"f", b"security.a", BUFFER, 9)[0] == 1, "who may edit may"


# --- devices ------------------------------------------------------------------------------------------------


def times(status: bytes) -> tuple[bytes, bytes, bytes]:
    """st_atim, st_mtim, st_ctim of struct stat."""
    return status[72:84], status[88:100], status[104:116]


@pytest.mark.skipif(os.geteuid() != 0, reason="makes devices")
@pytest.mark.parametrize("kind", ["cdev", "bdev"])
def test_times_of_devices(tmp_path: Path, kind: str) -> None:
    """stat and statx show when the status changed in place of the last use; of files they show all."""
    for caller, guarded in callers(tmp_path, f"allow_unsafe_stat_{kind}"):
        place = tmp_path / str(guarded)
        os.mknod(place / "n", 0o600 | (0o020000 if kind == "cdev" else 0o060000), os.makedev(1, 3))
        (place / "f").write_text("")
        for name in ("n", "f"):
            os.utime(place / name, (1, 2))
            alike = guarded and name == "n"
            for call, args in (("stat", (name.encode(), BUFFER)), ("newfstatat", (AT_FDCWD, name.encode(), BUFFER, 0))):
                access, change, status = times(caller.ours(call, *args)[1])  # type: ignore[arg-type]
                assert (access == change == status) is alike
            text = caller.ours("statx", AT_FDCWD, name.encode(), 0, 0xFFF, BUFFER)[1]
            assert (text[64:76] == text[112:124] == text[96:108]) is alike
        assert (os.stat(place / "n").st_atime, os.stat(place / "n").st_mtime) == (1, 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes devices")
@pytest.mark.parametrize("kind", ["cdev", "bdev"])
def test_watches_of_devices(tmp_path: Path, kind: str) -> None:
    """Neither reading nor writing a device is told; a watch for nothing else is EINVAL."""
    for caller, guarded in callers(tmp_path, f"allow_unsafe_notify_{kind}"):
        place = tmp_path / str(guarded)
        os.mknod(place / "n", 0o600 | (0o020000 if kind == "cdev" else 0o060000), os.makedev(1, 3))
        (place / "f").write_text("")
        fd = caller.native("inotify_init1", 0)[0]
        assert (caller.ours("inotify_add_watch", fd, b"n", 3)[0] == -EINVAL) == guarded
        assert caller.ours("inotify_add_watch", fd, b"f", 3)[0] > 0
        assert caller.ours("inotify_add_watch", fd, b"n", 0xFFF)[0] > 0
        with open(f"/proc/{caller.pid}/fdinfo/{fd}") as file:
            masks = {line.split()[2]: line.split("mask:")[1].split()[0] for line in file if line.startswith("inotify")}
        assert masks[f"ino:{os.stat(place / 'n').st_ino:x}"] == ("ffc" if guarded else "fff")


def test_kfd_is_left_to_the_kernel_where_the_user_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only for reading and writing, and not by openat2(2); any other device is opened by us."""
    monkeypatch.setattr("syd_pool.emulate.devices.whole", lambda _: b"Character devices:\n  1 kfd\n  5 tty\n")
    for caller, guarded in callers(tmp_path, "allow_unsafe_open_kfd"):
        call = caller.call("open", b"/dev/null", RW)
        assert call.run(handler("open")) is None
        assert call.resumed is not guarded
        assert (call.installed >= 0) is guarded
        call.close_kept()
        if guarded:
            os.close(call.installed)
        how = open_how(RW)
        assert (caller.our_open("openat2", AT_FDCWD, b"/dev/null", how, 24) == -ENOSYS) is not guarded
        assert (caller.our_open("open", b"/dev/null", W) == -EACCES) is not guarded
    monkeypatch.setattr("syd_pool.emulate.devices.whole", lambda _: b"Character devices:\n  5 tty\n")
    for caller, _ in callers(tmp_path / "none", "allow_unsafe_open_kfd"):
        assert isinstance(caller.our_open("open", b"/dev/null", W), Opened)


# --- copies in memory -----------------------------------------------------------------------------------------

STATUS = b"""Name:\tx
TracerPid:\t77
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t3
Speculation_Store_Bypass:\tthread force mitigated
SpeculationIndirectBranch:\tconditional force disabled
Cpus_allowed:\t3
"""


def test_what_a_status_file_says() -> None:
    """Only what tells of the sandbox is changed (syd(7), Hardened proc_pid_status)."""
    assert masked(STATUS).split(b"\n") == [
        b"Name:\tx", b"TracerPid:\t0", b"NoNewPrivs:\t0", b"Seccomp:\t0", b"Seccomp_filters:\t0",
        b"Speculation_Store_Bypass:\tvulnerable", b"SpeculationIndirectBranch:\talways enabled", b"Cpus_allowed:\t3",
        b"",
    ]  # fmt: skip
    assert masked(b"Speculation_Store_Bypass:\tnot vulnerable\n") == b"Speculation_Store_Bypass:\tnot vulnerable\n"


@pytest.mark.parametrize("path", [b"/proc/self/status", b"/proc/thread-self/status", b"/proc/self/task/{}/status"])
def test_status_is_a_copy(tmp_path: Path, path: bytes) -> None:
    """For reading only, under the file's own name."""
    for caller, guarded in callers(tmp_path, "allow_unsafe_proc_pid_status"):
        call = caller.call("open", path.replace(b"{}", b"%d" % caller.pid), 0)
        assert call.run(handler("open")) is None
        text = os.pread(call.installed, 65536, 0)
        assert text.startswith(b"Name:")
        shown = os.readlink(b"/proc/self/fd/%d" % call.installed)
        assert shown.startswith(b"/memfd:syd:/proc/") is guarded
        assert original(shown).endswith(b"/status")
        with pytest.raises(OSError):
            os.write(call.installed, b"x")
        call.close_kept()
        os.close(call.installed)


def test_only_our_copies_are_renamed() -> None:
    """A file in memory that calls itself like one of ours but for another file stays what it is."""
    assert original(b"/memfd:syd:/etc/machine-id (deleted)") == b"/etc/machine-id"
    for other in (b"/memfd:syd:/etc/passwd (deleted)", b"/memfd:/etc/machine-id (deleted)", b"/etc/machine-id"):
        assert original(other) == other


@pytest.mark.skipif(not os.path.exists("/etc/machine-id"), reason="no machine id here")
def test_the_machine_has_another_name(tmp_path: Path) -> None:
    """The first 32 digits of the run's id, by path, link and relative path."""
    with open("/etc/machine-id", "rb") as file:
        real = file.read()
    for caller, guarded in callers(tmp_path, "allow_unsafe_machine_id"):
        (tmp_path / str(guarded) / "link").symlink_to("/etc/machine-id")
        for path in (b"/etc/machine-id", b"link", b"/etc/../etc/machine-id"):
            call = caller.call("open", path, 0)
            assert call.run(handler("open")) is None
            text = os.pread(call.installed, 99, 0)
            assert text == (b"0123456789abcdef0123456789abcdef\n" if guarded else real)
            call.close_kept()
            os.close(call.installed)


# --- sticky ---------------------------------------------------------------------------------------------------


def test_a_sticky_directory_stays_sticky(tmp_path: Path) -> None:
    """chmod and fchmod succeed, and the bit is kept (syd(7), Immutable Sticky Bit); files may lose it."""
    for caller, guarded in callers(tmp_path, "allow_unsafe_sticky"):
        place = tmp_path / str(guarded)
        (place / "d").mkdir()
        fd = caller.do(os.open, "d", os.O_RDONLY)
        for name, args in (("chmod", (b"d", 0o755)), ("fchmod", (fd, 0o755)), ("fchmodat", (AT_FDCWD, b"d", 0o755))):
            (place / "d").chmod(0o1755)
            assert caller.ours(name, *args)[0] == 0  # type: ignore[arg-type]
            assert bool(os.stat(place / "d").st_mode & 0o1000) is guarded
