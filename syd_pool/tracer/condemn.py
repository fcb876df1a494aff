"""A caller that the tracer itself ends, because nobody can say any more what its call did."""

from __future__ import annotations

import os

from syd_pool.linux.numbers import NAME
from syd_pool.linux.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.tracer.state import Run


def kill_caller(run: Run, tgid: int, tid: int, nr: int, why: str, tip: str = "") -> bool:
    """SIGKILL a thread group, after one log line with what it is, its program, its call and why.

    False when it had gone already.
    """
    fields: list[tuple[str, bytes | int]] = [("act", b"kill"), ("sys", NAME.get(nr, str(nr)).encode()), ("tgid", tgid)]
    try:
        fields.append(("path", os.readlink(b"/proc/%d/exe" % tgid)))
    except OSError:
        pass  # a zombie has no program any more
    if tip:
        fields.append(("tip", tip.encode()))
    try:
        os.kill(tgid, 0)
        run.log("kill", tid, "the caller is killed", why, fields)  # while its name can still be asked for
        os.kill(tgid, SIGKILL)
    except ProcessLookupError:
        return False
    return True
