"""Names that people and scripts can handle (syd(7), Enhanced Path Integrity Measures).

A name that is not safe cannot be made, and what has one cannot be reached and is not listed (EILSEQ), unless
trace/allow_unsafe_filename is set.  Only the last name of a path is looked at, as in syd 3.52.0.
"""

from __future__ import annotations

_FORBIDDEN = bytes(range(32)) + b"\x7f*?[]\"<>|()&'!\\;$`"
_MOST_KEPT = 8192


class _Safe(dict[bytes, bool]):
    """name -> is it safe?  One look-up for a name seen before; bounded."""

    __slots__ = ()

    def __missing__(self, name: bytes) -> bool:
        if len(self) >= _MOST_KEPT:
            self.clear()
        self[name] = answer = _is_safe(name)
        return answer


def _is_safe(name: bytes) -> bool:
    if len(name.translate(None, _FORBIDDEN)) != len(name) or name[:1] in (b" ", b"-", b"~") or name[-1:] == b" ":
        return False
    if name.isascii():
        return True
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return False
    return not text[0].isspace() and not text[-1].isspace()


safe = _Safe()
