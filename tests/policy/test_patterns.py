"""Patterns: a table of what rsync and syd say, and a slow reference matcher that must always agree."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syd_pool.policy.matching import PathRules
from syd_pool.policy.patterns import Wild

TABLE = [
    # literal: exact, nothing below, backslash is a byte
    ("/a", "/a", True),
    ("/a", "/a/b", False),
    ("/a", "/ab", False),
    ("/a/", "/a", False),
    ("/a\\b", "/a\\b", True),
    ("/a\\b", "/ab", False),
    # ? and * stay within a component
    ("/a?c", "/abc", True),
    ("/a?c", "/a/c", False),
    ("/?", "/", False),
    ("/a*", "/a", True),
    ("/a*", "/abc", True),
    ("/a*", "/a/c", False),
    ("/*/c", "/b/c", True),
    ("/*/c", "/a/b/c", False),
    ("/*a*a*b", "/xaxaxb", True),
    ("/*a*a*b", "/xaxxb", False),
    ("/a*/c", "/ab/c", True),
    ("/*/e/*", "/d/e/f", True),
    # ** crosses
    ("/**", "/a/b", True),
    ("/**", "/", True),
    ("/a/**", "/a/b/c", True),
    ("/a/**", "/a", False),
    ("/a**", "/ab/c", True),
    ("/a**", "/a", True),
    ("/**f", "/d/e/f", True),
    ("/a**/f", "/ab/c/f", True),
    ("/a**/b", "/ab", False),
    ("/**.so", "/lib/x.so", True),
    ("/**.so", "/lib/x.so.1", False),
    ("/a/**/", "/a/b", True),
    # /**/ is also a single slash (checked with syd 3.52)
    ("/a/**/b", "/a/b", True),
    ("/a/**/b", "/a/x/y/b", True),
    ("/a/**/b", "/a/xb", False),
    ("/**/**/f", "/d/f", True),
    ("/**/tmp/a", "/tmp/a", True),
    ("/tmp/**/?", "/tmp/a", True),
    ("/d/**/e/**/f", "/d/e/f", True),
    ("/**/*/a", "/a", False),
    ("/**/*/a", "/x/a", True),
    # *** at the end: itself and below; elsewhere as **, which needs its two slashes
    ("/***", "/", True),
    ("/***", "/a/b", True),
    ("/a/***", "/a", True),
    ("/a/***", "/a/b/c", True),
    ("/a/***", "/ab", False),
    ("/[a]/***", "/a", True),
    ("/[a]/***", "/a/x", True),
    ("/[a]/***", "/ax", False),
    ("/t/***/a", "/t/a", False),
    ("/t/***/a", "/t/x/a", True),
    ("/d***", "/d/e/f", True),
    ("/*/x/***", "/a/x", True),
    # classes
    ("/[ab]", "/b", True),
    ("/[a-c]", "/b", True),
    ("/[b-a]", "/a", False),
    ("/[!a]", "/b", True),
    ("/[^a]", "/a", False),
    ("/a[!b]c", "/a/c", False),
    ("/a[/]c", "/a/c", False),
    ("/[]]", "/]", True),
    ("/[!]]", "/]", False),
    ("/[a-]", "/-", True),
    ("/[-a]", "/-", True),
    ("/[\\]]", "/]", True),
    ("/[a\\-c]", "/b", False),
    ("/[a\\-c]", "/-", True),
    ("/[a-c-e]", "/-", True),
    ("/[a-c-e]", "/d", False),
    ("/[[:alpha:]]", "/a", True),
    ("/[[:digit:][:lower:]]", "/7", True),
    ("/[[:ALPHA:]]", "/a", False),
    ("/[[:nope:]]*", "/n", False),
    ("/[a", "/[a", False),
    ("/[a*", "/[ab", False),
    # escapes, in patterns with a wildcard
    ("/\\**", "/*x", True),
    ("/\\**", "/x", False),
    ("/*\\?", "/a?", True),
    ("/*\\?", "/ab", False),
    # bytes are bytes
    ("/?", "/\udcff", True),
    ("/*\udcff", "/a\udcff", True),
    # slashes of the pattern
    ("//a//*", "/a/b", True),
]


def matches(pattern: bytes, path: bytes) -> bool:
    """Through the whole machinery: classified, indexed, found."""
    from syd_pool.policy.patterns import normal

    rules = PathRules()
    rules.add(0, normal(pattern))
    return rules.find(path) == 0


@pytest.mark.parametrize(("pattern", "path", "expected"), TABLE)
def test_table(pattern: str, path: str, expected: bool) -> None:
    """Each row: pattern, path, whether it matches."""
    assert matches(os.fsencode(pattern), os.fsencode(path)) is expected


def reference(pattern: bytes, path: bytes) -> bool:
    """The rules as recursion, written for clearness; exponential."""
    if not any(c in pattern for c in b"*?["):
        return pattern == path
    if pattern.endswith(b"**/"):
        pattern = pattern[:-1]
    if pattern.endswith(b"/***"):
        # X may have no wildcard left, but its escapes are those of a pattern that had one
        return _step(pattern[:-4], path, True) or _step(pattern[:-1], path, True)
    return _step(pattern, path, True)


def _step(pattern: bytes, path: bytes, after_slash: bool) -> bool:
    if not pattern:
        return not path
    if pattern.startswith(b"*"):
        rest = pattern.lstrip(b"*")
        stars = len(pattern) - len(rest)
        if stars == 1:
            return _step(rest, path, False) or (path[:1] not in (b"", b"/") and _step(pattern, path[1:], False))
        if stars == 2 and after_slash and rest.startswith(b"/"):
            starts = [0] + [i + 1 for i, c in enumerate(path) if c == 47]
            return any(_step(rest[1:], path[i:], True) for i in starts)
        return any(_step(rest, path[i:], False) for i in range(len(path) + 1))
    if pattern.startswith(b"["):
        close = pattern.index(b"]", 2)
        body, negated = pattern[1:close], pattern[1:2] in (b"!", b"^")
        accepted = _members(body[negated:])
        hit = path[:1] not in (b"", b"/") and (path[0] in accepted) is not negated
        return hit and _step(pattern[close + 1 :], path[1:], False)
    if pattern.startswith(b"?"):
        return path[:1] not in (b"", b"/") and _step(pattern[1:], path[1:], False)
    if pattern.startswith(b"\\") and len(pattern) > 1:
        pattern = pattern[1:]
    return path[:1] == pattern[:1] and _step(pattern[1:], path[1:], pattern[:1] == b"/")


def _members(body: bytes) -> set[int]:
    if len(body) == 3 and body[1] == 45:
        return set(range(body[0], body[2] + 1))
    return set(body)


TOKENS = [
    b"a",
    b"b",
    b"/",
    b"/",
    b"*",
    b"*",
    b"**",
    b"***",
    b"/**/",
    b"?",
    b"[ab]",
    b"[!a]",
    b"[a-b]",
    b"\\*",
]
PATTERNS = st.lists(st.sampled_from(TOKENS), max_size=9).map(lambda t: b"/" + b"".join(t))
PATHS = st.lists(st.sampled_from([b"a", b"b", b"/a", b"/b", b"*"]), max_size=10).map(lambda t: b"/" + b"".join(t))


@settings(max_examples=4000, deadline=None)
@given(PATTERNS, PATHS)
@example(b"/a**b*/**/a", b"/ab/b/a")
@example(b"/**/*a/**b", b"/aa/b")
def test_against_reference(pattern: bytes, path: bytes) -> None:
    """The linear matcher and the recursion agree, on paths as they are judged: without spare slashes."""
    from syd_pool.policy.patterns import normal

    path = normal(path)
    path = path.rstrip(b"/") or b"/"
    assert matches(pattern, path) is reference(normal(pattern), path)


@pytest.mark.parametrize(
    "pattern",
    [
        b"/*a*a*a*a*a*a*a*b",
        b"/**a**a**a**a**a**b",
        b"/**/a/**/a/**/a/**/a/b",
        b"/**a*a*a/*a*a**b",
        b"/**/?a*?a*?a**?b",
        b"/*/*/*/*/**/[!x]*[!x]*c/***",
        b"/**a*a*a*b",
    ],
)
@pytest.mark.parametrize("unit", [b"a", b"a/", b"aa/aaaa/"])
def test_hostile_paths_cost_linear_time(pattern: bytes, unit: bytes) -> None:
    """Eight times the path costs about eight times as long, not sixty-four."""
    compiled = Wild(pattern)

    def cost(size: int) -> float:
        path = (b"/" + unit * size)[:size]
        best = 1e9
        for _ in range(5):
            start = time.process_time()
            compiled.match(path)
            best = min(best, time.process_time() - start)
        return best

    small, large = cost(4096), cost(32768)
    assert large < 24 * small + 2e-4
    assert small < 0.02


def test_the_last_match_wins_over_every_kind_of_rule() -> None:
    """Literal, subtree and wildcard rules are kept apart, but their order decides."""
    patterns = [b"/a/***", b"/a/b", b"/a/*", b"/a/**", b"/**", b"/a/b"]
    rules = PathRules()
    for number, pattern in enumerate(patterns):
        rules.add(number, pattern)
        assert rules.find(b"/a/b") == number
    for number in reversed(range(len(patterns))):
        rules.remove(number, patterns[number], every=False)
        assert rules.find(b"/a/b") == number - 1


@settings(max_examples=500, deadline=None)
@given(st.lists(PATTERNS, max_size=12), PATHS)
def test_the_index_agrees_with_a_scan(patterns: list[bytes], path: bytes) -> None:
    """find() is the last rule for which the reference matches."""
    from syd_pool.policy.patterns import normal

    path = normal(path).rstrip(b"/") or b"/"
    rules = PathRules([(0, normal(pattern)) for pattern in patterns])
    hits = [i for i, pattern in enumerate(patterns) if reference(normal(pattern), path)]
    assert rules.find(path) == (hits[-1] if hits else -1)
