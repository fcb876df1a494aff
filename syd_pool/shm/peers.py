"""Who connected: the page by which workers tell whose a connection is that one of them made (emulate/peer.py).

    words 0..65535   one bit for every pid: it was, or is, one of our workers
    then             BUCKETS buckets of WAYS entries: cookie of the connected socket, thread group, what tells
                     this process from a later one with its number, inode of the socket

Who writes: the tracer, every word; the memfd is sealed against other writable mappings.  A cookie is published
last and is 0 while its entry changes; a reader reads it, the others, and it again.  The kernel never uses a
cookie twice, so an entry whose socket is gone is wrong for nobody; it is overwritten when its bucket is full.
"""

from __future__ import annotations

from syd_pool.linux.libc import F_SEAL_FUTURE_WRITE, F_SEAL_SEAL, add_seals, sealed_memfd
from syd_pool.shm.ring import Ring

PIDS = 1 << 22  # PID_MAX_LIMIT
BUCKETS, WAYS, WORDS = 1024, 8, 4
_TABLE = PIDS // 64
SIZE = (_TABLE + BUCKETS * WAYS * WORDS) * 8  # of which only what was written takes memory
COOKIE, TGID, IDENTITY, INODE = range(WORDS)


def create_peers() -> Ring:
    """The tracer's page: mapped here writable, for everybody later read-only.  Raises OSError."""
    fd = sealed_memfd("syd-peers", SIZE)
    page = Ring(fd, SIZE, True)
    add_seals(fd, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)
    return page


def map_peers(fd: int) -> Ring:
    """A reader's mapping."""
    return Ring(fd, SIZE, False)


def mark_ours(page: Ring, pid: int) -> None:
    """`pid` is one of our workers."""
    page.q[pid >> 6] |= 1 << (pid & 63)


def was_ours(page: Ring, pid: int) -> bool:
    """Is `pid` one of our workers, or was it once?"""
    return 0 < pid < PIDS and bool(page.q[pid >> 6] >> (pid & 63) & 1)


def entries(cookie: int) -> range:
    """Where the entries are in which `cookie` may be."""
    first = _TABLE + cookie % BUCKETS * WAYS * WORDS
    return range(first, first + WAYS * WORDS, WORDS)


def store(page: Ring, at: int, cookie: int, tgid: int, identity: int, inode: int) -> None:
    """Overwrite one entry."""
    q = page.q
    q[at + COOKIE] = 0
    q[at + TGID], q[at + IDENTITY], q[at + INODE] = tgid, identity, inode
    q[at + COOKIE] = cookie


def find(page: Ring, cookie: int) -> tuple[int, int] | None:
    """(thread group, its identity) of who connected the socket with this cookie; None when it is not here."""
    q = page.q
    for at in entries(cookie):
        if q[at + COOKIE] == cookie:
            found = q[at + TGID], q[at + IDENTITY]
            if q[at + COOKIE] == cookie:
                return found
    return None
