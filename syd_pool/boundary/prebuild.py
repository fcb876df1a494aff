"""Compile the usual filters ahead of time, so that no start of a command pays for it.

    python -m syd_pool.boundary.prebuild

scripts/ calls it when it has made the environment.  A run whose rules lead to another filter compiles
that one once, if the cache may be written by who runs it.
"""

from __future__ import annotations

from syd_pool.boundary.command_filter import UNKNOWN, command_filters
from syd_pool.boundary.filter import ALLOW, KILL_PROCESS, cache_directory, cached
from syd_pool.boundary.ipc_filter import ipc_rules
from syd_pool.boundary.keeper_filter import keeper_rules
from syd_pool.boundary.worker_filter import worker_rules
from syd_pool.linux.landlock import signal_scope

# What the profiles and the manual's examples lead to.
USUAL = (
    (),
    ("sandbox/all:on",),
    ("sandbox/stat:on",),
    ("sandbox/lpath:on",),
    ("sandbox/exec:on",),
    ("sandbox/chdir:on",),
    ("sandbox/read,stat,write,create:on",),
)
OPTIONS = ((), ("trace/allow_unsafe_ptrace:1",), ("trace/allow_unsafe_prlimit:1",))


def prebuild() -> int:
    """Compile and keep them; returns how many there are.  Raises OSError if the cache cannot be written."""
    from syd_pool.policy import Ruleset

    scoped = signal_scope()
    ours = (keeper_rules(), ipc_rules(), *(worker_rules(c, s) for c in (True, False) for s in (True, False)))
    programs = {id(rules): (rules, KILL_PROCESS) for rules in ours}
    for profile in ("off", "fs", "lib", ""):
        for commands in USUAL:
            for options in OPTIONS:
                ruleset = Ruleset()
                if profile:
                    ruleset.profile(profile)
                for command in (*commands, *options):
                    ruleset.apply(command)
                for identity in (True, False):
                    ptrace = not ruleset.option("trace/allow_unsafe_ptrace")
                    filters = command_filters(ruleset, ptrace, identity, scoped)
                    programs[id(filters.main)] = (filters.main, UNKNOWN)
                    programs[id(filters.parent)] = (filters.parent, ALLOW)
    for rules, default in programs.values():
        cached(rules, default)
    return len(programs)


if __name__ == "__main__":
    print(f"{prebuild()} filters in {cache_directory()}")
