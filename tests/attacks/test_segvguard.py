"""SegvGuard (syd(7)): guessing an address by crashing a program over and over is stopped."""

from __future__ import annotations

from errno import EACCES

import pytest
from arena import ALL, Arena, Runner, switch_on

pytestmark = pytest.mark.attack

ON = [*switch_on(), f"allow/{ALL}+/***"]
DENIED = 126  # of a shell: found, not executable


def crashes(runner: Runner, arena: Arena, arguments: list[str], *rules: str) -> list[int]:
    """The statuses a shell saw of the program with each of the arguments; `sleep` waits, `other` is another program."""
    program = runner.payload("crash")
    lines = []
    for words in arguments:
        command = {"sleep": "sleep 1.1", "other": "/bin/true"}.get(words, f"{program} {words}")
        lines.append(f"{command}; echo status $?")
    outcome = runner.boxed(["bash", "-c", "; ".join(lines)], [*ON, *rules])
    assert outcome.status == 0, outcome
    return [int(line.split()[1]) for line in outcome.out.splitlines()]


@pytest.mark.parametrize("number", [11, 6, 4, 31])
def test_a_program_that_crashes_five_times_is_refused(runner: Runner, arena: Arena, number: int) -> None:
    """By every core signal; other programs go on; switched off it may crash for ever."""
    words = [str(number)] * 6 + ["0", "other"]
    died = 128 + number
    assert crashes(runner, arena, words) == [died] * 5 + [DENIED, DENIED, 0]
    assert crashes(runner, arena, words, "segvguard/expiry:0") == [died] * 6 + [0, 0]


def test_what_does_not_count(runner: Runner, arena: Arena) -> None:
    """SIGTERM, an exit and a SIGKILL that no rule sent are no crash; a process of many threads crashes once."""
    assert crashes(runner, arena, ["9"] * 6 + ["0"]) == [137] * 6 + [0]
    assert crashes(runner, arena, ["15"] * 6 + ["0"]) == [143] * 6 + [0]
    assert crashes(runner, arena, ["11 20"] * 4 + ["0", "11", "0"]) == [139] * 4 + [0, 139, DENIED]


def test_killed_by_a_rule(runner: Runner, arena: Arena) -> None:
    """The action `kill` counts; the same program that somebody else kills as often goes on."""
    kill = f"kill/read+{arena.box}/aaaa"
    script = "for i in 1 2 3 4 5 6; do {}; echo status $?; done 2>/dev/null"
    ruled = runner.boxed(["bash", "-c", script.format(f"cat {arena.box}/aaaa")], [*ON, kill])
    assert ruled.out.split()[1::2] == ["137"] * 5 + [str(DENIED)], ruled
    foreign = runner.boxed(["bash", "-c", script.format("sleep 9 & sleep 0.05; kill -9 $!; wait $!")], [*ON, kill])
    assert foreign.out.split()[1::2] == ["137"] * 6, foreign


def test_the_three_times(runner: Runner, arena: Arena) -> None:
    """maxcrashes within expiry; after the suspension it may run, and crash, again."""
    few = ("segvguard/maxcrashes:2", "segvguard/suspension:1")
    assert crashes(runner, arena, ["11", "11", "0", "sleep", "0", "11", "0"], *few) == [139, 139, DENIED, 0, 0, 139, 0]
    forgotten = ("segvguard/maxcrashes:2", "segvguard/expiry:1")
    assert crashes(runner, arena, ["11", "sleep", "11", "0"], *forgotten) == [139, 0, 139, 0]


@pytest.mark.parametrize(
    ("action", "status"), [("warn", 0), ("filter", DENIED), ("deny", DENIED), ("kill", 137), ("abort", 134)]
)
def test_actions(runner: Runner, arena: Arena, action: str, status: int) -> None:
    """default/segvguard decides what a refusal is."""
    rules = ("segvguard/maxcrashes:1", f"default/segvguard:{action}")
    assert crashes(runner, arena, ["11", "0"], *rules) == [139, status]


def test_exit(runner: Runner, arena: Arena) -> None:
    """The action `exit` ends the run with EACCES."""
    program = runner.payload("crash")
    rules = [*ON, "segvguard/maxcrashes:1", "default/segvguard:exit"]
    outcome = runner.boxed(["bash", "-c", f"{program} 11; {program} 0; echo still here"], rules)
    assert (outcome.status, outcome.out) == (EACCES, "")
