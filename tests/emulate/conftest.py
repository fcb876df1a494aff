"""For every test of a handler, which may put on a caller's umask and keeps it, as a worker does."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from syd_pool.linux import libc


@pytest.fixture(autouse=True)
def own_umask() -> Iterator[None]:
    own = os.umask(0o022)
    libc.wear_umask(0o022)
    yield
    libc.wear_umask(own)
    os.umask(own)
