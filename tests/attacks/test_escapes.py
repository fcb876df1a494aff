"""E1, E2, E4-E7: ways round the filter."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from arena import ALL, Arena, Runner, assert_silent, is_real_syd, open_directory, switch_on, syd_differs, unharmed

pytestmark = pytest.mark.attack


def test_e1_io_uring(runner: Runner, arena: Arena) -> None:
    """E1: a ring opens files without a system call for each; the command cannot have one."""
    command = [runner.payload("io_uring"), str(arena.ctf / "FLAG")]
    outcome = runner.boxed(command, arena.rules())
    assert_silent(outcome, arena)
    assert outcome.status > 128 or outcome.facts["setup"] in ("1", "13", "38"), outcome
    control = runner.native(command)
    if control.facts["setup"] != "0":
        pytest.skip(f"no io_uring on this kernel (errno {control.facts['setup']}): no positive control")
    assert arena.flag in control.out


def lay_program(runner: Runner, arena: Arena) -> None:
    """A program in the protected tree, for the calls that would run it."""
    shutil.copy(runner.payload("exit_code", CODE=42), arena.ctf / "program")


@pytest.mark.parametrize("abi", ["int80", "x32"])
def test_e2_other_abi(runner: Runner, arena: Arena, abi: str) -> None:
    """E2: 20 file calls by int 0x80 and by x32 numbers: each is refused or kills, whatever the path."""
    lay_program(runner, arena)
    command = [runner.payload("other_abi"), abi, str(arena.ctf)]
    with unharmed(arena):
        outcome = runner.boxed(command, arena.rules())
    assert_silent(outcome, arena)
    verdicts = {key: int(value) for key, value in outcome.facts.items() if key != "secret"}
    assert len(verdicts) == 20 or outcome.status > 128, outcome
    refused = {1001, 1013, 1038, 128 + 31}
    if is_real_syd():
        refused |= {1002, 128 + 7, 128 + 9}  # it judges the calls of other ABIs too: hidden is ENOENT
    assert set(verdicts.values()) <= refused, verdicts
    if is_real_syd():
        return
    everything = runner.boxed(command, [*switch_on(), f"allow/{ALL}+/***"])
    assert {int(v) for k, v in everything.facts.items() if k != "secret"} <= refused, (
        "refused by the door, not by the path"
    )
    control = runner.native(command)
    if abi == "x32" and control.facts["open"] == "1038":
        pytest.skip("no x32 on this kernel: refused natively too, no positive control")
    done = {key for key, value in control.facts.items() if value in ("0", "42")} - {"secret"}
    assert control.facts["secret"] == "1" and len(done) >= 18, control.out


@pytest.mark.parametrize("policy", ["deny", "allow"])
def test_e4_every_way_to_make_a_task(runner: Runner, arena: Arena, policy: str) -> None:
    """E4: whatever way a task is made, the rules hold for it from its first call; with an allow rule each reads
    the file."""
    command = [runner.payload("spawners"), str(arena.ctf / "FLAG")]
    rules = arena.rules() if policy == "deny" else [*switch_on(), f"allow/{ALL}+/***"]
    outcome = runner.boxed(command, rules, 30)
    assert outcome.status == 0, (outcome.status, outcome.err)
    status = {key: int(value) for key, value in outcome.facts.items()}
    assert len(status) == 19
    # 1000 + errno, or killed: the way itself is closed. Plain ones must be open.
    plain = {"fork", "vfork", "clone", "clone-vm", "clone-vm-files-fs", "thread", "double-fork"}
    assert all(status[way] < 128 for way in plain), status
    expected = {2, 13} if policy == "deny" else {42}
    wrong = {way: code for way, code in status.items() if code < 128 and code not in expected}
    assert not wrong, wrong
    if policy == "deny":
        control = runner.native(command)
        assert all(int(control.facts[way]) == 42 for way in plain | {"clone-untraced", "clone3", "clone3-untraced"}), (
            control.out
        )


def test_e5_vfork_with_one_worker(runner: Runner, arena: Arena, seconds: float) -> None:
    """E5: vfork and exec from four threads with a pool of one: the suspended parents do not starve the
    children's calls."""
    program = runner.payload("exit_code", CODE=7)
    command = [runner.payload("spawn_loop"), str(seconds), program, "4"]
    one = {"SYD_NPROC": "1", "SYD_NPROC_MAX": "2"}
    outcome = runner.boxed(command, arena.rules(), 20 + 3 * seconds, env=one)
    assert outcome.status == 0, outcome.err
    assert outcome.number("failed", -1) == 0 and outcome.number("done") > 20 * seconds, outcome.out
    denied = runner.boxed(["/bin/sh", "-c", program], [*arena.rules(), f"deny/exec+{program}"])
    assert denied.status == 126, denied.err


def test_e6_filters_of_the_command(runner: Runner, arena: Arena) -> None:
    """E6: the command cannot stack a filter, whose answers would outrank ours; and its calls stay judged after
    it tried."""
    command = [runner.payload("own_filter"), str(arena.ctf / "FLAG")]
    outcome = runner.boxed(command, arena.rules(), 30)
    assert outcome.status == 0, (outcome.status, outcome.err)
    installed = {key for key, value in outcome.facts.items() if value == "0"}
    assert not installed, installed
    assert len(outcome.facts) == 21 and outcome.facts["read"] in ("2", "13"), outcome.out
    control = runner.native(command)
    ways = {"seccomp.allow", "seccomp.trap", "prctl.errno", "tsync.errno", "listener.notify"}
    assert all(control.facts[way] == "0" for way in ways) and control.facts["read"] == "42", control.out


def marker_command(arena: Arena) -> list[str]:
    """A command that leaves a trace if it ever runs."""
    return ["/bin/sh", "-c", f": > {arena.box}/ran"]


def test_e7_sandbox_in_a_sandbox(runner: Runner, arena: Arena) -> None:
    """E7: a sandbox inside a sandbox cannot have a listener: one clear error, a documented code, and nothing
    runs bare."""
    inner = runner.syd(marker_command(arena), arena.rules())
    plain = runner.boxed(marker_command(arena), arena.rules())
    assert plain.status == 0 and (arena.box / "ran").exists()
    (arena.box / "ran").unlink()
    open_directory(arena.box / "tmp")
    outcome = runner.boxed(inner, [*switch_on(), f"allow/{ALL}+/***"], 40, env={"TMPDIR": str(arena.box / "tmp")})
    assert outcome.status not in (0, 124), outcome
    assert not (arena.box / "ran").exists(), "the command ran without a sandbox of its own"
    if not is_real_syd():
        assert len(outcome.err.strip().splitlines()) == 1, outcome.err


def test_e7_foreign_listener(runner: Runner, arena: Arena) -> None:
    """E7: started below somebody else's listener: EBUSY is the exit code, and the command does not run."""
    inner = runner.syd(marker_command(arena), arena.rules())
    inner[0] = os.path.abspath(shutil.which(inner[0]) or inner[0])
    waits = syd_differs("prints its error and then waits for ever")
    with runner.start([runner.payload("with_listener"), *inner]) as running, waits:
        outcome = running.finish(20 if not is_real_syd() else 3)
    assert not (arena.box / "ran").exists(), "the command ran without a sandbox"
    assert not outcome.leftovers
    assert outcome.status == 16, outcome
    assert outcome.err.strip(), "no word of explanation"


def test_e7_control(runner: Runner, arena: Arena) -> None:
    """E7 control: a filter without a listener above us is no obstacle."""
    done = subprocess.run(
        ["setpriv", "--no-new-privs", *runner.syd(marker_command(arena), arena.rules())],
        timeout=30,
        capture_output=True,
        **runner.identity.arguments(),  # type: ignore[call-overload]
    )
    assert done.returncode == 0 and (arena.box / "ran").exists(), done
