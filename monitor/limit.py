"""How many log lines of one kind are written: a burst, then a few each second; the others are counted.

A program that is denied something a million times a minute must not fill the disk, nor keep the log writer from
anything else.  A kind is (ctx, cap, act).  The counts are lines of their own, at most one a second for a kind, and one
for what is left at the end.  Lines of act `warn` are never held back: who learns what a command needs wants all.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Fields = dict[str, bytes | int]

BURST = 200.0
EACH_SECOND = 20.0
_KINDS = 256  # more are counted as one: the names of actions and categories are ours, but nobody checks them here
_SECOND = 1_000_000_000


class Limit:
    """The kinds that were seen; times are monotonic nanoseconds."""

    __slots__ = ("_kinds", "waiting")

    def __init__(self) -> None:
        self._kinds: dict[tuple[object, ...], list[float]] = {}  # kind -> [tokens, last time, held back, reported]
        self.waiting = False  # something was held back and is not reported

    def admits(self, fields: Fields, now: int) -> bool:
        """May this line be written?  If not, it is counted."""
        if fields.get("act") == b"warn" or fields.get("ctx") == b"log":
            return True
        kind: tuple[object, ...] = (fields.get("ctx"), fields.get("cap"), fields.get("act"))
        bucket = self._kinds.get(kind)
        if bucket is None:
            if len(self._kinds) >= _KINDS:
                kind = ()
            bucket = self._kinds.setdefault(kind, [BURST, now, 0, 0])
        bucket[0] = min(BURST, bucket[0] + (now - bucket[1]) / _SECOND * EACH_SECOND)
        bucket[1] = now
        if bucket[0] >= 1:
            bucket[0] -= 1
            return True
        bucket[2] += 1
        self.waiting = True
        return False

    def counts(self, now: int, everything: bool = False) -> Iterator[Fields]:
        """A line for each kind of which something was held back; for each at most once a second."""
        self.waiting = False
        for kind, bucket in self._kinds.items():
            if not bucket[2]:
                continue
            if not everything and now - bucket[3] < _SECOND:
                self.waiting = True
                continue
            count, bucket[2], bucket[3] = int(bucket[2]), 0, now
            line: Fields = {"ctx": b"log", "count": count}
            for key, value in zip(("about", "cap", "act"), kind, strict=False):
                if isinstance(value, bytes):
                    line[key] = value
            line["msg"] = b"lines of this kind were not written: more than %d a second" % EACH_SECOND
            yield line
