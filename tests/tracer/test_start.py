"""G15, I1, and the ends of a run: exit statuses, --status-fd, exit_wait_all, the mode without ptrace."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import failpoints
import pytest
from arena import kill_one, wait_until
from bench import HERE, Bench
from plans import W_HITS

FAILPOINTS = sorted(name for name in vars(failpoints) if name.startswith("fail_"))


@pytest.mark.parametrize("ptrace", ["ptrace", "without"])
@pytest.mark.parametrize("fault", FAILPOINTS)
def test_g15_failpoints(bench: Bench, fault: str, ptrace: str) -> None:
    """G15, I1: whatever step of the start fails, the exit is not 0, says why, and the command never ran, not even
    one that makes no call anybody judges."""
    if ptrace == "without" and fault.startswith("fail_seize"):
        pytest.skip("nobody is seized")
    options = ["-m", "trace/allow_unsafe_ptrace:1"] if ptrace == "without" else []
    told = bench.root / "told"
    with open(told, "wb") as status:
        options += ["--status-fd", str(status.fileno())]
        # without the rules: neither exec nor anything the payload does is judged, so nobody waits for a worker
        words = bench.command(fault, [str(bench.payload), "mark"], (), options)
        command = [word for word in words if not word.startswith(("-msandbox", "-mallow"))]
        environ = {"SYD_NPROC": "2", "PATH": "/bin"}
        done = subprocess.run(command, capture_output=True, pass_fds=[status.fileno()], timeout=30, env=environ)
    assert bench.words[W_HITS] >= 1, "the failpoint was not passed"
    assert done.stdout == b"", (done, told.read_text())
    assert done.returncode not in (0, 42), done
    assert done.stderr, "it died without a word"
    assert b'"exec"' not in told.read_bytes().replace(b'"reason":"exec"', b"")


def test_g15_control(bench: Bench) -> None:
    """G15 control: without a fault the payload does run and exits 42."""
    outcome, run = bench.run("nothing", [str(bench.payload), "mark"])
    assert (outcome.out, outcome.status) == ("ran\n", 42)
    assert run.names() == ["started", "ready", "exec", "exit", "summary"]


# --- how a run ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "options", "status", "reason"),
    [
        (["/nonexistent/program"], [], 2, "exec"),
        (["/etc/passwd"], [], 13, "exec"),
        (["/bin/sh", "-c", "kill -SEGV $$"], [], 139, "signalled"),
        (["/bin/sh", "-c", "kill -KILL $$"], [], 137, "signalled"),
        (["/bin/sh", "-c", "exit 7"], [], 7, "exited"),
        (["/bin/sleep", "20"], ["-t", "1"], 124, "timeout"),
        (["/bin/sh", "-c", "sleep 20 & exec sleep 20"], ["-t", "1"], 124, "timeout"),
    ],
)
@pytest.mark.parametrize("ptrace", ["ptrace", "without"])
def test_ends(bench: Bench, script: list[str], options: list[str], status: int, reason: str, ptrace: str) -> None:
    """The exit status and --status-fd tell a failed exec, a signal, an exit and the time limit apart."""
    rules = ["trace/allow_unsafe_ptrace:1"] if ptrace == "without" else []
    outcome, run = bench.run("nothing", script, options=options, rules=rules)
    assert outcome.status == status, outcome.err
    assert run.event("exit") == {"event": "exit", "status": status, "reason": reason}
    assert ("exec" in run.names()) == (reason != "exec")
    summary = run.event("summary")
    assert summary["received"] == summary["answered"] + summary["gone"]


@pytest.mark.parametrize("ptrace", ["ptrace", "without"])
@pytest.mark.parametrize("wait", [0, 1])
def test_exit_wait_all(bench: Bench, wait: int, ptrace: str) -> None:
    """The run ends with the eldest, and what it leaves is killed; trace/exit_wait_all:1 waits for all of it, also
    for sessions of their own, and the status is the eldest's."""
    rules = [f"trace/exit_wait_all:{wait}", *(["trace/allow_unsafe_ptrace:1"] if ptrace == "without" else [])]
    marker = bench.box / "late"
    script = f"setsid sh -c 'sleep 0.4; : >{marker}; exit 9' & (sleep 0.2; exit 8) & exit 3"
    outcome, _ = bench.run("nothing", ["/bin/sh", "-c", script], rules=rules)
    assert outcome.status == 3
    assert marker.exists() == bool(wait)


def test_without_ptrace_denies(bench: Bench) -> None:
    """trace/allow_unsafe_ptrace:1: exec and chdir are judged by notification, and denied as with ptrace."""
    place = bench.box / "place"
    place.mkdir()
    rules = ["trace/allow_unsafe_ptrace:1", f"deny/chdir+{place}", "deny/exec+/bin/true", "deny/exec+/usr/bin/true"]
    script = f"cd {place}; echo $?; pwd; cd /; pwd; /bin/true; echo $?; /bin/echo fine"
    outcome, _ = bench.run("nothing", ["/bin/sh", "-c", script], rules=rules, cwd=bench.box)
    assert outcome.out.split() == ["2", str(bench.box), "/", "126", "fine"], (outcome.out, outcome.err)


@pytest.mark.parametrize(
    "who",
    [
        "syd_main",
        # the keeper is the second layer: killed itself, it takes the tracer along and nobody is left to kill the rest
        pytest.param("keeper", marks=pytest.mark.xfail(strict=True, reason="nothing outlives the keeper to kill")),
    ],
)
def test_without_ptrace_nothing_survives(bench: Bench, who: str) -> None:
    """I10 without EXITKILL: the tracer or the keeper is killed, and the whole tree is dead a second later."""
    command = [str(bench.payload), "tree", "/etc/passwd", "20"]
    with bench.start("nothing", command, rules=["trace/allow_unsafe_ptrace:1"]) as run:
        run.running.line("ready")
        assert len(run.running.tree()) >= 20
        kill_one(run.running.process.pid if who == "keeper" else run.one(who), signal.SIGKILL)
        assert wait_until(lambda: not run.running.tree(), 1.0), run.running.tree()


def test_term_ends_the_run(bench: Bench) -> None:
    """SIGTERM to the process that was started ends the run as killed, with 143."""
    with bench.start("nothing", ["/bin/sleep", "20"]) as run:
        assert wait_until(lambda: "exec" in run.names(), 10)
        os.kill(run.running.process.pid, signal.SIGTERM)
        at = time.monotonic()
        outcome = run.finish()
    assert outcome.status == 143
    assert time.monotonic() - at < 2
    assert run.event("exit")["reason"] == "killed"


def test_faults_are_known() -> None:
    """No failpoint is left out for its name."""
    assert len(FAILPOINTS) >= 20
    assert (HERE / "failpoints.py").read_text().count("def fail_") == len(FAILPOINTS)
