"""One run of the sandbox with somebody being killed: start, kill, watch from outside through /proc, count."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODES = ("send", "two-step", "strict")
PR_SET_CHILD_SUBREAPER = 36
CATEGORIES = "walk,stat,read,write,readdir,exec,create,delete,rename,symlink,truncate,chdir,mkdir,rmdir"
PER_WORKER = 5  # descriptors of the tracer for each: doorbell, socket, page, its mapping's, the request mapping's
LOOK_S = 0.001  # between two looks at /proc
WARM_S = 0.5
DESCRIPTOR_LOOKS = 20
QUIET_S = 1.0  # at the end nobody is killed for so long, so that descriptors can be compared
SLACK_S = 60.0  # the load ends when we say so, or so long after it should have
GRACE_S = 20.0  # a run that lasts so much longer than its load has lost a call
SLOW_HEADER = 4096  # begins with when the load is to end
SLOW_SIZE = 8 + 400_000 * 16  # struct slow of victims.c


class Failed(Exception):
    """A run could not be made."""


class Plan:
    """Who is killed how often under what."""

    def __init__(self, part: str, seconds: float, every: float, callers: int, workers: int) -> None:
        self.part = part
        self.seconds = seconds
        self.every = every
        self.callers = callers
        self.workers = workers


# --- processes --------------------------------------------------------------------------------------


def adopt_orphans() -> None:
    """Whatever loses its parent becomes our child, so nothing can be left behind unseen."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[int]:
    """The children of a process's main thread."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def name_of(pid: int) -> str:
    """A process's comm, "" when it is gone or dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state = stat[stat.rindex(")") + 2]
    return "" if state in "ZX" else stat[stat.index("(") + 1 : stat.rindex(")")]


def below(pid: int) -> list[int]:
    """Every living process below `pid`."""
    found: list[int] = []
    for child in children(pid):
        found += [child] if name_of(child) else []
        found += below(child)
    return found


def kill(pid: int) -> None:
    """SIGKILL one process; one that has gone is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def end_orphans() -> int:
    """Kill and reap whatever is still below us; how many had to be killed."""
    left = below(os.getpid())
    end = time.monotonic() + 10
    while below(os.getpid()) and time.monotonic() < end:
        for pid in below(os.getpid()):
            kill(pid)
        time.sleep(0.02)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return len(left)


def compile_payload(place: Path) -> Path:
    """tests/tracer/victims.c."""
    output = place / "victims"
    source = ROOT / "tests/tracer/victims.c"
    subprocess.run(["cc", "-O1", "-static-pie", "-o", output, source], check=True, timeout=60)
    output.chmod(0o755)
    return output


# --- a run ------------------------------------------------------------------------------------------


class Sandbox:
    """A sandbox under way: its processes, and what it says on --status-fd, stdout and stderr."""

    def __init__(self, place: Path, words: list[str], command: list[str], user: int, env: dict[str, str]) -> None:
        self.out = tempfile_in(place, "out")
        self.err = tempfile_in(place, "err")
        self.status = tempfile_in(place, "status")
        rules = [f"-msandbox/{c}:on" for c in CATEGORIES.split(",")] + [f"-mallow/{CATEGORIES}+/***"]
        fd = os.open(self.status, os.O_WRONLY | os.O_APPEND)
        run = [str(ROOT / "scripts/run"), "-poff", *rules, *words, "--status-fd", str(fd), "--", *command]
        other = None if user == os.geteuid() else user
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                run,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=[fd],
                start_new_session=True,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", **env},
                cwd="/",
                user=other,
                group=other,
                extra_groups=None if other is None else [],
            )
        os.close(fd)

    def wait_for(self, word: str, seconds: float = 20) -> None:
        """Until stdout has a line that begins with `word`.  Raises Failed."""
        end = time.monotonic() + seconds
        while f"\n{word}" not in "\n" + self.out.read_text():
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failed(f"the sandbox did not start: {self.err.read_text()[-500:]}")
            time.sleep(0.005)

    def tracer(self) -> int:
        """The pid of syd_main.  Raises Failed."""
        for pid in children(self.process.pid):
            if name_of(pid) == "syd_main":
                return pid
        raise Failed("there is no tracer")

    def facts(self) -> dict[str, int]:
        """The figures that the payload printed."""
        found = {}
        for line in self.out.read_text().splitlines():
            key, _, value = line.partition(" ")
            if value:
                found[key] = int(value, 0)
        return found

    def summary(self) -> dict[str, Any]:
        """The last line of --status-fd."""
        lines = [json.loads(line) for line in self.status.read_text().splitlines()]
        return lines[-1] if lines and lines[-1]["event"] == "summary" else {}

    def end(self) -> None:
        """Kill what is left."""
        for pid in [*below(self.process.pid), self.process.pid]:
            kill(pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)


def tempfile_in(place: Path, name: str) -> Path:
    """An empty file that every user may write."""
    path = place / name
    path.write_bytes(b"")
    path.chmod(0o666)
    return path


class Killer:
    """Kills one child of the tracer at a time and sees when another comes in its place."""

    def __init__(self, tracer: int, part: str, every: float) -> None:
        self.tracer = tracer
        self.comm = {"worker": "syd_emu", "monitor": "syd_mon"}[part]
        self.every = every
        self.kills: list[float] = []
        self.replaced: list[float] = []  # seconds
        self._pending: list[float] = []
        self._struck: set[int] = set()
        self._known = set(self.targets())
        self._looked = time.monotonic()
        self.late = 0.0  # the longest we ourselves had to wait for a CPU: nobody is quicker than that

    def targets(self) -> list[int]:
        """Who may be killed now."""
        return [pid for pid in children(self.tracer) if name_of(pid) == self.comm]

    def look(self) -> None:
        """Count those that have come."""
        now = time.monotonic()
        self.late = max(self.late, now - self._looked)
        self._looked = now
        for pid in children(self.tracer):
            if pid not in self._known and name_of(pid) == self.comm:
                self._known.add(pid)
                if self._pending:
                    self.replaced.append(now - self._pending.pop(0))

    def strike(self) -> None:
        """Kill one, if there is one whose coming was seen: else its own replacement would be counted for another."""
        self.look()
        targets = [pid for pid in self.targets() if pid in self._known and pid not in self._struck]
        if targets:
            at = time.monotonic()
            victim = random.choice(targets)
            self._struck.add(victim)
            kill(victim)
            self.kills.append(at)
            self._pending.append(at)

    def until(self, end: float) -> None:
        """Kill at the pace until then."""
        due = time.monotonic()
        while (now := time.monotonic()) < end:
            if now >= due:
                self.strike()
                due = max(due + self.every, now)
            self.look()
            time.sleep(LOOK_S)

    def rest(self, seconds: float) -> None:
        """Only look."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            time.sleep(LOOK_S)


def load(plan: Plan, payload: Path, place: Path, mode: str) -> dict[str, Any]:
    """One run under load with somebody being killed; its figures."""
    box = place / "box"
    shutil.rmtree(box, ignore_errors=True)
    box.mkdir()
    for who in range(plan.callers):
        (box / f"keep{who}").write_text(f"file of caller {who}")
    slow = place / "slow"
    total = plan.seconds + WARM_S + QUIET_S + SLACK_S
    command = [str(payload), "load", str(box), str(total), str(plan.callers)]
    words = ["--fd-answers", mode, "--nproc", str(plan.workers), "--nproc-max", str(plan.workers)]
    sandbox = Sandbox(place, words, command, os.geteuid(), {"SLOW_CALLS": str(slow)})
    try:
        sandbox.wait_for("ready")
        tracer = sandbox.tracer()
        time.sleep(WARM_S)
        before = descriptors(sandbox, tracer)
        killer = Killer(tracer, plan.part, plan.every)
        killer.until(time.monotonic() + plan.seconds)
        killer.rest(QUIET_S)
        after = descriptors(sandbox, tracer)
        end_load(slow)
        stuck = finish(sandbox, GRACE_S)
        figures = counted(sandbox, mode, killer, stuck)
        figures["tracer descriptors leaked"] = max(0, after - before)
        figures |= answers(killer.kills, slow, plan.callers)
    finally:
        sandbox.end()
    return figures


def descriptors(sandbox: Sandbox, tracer: int) -> int:
    """How many descriptors the tracer has, those of its workers apart: there are more or less of them by chance.

    The least of several looks, for in strict mode one is on its way to a caller now and then.  Raises Failed.
    """
    least = 1 << 30
    for _ in range(DESCRIPTOR_LOOKS):
        workers = sum(name_of(child) == "syd_emu" for child in children(tracer))
        try:
            held = len(os.listdir(f"/proc/{tracer}/fd"))
        except OSError:
            said = sandbox.err.read_text()[-2000:]
            raise Failed(f"the run ended while it was killed at, with {sandbox.process.poll()}: {said}") from None
        least = min(least, held - workers * PER_WORKER)
        time.sleep(LOOK_S)
    return least


def end_load(slow: Path) -> None:
    """Have the load end now."""
    with open(slow, "r+b") as file:
        file.write(struct.pack("d", 0.0))


def finish(sandbox: Sandbox, seconds: float) -> int:
    """Wait for the end; how many of the payload's processes still wait for an answer, 0 when it has ended."""
    try:
        sandbox.process.wait(seconds)
    except subprocess.TimeoutExpired:
        return sum(name_of(pid) == "victims" for pid in below(sandbox.process.pid))
    return 0


def counted(sandbox: Sandbox, mode: str, killer: Killer, stuck: int) -> dict[str, Any]:
    """What the payload and the summary say."""
    facts, summary = sandbox.facts(), sandbox.summary()
    errors = sandbox.err.read_text()
    status = sandbox.process.poll()
    return {
        "fd answers": mode,
        "kills": len(killer.kills),
        "calls": facts.get("calls", 0),
        "lost": stuck,
        "wrong": facts.get("wrong", -1),
        "other errors": facts.get("other", -1),
        "exit status": status if status is not None else "hung",
        "ledger lines": errors.count("ledger:") + (status not in (0, None)),
        "processes left": len(below(os.getpid())) - (1 if stuck else 0),
        "callers killed": facts.get("killed", -1),
        "EIO answers": summary.get("eio", -1),
        "EIO seen": facts.get("eio", -1),
        "outcome unknown": summary.get("unknown", -1),
        "dispatched again": summary.get("again", -1),
        "workers died": summary.get("workers_died", -1),
        "monitors": summary.get("monitors", -1),
        "caller descriptors leaked": facts.get("leaked", -1),
        "call p50 ms": facts.get("p50-us", 0) / 1000,
        "call p99 ms": facts.get("p99-us", 0) / 1000,
        "call max ms": facts.get("max-us", 0) / 1000,
        "this script late max ms": killer.late * 1000,
        **spread("respawn", killer.replaced),
    }


def spread(name: str, seconds: list[float]) -> dict[str, Any]:
    """p50, p99 and maximum in milliseconds."""
    if not seconds:
        return {}
    row = sorted(seconds)
    at = {"p50": row[len(row) // 2], "p99": row[int(len(row) * 0.99)], "max": row[-1]}
    return {f"{name} {key} ms": value * 1000 for key, value in at.items()}


def answers(kills: list[float], slow: Path, callers: int) -> dict[str, Any]:
    """Time to answer after a death: of the calls that were under way at a kill, how long after it the last ended.

    An upper bound: a call under way need not have been the dead worker's. Calls of less than 0.3 ms are not seen,
    which is the time of kills that met no call (0).
    """
    data = slow.read_bytes()
    spans: list[tuple[float, float]] = []
    for who in range(callers):
        at = SLOW_HEADER + who * SLOW_SIZE
        (count,) = struct.unpack_from("d", data, at)
        spans += struct.iter_unpack("dd", data[at + 8 : at + 8 + int(count) * 16])
    spans.sort()
    waits = [max((end - t for begin, end in near(spans, t) if end > t), default=0.0) for t in kills]
    return spread("answer after death", waits)


def near(spans: list[tuple[float, float]], t: float) -> Iterator[tuple[float, float]]:
    """The calls that began in the ten seconds before `t`."""
    from bisect import bisect_left, bisect_right

    for i in range(bisect_left(spans, (t - 10, 0.0)), bisect_right(spans, (t, 1e18))):
        yield spans[i]


# --- the tracer -------------------------------------------------------------------------------------


def tracer(payload: Path, place: Path, user: int, times: int, size: int) -> dict[str, Any]:
    """Kill -9 the tracer over a tree of `size` processes; who lives a second later?"""
    survivors, took, seen, codes = 0, [], [], set()
    for _ in range(times):
        sandbox = Sandbox(place, [], [str(payload), "tree", "/etc/passwd", str(size)], user, {})
        try:
            sandbox.wait_for("ready")
            seen.append(len(below(sandbox.process.pid)))
            at = time.monotonic()
            kill(sandbox.tracer())
            while (alive := alive_of(sandbox)) and time.monotonic() < at + 1:
                time.sleep(0.002)
            took.append(time.monotonic() - at)
            survivors += alive
            with contextlib.suppress(subprocess.TimeoutExpired):
                codes.add(sandbox.process.wait(1))
        finally:
            sandbox.end()
    return {
        "user": user,
        "kills": times,
        "processes in the tree, at least": min(seen),
        "survivors after 1 s": survivors,
        "exit statuses": ",".join(str(code) for code in sorted(codes)),
        **spread("all dead after", took),
    }


def alive_of(sandbox: Sandbox) -> int:
    """Processes of the run that live, wherever they are by now: below it, or below us."""
    return len(below(os.getpid()))
