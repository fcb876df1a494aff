"""Commands at run time: what is static, what tightens, and that a replay leads to the same rules."""

from __future__ import annotations

import itertools
from errno import EBUSY, EINVAL, EPERM

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syd_pool.policy import Ruleset, actions, categories, describe, live, lock
from syd_pool.policy.errors import BadRule
from syd_pool.policy.options import OPTIONS

TARGETS = (b"/a", b"/a/b", b"/c", b"/")
PATTERNS = ("/a", "/a/***", "/***", "/c")
NAMES = ("read", "stat", "mkdir")


def verdicts(rules: Ruleset) -> dict[tuple[str, bytes], int]:
    """What the rules say of some things."""
    return {(name, path): rules.verdicts[name][path] for name in NAMES for path in TARGETS}


def allowed(action: int) -> bool:
    return action in (actions.ALLOW, actions.WARN)


COMMANDS = st.one_of(
    st.builds(
        "{}/{}{}{}".format,
        st.sampled_from(actions.NAMES),
        st.sampled_from(NAMES),
        st.sampled_from("+-^"),
        st.sampled_from(PATTERNS),
    ),
    st.builds("sandbox/{}:{}".format, st.sampled_from(NAMES), st.sampled_from(("on", "off"))),
    st.builds("default/{}:{}".format, st.sampled_from(NAMES), st.sampled_from(actions.NAMES)),
    st.sampled_from(("reset", "trace/deny_exec_script:1", "trace/allow_unsafe_xattr:1", "allow/read+/x$HOME")),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(COMMANDS, max_size=12), st.lists(COMMANDS, max_size=12))
def test_drop_never_loosens(before: list[str], after: list[str]) -> None:
    """Whatever was there, and whatever is given in lock:drop: nothing that was denied is allowed then."""
    rules = Ruleset()
    for line in before:
        live.replay(rules, line)
    rules.apply("lock:drop")
    old, refused = verdicts(rules), {EPERM}
    for line in after:
        try:
            live.edit(rules, line)
        except BadRule as error:
            refused.add(error.errno)
        new = verdicts(rules)
        loosened = [key for key in old if allowed(new[key]) and not allowed(old[key])]
        assert not loosened, (line, loosened)
        old = new
    assert refused == {EPERM}


@settings(max_examples=200, deadline=None)
@given(st.lists(COMMANDS, max_size=20))
def test_a_replay_leads_to_the_same_rules(lines: list[str]) -> None:
    """A worker that carries out what the tracer has carried out has its rules."""
    ours, theirs = Ruleset(), Ruleset()
    ours.lock = lock.OFF
    for line in lines:
        if line == "reset":
            live.reset(ours)
        else:
            live.edit(ours, line)
        live.replay(theirs, line)
    theirs.lock = ours.lock
    assert describe.state(ours) == describe.state(theirs)
    assert verdicts(ours) == verdicts(theirs)


def test_static_options_are_the_manuals() -> None:
    """Every option of a filter, a namespace, a limit is chosen at the start; rules, switches and guards are not."""
    dynamic = {name for name in OPTIONS if not live.is_static(name, ":")}
    assert {"timeout", "log/level", "segvguard/expiry", "trace/force_umask", "trace/deny_dotdot"} <= dynamic
    for name in ("trace/allow_unsafe_ptrace", "unshare/user", "rlimit/nofile", "ipc", "root", "trace/exit_wait_all"):
        assert live.is_static(name, ":"), name
    for category in categories.GLOB:
        assert not live.is_static(f"sandbox/{category}", ":")
        assert not live.is_static(f"deny/{category}", "+")


def test_static_commands_are_busy_and_change_nothing() -> None:
    """EBUSY, and the rules are as they were."""
    rules = Ruleset()
    rules.lock = lock.OFF
    before = describe.state(rules)
    for line in ("unshare/user:1", "rlimit/core:0", "setenv!A=b", "passenv+A", "sandbox/read,lock:on", "ipc:/x",
                 "include_profile off", "bind+/a:/b", "trace/allow_safe_bind:1", "deny/ioctl-X"):  # fmt: skip
        with pytest.raises(BadRule) as caught:
            live.edit(rules, line)
        assert caught.value.errno == EBUSY, line
    assert describe.state(rules) == before


def test_nothing_is_expanded_at_run_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `$` is a character; the control: at the start it is expanded."""
    monkeypatch.setenv("PLACE", "/home")
    rules = Ruleset()
    rules.lock = lock.OFF
    live.edit(rules, "deny/mkdir+/$PLACE")
    assert rules.verdicts["mkdir"][b"/$PLACE"] == actions.DENY
    with pytest.raises(BadRule):
        live.edit(rules, "deny/mkdir+$PLACE")
    rules.apply("allow/mkdir+$PLACE")
    assert rules.verdicts["mkdir"][b"/home"] == actions.ALLOW


def test_queries() -> None:
    """sandbox/X? and unshare/X?: all of them; everything else cannot be asked."""
    rules = Ruleset()
    rules.lock = lock.OFF
    assert live.query(rules, "sandbox/read,write?")
    assert not live.query(rules, "sandbox/read,stat?")
    assert not live.query(rules, "unshare/user,pid?")
    for line in ("sandbox/foo?", "sandbox/?", "lock?", "allow/read?", "unshare/foo?", "sandbox/read?x", "timeout?"):
        with pytest.raises(BadRule) as caught:
            live.query(rules, line)
        assert caught.value.errno == EINVAL, line


@pytest.mark.parametrize(("now", "wanted"), list(itertools.product(lock.NEXT, [s for s in lock.NEXT if s != "unset"])))
def test_the_lock_only_closes(now: str, wanted: str) -> None:
    """No step gives anybody a right that the state before did not give somebody."""
    rights = {
        "off": 6, "unset": 6, "exec": 5, "ipc": 4, "drop": 3, "read": 1, "on": 0,
    }  # fmt: skip
    rules = Ruleset()
    rules.lock = now
    if now in ("read", "on"):
        with pytest.raises(BadRule):
            rules.apply(f"lock:{wanted}")
        return
    if lock.may_follow(now, wanted):
        rules.apply(f"lock:{wanted}")
        assert rights[wanted] <= rights[now] or now == "unset"
        assert rules.lock == wanted
    else:
        with pytest.raises(BadRule) as caught:
            rules.apply(f"lock:{wanted}")
        assert caught.value.errno == EPERM
        assert rules.lock == now


@pytest.mark.parametrize(
    "line", ["sandbox/read:$X", "sandbox/read:${X}", "default/read:$Y", "trace/allow_unsafe_uring:$Z"]
)
def test_drop_looks_at_what_a_variable_says(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """After lock:drop at the start: a value behind a variable is judged as it will be set."""
    for loose, values in ((True, ("off", "allow", "1")), (False, ("on", "deny", "0"))):
        for name, value in zip("XYZ", values, strict=True):
            monkeypatch.setenv(name, value)
        rules = Ruleset()
        for first in ("sandbox/read:on", "default/read:deny", "lock:drop"):
            rules.apply(first)
        if loose:
            with pytest.raises(BadRule) as caught:
                rules.apply(line)
            assert caught.value.errno == EPERM
        else:
            rules.apply(line)


def test_drop_holds_for_files_and_options_too() -> None:
    """After lock:drop at the start only what tightens is taken, as from a running sandbox."""
    taken_or_not = {
        "sandbox/stat:on": True, "sandbox/read:off": False, "setenv!A=b": False, "allow/read+/x": False,
        "deny/read+/x": True, "timeout:3": False, "reset": False,
    }  # fmt: skip
    for line, taken in taken_or_not.items():
        rules = Ruleset()
        rules.apply("lock:drop")
        if taken:
            rules.apply(line)
        else:
            with pytest.raises(BadRule) as caught:
                rules.apply(line)
            assert caught.value.errno == EPERM, line


def test_landlock_is_chosen_at_the_start() -> None:
    """The kernel takes nothing back: a running sandbox neither edits it nor forgets it with reset."""
    rules = Ruleset()
    for line in ("sandbox/lock:on", "default/lock:deny", "allow/lock/read+/usr", "log/lock/new_exec_on:1", "lock:off"):
        rules.apply(line)
    before = list(rules.landlock)
    for line in ("sandbox/lock:off", "default/lock:warn", "allow/lock/read+/etc", "log/lock/new_exec_on:0"):
        with pytest.raises(BadRule) as caught:
            live.edit(rules, line)
        assert caught.value.errno == EBUSY, line
    live.edit(rules, "sandbox/stat:on")
    live.edit(rules, "reset")
    assert "stat" not in rules.enabled, "control"
    assert "lock" in rules.enabled and rules.landlock == before
    assert rules.option("log/lock/new_exec_on") and rules.defaults["lock"] == actions.DENY
