"""The fixtures shared by the attacks and the real programs: the ground, the runner, who runs and for how long."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from arena import SYD, USER, Arena, Identity, Payloads, Runner


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """How long each attack lasts (SYD_ATTACK_SECONDS, default 1); the repetition as an ordinary user is shorter."""
    chosen = float(os.environ.get("SYD_ATTACK_SECONDS", "1"))
    call = getattr(request.node, "callspec", None)
    return chosen * 0.4 if call and call.params.get("identity") == "user" else chosen


@pytest.fixture(scope="session")
def payloads() -> Iterator[Payloads]:
    """Compiler and store of the payloads."""
    built = Payloads()
    yield built
    built.remove()


@pytest.fixture(scope="session")
def user_problem() -> str:
    """Why the sandbox cannot be started as the ordinary user, empty if it can."""
    if os.geteuid() != 0:
        return ""
    try:
        done = subprocess.run(
            [SYD, "-q", "-poff", "true"],
            user=USER,
            group=USER,
            extra_groups=[],
            cwd="/",
            env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
            capture_output=True,
            timeout=30,
        )
    except PermissionError as error:
        return f"uid {USER} cannot start {SYD}: {error}"
    except subprocess.TimeoutExpired:
        return ""
    out_of_reach = done.returncode in (126, 127) or b"ermission denied" in done.stderr
    # Any other failure is the sandbox's own, and must show as failing tests, not as skipped ones.
    return f"uid {USER} cannot reach {SYD}: {done.stderr.decode()[-200:]}" if out_of_reach else ""


def identity_of(name: str, user_problem: str) -> Identity:
    """Root as we are or the ordinary user; skips where that is impossible."""
    if name == "root":
        if os.geteuid() != 0:
            pytest.skip("needs root")
        return Identity("root")
    if os.geteuid() != 0:
        return Identity("user")
    if user_problem:
        pytest.skip(user_problem)
    return Identity("user", USER)


@pytest.fixture(params=["root", "user"])
def identity(request: pytest.FixtureRequest, user_problem: str) -> Identity:
    """Every attack as root and as an ordinary user."""
    return identity_of(request.param, user_problem)


@pytest.fixture
def runner(identity: Identity, payloads: Payloads) -> Runner:
    """Runs commands natively and sandboxed as the identity."""
    return Runner(identity, payloads)


@pytest.fixture
def arena() -> Iterator[Arena]:
    """A fresh ground, removed afterwards."""
    ground = Arena.make()
    yield ground
    ground.remove()
