"""Rounds of measurements that can be compared: interleaved, quiet, and with nothing left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".bench-cache"
STEAL_LIMIT = 0.02  # of all time in a round; more, and the round tells about the neighbours
PR_SET_CHILD_SUBREAPER = 36


class Failed(Exception):
    """A measured command did not do its work; the text says which and why."""


def compiled(name: str) -> Path:
    """The C program `name` of this folder, compiled when its source is newer."""
    source, program = HERE / f"{name}.c", CACHE / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        CACHE.mkdir(mode=0o755, exist_ok=True)
        subprocess.run(["cc", "-O2", "-Wall", "-o", str(program), str(source)], check=True)
    return program


def adopt_orphans() -> None:
    """Become the parent of every orphan below us, so that end_orphans() finds what a peer leaves behind."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans() -> int:
    """Kill and reap every child we still have.  Returns how many there were."""
    count = 0
    while pids := Path("/proc/self/task", str(os.getpid()), "children").read_text().split():
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
                os.waitpid(int(pid), 0)
                count += 1
            except (ProcessLookupError, ChildProcessError):
                continue
    return count


def output_of(command: Sequence[str], timeout: float, env: dict[str, str] | None = None) -> str:
    """What a command prints.  Raises Failed; whatever happens, its process group is gone afterwards."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (env or {}),
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"{command[0]}: not finished after {timeout:.0f} s") from None
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    if process.returncode:
        raise Failed(f"{command[0]}: exit status {process.returncode}: {err.strip()[-200:]}")
    return out


def start_to_end(command: Sequence[str], times: int) -> float:
    """Median milliseconds from start to end of a command.  Raises Failed."""
    took = []
    with open(os.devnull, "r+b") as null:
        for _ in range(times):
            begin = time.perf_counter()
            process = subprocess.Popen(command, stdin=null, stdout=null, stderr=null)
            end = threading.Timer(30, process.kill)
            end.start()
            status = process.wait()  # with a timeout it would look now and then, every 50 ms in the end
            took.append((time.perf_counter() - begin) * 1e3)
            end.cancel()
            if status:
                raise Failed(f"{command[0]}: exit status {status}")
    return statistics.median(took)


def cpu_times() -> tuple[int, int]:
    """(steal, all) ticks since boot: the first line of /proc/stat, see proc(5)."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[7], sum(ticks)


def rounds(count: int, one: Callable[[], dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """`count` rounds with little steal, and how many were thrown away.  Gives up in the end."""
    kept: list[dict[str, Any]] = []
    thrown = 0
    while len(kept) < count:
        steal, total = cpu_times()
        result = one()
        steal_after, total_after = cpu_times()
        share = (steal_after - steal) / max(1, total_after - total)
        if share > STEAL_LIMIT:
            thrown += 1
            print(f"  round thrown away: {share:.1%} steal", file=sys.stderr)
            if thrown > 2 * count:
                raise Failed(f"{thrown} rounds had more than {STEAL_LIMIT:.0%} steal: this machine is too busy")
            continue
        kept.append(result)
        print(f"  round {len(kept)} of {count}", file=sys.stderr)
    return kept, thrown


def quiet_enough(limit: float, force: bool) -> float:
    """Print the load average; end the program if it is above `limit`, unless forced."""
    load = os.getloadavg()[0]
    print(f"load average {load:.2f} (1 min), {len(os.sched_getaffinity(0))} CPUs, Linux {os.uname().release}")
    if load > limit and not force:
        sys.exit(f"scripts/bench: the load is above {limit}: figures would mean nothing; wait, or use --force")
    return load


def median_ratio(results: list[dict[str, Any]], row: str, one: str, other: str) -> float | None:
    """Median over the rounds of one/other; None if a round lacks either."""
    pairs = [(r.get(one, {}).get(row), r.get(other, {}).get(row)) for r in results]
    if not pairs or any(a is None or not b for a, b in pairs):
        return None
    return float(statistics.median(a / b for a, b in pairs))


def median_of(results: list[dict[str, Any]], row: str, one: str) -> float | None:
    """Median over the rounds of one contender's figure; None if a round lacks it."""
    figures = [r.get(one, {}).get(row) for r in results]
    return float(statistics.median(figures)) if figures and None not in figures else None
