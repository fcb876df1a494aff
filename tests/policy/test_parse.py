"""The language: what is taken, what is refused and with which errno (most rows checked with syd 3.52)."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from errno import EACCES, EEXIST, EINVAL, EOPNOTSUPP, EPERM

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syd_pool.policy import Ruleset, actions, categories
from syd_pool.policy.errors import BadRule
from syd_pool.policy.options import NO, OPTIONS
from syd_pool.policy.values import BOOL

REFUSED = {
    EINVAL: """
        |foo|foo:1|sandbox/foo:on|sandbox/stat:maybe|sandbox/stat|sandbox/stat:|sandbox/stat:of|sandbox/stat:2
        |sandbox/stat+x|sandbox/stat?|sandbox/stat,foo:off|sandbox/stat,:on|sandbox/,stat:on|sandbox/all-y:on
        |sandbox/net/foo:on|sandbox/net/link:on|sandbox/block:on|sandbox/segvguard:on|sandbox/stat: on
        |allow/stat+|allow/stat+foo|allow/stat+*|allow/stat^|allow/stat:/x|allow/stat!/x|allow/foo+/x
        |allow/stat,foo+/x|bogus/stat+/x|-allow/read+/x|allow/read:+/x|allow/tpe+/x|allow/stat+[|Allow/stat+/x
        |default/stat:foo|default/stat:Allow|default/stat:|default/tpe:allow|default/pid:deny|default/pid:panic
        |default/lock:filter|default/block:allow|default/force:allow|default/net/link:deny
        |lock:|lock:foo|lock:set|lock:ON|lock:on |lock+on
        |log/level:9|log/level:foo|log/level:WARN|log/verbose:300|log/verbose:x|log/verbose:
        |timeout:foo|timeout:|timeout:-1|timeout:1:30|timeout:1y|timeout:.
        |setenv!FOO|setenv!=x|setenv!|setenv:A=b|unsetenv!|unsetenv!A=B|clearenv!x|clearenv|passenv+|passenv
        |rlimit/nofile:foo|rlimit/foo:1|rlimit/nice:30|rlimit/nofile:1_000|rlimit/nofile:1k|rlimit/nofile:1:2|rlimit/nofile:
        |trace/foo:1|trace/exit_wait_all|trace/exit_wait_all:|trace/exit_wait_all+1|trace/memory_access:3
        |trace/force_umask:8|trace/force_umask:|trace/allow_unsafe_ptrace,exit_wait_all:1
        |trace/allow_unsafe_namespace:foo|trace/allow_unsafe_namespace:
        |unshare/foo:1|unshare/user:foo|unshare/user,foo:0|mem/max:foo|pid/max:-1|tpe/gid:x|segvguard/maxcrashes:300
        |allow/net/bind+foo|allow/net/bind+1.2.3.4|allow/net/bind+1.2.3.4/33!80|allow/net/bind+1.2.3.4!80-70
        |allow/net/bind+1.2.3.4!65536|allow/net/bind+fe80::1/129!1|allow/net/bind+any|allow/stat+loopback!80
        |allow/all+any!80|allow/net/link+foo|allow/net/link,stat+route|allow/stat+!memfd|allow/read+!foo
        |deny/lock/read+/x|allow/lock/foo+/x|allow/lock/bind+x|allow/lock/connect+/x
        |allow/fs+foo|allow/fs+*|allow/fs+EXT4|allow/fs+0xzz|allow/fs,stat+ext4|allow/ioctl+foo
        |include /x.syd-3|include_profile nope|load/3|panic|ghost|setuid+foo:1|setuid+0|setuid+0:0|setuid
        |bind+
        |reset:1|append!|cmd/exec:x|cmd/exec!true|trace/exit_wait_all:1\n|allow/stat+/a\0b""",
    EPERM: "|setenv!SYD_FOO=1|unsetenv!SYD_FOO|unsetenv!SYD_FOO=1|passenv+SYD_*|passenv+SYD_FOO",
    EACCES: "|setgid+0:1|setuid+0:10",
    EOPNOTSUPP: """
        |sandbox/stat,pty:on|sandbox/mem:on|sandbox/pid:on|sandbox/proxy:on
        |sandbox/force:on|sandbox/crypt:on|unshare/user:1|unshare/user,pid:1|unshare/all:on
        |pty/x:10|root:/x|root/fake:1|root/map:1
        |force+/x:md5:00|crypt+/x|crypt/key:1|bind+/a:/b|bind-try+/a:/b|mkdir+/x
        |symlink-try+/x|trace/deny_tsc:1
        |trace/allow_unsafe_namespace:user|mem/max:64M|pid/max:16
        |uts/host:a|time:5|workdir:/x|proxy/port:1
        |deny/ioctl-SECCOMP_IOCTL_NOTIF_SEND|allow/ioctl+SECCOMP_IOCTL_NOTIF_SEND!|allow/ioctl+0xc0502100|deny/net/link+route
        |deny/net/accept+/x""",
}
ACCEPTED = """
    |sandbox/stat:on|sandbox/stat:t|sandbox/stat:TRUE|sandbox/stat:yes|sandbox/stat:y|sandbox/stat:no|sandbox/stat:fa
    |sandbox/stat,all:on|sandbox/all-x:on|sandbox/all-x,stat:off|sandbox/lock,tpe,pty:off|sandbox/lock:on|sandbox/mkdev:on
    |sandbox/net/bind:on|sandbox/fs:on|allow/stat+/foo/../bar|allow/stat+/[|allow/stat+/x\\|allow/stat-/nonexist
    |allow/stat^/nonexist|allow/all-x-/x|deny/all-x+/***|allow/walk,stat+/x|allow/stat+@x|allow/create+!memfd:x
    |allow/create+!memfd-hugetlb:*|allow/create+!secretmem|allow/all+!unnamed|allow/net+any!80|allow/stat+/x#y
    |allow/net/bind+loopback!80|allow/net/bind+::/0!0-65535|allow/inet+1.2.3.0/24!80,443,8000-9000
    |allow/net/bind,stat+/x|allow/net/link+route,generic|allow/net/accept+any!80|allow/lock/read,exec+/
    |allow/lock/all+/x|allow/lock/bind+80|allow/lock/bind+/x|allow/lock/connect+1-2|allow/fs+ext4,tmpfs
    |allow/fs+0x1234|allow/fs+all|allow/ioctl+FIONBIO|allow/ioctl+0x5421
    |default/stat:allow|default/all:deny|default/rpath,fs:filter|default/mem:allow|default/pid:warn|default/lock:warn
    |lock|l|lock:1|lock:0|lock:x|log/level:warn|log/level:3|log/verbose:3|timeout:10s|timeout:10|timeout:none
    |timeout:1h30m|timeout:1.5s|timeout:10 minutes|timeout:1h 30m|ipc/uid:none|ipc:off|setenv!A=b|setenv!A=
    |setenv!A=b=c|unsetenv!A|clearenv!|passenv+A|passenv-A|passenv^A|rlimit/nofile:off|rlimit/nofile:inf|rlimit/nofile:100|rlimit/nice:-10
    |trace/memory_access:0|trace/force_umask:-1|trace/force_umask:077|trace/allow_unsafe_namespace:off|trace/deny_tsc:0|unshare/user,pid:0
    |unshare/all:0|mem/max:0|append-/x|mask^|block!|block^|root:none|workdir:off|config/expand:0|config/expand:1.5|reset
    |log/lock/same_exec_off,new_exec_on:1|setuid+0:65534|setuid^|setgid-0:65534|segvguard/expiry:0
    |include_profile off|trace/allow_unsafe_dumpable:1|trace/allow_unsafe_exec_nopie:1
    |trace/allow_unsafe_prlimit:1
    |trace/exit_wait_all:1|trace/sync_seccomp:0|allow/stat+~/x|allow/stat+/x~|allow/stat+/x$"""


def rows(text: str) -> list[str]:
    """The commands between the bars; blanks at the ends belong to them, the layout does not."""
    return [line for part in text.strip("\n ").split("\n        |") for line in part.split("|") if line]


def accepted_rows() -> list[str]:
    return rows(ACCEPTED.replace("\n    |", "|"))


def snapshot(rules: Ruleset) -> object:
    """Everything a command can change."""
    kept = {name: value for name, value in rules.__getstate__().items() if name != "_paths"}
    return pickle.dumps((sorted(rules.enabled), {**kept, "enabled": None}, sorted(rules_text(rules))))


def rules_text(rules: Ruleset) -> list[str]:
    return [f"{name} {paths.rules}" for name, paths in rules._paths.items() if paths.rules]


@pytest.mark.parametrize(("errno", "line"), [(errno, line) for errno, text in REFUSED.items() for line in rows(text)])
def test_a_refused_command_has_its_errno_and_changes_nothing(errno: int, line: str) -> None:
    """Exit statuses are part of the interface; a command is done whole or not at all."""
    rules = Ruleset()
    before = snapshot(rules)
    with pytest.raises(BadRule) as caught:
        rules.apply(line, "here:7")
    assert caught.value.errno == errno
    assert str(caught.value).startswith("here:7: ")
    assert snapshot(rules) == before


@pytest.mark.parametrize("line", accepted_rows())
def test_an_accepted_command(line: str) -> None:
    """What the manual gives as examples, and what the conformance suite says."""
    Ruleset().apply(line)


def test_the_tables_are_not_empty() -> None:
    """The layout of the tables above did not swallow rows."""
    assert len(accepted_rows()) > 100
    assert sum(len(rows(text)) for text in REFUSED.values()) > 150


def test_expected_states_of_the_switches() -> None:
    """Defaults of syd(2), minus the guards that are not built."""
    rules = Ruleset()
    assert rules.lock == "unset"
    assert {"read", "exec", "fs", "net/bind"} <= rules.enabled
    assert not rules.enabled & {"walk", "stat", "chdir", "lock", "pty"}
    rules.profile("off")
    assert not rules.enabled
    rules.apply("sandbox/all:on")
    assert rules.enabled == set(categories.GLOB)
    rules.apply("sandbox/all-x:off")
    assert rules.enabled == {"exec"}


def test_last_match_wins() -> None:
    """Over all sources, in order of arrival; without a match the default."""
    rules = Ruleset()
    assert rules.verdicts["read"][b"/a"] == actions.DENY
    for line, expected in (
        ("allow/read+/***", actions.ALLOW),
        ("kill/rpath+/a*", actions.KILL),
        ("allow/read+/a", actions.ALLOW),
        ("allow/read-/a", actions.KILL),
        ("warn/read+/**", actions.WARN),
        ("warn/read^/**", actions.KILL),
        ("kill/read^/a*", actions.ALLOW),
        ("allow/read^/***", actions.DENY),
        ("default/read:exit", actions.EXIT),
        ("sandbox/read:off", actions.ALLOW),
        ("sandbox/read:on", actions.EXIT),
    ):
        rules.apply(line)
        assert rules.verdicts["read"][b"/a"] == expected, line
    assert rules.verdicts["readdir"][b"/ab"] == actions.KILL


def test_remove_takes_the_last_one_only() -> None:
    rules = Ruleset()
    for line in ("allow/read+/a", "deny/read+/a", "allow/read+/a", "allow/read-/a"):
        rules.apply(line)
    assert rules.verdicts["read"][b"/a"] == actions.DENY
    rules.apply("deny/read-/a")
    assert rules.verdicts["read"][b"/a"] == actions.ALLOW


def test_walk_is_the_hardest_verdict_on_the_way() -> None:
    """Every directory but `/`, merged in the order of spec 1.5."""
    rules = Ruleset()
    assert rules.walk[b"/a/b"] == actions.ALLOW
    for line in (
        "sandbox/walk:on",
        "allow/walk+/***",
        "deny/walk+/",
        "warn/walk+/a",
        "kill/walk+/a/b/c",
        "deny/walk+/x/**",
    ):
        rules.apply(line)
    assert rules.walk[b"/"] == actions.ALLOW
    assert rules.walk[b"/a"] == actions.WARN
    assert rules.walk[b"/a/b"] == actions.WARN
    assert rules.walk[b"/a/b/c/d"] == actions.KILL
    assert rules.walk[b"/x"] == actions.ALLOW
    assert rules.walk[b"/x/y"] == actions.DENY
    rules.apply("sandbox/walk:off")
    assert rules.walk[b"/a/b/c/d"] == actions.ALLOW


@given(st.lists(st.sampled_from(["/a", "/a/b", "/a/*", "/**/b", "/b/***", "/*/a/**"]), max_size=6),
       st.lists(st.sampled_from([b"a", b"b"]), min_size=1, max_size=5))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_walk_agrees_with_asking_each_directory(patterns: list[str], parts: list[bytes]) -> None:
    """The merged verdict is the maximum of the single ones, whatever was asked before."""
    rules = Ruleset()
    for i, pattern in enumerate(patterns):
        rules.apply(f"{actions.NAMES[i]}/walk+{pattern}")
    rules.apply("sandbox/walk:on")
    prefixes = [b"/" + b"/".join(parts[: i + 1]) for i in range(len(parts))]
    full = prefixes[-1]
    cold = rules.walk[full]
    rules.refresh()
    for prefix in prefixes:
        rules.walk[prefix]
    assert cold == rules.walk[full] == max(rules.verdicts["walk"][p] for p in prefixes)


def test_errnos_of_a_denial() -> None:
    """spec 1.4"""
    names = {"read": "EACCES", "walk": "ENOENT", "stat": "ENOENT", "net/bind": "EADDRNOTAVAIL"}
    import errno

    for category, name in names.items():
        assert Ruleset().errno(category) == getattr(errno, name)
    with pytest.raises(KeyError):
        Ruleset().errno("nothing")


def test_explain_names_what_decided() -> None:
    rules = Ruleset()
    rules.apply("sandbox/read:on")
    assert rules.explain("read", b"/etc/x") == "default/read:deny"
    rules.apply("deny/read+/etc/***")
    assert rules.explain("read", b"/etc/x") == "deny/read+/etc/***"
    rules.apply("sandbox/read:off")
    assert rules.explain("read", b"/etc/x") == "sandbox/read:off"


def test_lock() -> None:
    """Nothing after lock:on, not even lock:on; lock:exec cannot be opened again."""
    rules = Ruleset()
    for line in ("lock:off", "lock:exec", "sandbox/read:off"):
        rules.apply(line)
    assert rules.lock == "exec"
    with pytest.raises(BadRule) as caught:
        rules.apply("lock:off")
    assert caught.value.errno == EPERM
    rules.apply("lock")
    edits: list[tuple[Callable[[str], None], str]] = [
        (rules.apply, line) for line in ("lock:on", "sandbox/read:on", "foo")
    ]
    for edit, argument in [*edits, (rules.profile, "off"), (rules.load, "/nowhere.syd-3")]:
        with pytest.raises(BadRule) as caught:
            edit(argument)
        assert caught.value.errno == EPERM
    assert "read" not in rules.enabled


def test_reset_leaves_the_lock() -> None:
    rules = Ruleset()
    for line in ("lock:exec", "sandbox/stat:on", "allow/read+/***", "trace/exit_wait_all:1", "reset"):
        rules.apply(line)
    assert rules.lock == "exec"
    assert rules.verdicts["read"][b"/a"] == actions.DENY
    assert rules.verdicts["stat"][b"/a"] == actions.ALLOW
    assert rules.option("exit_wait_all") is False


def test_filesystems() -> None:
    """By name and number; the last match wins, the unknown gets the default."""
    rules = Ruleset()
    rules.profile("fs")
    assert rules.filesystem[0xEF53] == actions.ALLOW
    assert rules.filesystem[0x64626720] == actions.DENY  # debugfs
    assert rules.filesystem[0x1234] == actions.DENY
    rules.apply("warn/fs+0x1234,debugfs")
    assert (rules.filesystem[0x1234], rules.filesystem[0x64626720]) == (actions.WARN, actions.WARN)
    rules.apply("sandbox/fs:off")
    assert rules.filesystem[0x64626720] == actions.ALLOW


def test_options_have_values() -> None:
    rules = Ruleset()
    rules.apply("trace/exit_wait_all:yes")
    rules.apply("timeout:1m30s")
    rules.apply("log/level:debug")
    assert rules.option("trace/exit_wait_all") is True
    assert rules.option("exit_wait_all") is True
    assert rules.option("memory_access") == 2
    assert rules.option("timeout") == 90.0
    assert rules.option("log/level") == 7
    with pytest.raises(KeyError):
        rules.option("trace/nothing")


@pytest.mark.parametrize("name", sorted(n for n, row in OPTIONS.items() if row[0] == BOOL))
def test_every_boolean_can_be_off_and_only_what_is_built_on(name: str) -> None:
    """An option that asks for something not built is refused by name, never ignored."""
    rules = Ruleset()
    rules.apply(f"{name}:off")
    if OPTIONS[name][2] == NO:
        with pytest.raises(BadRule, match=name) as caught:
            rules.apply(f"{name}:on")
        assert caught.value.errno == EOPNOTSUPP
    else:
        rules.apply(f"{name}:on")
        assert rules.option(name) is True


def test_safesetid_transitions() -> None:
    rules = Ruleset()
    rules.apply("setuid+0:65534")
    with pytest.raises(BadRule) as caught:
        rules.apply("setuid+0:65533")
    assert caught.value.errno == EEXIST
    assert rules.transits["setuid"] == {0: 65534}
    assert rules.option("allow_safe_setuid") is True
    rules.apply("setuid^0")
    assert not rules.transits["setuid"]


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edits apply in order, and later commands see them."""
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.delenv("NOPE", raising=False)
    rules = Ruleset()
    for line in (
        "setenv!A=${HOME}/a",
        "setenv!B=$A-b",
        "unsetenv!C",
        "allow/read+~/$A",
        "deny/read+${NOPE:-/d}/$$",
    ):
        rules.apply(line)
    env = {b"C": b"1", b"D": b"2", b"SYD_TEST_X": b"3"}
    assert rules.environment(env) == {
        b"D": b"2",
        b"SYD_TEST_X": b"3",
        b"A": b"/home/x/a",
        b"B": b"/home/x/a-b",
    }
    assert rules.explain("read", b"/home/x/home/x/a") == "allow/read+/home/x/home/x/a"
    assert rules.explain("read", b"/d/$") == "deny/read+/d/$"
    rules.apply("clearenv!")
    rules.apply("setenv!E=${HOME:-/tmp}/syd")
    assert rules.environment(env) == {b"SYD_TEST_X": b"3", b"E": b"/tmp/syd"}
    for line in (
        "allow/read+$NOPE/***",
        "allow/read+${NOPE}",
        "allow/read+/$1",
        "allow/read+/${NOPE-x}",
        "setenv!A=$NOPE",
    ):
        with pytest.raises(BadRule, match="not set"):
            rules.apply(line)


def test_pickle() -> None:
    """A ruleset reaches another process whole."""
    rules = Ruleset()
    rules.profile("fs")
    for line in ("sandbox/walk,stat:on", "allow/all+/***", "kill/stat+/x/[ab]*", "lock:exec", "timeout:3"):
        rules.apply(line)
    rules.verdicts["stat"][b"/x/a"]
    copy = pickle.loads(pickle.dumps(rules))
    assert copy.verdicts["stat"][b"/x/a1"] == actions.KILL
    assert copy.walk[b"/x"] == actions.ALLOW
    assert copy.filesystem[0x64626720] == actions.DENY
    assert (copy.lock, copy.option("timeout"), copy.enabled) == ("exec", 3.0, rules.enabled)


WORDS = st.sampled_from(
    (
        "allow/ deny/ sandbox/ default/ trace/ read stat all all-x net/bind , + - ^ : ! ? /*** /a on off 1 "
        "${ $HOME } ~ setuid 0: 999999999999999999999999 mem/max timeout 1e any!80 "
        "lock exec setenv A=b unshare/ user "
        "include \0 \x80 [ ] \\ fs ext4 allow_unsafe_ptrace"
    ).split(" ")
)


@settings(max_examples=3000, deadline=None)
@given(
    st.lists(WORDS, max_size=8).map("".join)
    | st.text(max_size=40)
    | st.sampled_from(["@", "setuid+", "mem/max:", "timeout:"]).map(lambda t: t + "9" * 5000)
)
def test_any_text_is_parsed_or_refused_whole(line: str) -> None:
    """No traceback, and nothing half applied."""
    rules = Ruleset()
    before = snapshot(rules)
    errno = 0
    try:
        rules.apply(line)
    except BadRule as error:
        errno = error.errno
    assert errno in (0, EINVAL, EOPNOTSUPP, EPERM, EACCES, EEXIST)
    assert not errno or snapshot(rules) == before
