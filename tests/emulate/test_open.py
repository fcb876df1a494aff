"""open, openat, openat2, creat."""

from __future__ import annotations

import os
import random
from errno import E2BIG, EACCES, EEXIST, EFAULT, EINVAL, EISDIR, ELOOP, ENOENT, ENXIO
from typing import TYPE_CHECKING

import pytest

from syd_pool.policy import Ruleset
from tests.emulate.fake import BUFFER, Caller, Opened, calling, open_as, open_how
from tests.emulate.native import snapshot, unguarded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEED = int(os.environ.get("SYD_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
AT_FDCWD = -100
C, X, T, W, RW = os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_WRONLY, os.O_RDWR
NONBLOCK, DIRECTORY, NOFOLLOW = os.O_NONBLOCK, os.O_DIRECTORY, os.O_NOFOLLOW


def build(top: Path) -> None:
    """What is opened."""
    for name in ("d/sub", "setgid"):
        (top / name).mkdir(parents=True)
    (top / "setgid").chmod(0o2775)
    os.chown(top / "setgid", -1, os.getgid() or 1)
    for name in ("file", "d/file"):
        (top / name).write_text(name)
    for name, target in {
        "to-file": "file", "to-dir": "d", "dangling": "made", "dangling-far": "d/made", "dangling-slash": "made/",
        "loop": "loop", "nowhere": "missing/x", "chain": "dangling", "absolute": "/nonexistent/x",
        "out": "../outside", "up": "..",
    }.items():  # fmt: skip
        (top / name).symlink_to(target)
    os.mkfifo(top / "fifo")
    (top.parent / "outside").write_text("outside")


def ruleset(*rules: str) -> Ruleset:
    made = unguarded()
    for rule in rules or ("sandbox/all:on", "allow/all+/***"):
        made.apply(rule)
    return made


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    """A caller in a tree where everything is allowed."""
    build(tmp_path)
    with calling(ruleset(), tmp_path, lambda: os.umask(0o22) and None) as made:
        yield made


# --- like the kernel ------------------------------------------------------------------------------------

NAMES = (
    "file d to-file to-dir dangling dangling-far dangling-slash loop nowhere chain absolute out up fifo new new2 . .. "
    "d/sub d/new setgid/new file/ d/ new/ file/x d/. d/../file missing/x to-dir/new to-dir/../new dangling/"
).split()
FLAGS = (
    C, C, X, T, os.O_APPEND, NONBLOCK, DIRECTORY, NOFOLLOW, os.O_CLOEXEC, os.O_SYNC, os.O_NOCTTY, os.O_TMPFILE, 1 << 30
)  # fmt: skip


def test_generated_opens(tmp_path: Path) -> None:
    """Result, errno, kind of object, F_GETFL, close-on-exec and the tree that is left are the kernel's."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for top in (ours, theirs):
        top.mkdir()
        build(top)
    rng = random.Random(SEED)
    opened = 0
    with calling(ruleset(), tmp_path) as caller:
        for _ in range(1500):
            name, args = request_of(rng)
            caller.do(os.umask, mask := rng.choice([0, 0o22, 0o77, 0o777]))
            caller.do(os.chdir, str(theirs))
            native = caller.native_open(name, *args)
            caller.do(os.chdir, str(ours))
            mine = caller.our_open(name, *args)
            case = f"SYD_TEST_SEED={SEED}: {name}{args} umask {mask:o}: {mine}, natively {native}"
            if isinstance(native, Opened):
                assert isinstance(mine, Opened) and mine.elsewhere() == native.elsewhere(), case
                opened += 1
            else:
                assert mine == native, case
            assert snapshot(ours) == snapshot(theirs), case
    assert opened > 200


def request_of(rng: random.Random) -> tuple[str, list[int | bytes]]:
    path = rng.choice(NAMES).encode()
    if rng.random() < 0.1:  # nothing that a flag could harm
        path = rng.choice([b"/dev/null", b"/dev/full", b"/proc/self/status", b"/dev/ptmx/", b"/", b""])
    flags = rng.choice([0, 0, 1, 2, 3]) | sum({rng.choice(FLAGS) for _ in range(rng.choice([0, 1, 2, 3]))})
    if b"fifo" in path:
        flags |= NONBLOCK
    mode = rng.choice([0o600, 0o666, 0o777, 0o4755, 0o7777, 0])
    dice = rng.random()
    if dice < 0.35:
        return "open", [path, flags, mode]
    if dice < 0.7:
        return "openat", [AT_FDCWD, path, flags | rng.choice([0, 0, 1 << 40]), mode]
    if dice < 0.75:
        return "creat", [b"new" if b"fifo" in path else path, mode]
    resolve = rng.choice([0, 0, 1, 2, 4, 8, 16, 8 | 16, 4 | 8, 0x20, 0x40])
    wanted = mode if flags & (C | os.O_TMPFILE ^ DIRECTORY) or rng.random() < 0.05 else 0
    return "openat2", [AT_FDCWD, path, open_how(flags, wanted, resolve), 24]


@pytest.mark.parametrize("size", [0, 23, 24, 25, 32, 4096, 4097, 1 << 63])
@pytest.mark.parametrize("tail", [0, 1])
def test_sizes_of_open_how(caller: Caller, size: int, tail: int) -> None:
    """A8: EINVAL, E2BIG or the file, as natively; a tail that is not zero is E2BIG."""
    how = open_how(os.O_RDONLY) + bytes([0, 0, 0, 0, 0, 0, 0, tail]) + bytes(4096)
    args = (AT_FDCWD, b"file", how, size)
    ours = caller.our_open("openat2", *args)
    assert ours == caller.native_open("openat2", *args)
    opens = size in (24, 25) or (size in (32, 4096) and not tail)
    assert isinstance(ours, Opened) if opens else ours in (-EINVAL, -E2BIG)


def test_bad_pointers(caller: Caller) -> None:
    """I2: EFAULT for the path and for struct open_how, after the checks that come first natively."""
    how = open_how(0)
    for name, args in (
        ("open", (8, 0)), ("openat", (AT_FDCWD, 8, 0)), ("creat", (8, 0)), ("open", (8, C | DIRECTORY)),
        ("openat2", (AT_FDCWD, b"file", 8, 24)), ("openat2", (AT_FDCWD, 8, how, 24)), ("open", ((1 << 64) - 1, 0)),
        ("openat2", (AT_FDCWD, 8, open_how(1 << 40), 24)),
    ):  # fmt: skip
        assert caller.our_open(name, *args) == caller.native_open(name, *args) in (-EFAULT, -EINVAL)


@pytest.mark.parametrize("resolve", [1, 2, 4, 8, 16, 8 | 4])
@pytest.mark.parametrize(
    "path",
    ["d/file", "to-dir/file", "up", "../x", "out", "/etc/passwd", "/", "d/../file", "dangling", "absolute", "file/",
     "/proc/self/cwd", "/proc/self/exe", "/proc/self/status", "/dev/fd/7", "proc/self/status", "missing",
     "to-dir/../to-file"],
)  # fmt: skip
@pytest.mark.parametrize("dirfd", [AT_FDCWD, 7, 8])
def test_resolve_flags(tmp_path: Path, resolve: int, path: str, dirfd: int) -> None:
    """RESOLVE_ flags hold, with the same errno as natively; 7 is a directory, 8 is the root."""
    build(tmp_path)

    def prepare() -> None:
        open_as(os.fsencode(tmp_path), os.O_RDONLY, 7)
        open_as(b"/", os.O_PATH, 8)

    with calling(ruleset(), tmp_path, prepare) as caller:
        args = (dirfd, path.encode(), open_how(os.O_RDONLY, 0, resolve), 24)
        assert caller.our_open("openat2", *args) == caller.native_open("openat2", *args)


def test_the_callers_descriptors_by_name(tmp_path: Path) -> None:
    """/dev/fd/N, /dev/stdin and kin reopen what the caller holds: a file, a pipe, a deleted file, a memfd."""
    build(tmp_path)

    def prepare() -> None:
        open_as(os.fsencode(tmp_path / "file"), os.O_RDONLY, 0)
        reading, writing = os.pipe()
        os.dup2(reading, 10)
        os.dup2(writing, 11)
        (tmp_path / "gone").write_text("gone")
        open_as(os.fsencode(tmp_path / "gone"), os.O_RDWR, 12)
        (tmp_path / "gone").unlink()
        os.dup2(os.memfd_create("m"), 13)

    with calling(ruleset(), tmp_path, prepare) as caller:
        for path in (b"/dev/stdin", b"/dev/fd/10", b"/proc/self/fd/12", b"/proc/thread-self/fd/13", b"/dev/fd/99"):
            for flags in (0, NONBLOCK, C | T | W, NOFOLLOW, DIRECTORY):
                assert caller.our_open("open", path, flags) == caller.native_open("open", path, flags), (path, flags)


def test_fifo_waits_in_the_lane(caller: Caller, tmp_path: Path) -> None:
    """Only an open that may wait is announced as blocking: not O_NONBLOCK, not both ends at once."""
    for flags, blocks in ((NONBLOCK, 0), (RW, 0), (0, 1)):
        pid = open_in_child(tmp_path / "fifo") if blocks else 0
        opened, call = caller.our_call("open", b"fifo", flags)
        if pid:
            os.waitpid(pid, 0)
        assert isinstance(opened, Opened) and call.blocked == blocks and call.effects == 1
    assert caller.our_open("open", b"fifo", W | NONBLOCK) == -ENXIO


def open_in_child(path: Path) -> int:
    """Somebody who opens a FIFO for writing, and goes."""
    pid = os.fork()
    if not pid:
        try:
            os.open(path, os.O_WRONLY)
        finally:
            os._exit(0)
    return pid


def test_effects_are_announced(caller: Caller) -> None:
    """I3: before a file is made or truncated, and not for a mere opening."""
    cases = ((b"file", 0, 0), (b"file", W, 0), (b"file", W | T, 1), (b"new", C | W, 1), (b"d", C, 0))
    for path, flags, effects in cases:
        assert caller.our_call("open", path, flags, 0o600)[1].effects == effects


def test_no_tty(caller: Caller) -> None:
    """/dev/tty of a caller without a controlling terminal is ENXIO, whatever the worker has."""
    caller.do(os.setsid)
    assert caller.our_open("open", b"/dev/tty", RW) == caller.native_open("open", b"/dev/tty", RW) == -ENXIO


def test_tty_of_the_caller(tmp_path: Path) -> None:
    """/dev/tty is the caller's terminal, found although the worker has none."""
    master, slave = os.openpty()

    def prepare() -> None:
        os.setsid()
        fd = os.open(os.ttyname(slave), os.O_RDWR)
        os.close(fd)

    with calling(ruleset(), tmp_path, prepare) as caller:
        opened = caller.our_open("open", b"/dev/tty", RW)
        assert isinstance(opened, Opened)
        status = os.fstat(slave)
        assert opened.object == (status.st_dev, status.st_ino)
    os.close(master)
    os.close(slave)


# --- O_PATH ---------------------------------------------------------------------------------------------


def test_o_path(caller: Caller) -> None:
    """A readable descriptor of the object: at once for a FIFO; no link, no device that notices being opened."""
    for path in (b"file", b"d", b"fifo"):
        opened, call = caller.our_call("open", path, os.O_PATH)
        native = caller.native_open("open", path, os.O_PATH)
        assert isinstance(opened, Opened) and isinstance(native, Opened)
        assert opened.object == native.object and not call.blocked
    assert caller.our_open("open", b"to-file", os.O_PATH | NOFOLLOW) == -ELOOP
    assert caller.our_open("open", b"new", os.O_PATH | C) == -ENOENT


def test_o_path_is_judged_as_reading(tmp_path: Path) -> None:
    """What may not be read is not given through O_PATH either."""
    build(tmp_path)
    rules = ruleset("sandbox/read:on", "allow/read+/***", f"deny/read+{tmp_path}/file")
    with calling(rules, tmp_path) as caller:
        assert caller.our_open("open", b"file", os.O_PATH) == -EACCES
        assert isinstance(caller.our_open("open", b"d/file", os.O_PATH), Opened)


# --- rules ----------------------------------------------------------------------------------------------

JUDGED = [
    ("read", b"file", os.O_RDONLY), ("read", b"file", RW), ("write", b"file", W), ("write", b"file", RW),
    ("truncate", b"file", W | T), ("readdir", b"d", os.O_RDONLY), ("create", b"new", C | W), ("write", b"new", C | W),
    ("read", b"new", C | RW), ("mktemp", b"d", os.O_TMPFILE | W), ("create", b"dangling", C | W),
    ("read", b"to-file", os.O_RDONLY), ("write", b"/dev/null", W), ("read", b"file", os.O_ACCMODE),
]  # fmt: skip


@pytest.mark.parametrize(("category", "path", "flags"), JUDGED)
def test_denied(tmp_path: Path, category: str, path: bytes, flags: int) -> None:
    """Each category refuses what it is about with EACCES, logs it, and leaves the tree alone."""
    build(tmp_path)
    before = snapshot(tmp_path)
    with calling(ruleset(f"sandbox/{category}:on"), tmp_path) as caller:
        answer, call = caller.our_call("open", path, flags, 0o600)
        assert answer == -EACCES and not call.effects
        target = {b"to-file": "file", b"dangling": "made", b"/dev/null": "/dev/null"}.get(path, path.decode())
        assert call.denied == [(category, os.path.join(tmp_path, target))]
        assert snapshot(tmp_path) == before
    with calling(ruleset(f"sandbox/{category}:on", f"allow/{category}+/***"), tmp_path) as caller:
        assert isinstance(caller.our_open("open", path, flags, 0o600), Opened)  # positive control


@pytest.mark.parametrize(
    ("category", "path", "flags"),
    [("create", b"file", C | W | T), ("truncate", b"new", C | W | T), ("truncate", b"/dev/null", W | T),
     ("read", b"d", 0), ("readdir", b"file", 0), ("write", b"file", T), ("create", b"d", os.O_TMPFILE | W),
     ("read", b"file", W)],
)  # fmt: skip
def test_not_asked(tmp_path: Path, category: str, path: bytes, flags: int) -> None:
    """A category that is not concerned is not asked."""
    build(tmp_path)
    with calling(ruleset(f"sandbox/{category}:on"), tmp_path) as caller:
        assert isinstance(caller.our_open("open", path, flags, 0o600), Opened)


def test_hidden_and_absent_are_alike(tmp_path: Path) -> None:
    """C7: below a hidden directory every open is ENOENT, also O_CREAT and O_EXCL, whatever is there."""
    build(tmp_path)
    rules = ruleset("sandbox/stat,create:on", "allow/stat,create+/***", f"deny/stat,create+{tmp_path}/d/***")
    with calling(rules, tmp_path) as caller:
        for path in (b"d/file", b"d/absent", b"d", b"d/sub/x", b"to-dir/file", b"d/file/x", b"d/./file"):
            for flags in (0, C | W, C | X | W, W | T, DIRECTORY, os.O_PATH):
                assert caller.our_open("open", path, flags, 0o600) == -ENOENT, (path, flags)
        assert isinstance(caller.our_open("open", b"file", 0), Opened)


def test_existing_before_create(tmp_path: Path) -> None:
    """O_EXCL on what exists says EEXIST before the rules say EACCES, as mkdir does."""
    build(tmp_path)
    with calling(ruleset("sandbox/create:on"), tmp_path) as caller:
        assert caller.our_open("open", b"file", C | X | W) == -EEXIST
        assert caller.our_open("open", b"new", C | X | W) == -EACCES
        assert caller.our_open("open", b"new/", C | W) == -EISDIR


def test_a_name_that_appears_is_judged_as_existing(tmp_path: Path) -> None:
    """Between the judgement and the creation the name was taken: the open starts over with what is there."""
    build(tmp_path)
    with calling(ruleset("sandbox/read:on", "allow/read+/***", f"deny/read+{tmp_path}/new"), tmp_path) as caller:
        call = caller.call("open", b"new", C, 0o600)
        call._before_effect = lambda: (tmp_path / "new").write_text("secret")
        from syd_pool.emulate.open import open as handler

        call.rules = ruleset("sandbox/read:on", f"deny/read+{tmp_path}/new", "allow/read+/***")
        assert call.run(handler) is None
        assert os.read(call.installed, 9) == b"secret"
        os.close(call.installed)
        call.close_kept()


def test_other_processes_secrets(caller: Caller) -> None:
    """C3: what only a tracer may see of another process is refused, to root too; what ps shows is not."""
    other = os.getppid()
    guarded = "mem environ maps auxv fd fd/0 cwd exe root/etc/passwd ns/mnt task/{}/mem"
    for name in guarded.split():
        path = f"/proc/{other}/{name.format(other)}".encode()
        assert caller.our_open("open", path, 0) == -EACCES, path
        assert caller.our_open("open", b"/proc/self/.." + path[5:], 0) == -EACCES
    for name in ("status", "stat", "cmdline", "task", ""):
        assert isinstance(caller.our_open("open", f"/proc/{other}/{name}".encode(), 0), Opened)
    assert caller.our_open("open", f"/proc/{other}/comm".encode(), W) == -EACCES
    assert isinstance(caller.our_open("open", b"/proc/self/mem", RW), Opened)


def test_descriptors_do_not_leak(caller: Caller) -> None:
    """All that a call held is in kept, and closed once."""
    before = len(os.listdir("/proc/self/fd"))
    cases = ((b"file", 0), (b"missing", 0), (b"to-file", W | T), (b"new", C), (b"new", C | X), (b"d/../loop", 0))
    for path, flags in cases:
        for _ in range(50):
            caller.our_open("open", path, flags, 0o600)
            caller.ours("stat", path, BUFFER)
    assert len(os.listdir("/proc/self/fd")) == before
