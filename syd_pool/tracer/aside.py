"""Work that may wait for ever, done by a process beside the tracer: printing the state, reading a file.

    tracer --fork--> (ends) --fork--> helper: reports its pid, works, sends one message or none, ends

It is no child of the tracer's, so that it ends whenever it likes; its pid is published, so the command can neither
see nor reach it (shm/control.py).  There is at most one of each kind.
"""

from __future__ import annotations

import os
from errno import EAGAIN

from syd_pool.linux.libc import close_all_but, set_name
from syd_pool.linux.signals import SIG_DFL, SIG_SETMASK, SIGALRM, pthread_sigmask, signal
from syd_pool.linux.sockets import seqpacket_pair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from syd_pool.linux.sockets import socket
    from syd_pool.tracer.state import Run

_NUMBER_SIZE = 8


def busy(run: Run, word: int) -> bool:
    """Is the helper of this kind still at work?  word: H_* of the control page that holds its pid."""
    return run.control.q[word] != 0


def start(
    run: Run, word: int, name: str, work: Callable[[socket], None], ended: Callable[[socket], None] | None = None
) -> None:
    """Have `work` done with one end of a socket; then `ended` is called with the other, if it is given.

    word: as busy(), which must be false.  Raises OSError: there is no process or descriptor for it.
    """
    ours, theirs = seqpacket_pair()
    pid = os.fork()
    if pid == 0:
        try:
            if os.fork() == 0:
                _be(name, theirs, work)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)  # it only forks
    theirs.close()
    number = ours.recv(_NUMBER_SIZE)
    if not number:
        ours.close()
        raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
    run.control.q[word] = int.from_bytes(number, "little")
    ours.setblocking(False)

    def over(run: Run) -> None:
        run.others.unregister(ours)
        del run.watched[ours.fileno()]
        run.control.q[word] = 0
        if ended is not None:
            ended(ours)
        ours.close()

    run.watched[ours.fileno()] = over
    run.others.register(ours, 1)  # POLLIN; POLLHUP comes unasked


def _be(name: str, end: socket, work: Callable[[socket], None]) -> None:
    """In the helper.  It can be ended by SIGALRM, which every process of ours blocks."""
    set_name(name)
    close_all_but({2, end.fileno()})
    signal(SIGALRM, SIG_DFL)
    pthread_sigmask(SIG_SETMASK, ())
    end.send(os.getpid().to_bytes(_NUMBER_SIZE, "little"))
    work(end)
