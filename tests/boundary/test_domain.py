"""sandbox/lock: from `allow/lock/*` rules to a ruleset, on every kernel's Landlock, at every level of default/lock."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from syd_pool.boundary import domain
from syd_pool.boundary.spawn import SetupFailed
from syd_pool.linux import landlock
from syd_pool.policy import Ruleset
from syd_pool.policy.categories import LOCK_DEFAULTS, LOCK_RIGHTS
from syd_pool.policy.errors import BadRule

pytestmark = pytest.mark.skipif(landlock.abi() < 5, reason="needs Landlock ABI 5")

LEVELS = ("kill", "deny", "warn")
MISSING = {1: 5, 2: 4, 3: 3, 4: 1, 5: 0, 7: 0}  # ABI -> rights it cannot confine, ports counted too


def rules(*lines: str) -> Ruleset:
    made = Ruleset()
    for line in ("sandbox/lock:on", *lines):
        made.apply(line)
    return made


def build(made: Ruleset, abi: int | None = None) -> tuple[bool, list[str]]:
    """Whether there is a ruleset, and what was left out."""
    notes: list[str] = []
    fd = domain.build(made, landlock.abi() if abi is None else abi, notes.append)
    if fd >= 0:
        os.close(fd)
    return fd >= 0, notes


def test_every_right_of_the_language_is_known_here() -> None:
    assert set(LOCK_RIGHTS) == {*domain.PATH_RIGHTS, *domain.PORT_RIGHTS}


def test_what_no_rule_names_is_refused() -> None:
    """All rights that the kernel has are handled, also those without a rule; a later kernel's are not asked for."""
    assert domain.plan([], 7).fs == 0xFFFF and domain.plan([], 7).net == 3
    assert domain.plan([], 4).fs == 0x7FFF and domain.plan([], 4).net == 3
    assert domain.plan([], 1).fs == 0x1FFF and domain.plan([], 1).net == 0


def test_rights_of_one_path_come_together() -> None:
    made = domain.plan([("read", "/a"), ("write", "/b"), ("exec", "/a")], 7)
    assert made.paths == {
        "/a": landlock.LANDLOCK_ACCESS_FS_READ_FILE | landlock.LANDLOCK_ACCESS_FS_EXECUTE,
        "/b": landlock.LANDLOCK_ACCESS_FS_WRITE_FILE,
    }


def test_ports_and_ranges() -> None:
    """Lists and ranges join; where every port is allowed nothing is refused, and nothing is asked."""
    made = domain.plan([("bind", "80,8000-8002"), ("bind", "443"), ("connect", "0-65535"), ("bind", "/run")], 7)
    assert made.ports == {landlock.LANDLOCK_ACCESS_NET_BIND_TCP: [80, 443, 8000, 8001, 8002]}
    assert made.net == landlock.LANDLOCK_ACCESS_NET_BIND_TCP
    assert made.paths == {"/run": landlock.LANDLOCK_ACCESS_FS_MAKE_SOCK}
    assert domain.plan([("connect", "1-65535")], 7).net == 3, "control: one port is not allowed"


@pytest.mark.parametrize(("abi", "count"), MISSING.items())
def test_what_the_kernel_cannot_confine(abi: int, count: int) -> None:
    """kill: an error that names it and the way out; deny and warn: a note, and the rest is in force."""
    assert len(domain.plan([], abi).missing) == count
    for level in LEVELS:
        made = rules(f"default/lock:{level}", "allow/lock/all+/usr", "allow/lock/connect+80")
        if count and level == "kill":
            with pytest.raises(SetupFailed, match="default/lock:deny") as caught:
                build(made, abi)
            assert (caught.value.errno, caught.value.step) == (errno.EOPNOTSUPP, "landlock")
            assert "ioctl" in str(caught.value)
        else:
            stands, notes = build(made, abi)
            assert stands and len(notes) == bool(count)


def test_a_kernel_without_landlock() -> None:
    """Only default/lock:warn goes on without it."""
    for level in ("kill", "deny"):
        with pytest.raises(SetupFailed, match="sandbox/lock:off"):
            build(rules(f"default/lock:{level}"), 0)
    stands, notes = build(rules("default/lock:warn"), 0)
    assert not stands and "lsm=landlock" in notes[0]


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    """kill: ENOENT with the rule; else it is noted and left out.  Any other errno ends the start at every level."""
    (tmp_path / "loop").symlink_to("loop")
    for level in LEVELS:
        gone = rules(f"default/lock:{level}", f"allow/lock/read+{tmp_path}/gone")
        if level == "kill":
            with pytest.raises(SetupFailed, match=r"allow/lock/read.*gone") as caught:
                build(gone)
            assert caught.value.errno == errno.ENOENT
        else:
            stands, notes = build(gone)
            assert stands and "gone" in notes[0]
        with pytest.raises(SetupFailed) as caught:
            build(rules(f"default/lock:{level}", f"allow/lock/read+{tmp_path}/loop/x"))
        assert caught.value.errno == errno.ELOOP


def test_links(tmp_path: Path) -> None:
    """A link is followed, wherever it leads; one of /proc that is no text is ELOOP (syd(2))."""
    (tmp_path / "link").symlink_to("../" * 9 + "usr")
    assert build(rules(f"allow/lock/read+{tmp_path}/link"))[0]
    with pytest.raises(SetupFailed) as caught:
        build(rules("allow/lock/read+/proc/self/root"))
    assert caught.value.errno == errno.ELOOP


def test_a_file_has_fewer_rights(tmp_path: Path) -> None:
    """Of `all` a file takes what is about files; a rule that would say nothing is an error, or noted."""
    file = tmp_path / "file"
    file.touch()
    assert build(rules(f"allow/lock/all+{file}")) == (True, [])
    with pytest.raises(SetupFailed, match="mkdir"):
        build(rules(f"allow/lock/mkdir+{file}"))
    assert len(build(rules("default/lock:deny", f"allow/lock/mkdir+{file}"))[1]) == 1


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """Neither of a ruleset that was built nor of one that was not."""
    before = len(os.listdir("/proc/self/fd"))
    build(rules(f"allow/lock/all+{tmp_path}"))
    with pytest.raises(SetupFailed):
        build(rules(f"allow/lock/all+{tmp_path}", f"allow/lock/read+{tmp_path}/gone"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_log_flags() -> None:
    """log/lock/*: flags of ABI 7, nothing before it."""
    made = rules("log/lock/same_exec_off,subdomains_off:on")
    assert domain.log_flags(made, 7) == 5
    assert domain.log_flags(made, 6) == 0
    assert domain.log_flags(rules("log/lock/new_exec_on:on"), 7) == 2


@pytest.mark.parametrize("path", ["/etc/../passwd", "..", "a/../b", "/x/..", "../x"])
def test_no_path_goes_up(path: str) -> None:
    for operator in "+-^":
        with pytest.raises(BadRule) as caught:
            Ruleset().apply(f"allow/lock/read{operator}{path}")
        assert caught.value.errno == errno.EACCES


def test_relative_paths_begin_where_we_were_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same path is the same rule, however it is written."""
    monkeypatch.chdir(tmp_path)
    made = Ruleset()
    made.apply("allow/lock/write+./a//b/")
    assert made.landlock == [*LOCK_DEFAULTS, ("write", f"{tmp_path}/a/b")]
    made.apply("allow/lock/all-a/b")
    assert made.landlock == list(LOCK_DEFAULTS)


def test_rules_of_ports_and_of_sockets() -> None:
    """bind takes ports or an absolute path, connect ports; a set with a path leaves ports alone."""
    made = Ruleset()
    made.landlock.clear()
    for line in ("allow/lock/bind+/run", "allow/lock/net+80", "allow/lock/inet+/tmp", "allow/lock/bnet+1-2"):
        made.apply(line)
    assert made.landlock == [("bind", "/run"), ("bind", "80"), ("connect", "80"), ("bind", "/tmp"), ("bind", "1-2")]
    for line in ("allow/lock/bind+run", "allow/lock/connect+/run", "allow/lock/connect+65536", "allow/lock/bind+2-1"):
        with pytest.raises(BadRule):
            made.apply(line)
