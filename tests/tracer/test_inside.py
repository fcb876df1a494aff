"""A thread inside a Landlock domain that forks for a process which stays outside."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest

from syd_pool.boundary.spawn import SetupFailed
from syd_pool.linux import landlock
from syd_pool.policy import Ruleset
from syd_pool.tracer import inside

pytestmark = pytest.mark.skipif(landlock.abi() < 1, reason="needs Landlock")
READ = landlock.LANDLOCK_ACCESS_FS_READ_FILE


def read_in(fork: inside.Fork, path: Path) -> int:
    """The errno with which a child of `fork` cannot read a file."""

    def child() -> NoReturn:
        try:
            path.read_bytes()
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)

    return os.waitstatus_to_exitcode(os.waitpid(fork(child), 0)[1])


def test_children_are_inside_and_we_are_not(tmp_path: Path) -> None:
    """Again and again; the parent of all of them is this process."""
    (tmp_path / "file").write_text("x")
    ruleset = landlock.create(READ)
    try:
        fork = inside.inside(ruleset, 0)
    finally:
        os.close(ruleset)
    for _ in range(3):
        assert read_in(fork, tmp_path / "file") == errno.EACCES
    assert (tmp_path / "file").read_text() == "x"
    parent = os.getpid()
    pid = fork(lambda: os._exit(0 if os.getppid() == parent else 1))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_fork_that_fails_is_told_and_the_next_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    ruleset = landlock.create(READ)
    fork = inside.inside(ruleset, 0)
    os.close(ruleset)

    def no_fork(_: object) -> int:
        raise OSError(errno.EAGAIN, "injected")

    with monkeypatch.context() as patched:
        patched.setattr(inside, "plain", no_fork)
        with pytest.raises(OSError, match="injected"):
            fork(lambda: os._exit(0))
    assert os.waitstatus_to_exitcode(os.waitpid(fork(lambda: os._exit(7)), 0)[1]) == 7


def test_where_the_kernel_refuses_the_domain_there_is_no_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """I1: an error with the step's name, and nothing is ever forked outside instead."""
    ruleset = landlock.create(READ)
    with pytest.raises(OSError) as caught:
        inside.inside(ruleset, 1 << 20)
    assert caught.value.errno == errno.EINVAL
    os.close(ruleset)
    rules = Ruleset()
    rules.apply("sandbox/lock:on")
    if landlock.abi() >= 5:
        monkeypatch.setattr(inside.domain, "log_flags", lambda *_: 1 << 20)
        with pytest.raises(SetupFailed) as failed:
            inside.choose(rules, lambda _: None)
        assert failed.value.step == "landlock"
