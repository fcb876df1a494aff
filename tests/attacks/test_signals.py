"""H1, H2, H4, H9: signals and stops around calls that the sandbox carries out."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from arena import (
    Arena,
    Nursery,
    Runner,
    Running,
    is_real_syd,
    kill_one,
    open_file,
    read_process,
    syd_differs,
    wait_until,
)

pytestmark = pytest.mark.attack


# ---- H1, H2 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", ["restart", "norestart"])
def test_h1_h2_timer_under_calls(runner: Runner, arena: Arena, seconds: float, restart: str) -> None:
    """H1, H2: under a 1 kHz timer no call is done twice, and none that never fails so natively returns EINTR."""
    command = [runner.payload("ticking"), str(seconds), "1000", restart, str(arena.box), str(arena.box / "aaaa")]
    outcome = runner.boxed(command, arena.rules())
    assert outcome.status == 0, outcome.err
    assert outcome.number("ticks") > 300 * seconds, outcome.out
    assert outcome.number("calls") > 100 * seconds, outcome.out
    assert outcome.number("wrong", -1) == 0, outcome.out
    with syd_differs("calls interrupted before they are received fail with EINTR"):
        assert outcome.number("eintr", -1) == 0, outcome.out
    assert outcome.number("eexist", -1) == 0, outcome.out


def test_h2_control(runner: Runner, arena: Arena) -> None:
    """H2 control: the payload notices a call that is done twice (two of them share one name)."""
    command = [runner.payload("ticking"), "0.2", "1000", "restart", str(arena.box), str(arena.box / "aaaa")]
    with runner.start(command), runner.start(command) as second:
        assert second.finish(10).number("eexist") > 0


def test_h1_pipelines(runner: Runner, arena: Arena, seconds: float) -> None:
    """H1: dash runs `echo | cat | cat` over and over: every one completes."""
    rounds = int(60 * seconds)
    script = f"i=0; while [ $i -lt {rounds} ]; do echo word$i | cat | cat; i=$((i+1)); done"
    outcome = runner.boxed(["/bin/dash", "-c", script], arena.rules(), 30 + 10 * seconds)
    assert outcome.status == 0, outcome.err
    assert outcome.out == "".join(f"word{i}\n" for i in range(rounds))


def test_h1_parallel_make(runner: Runner, arena: Arena) -> None:
    """H1: make -j8 over 64 targets: each is made once, none fails."""
    if not shutil.which("make"):
        pytest.skip("no make")
    lines = ["all: " + " ".join(f"t{i}" for i in range(64)), "t%:", "\t@sh -c 'cat aaaa > $@'"]
    open_file(arena.box / "Makefile", "\n".join(lines) + "\n")
    outcome = runner.boxed(["make", "-s", "-j8"], arena.rules(), 60, cwd=arena.box)
    with syd_differs("kills make's set-id calls as root"):
        assert outcome.status == 0, outcome.err
    made = {(arena.box / f"t{i}").read_text() for i in range(64)}
    assert made == {(arena.box / "aaaa").read_text()}


GO_PROGRAM = """package main

import ("fmt"; "os"; "sync")

func main() {
	var group sync.WaitGroup
	failed := make(chan error, 64)
	for i := 0; i < 16; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			for j := 0; j < %d; j++ {
				name := fmt.Sprintf("go-%%d-%%d", i, j)
				if err := os.WriteFile(name, []byte("x"), 0600); err != nil { failed <- err; return }
				sum := 0
				for k := 0; k < 3000000; k++ { sum += k }
				if _, err := os.Stat(name); err != nil || sum < 0 { failed <- err; return }
				if err := os.Remove(name); err != nil { failed <- err; return }
			}
		}(i)
	}
	group.Wait()
	select {
	case err := <-failed: fmt.Println("failed", err); os.Exit(1)
	default: fmt.Println("complete")
	}
}
"""


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Go program whose runtime preempts its threads with SIGURG all the time."""
    go = shutil.which("go") or "/usr/local/go/bin/go"
    if not os.path.exists(go):
        pytest.skip("no go")
    where = tmp_path_factory.mktemp("go")
    (where / "main.go").write_text(GO_PROGRAM % 20)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(where), "GOCACHE": str(where / "cache"), "GOTOOLCHAIN": "local"}
    subprocess.run([go, "build", "-o", "program", "main.go"], cwd=where, env=environment, check=True, timeout=300)
    shutil.rmtree(where / "cache", ignore_errors=True)
    return where / "program"


@pytest.mark.slow
def test_h1_go_preemption(runner: Runner, arena: Arena, go_program: Path) -> None:
    """H1: a Go program, preempted by SIGURG in the middle of its calls, completes."""
    program = shutil.copy(go_program, arena.box / "program")
    for _ in range(5):
        outcome = runner.boxed([str(program)], arena.rules(), 60, cwd=arena.box)
        assert (outcome.status, outcome.out) == (0, "complete\n"), outcome


# ---- H4 ------------------------------------------------------------------------------------------


def fifo_of(arena: Arena) -> Path:
    """A FIFO nobody has open."""
    fifo = arena.box / "fifo"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    return fifo


def waiting_on_fifo(running: Running, own: bool = True) -> int:
    """The pid of the caller once its open waits."""
    running.line("ready")
    time.sleep(0.25)
    callers = [p.pid for p in (running.command() if own else running.tree()).values() if p.comm == "fifo_signal"]
    assert len(callers) == 1, callers
    return callers[0]


def fifo_command(runner: Runner, fifo: Path, disposition: str, number: int, boxed: bool, arena: Arena) -> list[str]:
    """The waiting payload, natively or not."""
    command = [runner.payload("fifo_signal"), str(fifo), disposition, str(number)]
    return runner.syd(command, arena.rules()) if boxed else command


@pytest.mark.parametrize("boxed", [False, True], ids=["native", "boxed"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_h4_handler_interrupts_a_waiting_open(runner: Runner, arena: Arena, number: int, boxed: bool) -> None:
    """H4: a handler without SA_RESTART ends a waiting FIFO open with EINTR within 50 ms."""
    with runner.start(fifo_command(runner, fifo_of(arena), "norestart", number, boxed, arena)) as running:
        kill_one(waiting_on_fifo(running), number)
        outcome = running.finish(4)
    error, micro = outcome.facts["open"].split()
    assert (int(error), outcome.facts["handled"]) == (4, "1"), outcome.out
    assert int(micro) < 50_000 or os.getloadavg()[0] > 6, outcome.out


@pytest.mark.parametrize("boxed", [False, True], ids=["native", "boxed"])
def test_h4_restarted_open_goes_on_waiting(runner: Runner, arena: Arena, boxed: bool) -> None:
    """H4: with SA_RESTART the handler runs at once and the open goes on, until its writer comes."""
    fifo = fifo_of(arena)
    with runner.start(fifo_command(runner, fifo, "restart", signal.SIGINT, boxed, arena)) as running:
        pid = waiting_on_fifo(running)
        for _ in range(3):
            kill_one(pid, signal.SIGINT)
            time.sleep(0.1)
        assert running.process.poll() is None and not any(line.startswith("open") for line in running.lines)
        writer = os.open(fifo, os.O_WRONLY)
        outcome = running.finish(10)
        os.close(writer)
    assert outcome.facts["open"].split()[0] == "0", outcome.out
    with syd_differs("the handler waits for the open"):
        assert outcome.facts["handled"] == "3", outcome.out


@pytest.mark.parametrize("boxed", [False, True], ids=["native", "boxed"])
def test_h4_default_action_kills_at_once(runner: Runner, arena: Arena, boxed: bool) -> None:
    """H4: ^C on a program that waits in an open and has no handler kills it."""
    with runner.start(fifo_command(runner, fifo_of(arena), "default", signal.SIGINT, boxed, arena)) as running:
        kill_one(waiting_on_fifo(running), signal.SIGINT)
        start = time.monotonic()
        with syd_differs("^C waits for the open"):
            outcome = running.finish(4)
    assert outcome.status == 130 and time.monotonic() - start < 3


# ---- H9 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTSTP])
def test_h9_stop_and_continue_mid_call(runner: Runner, arena: Arena, seconds: float, number: int) -> None:
    """H9: stopped and continued at random moments of its calls a program loses none and repeats none."""
    command = runner.syd([runner.payload("steady"), str(arena.box)], arena.rules())
    with runner.start(command, stdin=subprocess.PIPE) as running:
        running.line("ready")
        (pid,) = [p.pid for p in running.command().values() if p.comm == "steady"]
        cycles, stopped = 0, 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            kill_one(pid, number)
            stopped += wait_until(lambda: state(pid) in "Tt", 0.2 if number == signal.SIGSTOP else 0.003, 0.001)
            kill_one(pid, signal.SIGCONT)
            cycles += 1
            time.sleep(0.003)
        assert running.process.stdin is not None
        running.process.stdin.close()
        outcome = running.finish(30 + 2 * seconds)
    assert outcome.status == 0 and outcome.number("failed", -1) == 0, outcome
    # TSTP does not stop an orphaned process group, which this is: then it must do nothing at all.
    assert cycles > 20 * seconds and (stopped > 0.5 * cycles or number == signal.SIGTSTP), (cycles, stopped)
    assert outcome.number("calls") > 50 * seconds, outcome.out


def state(pid: int) -> str:
    """The state letter of a process."""
    process = read_process(pid)
    return process.state if process else "X"


def test_h9_stopped_while_waiting(runner: Runner, arena: Arena) -> None:
    """H9: a program that waits in a FIFO open stops on SIGTSTP, goes on on SIGCONT, and its open still
    completes."""
    fifo = fifo_of(arena)
    with runner.start(fifo_command(runner, fifo, "restart", signal.SIGUSR1, True, arena)) as running:
        pid = waiting_on_fifo(running)
        for _ in range(3):
            kill_one(pid, signal.SIGSTOP)
            with syd_differs("a caller that waits in a call does not stop"):
                assert wait_until(lambda: state(pid) in "Tt", 2)
            kill_one(pid, signal.SIGCONT)
            assert wait_until(lambda: state(pid) not in "Tt", 2)
        time.sleep(0.1)
        writer = os.open(fifo, os.O_WRONLY)
        outcome = running.finish(10)
        os.close(writer)
    assert outcome.facts["open"].split()[0] == "0", outcome.out


class Terminal:
    """An interactive shell of the machine's own on a pty, outside the sandbox."""

    def __init__(self, runner: Runner, cwd: Path) -> None:
        self.master, slave = pty.openpty()
        os.fchmod(slave, 0o666)
        self.text = ""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", "bash", "--norc", "--noprofile", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env={"PATH": "/usr/bin:/bin", "PS1": "$ ", "TERM": "dumb", "LC_ALL": "C"},
            **runner.identity.arguments(),  # type: ignore[call-overload]
        )
        os.close(slave)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def expect(self, text: str, deadline: float = 15) -> None:
        """Wait until this appears after what was expected last."""
        end = time.monotonic() + deadline
        while text not in self.text:
            if not select.select([self.master], [], [], max(0.0, end - time.monotonic()))[0]:
                raise AssertionError(f"no {text!r} in {self.text!r}")
            try:
                self.text += os.read(self.master, 4096).decode("utf-8", "replace")
            except OSError:
                raise AssertionError(f"terminal closed; no {text!r} in {self.text!r}") from None
        self.text = self.text.split(text, 1)[1]

    def close(self) -> None:
        """Hang up."""
        os.close(self.master)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.mark.parametrize("boxed", [False, True], ids=["native", "boxed"])
def test_h9_stop_the_sandbox_itself(runner: Runner, arena: Arena, boxed: bool) -> None:
    """H9: ^Z on the sandbox in a terminal stops it, `fg` brings it back, twice, and its command finishes."""
    script = arena.box / "script"
    open_file(script, 'echo begun; n=0; while [ ! -e go ]; do n=$((n+1)); sleep 0.05; done; echo fini"shed"\n')
    command = ["/bin/sh", str(script)]
    line = " ".join(f"'{word}'" for word in (runner.syd(command, arena.rules()) if boxed else command))
    nursery = Nursery()
    terminal = Terminal(runner, arena.box)
    try:
        terminal.type(line + "\n")
        terminal.expect("\nbegun", 10)
        for _ in range(2):
            time.sleep(0.2)
            terminal.type("\x1a")
            with syd_differs("it does not stop on ^Z"):
                terminal.expect("Stopped", 5)
            terminal.type("fg\n")
            terminal.expect("sh", 5)
        (arena.box / "go").touch()
        terminal.expect("finished", 15)
        terminal.type("echo status=$?\n")
        terminal.expect("status=0")
    finally:
        terminal.close()
        nursery.close(patience=2)
    assert not nursery.leftovers or is_real_syd(), nursery.leftovers
