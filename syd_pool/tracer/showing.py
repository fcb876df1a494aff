"""The state of a run for those who ask: a sealed file in memory, or our standard error."""

from __future__ import annotations

import os
from errno import EAGAIN

from syd_pool.linux.libc import (
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    MFD_ALLOW_SEALING,
    MFD_CLOEXEC,
    add_seals,
)
from syd_pool.policy import describe
from syd_pool.policy.parse import bad
from syd_pool.shm.control import H_PRINTER
from syd_pool.shm.ring import F_CHROOTED
from syd_pool.tracer import aside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.tracer.state import Run


def facts(run: Run) -> dict[str, object]:
    """What describe.py says of the rules, with the run around it."""
    found: dict[str, object] = {"id": run.config.run_id, "cpid": run.eldest}
    state = describe.state(run.config.rules)
    state["chroot"] = bool(run.facts & F_CHROOTED)
    return {**found, **state}


def as_json(run: Run, indent: bool = True) -> bytes:
    """The state as JSON."""
    from syd_pool.policy.interface import specification

    return describe.as_json({**facts(run), "api": specification()}, indent)


def as_text(run: Run) -> bytes:
    """The state as lines for people."""
    return describe.as_text(facts(run))


_shown: list[tuple[object, int]] = []  # of what, its descriptor: made anew when something has changed


def state_fd(run: Run) -> int:
    """A read-only descriptor of the state, with a position of its own.  Raises OSError."""
    now = (run.position, run.config.rules.lock, run.facts & F_CHROOTED)
    if not _shown or _shown[0][0] != now:
        fd = _sealed(as_json(run))
        if _shown:
            os.close(_shown.pop()[1])
        _shown.append((now, fd))
    return os.open(b"/proc/self/fd/%d" % _shown[0][1], os.O_RDONLY | os.O_CLOEXEC)


def helper_fd(name: str) -> int:
    """A read-only descriptor of a library for those who speak to us (syd.sh, syd.el).  Raises OSError."""
    from syd_pool.policy.interface import helper

    fd = _sealed(helper(name))
    try:
        return os.open(b"/proc/self/fd/%d" % fd, os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)


def _sealed(data: bytes) -> int:
    """A file in memory that holds `data` for ever."""
    fd = os.memfd_create("syd", MFD_CLOEXEC | MFD_ALLOW_SEALING)
    try:
        while data:
            data = data[os.write(fd, data) :]
        add_seals(fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


def print_state(run: Run, machine: bool) -> None:
    """On our standard error, by a process of its own: nobody can make us wait there.

    Raises BadRule EAGAIN while the one before has not been read; OSError.
    """
    if aside.busy(run, H_PRINTER):
        raise bad("dump" if machine else "stat", "what was printed last has not been read yet", errno=EAGAIN)
    data = as_json(run) if machine else as_text(run)
    aside.start(run, H_PRINTER, "syd_show", lambda _: describe.write(data))
