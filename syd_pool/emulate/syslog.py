"""syslog(2) of a sandbox that keeps its own log: the tracer answers, who has it (tracer/syslog.py)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from syd_pool.emulate.call import Call


def syslog(call: Call) -> NoReturn:
    """Hand it over.  Raises Gone."""
    call.valid()
    call.hand_command()
    raise AssertionError("handed over")
