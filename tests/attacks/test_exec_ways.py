"""E11, E12, A4: a program that may not be executed, by every way that is not its path."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from arena import ALL, Arena, Runner, open_directory, switch_on

pytestmark = pytest.mark.attack

RUNS = 42
# not by the bytes of a copy with a name of its own: that is another file, which the rules have a name for
OF_MEMORY = {"memfd", "memfd_exec", "memfd_proc", "memfd_link"}
OF_COPIES = {"nameless", "nameless_proc", "deleted"}
SKIPPED = 0


def lay(runner: Runner, arena: Arena) -> list[str]:
    """The denied program, which may be read, and a directory where everything but executing is allowed."""
    tools = arena.root / "tools"
    open_directory(tools)
    program = tools / "program"
    shutil.copy(runner.payload("exit_code", CODE=RUNS), program)
    program.chmod(0o755)
    os.chown(program, runner.identity.uid or 0, runner.identity.uid or 0)
    work = arena.box / "work"
    open_directory(work)
    return [str(program), str(work)]


def rules(arena: Arena, *more: str) -> list[str]:
    """Everything on and allowed, but executing what lies in two directories."""
    denied = (f"deny/exec+{arena.root}/tools/***", f"deny/exec+{arena.box}/work/***")
    return [*switch_on(), f"allow/{ALL}+/***", *denied, *more]


def statuses(facts: dict[str, str]) -> dict[str, int]:
    """Way to exit status."""
    return {way: int(status) for way, status in facts.items()}


@pytest.mark.parametrize("mode", ["ptrace", "unsafe"])
def test_e11_no_way_runs_it(runner: Runner, arena: Arena, mode: str) -> None:
    """E11: by descriptor, /proc, memory, a file without a name, links, scripts, the loader: refused."""
    more = ["trace/allow_unsafe_ptrace:1"] if mode == "unsafe" else []
    words = [runner.payload("exec_ways"), *lay(runner, arena)]
    outcome = runner.boxed(words, rules(arena, *more))
    assert outcome.status == 0, outcome
    ran = {way for way, status in statuses(outcome.facts).items() if status == RUNS}
    assert not ran, ran
    native = statuses(runner.native(words).facts)
    assert len(native) == len(outcome.facts) == 25
    could_not = {way for way, status in native.items() if status != RUNS}
    assert could_not <= {"memfd_exec"}, (could_not, native)  # MFD_EXEC is Linux 6.3


def test_e11_every_way_when_allowed(runner: Runner, arena: Arena) -> None:
    """With the execution allowed every way runs it but those of memory, which have an option."""
    words = [runner.payload("exec_ways"), *lay(runner, arena)]
    everything = [*switch_on(), f"allow/{ALL}+/***", "trace/allow_unsafe_exec_ldso:1"]
    status = statuses(runner.boxed(words, everything).facts)
    assert {way for way, code in status.items() if code != RUNS} <= OF_MEMORY, status
    assert all(status[way] == 113 for way in OF_MEMORY), status
    lifted = [*everything, "trace/allow_unsafe_memfd:1", "allow/exec+!memfd:*"]
    with_memory = statuses(runner.boxed(words, lifted).facts)
    assert {way for way, code in with_memory.items() if code != RUNS} == set(), with_memory


def test_e12_loader_run_directly(runner: Runner, arena: Arena) -> None:
    """E12: ld.so as a program is refused by itself, and where that is lifted the program it maps is judged."""
    words = [runner.payload("exec_ways"), *lay(runner, arena)]
    assert statuses(runner.boxed(words, rules(arena)).facts)["loader"] == 113
    lifted = statuses(runner.boxed(words, rules(arena, "trace/allow_unsafe_exec_ldso:1")).facts)
    assert lifted["loader"] not in (RUNS, 113), "mapping the program is refused to the loader"
    assert Path("/lib64/ld-linux-x86-64.so.2").exists()
