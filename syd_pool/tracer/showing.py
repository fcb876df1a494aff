"""The state of a run for those who ask: a sealed file in memory, or our standard error."""

from __future__ import annotations

import os

from syd_pool.linux.libc import (
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    MFD_ALLOW_SEALING,
    MFD_CLOEXEC,
    add_seals,
    close_all_but,
)
from syd_pool.policy import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.tracer.state import Run


def facts(run: Run) -> dict[str, object]:
    """What describe.py says of the rules, with the run around it."""
    found: dict[str, object] = {"id": run.config.run_id, "cpid": run.eldest, "workers": len(run.workers)}
    return {**found, **describe.state(run.config.rules), "api": describe.api()}


def as_json(run: Run, indent: bool = True) -> bytes:
    """The state as JSON."""
    import orjson

    return orjson.dumps(facts(run), option=orjson.OPT_INDENT_2 if indent else 0) + b"\n"


def as_text(run: Run) -> bytes:
    """The state as lines for people."""
    return describe.text(facts(run)).encode("utf-8", "backslashreplace")


def state_fd(run: Run) -> int:
    """A read-only descriptor of the state, with a position of its own.  Raises OSError."""
    fd = os.memfd_create("syd", MFD_CLOEXEC | MFD_ALLOW_SEALING)
    try:
        data = as_json(run)
        while data:
            data = data[os.write(fd, data) :]
        add_seals(fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)
        return os.open(b"/proc/self/fd/%d" % fd, os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)


def print_state(run: Run, machine: bool) -> None:
    """On our standard error, by a process of its own: nobody can make us wait there.  Raises OSError."""
    data = as_json(run) if machine else as_text(run)
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)  # it only forks
        return
    try:
        if os.fork() == 0:
            close_all_but({2})
            while data:
                data = data[os.write(2, data) :]
    finally:
        os._exit(0)
