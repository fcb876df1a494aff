"""-E pfc and -E bpf: the filters of a run, printed instead of running.

pfc  libseccomp's pseudo filter code, one filter after the other on stdout, each under a title in syd's words
     (people and scripts grep for them): parent and main are the command's, "monitor" is what an emulator
     carries (syd calls it so), "waiter" is the keeper's.
bpf  the programs themselves as files in the current directory, named as syd names its own.
"""

from __future__ import annotations

import os

from syd_pool.boundary.command_filter import UNKNOWN, command_filters
from syd_pool.boundary.filter import ALLOW, KILL_PROCESS, cached, compile_filter
from syd_pool.boundary.keeper_filter import keeper_rules
from syd_pool.boundary.worker_filter import worker_rules
from syd_pool.emulate.table import makes_sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.boundary.filter import Rule
    from syd_pool.cli.config import RunConfig
    from syd_pool.policy import Ruleset

    Exported = tuple[str, str, list[Rule], int]  # title, file name, rules, default


def filters(rules: Ruleset, scoped: bool = True) -> list[Exported]:
    """Every filter that a run with `rules` loads."""
    command = command_filters(rules, not rules.option("trace/allow_unsafe_ptrace"), True, scoped)
    worker = worker_rules(not rules.option("trace/allow_unsafe_nocookie"), makes_sockets(rules))
    return [
        ("Syd parent rules", "syd_parent.bpf", command.parent, ALLOW),
        ("Syd rules", "syd_exec.bpf", command.main, UNKNOWN),
        ("Syd monitor rules (emulator, syd_emu)", "syd_emu.bpf", worker, KILL_PROCESS),
        ("Syd waiter rules (keeper, syd_keep)", "syd_keep.bpf", keeper_rules(), KILL_PROCESS),
    ]


def export(config: RunConfig) -> int:
    """Print or write the filters in the format `config.export`; returns the exit status."""
    for title, name, rules, default in filters(config.rules, config.signal_scope):
        if config.export == "pfc":
            _print(title.encode(), compile_filter(rules, default, text=True))
        else:
            _write(name, cached(rules, default))
    return 0


def _print(title: bytes, text: bytes) -> None:
    left = memoryview(b"# " + title + b"\n#\n" + text + b"\n")
    while left:
        left = left[os.write(1, left) :]


def _write(name: str, program: bytes) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        os.write(fd, program)
    finally:
        os.close(fd)
