"""trace/allow_safe_bind: what the sandbox has bound, the sandbox may connect to (syd(2)).

The address is not the worker's word but the socket's own: getsockname(2) of the caller's descriptor, which also
knows the port that the kernel chose.  Only where a path leads the socket cannot tell; then the worker says it, and
it must end as the socket's name does.
"""

from __future__ import annotations

import os
from _socket import AF_INET, AF_INET6, AF_UNIX, inet_pton, socket

from syd_pool.emulate import netaddr
from syd_pool.linux.libc import descriptor_of
from syd_pool.policy import live

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.tracer.state import Run

LONGEST = 4096  # bytes of a path
MOST = 4096  # addresses that are remembered


def note(run: Run, tid: int, tgid: int, fd: int, path: bytes) -> None:
    """Allow connecting to the caller's socket `fd`.  One that cannot be looked at any more changes nothing."""
    from syd_pool.tracer.commands import publish

    try:
        text = _address(tid, tgid, fd, path)
    except OSError:
        return
    if not text or text in run.bound:
        return
    if len(run.bound) >= MOST:
        run.log("bind", tid, "too many addresses were bound", "connecting to this one is not allowed by itself")
        return
    run.bound.add(text)
    line = live.bound(text)
    live.replay(run.config.rules, line)
    publish(run, [line])


def _address(tid: int, tgid: int, fd: int, path: bytes) -> bytes:
    """The text that the rules judge when somebody connects; b"" for what has none.  Raises OSError."""
    own = descriptor_of(tid, tgid, fd)
    try:
        held = socket(fileno=own)
    except OSError:
        os.close(own)
        raise
    try:
        name = held.getsockname()
        if held.family == AF_UNIX:
            return _unix(os.fsencode(name), path)
        if held.family in (AF_INET, AF_INET6):
            return netaddr.text(inet_pton(held.family, name[0].partition("%")[0]), name[1])
        return b""
    finally:
        held.close()


def _unix(name: bytes, path: bytes) -> bytes:
    if name[:1] == b"\0":
        return b"@" + name[1:]
    if not name or os.path.basename(name.rstrip(b"/")) != os.path.basename(path):
        return b""
    return path
