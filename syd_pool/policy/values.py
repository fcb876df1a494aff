"""How the values of options are written: booleans, numbers, sizes, durations, and their readers.

A reader takes the text of a value and returns it, or raises ValueError with what it must be.
Sources: syd(2), and syd 3.52 where the manual names a library of its own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BOOL, UINT, OCTAL, DURATION, SIZE, NICE, TEXT, LEVEL, VERBOSE, MEMORY, NAMESPACES, SIGNED, BYTE, MICROS = range(14)

# What `syd-pool options` and the documents call them
KINDS = ("boolean", "number", "octal mode", "duration", "size", "nice value", "text", "log level", "number",
         "0, 1 or 2", "namespaces", "number", "number from 1 to 255", "duration")  # fmt: skip

Value = bool | int | float | str | None

NAMESPACE_NAMES = ("mount", "uts", "ipc", "user", "pid", "net", "cgroup", "time")
LOG_LEVELS = ("emerg", "alert", "crit", "error", "warn", "notice", "info", "debug")


def boolean(text: str) -> bool:
    """on/off, true/false, yes/no, 1/0 and any prefix of true, false, yes and no.  Raises ValueError."""
    word = text.lower()
    if word in ("on", "1") or (word and ("true".startswith(word) or "yes".startswith(word))):
        return True
    if word in ("off", "0") or (word and ("false".startswith(word) or "no".startswith(word))):
        return False
    raise ValueError("must be on or off")


def whole(text: str, least: int = 0, most: int = 2**64 - 1) -> int:
    """A decimal number in a closed range.  Raises ValueError."""
    digits = text[1:] if text[:1] == "-" else text
    if not (digits.isascii() and digits.isdigit()) or not least <= int(text) <= most:
        raise ValueError(f"must be a whole number from {least} to {most}")
    return int(text)


_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60, "h": 3600, "hr": 3600, "hrs": 3600,
    "hour": 3600, "hours": 3600, "d": 86400, "day": 86400, "days": 86400, "w": 604800, "week": 604800,
    "weeks": 604800, "": 1,
}  # fmt: skip
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}


def _number(text: str) -> tuple[float, str]:
    """The number that `text` begins with, and what follows it.  Raises ValueError."""
    end = 0
    while end < len(text) and (text[end] in "0123456789" or (text[end] == "." and "." not in text[:end])):
        end += 1
    if not text[:end].strip("."):
        raise ValueError("must begin with a number")
    return float(text[:end]), text[end:].lstrip(" ")


def duration(text: str) -> float:
    """Seconds: 10, 1.5s, 1h30m, `10 minutes`.  Raises ValueError."""
    total, rest = 0.0, text.strip(" ").lower()
    while True:
        value, rest = _number(rest)
        end = 0
        while end < len(rest) and rest[end].isalpha():
            end += 1
        if rest[:end] not in _SECONDS:
            raise ValueError("must be a duration such as 10s or 1h30m")
        total += value * _SECONDS[rest[:end]]
        rest = rest[end:].lstrip(" ")
        if not rest:
            break
    if not total < 2**32:
        raise ValueError("must be less than 136 years")
    return total


def microseconds(text: str) -> int:
    """A duration in microseconds, which a bare number counts.  Raises ValueError."""
    return int(text) if text.isascii() and text.isdigit() else int(duration(text) * 1e6)


def size(text: str) -> int:
    """Bytes: 4096, 64M, `1.5 GiB`; k, m, g, t, p, e are powers of 1024, as in syd.  Raises ValueError."""
    value, unit = _number(text.strip(" "))
    unit = unit.lower().removesuffix("b").removesuffix("i")
    if unit not in _POWERS:
        raise ValueError("must be a size such as 4096 or 64M")
    value *= 1024.0 ** _POWERS[unit]
    if not value < 2**64:
        raise ValueError("must fit into 64 bits")
    return int(value)


def octal(text: str) -> int:
    """A mode, or -1 to unset.  Raises ValueError."""
    if text == "-1":
        return -1
    if not text or text.strip("01234567") or int(text, 8) > 0o7777:
        raise ValueError("must be an octal mode or -1")
    return int(text, 8)


def log_level(text: str) -> int:
    """An index into LOG_LEVELS.  Raises ValueError."""
    return LOG_LEVELS.index(text) if text in LOG_LEVELS else whole(text, 0, 7)


def namespaces(text: str) -> str:
    """A comma list of namespaces, "" for none.  Raises ValueError."""
    if text in ("none", "off"):
        return ""
    if any(name not in NAMESPACE_NAMES and name != "all" for name in text.split(",")):
        raise ValueError(f"must be of {', '.join(NAMESPACE_NAMES)}, all or none")
    return text


def text_value(text: str) -> str:
    """Anything but nothing.  Raises ValueError."""
    if not text:
        raise ValueError("must not be empty")
    return text


# kind -> (reader, may be `none` or `off`)
VALUES: dict[int, tuple[Callable[[str], Value], bool]] = {
    BOOL: (boolean, False),
    UINT: (whole, True),
    OCTAL: (octal, False),
    DURATION: (duration, True),
    SIZE: (size, True),
    NICE: (lambda t: whole(t, -20, 20), True),
    TEXT: (text_value, True),
    LEVEL: (log_level, False),
    VERBOSE: (lambda t: whole(t, 0, 255), False),
    MEMORY: (lambda t: whole(t, 0, 2), False),
    NAMESPACES: (namespaces, False),
    SIGNED: (lambda t: whole(t, -(2**63), 2**63 - 1), True),
    MICROS: (microseconds, True),
    BYTE: (lambda t: whole(t, 1, 255), False),
}
