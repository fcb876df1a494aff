"""The control page and the messages: offsets, sizes, who may write."""

from __future__ import annotations

import mmap
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor import protocol as p
from syd_pool.shm import control as c


def test_offsets() -> None:
    """Every word sits where the docstring says: header words in page 0, records of 64 bytes behind it."""
    words = {name: value for name, value in vars(c).items() if name.startswith("H_")}
    assert len(set(words.values())) == len(words)
    assert max(words.values()) < c.HEADER // 8
    assert (c.H_EXIT, c.H_SLOTS, c.H_BACKLOG, c.H_TRACER) == (0, 2, 3, 5)
    assert (c.R_PID, c.R_STATE, c.R_HEAD, c.R_SINCE, c.R_TID, c.R_SEQ) == (0, 1, 2, 3, 4, 5)
    assert [c.record(i) * 8 for i in (0, 1, 1023)] == [4096, 4160, 69568]
    assert c.SIZE == 69632
    assert len(c.STATES) == c.DEAD + 1


def test_words_of_the_monitor_page_differ() -> None:
    """No two counters share a word."""
    words = [value for name, value in vars(p).items() if name.startswith("M_")]
    assert len(set(words)) == len(words)
    assert max(words) * 8 < p.MONITOR_SIZE


def test_kinds_differ() -> None:
    """A message means one thing, whoever sends it."""
    down = [p.WAKE, p.NEW_WORKER, p.WORKER_DEAD, p.EXIT, p.PING, p.STATS, p.REFUSED]
    up = [p.SPAWN, p.RETIRE, p.KILL, p.INTERRUPT, p.KICK, p.REVIVE]
    assert len(set(down + up)) == len(down) + len(up)
    assert p.MESSAGE.size == p.MESSAGE_SIZE == 24


def test_nobody_else_can_write() -> None:
    """G9: after the tracer mapped the page, a writable mapping and write(2) are refused."""
    page = c.create_control(1, 2, 4)
    page.q[c.H_EXIT] = 1  # the positive control: the tracer's own mapping still writes
    with pytest.raises(PermissionError):
        mmap.mmap(page.fd, c.SIZE, mmap.MAP_SHARED)
    with pytest.raises(PermissionError):
        os.pwrite(page.fd, b"\1", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(page.fd, 0)
    reader = c.map_control(page.fd)
    assert reader.q[c.H_EXIT] == 1
    with pytest.raises(TypeError):
        reader.q[c.H_EXIT] = 0


def test_another_version_is_refused() -> None:
    """A reader of another layout does not guess."""
    page = c.create_control(1, 2, 4)
    page.q[c.H_VERSION] = c.VERSION + 1
    with pytest.raises(ValueError, match="version"):
        c.map_control(page.fd)


def test_a_record_through_its_life() -> None:
    """enter, change and block publish generation and state in one word."""
    page = c.create_control(1, 2, 4)
    c.enter(page, 3, 77, 9, 100)
    assert page.q[c.H_SLOTS] == 4
    assert c.snapshot(page, 3) == (77, 9, c.STARTING, 0, 100, 0, 0)
    c.change(page, 3, c.READY, 200)
    page.q[c.record(3) + c.R_HEAD] = 5
    c.block(page, 3, 4242, 6, 300)
    assert c.snapshot(page, 3) == (77, 9, c.BLOCKED, 5, 300, 4242, 6)
    c.change(page, 3, c.DEAD, 400)
    c.enter(page, 3, 78, 10, 500)
    assert c.snapshot(page, 3) == (78, 10, c.STARTING, 0, 500, 0, 0)
    assert c.snapshot(page, 2)[2] == c.EMPTY


@given(st.integers(0, 0xFFFF), st.integers(0, 3))
def test_death_packs_and_unpacks(status: int, reason: int) -> None:
    """The status of waitpid and our reason travel in one argument."""
    argument = p.death(status, reason)
    assert (argument & 0xFFFFFFFF, argument >> 32) == (status, reason)
