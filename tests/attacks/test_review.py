"""Attacks that once worked, found by a review; each with its positive control."""

from __future__ import annotations

import os
import socket
import struct
import threading
from pathlib import Path

import pytest
from arena import USER, Arena, Identity, Payloads, Runner, kill_one, open_file, switch_on, wait_until

pytestmark = pytest.mark.attack

LOOK = ["sandbox/read,write,create,stat:on", "allow/read,write,create,stat+/***"]
NO_PTRACE = "trace/allow_unsafe_ptrace:1"


@pytest.fixture
def root_runner(payloads: Payloads) -> Runner:
    """Runs as root, who alone can become somebody else."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    return Runner(Identity("root"), payloads)


def private(arena: Arena) -> Path:
    """A file that only another user than root and 1000, or root's capabilities, can read."""
    path = arena.box / "private"
    open_file(path, "private\n", 0o600)
    os.chown(path, 1001, 1001)
    return path


def test_a_name_that_looks_like_a_line_of_status(runner: Runner, arena: Arena) -> None:
    """B3: `Umask:<tab>zz` as a process name killed every worker that created a file for it."""
    command = [runner.payload("review"), "forged-name", str(arena.box)]
    outcome = runner.boxed(command, LOOK)
    modes = {oct((arena.box / name).stat().st_mode & 0o777) for name in outcome.facts}
    assert outcome.facts == {f"new{i}": "0" for i in range(9)}, outcome
    assert modes == {"0o640"} and "worker" not in outcome.err, (modes, outcome.err)
    for name in outcome.facts:
        (arena.box / name).unlink()
    assert runner.native(command).facts == outcome.facts


@pytest.mark.parametrize("what", ["leader", "table"])
def test_descriptors_of_a_thread(runner: Runner, arena: Arena, what: str) -> None:
    """B3: calls on a descriptor, when the leader has ended, and when the thread has a table of its own."""
    command = [runner.payload("review"), what, str(arena.box)]
    rules = [*switch_on(), "sandbox/utime:on", "allow/all+/***"]
    outcome = runner.boxed(command, rules)
    assert set(outcome.facts.values()) == {"0"} and len(outcome.facts) >= 5, outcome
    assert runner.native(command).facts == outcome.facts


@pytest.mark.parametrize("mode", [(), (NO_PTRACE,)], ids=["ptrace", "no-ptrace"])
def test_heirs_of_another_identity(root_runner: Runner, arena: Arena, mode: tuple[str, ...]) -> None:
    """B7: what a process or thread starts after it gave up root is not root either, with ptrace and without."""
    command = [root_runner.payload("review"), "heirs", str(arena.box), str(private(arena))]
    outcome = root_runner.boxed(command, [*LOOK, *mode])
    assert outcome.facts == {"before": "1", "threads": "0", "children": "0"}, outcome
    assert root_runner.native(command).facts == outcome.facts


def test_an_exec_without_the_bounding_set(root_runner: Runner, arena: Arena) -> None:
    """B7: root that drops its bounding set has no capability after the next exec, and neither have we for it."""
    file = str(private(arena))
    program = root_runner.payload("review")
    outcome = root_runner.boxed([program, "bounding-set", str(arena.box), file], LOOK)
    assert outcome.facts == {"read": "13"}, outcome
    assert root_runner.native([program, "bounding-set", str(arena.box), file]).facts == outcome.facts
    assert root_runner.boxed([program, "read", str(arena.box), file], LOOK).facts == {"read": "0"}  # positive control


def test_a_peer_sees_who_connects(root_runner: Runner, arena: Arena) -> None:
    """B7: a server is shown the ids of the caller that gave up root, not ours (SO_PEERCRED)."""
    seen = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(arena.box / "server"))
        (arena.box / "server").chmod(0o777)
        server.listen()
        server.settimeout(20)

        def accept() -> None:
            for _ in range(2):
                peer, _address = server.accept()
                seen.append(struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1:])
                peer.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        command = [root_runner.payload("review"), "peer", str(arena.box)]
        rules = ["sandbox/net/connect:on", "allow/net/connect+/***"]
        outcome = root_runner.boxed(command, [*LOOK, *rules])
        assert outcome.facts == {"connect": "0"}, outcome
        root_runner.native(command)
        thread.join(20)
    assert seen == [(USER, USER)] * 2


def test_a_program_that_was_just_written(runner: Runner, arena: Arena, seconds: float) -> None:
    """Write, close, execute: nobody of ours may still have it open for writing (ETXTBSY)."""
    command = [runner.payload("review"), "busy", str(arena.box), str(2 * seconds)]
    outcome = runner.boxed(command, LOOK)
    assert outcome.number("busy", -1) == 0 and outcome.number("rounds") > 10, outcome
    assert runner.native(command).number("busy", -1) == 0


def test_fanotify_hands_out_descriptors(root_runner: Runner, arena: Arena) -> None:
    """C10: an event of fanotify is a descriptor of whatever file anybody opens; nobody could judge it."""
    command = [root_runner.payload("review"), "fanotify", str(arena.box)]
    assert root_runner.boxed(command, LOOK).facts == {"fanotify": "1"}
    assert root_runner.native(command).facts == {"fanotify": "0"}


def test_no_worker_survives_the_keeper(root_runner: Runner, arena: Arena) -> None:
    """I10: a worker that has acted with other ids still dies with its parents; a change of ids takes PDEATHSIG back."""
    command = root_runner.syd([root_runner.payload("review"), "wait", str(arena.box)], LOOK)
    with root_runner.start(command) as running:
        running.line("ready")
        ours = running.sandbox()
        assert sum(p.comm == "syd_emu" for p in ours.values()) >= 1
        kill_one(running.process.pid)
        running.process.wait(5)
        assert wait_until(lambda: not running.sandbox(), 3), running.sandbox()
