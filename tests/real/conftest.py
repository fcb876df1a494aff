"""Makes the harness importable and its fixtures known to the tests of this directory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "attacks"), str(Path(__file__).resolve().parent)]

from arena import Payloads, Runner  # noqa: E402
from fixtures import identity_of, payloads, user_problem  # noqa: E402
from workshop import Workshop  # noqa: E402

__all__ = ["payloads", "user_problem"]


def pytest_configure(config: pytest.Config) -> None:
    """The markers used here, also when no project file declares them."""
    for marker in ("attack: attempts to break the sandbox", "root: needs root", "slow: long or heavy"):
        config.addinivalue_line("markers", marker)


SITUATIONS = [
    "everything-root",
    "tight-root",
    "tight-user",
    pytest.param("everything-user", marks=pytest.mark.slow),
]


@pytest.fixture(params=SITUATIONS)
def workshop(request: pytest.FixtureRequest, payloads: Payloads, user_problem: str) -> Iterator[Workshop]:
    """A place of work, under everything on and everything allowed, and under a policy that is tight."""
    policy, who = request.param.split("-")
    shop = Workshop.make(Runner(identity_of(who, user_problem), payloads), policy)
    yield shop
    shop.remove()
