"""G15: the steps of the start that can be made to fail, each named on faulty.py's command line."""

from __future__ import annotations

import os
from typing import Any

import faults
from faults import Failed, around, die, fails
from plans import W_HITS

from syd_pool.boundary import keeper, spawn, worker_filter
from syd_pool.linux import libc, notify
from syd_pool.shm import control
from syd_pool.tracer import pool, ptrace, run, watch
from syd_pool.worker import main as worker_main


def fail_keeper() -> None:
    fails(keeper, "become_tracer", 11)


def fail_prepare() -> None:
    fails(spawn, "prepare")


def fail_control() -> None:
    fails(control, "create_control", 12)


def fail_fork() -> None:
    """The third fork (keeper, then the child) cannot be made."""
    inner = os.fork
    made = []

    def fork() -> int:
        made.append(1)
        if len(made) > 1:
            faults.words[W_HITS] += 1
            raise Failed(11, "fork")
        return inner()

    os.fork = fork


def fail_seize() -> None:
    def seize(pid: int) -> bool:
        faults.words[W_HITS] += 1
        return False

    ptrace.seize = seize


def fail_seize_error() -> None:
    fails(ptrace, "seize", 1)


def fail_adopt() -> None:
    fails(spawn, "adopt")


def fail_signalfd() -> None:
    fails(libc, "signalfd", 24)


def fail_handlers() -> None:
    fails(run, "handlers")


def fail_confinement() -> None:
    fails(worker_filter, "confinement")


def fail_spawn_worker() -> None:
    fails(pool, "spawn_worker", 11)


def fail_monitor() -> None:
    fails(watch, "start_monitor", 11)


def fail_listener() -> None:
    fails(spawn, "take_listener", 1)


def fail_pidfd_getfd() -> None:
    fails(libc, "pidfd_getfd", 1)


def fail_sync() -> None:
    fails(notify, "sync_wake_up", 22)


def fail_ready() -> None:
    """A bug, not an OSError, in the tracer's start."""

    def outer(*args: Any) -> None:
        faults.words[W_HITS] += 1
        raise ValueError("a bug")

    run._set_alarm = outer


def fail_child_descriptors() -> None:
    _in_child(libc, "close_all_but")


def fail_child_nnp() -> None:
    _in_child(libc, "prctl")


def fail_child_landlock() -> None:
    fails(spawn, "_scope", 95)


def fail_child_filter() -> None:
    fails(spawn, "load", 22)


def fail_child_listener() -> None:
    inner = spawn.load

    def load(program: bytes, flags: int = 0) -> int:
        if flags:
            faults.words[W_HITS] += 1
            raise Failed(16, "load")
        return inner(program, flags)

    spawn.load = load


def fail_child_signals() -> None:
    fails(spawn, "_restore_signals")


def fail_child_dies() -> None:
    """The child is killed before it has a filter."""
    around(spawn, "_scope", lambda: os.kill(os.getpid(), 9))
    faults.words[W_HITS] += 1


def _in_child(owner: Any, name: str) -> None:
    """Fails in the command's child only."""
    inner_child, inner = spawn.child, getattr(owner, name)

    def child(prepared: Any) -> None:
        fails(owner, name)
        inner_child(prepared)

    spawn.child = child
    setattr(owner, name, inner)


def fail_worker_confine() -> None:
    """No worker can install its filter."""
    fails(worker_filter, "_confine", 22)


def fail_worker_settle() -> None:
    fails(worker_main, "map_control")


def fail_worker_killed() -> None:
    """Every worker is killed at its birth, by a signal of its own making."""
    around(worker_main, "_settle", lambda: die("segv"))
    faults.words[W_HITS] += 1


def fail_keeper_filter() -> None:
    fails(keeper.keeper_filter, "confine", 22)
