"""Makes the harness importable and its fixtures known to the tests of this directory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "attacks"), str(Path(__file__).resolve().parent)]

from arena import Runner
from fixtures import arena, identity, payloads, runner, seconds, user_problem
from workshop import Workshop

__all__ = ["arena", "identity", "payloads", "runner", "seconds", "user_problem"]


def pytest_configure(config: pytest.Config) -> None:
    """The markers used here, also when no project file declares them."""
    for marker in ("attack: attempts to break the sandbox", "root: needs root", "slow: long or heavy"):
        config.addinivalue_line("markers", marker)


@pytest.fixture(params=["everything", "tight"])
def workshop(request: pytest.FixtureRequest, runner: Runner) -> Iterator[Workshop]:
    """A place of work under `everything on and everything allowed`, and under a policy that allows only what it needs."""
    shop = Workshop.make(runner, request.param)
    yield shop
    shop.remove()
