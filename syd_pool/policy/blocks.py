"""block: IP networks that nobody connects to and nobody is connected from (syd(2)).

    block+1.2.3.0/24   block-1.2.3.4   block^   block!       include FILE.ipset, FILE.netset

An element adds networks to a set of addresses or takes them away from it, in order; the set is made at the first
question, as ranges that do not touch, so that a question is one binary search however long the list is.
"""

from __future__ import annotations

from bisect import bisect_right

from syd_pool.policy.network import V4, V6, block, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Edit = tuple[bool, int, int, int]  # is it added, bits of an address, first address, last address
    Range = tuple[int, int]

_MOST_ANSWERS = 4096


def read(text: str, add: bool) -> Edit:
    """A network or an address as an element.  Raises ValueError with the reason."""
    host, slash, prefix = text.partition("/")
    bits = V6 if ":" in host else V4
    if slash and not (prefix.isascii() and prefix.isdigit() and int(prefix) <= bits):
        raise ValueError(f"`{prefix}' is no prefix length from 0 to {bits}")
    try:
        return (add, *block(text))
    except (OSError, ValueError):
        raise ValueError(f"`{text}' is no IP network") from None


def read_file(text: str) -> list[Edit]:
    """The networks of an .ipset or .netset file: one a line, `#` begins a comment line.  Raises ValueError."""
    lines = (line.strip() for line in text.split("\n"))
    return [read(line, True) for line in lines if line and line[0] != "#"]


class Blocked:
    """The set that the elements of block make: `address in blocked`, with an address as network.py writes it."""

    __slots__ = ("_answers", "_edits", "_ranges")

    def __init__(self, edits: Iterable[Edit]) -> None:
        self._edits = list(edits)
        self._ranges: dict[int, list[Range]] | None = None
        self._answers: dict[bytes, bool] = {}

    def ranges(self) -> dict[int, list[Range]]:
        """Bits of an address -> (first, last) of each range, ascending; between two there is at least one address."""
        if self._ranges is None:
            self._ranges = {bits: _ranges([edit for edit in self._edits if edit[1] == bits]) for bits in (V4, V6)}
        return self._ranges

    def __contains__(self, text: bytes) -> bool:
        """Is ADDRESS!PORT blocked?"""
        known = self._answers.get(text)
        if known is None:
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            known = self._answers[text] = self._look(text)
        return known

    def _look(self, text: bytes) -> bool:
        bits, value = number(text.partition(b"!")[0].decode("ascii"))
        ranges = self.ranges()[bits]
        at = bisect_right(ranges, (value, 1 << V6)) - 1
        return at >= 0 and value <= ranges[at][1]

    def simplified(self) -> list[Edit]:
        """The fewest elements that make the same set (block!)."""
        return [(True, bits, first, last) for bits, found in self.ranges().items() for first, last in found]


def _ranges(edits: list[Edit]) -> list[Range]:
    found: list[Range] = []
    at = 0
    while at < len(edits):
        add = edits[at][0]
        end = at
        while end < len(edits) and edits[end][0] == add:
            end += 1
        these = _merged((first, last) for _, _, first, last in edits[at:end])
        found = _merged([*found, *these]) if add else _without(found, these)
        at = end
    return found


def _merged(ranges: Iterable[Range]) -> list[Range]:
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def _without(ranges: list[Range], taken: list[Range]) -> list[Range]:
    found = []
    for first, last in ranges:
        for low, high in taken:
            if high < first or low > last:
                continue
            if low > first:
                found.append((first, low - 1))
            first = high + 1
        if first <= last:
            found.append((first, last))
    return found
