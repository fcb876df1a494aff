"""F1, F6, F8, F13: attacks on the pool of workers, as seen from outside."""

from __future__ import annotations

import os

import pytest
from arena import Arena, Identity, Runner, syd_differs

pytestmark = pytest.mark.attack

FEW = {"SYD_NPROC": "2", "SYD_NPROC_MAX": "64"}


def test_f1_blocking_opens_do_not_stop_the_others(runner: Runner, arena: Arena) -> None:
    """F1: four times as many FIFO opens as workers: all readers meet their writers, and other opens go on
    meanwhile."""
    count = 8
    for i in range(count):
        os.mkfifo(arena.box / f"fifo{i}")
        (arena.box / f"fifo{i}").chmod(0o666)
    command = [runner.payload("fifos"), str(count), str(arena.box), str(arena.box / "aaaa")]
    native = runner.native(command, 20)
    assert (native.number("met"), native.number("blocked")) == (2 * count, 1), native.out
    outcome = runner.boxed(command, arena.rules(), 30, env=FEW)
    assert outcome.status == 0, (outcome.status, outcome.out, outcome.err)
    assert (outcome.number("met"), outcome.number("blocked")) == (2 * count, 1), outcome.out
    assert outcome.number("milliseconds") < 5000, outcome.out
    assert outcome.number("p99-us") < 50_000, outcome.out
    assert outcome.number("opens") > 200, outcome.out


def test_f6_flood(runner: Runner, arena: Arena, seconds: float) -> None:
    """F6: with many hundred calls pending every one is answered, and throughput keeps half of what few callers
    get."""
    few, many = (50, 400) if seconds < 5 else (100, 2000) if seconds < 60 else (100, 10_000)
    rates = {}
    for threads in (few, many):
        command = [runner.payload("flood"), str(threads), str(seconds / 2), str(arena.box / "aaaa")]
        outcome = runner.boxed(command, arena.rules(), 60 + 20 * seconds)
        assert outcome.status == 0, (outcome.status, outcome.err)
        assert outcome.number("started") == threads, "not as many threads as asked for: nothing was shown"
        assert outcome.number("failed", -1) == 0 and outcome.number("calls") >= threads, outcome.out
        rates[threads] = outcome.number("rate")
    with syd_differs("throughput falls with the number of pending calls"):
        assert rates[many] >= 0.5 * rates[few], rates


def own_pid_space(runner: Runner, inner: list[str]) -> list[str]:
    """In a new pid namespace, below an init that only waits: the storm reaches nothing outside."""
    user = [] if os.geteuid() == 0 and runner.identity.uid is None else ["--user", "--map-root-user"]
    return [
        "unshare",
        *user,
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        "/bin/sh",
        "-c",
        '"$@"; exit $?',
        "sh",
        *inner,
    ]


def test_f8_signals_from_the_command(runner: Runner, arena: Arena) -> None:
    """F8: the command signals every process it can name with every signal, kill(-1) too: the sandbox serves and
    judges on."""
    if runner.native(own_pid_space(runner, ["/bin/true"])).status != 0:
        pytest.skip("cannot make a pid namespace")
    storm = [runner.payload("signal_storm"), str(arena.box / "aaaa"), str(arena.ctf / "FLAG")]
    outcome = runner.native(own_pid_space(runner, runner.syd(storm, arena.rules())), 40)
    assert not outcome.leftovers
    assert "victim" in outcome.facts and "secret" in outcome.facts, (outcome.status, outcome.out, outcome.err)
    assert outcome.number("box", -1) == 0 and outcome.number("secret") in (2, 13), outcome.out
    assert outcome.status == 5, (outcome.status, outcome.err)
    # Control: a process that no sandbox protects falls to the same storm (its parent, which was to report 5).
    bystander = ["/bin/sh", "-c", '"$@"; echo "survived"', "sh", *storm]
    control = runner.native(own_pid_space(runner, bystander), 40)
    assert control.status > 128 and "survived" not in control.out, control


def test_f13_busy_processors(runner: Runner, arena: Arena, seconds: float) -> None:
    """F13: spinners of the command on every processor slow its opens, but do not starve the sandbox."""
    spinners = 2 * (os.cpu_count() or 1)
    command = [runner.payload("starve"), str(spinners), str(seconds), str(arena.box / "aaaa")]
    native = runner.native([*command[:2], "0.4", command[3]])
    outcome = runner.boxed(command, arena.rules(), 60 + 3 * seconds)
    assert outcome.status == 0, outcome.err
    assert outcome.number("p99-us") < 10 * native.number("p99-us") + 100_000, (outcome.out, native.out)
    assert outcome.number("opens") > 20 * seconds, outcome.out


def test_f13_control(runner: Runner, arena: Arena, seconds: float) -> None:
    """F13 control: the spinners are felt natively too (an open loop alone is quicker), so the load is real."""
    identity = Identity("root") if os.geteuid() == 0 else runner.identity
    plain = Runner(identity, runner.payload)
    rates = [
        plain.native([runner.payload("starve"), str(n), str(seconds / 4), str(arena.box / "aaaa")]).number("opens")
        for n in (0, 8 * (os.cpu_count() or 1))
    ]
    assert rates[1] < 0.7 * rates[0], rates
