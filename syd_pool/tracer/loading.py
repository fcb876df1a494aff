"""load/FD: the text in a descriptor of the caller (syd(2), load).

Whoever serves the file may answer late or never (FUSE), so a helper takes the descriptor and reads; the tracer
never holds it, for closing it may wait, too.
"""

from __future__ import annotations

import os
from errno import EAGAIN, EBADF, EBADFD, EFBIG, EIO, ETIMEDOUT
from stat import S_ISREG

from syd_pool.linux.libc import descriptor_of, sealed_memfd, timer
from syd_pool.linux.signals import ITIMER_REAL, setitimer
from syd_pool.linux.sockets import receive_fd, send_fd
from syd_pool.policy.errors import BadRule
from syd_pool.policy.parse import bad
from syd_pool.shm.control import H_LOADER
from syd_pool.tracer import aside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from syd_pool.linux.sockets import socket
    from syd_pool.tracer.state import Run

LARGEST = 1 << 20  # bytes
PATIENCE = 5.0  # seconds that a file may take to be read


def read(run: Run, tid: int, tgid: int, fd: int, done: Callable[[bytes | BadRule], None]) -> None:
    """Have read what a regular file holds from where descriptor `fd` of thread `tid` stands; `done` gets it, once.

    It is read through an open file description of its own position's owner: the caller's, as in syd.
    Raises BadRule, OSError.
    """
    line = f"load/{fd}"
    if fd < 0:
        raise bad(line, "no such descriptor", errno=EBADF)
    if aside.busy(run, H_LOADER):
        raise bad(line, "what was loaded last has not been read yet", errno=EAGAIN)
    waiting = [done]
    clock = timer(PATIENCE)

    def give(what: bytes | BadRule) -> None:
        if waiting:
            run.others.unregister(clock)
            del run.watched[clock]
            os.close(clock)
            waiting.pop()(what)

    try:
        aside.start(
            run, H_LOADER, "syd_load", lambda end: _send(end, line, tid, tgid, fd), lambda end: give(_result(end, line))
        )
    except OSError:
        os.close(clock)
        raise
    run.watched[clock] = lambda _: give(_late(line))
    run.others.register(clock, 1)  # POLLIN


def _late(line: str) -> BadRule:
    return bad(line, f"could not be read within {PATIENCE:.0f} seconds", errno=ETIMEDOUT)


def _result(end: socket, line: str) -> bytes | BadRule:
    """What the helper has sent: the text in a sealed file, or why there is none."""
    try:
        message, fd = receive_fd(end, 4096)
    except OSError:
        message, fd = b"", -1
    if fd >= 0:
        try:
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)
    if not message:
        return _late(line)  # it has ended itself
    errno = int.from_bytes(message[:4], "little")
    return BadRule(errno or EIO, message[4:].decode())


# --- in the helper --------------------------------------------------------------------------------


def _send(end: socket, line: str, tid: int, tgid: int, fd: int) -> None:
    setitimer(ITIMER_REAL, PATIENCE)  # SIGALRM ends us, unless the kernel waits for whoever serves the file
    try:
        text = text_of(line, tid, tgid, fd)
        held = sealed_memfd("syd-load", len(text))
        os.pwrite(held, text, 0)
        send_fd(end, b"text", held)
    except BadRule as error:
        end.send(error.errno.to_bytes(4, "little") + str(error).encode())


def text_of(line: str, tid: int, tgid: int, fd: int) -> bytes:
    """The text.  Raises BadRule."""
    try:
        own = descriptor_of(tid, tgid, fd)
    except OSError as error:
        raise bad(line, "no such descriptor", errno=error.errno or EBADF) from None
    try:
        return _read(line, own)
    except OSError as error:
        raise bad(line, "cannot be read", "open it for reading", error.errno or EBADF) from None


def _read(line: str, fd: int) -> bytes:
    if not S_ISREG(os.fstat(fd).st_mode):
        raise bad(line, "is not a regular file", errno=EBADFD)
    data = b""
    while part := os.read(fd, LARGEST + 1 - len(data)):
        data += part
        if len(data) > LARGEST:
            raise bad(line, f"is larger than {LARGEST >> 20} MiB", errno=EFBIG)
    return data
