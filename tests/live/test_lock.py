"""When the lock closes: pages sealed, nothing edits again, also while everybody is busy."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from errno import ENOENT, EPERM
from pathlib import Path

import pytest
from bench import Bench, Run

F_GET_SEALS, SEAL, SHRINK, GROW, WRITE, FUTURE_WRITE, SEAL_EXEC = 1034, 1, 2, 4, 8, 16, 32
JOURNAL = "/memfd:syd-journal"


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The payload that checks every result of its calls."""
    return Bench.compile(tmp_path_factory.mktemp("load"))


def journals(pid: int) -> Iterator[int]:
    """Descriptors, ours, of the journals that a process holds."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        link = f"/proc/{pid}/fd/{name}"
        try:
            if os.readlink(link).startswith(JOURNAL):
                yield os.open(link, os.O_RDWR)
        except FileNotFoundError:
            continue


def seals(run: Run) -> set[int]:
    """The seals of the journals of a run; whoever holds one, it can be neither written nor mapped for it."""
    found = set()
    for pid in [run.one("syd_main"), *run.processes("syd_emu")]:
        for fd in journals(pid):
            found.add(fcntl.fcntl(fd, F_GET_SEALS) & ~SEAL_EXEC)
            with pytest.raises(PermissionError):
                os.pwrite(fd, b"x", 0)
            with pytest.raises(PermissionError):
                mmap.mmap(fd, 4096)
            os.close(fd)
    return found


def protections(run: Run, comm: str) -> list[set[str]]:
    """How each process of this name has the journal mapped."""
    found = []
    for pid in run.processes(comm):
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        found.append({line.split()[1] for line in lines if JOURNAL in line})
    return found


def test_locking_seals_the_journal(bench: Bench, speak: Path) -> None:
    """Open: only the tracer's mapping can be written.  Locked: none, and there can never be another."""
    words = [str(speak), "stat:/dev/syd", "wait:900", "stat:/dev/syd/lock:on", "wait:1500"]
    with bench.start("nothing", words, rules=["lock:off"]) as run:
        run.running.line("stat:/dev/syd 0")
        assert seals(run) == {SHRINK | GROW | FUTURE_WRITE}
        assert protections(run, "syd_main") == [{"rw-s"}]
        assert all(found == {"r--s"} for found in protections(run, "syd_emu"))
        run.running.line("stat:/dev/syd/lock:on 0")
        assert seals(run) == {SHRINK | GROW | FUTURE_WRITE | WRITE | SEAL}
        assert protections(run, "syd_main") == [{"r--s"}]
        assert run.finish(30).status == 0


def test_a_locked_run_has_no_journal(bench: Bench, speak: Path) -> None:
    """lock:on from the start: there is nothing to write at all; workers have their filter in either case."""
    for state, expected in (("on", False), ("off", True)):
        with bench.start("nothing", [str(speak), "stat:/", "wait:700"], rules=[f"lock:{state}"]) as run:
            run.running.line("stat:/ ")
            assert bool(seals(run)) == expected
            assert len(run.processes("syd_exec")) == expected
            for pid in run.processes("syd_emu"):
                assert "\nSeccomp:\t2\n" in Path(f"/proc/{pid}/status").read_text()
            run.finish(30)


WAYS = [("off", ["exec", "drop", "on"]), ("off", ["drop", "on"]), ("exec", ["drop", "on"]), ("off", ["read"]),
        ("exec", ["on"]), ("drop", ["on"]), ("exec", ["read"])]  # fmt: skip


@pytest.mark.parametrize(("start", "steps"), WAYS)
def test_transitions_under_load(bench: Bench, speak: Path, load: Path, start: str, steps: list[str]) -> None:
    """While others call as fast as they can: each step holds from its answer on, and no call is judged wrongly."""
    for who in range(4):
        (bench.box / f"keep{who}").write_text(f"file of caller {who}")
    words, expected = [], []
    for state in steps:
        words += [f"stat:/dev/syd/lock:{state}", "stat:/dev/syd/sandbox/mkdir:on", "stat:/dev/syd/lock:off"]
        closed = state in ("on", "read")
        expected += [0, ENOENT if closed else 0, ENOENT if closed else EPERM]
    shell = f"{load} load {bench.box} 1.5 4 >&2 & exec {speak} wait:300 {' '.join(words)} wait:1500"
    outcome, _ = bench.run("nothing", ["/bin/sh", "-c", shell], 40, rules=[f"lock:{start}"])
    said = [int(line.rsplit(" ", 1)[1]) for line in outcome.out.splitlines() if line.startswith("stat:")]
    assert said == expected, (outcome.out, outcome.err[-500:])
    assert outcome.status == 0
    facts = dict(line.split(" ", 1) for line in outcome.err.splitlines() if line.count(" ") == 1)
    assert int(facts["calls"]) > 100, outcome.err[-500:]
    for bad in ("wrong", "other", "killed", "leaked"):
        assert facts[bad] == "0", (bad, outcome.err[-500:])
