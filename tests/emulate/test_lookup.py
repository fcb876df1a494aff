"""find() and entry(): what they hold, what text they give, what rules and attackers do to them."""

from __future__ import annotations

import os
import threading
from errno import EACCES, EAGAIN, ELOOP, ENOENT, ENOTDIR
from typing import TYPE_CHECKING

import pytest

from syd_pool.emulate import paths
from syd_pool.emulate.call import EMPTY, FOLLOW
from syd_pool.linux.libc import RESOLVE_IN_ROOT
from syd_pool.worker import walk
from tests.emulate.fake import BUFFER, Caller, calling, open_as
from tests.emulate.test_open import ruleset

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from syd_pool.emulate.call import Found
    from tests.emulate.fake import FakeCall

AT_FDCWD = -100


def build(top: Path) -> None:
    (top / "a/b/c").mkdir(parents=True)
    (top / "secret/in").mkdir(parents=True)
    for name in ("a/file", "a/b/c/file", "secret/file", "secret/in/file"):
        (top / name).write_text(name)
    for name, target in {
        "link": "a/b", "abs": f"{top}/a", "a/back": "../secret", "dangling": "a/missing", "self": "/proc/self",
        "to-file": "a/file", "through": "secret/in/../../a/file",
    }.items():  # fmt: skip
        (top / name).symlink_to(target)


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    build(tmp_path)

    def prepare() -> None:
        open_as(os.fsencode(tmp_path / "a"), os.O_RDONLY, 60)
        open_as(os.fsencode(tmp_path / "a/file"), os.O_RDONLY, 61)
        os.dup2(os.pipe()[0], 62)

    with calling(ruleset(), tmp_path, prepare) as made:
        yield made


def looked(caller: Caller, how: str, path: bytes, flags: int = FOLLOW, dirfd: int = AT_FDCWD) -> tuple[Found, FakeCall]:
    """find() or entry() for the caller; its descriptors stay until close_kept()."""
    call = caller.call("stat", path, BUFFER)
    return getattr(call, how)(call, dirfd, path, flags), call


def errno_of(caller: Caller, how: str, path: bytes, flags: int = FOLLOW, dirfd: int = AT_FDCWD) -> int:
    call = caller.call("stat", path, BUFFER)
    with pytest.raises(OSError) as caught:
        getattr(call, how)(call, dirfd, path, flags)
    call.close_kept()
    assert caught.value.errno is not None
    return caught.value.errno


TEXTS = [
    ("a/file", "a/file"), ("./a//file", "a/file"), ("link/c/file", "a/b/c/file"), ("abs/b/../file", "a/file"),
    ("to-file", "a/file"), ("through", "a/file"), ("link/../file", "a/file"), ("a/back/file", "secret/file"),
    ("a/b/", "a/b"), ("a/b/.", "a/b"), (".", ""), ("a/..", ""), ("{top}/link/c", "a/b/c"), ("/proc/self/cwd/a", "a"),
    ("/dev/fd/60/file", "a/file"), ("/proc/self/fd/61", "a/file"), ("{top}/../{name}/a", "a"), ("self/cwd/a/b", "a/b"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "text"), TEXTS)
def test_text_and_object(caller: Caller, tmp_path: Path, path: str, text: str) -> None:
    """The text is link-free and absolute, and the object that is held is what it names."""
    path = path.format(top=tmp_path, name=tmp_path.name)
    found, call = looked(caller, "find", path.encode())
    expected = tmp_path / text
    assert found.path == os.fsencode(expected)
    assert os.path.samestat(os.fstat(found.fd), expected.stat())
    call.close_kept()


@pytest.mark.parametrize(
    ("path", "text"),
    [("/proc/self", "/proc/self"), ("/proc/thread-self", "/proc/self/task/{pid}"),
     ("/proc/{pid}/status", "/proc/self/status"), ("/proc/self/../{pid}", "/proc/self"),
     ("/proc/self/fd/62", "/proc/self/fd/pipe:"), ("/proc/mounts", "/proc/self/mounts"),
     ("/proc/self/task/../stat", "/proc/self/stat"), ("/proc/self/root/proc/self/stat", "/proc/self/stat")],
)  # fmt: skip
def test_the_caller_in_proc(caller: Caller, path: str, text: str) -> None:
    """/proc/self and its kin are the caller, and the rules see them as /proc/self (C3)."""
    found, call = looked(caller, "find", path.format(pid=caller.pid).encode())
    assert os.fsdecode(found.path).startswith(text.format(pid=caller.pid))
    if text.endswith("stat"):
        with open(f"/proc/self/fd/{found.fd}") as file:
            assert file.read().split()[0] == str(caller.pid)
    call.close_kept()


def test_entry(caller: Caller, tmp_path: Path) -> None:
    """The directory is held; the name is the last one, of a missing object too, and of where a link leads."""
    for path, flags, text, name, there in (
        (b"a/file", 0, "a/file", b"file", True), (b"link/new", 0, "a/b/new", b"new", False),
        (b"dangling", 0, "dangling", b"dangling", True), (b"dangling", FOLLOW, "a/missing", b"missing", False),
        (b"a/b/", 0, "a/b", b"b", True), (b"a/b/.", 0, "a/b", b"", True), (b"a/new/", 0, "a/new", b"new", False),
        (b"to-file", FOLLOW, "a/file", b"file", True), (b"a/b/..", 0, "a", b"", True),
    ):  # fmt: skip
        found, call = looked(caller, "entry", path, flags)
        assert (found.path, found.name, found.fd >= 0) == (os.fsencode(tmp_path / text), name, there), path
        if name:
            assert os.path.samestat(os.fstat(found.parent), (tmp_path / text).parent.stat())
        call.close_kept()
    assert errno_of(caller, "entry", b"missing/new", 0) == ENOENT
    assert errno_of(caller, "entry", b"a/file/new", 0) == ENOTDIR
    assert errno_of(caller, "entry", b"", 0) == ENOENT


def test_empty_path_is_the_descriptor(caller: Caller, tmp_path: Path) -> None:
    """AT_EMPTY_PATH: a directory, a file, a pipe; without the flag ENOENT."""
    found, call = looked(caller, "find", b"", EMPTY, 61)
    assert found.path == os.fsencode(tmp_path / "a/file")
    call.close_kept()
    found, call = looked(caller, "find", b"", EMPTY, 62)
    assert found.path.startswith(b"/proc/self/fd/pipe:[")
    call.close_kept()
    assert errno_of(caller, "find", b"", FOLLOW, 61) == ENOENT


def test_other_processes(caller: Caller) -> None:
    """Links of other processes are not followed; our own processes are not there at all."""
    other = os.getppid()
    for name in ("cwd", "root/etc", "exe", "fd/0", "task/{}/cwd"):
        assert errno_of(caller, "find", f"/proc/{other}/{name.format(other)}".encode()) == EACCES
    looked(caller, "find", f"/proc/{other}/status".encode())[1].close_kept()  # positive control
    ways = "/proc/{0} /proc/{0}/status /proc/self/../{0}/stat /proc/{0}/cwd /proc/{0}/.."
    for path in ways.format(other).split():
        for how in ("find", "entry"):
            call = caller.call("stat", b"", BUFFER)
            call.own_pids = {other}
            with pytest.raises(FileNotFoundError):
                getattr(call, how)(call, AT_FDCWD, path.encode(), FOLLOW)
            call.close_kept()


def test_threads_of_the_caller_are_its_own(tmp_path: Path) -> None:
    """B3: /proc/TID of another thread of the group is the caller's own, links included."""
    with calling(ruleset(), tmp_path) as caller:
        tid = caller.do(start_thread)
        found, call = looked(caller, "find", f"/proc/{tid}/cwd".encode())
        assert found.path == os.fsencode(tmp_path)
        call.close_kept()


def start_thread() -> int:
    thread = threading.Thread(target=threading.Event().wait, daemon=True)
    thread.start()
    assert thread.native_id
    return thread.native_id


def test_other_procfs_mounts(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever mountinfo says procfs is, /self there is the caller and our processes are not."""
    monkeypatch.setattr(paths, "_proc_mounts", [])
    monkeypatch.setattr(paths, "_proc_places", ())
    paths.know_mounts([(b"/somewhere/proc", b""), (b"/pids/me", b"/17"), (b"/proc", b"")])
    assert paths.in_proc(b"/somewhere/proc/self/x") == b"/self/x"
    assert paths.in_proc(b"/somewhere/process") is None
    assert paths.in_proc(b"/pids/me") == b"/17"
    assert paths.shown(b"/somewhere/proc/17/x", 17) == b"/somewhere/proc/self/x"
    assert paths.shown(b"/pids/me/x", 17) == b"/pids/me/x"
    assert not paths._is_plain(b"/somewhere/proc/17/x") and not paths._is_plain(b"/pids/me")
    assert paths._is_plain(b"/somewhere/proc/uptime")


def test_mountinfo_is_read() -> None:
    """Escapes of mountinfo are undone, /proc is always known."""
    assert paths._unescape(b"/a\\040b\\134c") == b"/a b\\c"
    assert (b"/proc", b"") in paths._read_mounts()


# --- rules ------------------------------------------------------------------------------------------------


def test_walk_is_judged_on_every_way(tmp_path: Path) -> None:
    """A directory that may not be walked is ENOENT, passed by name, by `..` or by a link; others are not asked."""
    build(tmp_path)
    rules = ruleset("sandbox/walk:on", "allow/walk+/***", f"deny/walk+{tmp_path}/secret/***")
    with calling(rules, tmp_path) as caller:
        ways = "secret/file secret/in/../../a/file through a/back/file secret/missing secret/. {}/secret/in"
        for path in ways.format(tmp_path).split():
            assert errno_of(caller, "find", path.encode()) == ENOENT, path
        for path in ("a/file", "secret", "link/c/file", "a/back", "to-file"):
            looked(caller, "find", path.encode())[1].close_kept()


def test_what_fails_is_hidden_first(tmp_path: Path) -> None:
    """C7: no errno tells what a hidden place is: not a directory, not to be searched, a loop."""
    build(tmp_path)
    (tmp_path / "secret/loop").symlink_to("loop")
    hides = (f"deny/stat+{tmp_path}/secret/***", f"deny/stat+{tmp_path}/a/file")
    rules = ruleset("sandbox/stat:on", "allow/stat+/***", *hides)
    with calling(rules, tmp_path) as caller:
        for path in ("secret/file/x", "secret/loop", "a/file/x", "a/file/x/y", "secret/file/", "a/back/file/x"):
            assert errno_of(caller, "find", path.encode()) == ENOENT, path
        assert errno_of(caller, "find", b"a/b/c/file/x") == ENOTDIR  # positive control


# --- attackers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["x/file", "{}/x/file", "x/in/../file", "x/./in/file", "x/in"])
def test_a_component_swapped_with_a_link(tmp_path: Path, path: str) -> None:
    """C1: while a directory and a link are exchanged, text and object always belong together."""
    build(tmp_path)
    (tmp_path / "x/in").mkdir(parents=True)
    (tmp_path / "x/file").touch()
    (tmp_path / "x/in/file").touch()
    (tmp_path / "swap").symlink_to("secret")
    stop = threading.Event()
    swapper = threading.Thread(target=swap, args=(tmp_path, stop))
    places = set()
    with calling(ruleset(), tmp_path) as caller:
        swapper.start()
        try:
            for _ in range(1500):
                call = caller.call("stat", b"", BUFFER)
                call.result = None
                answer = call.run(lambda call: hold(call, path.format(tmp_path).encode()))
                assert answer in (0, -ENOENT, -ELOOP)
                if call.result:
                    real, text = call.result
                    assert real.replace("/swap/", "/x/") == text
                    places.add("/secret/" in text)
                call.close_kept()
        finally:
            stop.set()
            swapper.join()
    assert len(places) > 1, "nothing was ever swapped"


def hold(call: Any, path: bytes) -> int:
    found = call.find(call, AT_FDCWD, path, FOLLOW)
    call.result = (os.readlink(f"/proc/self/fd/{found.fd}"), os.fsdecode(found.path))
    return 0


def swap(top: Path, stop: threading.Event) -> None:
    """Exchange x and swap all the time."""
    from syd_pool.linux.libc import raw_renameat2

    a, b = os.fsencode(top / "x"), os.fsencode(top / "swap")
    while not stop.is_set():
        raw_renameat2(AT_FDCWD, a, AT_FDCWD, b, 2)


def test_a_directory_moved_out(caller: Caller, tmp_path: Path) -> None:
    """C2: `..` from a working directory that was moved leads to where it is now, and that is what is judged."""
    caller.do(os.chdir, str(tmp_path / "a/b/c"))
    (tmp_path / "a/b/c").rename(tmp_path / "secret/c")
    found, call = looked(caller, "find", b"../file")
    assert found.path == os.fsencode(tmp_path / "secret/file")
    assert os.path.samestat(os.fstat(found.fd), (tmp_path / "secret/file").stat())
    call.close_kept()


def test_deleted_working_directory(caller: Caller, tmp_path: Path) -> None:
    """In a directory that is gone everything is ENOENT, `.` still is it."""
    (tmp_path / "gone").mkdir()
    caller.do(os.chdir, str(tmp_path / "gone"))
    (tmp_path / "gone").rmdir()
    for path in (b"x", b".", b"..", b"./x", b"../a"):
        ours, native = caller.ours("stat", path, BUFFER), caller.native("stat", path, BUFFER)
        assert ours[0] == native[0] and ours[1][:144] == native[1][:144], path


def test_long_ways(caller: Caller, tmp_path: Path) -> None:
    """A path that links make longer than PATH_MAX still resolves, as natively."""
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(22):
        os.mkdir("l" * 200, dir_fd=fd)
        below = os.open("l" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    (tmp_path / "half").symlink_to("/".join(["l" * 200] * 15))
    path = b"half/" + b"/".join([b"l" * 200] * 7)
    ours, native = caller.ours("stat", path, BUFFER), caller.native("stat", path, BUFFER)
    assert native[0] == 0
    assert ours[0] == native[0] and ours[1][:144] == native[1][:144]


@pytest.mark.parametrize("path", [b"b/../file", b"b/c/../../new"])
@pytest.mark.parametrize("how", ["find", "entry"])
@pytest.mark.parametrize("again", [1, walk.MOST_TRIES - 1, walk.MOST_TRIES])
def test_a_scoped_lookup_is_tried_again(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, again: int, how: str, path: bytes
) -> None:
    """openat2(2): ".." under RESOLVE_IN_ROOT is EAGAIN while names move; it is tried again, but not for ever."""
    tries = []
    really = walk.raw_openat2

    def busy(at: int, name: bytes, flags: int, resolve: int) -> int:
        if not resolve & RESOLVE_IN_ROOT:
            return really(at, name, flags, resolve)
        tries.append(name)
        return -EAGAIN if len(tries) <= again else really(at, name, flags, resolve)

    monkeypatch.setattr(walk, "raw_openat2", busy)
    flags = FOLLOW | RESOLVE_IN_ROOT << paths.RESOLVE_SHIFT
    errno = EAGAIN if again == walk.MOST_TRIES else ENOENT if how == "find" and path.endswith(b"new") else 0
    if errno:
        assert errno_of(caller, how, path, flags, 60) == errno
    else:
        found, call = looked(caller, how, path, flags, 60)
        assert found.path.endswith(b"/a/" + path.rpartition(b"/")[2])
        call.close_kept()
    assert again <= len(tries) <= walk.MOST_TRIES + 1
