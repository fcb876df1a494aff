"""A log line on its way from a worker or the tracer to the log writer.

One datagram a line: for each key a byte with the key's place in KEYS, a 2-byte length, the value.
Bytes travel as they are and are encoded by the writer; integers travel as decimal text behind INT.
Neither side trusts the other: decode() of garbage raises ValueError.
"""

from __future__ import annotations

KEYS = (
    "ctx", "cap", "act", "sys", "path", "addr", "unix", "args", "pid", "cmd", "cwd", "tty", "uid",
    "req", "msg", "tip", "err", "level", "nr", "worker", "rule", "dst", "id", "syd", "count", "tgid", "name", "ctl",
)  # fmt: skip
_PLACE = {key: place for place, key in enumerate(KEYS)}
INT = 0x80
MOST = 65536  # bytes in one datagram


def encode(fields: list[tuple[str, bytes | int]]) -> bytes:
    """One datagram from (key, value) pairs, keys of KEYS only; a value is cut at 60,000 bytes."""
    out = bytearray()
    for key, value in fields:
        place = _PLACE[key]
        if isinstance(value, int):
            place |= INT
            value = b"%d" % value
        value = value[:60000]
        if len(out) + len(value) + 3 > MOST:
            break
        out.append(place)
        out += len(value).to_bytes(2, "little")
        out += value
    return bytes(out)


def decode(datagram: bytes) -> list[tuple[str, bytes | int]]:
    """The pairs of one datagram.  Raises ValueError when it is not one."""
    fields: list[tuple[str, bytes | int]] = []
    at, end = 0, len(datagram)
    while at < end:
        if at + 3 > end:
            raise ValueError("log line: cut short")
        place = datagram[at]
        size = int.from_bytes(datagram[at + 1 : at + 3], "little")
        at += 3
        if at + size > end or (place & ~INT) >= len(KEYS):
            raise ValueError("log line: bad field")
        raw = datagram[at : at + size]
        at += size
        key = KEYS[place & ~INT]
        fields.append((key, int(raw) if place & INT else raw))
    return fields
