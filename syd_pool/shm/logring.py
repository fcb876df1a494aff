"""The last lines of the log in memory, for syslog(2): `<LEVEL>[boot time] line`, the way the kernel keeps its own.

    monitor --append()--> 8 bytes: how many were ever written | the last of them, round and round --read()--> tracer

One writer; the number is written last, so a reader that looks at it before and after knows what was overwritten
meanwhile.  The memory is anonymous: it goes to who is forked and to nobody who is executed.
"""

from __future__ import annotations

from mmap import mmap
from time import CLOCK_BOOTTIME, clock_gettime

SIZE = 1 << 18  # bytes, syd(1) SYD_LOG_BUF_LEN on x86_64
HEAD = 8  # bytes in front of the lines


def create(size: int = SIZE) -> mmap:
    """Memory for `size` bytes of lines.  Raises OSError, ValueError, OverflowError."""
    return mmap(-1, HEAD + size)


def total(ring: mmap) -> int:
    """How many bytes were ever written."""
    return int.from_bytes(ring[:HEAD], "little")


def append(ring: mmap, level: int, text: bytes) -> None:
    """Keep one line, as much of it as there is room for."""
    size = len(ring) - HEAD
    now = clock_gettime(CLOCK_BOOTTIME)
    head = b"<%d>[%5d.%06d] " % (level, int(now), int(now % 1 * 1e6))
    data = (head + text.rstrip(b"\n").replace(b"\n", b" "))[: size - 1] + b"\n"
    written = total(ring)
    at = written % size
    first = data[: size - at]
    ring[HEAD + at : HEAD + at + len(first)] = first
    ring[HEAD : HEAD + len(data) - len(first)] = data[len(first) :]
    ring[:HEAD] = (written + len(data)).to_bytes(HEAD, "little")


def read(ring: mmap, since: int, most: int) -> bytes:
    """The last whole lines, at most `most` bytes, of what was written after the first `since` bytes."""
    size = len(ring) - HEAD
    end = total(ring)
    whole = ring[HEAD:]
    start = max(since, total(ring) - size, 0)
    if end <= start:
        return b""
    at = start % size
    data = (whole[at:] + whole[:at])[: end - start]
    if start > since:
        data = data[data.find(b"\n") + 1 :]  # the oldest line is cut
    if len(data) > most:
        data = data[len(data) - most - 1 :]
        data = data[data.find(b"\n") + 1 :]
    return data
