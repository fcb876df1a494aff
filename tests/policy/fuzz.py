"""Hostile configuration: real lines, mutated, one after the other onto a policy.

Every line is rejected or parsed.  A rejected one raises BadRule with an errno and a message in one line, and leaves
the policy exactly as it was; a line that only forbids never makes anything allowed that was not.
"""

from __future__ import annotations

import os
import pickle
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from syd_pool.policy import Ruleset, actions, files  # noqa: E402
from syd_pool.policy.errors import BadRule  # noqa: E402
from syd_pool.policy.options import OPTIONS, UNBUILT_LISTS  # noqa: E402

RESTART = 400  # lines onto one policy: it grows, and every comparison with it
SPECIAL = [
    *":+-^!?,/*[]\\{}$~@#=.%\t \0\n\r'\"0123456789abcxyz",
    "\u00e9", "\ud7ff", "\ufffd", "\U0001f600", "\udc80", "\u2028", "../", "//", "***", "**/", "${HOME}", "${NOPE}",
    "$", "${", "!memfd:", "!unnamed", "@abstract", "-1", "99999999999999999999", "1e9", "0x", "inf", "none", "any!80",
    "2f", "all-x", "lock/", "default/", "trace/", "A" * 5000,
]  # fmt: skip
SAMPLES = (b"/", b"/etc/passwd", b"/usr/bin/env", b"/home/u/x", b"/tmp/a/b", b"@a", b"!unnamed", b"127.0.0.1!80")
CATEGORIES = ("read", "write", "stat", "exec", "create", "net/bind", "net/connect")
FORBIDDING = tuple(f"{name}/" for name in actions.NAMES if name not in ("allow", "warn"))


def corpus() -> list[str]:
    """Lines of every profile, and every option with values that are right and wrong."""
    found = []
    for name in files.available():
        found += [line for line in files.text_of(name).splitlines() if line and line[0] != "#"]
    for option in OPTIONS:
        found += [f"{option}:{value}" for value in ("on", "off", "1", "none", "64M", "10s", "x")]
    for action in actions.NAMES:
        found += [
            f"{action}/all+/x/***",
            f"{action}/read,write-/x",
            f"{action}/net+loopback!1-2,7",
            f"{action}/fs^ext4",
        ]
    found += [f"{name}+/x:/y" for name in UNBUILT_LISTS]
    found += ["lock:off", "lock:exec", "reset", "setenv!A=${HOME:-x}", "unsetenv!A", "clearenv!", "setuid+0:65534",
              "setgid-0:65534", "setuid^", "passenv+LC_*", "block!", "allow/ioctl+FIONREAD", "stat?", "cmd/exec!true",
              "include /x.syd-3", "include_profile off", "load/3", "dump"]  # fmt: skip
    return found


def mutated(line: str, lines: list[str], rng: random.Random) -> str:
    """`line` with up to three changes, mostly one."""
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        at = rng.randint(0, len(line))
        match rng.randrange(7):
            case 0:
                line = line[:at] + rng.choice(SPECIAL) + line[at:]
            case 1:
                line = line[:at] + line[at + rng.randint(1, 4) :]
            case 2:
                line = line[:at] + rng.choice(SPECIAL) + line[at + 1 :]
            case 3:
                other = rng.choice(lines)
                line = line[:at] + other[rng.randint(0, len(other)) :]
            case 4:
                line = line[:at] + line[at:][::-1]
            case 5:
                line = line * 2 if len(line) < 500 else line[:100]
            case 6:
                line = line[:at] + line[at : at + 3].swapcase() + line[at + 3 :]
    return line


def state(rules: Ruleset) -> bytes:
    """Everything that a line can change."""
    kept = dict(rules.__getstate__())
    kept["enabled"] = sorted(rules.enabled)
    kept["passed"] = sorted(rules.passed)
    kept["_paths"] = sorted((name, paths.rules) for name, paths in rules._paths.items() if paths.rules)
    return pickle.dumps(kept)


def permitted(rules: Ruleset) -> set[tuple[str, bytes]]:
    """Which of the samples are allowed, or done with a warning."""
    return {(c, p) for c in CATEGORIES for p in SAMPLES if rules.verdicts[c][p] in (actions.ALLOW, actions.WARN)}


def try_line(rules: Ruleset, line: str, before: bytes) -> bytes | None:
    """The new state if the line was accepted, None if rejected.  Raises AssertionError, or whatever apply() raised."""
    refused: BadRule | None
    forbids = line.startswith(FORBIDDING) and "+" in line
    could = permitted(rules) if forbids else set()
    try:
        rules.apply(line)
    except BadRule as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert isinstance(refused.errno, int) and 0 < refused.errno < 256 and str(refused).strip(), line
        assert state(rules) == before, f"half applied: {line!r}"
        return None
    if forbids:
        assert permitted(rules) <= could, f"weaker by {line!r}"
    return state(rules)


def fuzz(count: int, seed: int) -> Counter[str]:
    """Try `count` lines.  Returns how many were accepted and rejected."""
    rng, lines = random.Random(seed), corpus()
    tally: Counter[str] = Counter()
    rules = Ruleset()
    now = state(rules)
    for number in range(count):
        if number % RESTART == 0 or rules.lock == "on":
            rules = Ruleset()
            rules.apply(rng.choice(("sandbox/all:on", "sandbox/net:on", "lock:off")))
            now = state(rules)
        line = mutated(rng.choice(lines), lines, rng)
        try:
            after = try_line(rules, line, now)
        except Exception as error:
            raise AssertionError(f"seed {seed}, line {number}: {line!r}: {type(error).__name__}: {error}") from error
        tally["rejected" if after is None else "accepted"] += 1
        now = now if after is None else after
    return tally


def mutated_files(count: int, seed: int) -> Iterator[bytes]:
    """Profiles with bytes changed, put in and taken out, as files that a user might have."""
    rng = random.Random(seed)
    texts = [files.text_of(name).encode() for name in files.available()]
    for _ in range(count):
        data = bytearray(rng.choice(texts))
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(data) + 1)
            change = rng.randrange(3)
            if change == 0:
                data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 4)))
            elif change == 1:
                del data[at : at + rng.randint(1, 40)]
            elif at < len(data):
                data[at] = rng.randrange(256)
        yield bytes(data)


if __name__ == "__main__":
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else int.from_bytes(os.urandom(4), "little")
    print(f"seed {chosen}", flush=True)
    print(dict(fuzz(int(sys.argv[1]), chosen)))
