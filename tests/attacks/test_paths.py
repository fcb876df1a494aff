"""C1, C3, C5: how paths are resolved, under attack, through /proc, and compared with the kernel."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from arena import (
    Arena,
    Outcome,
    Runner,
    assert_silent,
    deep,
    kill_one,
    open_directory,
    open_file,
    syd_differs,
    tree,
    unharmed,
)
from test_toctou import BOTH, NEW, ONLY, assert_held, lay, not_escaped, place, scratch_of

pytestmark = pytest.mark.attack

# Operations that follow a symlink in the last component: those that do not would act on the link itself.
FOLLOWING = (
    "open openat openat2 creat opentrunc stat newfstatat statx execve execveat "
    "access faccessat faccessat2 truncate getdents64 chdir"
).split()
EVERY = [*BOTH, *ONLY, *NEW, "chdir"]


# ---- C1 ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def swapping(runner: Runner, pairs: Sequence[Path]) -> Iterator[None]:
    """Somebody outside the sandbox exchanges pairs of names all the time."""
    names = [str(path) for path in pairs]
    process = subprocess.Popen([runner.payload("swapper"), *names], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline().startswith(b"ready")
        yield
        assert process.poll() is None, "the swapper died"
    finally:
        kill_one(process.pid)
        process.wait(10)
        if process.stdout:
            process.stdout.close()


def pairs_for(arena: Arena, position: str) -> list[Path]:
    """Make what is exchanged: for `first` and `middle` a directory and a link, for `last` each name and a link."""
    if position == "last":
        return [path for op in FOLLOWING for path in link_beside(arena.box / op, arena.ctf / op)]
    swapped, target = (
        (arena.box / "x", arena.ctf / "x") if position == "first" else (arena.box / "x/y", arena.ctf / "x/y")
    )
    return link_beside(swapped, target)


def link_beside(name: Path, target: Path) -> list[Path]:
    """NAME and NAME.link -> TARGET."""
    link = name.with_name(name.name + ".link")
    link.symlink_to(target)
    return [name, link]


def lay_for(runner: Runner, arena: Arena, position: str) -> list[str]:
    """Lay the names; the operations that make sense there."""
    below = "" if position == "last" else "x/y/z"
    lay(runner, arena, below)
    for side in (arena.box, arena.ctf):
        open_directory(side / below / "chdir")
    if position == "last":
        for op in ("access", "faccessat", "faccessat2", "truncate"):
            place(runner.payload("exit_code", CODE=7), arena.box / op)
            (arena.box / op).unlink()
            (arena.box / op).symlink_to("nowhere")
        (arena.box / "getdents64").symlink_to("nowhere")
        return FOLLOWING
    return EVERY


def swap_race(runner: Runner, arena: Arena, below: str, share: float, first: bool, ops: Sequence[str]) -> list[str]:
    """The racing payload with paths that stay and a tree that moves."""
    base = str(arena.box / below)
    return [
        runner.payload("race"), "none", str(share), str(int(first)), "2", base, base + "/.",
        str(scratch_of(arena)), *ops,
    ]  # fmt: skip


@pytest.mark.parametrize("position", ["first", "middle", "last"])
def test_c1_symlink_swapped_into_the_path(runner: Runner, arena: Arena, seconds: float, position: str) -> None:
    """C1: a component is exchanged with a symlink into the protected tree at native speed; no call ever lands
    there."""
    ops = lay_for(runner, arena, position)
    below = "" if position == "last" else "x/y/z"
    with swapping(runner, pairs_for(arena, position)):
        with unharmed(arena):
            outcome = runner.boxed(
                swap_race(runner, arena, below, seconds / 20, False, ops), arena.rules(), 60 + 4 * seconds
            )
        missed = not_escaped(runner, arena, ops, lambda share, left: swap_race(runner, arena, below, share, True, left))
    assert_held(outcome, arena, ops)
    assert not missed


def test_c1_swapped_by_the_command_itself(runner: Runner, arena: Arena, seconds: float) -> None:
    """C1: the same with the attacker inside the sandbox, where its renames are carried out by the sandbox too."""
    lay_for(runner, arena, "first")
    names = [str(path) for path in pairs_for(arena, "first")]
    ops = ["open", "stat", "creat", "unlink", "mkdir", "renameto", "chdir"]
    attack = swap_race(runner, arena, "x/y/z", seconds / 10, False, ops)
    swap = [runner.payload("swapper"), *names]
    script = '"$0" "$1" "$2" >/dev/null & shift 2; "$@"; status=$?; kill -9 $!; wait $! 2>/dev/null; exit $status'
    with unharmed(arena):
        outcome = runner.boxed(["/bin/sh", "-c", script, *swap, *attack], arena.rules(), 60 + seconds)
    assert_held(outcome, arena, ops)
    assert any(outcome.number(f"{op}.ok") for op in ops)


# ---- C3 ------------------------------------------------------------------------------------------


def spellings() -> list[str]:
    """Ways to name the caller through /proc: {P} its pid, {T} its thread, {B} the box, {D} a descriptor of the
    box."""
    heads = (
        "/proc/self", "/proc/./self", "/proc//self", "//proc/self", "/proc/self/.", "/proc/self/../self", "/proc/{P}",
        "/proc/thread-self", "/proc/self/task/{T}", "/proc/{P}/task/{T}", "/proc/self/../{P}", "/proc/{P}/../self",
        "/proc/../proc/self", "/dev/../proc/self", "/proc/self/task/../", "/proc/self/task/{T}/../..",
        "/proc/self/root/proc/self", "/proc/self/cwd/../../../proc/self", "{B}/link-to-self", "{B}/link-to-thread-self",
    )  # fmt: skip
    tails = ("status", "cwd", "exe", "root", "fd/{D}", "fd/{D}/aaaa", "cwd/aaaa", "root{B}/aaaa")
    whole = [
        f"{head}/{tail}" for head in heads for tail in tails if head.count("/") < 5 or tail in ("status", "cwd/aaaa")
    ]
    extra = [
        "/dev/fd/{D}",
        "/dev/fd/{D}/aaaa",
        "/dev/./fd/{D}/aaaa",
        "/dev/fd/../fd/{D}",
        "/proc/self",
        "/proc/thread-self",
    ]
    return whole + extra + ["/proc/self/fd/", "/proc/self/fd/9999", "/proc/self/nothing", "{B}/link-to-root{B}/aaaa"]


def forbidden_spellings() -> list[str]:
    """Ways to the secret that only look like ways to oneself: {S} the protected tree."""
    heads = (
        "/proc/self/root", "/proc/thread-self/root", "/proc/{P}/root", "/proc/self/task/{T}/root", "/proc/./self/root",
        "/proc/self/root/proc/self/root", "/proc/self/root/..", "/proc/self/fd/{R}", "/dev/fd/{R}", "/proc/{P}/fd/{R}",
        "/proc/thread-self/fd/{R}", "/proc/self/task/{T}/fd/{R}", "/proc/self/cwd/../../..",
        "/proc/self/fd/{D}/../../..",
        "{B}/link-to-root", "{B}/link-to-root/proc/self/root",
    )  # fmt: skip
    return [f"{head}{{S}}/FLAG" for head in heads] + ["/proc/self/cwd/../ctf/FLAG", "/proc/self/fd/{D}/../ctf/FLAG"]


def spell(runner: Runner, arena: Arena, patterns: Sequence[str]) -> list[str]:
    """Lay the links and the list; the command line."""
    for name, target in (("self", "/proc/self"), ("thread-self", "/proc/thread-self"), ("root", "/proc/self/root")):
        link = arena.box / f"link-to-{name}"
        if not link.is_symlink():
            link.symlink_to(target)
    open_file(arena.box / "spellings", "\n".join(patterns) + "\n")
    return [runner.payload("spellings"), str(arena.box), str(arena.ctf), str(arena.box / "spellings")]


def spelling_rules(arena: Arena) -> list[str]:
    """The arena's rules; syd's own masks of /proc are no question here."""
    return [*arena.rules(), "trace/allow_unsafe_magiclinks:0"]


def test_c3_the_caller_through_proc(runner: Runner, arena: Arena) -> None:
    """C3: /proc/self, its kin and links to them mean the caller in every spelling: what is seen is what is seen
    natively."""
    command = spell(runner, arena, spellings())
    native = runner.native(command, cwd=arena.box)
    boxed = runner.boxed(command, spelling_rules(arena), cwd=arena.box)
    assert native.status == boxed.status == 0, boxed.err
    expected, got = native.out.splitlines(), boxed.out.splitlines()
    assert len(expected) > 5 * 80
    wrong = [f"native {a!r} sandbox {b!r}" for a, b in zip(expected, got, strict=True) if a != b]
    with syd_differs("/proc/self is the thread, and a thread that is not the leader may not use /proc/PID"):
        assert not wrong, f"{len(wrong)} of {len(expected)}:\n" + "\n".join(wrong[:40])


def test_c3_no_spelling_reaches_the_secret(runner: Runner, arena: Arena) -> None:
    """C3: no way through a magic link leads round a rule."""
    command = spell(runner, arena, forbidden_spellings())
    with unharmed(arena):
        outcome = runner.boxed(command, spelling_rules(arena), cwd=arena.box)
    assert_silent(outcome, arena)
    assert outcome.status == 0, outcome.err
    opened = [
        line for line in outcome.out.splitlines() if line.startswith(("open ", "stat ")) and " errno " not in line
    ]
    assert not opened, opened
    control = runner.native(command, cwd=arena.box)
    missed = [line for line in control.out.splitlines() if line.startswith("open ") and " secret" not in line]
    assert not missed, missed


def opened(runner: Runner, arena: Arena, paths: list[str], boxed: bool = True) -> list[str]:
    """Which of these can be opened."""
    open_file(arena.box / "others", "\n".join(paths) + "\n")
    command = [runner.payload("open_each"), str(arena.box / "others")]
    outcome = runner.boxed(command, arena.rules()) if boxed else runner.native(command)
    lines = outcome.out.splitlines()
    assert outcome.status == 0 and len(lines) == len(paths), outcome
    return [line for line in lines if line.startswith("opened ")]


LINKS = ("cwd/", "root/", "exe", "fd/0", "root/etc/passwd", "task/{0}/cwd/", "ns/mnt")
INSIDES = ("mem", "environ", "maps", "fd/", "auxv", "syscall")


def test_c3_links_of_other_processes(runner: Runner, arena: Arena) -> None:
    """C3: the magic links of a process outside cannot be followed, whatever the path rules say."""
    paths = [f"/proc/{os.getpid()}/{name.format(os.getpid())}" for name in LINKS]
    assert not opened(runner, arena, paths)
    if runner.identity.uid is None:
        assert len(opened(runner, arena, paths, boxed=False)) == len(paths)


def test_c3_the_sandbox_itself(runner: Runner, arena: Arena) -> None:
    """C3: of the sandbox's own process, the command's parent, nothing can be opened."""
    paths = [f"/proc/{{PP}}/{name}" for name in (*(name for name in LINKS if "{" not in name), *INSIDES, "status")]
    assert not opened(runner, arena, paths)
    if runner.identity.uid is None:
        assert len(opened(runner, arena, paths, boxed=False)) == len(paths)


def test_c3_insides_of_other_processes(runner: Runner, arena: Arena) -> None:
    """C3: nor can the memory or the environment of a process outside be opened (writing there would be an
    escape)."""
    paths = [f"/proc/{os.getpid()}/{name}" for name in INSIDES]
    assert not opened(runner, arena, paths)
    if runner.identity.uid is None:
        assert len(opened(runner, arena, paths, boxed=False)) == len(paths)


# ---- C5 ------------------------------------------------------------------------------------------

SEED = int(os.environ.get("SYD_ATTACK_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)


def lay_tree(box: Path) -> None:
    """Directories, files, and every kind of symlink."""
    for name in ("d", "d/e", "d/e/f", "empty"):
        open_directory(box / name)
    for name in ("file", "d/file", "d/e/file", "n" * 255):
        open_file(box / name, name)
    for name, target in {
        "to-file": "file", "to-dir": "d", "to-dir-slash": "d/", "dangling": "missing/x", "dangling-here": "not-yet",
        "loop": "loop", "loop-a": "loop-b", "loop-b": "loop-a", "up": "..", "absolute": str(box / "d"), "dot": ".",
        "through-file": "file/x", "d/up": "../file", "d/e/far": "../../to-dir/e/file", "empty-dots": "./././d/../d/e/.",
    }.items():  # fmt: skip
        (box / name).symlink_to(target)
    (box / "chain0").symlink_to("file")
    for i in range(1, 45):
        (box / f"chain{i}").symlink_to(f"chain{i - 1}")
    os.mkfifo(box / "fifo", 0o666)


COMPONENTS = (
    "d e f file empty . .. . .. to-file to-dir to-dir-slash dangling dangling-here loop loop-a up absolute dot missing "
    "through-file far empty-dots chain0 chain37 chain38 chain39 chain40 chain41 fifo"
).split()


def generate(seed: int, count: int, box: Path) -> list[str]:
    """Requests `op directory path-in-hex`, made from one seed."""
    rng = random.Random(seed)
    ops = (
        "stat lstat access open opath odir onofollow readlink statx statx-nofollow empty faccessat2-nofollow "
        "openat2 openat2-nosym openat2-beneath opath-nofollow opath-link creat-excl mkdir-excl "
        "rmdir-none unlink-none getdents"
    ).split()
    return [
        f"{rng.choice(ops)} {rng.choice(['cwd', 'box', 'd', 'file'])} {one_path(rng, box).hex()}" for _ in range(count)
    ]


def one_path(rng: random.Random, box: Path) -> bytes:
    """A path: absolute or not, slashes doubled or trailing, sometimes of an extreme length."""
    dice = rng.random()
    if dice < 0.03:
        return b""
    if dice < 0.06:
        return b"./" * rng.choice([2040, 2046, 2047, 2048]) + rng.choice([b"d", b"file", b"", b"e/"])
    if dice < 0.09:
        return b"n" * rng.choice([254, 255, 256]) + rng.choice([b"", b"/", b"/.", b"/.."])
    names = [rng.choice(COMPONENTS) for _ in range(rng.randint(1, 5))]
    text = rng.choice(["/", "/", "/", "//"]).join(names) + rng.choice(["", "", "", "/", "//", "/.", "/.."])
    return ((str(box) + "/") if rng.random() < 0.3 else "").encode() + text.encode()


def compare(native: Outcome, boxed: Outcome, requests: Sequence[str]) -> list[str]:
    """What came out differently."""
    pairs = zip(requests, native.out.splitlines(), boxed.out.splitlines(), strict=True)
    return [
        f"{r.split()[:2]} {bytes.fromhex(r.split()[2])[:80] if len(r.split()) > 2 else b''!r}: native {a} sandbox {b}"
        for r, a, b in pairs
        if a != b
    ]


def test_c5_generated_paths_resolve_as_natively(runner: Runner, arena: Arena, seconds: float) -> None:
    """C5: for generated paths the errno, the inode and the kind found are the kernel's own (the seed is in the
    message)."""
    box = deep(arena.box)
    lay_tree(box)
    requests = generate(SEED, int(1500 * seconds), box)
    open_file(arena.box / "requests", "\n".join(requests) + "\n")
    command = [runner.payload("resolve"), str(box), str(arena.box / "requests")]
    native = runner.native(command, cwd=box)
    boxed = runner.boxed(command, arena.rules(), 60 + 10 * seconds, cwd=box)
    assert native.status == boxed.status == 0, (native.err, boxed.err)
    wrong = compare(native, boxed, requests)
    with syd_differs("`..` after a file or a dangling link, and which of two errors is reported"):
        assert not wrong, f"SYD_ATTACK_SEED={SEED}: {len(wrong)} of {len(requests)} differ:\n" + "\n".join(wrong[:30])
    kinds = {line.split()[0] for line in native.out.splitlines()}
    assert {"0", "2", "20", "40", "36"} <= kinds or seconds < 0.5, f"the generator became tame: {kinds}"


def test_c5_mutations_leave_the_same_tree(runner: Runner, arena: Arena, seconds: float) -> None:
    """C5: a generated sequence of creations, removals and renames has native errnos and leaves the native tree."""
    requests = generate_mutations(SEED, int(600 * seconds))
    results, trees = [], []
    for run in ("native", "boxed"):
        box = deep(arena.root / "m")
        lay_tree(box)
        open_file(arena.box / "requests", "\n".join(requests) + "\n")
        command = [runner.payload("resolve"), str(box), str(arena.box / "requests")]
        if run == "native":
            results.append(runner.native(command, cwd=box))
        else:
            results.append(runner.boxed(command, arena.rules(), 60 + 10 * seconds, cwd=box))
        trees.append(tree(arena.root / "m"))
        (arena.root / "m").rename(arena.root / f"m-{run}")
    wrong = compare(results[0], results[1], requests)
    with syd_differs("which of two errors is reported for names that are missing, `.` or `..`"):
        assert not wrong, f"SYD_ATTACK_SEED={SEED}: {len(wrong)} of {len(requests)} differ:\n" + "\n".join(wrong[:30])
    assert trees[0] == trees[1]
    assert sum(line == "0" for line in results[0].out.splitlines()) > len(requests) // 20


MUTATIONS = (
    "mkdir mkdirat rmdir unlink unlinkat unlinkat-dir creat openexcl opencreat opentrunc truncate rename "
    "renameat2-noreplace renameat2-exchange link linkat-follow symlink symlinkat tmpfile"
).split()


def generate_mutations(seed: int, count: int) -> list[str]:
    """Requests `op directory path-in-hex [second-path-in-hex]` within a small space of names, so that they meet."""
    rng = random.Random(seed + 1)
    names = "a b c d file empty to-dir dangling dangling-here loop up missing fifo . ..".split()

    def path() -> bytes:
        text = "/".join(rng.choice(names) for _ in range(rng.choice([1, 1, 2, 2, 3])))
        return (text + rng.choice(["", "", "", "", "/", "/."])).encode()

    return [f"{rng.choice(MUTATIONS)} cwd {path().hex()} {path().hex()}" for _ in range(count)]
