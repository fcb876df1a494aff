"""The parser under mutated input: see fuzz.py.  scripts/fuzz does it for longer."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syd_pool.policy import Ruleset
from syd_pool.policy.errors import BadRule

sys.path.insert(0, os.path.dirname(__file__))
import fuzz


def test_a_hundred_thousand_mutated_lines() -> None:
    """Rejected or parsed; never half applied, never weaker by a line that forbids, no other exception."""
    tally = fuzz.fuzz(100_000, seed=20261125)
    assert tally["rejected"] > 30_000 and tally["accepted"] > 10_000, tally


def test_the_fuzzer_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The controls: an exception, a half-applied line and a weaker policy are found."""

    def raises(rules: Ruleset, line: str, source: str = "") -> None:
        raise KeyError(line)

    def halves(rules: Ruleset, line: str, source: str = "") -> None:
        rules.env.append(("set", b"A", b"b"))
        raise BadRule(22, "no")

    def weakens(rules: Ruleset, line: str, source: str = "") -> None:
        rules.enabled.clear()
        rules.refresh()

    for broken, said in ((raises, "KeyError"), (halves, "half applied"), (weakens, "weaker")):
        with monkeypatch.context() as patch:
            patch.setattr(Ruleset, "apply", broken)
            rules = Ruleset()
            with pytest.raises((AssertionError, KeyError), match=said if broken is not raises else "deny"):
                fuzz.try_line(rules, "deny/read+/x", fuzz.state(rules))


@settings(max_examples=1000, deadline=None)
@given(st.text(max_size=200))
def test_any_text(line: str) -> None:
    """Text that nobody has seen before: rejected, or parsed."""
    rules = Ruleset()
    fuzz.try_line(rules, line, fuzz.state(rules))


def test_mutated_files(tmp_path: Path) -> None:
    """A file is carried out or ends the start with an errno and the line; nothing else is raised."""
    folder, refused = tmp_path.resolve(), 0
    for number, data in enumerate(fuzz.mutated_files(600, seed=7)):
        path = folder / "x.syd-3"
        path.write_bytes(data)
        try:
            Ruleset().load(str(path))
        except BadRule as error:
            refused += 1
            wrong = not 0 < error.errno < 256 or str(path) not in str(error)
            if wrong:
                pytest.fail(f"file {number}: {error}")
    assert refused > 100


def test_pickles_of_what_was_parsed() -> None:
    """A policy survives the way to a worker: what was decided before is decided after."""
    rules = Ruleset()
    rules.profile("user")
    copy = pickle.loads(pickle.dumps(rules))
    assert fuzz.permitted(copy) == fuzz.permitted(rules)
