"""What a large policy costs: loading it, and deciding with it.  scripts/bench-rules

For 10, 1,000 and 10,000 rules of five kinds: milliseconds to load the file, microseconds for the first decision
about a path, nanoseconds for the next ones; then what the built-in profiles take to be carried out.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from syd_pool.policy import Ruleset

PATTERNS = ("/srv/d{d}/f{i}", "/srv/d{d}/s{i}/***", "/srv/*/x{i}", "/srv/d{d}/**/y{i}*.c", "/home/u{i}/**/z?{i}")
CATEGORIES = ("read", "write", "stat", "exec", "read,stat", "lpath", "wpath,cpath")
ROUNDS = 5


def lines(count: int) -> list[str]:
    """Rules of every kind, the same ones every time."""
    chosen = random.Random(1)
    return [
        f"{chosen.choice(('allow', 'deny', 'filter'))}/{chosen.choice(CATEGORIES)}+"
        + PATTERNS[i % len(PATTERNS)].format(i=i, d=i % 97)
        for i in range(count)
    ]


def loaded(path: str) -> Ruleset:
    """A policy with every category on and the rules of a file."""
    rules = Ruleset()
    rules.apply("sandbox/all:on")
    rules.load(path)
    rules.verdicts["read"][b"/"]  # compiled at the first question
    return rules


def measure(count: int, directory: str) -> None:
    """Print one row."""
    path = os.path.join(directory, f"{count}.syd-3")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines(count)) + "\n")
    best = [1e9, 1e9, 1e9]
    for _ in range(ROUNDS):
        start = time.perf_counter()
        rules = loaded(path)
        best[0] = min(best[0], time.perf_counter() - start)
        verdicts, asked = rules.verdicts["read"], [b"/srv/d%d/f%d/q%d" % (i % 97, i, i) for i in range(2000)]
        for slot in (1, 2):
            start = time.perf_counter()
            for one in asked:
                verdicts[one]
            best[slot] = min(best[slot], (time.perf_counter() - start) / len(asked))
    print(
        f"{count:6} rules: load {best[0] * 1e3:7.1f} ms   first {best[1] * 1e6:6.1f} us   then {best[2] * 1e9:5.0f} ns"
    )


def profile(name: str) -> None:
    """Print what a profile costs."""
    best = 1e9
    for _ in range(ROUNDS):
        start = time.perf_counter()
        Ruleset().profile(name)
        best = min(best, time.perf_counter() - start)
    print(f"profile {name:8}: {best * 1e3:5.2f} ms")


def main() -> None:
    """All rows."""
    with tempfile.TemporaryDirectory() as directory:
        for count in (10, 1000, 10_000):
            measure(count, os.path.realpath(directory))
    for name in ("off", "fs", "linux", "user", "paludis"):
        profile(name)


main()
