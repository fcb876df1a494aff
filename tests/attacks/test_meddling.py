"""D3, E9 and kin: nobody in the sandbox slows down, limits, moves, watches or reads our processes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from arena import Arena, Runner, Running, is_real_syd

pytestmark = pytest.mark.attack

EPERM, ESRCH, ENOENT = 1, 3, 2
LIFTED = [f"trace/allow_unsafe_{name}:1" for name in ("caps", "nice", "prlimit", "mbind", "perf", "magiclinks")]
TO_CHILDREN = ("affinity affinity_thread nice_process nice_thread nice_group io_process io_group limit "
               "scheduler parameter attr pidfd").split()  # fmt: skip


@pytest.fixture(params=["landlock", "handlers"])
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    """With Landlock's signal scope and as on Linux before 6.12: Landlock also guards what ptrace(2) guards."""
    if request.param == "handlers" and is_real_syd():
        pytest.skip("the variable is ours")
    return {"SYD_POOL_TEST_NO_SIGNAL_SCOPE": "1"} if request.param == "handlers" else {}


def facts_about(running: Running, ours: Callable[[], list[int]]) -> tuple[dict[str, str], list[object]]:
    """Let the payload loose on processes: its facts, and how each was scheduled and limited before and after."""
    running.line("ready")
    time.sleep(0.3)  # until all have their names
    pids = ours()
    before = [state(pid) for pid in pids]
    assert running.process.stdin is not None
    running.process.stdin.write(
        b"".join(b"%d %s\n" % (pid, name) for pid in pids for name in os.listdir(b"/proc/%d/task" % pid))
    )
    running.process.stdin.flush()
    running.process.stdin.close()
    running.line("score", 30)
    changed = [(was, now) for pid, was in zip(pids, before, strict=True) if (now := state(pid)) != was]
    outcome = running.finish(30)
    assert outcome.status == 0, outcome
    return outcome.facts, changed


def state(pid: int) -> tuple[object, ...]:
    """What can be changed of a process from outside."""
    try:
        with open(f"/proc/{pid}/limits") as limits, open(f"/proc/{pid}/oom_score_adj") as score:
            return (
                Path(f"/proc/{pid}/comm").read_text(),
                os.sched_getaffinity(pid),
                os.sched_getscheduler(pid),
                os.getpriority(os.PRIO_PROCESS, pid),
                next(line for line in limits if line.startswith("Max cpu time")),
                score.read(),
            )
    except OSError:
        return ("gone",)


def reached(facts: dict[str, str]) -> set[str]:
    """The ways that worked at least once."""
    return {key for key, value in facts.items() if "." not in key and value != "0" and key != "ready"}


@pytest.mark.parametrize("policy", ["everything", "nothing"])
def test_d3_e9_our_processes(runner: Runner, arena: Arena, env: dict[str, str], policy: str) -> None:
    """D3, E9: by 24 ways, all their options set, no process of ours is changed, watched or read."""
    rules = [*LIFTED, *(arena.rules() if policy == "everything" else [])]
    with runner.start(runner.syd([runner.payload("meddle")], rules), env=env, stdin=subprocess.PIPE) as running:
        facts, changed = facts_about(running, lambda: [p for p in running.sandbox() if p != running.process.pid])
    assert not changed, changed
    assert not reached(facts), reached(facts)


def test_d3_e9_control(runner: Runner) -> None:
    """D3, E9 control: natively these ways reach a process of the same user."""
    victim = subprocess.Popen(["sleep", "100"], start_new_session=True, **runner.identity.arguments())  # type: ignore[call-overload]
    try:
        spare = dict(os.environ, SPARE_ROOT="1")
        with runner.start([runner.payload("meddle")], env=spare, stdin=subprocess.PIPE) as running:
            facts, changed = facts_about(running, lambda: [victim.pid])
    finally:
        victim.kill()
        victim.wait()
    assert changed
    expected = set(TO_CHILDREN) - {"attr"} | {
        "nice_user",
        "io_user",
        "score",
        "vm_read",
        "vm_write",
        "memory",
        "pidfd",
        "getfd",
    }
    if runner.identity.uid is None:
        expected -= {"nice_user", "io_user"}  # all of root's processes are the whole machine
    assert expected <= reached(facts), expected - reached(facts)


def test_processes_of_the_command(runner: Runner, env: dict[str, str]) -> None:
    """A child is fair game: with the options set it can be scheduled and limited as natively."""
    command = [runner.payload("meddle"), "child"]
    outcome = runner.boxed(command, LIFTED, env=env)
    native = runner.native(command, env=dict(os.environ, SPARE_ROOT="1"))
    assert {k: outcome.facts[k] for k in TO_CHILDREN} == {k: native.facts[k] for k in TO_CHILDREN}
    assert {k for k in TO_CHILDREN if outcome.facts[k] != "0"} <= {"attr"}, outcome.out
