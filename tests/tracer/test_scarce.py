"""What the tracer does when there is no process for it, or when whom it wants to reach has gone."""

from __future__ import annotations

import os
from errno import EAGAIN
from types import SimpleNamespace
from typing import Any, cast

import pytest
from bench import descriptors

from syd_pool.shm import control as c
from syd_pool.shm.ring import CHDIR_DONE
from syd_pool.tracer import deaths, ghost, tasks, watch
from syd_pool.tracer.state import Run, Task


def refused(*_: object) -> int:
    """fork(2) at the limit of the user's processes."""
    raise BlockingIOError(EAGAIN, "no process")


def some_run(**more: Any) -> tuple[Run, list[str]]:
    """The parts of a run that are looked at here, and the log."""
    log: list[str] = []
    parts = {
        "boot_failures": 0,
        "workers": {},
        "ready": [],
        "ended": False,
        "ghost": False,
        "eldest": 1,
        "tasks": {},
        "early_dead": set(),
        "condemned": set(),
        "ptrace": True,
        "control": SimpleNamespace(q={c.H_NPROC: 2, c.H_MONITOR: 0, c.H_MONITORS: 0}),
        "monitor": None,
        "monitor_page": None,
        "monitor_pid": 7,
        "monitor_born": 0,
        "log": lambda *words: log.append(words[0]),
    }
    return cast(Run, SimpleNamespace(**{**parts, **more})), log


def test_no_process_for_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last worker dies while the command has every process of its user: the run goes on, the monitor asks again."""
    started: list[object] = []
    for how, lines in ((started.append, []), (refused, ["worker"])):
        run, log = some_run()
        monkeypatch.setattr(deaths, "spawn_worker", how)
        deaths._survive(run, True, False)
        assert (log, run.ended) == (lines, False)
    assert len(started) == 1, "control: it is replaced where that is possible"


def test_no_process_for_a_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with the monitor: it is tried again, and nothing is left open."""
    run, log = some_run()
    before = descriptors(os.getpid())
    monkeypatch.setattr(os, "fork", refused)
    watch.reap_monitor(run)
    watch.check_monitor(run)
    assert log == ["monitor"] * 2 and run.monitor_pid == 0
    assert descriptors(os.getpid()) == before


def test_a_ghost_kills_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ghost mode turns a waiting tracee away only while it is there: its number may be somebody else's."""
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: killed.append(pid))
    task = Task(1001, 1001, 0, 0)
    run, _ = some_run()
    ghost.turn_away(run, task, CHDIR_DONE)
    assert killed == []
    run.tasks[1001] = task
    ghost.turn_away(run, task, CHDIR_DONE)
    assert killed == [1001], "control"


def test_the_dead_are_not_remembered_for_ever() -> None:
    """Thread ids that ended since the last umask(2) are a bounded set; beyond it what workers remember is stale."""
    run, _ = some_run(umask_gen=1, facts=0, died=set())
    for tid in range(2, tasks.MOST_DIED + 2):
        tasks.forget(run, tid)
    assert (len(run.died), run.umask_gen) == (tasks.MOST_DIED, 1), "control"
    for tid in range(tasks.MOST_DIED):
        tasks.forget(run, 100_000 + tid)
    assert len(run.died) < tasks.MOST_DIED and run.umask_gen == 2


@pytest.mark.parametrize("inside", [True, False])
def test_a_leader_that_is_ended_in_umask(inside: bool) -> None:
    """Its sibling executes while it is in umask(2): no exit stop tells of it, yet the mask may be another one."""
    run, _ = some_run(umask_gen=0, facts=0, died=set(), exec_counter=0, cred_counter=0)
    run.tasks = {5: Task(5, 5, 0, 0), 6: Task(6, 5, 0, 0)}
    run.tasks[5].noting = inside
    tasks.executed(run, 5, 6)
    assert run.umask_gen == inside
