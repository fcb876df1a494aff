"""Makes the harness importable and its fixtures known to the tests of this directory."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "attacks"))

from fixtures import arena, identity, payloads, runner, seconds, user_problem

__all__ = ["arena", "identity", "payloads", "runner", "seconds", "user_problem"]


def pytest_configure(config: pytest.Config) -> None:
    """The markers used here, also when no project file declares them."""
    for marker in ("attack: attempts to break the sandbox", "root: needs root", "slow: long or heavy"):
        config.addinivalue_line("markers", marker)
    if threading.current_thread() is threading.main_thread():
        # A run that is told to end still reaps what it started: the exception goes through every `finally`.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
