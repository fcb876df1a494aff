"""SafeSetID: the first change of user that a rule has named is the only one, for the whole run; so is that of group.

syd gives up CAP_SETUID after its first change of user, and lets through only changes to what it has become itself
(syd(7), SafeSetID).  The tracer, which notes every change before the kernel makes it, does the same: which id that
is it reads from its own slot, and what the caller may take on anyway from /proc.
"""

from __future__ import annotations

from errno import EPERM

from syd_pool.emulate.identity import foreign_ids
from syd_pool.linux.numbers import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.tracer.state import Run


def refusal(run: Run, tid: int, nr: int, args: tuple[int, ...]) -> int:
    """0, or the errno of a call that would change to another id than the first one that was changed to."""
    try:
        kind, wanted = foreign_ids(run.config.rules, tid, NAME[nr], args)
    except OSError:  # it is gone
        return EPERM
    if not wanted:
        return 0
    if kind not in run.taken and len(wanted) == 1:
        run.taken[kind] = wanted.pop()
        return 0
    if wanted == {run.taken.get(kind)}:
        return 0
    run.log("safesetid", tid, NAME[nr], "the run has changed to another id before, which it may once")
    return EPERM
