"""mask and append: files that are shown as others, and files that only grow (syd(2)).

    mask+PATTERN[:TARGET[:DIRECTORY]]   of the masks that match a path the last one counts
    mask-PATTERN, mask^                 take away the last of this pattern, take all away
    append+PATTERN, append-PATTERN, append^PATTERN

In a mask `\\:` is a colon and `\\\\` a backslash.
"""

from __future__ import annotations

from syd_pool.policy.patterns import normal

NULL = b"/dev/null"  # what a masked file is shown as by default


def read_mask(text: str) -> tuple[bytes, bytes, bytes]:
    """(pattern, target, target for directories or b"") of an element of mask.  Raises ValueError with the reason."""
    parts = _split(text)
    if len(parts) > 3:
        raise ValueError("a mask has at most two targets")
    if not all(part[:1] == b"/" for part in parts):
        raise ValueError("patterns and targets of masks begin with a slash")
    pattern, target, directory = [*parts, b"", b""][:3]
    return normal(pattern), target or NULL, directory


def read_append(text: str) -> bytes:
    """An element of append.  Raises ValueError with the reason."""
    if text[:1] != "/":
        raise ValueError("a pattern begins with a slash")
    return normal(text.encode("utf-8", "surrogateescape"))


def written(mask: tuple[bytes, bytes, bytes]) -> str:
    """The command that makes a mask."""
    pattern, target, directory = mask
    parts = (pattern, target, directory) if directory else (pattern,) if target == NULL else (pattern, target)
    escaped = (part.replace(b"\\", b"\\\\").replace(b":", b"\\:") for part in parts)
    return "mask+" + b":".join(escaped).decode("utf-8", "surrogateescape")


def _split(text: str) -> list[bytes]:
    """The parts between colons, without the backslash of `\\:` and `\\\\`; another one stays (patterns have them)."""
    parts, part, at = [], "", 0
    while at < len(text):
        if text[at : at + 2] in ("\\:", "\\\\"):
            part += text[at + 1]
            at += 1
        elif text[at] == ":":
            parts.append(part)
            part = ""
        else:
            part += text[at]
        at += 1
    return [part.encode("utf-8", "surrogateescape") for part in (*parts, part)]
