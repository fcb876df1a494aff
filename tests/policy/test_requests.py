"""The category ioctl: how requests are written, and what is decided of them."""

from __future__ import annotations

from errno import EINVAL, EOPNOTSUPP, EPERM

import pytest

from syd_pool.policy import Ruleset, requests
from syd_pool.policy.actions import ALLOW, BY_NAME, DENY
from syd_pool.policy.errors import BadRule
from syd_pool.policy.live import edit

FIONREAD, TCGETS, TIOCSTI = 0x541B, 0x5401, 0x5412


def made(*lines: str) -> Ruleset:
    rules = Ruleset()
    for line in lines:
        rules.apply(line)
    return rules


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("TCGETS", [TCGETS]), ("tcgets", [TCGETS]), ("0x5401", [TCGETS]), ("0o52001", [TCGETS]), ("21505", [TCGETS]),
        ("TCGETS,FIONREAD", [TCGETS, FIONREAD]), ("NOSUCH!,TCGETS!", [TCGETS]), ("0x5401!", [TCGETS]),
        ("fion?ead", [FIONREAD]), ("FIO[NR]READ", [FIONREAD]), ("4294967295", [0xFFFFFFFF]), ("NOSUCH*!", []),
    ],
)  # fmt: skip
def test_elements(text: str, numbers: list[int]) -> None:
    """Names in any case, numbers in three bases, wildcards, `!` behind what may be unknown."""
    assert requests.read(text, DENY) == numbers


@pytest.mark.parametrize(
    "text", ["", ",", "NOSUCH", "NOSUCH*", "0xfffffffff", "-1", "12a", "a b", "ü", "0x", "TCGETS,"]
)
@pytest.mark.parametrize("form", ["allow/ioctl+{}", "deny/ioctl-{}", "allow/ioctl^{}"])
def test_what_is_no_element(text: str, form: str) -> None:
    """EINVAL, and nothing is done."""
    rules = Ruleset()
    with pytest.raises(BadRule) as caught:
        rules.apply(form.format(text))
    assert caught.value.errno == EINVAL and rules.requests == requests.at_start()


def test_the_names_agree_with_the_lists() -> None:
    """What the manual lists is in the table too, with the same number; two that everybody knows."""
    with open(requests._FILE, encoding="ascii") as file:
        table = {name: int(number, 16) for name, number in (line.split() for line in file)}
    later = {"FS_IOC_GETFSUUID", "FS_IOC_GETFSSYSFSPATH", "PIDFD_GET_INFO", "FIBMAP", "FIGETBSZ"}
    both = requests.ALLOWED | requests.DENIED
    assert {name: table.get(name) for name in both if name not in later} == {
        name: number for name, number in both.items() if name not in later
    }
    assert table["KVM_RUN"] == 0xAE80 and table["DRM_IOCTL_VERSION"] == 0xC0406400 and len(table) > 2500


def test_the_last_rule_decides() -> None:
    """deny after allow denies, allow after deny allows; without a rule the default does; -, ^ take away."""
    rules = made("sandbox/ioctl:on", "allow/ioctl+TCGETS", "deny/ioctl+TCGETS")
    assert rules.requested[TCGETS] == DENY and rules.requested[FIONREAD] == ALLOW and rules.requested[7] == DENY
    rules.apply("allow/ioctl+TCGETS")
    assert rules.requested[TCGETS] == ALLOW
    rules.apply("allow/ioctl^TCGETS")
    assert rules.requested[TCGETS] == DENY
    rules.apply("deny/ioctl-TCGETS")
    rules.apply("default/ioctl:warn")
    assert rules.requested[TCGETS] == BY_NAME["warn"] and rules.requested[TIOCSTI] == DENY
    rules.apply("sandbox/ioctl:off")
    assert rules.requested[TCGETS] == ALLOW and rules.requested[TIOCSTI] == DENY


def test_a_pattern_does_not_allow_what_is_denied_at_the_start() -> None:
    """Types into the terminal: only by its own name, or its number."""
    rules = made("sandbox/ioctl:on", "allow/ioctl+TIO*")
    assert rules.requested[TIOCSTI] == DENY and rules.requested[0x5413] == ALLOW
    rules.apply("allow/ioctl+TIOCSTI")
    assert rules.requested[TIOCSTI] == ALLOW


@pytest.mark.parametrize("line", ["allow/ioctl+SECCOMP_IOCTL_NOTIF_SEND", "deny/ioctl-SECCOMP_IOCTL_NOTIF_RECV",
                                  "allow/ioctl+0xc0502100"])  # fmt: skip
def test_our_own_listener_cannot_be_had(line: str) -> None:
    """Refused by name; a pattern passes over them, and to deny them is what is done anyway."""
    with pytest.raises(BadRule) as caught:
        made(line)
    assert caught.value.errno == EOPNOTSUPP
    assert not any(number >> 8 & 0xFF == 0x21 for _, number in made("allow/ioctl+*").requests)
    made("deny/ioctl+SECCOMP_IOCTL_*", "deny/ioctl+SECCOMP_IOCTL_NOTIF_SEND")


@pytest.mark.parametrize("action", [name for name in BY_NAME if name not in ("allow", "deny")])
def test_other_actions_have_no_rules(action: str) -> None:
    """Only default/ioctl takes them, as in syd."""
    with pytest.raises(BadRule) as caught:
        made(f"{action}/ioctl+TCGETS")
    assert caught.value.errno == EINVAL
    made(f"default/ioctl:{action}")


def test_the_log_is_told_the_rule() -> None:
    """By name where names are known, by number else."""
    rules = made("sandbox/ioctl:on", "deny/ioctl+TCGETS")
    assert rules.explain("ioctl", b"TCGETS") == "deny/ioctl+TCGETS"
    assert rules.explain("ioctl", b"0x77") == "default/ioctl:deny"


def test_after_drop() -> None:
    """What allows may go, what denies may come (syd(2), drop)."""
    rules = made("sandbox/ioctl:on", "lock:drop")
    for line in ("deny/ioctl+TCGETS", "allow/ioctl-FIONREAD", "allow/ioctl^FIONBIO", "default/ioctl:kill"):
        edit(rules, line)
    assert rules.requested[TCGETS] == DENY and rules.requested[FIONREAD] == BY_NAME["kill"]
    for line in ("allow/ioctl+TCGETS", "deny/ioctl-TCGETS", "sandbox/ioctl:off", "default/ioctl:deny"):
        with pytest.raises(BadRule):
            edit(rules, line)


def test_reset_brings_the_lists_back() -> None:
    rules = made("deny/ioctl-TIOCSTI", "lock:off")
    saved = rules.save()
    rules.apply("deny/ioctl+TCGETS")
    rules.restore(saved)
    assert rules.requested[TCGETS] == ALLOW and rules.requested[TIOCSTI] == ALLOW
    rules.reset()
    assert rules.requested[TIOCSTI] == DENY
    rules.apply("lock:on")
    with pytest.raises(BadRule) as caught:
        rules.apply("deny/ioctl+TCGETS")
    assert caught.value.errno == EPERM
