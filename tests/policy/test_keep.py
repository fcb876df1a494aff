"""The lists mask and append: how an element is written, and which one counts."""

from __future__ import annotations

from errno import EINVAL, EPERM

import pytest

from syd_pool.policy import Ruleset
from syd_pool.policy.describe import state
from syd_pool.policy.errors import BadRule
from syd_pool.policy.keep import read_mask, written
from syd_pool.policy.live import edit


def made(*lines: str) -> Ruleset:
    rules = Ruleset()
    for line in lines:
        rules.apply(line)
    return rules


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("/a", (b"/a", b"/dev/null", b"")),
        ("/a//b/", (b"/a/b/", b"/dev/null", b"")),
        ("/dev/[fn]ull:/dev/zero", (b"/dev/[fn]ull", b"/dev/zero", b"")),
        ("/proc/acpi/***:/dev/null:/var/empty", (b"/proc/acpi/***", b"/dev/null", b"/var/empty")),
        ("/with\\:colons:/b\\\\c", (b"/with:colons", b"/b\\c", b"")),
        ("/a\\*", (b"/a\\*", b"/dev/null", b"")),
    ],
)
def test_elements_of_mask(text: str, mask: tuple[bytes, bytes, bytes]) -> None:
    """Pattern, target, target for directories; `\\:` is a colon, `\\\\` a backslash."""
    assert read_mask(text) == mask
    assert read_mask(written(mask).removeprefix("mask+")) == mask


@pytest.mark.parametrize(
    "line",
    "mask+ mask- mask^/x mask+x mask+/x:y mask+/x: mask+/x:/y:z mask+/x:/y:/z:/w mask! mask:/x "
    "append+ append- append^ append+x append!x append:/x".split(),
)
def test_what_is_no_element(line: str) -> None:
    """EINVAL, as syd 3.52 answers, and nothing is done."""
    rules = Ruleset()
    with pytest.raises(BadRule) as caught:
        rules.apply(line)
    assert caught.value.errno == EINVAL
    assert not rules.kept and rules.masked is None and rules.appended is None


def test_the_last_mask_counts() -> None:
    """`-` takes away the last of a pattern whatever its target is, `^` all."""
    rules = made("mask+/a*:/one", "mask+/ab:/two", "mask+/a*:/three")
    assert rules.masked is not None and rules.masks[rules.masked[b"/ab"]][1] == b"/three"
    rules.apply("mask-/a*")
    assert rules.masks[rules.masked[b"/ab"]][1] == b"/two"
    assert rules.masks[rules.masked[b"/ac"]][1] == b"/one" and rules.masked[b"/b"] == -1
    rules.apply("mask-/nothing")
    rules.apply("mask^")
    assert rules.masked is None and not rules.kept


def test_append_is_a_list() -> None:
    """`-` takes away the last equal one, `^` every equal one."""
    rules = made("append+/a", "append+/b*", "append+/a")
    rules.apply("append-/a")
    assert rules.appended is not None and rules.appended[b"/a"] == 0 and rules.appended[b"/bc"] == 1
    rules.apply("append+/a")
    rules.apply("append^/a")
    assert rules.appended[b"/a"] == -1 and rules.kept
    rules.apply("append-/b*")
    assert rules.appended is None and not rules.kept


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [("/a/b/c", "/a/b", "/a/b/c"), ("/a/b/***", "/a", "/a/b"), ("/a/b*c/d", "/a", "/a/b"), ("/**/x", None, "/a")],
)
def test_what_lies_below_a_directory(pattern: str, inside: str | None, outside: str) -> None:
    """By what a pattern says before its first wildcard."""
    matches = made(f"append+{pattern}").appended
    assert matches is not None and not matches.below(outside.encode())
    assert inside is None or matches.below(inside.encode())


def test_they_survive_what_a_ruleset_survives() -> None:
    """A failed file leaves them as they were; the state shows them, the last first; reset empties them."""
    rules = made("mask+/a:/b", "mask+/c:/d:/e", "append+/f")
    saved = rules.save()
    rules.apply("mask^")
    rules.apply("append^/f")
    rules.restore(saved)
    assert rules.masked is not None and rules.masked[b"/a"] == 0
    shown = state(rules)
    assert shown["mask_rules"] == [["/c", "/d", "/e"], ["/a", "/b", None]] and shown["append_rules"] == ["/f"]
    rules.reset()
    assert not rules.kept and rules.masked is None


def test_not_after_drop() -> None:
    """Both may be edited while the command runs, but neither in lock:drop (syd(2))."""
    rules = made("mask+/a")
    edit(rules, "append+/b")
    assert rules.appended is not None
    rules.apply("lock:drop")
    for line in ("mask+/c", "mask-/a", "append+/c", "append-/b"):
        with pytest.raises(BadRule) as caught:
            edit(rules, line)
        assert caught.value.errno == EPERM
