"""Makes the harness of the attacks and of the faults importable, and compiles the payloads of this directory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "attacks"), str(TESTS / "tracer"), str(TESTS / "live")]

from bench import Bench  # noqa: E402


def _compiled(name: str, directory: Path) -> Path:
    source = TESTS / "payloads" / name
    output = directory / source.stem
    subprocess.run(["cc", "-O1", "-Wall", "-pthread", "-o", output, source], check=True, timeout=60)
    return output


@pytest.fixture(scope="session")
def edits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/payloads/edits.c, compiled."""
    return _compiled("edits.c", tmp_path_factory.mktemp("payload"))


@pytest.fixture(scope="session")
def speak(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/payloads/speak.c, compiled."""
    return _compiled("speak.c", tmp_path_factory.mktemp("payload"))


@pytest.fixture
def bench(tmp_path: Path, edits: Path) -> Iterator[Bench]:
    """A sandbox to break, with a directory of its own."""
    made = Bench(tmp_path, edits)
    yield made
    made.close()
