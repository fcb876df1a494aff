"""G1-G3: the sandbox itself is killed. What it watched must die with it, and get nothing on the way."""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

import pytest
from arena import Arena, Process, Runner, Running, is_real_syd, kill_one, open_file, wait_until

pytestmark = pytest.mark.attack


def shared_log(arena: Arena) -> Path:
    """A page in which the command counts tries, leaks and the last errno."""
    log = arena.box / "log"
    open_file(log, "\0" * 4096)
    return log


def counters(log: Path) -> tuple[int, int, int]:
    """(tries, leaks, last errno)."""
    with open(log, "rb") as file, mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ) as page:
        tries, leaks, errno = struct.unpack_from("3q", page)
    return tries, leaks, errno


def leaker(runner: Runner, arena: Arena, tasks: int) -> list[str]:
    """A tree of processes that try to read the secret for ever."""
    return [runner.payload("leaker"), str(arena.ctf / "FLAG"), str(shared_log(arena)), str(tasks)]


def supervisors(running: Running) -> dict[str, Process]:
    """Processes whose death must end everything: the one we started, and the one that traces."""
    found = running.sandbox()
    chosen = {"started": found[running.process.pid]}
    tracers = {p.tracer for p in running.command().values() if p.tracer}
    for process in found.values():
        if process.pid in tracers or any(f"{tid}" in os.listdir(f"/proc/{process.pid}/task") for tid in tracers):
            chosen["tracer"] = process
    return chosen


def assert_all_dead(running: Running, log: Path, within: float = 1.0) -> None:
    """Nothing lives a second later, and nothing read the secret meanwhile."""
    died = wait_until(lambda: not running.tree(), within)
    assert died, f"alive after {within} s: {[(p.pid, p.comm) for p in running.tree().values()]}"
    assert counters(log)[1] == 0, "the secret was read"


@pytest.mark.parametrize("who", ["started", "tracer", "all"])
def test_g1_g2_supervisor_killed(runner: Runner, arena: Arena, who: str) -> None:
    """G1, G2: kill -9 of the supervisor (the process started, the tracer, or all at once) over a tree of
    sessions, daemons and threads: nothing lives after a second, and no call in between is let through."""
    command = runner.syd(leaker(runner, arena, 40), arena.rules())
    log = arena.box / "log"
    with runner.start(command) as running:
        running.line("ready")
        assert len(running.command()) > 30
        assert wait_until(lambda: counters(log)[0] > 50, 10)
        assert counters(log)[1] == 0
        targets = [p.pid for p in running.sandbox().values()] if who == "all" else [supervisors(running)[who].pid]
        for pid in targets:
            kill_one(pid)
        assert_all_dead(running, log)
    assert counters(log)[2] in (2, 13, 38)


def test_g2_control(runner: Runner, arena: Arena) -> None:
    """G2 control: the same tree natively outlives its parent and reads the secret."""
    command = ["/bin/sh", "-c", '"$@"; :', "sh", *leaker(runner, arena, 40)]
    log = arena.box / "log"
    with runner.start(command) as running:
        running.line("ready")
        kill_one(running.process.pid)
        running.process.wait(5)
        time.sleep(0.3)
        assert len(running.tree()) > 30
        tries, leaks, _ = counters(log)
        assert leaks > 0 and leaks == tries


def test_g2_many_times(runner: Runner, arena: Arena, seconds: float) -> None:
    """G2: repeated, at random moments of the start and of the run: the start of the tree is no gap either."""
    log = shared_log(arena)
    command = runner.syd(leaker(runner, arena, 10), arena.rules())
    for round_ in range(max(4, int(6 * seconds))):
        with runner.start(command) as running:
            time.sleep(0.03 * round_ % 0.5)
            kill_one(running.process.pid)
            assert_all_dead(running, log)


def thread_group(tid: int) -> int:
    """The process a thread belongs to."""
    status = Path(f"/proc/{tid}/status").read_text()
    return int(status.split("Tgid:", 1)[1].split()[0])


def test_g3_one_tracing_thread(runner: Runner, arena: Arena) -> None:
    """G3: every task of the command is traced, all by the same thread, which is its process's main thread (it
    cannot end while the process goes on)."""
    command = runner.syd(leaker(runner, arena, 12), arena.rules())
    with runner.start(command) as running:
        running.line("ready")
        tasks = running.command()
        assert len(tasks) >= 13
        tracers = {p.tracer for p in tasks.values()}
        assert len(tracers) == 1 and 0 not in tracers, tracers
        tracer = tracers.pop()
        assert thread_group(tracer) == tracer or is_real_syd()
    with runner.start(leaker(runner, arena, 12)) as running:
        running.line("ready")
        assert {p.tracer for p in running.command().values()} == {0}
