"""The layout of the rings is an interface between processes: it may not move by accident."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from syd_pool.shm import ring


def test_layout() -> None:
    """Every offset and size is what both sides compiled in."""
    assert ring.SLOT_SIZE == ring.SLOT.size == 128
    assert ring.S_NOTIF == ring.S_HEAD.size == 40
    assert ring.S_FACTS == ring.S_NOTIF + 80
    assert ring.COMPLETION.size == ring.COMPLETION_SIZE == 64
    assert ring.REQUEST_SIZE == 4096 + 256 * 128
    assert ring.WORKER_SIZE == 4096 + 64 * 64
    words = {k: v for k, v in vars(ring).items() if k.startswith("W_")}
    assert len(set(words.values())) == len(words), "two words share a place"
    assert all(v < ring.HEADER // 8 for v in words.values())


def test_slot_round_trip() -> None:
    """A slot is read as it was written, notification included."""
    notification = bytes(range(80))
    raw = ring.SLOT.pack(ring.NOTIFY, 1, 2**40, 7, 100, 3, 4, 0, notification, 9)
    assert ring.SLOT.unpack(raw) == (ring.NOTIFY, 1, 2**40, 7, 100, 3, 4, 0, notification, 9)
    assert ring.S_HEAD.unpack_from(raw) == (ring.NOTIFY, 1, 2**40, 7, 100, 3, 4, 0)


def test_request_ring_cannot_be_written_by_others() -> None:
    """F9, I8: sealed against later writable mappings, shrinking and growing; the control: reading works."""
    request = ring.create_request()
    reader = ring.Ring(request.fd, ring.REQUEST_SIZE, False)
    request.q[ring.Q_HEAD] = 5
    assert reader.q[ring.Q_HEAD] == 5
    with pytest.raises(PermissionError):
        mmap.mmap(request.fd, ring.REQUEST_SIZE, mmap.MAP_SHARED)
    with pytest.raises(PermissionError):
        os.pwrite(request.fd, b"x", 0)
    for size in (0, ring.REQUEST_SIZE * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(request.fd, size)
    with pytest.raises(TypeError):
        reader.q[ring.Q_HEAD] = 1
    reader.close()
    request.close()
    os.close(request.fd)


def test_mapping_is_not_inherited() -> None:
    """A fork does not have the ring in its address space (MADV_DONTFORK); the control: the parent has."""
    request = ring.create_request()
    assert "syd-request" in Path("/proc/self/maps").read_text()
    pid = os.fork()
    if not pid:
        os._exit("syd-request" in Path("/proc/self/maps").read_text())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    request.close()
    os.close(request.fd)


@pytest.mark.parametrize("first", [0, 250, 2**24 - 3, 2**32 - 5, 2**40 - 1])
def test_start_near_overflow(first: int) -> None:
    """Indices begin anywhere."""
    page = ring.create_worker_page(first)
    request = ring.create_request(first)
    assert page.q[ring.W_DONE] == page.q[ring.W_TAKEN] == request.q[ring.Q_HEAD] == first
    for r in (page, request):
        r.close()
        os.close(r.fd)


@pytest.mark.parametrize("prefix", ["C_", "W_", "Q_"])
def test_no_two_names_share_a_number(prefix: str) -> None:
    """Kinds of completion, words of the worker's page, words of the request ring."""
    numbers = [value for name, value in vars(ring).items() if name.startswith(prefix)]
    assert len(numbers) == len(set(numbers)) > 4, sorted(numbers)
