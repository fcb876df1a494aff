"""A1-A3, A6: what was judged is what is done, however the caller's memory changes meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from arena import Arena, Outcome, Runner, assert_silent, open_directory, open_file, switch_on, unharmed

pytestmark = pytest.mark.attack

# Names that exist on both sides; on the secret side with the secret in them.
BOTH = "open openat openat2 creat opentrunc stat lstat newfstatat statx execve execveat".split()
# Names that exist on the secret side only: any success is a leak.
ONLY = (
    "access faccessat faccessat2 readlink readlinkat truncate unlink unlinkat rmdir "
    "rename renameat renameat2 link linkat getdents64"
).split()
# Names that exist on neither side at first: what appears under the protected tree is a leak.
NEW = "mkdir mkdirat symlink symlinkat openexcl renameto linkto".split()
OPS = [*BOTH, *ONLY, *NEW]
# What a refused or lost race may say. Anything else (EIO, EFAULT, ENOSYS, EINVAL) would be a fault of the sandbox.
REFUSALS = {"EACCES", "ENOENT", "EPERM", "ELOOP", "EXDEV", "ENOTDIR", "EAGAIN", "EEXIST", "ENOTEMPTY"}


def lay(runner: Runner, arena: Arena, below: str = "") -> None:
    """The names the operations use, on the benign and on the secret side."""
    for side in (arena.box / below, arena.ctf / below):
        open_directory(side)
    for op in BOTH:
        open_file(arena.box / below / op, "a file of the box\n")
        arena.secret(str(Path(below) / op))
    for op in ("execve", "execveat"):
        place(runner.payload("exit_code", CODE=7), arena.box / below / op)
        place(runner.payload("exit_code", CODE=42), arena.ctf / below / op)
    for op in ONLY:
        lay_only(arena, str(Path(below) / op), op)


def lay_only(arena: Arena, name: str, op: str) -> None:
    """One name of the secret side, of the kind its operation needs."""
    if op.startswith("readlink"):
        (arena.ctf / name).symlink_to(arena.flag)
    elif op in ("rmdir", "getdents64"):
        open_directory(arena.ctf / name)
    else:
        arena.secret(name)


def place(program: str, to: Path) -> None:
    """Copy a program where an attack expects it."""
    to.unlink(missing_ok=True)
    shutil.copy(program, to)
    to.chmod(0o755)


def scratch_of(arena: Arena) -> Path:
    """A directory for what operations need beside their path."""
    scratch = arena.root / "scratch"
    open_directory(scratch)
    return scratch


def race(runner: Runner, arena: Arena, writer: str, share: float, first: bool, ops: Sequence[str]) -> list[str]:
    """The command line of the racing payload."""
    sides = [str(arena.box), str(arena.ctf)]
    threads = "8" if writer != "clonevm" else "4"
    return [
        runner.payload("race"), writer, str(share), str(int(first)), threads, *sides, str(scratch_of(arena)), *ops
    ]  # fmt: skip


def escaped(outcome: Outcome, before: dict[str, tuple[object, ...]], after: dict[str, tuple[object, ...]]) -> set[str]:
    """The operations that reached the secret side: seen by the payload, or by what changed there."""
    seen = {key.removesuffix(".leak") for key, value in outcome.facts.items() if key.endswith(".leak") and value != "0"}
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return seen | {os.path.basename(name) for name in changed if os.path.basename(name) in OPS}


def not_escaped(
    runner: Runner, arena: Arena, ops: Sequence[str], command: Callable[[float, Sequence[str]], list[str]]
) -> set[str]:
    """Positive control: repeat the attack natively, each time longer; the operations that never reached the
    secret."""
    left, share = list(ops), 0.05
    for _ in range(6):
        before = arena.snapshot()
        outcome = runner.native(command(share, left), 30 + len(left) * share)
        reached = escaped(outcome, before, arena.snapshot())
        left, share = [op for op in left if op not in reached], 2 * share
        if not left:
            break
    return set(left)


def assert_held(outcome: Outcome, arena: Arena, ops: Sequence[str]) -> None:
    """Nothing escaped, every operation was tried, and refusals look like refusals."""
    assert_silent(outcome, arena)
    assert outcome.status == 0, outcome.err
    allowed = {getattr(__import__("errno"), name) for name in REFUSALS}
    for op in ops:
        assert outcome.number(f"{op}.leak", -1) == 0, f"{op} reached the secret: {outcome.facts}"
        assert outcome.number(f"{op}.calls") > 0, f"{op} was never called"
        assert set(outcome.errnos(op)) <= allowed, f"{op}: {outcome.errnos(op)}"


def test_a1_control(runner: Runner, arena: Arena) -> None:
    """A1 control: with the protection off every one of these races reaches the secret."""
    lay(runner, arena)
    assert not not_escaped(runner, arena, OPS, lambda share, left: race(runner, arena, "thread", share, True, left))


def test_a1_path_in_memory_changes(runner: Runner, arena: Arena, seconds: float) -> None:
    """A1: eight threads pass a path that a ninth flips; whatever was judged is what was done."""
    lay(runner, arena)
    with unharmed(arena):
        outcome = runner.boxed(race(runner, arena, "thread", seconds / 10, False, OPS), arena.rules(), 60 + 4 * seconds)
    assert_held(outcome, arena, OPS)
    allowed = sum(outcome.number(f"{op}.ok") for op in BOTH)
    refused = sum(sum(outcome.errnos(op).values()) for op in BOTH)
    assert allowed and refused, "the race was one-sided, it showed nothing"


@pytest.mark.parametrize("writer", ["clonevm", "shm", "file"])
def test_a3_path_in_shared_memory_changes(runner: Runner, arena: Arena, seconds: float, writer: str) -> None:
    """A3: the same with a writer that is no thread: clone(CLONE_VM), shared memory, a mapped file."""
    ops = ["open", "openat2", "stat", "unlink", "mkdir", "renameto", "execve"]
    lay(runner, arena)
    with unharmed(arena):
        outcome = runner.boxed(race(runner, arena, writer, seconds / 10, False, ops), arena.rules(), 60 + seconds)
    assert_held(outcome, arena, ops)
    assert not not_escaped(runner, arena, ops, lambda share, left: race(runner, arena, writer, share, True, left))


def read_only_rules(arena: Arena, name: str) -> list[str]:
    """Everything allowed but writing and truncating one file."""
    return [*arena.rules(), f"deny/write,truncate+{arena.box}/{name}"]


def test_a2_structure_in_memory_changes(runner: Runner, arena: Arena, seconds: float) -> None:
    """A2: openat2's `how` flips between reading and truncating; a file that may only be read is never touched."""
    open_file(arena.box / "kept", "must stay\n")
    command = [runner.payload("flip_how"), str(seconds / 2), str(arena.box / "kept")]
    outcome = runner.boxed(command, read_only_rules(arena, "kept"))
    assert outcome.status == 0, outcome.err
    assert outcome.number("read") > 0 and outcome.number("refused") > 0, outcome.out
    assert outcome.number("written") == 0 and (arena.box / "kept").read_text() == "must stay\n"
    control = runner.native(command)
    assert control.number("written") > 0 and (arena.box / "kept").read_text() == ""


@pytest.mark.parametrize("writer", ["thread", "clonevm"])
def test_a6_chdir_path_changes(runner: Runner, arena: Arena, seconds: float, writer: str) -> None:
    """A6: chdir with a flipping path never leaves a living process in the protected directory."""
    command = [runner.payload("flip_chdir"), writer, str(seconds), str(arena.box), str(arena.ctf)]
    with unharmed(arena):
        outcome = runner.boxed(command, arena.rules())
    assert_silent(outcome, arena)
    assert outcome.status == 0, outcome.err
    assert outcome.number("inside") == 0 and outcome.number("leak") == 0, outcome.out
    assert outcome.number("benign") > 0 and outcome.number("refused") + outcome.number("killed") > 0, outcome.out
    control = runner.native([*command[:2], "0.3", *command[3:]])
    assert control.number("inside") > 0 and control.number("leak") > 0, control.out


def test_a6_fchdir(runner: Runner, arena: Arena) -> None:
    """A6: fchdir is judged by the directory the descriptor is, not by a name."""
    open_directory(arena.box / "in")
    command = [runner.payload("go_by_descriptor"), str(arena.box / "in")]
    denied = [*switch_on(), "allow/all+/***", f"deny/chdir+{arena.box}/in"]
    outcome = runner.boxed(command, denied)
    assert outcome.status == 13, (outcome.status, outcome.err)
    assert runner.boxed(command, arena.rules()).status == 0
