"""The journal of edits: whole entries, in order, up to the position that was named, or nothing."""

from __future__ import annotations

import mmap
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syd_pool.shm import journal as j


def test_layout() -> None:
    """Offsets and sizes that both sides compiled in."""
    assert (j.HEADER, j.ROOM, j.SIZE) == (4096, 1 << 20, 4096 + (1 << 20))
    assert len({j.L_HEAD, j.L_BASE}) == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=60_000), max_size=60), st.data())
def test_what_is_read_is_what_was_written(texts: list[bytes], data: st.DataObject) -> None:
    """From every position that still stands: exactly the entries between; from any other: None."""
    writer = j.create_journal()
    reader = j.map_journal(writer.fd)
    try:
        ends = [0, *(j.append(writer, text) for text in texts)]
        start = data.draw(st.integers(0, len(texts)))
        until = data.draw(st.integers(start, len(texts)))
        found = j.since(reader, ends[start], ends[until])
        if ends[-1] - ends[start] <= j.ROOM:
            assert found == texts[start:until]
        else:
            assert found is None
    finally:
        reader.close()
        writer.close()
        os.close(writer.fd)


def test_an_entry_that_is_too_large_is_for_who_comes_later() -> None:
    """Nobody who is before it can go on; who is behind it can."""
    writer = j.create_journal()
    before = j.append(writer, b"a")
    after = j.append(writer, b"x" * j.LARGEST)
    assert j.since(writer, 0, after) is None
    assert j.since(writer, before, after) is None
    assert j.since(writer, after, j.append(writer, b"b")) == [b"b"]


def test_a_reader_is_overtaken_while_it_copies() -> None:
    """What is overwritten under a reader's eyes is not believed."""
    writer = j.create_journal()
    end = j.append(writer, b"old" * 1000)

    class Overtaken:
        """A journal whose writer comes round between the copy and the second look."""

        q = writer.q

        class b:
            def __class_getitem__(cls, part: slice) -> bytes:
                copied = bytes(writer.b[part])
                for _ in range(6):
                    j.append(writer, b"n" * (j.LARGEST - 8))
                return copied

    assert j.since(Overtaken(), 0, end) is None  # type: ignore[arg-type]


def test_nobody_but_the_writer_can_write() -> None:
    """Sealed against other writable mappings at once, and against all when it is closed."""
    writer = j.create_journal()
    reader = j.map_journal(writer.fd)
    j.append(writer, b"one")
    with pytest.raises(PermissionError):
        mmap.mmap(writer.fd, j.SIZE)
    with pytest.raises(PermissionError):
        os.pwrite(writer.fd, b"x", 0)
    with pytest.raises(TypeError):
        reader.q[j.L_HEAD] = 0
    closed = j.close_journal(writer)
    assert j.since(closed, 0, closed.q[j.L_HEAD]) == [b"one"] == j.since(reader, 0, 7)
    with pytest.raises(TypeError):
        j.append(closed, b"two")
    with pytest.raises(PermissionError):
        mmap.mmap(closed.fd, j.SIZE)
