"""The command line is walked from left to right, joined or separate, and every mistake is named."""

from __future__ import annotations

from errno import EINVAL

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syd_pool.cli.options import OPTIONS, Option, Parser, Refused


def walk(*words: str) -> tuple[list[tuple[str, str]], list[str]]:
    """What the parser yields, by name, and what it leaves."""
    parser = Parser(list(words))
    return [(option.name, value) for option, value in parser], parser.rest


@pytest.mark.parametrize(
    "words",
    [["-mX"], ["-m", "X"], ["-m=X"]],
)
def test_the_value_of_a_short_option_may_be_joined_or_follow(words: list[str]) -> None:
    """-mX, -m X and -m=X are the same."""
    assert walk(*words, "true") == ([("m", "X")], ["true"])


@pytest.mark.parametrize(
    "words",
    [["-pfs"], ["-p", "fs"], ["--profile", "fs"], ["--profile=fs"]],
)
def test_long_and_short_names_are_the_same_option(words: list[str]) -> None:
    """-p and --profile are one option with one name."""
    assert walk(*words) == ([("profile", "fs")], [])


def test_short_options_join_until_one_takes_a_value() -> None:
    """-vqpoff is -v -q -p off."""
    assert walk("-vqpoff", "true") == ([("verbose", ""), ("q", ""), ("profile", "off")], ["true"])


def test_order_is_kept() -> None:
    """A configuration command means what it means at its place."""
    assert walk("-ma", "-P", "f", "-mb", "-poff")[0] == [
        ("m", "a"),
        ("P", "f"),
        ("m", "b"),
        ("profile", "off"),
    ]


@pytest.mark.parametrize(
    ("words", "rest"),
    [
        (["true", "-V"], ["true", "-V"]),
        (["--", "-V"], ["-V"]),
        (["-q", "--", "--", "x"], ["--", "x"]),
        (["-", "-V"], ["-", "-V"]),
        (["", "-V"], ["", "-V"]),
        ([], []),
    ],
)
def test_options_end_at_the_first_word_that_is_none(words: list[str], rest: list[str]) -> None:
    """What follows the command, or `--`, belongs to the command."""
    assert walk(*words)[1] == rest


def test_a_value_may_look_like_an_option_or_the_end() -> None:
    """An option that takes a value takes the next word, whatever it is."""
    assert walk("-m", "--", "-m", "-V", "true") == ([("m", "--"), ("m", "-V")], ["true"])


@pytest.mark.parametrize(
    ("words", "errno", "text"),
    [
        (["-Z"], EINVAL, "-Z"),
        (["--bogus"], EINVAL, "--bogus"),
        (["--prof", "x"], EINVAL, "did you mean -p, --profile"),
        (["-m"], EINVAL, "needs a value"),
        (["--profile"], EINVAL, "needs a value"),
        (["--verbose=3"], EINVAL, "takes no value"),
    ],
)
def test_a_mistake_is_named(words: list[str], errno: int, text: str) -> None:
    """Unknown, incomplete and unbuilt options end the run with an errno and their name."""
    with pytest.raises(Refused, match=text) as caught:
        walk(*words)
    assert caught.value.errno == errno


def test_what_stands_before_a_mistake_was_seen() -> None:
    """The first mistake ends the walk, not a later one."""
    parser = iter(Parser(["-ma", "--bogus", "-mb"]))
    assert next(parser)[1] == "a"
    with pytest.raises(Refused):
        next(parser)


def test_names_are_unique() -> None:
    """No two options share a name."""
    names = [name for option in OPTIONS for name in (option.short, option.long) if name]
    assert len(names) == len(set(names))


def test_the_options_of_syd_are_all_there() -> None:
    """Every option of syd(1) that belongs to running a command parses, or is refused by name."""
    assert {o.short for o in OPTIONS if o.short} >= set("acefhlmpqtvxCEPV")
    assert {o.long for o in OPTIONS} >= {
        "help",
        "version",
        "check",
        "verbose",
        "login",
        "profile",
        "api",
        "el",
        "sh",
    }


@given(st.lists(st.text(alphabet="-mpqvx=aP /:", max_size=6), max_size=6))
def test_any_words_end_in_a_walk_or_a_refusal(words: list[str]) -> None:
    """No command line crashes the parser, and nothing after the options is lost."""
    parser = Parser(words)
    try:
        for option, value in parser:
            assert isinstance(option, Option)
            assert bool(value) <= bool(option.arg)
    except Refused:
        return
    assert parser.rest == words[len(words) - len(parser.rest) :]
