"""Address rules: CIDR, ports, aliases; the last one that matches decides (checked with syd 3.52)."""

from __future__ import annotations

import ipaddress
import pickle
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syd_pool.emulate.netaddr import text
from syd_pool.policy import Ruleset, actions
from syd_pool.policy.network import block, expand


def ruleset(*rules: str) -> Ruleset:
    found = Ruleset()
    found.profile("off")
    found.apply("sandbox/net:on")
    for rule in rules:
        found.apply(rule)
    return found


def allows(rules: Ruleset, address: bytes, category: str = "net/bind") -> bool:
    return rules.verdicts[category][address] == actions.ALLOW


@pytest.mark.parametrize(
    ("rule", "yes", "no"),
    [
        ("127.0.0.1!80", "127.0.0.1!80", "127.0.0.1!81 127.0.0.2!80 ::1!80"),
        ("127.0.0.5/8!0", "127.0.0.1!0 127.255.255.255!0", "126.255.255.255!0 128.0.0.0!0"),
        ("10.0.0.0/31!1-3,9", "10.0.0.0!1 10.0.0.1!3 10.0.0.0!9", "10.0.0.0!0 10.0.0.0!4 10.0.0.0!8 10.0.0.2!1"),
        ("0.0.0.0/0!0-65535", "0.0.0.0!0 255.255.255.255!65535", "::!0"),
        ("::/0!7", "::!7 ffff::!7", "1.2.3.4!7"),
        ("::1!7", "::1!7", "::2!7 ::1!8"),
        ("fe80::/10!7", "fe80::1!7 febf::1!7", "fec0::1!7"),
        ("::ffff:127.0.0.1!7", "127.0.0.1!7", "127.0.0.2!7"),
        ("::ffff:127.0.0.0/104!7", "127.9.9.9!7", "128.0.0.1!7"),
        ("any!7", "1.2.3.4!7 ::1!7", "1.2.3.4!8"),
        ("any4!7", "1.2.3.4!7", "::1!7"),
        ("any6!7", "::1!7", "1.2.3.4!7"),
        ("loopback!7", "127.0.0.1!7 127.3.2.1!7 ::1!7", "::2!7 128.0.0.1!7"),
        ("loopback4!7", "127.0.0.1!7", "::1!7"),
        ("loopback6!7", "::1!7", "127.0.0.1!7"),
        ("linklocal!7", "169.254.1.1!7 fe80::1!7", "169.253.1.1!7 fec0::1!7"),
        ("local!7", "127.0.0.1!7 10.1.1.1!7 172.31.1.1!7 192.168.1.1!7 ::1!7 fd00::1!7", "172.32.1.1!7 2001::1!7"),
        ("multicast!7", "224.0.0.1!7 239.9.9.9!7 ff02::1!7", "223.0.0.1!7 240.0.0.1!7 fe00::1!7"),
    ],
)  # fmt: skip
def test_what_a_rule_covers(rule: str, yes: str, no: str) -> None:
    """Without the rule everything is denied, so that each `yes` is the rule's doing."""
    rules, without = ruleset(f"allow/net/bind+{rule}"), ruleset()
    for address in yes.split():
        assert allows(rules, address.encode()), address
        assert not allows(without, address.encode())
        assert not allows(rules, address.encode(), "net/connect")
    for address in no.split():
        assert not allows(rules, address.encode()), address


def test_the_last_match_decides() -> None:
    """Over allowing and denying rules of any width; a rule taken away decides no more."""
    rules = ruleset("allow/net/bind+any!0-65535", "deny/net/bind+10.0.0.0/8!0-65535", "warn/net/bind+10.0.0.1!80")
    at = rules.verdicts["net/bind"]
    assert [at[a] for a in (b"9.9.9.9!1", b"10.0.0.1!1", b"10.0.0.1!80")] == [actions.ALLOW, actions.DENY, actions.WARN]
    rules.apply("deny/net/bind-10.0.0.0/8!0-65535")
    assert allows(rules, b"10.0.0.1!1")
    rules.apply("allow/net/bind^any!0-65535")
    assert not allows(rules, b"10.0.0.1!1")
    assert rules.verdicts["net/bind"][b"10.0.0.1!80"] == actions.WARN


def test_default_and_switch() -> None:
    rules = ruleset("default/net/bind:warn")
    assert rules.verdicts["net/bind"][b"1.2.3.4!1"] == actions.WARN
    rules.apply("sandbox/net/bind:off")
    assert allows(rules, b"1.2.3.4!1")


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("/***", b"/run/x", b"@x"),
        ("/run/*.sock", b"/run/x.sock", b"/run/d/x.sock"),
        ("@*", b"@x", b"@/x"),
        ("@**", b"@/x", b"/x"),
        ("@***", b"@/x", b"!unnamed"),
        ("!unnamed", b"!unnamed", b"@!unnamed"),
        ("407379645f74657374006e756c6c", b"@syd_test\0null", b"@syd_testnull"),
        ("2f746d702f78", b"/tmp/x", b"/tmp/y"),
    ],
)
def test_unix_addresses(pattern: str, yes: bytes, no: bytes) -> None:
    """Paths by globs, @abstract, !unnamed, and any of them in hexadecimal."""
    rules = ruleset(f"allow/net/bind+{pattern}")
    assert allows(rules, yes)
    assert not allows(rules, no)


def test_explain_names_the_rule() -> None:
    rules = ruleset("allow/net/bind+loopback!80", "deny/net/bind+@x")
    assert rules.explain("net/bind", b"127.0.0.1!80") == "allow/net/bind+loopback!80"
    assert rules.explain("net/bind", b"127.0.0.1!81") == "default/net/bind:deny"
    assert rules.explain("net/bind", b"@x") == "deny/net/bind+@x"


def test_pickled_rules_decide_the_same() -> None:
    rules = pickle.loads(pickle.dumps(ruleset("allow/net/bind+loopback!80")))
    assert allows(rules, b"127.0.0.1!80")
    assert not allows(rules, b"127.0.0.1!81")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 32), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_v4_blocks_are_those_of_ipaddress(length: int, base: int, asked: int) -> None:
    net = ipaddress.IPv4Network((base, length), strict=False)
    bits, first, last = block(f"{ipaddress.IPv4Address(base)}/{length}")
    assert (bits, first, last) == (32, int(net[0]), int(net[-1]))
    assert (first <= asked <= last) == (ipaddress.IPv4Address(asked) in net)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 128), st.integers(0, 2**128 - 1))
def test_v6_blocks_are_those_of_ipaddress(length: int, base: int) -> None:
    net = ipaddress.IPv6Network((base, length), strict=False)
    if base >> 32 != 0xFFFF:
        assert block(f"{ipaddress.IPv6Address(base)}/{length}") == (128, int(net[0]), int(net[-1]))


def test_aliases_are_the_manual_s() -> None:
    for name in ("any", "loopback", "linklocal", "local", "multicast"):
        assert expand(name) == expand(name + "4") + expand(name + "6")
    assert expand("local6") == ("::1/128", "fe80::/7", "fc00::/7", "fec0::/7")


def test_text_of_an_address() -> None:
    """What is judged and logged: v4-mapped as v4."""
    v6 = socket.inet_pton(socket.AF_INET6, "::ffff:10.0.0.1")
    assert text(bytes([10, 0, 0, 1]), 80) == text(v6, 80) == b"10.0.0.1!80"
    assert text(socket.inet_pton(socket.AF_INET6, "fe80::1"), 0) == b"fe80::1!0"
