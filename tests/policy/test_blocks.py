"""The list block: a set of addresses, whatever order its elements came in."""

from __future__ import annotations

import ipaddress
import random
from errno import EINVAL
from pathlib import Path

import pytest

from syd_pool.policy import Ruleset
from syd_pool.policy.errors import BadRule


def made(*lines: str) -> Ruleset:
    rules = Ruleset()
    for line in lines:
        rules.apply(line)
    return rules


def test_it_is_the_set_that_its_elements_make() -> None:
    """Against a set of single addresses: networks added and taken away at random, then simplified."""
    chance = random.Random(7)
    for _ in range(50):
        rules, want = Ruleset(), set()
        for _ in range(12):
            network = ipaddress.ip_network((0x0A000000 | chance.randrange(64), chance.randrange(26, 33)), strict=False)
            add = chance.random() < 0.7
            rules.apply(f"block{'+' if add else '-'}{network}")
            want = want | set(network) if add else want - set(network)
        for _ in range(2):
            blocked = rules.blocked
            assert blocked is not None or not want
            for last in range(70):
                address = ipaddress.ip_address(0x0A000000 + last)
                assert (blocked is not None and b"%s!80" % str(address).encode() in blocked) == (address in want)
            rules.apply("block!")


def test_v6_and_mapped_addresses() -> None:
    """A v4-mapped network is the v4 it is; the versions do not mix."""
    rules = made("block+2001:db8::/32", "block+::ffff:192.0.2.0/120")
    assert rules.blocked is not None
    assert b"2001:db8::1!1" in rules.blocked and b"192.0.2.9!1" in rules.blocked
    assert b"2001:db9::!1" not in rules.blocked and b"192.0.3.0!1" not in rules.blocked
    rules.apply("block^")
    assert rules.blocked is None


@pytest.mark.parametrize(
    "line", "block+ block- block+x block+1.2.3.4/33 block+1.2.3.4!8 block+1.2.3.4-1.2.3.9 block^1 block!x".split()
)
def test_what_is_no_element(line: str) -> None:
    """EINVAL, as syd 3.52 answers."""
    with pytest.raises(BadRule) as caught:
        made(line)
    assert caught.value.errno == EINVAL


def test_files_of_networks(tmp_path: Path) -> None:
    """All of a file or nothing; comments are lines of their own."""
    (tmp_path / "a.syd-3").write_text("include b.ipset\nblock-10.0.0.1\n")
    (tmp_path / "b.ipset").write_text("# one\n10.0.0.0/30\n\n2001:db8::1\n")
    for name in ("a.syd-3", "b.ipset"):
        (tmp_path / name).chmod(0o644)
    rules = Ruleset()
    rules.load(str(tmp_path / "a.syd-3"))
    assert rules.blocked is not None and b"10.0.0.3!1" in rules.blocked and b"10.0.0.1!1" not in rules.blocked
    (tmp_path / "b.ipset").write_text("10.0.0.0/30\njunk line\n")
    rules = Ruleset()
    with pytest.raises(BadRule) as caught:
        rules.load(str(tmp_path / "a.syd-3"))
    assert caught.value.errno == EINVAL and rules.blocked is None


def test_rules_of_net_accept() -> None:
    """The last that matches decides; without one a peer is welcome."""
    rules = made("deny/net/accept+10.0.0.0/8!0-65535", "allow/net/accept+10.0.0.1!1-9")
    assert rules.accepted is not None
    assert [rules.accepted[text] > 0 for text in (b"10.0.0.1!5", b"10.0.0.1!10", b"11.0.0.1!5")] == [False, True, False]
    rules.apply("deny/net/accept-10.0.0.0/8!0-65535")
    assert rules.accepted is None
