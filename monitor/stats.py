"""The statistics as one JSON object; imported when somebody asks or a worker stalls (psutil costs 12 ms).

Counters are declared beside the code they count (H_*, W_*, M_*); their names here are those names, so
that a new counter appears without a second declaration.
"""

from __future__ import annotations

from time import monotonic_ns

from monitor import protocol
from syd_pool.shm import control, ring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType

    from syd_pool.shm.ring import Ring


def named(module: ModuleType, prefix: str, words: memoryview) -> dict[str, int]:
    """Every word of `words` that `module` declares under `prefix`, by its name in lower case."""
    names = vars(module).items()
    return {name[len(prefix) :].lower(): words[at] for name, at in names if name.startswith(prefix)}


def process(pid: int) -> dict[str, object]:
    """psutil's facts of one process; {} when it is gone, or psutil is not installed."""
    try:
        import psutil
    except ImportError:
        return {}
    try:
        entry = psutil.Process(pid)
        with entry.oneshot():
            cpu = entry.cpu_times()
            memory = entry.memory_info()
            return {
                "status": entry.status(),
                "user": cpu.user,
                "system": cpu.system,
                "rss": memory.rss,
                "shared": getattr(memory, "shared", 0),
                "threads": entry.num_threads(),
                "switches": entry.num_ctx_switches().voluntary,
                "affinity": entry.cpu_affinity(),
            }
    except psutil.Error:
        return {}


def worker(page: Ring, index: int, own: Ring | None, now: int) -> dict[str, object]:
    """One record of the control page, the worker's own words, and what its process uses."""
    pid, generation, state, head, since, tid, _ = control.snapshot(page, index)
    facts: dict[str, object] = {
        "index": index,
        "generation": generation,
        "pid": pid,
        "state": control.STATES[state] if state < len(control.STATES) else "?",
        "since_ms": max(0, now - since) // 1_000_000,
        "head": head,
    }
    if own is not None:
        facts.update(named(ring, "W_", own.q))
    if state == control.BLOCKED:
        facts["blocked_tid"] = tid
    if state not in (control.EMPTY, control.DEAD):
        facts["process"] = process(pid)
    return facts


def snapshot(page: Ring, pages: Mapping[int, Ring], mine: memoryview, pids: Iterable[int]) -> dict[str, object]:
    """Everything: the control page, the workers (`pages`: index to worker page), the monitor, `pids`."""
    now = monotonic_ns()
    used = min(page.q[control.H_SLOTS], control.RECORDS)
    return {
        "time_ns": now,
        "pool": named(control, "H_", page.q),
        "monitor": named(protocol, "M_", mine),
        "workers": [worker(page, index, pages.get(index), now) for index in range(used)],
        "processes": {str(pid): process(pid) for pid in pids},
    }


def encode(facts: dict[str, object]) -> bytes:
    """One line of JSON."""
    try:
        import orjson
    except ImportError:
        import json

        return json.dumps(facts).encode() + b"\n"
    return orjson.dumps(facts, option=orjson.OPT_APPEND_NEWLINE)
