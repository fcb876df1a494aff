"""--status-fd: JSON lines about the run, so that our failure is never mistaken for the command's.

    {"event":"started","pid":...}   the sandbox exists; pid of the command
    {"event":"ready"}               filter and listener are in place, the pool answers
    {"event":"exec"}                the command has been executed
    {"event":"exit","status":...,"reason":"exited|signalled|timeout|policy|exec|killed"}
    {"event":"summary",...}         calls and workers

One object a line; written at once, never on a caller's time.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def report(fd: int, event: str, **facts: Any) -> None:
    """Write one line to `fd`; nothing if it is negative.  A reader that has gone away is no error."""
    if fd < 0:
        return
    import orjson  # only who asks for the status pays for it

    line = orjson.dumps({"event": event, **facts}) + b"\n"
    try:
        os.write(fd, line)
    except (BrokenPipeError, BlockingIOError):
        return
