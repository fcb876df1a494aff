"""Makes the harness importable and its fixtures known to the tests of this directory."""

from __future__ import annotations

import signal
import sys
import threading
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
    if threading.current_thread() is threading.main_thread():
        # A run that is told to end still reaps what it started: the exception goes through every `finally`.
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long ones get the time they need."""
    if not config.pluginmanager.hasplugin("timeout"):
        return
    for item in items:
        if item.path.parent == Path(__file__).resolve().parent and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(900))


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
