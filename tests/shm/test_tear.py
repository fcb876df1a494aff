"""A word published through a cast memoryview is never torn; the control shows that other stores are."""

from __future__ import annotations

import mmap
import os
import struct
import time

VALUES = (0x0000000000000000, 0xFFFFFFFFFFFFFFFF, 0x0123456789ABCDEF)


def torn_reads(store: str, seconds: float) -> tuple[int, int]:
    """(reads, torn ones) while another process stores VALUES in the way `store` names."""
    shared = mmap.mmap(-1, 4096)
    words = memoryview(shared).cast("Q")
    pid = os.fork()
    if not pid:
        end = time.monotonic() + seconds + 5
        pack = struct.Struct(">Q").pack_into
        while time.monotonic() < end:
            for _ in range(1000):
                for value in VALUES:
                    if store == "word":
                        words[1] = value
                    else:
                        pack(shared, 8, value)
        os._exit(0)
    try:
        good = set(VALUES)
        if store != "word":
            good = {int.from_bytes(v.to_bytes(8, "big"), "little") for v in VALUES}
        reads = torn = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(1000):
                torn += words[1] not in good
            reads += 1000
        return reads, torn
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_word_is_never_torn() -> None:
    """kernel-facts 2.2; CPython does not promise it, so it is measured for every version we run on."""
    reads, torn = torn_reads("word", 1.0)
    assert reads > 10_000
    assert torn == 0


def test_other_stores_do_tear() -> None:
    """The positive control: a big-endian store is seen in pieces, so the test above can fail."""
    if len(os.sched_getaffinity(0)) < 2:
        return
    _, torn = torn_reads("bytes", 2.0)
    assert torn > 0
