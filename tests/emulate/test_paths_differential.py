"""Generated paths resolve as natively: the same errno, the same object (attack C5)."""

from __future__ import annotations

import os
import pickle
import random
import traceback
from typing import TYPE_CHECKING

import pytest

from syd_pool.linux.libc import PR_SET_DUMPABLE, prctl
from tests.emulate.fake import BUFFER, calling, open_as
from tests.emulate.native import unguarded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEED = int(os.environ.get("SYD_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
COUNT = int(os.environ.get("SYD_TEST_PATHS", "3000"))
AT_FDCWD = -100
EVERYTHING = ["sandbox/all:on", "allow/all+/***"]
DIRECTORY, FILE, HELD, LINK = 60, 61, 62, 63


def build(top: Path) -> None:
    """Directories, files, a FIFO, and links of every kind; chains of 45."""
    for name in ("d/e/f", "empty", "closed/in", ".dot", "..dots"):
        (top / name).mkdir(parents=True)
    for name in ("file", "d/file", "d/e/file", "closed/file", "n" * 255):
        (top / name).write_text(name[:20])
    os.mkfifo(top / "fifo")
    links = {
        "to-file": "file", "to-dir": "d", "to-dir-slash": "d/", "to-dir-dot": "d/.", "dangling": "missing/x",
        "loop": "loop", "loop-a": "loop-b", "loop-b": "loop-a", "up": "..", "absolute": str(top / "d"),
        "dot": ".", "through-file": "file/x", "d/up": "../file", "d/e/far": "../../to-dir/e/file",
        "dots": "./././d/../d/e/.", "file-slash": "file/", "root": "/", "self": "/proc/self",
        "cwd": "/proc/self/cwd", "fd": f"/dev/fd/{DIRECTORY}",
        "long": "./" * 1000 + "d", "to-closed": "closed/in",
    }  # fmt: skip
    for name, target in links.items():
        (top / name).symlink_to(target)
    (top / "chain0").symlink_to("d")
    for i in range(1, 45):
        (top / f"chain{i}").symlink_to(f"chain{i - 1}")
    (top / "closed").chmod(0o600)


NAMES = (
    "d e f file empty . .. . .. to-file to-dir to-dir-slash to-dir-dot dangling loop loop-a up absolute dot "
    "missing through-file far dots file-slash root self cwd fd long closed in to-closed chain0 chain37 chain38 "
    f"chain39 chain40 fifo .dot ..dots proc thread-self exe task {DIRECTORY} {FILE} status n" + "n" * 254
).split()
PROC = (
    "/proc/self /proc/thread-self /proc/self/fd /dev/fd /dev/stdin /proc/self/cwd /proc/self/root /proc/{pid}/cwd "
    "/proc/{pid}/task/{pid}/fd /proc/mounts /proc/self/../self /proc/1/cwd /proc/./self/exe "
    "/proc/{pid} /proc/net /dev/fd/../fd /proc/self/map_files /proc/self/task/{pid}/../../exe"
).split()


def one_path(rng: random.Random, top: Path, pid: int) -> bytes:
    """A path: absolute or not, slashes doubled or trailing, sometimes of an extreme length."""
    dice = rng.random()
    if dice < 0.02:
        return b""
    if dice < 0.06:
        return b"./" * rng.choice([2040, 2046, 2047, 2048]) + rng.choice([b"d", b"file", b"", b"e/"])
    if dice < 0.09:
        return b"n" * rng.choice([254, 255, 256]) + rng.choice([b"", b"/", b"/.", b"/.."])
    names = [rng.choice(NAMES) for _ in range(rng.choice([1, 1, 2, 2, 3, 4, 5]))]
    text = rng.choice(["/", "/", "/", "//"]).join(names) + rng.choice(["", "", "", "/", "//", "/.", "/.."])
    if dice < 0.25:
        head = rng.choice(PROC).format(pid=pid).encode()
        return head + rng.choice([b"", b"", b"/"]) + rng.choice([b"", text.encode()])
    return (str(top).encode() + b"/" if dice < 0.55 else b"") + text.encode()


def hold(top: Path) -> None:
    """The caller's descriptors."""
    open_as(os.fsencode(top / "d"), os.O_RDONLY, DIRECTORY)
    open_as(os.fsencode(top / "file"), os.O_RDONLY, FILE)
    open_as(os.fsencode(top / "d/e"), os.O_PATH, HELD)
    open_as(os.fsencode(top / "to-dir"), os.O_PATH | os.O_NOFOLLOW, LINK)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)


def request_of(rng: random.Random, top: Path, pid: int) -> tuple[str, list[int | bytes], int]:
    """(call, arguments, how much of the buffer is compared)"""
    path = one_path(rng, top, pid)
    dirfd = rng.choice([AT_FDCWD, AT_FDCWD, DIRECTORY, FILE, HELD, LINK, -1, 999])
    mask = 0x7FF
    kinds: list[tuple[str, list[int | bytes], int]] = [
        ("stat", [path, BUFFER], 144),
        ("lstat", [path, BUFFER], 144),
        ("newfstatat", [dirfd, path, BUFFER, rng.choice([0, 0x100, 0x1000, 0x1100, 0x800, 1, 1 << 32])], 144),
        ("statx", [dirfd, path, rng.choice([0, 0x100, 0x1000, 0x6000, 0x2000, 8]), mask, BUFFER], 140),
        ("access", [path, rng.choice([0, 1, 2, 4, 6, 7, 8])], 0),
        ("faccessat", [dirfd, path, rng.choice([0, 1, 2, 4])], 0),
        ("faccessat2", [dirfd, path, rng.choice([0, 1, 4]), rng.choice([0, 0x100, 0x200, 0x1000, 1])], 0),
        ("readlink", [path, BUFFER, rng.choice([4096, 5, 1, 0, -1])], 4096),
        ("readlinkat", [dirfd, path, BUFFER, rng.choice([4096, 3])], 4096),
    ]
    return rng.choice(kinds)


def is_excused(path: bytes, ours: int) -> bool:
    """The links of another process (/proc/1) are refused by rule (spec 1.12)."""
    return b"/1/" in path and ours in (-13, -2, -20)


def compare(top: Path) -> tuple[list[str], set[int]]:
    """What came out differently, and every native result there was."""
    rules = unguarded()
    for rule in EVERYTHING:
        rules.apply(rule)
    rng = random.Random(SEED)
    wrong, results = [], set()
    with calling(rules, top, lambda: hold(top)) as asked:
        for _ in range(COUNT):
            name, args, size = request_of(rng, top, asked.pid)
            for _ in range(3):  # /proc counts its processes meanwhile
                native, theirs = asked.native(name, *args)
                ours, mine = asked.ours(name, *args)
                if alike := (native, theirs[:size]) == (ours, mine[:size]):
                    break
            results.add(native)
            if alike:
                continue
            if not is_excused(next(a for a in args if isinstance(a, bytes)), ours):
                texts = [a if isinstance(a, int) else a[:90] for a in args]
                what = "" if native != ours else " in the buffer"
                wrong.append(f"{name}{texts}: {ours}, natively {native}{what}")
    return wrong, results


def as_user(function: Callable[[Path], tuple[list[str], set[int]]], top: Path) -> tuple[list[str], set[int]]:
    """Run it in a child that is uid 65534, dumpable as if it had always been."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            prctl(PR_SET_DUMPABLE, 1)
            os.write(writing, pickle.dumps(function(top)))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        answer = file.read()
    os.waitpid(pid, 0)
    assert answer, "the child failed"
    result: tuple[list[str], set[int]] = pickle.loads(answer)
    return result


@pytest.mark.parametrize("user", [False, True])
def test_generated_paths(tmp_path: Path, user: bool) -> None:
    """The kernel's result, errno and every byte of the answer (C5); as ourselves, and with less rights."""
    build(tmp_path)
    if user and os.geteuid():
        pytest.skip("is one already")
    if user:
        for directory in (tmp_path, *tmp_path.parents[:2]):
            directory.chmod(0o755)
        os.chown(tmp_path / "closed", 65534, 65534)
    wrong, results = as_user(compare, tmp_path) if user else compare(tmp_path)
    assert not wrong, f"SYD_TEST_SEED={SEED}: {len(wrong)} of {COUNT} differ:\n" + "\n".join(wrong[:25])
    assert {0, -2, -20, -40, -36, -9, -22} <= results, "the generator became tame"
