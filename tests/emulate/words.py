"""Memory that a test, its forked callers and the kernel see alike: structures to be read, results to be written."""

from __future__ import annotations

import ctypes
import mmap
import struct

BAD = 8  # an address where nothing is


class Shared:
    """`size` shared bytes: what a forked child, or a handler in a forked child's memory, writes is seen here."""

    def __init__(self, size: int = 4096):
        self._map = mmap.mmap(-1, size)
        self._view = ctypes.c_char.from_buffer(self._map)
        self.address = ctypes.addressof(self._view)

    def fill(self, data: bytes = b"", rest: bytes = b"\xee") -> int:
        """Put `data` at the start and `rest` everywhere behind it; returns the address."""
        self._map[:] = data + rest * (len(self._map) - len(data))
        return self.address

    def pack(self, form: str, *values: int) -> int:
        """As fill(), with a structure."""
        return self.fill(struct.pack(form, *values))

    def data(self) -> bytes:
        """All of it."""
        return self._map[:]
