"""Start a command through spawn.py without a tracer: what would be notified or traced passes.

`run` forks, hands the listener over and waits, as tracer/run.py does, and returns (status, output, failure).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from syd_pool.boundary import command_filter, spawn
from syd_pool.boundary import filter as seccomp
from syd_pool.cli.config import RunConfig
from syd_pool.policy.forced import forced


class Rules:
    """The part of policy.Ruleset that the boundary asks: options, and categories that are on."""

    def __init__(self, *options: str, enabled: Sequence[str] = ()) -> None:
        self.options = set(options)
        self.enabled = set(enabled)
        self.lock = "unset"
        self.resolve, self.opens, self.lifted = forced(dict.fromkeys(options, True))

    def option(self, name: str) -> bool:
        return name in self.options


def native(filters: command_filter.CommandFilters) -> command_filter.CommandFilters:
    """`filters` with every NOTIFY and TRACE as ALLOW: nobody answers here."""
    main = [
        (
            nr,
            seccomp.ALLOW if action == seccomp.NOTIFY or action & 0xFFFF0000 == seccomp.trace_action() else action,
            when,
        )
        for nr, action, when in filters.main
    ]
    return command_filter.CommandFilters(filters.parent, main, False)


def run(
    argv: Sequence[str | bytes],
    rules: Rules | None = None,
    *,
    env: dict[str, str] | None = None,
    alias: bytes | None = None,
    cwd: str | None = None,
    keep: Sequence[int] = (),
    limits: Sequence[tuple[int, int, int]] = (),
    capture: bool = True,
) -> tuple[int, bytes, spawn.SetupFailed | None]:
    """(wait status, stdout and stderr, why it was not started) of `argv` behind the filters."""
    config = RunConfig(rules or Rules(), [os.fsencode(word) for word in argv])  # type: ignore[arg-type]
    config.env = {os.fsencode(k): os.fsencode(v) for k, v in (os.environ if env is None else env).items()}
    config.alias = alias
    build = spawn.command_filters
    spawn.command_filters = lambda *args: native(build(*args))
    try:
        prepared = spawn.prepare(config, keep=keep, limits=limits)
    finally:
        spawn.command_filters = build
    out, into = os.pipe() if capture else (-1, -1)
    pid = os.fork()
    if pid == 0:
        if capture:
            os.dup2(into, 1)
            os.dup2(into, 2)
        if cwd is not None:
            os.chdir(cwd)
        spawn.child(prepared)
    if capture:
        os.close(into)
    failure: spawn.SetupFailed | None = None
    listener = -1
    pidfd = os.pidfd_open(pid)
    try:
        spawn.adopt(prepared)
        listener = spawn.take_listener(prepared, pid, pidfd)
        failure = spawn.outcome(prepared)
    except spawn.SetupFailed as error:
        failure = error
        if prepared.parent_end >= 0:  # a child that waits for us gives up
            os.close(prepared.parent_end)
            prepared.parent_end = -1
    os.close(pidfd)
    output = b""
    if capture:
        with open(out, "rb") as stream:
            output = stream.read()
    status = os.waitpid(pid, 0)[1]
    if listener >= 0:
        os.close(listener)
    if prepared.parent_end >= 0:
        os.close(prepared.parent_end)
    return status, output, failure
