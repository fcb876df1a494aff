"""G5-G9, F2, F9-F11, D8: what the pool, the tracer and the monitor do when one of them misbehaves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from arena import wait_until
from bench import Bench, Run, descriptors
from plans import SEND, STRICT, TWO_STEP, W_SEEN

from syd_pool.tracer.deaths import FOREIGN_DEATHS

LOAD = 1.2


def load(bench: Bench, seconds: float = LOAD, callers: int = 4) -> list[str]:
    """The payload that checks every result, for a time."""
    for who in range(callers):
        (bench.box / f"keep{who}").write_text(f"file of caller {who}")
    return [str(bench.payload), "load", str(bench.box), str(seconds), str(callers)]


def assert_right(outcome, least: int = 200) -> None:  # type: ignore[no-untyped-def]
    """The load saw only right results, and no descriptor was left."""
    assert outcome.status == 0, (outcome.status, outcome.err[-1000:])
    assert outcome.number("calls") > least, outcome.out
    for bad in ("wrong", "other", "killed"):
        assert outcome.number(bad, -1) == 0, outcome.out
    assert outcome.number("leaked", -1) == 0, outcome.out


# --- G5 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["l", "u", "d"])
def test_g5_poison_call(bench: Bench, letter: str) -> None:
    """G5: a call that crashes every worker costs two, then it is denied; others do not feel it, and a fork of
    the caller is no new caller.  An exit is a crash, whatever its status."""
    other = bench.root / "other"
    other.write_bytes(bench.payload.read_bytes())
    other.chmod(0o755)
    bad = [str(bench.payload), str(bench.box), letter * 3]
    command = ["/bin/sh", "-c", f'{other} {" ".join(load(bench)[1:-1])} 1 & shift; "$@" >&2; "$@" >&2; wait', "sh", "",
               *bad]  # fmt: skip
    outcome, run = bench.run("poison", command)
    assert outcome.status == 0, outcome.err
    answers = [line for line in outcome.err.splitlines() if line[0].isdigit()]
    assert answers == ["0 13", "1 13", "2 13"] * 2, outcome.err
    assert bench.hits == 2
    assert run.event("summary")["workers_died"] == 2
    assert_right(outcome)
    assert outcome.number("p99-us") < 50_000, outcome.out
    (line,) = [line for line in outcome.err.splitlines() if '"ctx":"poison"' in line]
    assert {"l": "symlink", "u": "truncate", "d": "rmdir"}[letter] + " has cost 2 workers" in line


def test_g5_killed_for_ever(bench: Bench) -> None:
    """G5: whoever holds this call is killed by somebody, always: it is denied in the end, and only it."""
    outcome, run = bench.run("poison", [str(bench.payload), str(bench.box), "nm"])
    assert outcome.out == "0 13\n1 ok\n", (outcome.out, outcome.err)
    assert bench.hits == FOREIGN_DEATHS == run.event("summary")["workers_died"]
    assert f"link has met {FOREIGN_DEATHS} workers that were killed" in outcome.err


def test_g5_who_leaves_is_no_poison(bench: Bench) -> None:
    """A worker too far behind the edits leaves with a status that says so: others take its calls, none is to blame."""
    bench.arm(5)
    outcome, run = bench.run("behind", [str(bench.payload), str(bench.box), "lm"])
    assert outcome.out == "0 ok\n1 ok\n", (outcome.out, outcome.err)
    assert bench.hits == 5 == run.event("summary")["workers_died"]
    assert "poison" not in outcome.err


def test_g5_poison_judgement(bench: Bench) -> None:
    """G5: judging an exec that crashes every worker: two are lost, then this program executes nothing more;
    another one does."""
    poison = bench.box / "poison"
    poison.symlink_to("/bin/true")
    other = "read line; /bin/true; echo other $?"
    script = f"{poison}; echo $?; {poison}; echo $?; /bin/true; echo $?"
    outcome, run = bench.run("poison", ["/bin/bash", "-c", f"(/bin/sh -c '{script}'; echo) | ({other}; cat)"])
    assert outcome.out.split() == ["other", "0", "126", "126"], (outcome.out, outcome.err)
    assert bench.hits == 2
    assert run.event("summary")["workers_died"] == 2
    assert "execve has cost 2 workers" in outcome.err


def test_g5_poison_chdir(bench: Bench) -> None:
    """G5: as above for chdir: it fails, and the program goes on where it was."""
    (bench.box / "poison").mkdir()
    script = f"cd /; cd {bench.box}/poison; echo $?; pwd; /bin/true; echo $?"
    outcome, run = bench.run("poison", ["/bin/sh", "-c", script])
    assert outcome.out.split() == ["2", "/", "0"], (outcome.out, outcome.err)
    assert bench.hits == 2
    assert run.event("summary")["workers_died"] == 2
    assert "chdir has cost 2 workers" in outcome.err


@pytest.mark.parametrize("what", ["exec", "chdir"])
def test_g5_poison_verification(bench: Bench, what: str) -> None:
    """G5: what cannot be verified after the fact does not run on: it is killed, and the log says who and why."""
    at = bench.box / "poison-after"
    if what == "exec":
        at.write_bytes(Path("/bin/true").read_bytes())
        at.chmod(0o755)
    else:
        at.mkdir()
    script = f"{at}; echo $?" if what == "exec" else f"(cd {at}; echo not reached); echo $?"
    outcome, run = bench.run("poison", ["/bin/sh", "-c", f"{script}; echo on"])
    assert outcome.out.split() == ["137", "on"], (outcome.out, outcome.err)
    assert bench.hits == 2
    assert run.event("summary")["workers_died"] == 2
    (line,) = [json.loads(line) for line in outcome.err.splitlines() if '"ctx":"kill"' in line]
    assert line["sys"] == {"exec": "execve", "chdir": "chdir"}[what]
    assert "no worker lived to judge what it did" in line["msg"]
    assert line["path"].endswith("/poison-after" if what == "exec" else "sh")


def test_g5_foreign_kill_blames_nobody(bench: Bench) -> None:
    """G5: a worker that somebody else kills is no poison, however often."""
    command = ["/bin/sh", "-c", "echo ready; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 0.05; : </dev/null; done"]
    with bench.start("nothing", command) as run:
        run.running.line("ready")
        for _ in range(6):
            os.kill(run.processes("syd_emu")[0], signal.SIGKILL)
            time.sleep(0.07)
        outcome = run.finish()
    assert outcome.status == 0
    assert "denied" not in outcome.err
    assert run.event("summary")["workers_died"] >= 6


@pytest.mark.parametrize("mode", [TWO_STEP, STRICT])
def test_g4_judgements_under_kills(bench: Bench, mode: str) -> None:
    """G4: workers are killed one after the other while programs execute and change directory: every judgement and
    every verification comes, and is right."""
    loop = "while [ $i -lt 300 ]; do /bin/true || echo bad; cd /tmp || echo bad; cd / || echo bad; i=$((i+1)); done"
    with bench.start("nothing", ["/bin/bash", "-c", f"echo ready; i=0; {loop}; echo end"],
                     options=["--fd-answers", mode]) as run:  # fmt: skip
        run.running.line("ready")
        kills, end = 0, time.monotonic() + 30
        while run.running.process.poll() is None and time.monotonic() < end:
            for pid in run.processes("syd_emu")[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
            time.sleep(0.01)
        outcome = run.finish()
    assert outcome.out == "ready\nend\n", (outcome.out, outcome.err)
    summary = run.event("summary")
    assert kills >= summary["workers_died"] > 20
    assert summary["again"] > 0 and summary["unknown"] == 0


# --- G6, G7, G8 -------------------------------------------------------------------------------------


def test_g6_tracer_stopped(bench: Bench) -> None:
    """G6: the tracer is stopped under load and goes on: nothing lost, nothing done twice."""
    with bench.start("nothing", load(bench, 2.6)) as run:
        run.running.line("ready")
        time.sleep(0.2)
        tracer = run.one("syd_main")
        os.kill(tracer, signal.SIGSTOP)
        time.sleep(2)
        os.kill(tracer, signal.SIGCONT)
        outcome = run.finish()
    assert_right(outcome)
    assert outcome.number("max-us") > 1_900_000, "it was not stopped: nothing was shown"
    assert outcome.number("eio") == 0
    assert run.event("summary")["workers_died"] == 0


def test_g7_worker_stopped(bench: Bench) -> None:
    """G7: a stopped worker is found by its lack of progress and replaced; the calls it held are answered."""
    # not `send`: stopped while it installs a descriptor a worker is continued instead
    options = ["--fd-answers", TWO_STEP]
    with bench.start("nothing", load(bench, 2.5), options=options, env={"SYD_POOL_STALL_MS": "300"}) as run:
        run.running.line("ready")
        time.sleep(0.2)
        stopped = run.processes("syd_emu")[0]
        os.kill(stopped, signal.SIGSTOP)
        assert wait_until(lambda: stopped not in run.processes("syd_emu"), 2), "a stopped worker is still there"
        outcome = run.finish()
    assert_right(outcome)
    assert outcome.number("max-us") < 2_000_000, outcome.out
    assert run.event("summary")["workers_killed"] >= 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_g8_monitor(bench: Bench, how: signal.Signals) -> None:
    """G8: a monitor that is killed or stopped is replaced within a second or so, and no call notices."""
    with bench.start("nothing", load(bench, 3.6)) as run:
        run.running.line("ready")
        first = run.one("syd_mon")
        os.kill(first, how)
        replaced = wait_until(lambda: run.processes("syd_mon") not in ([], [first]), 1.5)
        again = run.processes("syd_mon")
        assert replaced, f"still {again}"
        os.kill(again[-1], how)
        outcome = run.finish()
    assert_right(outcome)
    assert outcome.number("eio") == 0
    summary = run.event("summary")
    assert summary["monitors"] == 3
    assert summary["workers_died"] == 0


def test_g8_no_monitor_at_all(bench: Bench) -> None:
    """G8: monitors that die at birth are started again at a modest pace, and the run does without."""
    outcome, run = bench.run("dying_monitor", load(bench))
    assert_right(outcome)
    assert 2 <= run.event("summary")["monitors"] <= 8


# --- F2: a stall ------------------------------------------------------------------------------------


@pytest.mark.root
def test_f2_userfaultfd(bench: Bench) -> None:
    """F2: a page that never comes puts a worker into an uninterruptible sleep: the monitor has it killed, the
    call fails, and the others go on."""
    if os.geteuid() != 0 or not Path("/proc/sys/vm/unprivileged_userfaultfd").exists():
        pytest.skip("needs root and a kernel with userfaultfd")
    other = bench.root / "other"
    other.write_bytes(bench.payload.read_bytes())
    other.chmod(0o755)
    command = ["/bin/sh", "-c", f"{other} {' '.join(load(bench, 2)[1:-1])} 2 & {bench.payload} uffd; wait"]
    # the kernel wants CAP_SYS_PTRACE of who stalls others
    rules = ["trace/allow_unsafe_caps:1"]
    outcome, run = bench.run("userfaultfd", command, env={"SYD_POOL_STALL_MS": "300"}, rules=rules)
    assert "no-uffd" not in outcome.facts, outcome.out
    assert outcome.number("answer") in (5, 13, 14), (outcome.out, outcome.err)
    assert 300 <= outcome.number("milliseconds") < 4000, outcome.out
    assert_right(outcome)
    assert outcome.number("p99-us") < 50_000, outcome.out
    assert run.event("summary")["workers_killed"] == 2


def test_f2_guard(bench: Bench) -> None:
    """F2: the command does not get a userfaultfd."""
    outcome, _ = bench.run("nothing", [str(bench.payload), "uffd"])
    assert outcome.out == "no-uffd 38\n"


def test_f2_hung_read(bench: Bench) -> None:
    """F2, for everybody: the read of the caller's memory hangs; the worker is killed, the call answered."""
    at = time.monotonic()
    outcome, run = bench.run("sleepy", [str(bench.payload), "again", str(bench.box), "l", "3"],
                             env={"SYD_POOL_STALL_MS": "300"})  # fmt: skip
    assert outcome.out.split() == ["result", "13"] * 3, (outcome.out, outcome.err)
    assert time.monotonic() - at < 6
    assert bench.hits == 2
    assert run.event("summary")["workers_killed"] == 2


# --- F9, G9, F10: a worker that is not ours any more -------------------------------------------------


def test_g9_f9_worker_cannot_write(bench: Bench) -> None:
    """G9, F9: from inside a worker: no shared page but its own can be written, mapped writable or resized."""
    outcome, run = bench.run("vandal", [str(bench.payload), "again", str(bench.box), "l", "2"])
    # its handler answers the sum of what worked; 0 is success to the payload
    assert outcome.out.split() == ["result", "0"] * 2, (outcome.out, outcome.err)
    assert bench.words[W_SEEN] >= 6, "nothing was tried"
    assert run.event("summary")["workers_died"] == 0


EVIL = ["evil_kinds", "evil_random", "evil_indices", "evil_identity", "evil_interrupt", "evil_counters"]


@pytest.mark.parametrize(("fault", "mode"), [*((e, TWO_STEP) for e in EVIL), ("evil_descriptor", STRICT),
                                             ("evil_indices", STRICT)])  # fmt: skip
def test_f10_evil_worker(bench: Bench, fault: str, mode: str) -> None:
    """F10: what a worker claims wrongly is not believed: it is killed, and the others' calls are right."""
    bench.arm(18)
    other = bench.root / "other"
    other.write_bytes(bench.payload.read_bytes())
    other.chmod(0o755)
    script = f"{other} {' '.join(load(bench, 2)[1:-1])} 2 & sleep 0.3; for i in 1 2 3 4 5 6 7 8; do {bench.payload} {bench.box}/$i lll >&2; done; wait"  # noqa: E501 a shell script
    for i in range(1, 9):
        (bench.box / str(i)).mkdir()
    with bench.start(fault, ["/bin/sh", "-c", script], options=["--fd-answers", mode]) as run:
        outcome = run.running.finish(30)
    assert not outcome.leftovers
    assert "Traceback" not in outcome.err, outcome.err
    assert outcome.status == 0, (outcome.status, outcome.err[-2000:])
    assert bench.hits >= 8
    for bad in ("wrong", "other", "killed"):
        assert outcome.number(bad, -1) == 0, outcome.out
    assert run.event("summary")["workers_killed"] > 0
    linked = sum(path.is_symlink() for path in bench.box.glob("*/v*"))
    told = [line.split()[1] for line in outcome.err.splitlines() if line[:1].isdigit()]
    assert len(told) == 24, outcome.err
    assert told.count("ok") <= linked, (told, linked)


def test_f10_omission(bench: Bench) -> None:
    """F10: a call that a worker says it has finished and never answered is found, and fails."""
    bench.arm(2)
    outcome, run = bench.run("evil_omission", [str(bench.payload), str(bench.box), "lll"])
    assert outcome.out.split("\n")[:3] == ["0 5", "1 5", "2 ok"], (outcome.out, outcome.err)
    assert run.event("summary")["workers_killed"] == 2


def test_f10_exit(bench: Bench) -> None:
    """F10: a worker can end the run, as the action `exit` lets it, but in order: the status, no ledger line."""
    bench.arm(1)
    outcome, run = bench.run("evil_exit", [str(bench.payload), str(bench.box), "lll"])
    assert outcome.status == 33
    assert run.event("exit")["status"] == 33


# --- F11 --------------------------------------------------------------------------------------------


def test_f11_rare_paths(bench: Bench) -> None:
    """F11: collection, malloc's trim, exceptions and the clock at every call: the worker's filter kills none."""
    outcome, run = bench.run("rare", load(bench, 1))
    assert_right(outcome, 20)
    assert bench.hits > 20
    assert run.event("summary")["workers_died"] == 0


def test_f11_bug_in_a_handler(bench: Bench) -> None:
    """F11, I1: an exception nobody expected refuses the call and ends the worker with a line on stderr, not
    by SIGSYS."""
    script = f"umask 777; {bench.payload} {bench.box} s; echo $?"
    (bench.box / "v0").write_text("content")
    with bench.start("raising", ["/bin/sh", "-c", script]) as run:
        outcome = run.running.finish(30)
    assert "ValueError: a bug" in outcome.err
    assert bench.hits >= 1
    assert bench.hits - 1 <= run.event("summary")["workers_died"] <= bench.hits  # the last may not have been reaped
    assert "SIGSYS" not in outcome.err
    assert outcome.out == "0 13\n0\n", outcome.out  # the payload reports what its call got and goes on
    control, _ = bench.run("nothing", ["/bin/sh", "-c", script])
    assert control.out == "0 ok\n0\n", control.out


# --- G12, D8 ----------------------------------------------------------------------------------------


def test_g12_caller_vanishes_before_recv(bench: Bench) -> None:
    """G12: the caller is killed between poll and RECV, again and again: nothing hangs, nothing is counted."""
    rounds = 300
    outcome, run = bench.run("vanishing", [str(bench.payload), "vanish", str(bench.state), str(rounds)], 60)
    assert outcome.status == 0, outcome.err
    assert bench.hits > rounds // 3, "hardly ever killed in time: nothing was shown"
    assert outcome.number("killed") == bench.hits
    assert run.event("summary")["workers_died"] == 0


@pytest.mark.parametrize("mode", [SEND, TWO_STEP, STRICT])
def test_d8_descriptors(bench: Bench, mode: str) -> None:
    """D8: after thousands of opens, some by callers that are killed amid theirs, tracer and workers hold what
    they held before."""
    file = bench.box / "file"
    file.write_text("content")
    count, killed = (20_000, 100) if mode == SEND else (4_000, 50)
    command = [str(bench.payload), "opens", str(file), str(count), str(killed)]
    with bench.start("nothing", command, options=["--fd-answers", mode], stdin=subprocess.PIPE,
                     env={"SYD_NPROC_MAX": "2"}) as run:  # fmt: skip
        keyboard = run.running.process.stdin
        assert keyboard is not None
        run.running.line("warm")
        before = held(run)
        keyboard.write(b"\n")
        run.running.line("done", 60)
        after = held(run, before)
        keyboard.write(b"\n")
        keyboard.close()
        outcome = run.finish(60)
    assert outcome.number("bad", -1) == 0, outcome.out
    assert outcome.number("leaked", -1) == 0
    assert after == before


def held(run: Run, expected: dict[str, int] | None = None) -> dict[str, int]:
    """Most descriptors of the tracer, and of any worker, at rest.

    A worker that starts has the tracer's, and one that was preempted after its answer its last call's: so it is asked
    until two looks agree with each other, and with `expected`, for a few seconds.
    """
    seen: dict[str, int] = {}
    until = time.monotonic() + 5
    while time.monotonic() < until:
        last = seen
        seen = {comm: max(descriptors(pid) for pid in run.processes(comm)) for comm in ("syd_main", "syd_emu")}
        if seen == (expected or last):
            break
        time.sleep(0.1)
    return seen


def test_g13_closed_standard_descriptors(bench: Bench) -> None:
    """G13: started with 0, 1 and 2 closed: the listener does not land there, and the command finds them closed."""
    marker = bench.box / "fds"
    command = bench.command("nothing", ["/bin/sh", "-c", f"ls -l /proc/self/fd >{marker}; exit 5"])
    done = subprocess.run(["/bin/sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command], timeout=30)
    assert done.returncode == 5
    assert "seccomp" not in marker.read_text() and "memfd" not in marker.read_text()
