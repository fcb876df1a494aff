"""The caller's memory, with ourselves as the caller."""

from __future__ import annotations

import ctypes
import os

import pytest

from syd_pool.emulate.call import Call
from syd_pool.worker import memory


class Self(Call):
    """A Call of this very process."""

    def __init__(self) -> None:
        self.tid = self.tgid = os.getpid()


@pytest.mark.parametrize("size", [1, 16, 24, 400, 1000, 1500, 4096, 20_000, 200_000])
def test_what_is_written_is_what_was_given(size: int) -> None:
    """Byte for byte, at sizes that Python and malloc keep in different places.

    The copy that is handed to the kernel was once freed before the call: the allocator's own words then
    stood in the first bytes, a directory entry had the length 0, and readdir(3) in ls never ended.
    """
    target = ctypes.create_string_buffer(size + 8)
    data = bytes(1 + n % 251 for n in range(size))
    for _ in range(3):
        ctypes.memset(target, 0xEE, size + 8)
        memory.write(Self(), ctypes.addressof(target), data)
        assert target.raw == data + b"\xee" * 8
