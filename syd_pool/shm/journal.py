"""The journal: every edit of a run's rules, in order, from the one who writes it to all who judge.

        tracer                                         every worker
          |  memfd: entries, L_HEAD, L_BASE              |
          |--------------------------------------------->|   read-only; no doorbell: a slot names a position

A position counts bytes written since the start of the run; an entry is a 4-byte length and a text.  An entry
lives at its position modulo ROOM and is overwritten when ROOM bytes have followed it.

Who writes: the tracer, every word.  Order: L_BASE first (what is about to be overwritten is no longer to be
read), the entry, L_HEAD last.  A reader copies and then looks at L_BASE again: what it copied was whole, or
it has fallen behind and knows it.

Guarantees: a reader gets whole entries, in order, up to exactly the position it was told, or nothing.  No
reader can write: the memfd is sealed against any later writable mapping.  close_journal() takes the writer's
own mapping away and seals the memfd for good.
"""

from __future__ import annotations

import os

from syd_pool.linux.libc import F_SEAL_FUTURE_WRITE, F_SEAL_SEAL, F_SEAL_WRITE, add_seals, sealed_memfd
from syd_pool.shm.ring import Ring

HEADER = 4096
ROOM = 1 << 20  # bytes of entries
SIZE = HEADER + ROOM
LARGEST = ROOM // 4  # an entry; a larger one is for who is born after it

L_HEAD = 0  # position behind the last entry
L_BASE = 8  # position of the oldest byte that still stands

_LENGTH = 4


def create_journal() -> Ring:
    """The writer's side.  Raises OSError."""
    fd = sealed_memfd("syd-journal", SIZE)
    journal = Ring(fd, SIZE, True)
    add_seals(fd, F_SEAL_FUTURE_WRITE)
    return journal


def map_journal(fd: int) -> Ring:
    """A reader's mapping.  Raises OSError."""
    return Ring(fd, SIZE, False)


def append(journal: Ring, text: bytes) -> int:
    """Write one entry; returns the position behind it.

    One that is too large is left out: then nobody who is behind it can go on (since() says so).
    """
    q = journal.q
    head = q[L_HEAD]
    entry = len(text).to_bytes(_LENGTH, "little") + text
    after = head + len(entry)
    if len(entry) > LARGEST:
        q[L_BASE] = after
    else:
        if after - q[L_BASE] > ROOM:
            q[L_BASE] = after - ROOM
        _put(journal, head, entry)
    q[L_HEAD] = after
    return after


def _put(journal: Ring, position: int, data: bytes) -> None:
    at = position % ROOM
    first = min(len(data), ROOM - at)
    journal.b[HEADER + at : HEADER + at + first] = data[:first]
    if first < len(data):
        journal.b[HEADER : HEADER + len(data) - first] = data[first:]


def since(journal: Ring, position: int, until: int) -> list[bytes] | None:
    """The entries from `position` to `until`; None when some of them do not stand any more."""
    q = journal.q
    if q[L_BASE] > position:
        return None
    at, end = position % ROOM, until % ROOM
    if at <= end:
        data = bytes(journal.b[HEADER + at : HEADER + end])
    else:
        data = bytes(journal.b[HEADER + at : SIZE]) + bytes(journal.b[HEADER : HEADER + end])
    if q[L_BASE] > position or len(data) != until - position:
        return None
    return _split(data)


def _split(data: bytes) -> list[bytes]:
    entries, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + _LENGTH], "little")
        at += _LENGTH
        entries.append(data[at : at + size])
        at += size
    return entries


def close_journal(journal: Ring) -> Ring:
    """Nothing is written any more, by nobody: the writer's mapping for one that only reads.

    Raises OSError EBUSY while a writable mapping is left anywhere.
    """
    fd = os.dup(journal.fd)
    journal.close()
    os.close(journal.fd)
    add_seals(fd, F_SEAL_WRITE | F_SEAL_SEAL)
    return Ring(fd, SIZE, False)
