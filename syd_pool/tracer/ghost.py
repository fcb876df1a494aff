"""Ghost mode: the sandbox lets go of its listener, and every judged call fails with ENOSYS for ever (syd(7)).

    answered -> nothing is received any more -> workers finish what they hold -> the listener is closed

A call that was not begun when the command came is answered ENOSYS by the kernel, as every later one.  What
only waits (a FIFO that nobody opens) is cut off with it.  Executing and changing directory are refused by us:
nobody is left to judge them.
"""

from __future__ import annotations

import os
from errno import ENOSYS

from syd_pool.policy import live
from syd_pool.policy.lock import ON
from syd_pool.shm.ring import CHDIR, EXEC, MAP, NOTIFY, Q_STOP
from syd_pool.tracer import commands, ptrace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.tracer.commands import Asker
    from syd_pool.tracer.state import Run, Task

SIGKILL = 9


def begin(run: Run, asker: Asker) -> None:
    """Nothing can undo this.  The asker is answered first: later nobody can be."""
    from syd_pool.tracer import pool

    rules = run.config.rules
    live.reset(rules)
    rules.lock = ON
    commands.lock_changed(run)
    asker.answer(0)
    run.ghost, run.capped = True, False
    for listener in run.listeners:
        run.poller.unregister(listener)
    for worker in run.workers.values():
        worker.open = False
        worker.request.q[Q_STOP] = 1
        if worker.blocked:
            os.kill(worker.pid, SIGKILL)
        else:
            os.eventfd_write(worker.bell, 1)
    pool.rank(run)
    run.log_line(b"notice", "ghost", run.eldest, "the sandbox has let go: judged calls fail with ENOSYS from now on")
    let_go(run)


def let_go(run: Run) -> None:
    """Once no worker is left: close the listener.  Called again at every death of one."""
    if run.workers or not run.listeners:
        return
    for listener in run.listeners:
        os.close(listener)
    run.listeners.clear()
    for kind, _, task, _, _ in run.backlog:
        turn_away(run, task, kind)
    run.backlog.clear()
    run.hung_up = not run.ptrace
    from syd_pool.tracer import watch

    watch.tell_exit(run)


def turn_away(run: Run, task: Task, kind: int) -> None:
    """What would need a worker: a call gets its ENOSYS from the kernel, an exec, chdir or mapping from us.

    What was judged before and only waits for its verification is not let go on unverified: it is killed.
    """
    if kind == NOTIFY:
        run.gone += 1
    elif run.tasks.get(task.tid) is not task:
        return  # it has died in its stop, and its number may be somebody else's
    elif kind in (EXEC, CHDIR, MAP):
        ptrace.refuse(task.tid, ENOSYS)
        ptrace.cont(task.tid)
    else:
        os.kill(task.tgid, SIGKILL)
