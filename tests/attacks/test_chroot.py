"""chroot(2): never performed; an allowed one closes the file system to the whole run (syd(7), chroot)."""

from __future__ import annotations

from errno import EACCES, ENOENT

import pytest
from arena import ALL, Arena, Runner, switch_on

pytestmark = pytest.mark.attack

ON = [*switch_on(), f"allow/{ALL}+/***", "sandbox/chroot:on", "allow/chroot+/***"]
WHO = ("main", "child", "thread")


def look(runner: Runner, arena: Arena, *rules: str) -> dict[str, int]:
    """What the payload was answered: 0 or an errno for each call."""
    outcome = runner.boxed([runner.payload("closed_by_chroot"), str(arena.box), str(arena.ctf / "FLAG")], rules)
    assert outcome.status == 0, outcome
    return {key: int(value) for key, value in outcome.facts.items()}


def test_an_allowed_chroot_closes_everything(runner: Runner, arena: Arena) -> None:
    """Afterwards nobody of the run reaches a file by a path, whichever worker judges; the file is as it was."""
    before = arena.snapshot()
    facts = look(runner, arena, *ON)
    assert facts.pop("main.chroot") == 0
    assert facts.pop("main.again") == EACCES
    for who in WHO:
        assert facts.pop(f"{who}.chdir-root") == 0
    assert len(facts) == 3 * 6 + 1, facts
    assert set(facts.values()) <= {ENOENT, EACCES}, facts
    assert arena.snapshot() == before
    # control: with the option it is a call that does nothing, and the same calls reach the same file
    facts = look(runner, arena, *ON, "trace/allow_unsafe_chroot:1")
    assert set(facts.values()) == {0}, facts


@pytest.mark.parametrize(("rule", "errno"), [("deny/chroot+", EACCES), ("deny/stat+", ENOENT)])
def test_a_refused_chroot_closes_nothing(runner: Runner, arena: Arena, rule: str, errno: int) -> None:
    """The rules are asked about the directory; a refused call has no effect."""
    facts = look(runner, arena, *ON, f"{rule}{arena.box}/***")
    assert facts["main.chroot"] == errno
    assert all(facts[f"main.{call}"] == 0 for call in ("stat", "open", "write", "list", "chdir")), facts
