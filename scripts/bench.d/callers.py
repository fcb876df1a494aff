"""scripts/bench --callers: how a call without work scales with callers and workers.

SYD_POOL_TEST_NULL=1 has our filter notify getppid and a worker answer it with 42 at once; limit.c is the
same with a supervisor in C. Two bars: at most 4 times the C supervisor's time, with one caller and with
four; and with no number of callers less than 0.8 of what one caller gets.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import measure

CALLERS = (1, 2, 4, 8, 16, 1000)
WORKERS = (1, 2, 4)
FLOOR_BAR = 4.0  # times the C supervisor
SCALE_BAR = 0.8  # of the one-caller figure
LEAST = 50  # calls that each caller makes


def speed(prefix: list[str], mode: str, count: int, callers: int) -> float:
    """Calls per second of `callers` callers that make about `count` calls together.  Raises Failed."""
    each = str(max(LEAST, count // callers))
    command = [*prefix, str(measure.compiled("limit")), mode, each, str(callers)]
    return float(measure.output_of(command, 120, {"SYD_POOL_TEST_NULL": "1"}))


def ours(args: argparse.Namespace, workers: int) -> list[str]:
    """Our command with a fixed number of workers."""
    return [args.us, "--nproc", str(workers), "--nproc-max", str(workers), "-poff", "--"]


def one_round(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Column -> {callers -> calls per second}; what failed is missing."""
    count = args.count or 20_000
    table: dict[str, dict[str, float]] = {"C": {}, **{str(w): {} for w in WORKERS}}
    for callers in CALLERS:
        table["C"][str(callers)] = speed([], "supervise", count, callers)
        for workers in WORKERS:
            try:
                table[str(workers)][str(callers)] = speed(ours(args, workers), "call", count, callers)
            except measure.Failed as error:
                print(f"  {callers} callers, {workers} workers: {error}")
    return table


def verdict(good: bool) -> str:
    return "PASS" if good else "FAIL"


def judge(results: list[dict[str, Any]]) -> list[tuple[str, float | None, float, bool]]:
    """(what, figure, bar, passed) for each bar."""
    found: list[tuple[str, float | None, float, bool]] = []
    best = [max(WORKERS, key=lambda w: measure.median_of(results, str(n), str(w)) or 0) for n in (1, 4)]
    for callers, workers in zip((1, 4), best, strict=True):
        ratio = measure.median_ratio(results, str(callers), "C", str(workers))
        what = f"{callers} callers, {workers} workers: time over the C supervisor's"
        found.append((what, ratio, FLOOR_BAR, ratio is not None and ratio <= FLOOR_BAR))
    for workers in WORKERS:
        ratios = [against_one(results, str(workers), str(callers)) for callers in CALLERS[1:]]
        known = [ratio for ratio in ratios if ratio is not None]
        least = min(known) if known and None not in ratios else None
        what = f"{workers} workers: the slowest number of callers over one caller"
        found.append((what, least, SCALE_BAR, least is not None and least >= SCALE_BAR))
    return found


def against_one(results: list[dict[str, Any]], column: str, callers: str) -> float | None:
    """Median over the rounds of the speed with `callers` callers over that with one."""
    pairs = [(r[column].get(callers), r[column].get("1")) for r in results]
    if any(a is None or b is None for a, b in pairs):
        return None
    return float(statistics.median(a / b for a, b in pairs))


def compare(args: argparse.Namespace, report: dict[str, Any]) -> bool:
    """Measure, print, and fill the report; True if no bar was missed."""
    results, thrown = measure.rounds(args.rounds or 3, lambda: one_round(args))
    heads = ["C supervisor", *(f"{w} workers" for w in WORKERS)]
    print(f"\n{'thousand calls/s':22}" + "".join(f"{head:>14}" for head in heads))
    for callers in map(str, CALLERS):
        figures = [measure.median_of(results, callers, column) for column in ("C", *map(str, WORKERS))]
        cells = [f"{figure / 1e3:14.1f}" if figure else f"{'-':>14}" for figure in figures]
        print(f"{callers + ' callers':22}" + "".join(cells))
    bars = judge(results)
    print()
    for what, figure, bar, good in bars:
        print(f"{what:68} {'-' if figure is None else f'{figure:.2f}':>6}  bar {bar}  {verdict(good)}")
    report |= {"callers": results, "thrown_away": thrown, "bars": bars}
    return all(good for *_, good in bars)
