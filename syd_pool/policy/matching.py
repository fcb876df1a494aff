"""Lists of patterns: which of them match a path, found fast and remembered.

    PathRules   the rules of one category: the last that matches decides
    Verdicts    path -> action of one category, computed at the first question
    Matches     path -> which pattern of a plain list (mask, append) matches last

A first decision costs one look-up per distinct length of the literal and subtree rules, one for the last
component and one per distinct length of the directories that rules with wildcards begin with; only of the
rules found so is each tried.  A decision that was made before is one dictionary look-up.
"""

from __future__ import annotations

from syd_pool.policy.actions import ALLOW
from syd_pool.policy.patterns import BELOW, LITERAL, TREE, WILD, Wild, classify, has_wildcard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Compiled = tuple[int, bytes, Wild]

MOST_DECISIONS = 16384  # kept per category; then all are forgotten
LONGEST_KEPT = 1024  # bytes; decisions on longer paths are not kept


class PathRules:
    """The path rules of one category, in order of arrival.

    rules      (action, pattern) pairs; the last one that matches decides
    _literal   path -> index of its last rule; _tree likewise for X/***, _below for X/**
    _lengths   the distinct lengths of the keys of _tree and _below, ascending
    All others are (index, head, Wild), last first, in the first of these groups that takes them:
    _names     last component -> those whose last component is literal
    _heads     directory -> those that begin with it; _head_lengths: the distinct lengths of these directories
    _wild      the rest
    """

    __slots__ = (
        "_below", "_head_lengths", "_heads", "_lengths", "_literal", "_names", "_stale", "_tree", "_wild", "rules",
    )  # fmt: skip

    def __init__(self, rules: list[tuple[int, bytes]] | None = None) -> None:
        self.rules: list[tuple[int, bytes]] = rules or []
        self._stale = True

    def __reduce__(self) -> tuple[type[PathRules], tuple[list[tuple[int, bytes]]]]:
        return PathRules, (self.rules,)

    def add(self, action: int, pattern: bytes) -> None:
        self.rules.append((action, pattern))
        self._stale = True

    def remove(self, action: int, pattern: bytes, every: bool) -> None:
        """Take away the last such rule, or every one; none is no error, as in syd."""
        rule = (action, pattern)
        if every:
            self.rules = [r for r in self.rules if r != rule]
        else:
            for i in range(len(self.rules) - 1, -1, -1):
                if self.rules[i] == rule:
                    del self.rules[i]
                    break
        self._stale = True

    def _compile(self) -> None:
        indices: dict[int, dict[bytes, int]] = {LITERAL: {}, TREE: {}, BELOW: {}}
        self._wild: list[Compiled] = []
        self._names: dict[bytes, list[Compiled]] = {}
        self._heads: dict[bytes, list[Compiled]] = {}
        for index in range(len(self.rules) - 1, -1, -1):
            kind, text = classify(self.rules[index][1])
            if kind in indices:
                indices[kind].setdefault(text, index)
                continue
            compiled = Wild(text)
            name = text[text.rfind(b"/") + 1 :]
            directory = compiled.head[: compiled.head.rfind(b"/") + 1]
            if name and text[:1] == b"/" and b"\\" not in text and not has_wildcard(name):
                group = self._names.setdefault(name, [])
            elif len(directory) > 1:
                group = self._heads.setdefault(directory, [])
            else:
                group = self._wild
            group.append((index, compiled.head, compiled))
        self._head_lengths = sorted({len(key) for key in self._heads})
        self._literal, self._tree, self._below = indices[LITERAL], indices[TREE], indices[BELOW]
        self._lengths = sorted({len(key) for key in (*self._tree, *self._below)})
        self._stale = False

    def find(self, path: bytes) -> int:
        """The index of the rule that decides about `path`, -1 if none does."""
        if self._stale:
            self._compile()
        best = self._literal.get(path, -1)
        size = len(path)
        for length in self._lengths:
            if length >= size:
                if length == size:
                    best = max(best, self._tree.get(path, -1))
                break
            if path[length] == 47:  # /
                key = path[:length]
                best = max(best, self._tree.get(key, -1), self._below.get(key, -1))
        if self._names:
            best = _last(self._names.get(path[path.rfind(b"/") + 1 :], _NONE), path, best)
        for length in self._head_lengths:
            if length > size:
                break
            if path[length - 1] == 47:
                best = _last(self._heads.get(path[:length], _NONE), path, best)
        return _last(self._wild, path, best)


_NONE: list[Compiled] = []


def _last(group: list[Compiled], path: bytes, best: int) -> int:
    """The greater of `best` and the last rule of the group that matches."""
    for index, head, compiled in group:
        if index < best:
            break
        if path.startswith(head) and compiled.match(path):
            return index
    return best


class Verdicts(dict[bytes, int]):
    """path -> action for one category, computed at the first question.

    A category that is off answers ALLOW.
    """

    __slots__ = ("decide",)

    def __init__(self, decide: Callable[[bytes], int] | None) -> None:
        super().__init__()
        self.decide = decide

    def __missing__(self, path: bytes) -> int:
        action = self.decide(path) if self.decide is not None else ALLOW
        if len(path) <= LONGEST_KEPT:
            if len(self) >= MOST_DECISIONS:
                self.clear()
            self[path] = action
        return action


class Matches(dict[bytes, int]):
    """path -> index of the last pattern that matches, -1 for none; computed at the first question."""

    __slots__ = ("_heads", "_rules")

    def __init__(self, patterns: Iterable[bytes]) -> None:
        super().__init__()
        self._rules = PathRules([(ALLOW, pattern) for pattern in patterns])
        self._heads = tuple(_head(pattern) for _, pattern in self._rules.rules)

    def __missing__(self, path: bytes) -> int:
        index = self._rules.find(path)
        if len(path) <= LONGEST_KEPT:
            if len(self) >= MOST_DECISIONS:
                self.clear()
            self[path] = index
        return index

    def below(self, path: bytes) -> bool:
        """Is there a pattern that names something below `path`, by what it says before its first wildcard?"""
        within = path + b"/"
        return any(head.startswith(within) for head in self._heads)


def _head(pattern: bytes) -> bytes:
    kind, text = classify(pattern)
    return Wild(text).head if kind == WILD else text
