"""G4, B2: a worker, or the caller, dies at each point of a call's way through a worker.

One run goes through a whole plan: for each entry a child of the payload makes one call, and whoever is
concerned dies there once.  The table below says what the caller may see then.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from arena import wait_until
from bench import Bench, descriptors
from plans import DEATHS, SEND, STRICT, TWO_STEP

# letter of victims.c -> system call
CALLS = {"o": 2, "w": 2, "k": 2, "t": 2, "c": 85, "m": 83, "s": 4, "r": 82, "h": 80, "x": 59}
BEFORE = ["taken", "read-before", "read-after"]
EFFECT = ["begin-after", "effect-after"]
ANSWER = ["send-after", "count-before", "count-after", "closing"]
DESCRIPTOR = {
    SEND: ["addfd-before", "addfd-after"],
    TWO_STEP: ["addfd-before", "addfd-after", "send-before", "send-after"],
    STRICT: ["hand-before", "hand-after", "complete-before", "complete-after"],
}
COUNTED = {SEND: ["count-before", "count-after"], TWO_STEP: ["count-before", "count-after"], STRICT: []}


def points(letter: str, mode: str) -> list[str]:
    """Every point that this call passes, in order."""
    descriptor = [*DESCRIPTOR[mode], *COUNTED[mode], "closing"]
    if letter in "owk":
        return [*BEFORE, "looked-up", "judged", "effect-after", *descriptor]
    if letter == "t":
        return [*BEFORE, "looked-up", "judged", "valid", "begin-before", *EFFECT, *descriptor]
    if letter == "c":
        return [*BEFORE, "looked-up", "valid", "begin-before", *EFFECT, *descriptor]
    if letter == "m":
        return [*BEFORE, "looked-up", "judged", "valid", "begin-before", *EFFECT, "send-before", *ANSWER]
    if letter == "r":
        return [*BEFORE, "looked-up", "begin-before", *EFFECT, "send-before", *ANSWER]
    if letter == "s":
        return [*BEFORE, "send-before", *ANSWER]
    if letter == "h":
        return ["stop4-before", "read-before", "read-after", "looked-up", "stop4-after", "complete-before",
                "complete-after"]  # fmt: skip
    return ["stop2-before", "read-before", "read-after", "stop2-after", "complete-before", "complete-after"]


def allowed(letter: str, point: str, mode: str) -> set[str]:
    """What the caller may see when the worker died there."""
    if letter in "hxoswk":
        effect = False
    else:
        effect = point in ("begin-after", "effect-after", "addfd-before", "addfd-after", "hand-before", "hand-after",
                           "complete-before", "send-before")  # fmt: skip
    if mode == SEND and letter in "owktc" and point in ("addfd-after", "count-before"):
        return {"ok", "killed"}  # the outcome is unknown: whoever had it must not run on
    if mode == TWO_STEP and letter in "wktc" and point in ("addfd-after", "send-before"):
        return {"ok"}  # its number had been published, or its file was found in the caller
    return {"5"} if effect else {"ok"}


def prepare(box: Path, letter: str, number: int) -> None:
    """What the call finds."""
    at = box / f"v{number}"
    if letter in "owktsr":
        at.write_text("content")
    elif letter == "h":
        at.mkdir()
    elif letter == "x":
        at.symlink_to("/bin/true")


def results(out: str) -> dict[int, str]:
    """Number of the victim -> what it saw."""
    return {int(a): b for a, b in (line.split(" ", 1) for line in out.splitlines())}


@pytest.mark.parametrize("mode", [SEND, TWO_STEP, STRICT])
def test_g4_worker_dies_at_every_point(bench: Bench, mode: str) -> None:
    """G4, I2, I3: at every point and by every death: the right answer, EIO only after `effect started`, no
    effect twice, nothing lost."""
    entries = [(letter, point, death) for letter in CALLS for point in points(letter, mode) for death in DEATHS]
    for number, (letter, _, _) in enumerate(entries):
        prepare(bench.box, letter, number)
    bench.plan([(CALLS[letter], point, death) for letter, point, death in entries])
    letters = "".join(letter for letter, _, _ in entries)
    outcome, run = bench.run("plan", [str(bench.payload), str(bench.box), letters], 60,
                             options=["--fd-answers", mode])  # fmt: skip
    seen = results(outcome.out)
    assert outcome.status == 0, (outcome.status, outcome.err[-1000:])
    assert not bench.missed(), ([entries[i] for i in bench.missed()], outcome.out[-200:])
    wrong = {
        (*entry, seen[number])
        for number, entry in enumerate(entries)
        if seen[number] not in allowed(entry[0], entry[1], mode)
    }
    assert not wrong, sorted(wrong)
    twice = {entry for number, entry in enumerate(entries) if bench.effects(number) > 1}
    assert not twice, sorted(twice)
    undone = {
        entry
        for number, entry in enumerate(entries)
        if entry[0] in "cmr" and seen[number] == "ok" and bench.effects(number) != 1
    }
    assert not undone, sorted(undone)
    summary = run.event("summary")
    assert summary["workers_died"] in (len(entries), len(entries) - 1)  # the run may end before the last is reaped
    assert summary["received"] == summary["answered"] + summary["gone"]
    if mode != SEND:
        assert summary["unknown"] == 0


@pytest.mark.parametrize("mode", [SEND, TWO_STEP, STRICT])
def test_who_is_killed_is_named(bench: Bench, mode: str) -> None:
    """I2: a worker dies after ADDFD with SEND: nobody knows what the caller was told, so it is killed, and one log line
    says which process, program and call that was, why, and the way out.  The other modes kill nobody."""
    count = 3000
    (bench.box / "v0").write_text("content")
    bench.plan([(CALLS["o"], {SEND: "addfd-after", TWO_STEP: "send-after", STRICT: "complete-after"}[mode], "segv")])
    command = ["/bin/sh", "-c", '"$@"; echo status $?', "sh", str(bench.payload), "again", str(bench.box), "o",
               str(count)]  # fmt: skip
    outcome, run = bench.run("plan", command, options=["--fd-answers", mode])
    assert not bench.missed()
    lines = [json.loads(line) for line in outcome.err.splitlines() if '"ctx":"kill"' in line]
    killed = run.event("summary")["unknown"]
    if mode != SEND:
        assert (outcome.number("status"), killed, lines) == (0, 0, [])
        return
    assert (outcome.number("status"), killed, len(lines)) == (137, 1, 1)
    assert outcome.out.count("result") < count
    assert (lines[0]["sys"], lines[0]["path"]) == ("open", str(bench.payload))
    assert lines[0]["pid"] == lines[0]["tgid"] > 1
    assert "a worker died while it installed a descriptor" in lines[0]["msg"]
    assert "--fd-answers" in lines[0]["tip"]


@pytest.mark.parametrize("mode", [SEND, TWO_STEP, STRICT])
def test_b2_caller_dies_at_every_point(bench: Bench, mode: str) -> None:
    """B2: nothing is done for a caller that died before the last check, and its death costs no worker and
    leaves no descriptor."""
    skipped = ("send-after", "complete-after", "count-before", "count-after", "closing", "taken")
    entries = [
        (letter, point)
        for letter in "owktcmrs"
        for point in ["taken", *points(letter, mode)]
        if point not in skipped or point == "taken"
    ] * 2
    for number, (letter, _) in enumerate(entries):
        prepare(bench.box, letter, number)
    bench.plan([(CALLS[letter], point, "kill") for letter, point in entries])
    letters = "".join(letter for letter, _ in entries)
    command = ["/bin/sh", "-c", '"$@"; echo end; read line', "sh", str(bench.payload), str(bench.box), letters]
    reader, writer = os.pipe()
    with bench.start("kill_targets", command, options=["--fd-answers", mode], stdin=reader) as run:
        run.running.line("0 ", 20)
        before = [descriptors(pid) for pid in run.processes("syd_emu")]
        run.running.line("end", 30)
        # a worker may still be at what it does after its last answer
        wait_until(lambda: max(descriptors(pid) for pid in run.processes("syd_emu")) <= max(before), 2)
        after = [descriptors(pid) for pid in run.processes("syd_emu")]
        os.write(writer, b"\n")
        outcome = run.finish()
        summary = run.event("summary")
    os.close(reader), os.close(writer)
    assert not bench.missed(), [entries[i] for i in bench.missed()]
    assert summary["workers_died"] == 0
    assert max(after) <= max(before), (before, after)
    seen = results(outcome.out.replace("end\n", ""))
    for number, (letter, point) in enumerate(entries):
        if point in ("addfd-after", "hand-after"):
            continue  # it may have had its answer
        assert seen[number] == "killed", (letter, point)
        if letter in "cm" and point in ("taken", "read-before", "read-after", "looked-up", "judged"):
            assert bench.effects(number) == 0, (letter, point)
