"""I1, I2: pointers and strings that are wrong. The errno is the kernel's, whichever error it would find first."""

from __future__ import annotations

import pytest
from arena import Arena, Outcome, Runner, open_directory, open_file, syd_differs, tree

pytestmark = pytest.mark.attack


def differences(native: Outcome, boxed: Outcome) -> list[str]:
    """Lines with another errno."""
    assert native.status == boxed.status == 0, (native.status, boxed.status, boxed.err)
    expected, got = native.facts, boxed.facts
    assert expected.keys() == got.keys()
    return [f"{key}: native {expected[key]} sandbox {got[key]}" for key in expected if expected[key] != got[key]]


def test_i1_strings_at_the_edges_of_memory(runner: Runner, arena: Arena) -> None:
    """I1: a path that ends at, crosses or lacks its end before an unmapped page, and lengths round PATH_MAX: as
    natively."""
    name = str(arena.box / "aaaa")
    command = [runner.payload("strings"), str(arena.box), name]
    native = runner.native(command)
    assert len(native.facts) > 28 * 14 and set(native.facts.values()) >= {"0", "14", "36"}
    boxed = runner.boxed(command, arena.rules(), 30)
    wrong = differences(native, boxed)
    with syd_differs("a readable string without its end is ENOENT or EACCES, and other orders of errors"):
        assert not wrong, f"{len(wrong)} of {len(native.facts)}:\n" + "\n".join(wrong[:40])


def test_i2_bad_pointers(runner: Runner, arena: Arena) -> None:
    """I2: each pointer argument of each path call x eight bad values x a name that exists and one that does not."""
    open_directory(arena.box / "dir")
    open_file(arena.box / "dir" / "entry", "")
    (arena.box / "link").symlink_to("aaaa")
    command = [runner.payload("pointers"), str(arena.box)]
    before = tree(arena.box)
    native = runner.native(command)
    assert len(native.facts) > 48 * 16 and "14" in native.facts.values()
    boxed = runner.boxed(command, arena.rules(), 30)
    wrong = differences(native, boxed)
    with syd_differs("NULL argv and envp kill or fail, and other orders of errors"):
        assert not wrong, f"{len(wrong)} of {len(native.facts)}:\n" + "\n".join(wrong[:60])
    assert tree(arena.box) == before


def test_i2_the_sandbox_survives(runner: Runner, arena: Arena) -> None:
    """I2: after all of them the sandbox still serves and still judges (nothing was read or written past a
    fault)."""
    open_directory(arena.box / "dir")
    (arena.box / "link").symlink_to("aaaa")
    script = f'"$1" {arena.box} >/dev/null; cat {arena.box}/aaaa; cat {arena.ctf}/FLAG'
    outcome = runner.boxed(["/bin/sh", "-c", script, "sh", runner.payload("pointers")], arena.rules(), 30)
    assert "a file of the box" in outcome.out and arena.flag not in outcome.out
    assert outcome.status == 1
