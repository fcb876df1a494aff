"""A sandbox with a fault in it: started by faulty.py, watched through --status-fd and /proc."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from arena import ALL, CATEGORIES, Identity, Outcome, Running, switch_on
from plans import DEATHS, EFFECTS, PLAN, POINTS, STATE_SIZE, W_ARM, W_HITS, W_LENGTH

HERE = Path(__file__).resolve().parent
RULES = [*switch_on(CATEGORIES), f"allow/{ALL}+/***"]


class Run:
    """One run under way and what it reports."""

    def __init__(self, running: Running, status: int) -> None:
        self.running = running
        self._status = status
        self._text = b""

    def events(self) -> list[dict[str, Any]]:
        """The lines of --status-fd so far."""
        if self._status >= 0:
            os.set_blocking(self._status, False)
            with contextlib.suppress(BlockingIOError):
                while part := os.read(self._status, 65536):
                    self._text += part
        return [json.loads(line) for line in self._text.splitlines()]

    def close(self) -> None:
        """Take what is left and let go of the descriptor."""
        self.events()
        os.close(self._status)
        self._status = -1

    def event(self, name: str) -> dict[str, Any]:
        """The only event of this name; {} if there is none."""
        found = [line for line in self.events() if line["event"] == name]
        assert len(found) <= 1, found
        return found[0] if found else {}

    def names(self) -> list[str]:
        """The events in order."""
        return [line["event"] for line in self.events()]

    def processes(self, comm: str) -> list[int]:
        """Pids of the sandbox's processes of this name, in order of age."""
        return sorted(p.pid for p in self.running.tree().values() if p.comm == comm)

    def one(self, comm: str) -> int:
        """The only process of this name."""
        (pid,) = self.processes(comm)
        return pid

    def finish(self, seconds: float = 30) -> Outcome:
        """Wait for the end; nothing may be left, and the ledger must have balanced."""
        outcome = self.running.finish(seconds)
        assert not outcome.leftovers, outcome.leftovers
        assert "ledger:" not in outcome.err, outcome.err
        assert "Traceback" not in outcome.err, outcome.err
        return outcome


class Bench:
    """A place for one test: a directory, a state file, and the sandbox's command line."""

    def __init__(self, root: Path, payload: Path) -> None:
        self.root = root
        self.box = root / "box"
        self.box.mkdir()
        self.payload = payload
        self.state = root / "state"
        self.state.write_bytes(bytes(STATE_SIZE))
        with open(self.state, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.words = memoryview(self._map).cast("Q")

    @staticmethod
    def compile(directory: Path) -> Path:
        """Build the payload."""
        output = directory / "victims"
        subprocess.run(["cc", "-O1", "-Wall", "-static-pie", "-o", output, HERE / "victims.c"], check=True, timeout=60)
        return output

    def close(self) -> None:
        """Forget everything."""
        self.words.release()
        self._map.close()
        shutil.rmtree(self.root, ignore_errors=True)

    # --- the state file

    def plan(self, entries: Sequence[tuple[int, str, str]]) -> None:
        """(system call, point, death) for each victim."""
        for i, (nr, point, death) in enumerate(entries):
            at = PLAN + i * 4
            self.words[at], self.words[at + 1], self.words[at + 2] = nr, POINTS.index(point), DEATHS.index(death)
        self.words[W_LENGTH] = len(entries)

    def missed(self) -> list[int]:
        """The entries of the plan that have not happened."""
        return [i for i in range(self.words[W_LENGTH]) if not self.words[PLAN + i * 4 + 3] & 1]

    @property
    def hits(self) -> int:
        """How often the fault was met."""
        return self.words[W_HITS]

    def arm(self, value: int) -> None:
        """Tell the fault something."""
        self.words[W_ARM] = value

    def effects(self, number: int) -> int:
        """How often the effect for victim N was carried out."""
        return self.words[EFFECTS + number]

    # --- running

    def command(self, fault: str, words: Sequence[str], rules: Sequence[str] = (), options: Sequence[str] = ()):  # type: ignore[no-untyped-def]
        """faulty.py's command line."""
        python = [sys.executable, "-I", "-S", str(HERE / "faulty.py"), fault, str(self.state), "--"]
        given = [f"-m{rule}" for rule in [*RULES, *rules]]
        return [*python, "syd-pool", "run", "-poff", *given, *options, "--", *words]

    @contextlib.contextmanager
    def start(
        self,
        fault: str,
        words: Sequence[str],
        rules: Sequence[str] = (),
        options: Sequence[str] = (),
        env: dict[str, str] | None = None,
        **how: Any,
    ) -> Iterator[Run]:
        """A run with a fault; whatever happens nothing of it survives."""
        told, status = os.pipe()
        os.set_inheritable(status, True)
        command = self.command(fault, words, rules, [*options, "--status-fd", str(status)])
        extra = {"SYD_NPROC": "2", "SYD_NPROC_MAX": "8", **(env or {})}
        running = Running(command, Identity("here"), env=extra, pass_fds=[status], **how)
        os.close(status)
        run = Run(running, told)
        try:
            yield run
        finally:
            running.abandon()
            run.close()

    def run(self, fault: str, words: Sequence[str], seconds: float = 30, **how: Any) -> tuple[Outcome, Run]:
        """A run to its end."""
        with self.start(fault, words, **how) as run:
            return run.finish(seconds), run


def descriptors(pid: int) -> int:
    """How many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))
