"""An edit is seen by every call that begins after it was answered, in every worker, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import time
from errno import EIO
from pathlib import Path

import pytest
from arena import Outcome, wait_until
from bench import Bench, Run

CALLERS, WORKERS = 16, 4
FIXED = {"SYD_NPROC": str(WORKERS), "SYD_NPROC_MAX": str(WORKERS)}
OPEN = ["lock:off"]
TWO_STEP = ["--fd-answers", "two-step"]


def command(bench: Bench, count: int) -> list[str]:
    """The payload: `count` edits, and every caller's calls after each."""
    watched = bench.box / "watched"
    watched.write_text("x")
    return [str(bench.payload), str(count), str(CALLERS), str(watched)]


def assert_seen(outcome: Outcome, count: int) -> None:
    """Every edit was made once, and every call was judged by it."""
    assert outcome.number("edits") == count, (outcome.out, outcome.err[-2000:])
    for bad in ("wrong", "failed", "died"):
        assert outcome.number(bad, -1) == 0, (outcome.out, outcome.err[-2000:])
    assert outcome.status == 0


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_every_edit_is_seen(bench: Bench, count: int) -> None:
    """16 callers, 4 workers: after each answer every caller's next call is judged by the edit, whole."""
    outcome, run = bench.run("nothing", command(bench, count), 100, rules=OPEN, env=FIXED)
    assert_seen(outcome, count)
    assert run.event("summary")["workers_spawned"] == WORKERS


def test_a_worker_that_does_not_hear_is_noticed(bench: Bench) -> None:
    """The control: with workers that carry no edit out the same payload counts wrong results."""
    outcome, _ = bench.run("deaf", command(bench, 50), 60, rules=OPEN, env=FIXED)
    assert outcome.number("wrong") >= 50 * CALLERS // 2


def test_the_journal_overflows(bench: Bench) -> None:
    """What no longer stands in the journal is not guessed: a worker that is too far behind makes room for one
    that is born with the rules as they are."""
    long = "y" * 3000
    script = (
        f"i=0; while [ $i -lt 500 ]; do test -c '/dev/syd/allow/read+/{long}' || echo refused; i=$((i+1)); done;"
        f"test -c '/dev/syd/deny/stat+{bench.box}/watched'; "
        f"for i in 1 2 3 4 5 6 7 8; do (test -e {bench.box}/watched && echo seen) & done; wait; echo end"
    )
    command(bench, 1)
    outcome, _ = bench.run("nothing", ["/bin/sh", "-c", script], 60, rules=OPEN, env=FIXED)
    assert outcome.out.split() == ["end"], (outcome.out, outcome.err[-2000:])


KINDS = """
allow/fs+ext4,tmpfs deny/fs+proc fs deny/net/connect+any!0-65535 allow/net/bind+10.0.0.0/8!80 allow/net/connect+::1!80
warn/net/connect+@x* deny/read,write+/a/**/b?[c] kill/exec+/a/*** default/read:kill default/read:deny sandbox/net:on
sandbox/all:on sandbox/pid,mem? trace/allow_unsafe_sendfd_dir:1 trace/deny_exec_script:1 segvguard/expiry:10s
segvguard/maxcrashes:3 log/verbose:2 reset allow/all+/*** load/fs allow/ioctl+FIONREAD allow/net/sendfd+!unnamed
deny/create+!memfd:x allow/read^/a timeout:60
"""


def test_every_kind_of_edit_is_carried_out_by_workers(bench: Bench, speak: Path) -> None:
    """A confined worker imports and opens nothing for it: each kind of edit, then a call, and no worker has died."""
    lines = KINDS.split()
    words = [word for line in lines for word in (f"stat:/dev/syd/{line}", "stat:/", "openrw:/nonexistent")]
    outcome, run = bench.run("nothing", [str(speak), *words], 60, rules=OPEN, env=FIXED)
    said = {line.rsplit(" ", 1)[0]: line.rsplit(" ", 1)[1] for line in outcome.out.splitlines()}
    refused = {line for line in lines if said[f"stat:/dev/syd/{line}"] != "0"}
    assert refused <= {"fs", "sandbox/pid,mem?"}, outcome.out
    assert run.event("summary")["workers_died"] == 0, outcome.err[-2000:]


def _kill_workers(run: Run, until: float) -> int:
    """kill -9 a worker every few milliseconds; returns how many were killed."""
    killed = 0
    while time.monotonic() < until:
        for pid in run.processes("syd_emu")[:1]:
            try:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                continue
        time.sleep(0.015)
    return killed


def test_kill_workers_while_editing(bench: Bench) -> None:
    """kill -9 of workers at any instant: no edit is lost, done twice or half, and those who are born later know
    them all.  (Done twice, the next taking back would leave one denial standing: `wrong`.)"""
    count = 1500
    with bench.start("nothing", command(bench, count), rules=OPEN, options=TWO_STEP, env=FIXED) as run:
        assert wait_until(lambda: len(run.processes("syd_emu")) >= WORKERS, 10)
        killed = _kill_workers(run, time.monotonic() + 2)
        outcome = run.finish(100)
    assert killed > 20
    assert_seen(outcome, count)


def test_kill_the_monitor_while_editing(bench: Bench) -> None:
    """The monitor takes no part in an edit: killed again and again, nothing is wrong."""
    count = 800
    with bench.start("nothing", command(bench, count), rules=OPEN, env=FIXED) as run:
        for _ in range(5):
            time.sleep(0.1)
            for pid in run.processes("syd_mon"):
                os.kill(pid, signal.SIGKILL)
        outcome = run.finish(100)
    assert_seen(outcome, count)


def test_kill_the_tracer_while_editing(bench: Bench) -> None:
    """Nothing runs on under rules that nobody keeps: with the tracer all of it dies."""
    with bench.start("nothing", command(bench, 100_000), rules=OPEN, env=FIXED) as run:
        assert wait_until(lambda: run.processes("syd_main") != [], 10)
        time.sleep(0.5)
        os.kill(run.one("syd_main"), signal.SIGKILL)
        outcome = run.finish(30)
    assert outcome.status == 125
    assert "edits" not in outcome.out


def test_an_evil_worker_edits_nothing(bench: Bench, speak: Path) -> None:
    """F10: a worker that calls a symlink(2) a command is killed and the call fails."""
    bench.arm(4)
    words = [str(speak), f"symlink:{bench.box}/l", "stat:/dev/syd/sandbox/read?", f"stat:{bench.box}/l"]
    outcome, run = bench.run("evil_command", words, 30, rules=["lock:off"])
    assert run.event("summary")["workers_killed"] >= 1, outcome.err
    assert "read? 0" in outcome.out, outcome.out
    assert f"/l {EIO}" in outcome.out, outcome.out
