"""syslog(2) from inside: our own log instead of the kernel's (syd(2), trace/allow_safe_syslog).

Who may read it: everybody where the option says so, else the command itself while the lock is `exec`.  The host's
log is never shown.  Actions are those of syslog(2); READ takes what has not been read and does not wait for more.
"""

from __future__ import annotations

from errno import EINVAL, EPERM

from syd_pool.linux import notify
from syd_pool.linux.notify import Gone
from syd_pool.policy.lock import EXEC
from syd_pool.shm import logring
from syd_pool.tracer.dispatch import answer_error, answer_value
from syd_pool.worker import memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.tracer.state import Run

CLOSE, OPEN, READ, READ_ALL, READ_CLEAR, CLEAR = range(6)
SIZE_UNREAD, SIZE_BUFFER = 9, 10
_INT = 0xFFFFFFFF


class _Caller:
    """What worker/memory.py needs of a Call."""

    tid: int


def serve(run: Run, listener: int, notification: int, tid: int, eldest: bool, args: tuple[int, ...]) -> None:
    """Answer one call.  eldest: it is the command's own."""
    allowed = run.config.rules.option("trace/allow_safe_syslog") or (run.config.rules.lock == EXEC and eldest)
    try:
        value = _act(run, tid, args) if allowed else -EPERM
    except Gone:
        value = -EPERM  # nobody is left to hear it
    except OSError as error:
        value = -(error.errno or EPERM)
    if not notify.valid(listener, notification):
        run.gone += 1
    elif value < 0:
        answer_error(run, listener, notification, -value)
    else:
        answer_value(run, listener, notification, value)


def _act(run: Run, tid: int, args: tuple[int, ...]) -> int:
    """The result of an action, or -errno.  Raises OSError; Gone."""
    ring = run.log_ring
    assert ring is not None
    action, size = args[0] & _INT, args[2] & _INT
    if action in (CLOSE, OPEN):
        return 0
    if action == SIZE_BUFFER:
        return len(ring) - logring.HEAD
    if action == SIZE_UNREAD:
        return len(logring.read(ring, run.log_read, len(ring)))
    if action == CLEAR:
        run.log_cleared = logring.total(ring)
        return 0
    if action not in (READ, READ_ALL, READ_CLEAR):
        return -EPERM if action < SIZE_UNREAD else -EINVAL  # 6 to 8 are about the console
    if not args[1] or size > _INT >> 1:
        return -EINVAL
    end = logring.total(ring)
    data = logring.read(ring, run.log_read if action == READ else run.log_cleared, size)
    caller = _Caller()
    caller.tid = tid
    if data:
        memory.write(caller, args[1], data)  # type: ignore[arg-type]
    if action == READ:
        run.log_read = end
    elif action == READ_CLEAR:
        run.log_cleared = end
    return len(data)
