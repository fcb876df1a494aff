"""Makes the harness of this directory, and that of the attacks, importable."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "attacks"), str(HERE)]

from bench import Bench  # noqa: E402


@pytest.fixture(scope="session")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/tracer/victims.c, compiled."""
    return Bench.compile(tmp_path_factory.mktemp("payload"))


@pytest.fixture
def bench(tmp_path: Path, payload: Path) -> Iterator[Bench]:
    """A sandbox to break, with a directory of its own."""
    made = Bench(tmp_path, payload)
    yield made
    made.close()
