"""A5: files that are mapped to be executed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from arena import ALL, Arena, Runner, is_real_syd, open_file, switch_on

pytestmark = pytest.mark.attack

EACCES = 13


def ground(arena: Arena) -> list[str]:
    """Two files that may be read, one of which may not be executed: the payload's arguments."""
    names = [str(arena.box / name) for name in ("good.so", "bad.so")]
    for name, text in zip(names, ("GOOD", "BAD!"), strict=True):
        open_file(arena.box / name.rsplit("/")[-1], text.ljust(4096, "."))
    return names


def rules(arena: Arena, *more: str) -> list[str]:
    """Everything on, everything allowed, but one file not to be executed."""
    return [
        *switch_on(),
        f"allow/{ALL}+/***",
        f"deny/exec+{arena.box}/bad.so",
        "trace/allow_unsafe_exec_memory:1",
        *more,
    ]


@pytest.mark.parametrize("mode", ["ptrace", "unsafe"])
def test_a5_a_file_that_may_not_be_executed(runner: Runner, arena: Arena, mode: str) -> None:
    """A5: mapping it with PROT_EXEC is EACCES, with PROT_READ it is not; a file that may be executed is mapped."""
    words = [runner.payload("map_exec"), "plain", *ground(arena)]
    more = ["trace/allow_unsafe_ptrace:1"] if mode == "unsafe" else []
    facts = runner.boxed(words, rules(arena, *more)).facts
    assert facts == {"good": "0", "bad": str(EACCES), "only": str(EACCES), "read": "0"}
    assert set(runner.native(words).facts.values()) == {"0"}, "control"


@pytest.mark.parametrize("how", ["swap", "move"])
def test_a5_exchanged_descriptor(runner: Runner, arena: Arena, seconds: float, how: str) -> None:
    """A5: a descriptor that changes after it was judged: what may not be executed is mapped in no surviving program."""
    if how == "move" and is_real_syd():
        pytest.skip("ours only")
    words = [runner.payload("map_exec"), how, *ground(arena), str(seconds)]
    killed = 0
    for _ in range(3):
        outcome = runner.boxed(words, rules(arena), 30 + 2 * seconds)
        assert outcome.status in (0, 137), outcome
        assert "executable" not in outcome.out, outcome
        killed += outcome.status == 137
    control = runner.native(words)
    assert ("hidden" if how == "move" else "executable") in control.out, "control: natively the exchange is mapped"


def test_a5_exchanged_for_what_is_not_trusted(runner: Runner, arena: Arena, seconds: float) -> None:
    """A5, sandbox/tpe: a library that others may write is mapped by nobody, whatever descriptor it came by."""
    words = [runner.payload("map_exec"), "swap", *ground(arena), str(seconds)]
    arena.box.chmod(0o755)
    (arena.box / "good.so").chmod(0o644)
    (arena.box / "bad.so").chmod(0o646)
    some = [*switch_on(), f"allow/{ALL}+/***", "trace/allow_unsafe_exec_memory:1"]
    for _ in range(3):
        outcome = runner.boxed(words, [*some, "sandbox/tpe:on"], 30 + 2 * seconds)
        assert outcome.status in (0, 137), outcome
        assert "executable" not in outcome.out, outcome
    (arena.box / "bad.so").chmod(0o644)
    assert "executable" in runner.boxed(words, [*some, "sandbox/tpe:on"], 30 + 2 * seconds).out, "control"


@pytest.mark.parametrize("name", ["ok\rx y z 0 q", "ok (deleted)"], ids=["line", "deleted"])
def test_a5_exchanged_for_a_deceptive_name(runner: Runner, arena: Arena, seconds: float, name: str) -> None:
    """A5: as above, where /proc/TID/maps shows what may not be executed much like what may."""
    files = [str(arena.box / one) for one in ("ok", name)]
    for file, text in zip(files, ("GOOD", "BAD!"), strict=True):
        open_file(Path(file), text.ljust(4096, "."))
    words = [runner.payload("map_exec"), "swap", *files, str(seconds)]
    some = [*switch_on(), f"allow/{ALL}+/***", f"deny/exec+{arena.box}/ok?*", "trace/allow_unsafe_exec_memory:1"]
    for _ in range(3):
        outcome = runner.boxed(words, some, 30 + 2 * seconds)
        assert outcome.status in (0, 137), outcome
        assert "executable" not in outcome.out, outcome
    assert "executable" in runner.native(words).out, "control: natively the exchange is mapped"


def test_a5_a_program_with_a_line_end_in_its_name(runner: Runner, arena: Arena) -> None:
    """A5: a carriage return in a name neither ends workers nor the program."""
    for name in ("plain", "tr\rue", "tr\nue"):
        program = arena.box / name
        shutil.copy("/bin/true", program)
        program.chmod(0o755)
        outcome = runner.boxed([str(program)], [*switch_on(), f"allow/{ALL}+/***"])
        assert outcome.status == 0 and "worker" not in outcome.err, (name, outcome)


def test_a5_library_of_a_program(runner: Runner, arena: Arena) -> None:
    """A5: a denied library is loaded neither by the dynamic loader nor by dlopen(3)."""
    library = arena.box / "libdenied.so"
    shutil.copy("/lib/x86_64-linux-gnu/libm.so.6", library)
    library.chmod(0o755)
    code = f"import ctypes; ctypes.CDLL({str(library)!r}); print('loaded')"
    some = [*switch_on(), f"allow/{ALL}+/***"]
    denied = runner.boxed(["python3", "-c", code], [*some, f"deny/exec+{library}"])
    assert denied.status == 1 and "failed to map segment" in denied.err, denied
    assert runner.boxed(["python3", "-c", code], some).out == "loaded\n", "control"
    preloading = ["sh", "-c", f"LD_PRELOAD={library} /bin/grep -c '^[^ ]* r-x.*libdenied' /proc/self/maps"]
    assert runner.boxed(preloading, [*some, f"deny/exec+{library}"]).out == "0\n"
    assert runner.boxed(preloading, some).out == "1\n", "control"
