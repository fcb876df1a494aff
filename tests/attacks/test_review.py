"""Attacks that once worked, found by a review; each with its positive control."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from arena import USER, Arena, Identity, Payloads, Runner, kill_one, open_file, switch_on, wait_until

from syd_pool.shm.ring import CHDIR
from syd_pool.tracer import events, tasks
from syd_pool.tracer.state import Task

pytestmark = pytest.mark.attack

LOOK = ["sandbox/read,write,create,stat:on", "allow/read,write,create,stat+/***"]
NO_PTRACE = "trace/allow_unsafe_ptrace:1"
# root as it is outside: only who has capabilities can give them up
CAPS = "trace/allow_unsafe_caps:1"


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
    outcome = root_runner.boxed(command, [CAPS, *LOOK, *mode])
    assert outcome.facts == {"before": "1", "threads": "0", "children": "0"}, outcome
    assert root_runner.native(command).facts == outcome.facts


def test_an_exec_without_the_bounding_set(root_runner: Runner, arena: Arena) -> None:
    """B7: root that drops its bounding set has no capability after the next exec, and neither have we for it."""
    file = str(private(arena))
    program = root_runner.payload("review")
    outcome = root_runner.boxed([program, "bounding-set", str(arena.box), file], [CAPS, *LOOK])
    assert outcome.facts == {"read": "13"}, outcome
    assert root_runner.native([program, "bounding-set", str(arena.box), file]).facts == outcome.facts
    assert root_runner.boxed([program, "read", str(arena.box), file], [CAPS, *LOOK]).facts == {"read": "0"}  # control


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
        outcome = root_runner.boxed(command, [CAPS, *LOOK, *rules])
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


def test_changes_through_a_descriptor(runner: Runner, arena: Arena) -> None:
    """C8: having opened a file, as the rules allow, is no leave to change what they protect of it."""
    categories = "chmod,chown,chgrp,chattr,truncate"
    rules = [f"sandbox/{categories}:on", f"allow/{categories}+/***", f"deny/{categories}+{arena.box}/kept"]
    for name, status in (("kept", "13"), ("free", "0")):  # the second is the positive control
        open_file(arena.box / name, "twelve bytes")
        os.chown(arena.box / name, runner.identity.uid or 0, runner.identity.uid or 0)
        command = [runner.payload("review"), "descriptor", str(arena.box), str(arena.box / name)]
        facts = runner.boxed(command, [*LOOK, *rules]).facts
        assert facts.pop("open") == "0" and set(facts.values()) == {status} and len(facts) == 6, facts
    assert (arena.box / "kept").read_text() == "twelve bytes" and (arena.box / "kept").stat().st_mode & 0o777 == 0o666


def test_an_open_that_waits_for_a_lease(runner: Runner, arena: Arena) -> None:
    """F1: it waits as natively; the workers that waited were killed and every open of the program denied then."""
    file = arena.box / "leased"
    open_file(file, "leased\n")
    os.chown(file, runner.identity.uid or 0, runner.identity.uid or 0)
    command = [runner.payload("review"), "lease", str(arena.box), str(file)]
    outcome = runner.boxed(command, LOOK, env={"SYD_POOL_STALL_MS": "500"})
    assert outcome.facts == {"lease": "0", "meanwhile": "0", "opened": "0", "flags": "1", "waited": "1"}, outcome
    assert runner.native(command).facts == outcome.facts


@pytest.mark.parametrize("what", ["lease-truncate", "lease-exec"])
def test_other_calls_that_meet_a_lease(runner: Runner, arena: Arena, what: str) -> None:
    """F1: truncate waits as natively, an execution is EAGAIN (natively it waits); no worker is held up by either."""
    file = arena.box / "leased"
    shutil.copy("/bin/true", file)
    file.chmod(0o777)
    os.chown(file, runner.identity.uid or 0, runner.identity.uid or 0)
    command = [runner.payload("review"), what, str(arena.box), str(file)]
    rules = [*LOOK, "sandbox/truncate,exec:on", "allow/truncate,exec+/***"]
    outcome = runner.boxed(command, rules, env={"SYD_POOL_STALL_MS": "500", "SYD_NPROC": "1"})
    expected = {"lease": "0", "meanwhile": "0", "slow": "0", "status": "0"}
    if what == "lease-truncate":
        expected |= {"truncate": "0", "waited": "1"}
    else:
        expected |= {"status": str(errno.EAGAIN)}
    assert outcome.facts == expected, outcome
    native = runner.native(command).facts
    assert native == expected | {"status": "0"}


def test_threads_that_move_while_one_executes(runner: Runner, arena: Arena, seconds: float) -> None:
    """B4: a thread that died in its chdir had "gone elsewhere": the program its sibling executed was killed."""
    command = [runner.payload("review"), "chdir-and-exec", str(arena.box), str(3 * seconds)]
    rules = ["sandbox/exec,chdir:on", "allow/exec,chdir+/***"]
    outcome = runner.boxed(command, [*LOOK, *rules])
    assert outcome.facts == {"rounds": "1", "killed": "0"}, outcome
    assert runner.native(command).facts == outcome.facts


class Tracked:
    """As much of a run as the table of tasks and a verdict need."""

    def __init__(self) -> None:
        self.tasks: dict[int, Task] = {}
        self.held: dict[tuple[int, int], Task] = {}
        self.exec_counter = self.cred_counter = 0
        self.ptrace = True
        self.umask_gen = 0
        self.died: set[int] = set()
        self.early_dead: set[int] = set()


def test_a_verdict_for_a_leader_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """I5: the old leader's chdir is judged after its sibling has executed under its id: nothing is let go."""
    released: list[int] = []
    monkeypatch.setattr(events.ptrace, "cont_to_exit", released.append)
    run: Any = Tracked()
    leader = tasks.adopt(run, os.getpid())
    events.on_verdict(run, leader, CHDIR, 0, (1, 1, 0, 0))
    assert released == [os.getpid()]  # positive control
    run.tasks[1] = Task(1, os.getpid())
    tasks.executed(run, os.getpid(), 1)
    events.on_verdict(run, leader, CHDIR, 0, (1, 1, 0, 0))
    assert released == [os.getpid()]


def test_a_child_that_is_seen_before_its_parents_event() -> None:
    """B7: it is not taken for root meanwhile, and a change of its own is not undone by the event."""
    run: Any = Tracked()
    parent, pid = tasks.adopt(run, os.getppid()), os.getpid()
    assert tasks.adopt(run, pid).cred_gen == 0  # nobody has changed anything
    del run.tasks[pid]
    tasks.note_identity(run, parent)
    assert tasks.adopt(run, pid).cred_gen == parent.cred_gen == 1
    tasks.note_identity(run, run.tasks[pid])
    assert tasks.adopt(run, pid, parent).cred_gen == 2
    stranger = tasks.adopt(run, 1)
    assert stranger.cred_gen == 2 and tasks.adopt(run, 1, Task(7, 7)).cred_gen == 0


def test_a_number_of_the_early_dead_that_lives_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """B1: a thread died before its parent's event, and that parent before it told: whoever has the number next is
    told of as usual; an event that is about the dead one leaves the living alone."""
    run: Any = Tracked()
    born: dict[int, int] = {}
    monkeypatch.setattr(events, "born_of", lambda child, parent: born.get(child) == parent)
    monkeypatch.setattr(events.ptrace, "cont", lambda *_: None)
    run.cred_counter = 3
    parent = run.tasks[50] = Task(50, 50)
    for _ in range(2):  # the event of one that has died makes no task
        run.early_dead.add(77)
        events._on_birth(run, 77, parent)
        assert 77 not in run.tasks and not run.early_dead
    run.early_dead.add(77)
    born[77] = 50
    events._on_birth(run, 77, parent)
    assert (run.tasks[77].cred_gen, run.early_dead) == (0, set()), "it has its parent's identity"
    stranger = run.tasks[78] = tasks.adopt(run, 78)
    events._on_birth(run, 78, parent)
    assert stranger.guessed and stranger.cred_gen == 3, "its own stop came first, and it is not this parent's"
    born[78] = 50
    events._on_birth(run, 78, parent)
    assert not stranger.guessed and stranger.cred_gen == 0, "control: it is"


@pytest.mark.parametrize("kind", ["thread", "thread-sigchld", "thread-vfork"])
def test_a_thread_that_is_announced_as_a_process(runner: Runner, arena: Arena, kind: str) -> None:
    """A thread made with SIGCHLD or CLONE_VFORK comes as fork or vfork: `kill` still ends the process it is in."""
    file = arena.box / "deadly"
    open_file(file, "text\n")
    command = [runner.payload("review"), kind, str(arena.box), str(file)]
    outcome = runner.boxed(command, [*LOOK, f"kill/read+{file}"])
    assert outcome.status == 137 and not outcome.facts, outcome
    assert runner.boxed(command, LOOK).facts == runner.native(command).facts == {"opened": "0", "alive": "1"}, "control"
