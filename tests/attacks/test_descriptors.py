"""D1, D5-D8, H6, H7: descriptors that come in, that go out, and that must not be lost or wrong on the way."""

from __future__ import annotations

import array
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable

import pytest
from arena import Arena, Runner, Running, assert_silent, is_real_syd, kill_one, syd_differs, unharmed, wait_until

pytestmark = pytest.mark.attack

# Uses of a directory descriptor that would get at what is under it.
USES = (
    "openat openat-dots newfstatat unlinkat mkdirat renameat proc dev fchdir relative reopen"
).split()  # fmt: skip


def with_victims(arena: Arena) -> Arena:
    """Files that the attack would remove or rename."""
    for name in ("victim", "victim2"):
        arena.secret(name)
    return arena


def assert_useless(facts: dict[str, str]) -> None:
    """The descriptor is closed, or each use of it is refused."""
    done = [use for use in USES if facts.get(use) == "0"]
    assert not done, f"possible with a descriptor of the protected tree: {done}"


def test_d1_inherited_directory(runner: Runner, arena: Arena) -> None:
    """D1: a directory descriptor inherited at the start opens no way into what the policy denies."""
    with_victims(arena)
    fd = os.open(arena.ctf, os.O_RDONLY | os.O_DIRECTORY)
    try:
        command = [runner.payload("inherited"), str(fd)]
        with unharmed(arena):
            outcome = runner.boxed(command, arena.rules(), pass_fds=[fd])
        control = runner.native(command, pass_fds=[fd])
    finally:
        os.close(fd)
    assert outcome.status == 0, outcome.err
    assert_silent(outcome, arena)
    assert_useless(outcome.facts)
    assert all(control.facts[use] == "0" for use in USES) and arena.flag in control.out, control.out


def test_d1_received_directory(runner: Runner, arena: Arena) -> None:
    """D1: nor does one that a peer outside sends over a socket."""
    with_victims(arena)
    fd = os.open(arena.ctf, os.O_RDONLY | os.O_DIRECTORY)

    def run(start: Callable[[int], object]) -> object:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
            return start(theirs.fileno())

    command = [runner.payload("inherited"), "receive"]
    try:
        with unharmed(arena):
            outcome = run(lambda stdin: runner.boxed(command, arena.rules(), stdin=stdin))
        control = run(lambda stdin: runner.native(command, stdin=stdin))
    finally:
        os.close(fd)
    assert_silent(outcome, arena)  # type: ignore[arg-type]
    assert_useless(outcome.facts)  # type: ignore[attr-defined]
    assert control.facts["openat"] == "0" and arena.flag in control.out  # type: ignore[attr-defined]


def test_d5_descriptor_limit(runner: Runner, arena: Arena) -> None:
    """D5: at the limit an open fails with EMFILE, creates nothing it need not, and everything works again after."""
    command = [runner.payload("fd_limit"), str(arena.box / "aaaa")]
    native = runner.native(command, cwd=arena.box)
    boxed = runner.boxed(command, arena.rules(), 20, cwd=arena.box)
    assert native.facts["three.open"] == native.facts["zero.open"] == "24", native.out
    with syd_differs("a file is created although its descriptor cannot be delivered"):
        assert boxed.facts == native.facts


def test_d6_o_path_opens_nothing(runner: Runner, arena: Arena) -> None:
    """D6: O_PATH on a FIFO returns at once; what comes back is that FIFO."""
    fifo = arena.box / "fifo"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    command = [runner.payload("o_path"), str(fifo), str(arena.box / "aaaa")]
    boxed = runner.boxed(command, arena.rules(), 20)
    assert boxed.status == 0, boxed.err
    assert (boxed.facts["fifo.errno"], boxed.facts["fifo.slow"], boxed.facts["fifo.fstat"]) == ("0", "0", "0 10000")
    assert (boxed.facts["file.errno"], boxed.facts["file.slow"], boxed.facts["file.fstat"]) == ("0", "0", "0 100000")
    native = runner.native(command)
    assert (native.facts["fifo.read"], native.facts["fifo.writer"]) == ("9", "6"), native.out


def test_d6_o_path_is_judged(runner: Runner, arena: Arena) -> None:
    """D6: O_PATH gives no handle on what may not be seen; without the rule it does."""
    command = [runner.payload("o_path"), str(arena.ctf / "FLAG"), str(arena.box / "aaaa")]
    outcome = runner.boxed(command, arena.rules())
    assert outcome.facts["fifo.errno"] in ("2", "13"), outcome.out
    assert runner.boxed(command, arena.rules()[:-1]).facts["fifo.errno"] == "0"


def test_d7_no_listener_in_the_command(runner: Runner, arena: Arena) -> None:
    """D7: the command finds no seccomp listener and no other stray descriptor, before and after fork and exec."""
    outcome = runner.boxed([runner.payload("fd_hunt")], arena.rules())
    assert outcome.status == 0, outcome.err
    found = {key: outcome.facts[key] for key in ("listener", "after-fork", "after-exec")}
    assert set(found.values()) == {"0"}, outcome.out
    assert "strange" not in outcome.facts, outcome.out
    control = runner.native([runner.payload("fd_hunt"), "own"])
    assert control.facts["listener"] == control.facts["after-fork"] == "1", control.out


# ---- D8, H6, H7 ----------------------------------------------------------------------------------


def descriptor_counts(running: Running) -> dict[int, int]:
    """How many descriptors each process of the sandbox holds (the fullest table of its threads)."""
    counts = {}
    for pid in running.sandbox():
        try:
            counts[pid] = max(len(os.listdir(f"/proc/{pid}/task/{tid}/fd")) for tid in os.listdir(f"/proc/{pid}/task"))
        except (OSError, ValueError):
            continue
    return counts


def one_burst(running: Running, seconds: float) -> tuple[int, int, int]:
    """Ask for a burst; (opens, callers killed, wrong results)."""
    assert running.process.stdin is not None
    running.lines.clear()
    running.process.stdin.write(f"{seconds}\n".encode())
    opens, killed, wrong = running.line("burst", 30 + 2 * seconds).split()
    return int(opens), int(killed), int(wrong)


@pytest.mark.parametrize("percent", [10, 100], ids=["d8-some-killed", "h7-all-killed"])
def test_descriptors_return_to_baseline(runner: Runner, arena: Arena, seconds: float, percent: int) -> None:
    """D8, H7: after a load of opens whose callers are killed in the middle, no process of the sandbox holds one
    more."""
    if os.geteuid() != 0:
        pytest.skip("needs root to look into the sandbox's processes")
    command = runner.syd([runner.payload("many_opens"), str(arena.box / "aaaa"), str(percent)], arena.rules())
    with runner.start(command, stdin=subprocess.PIPE) as running:
        running.line("ready")
        one_burst(running, 0.3)
        baseline = settled(running)
        opens, killed, wrong = one_burst(running, seconds)
        assert opens > 100 * seconds and killed > 5 * seconds and wrong == 0, (opens, killed, wrong)
        assert wait_until(lambda: sum(descriptor_counts(running).values()) <= sum(baseline.values()), 6, 0.1), (
            baseline,
            descriptor_counts(running),
        )
        assert running.process.stdin is not None
        running.process.stdin.close()
        outcome = running.finish(60 + 3 * seconds)
    assert (outcome.status, outcome.leftovers) == (0, []), outcome


def settled(running: Running) -> dict[int, int]:
    """The counts once two looks 0.2 s apart agree."""
    counts = descriptor_counts(running)
    for _ in range(20):
        time.sleep(0.2)
        before, counts = counts, descriptor_counts(running)
        if before == counts:
            break
    return counts


HARMLESS = (signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGCHLD)


def test_h6_signals_to_the_sandbox(runner: Runner, arena: Arena, seconds: float) -> None:
    """H6: signals that reach the sandbox while it hands over descriptors never make an open return 0 or fail."""
    command = runner.syd([runner.payload("many_opens"), str(arena.box / "aaaa"), "0"], arena.rules())
    with runner.start(command, stdin=subprocess.PIPE) as running:
        running.line("ready")
        targets = sorted(running.sandbox())
        assert targets and running.process.stdin is not None
        running.process.stdin.write(f"{seconds}\n".encode())
        end = time.monotonic() + seconds
        sent = 0
        while time.monotonic() < end:
            for pid in targets:
                kill_one(pid, HARMLESS[sent % len(HARMLESS)])
                sent += 1
            time.sleep(0.0005)
        opens, _, wrong = running.line("burst", 30).split()
        running.process.stdin.close()
        outcome = running.finish(60 + 3 * seconds)
    assert sent > 200 * seconds and int(opens) > 100 * seconds
    assert int(wrong) == 0, f"{wrong} of {opens} opens came out wrong under {sent} signals"
    assert outcome.status == 0 and not outcome.leftovers


@pytest.mark.parametrize("answers", ["send", "two-step", "strict"])
def test_d8_descriptors_in_flight(runner: Runner, arena: Arena, answers: str) -> None:
    """D8: a user's command fills the user's share of descriptors in flight (unix(7), ETOOMANYREFS): new workers come
    all the same, and every call is answered as natively."""
    if is_real_syd():
        pytest.skip("its emulators are threads")
    if runner.identity.uid is None and os.geteuid() == 0:
        pytest.skip("CAP_SYS_RESOURCE has no such limit")
    command = ["sh", "-c", 'ulimit -n 512; exec "$@"', "sh"]
    inner = [runner.payload("in_flight"), str(arena.box)]
    options = ["--fd-answers", answers, "--nproc", "1"]
    with runner.start([*command, *runner.syd(inner, arena.rules(), options)]) as running:
        outcome = running.finish(40)
    assert outcome.status == 0 and not outcome.leftovers, outcome
    for fifo in arena.box.glob("fifo*"):
        fifo.unlink()
    control = runner.native([*command, *inner])
    assert control.facts["limit"] == "109", "control: the limit is reached"
    assert outcome.facts == control.facts, outcome
