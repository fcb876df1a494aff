"""(e) a tree of 64 processes and a program of 64 threads that open files."""

from __future__ import annotations

import os

import pytest
from arena import syd_differs
from workshop import Workshop


def opener(workshop: Workshop, kind: str, count: int, seconds: float) -> None:
    """Every open gives the right file; nothing fails, nothing is left over; natively likewise."""
    command = [workshop.runner.payload("openers"), kind, str(count), str(seconds), str(workshop.work)]
    native, _ = workshop.native(command, 30 + 3 * seconds)
    assert (native.status, native.number("wrong", -1), native.number("tasks")) == (0, 0, count), native
    boxed, _ = workshop.boxed(command, 60 + 6 * seconds, tools=[os.path.dirname(command[0])])
    assert (boxed.status, boxed.number("wrong", -1), boxed.number("tasks")) == (0, 0, count), (boxed, os.getloadavg())
    with syd_differs("slow"):
        assert boxed.number("opens") > 100 * seconds, boxed.out


@pytest.mark.parametrize("kind", ["tree", "threads"])
def test_many_openers(workshop: Workshop, kind: str) -> None:
    """(e) 64 processes, 64 threads; half a second."""
    opener(workshop, kind, 64, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tree", "threads"])
def test_many_openers_long(workshop: Workshop, kind: str) -> None:
    """(e) the same for 30 s."""
    opener(workshop, kind, 64, 30)
