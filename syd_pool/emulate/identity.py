"""Calls that change who the caller is: noted, then performed by the kernel."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call


def changed(call: Call) -> None:
    """setuid(2), setgid(2), setgroups(2), capset(2) and their kin.

    The tracer notes it and lets the kernel perform the call on the caller itself; from its next call on
    a worker reads the caller's identity anew and acts with it (docs/design.md).
    """
    call.note_identity()
