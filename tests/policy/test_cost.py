"""What the policy may cost: imports, start, decisions, memory."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from syd_pool.policy import Ruleset, actions
from syd_pool.policy.matching import LONGEST_KEPT, MOST_DECISIONS

REPOSITORY = Path(__file__).parents[2]
SLOW = "re enum typing dataclasses pathlib json logging inspect subprocess argparse ctypes functools collections"


def test_the_start_path_imports_nothing_slow() -> None:
    """The driver's way: import, profile, five commands; nothing of SLOW may be loaded."""
    code = f"""if 1:
        import sys
        sys.path.insert(0, {str(REPOSITORY)!r})
        from syd_pool.policy import Ruleset
        rules = Ruleset()
        rules.profile('off')
        for line in ('sandbox/read:on', 'allow/read+/***', 'deny/read+/etc/s*', 'lock:off', 'timeout:3'):
            rules.apply(line)
        rules.verdicts['read'][b'/etc/shadow']
        print(*[name for name in {SLOW!r}.split() if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def best(work: object, rounds: int = 5) -> float:
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()  # type: ignore[operator]
        times.append(time.process_time() - start)
    return min(times)


def test_five_commands_take_less_than_a_millisecond() -> None:
    def work() -> None:
        rules = Ruleset()
        rules.profile("off")
        for line in ("sandbox/all:on", "allow/all+/***", "deny/read+/etc/s*", "lock:off", "timeout:3"):
            rules.apply(line)

    assert best(work, 20) < 1e-3


def filled(count: int) -> Ruleset:
    rules = Ruleset()
    for i in range(count):
        kind = ("", "/***", "/**", "/x*y")[i % 4]
        rules.apply(f"deny/read+/some/where/{i}{kind}")
    return rules


def test_ten_thousand_rules() -> None:
    """Loaded within a second; a known decision costs the same, a new one stays in proportion."""
    small = filled(10)
    start = time.perf_counter()
    large = filled(10_000)
    large.verdicts["read"][b"/a/b"]
    assert time.perf_counter() - start < 1

    def hot(rules: Ruleset) -> float:
        verdicts = rules.verdicts["read"]
        verdicts[b"/some/where/else"]
        return best(lambda: [verdicts[b"/some/where/else"] for _ in range(2000)])

    assert hot(large) < 3 * hot(small)

    def cold(rules: Ruleset) -> float:
        paths = [b"/some/where/%d/file" % i for i in range(20)]

        def work() -> None:
            rules.verdicts["read"].clear()
            for path in paths:
                rules.verdicts["read"][path]

        return best(work) / len(paths)

    assert cold(large) < 3e-4  # of 2,500 patterns with wildcards, those of this directory are tried


def test_decisions_are_bounded() -> None:
    """A command that asks about ever new paths, long ones too, does not fill the worker's memory."""
    rules = Ruleset()
    verdicts = rules.verdicts["read"]
    for i in range(MOST_DECISIONS + 100):
        verdicts[b"/%d" % i]
    assert len(verdicts) <= MOST_DECISIONS
    before = len(verdicts)
    assert verdicts[b"/" + b"x" * LONGEST_KEPT] == actions.DENY
    assert len(verdicts) == before


def test_a_deep_walk_is_affordable() -> None:
    """2,047 directories, 100 rules with wildcards among them: once per path, far from a second."""
    rules = Ruleset()
    rules.apply("sandbox/walk:on")
    rules.apply("allow/walk+/***")
    for i in range(100):
        rules.apply(f"deny/walk+/{i}/*x")
    path = b"/a" * 2047
    assert best(lambda: rules.walk[path], 3) < 0.5
