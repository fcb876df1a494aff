"""The control socket, as the tracer sees it (syd(2), ipc): bind it, have it served, carry out what comes in.

    client --stream--> syd_ipc (ipc.py) --one line--> [ carry_out ] --errno, text--> syd_ipc --JSON--> client

syd_ipc speaks with strangers, the tracer only with syd_ipc: a line arrives whole, from somebody whose ids the
kernel has vouched for.  When the rules are locked the socket is closed.
"""

from __future__ import annotations

import os
from errno import EINVAL, ENAMETOOLONG, EPERM
from struct import Struct

from syd_pool.boundary import ipc_filter
from syd_pool.boundary.spawn import SetupFailed
from syd_pool.linux.libc import sealed_memfd
from syd_pool.linux.sockets import seqpacket_pair
from syd_pool.policy import lock
from syd_pool.shm.control import H_IPC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from syd_pool.tracer.state import Run

NUMBER = Struct("<Q")
REPLY = Struct("<Qi")  # number, errno; with a memfd of text where there is any
MOST_LINE = 4096
MSG_DONTWAIT = 0x40
BACKLOG = 64
_SUN_PATH = 108


def bind(run: Run) -> socket | None:
    """Bind the socket that `ipc` names, if any.  Raises SetupFailed."""
    name = run.config.rules.option("ipc")
    if not isinstance(name, str) or not lock.is_open(run.config.rules.lock):
        return None
    from _socket import AF_UNIX, SO_PASSCRED, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET, socket

    address = os.fsencode(name)
    if address[:1] == b"@":
        address = b"\0" + address[1:]
    listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
    try:
        if len(address) >= _SUN_PATH or address == b"\0":
            raise OSError(ENAMETOOLONG if len(address) > 1 else EINVAL, "address")
        listening.setsockopt(SOL_SOCKET, SO_PASSCRED, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise SetupFailed(error.errno or EINVAL, "ipc", f"cannot bind the control socket {name!r} (ipc)") from None
    return listening


def start(run: Run) -> None:
    """Fork syd_ipc.  Raises SetupFailed, OSError."""
    listening = bind(run)
    if listening is None:
        return
    from syd_pool.tracer import ipc

    program = ipc_filter.program()
    ours, theirs = seqpacket_pair()
    rules = run.config.rules
    uid, gid = (own() if rules.option(name) == -1 else rules.option(name) for name, own in _IDS)
    tracer = os.getpid()
    pid = os.fork()
    if pid == 0:
        ipc.run(listening, theirs, tracer, uid, gid, program)
    listening.close()
    theirs.close()
    ours.setblocking(False)
    run.ipc, run.ipc_pid = ours, pid
    run.control.q[H_IPC] = pid
    run.watched[ours.fileno()] = _on_line
    run.others.register(ours, 1)  # POLLIN


_IDS = (("ipc/uid", os.getuid), ("ipc/gid", os.getgid))


def close(run: Run) -> None:
    """Nobody may ask any more: syd_ipc sends what it holds and ends."""
    if run.ipc is None or run.ipc_serving:
        return
    run.others.unregister(run.ipc)
    del run.watched[run.ipc.fileno()]
    run.ipc.close()
    run.ipc = None


def reap(run: Run) -> None:
    """syd_ipc has ended; without it the socket is gone, and whoever wants it starts another run."""
    run.control.q[H_IPC] = 0
    run.ipc_pid = 0
    if not (run.ended or run.sealed):
        run.log("ipc", run.eldest, "the control socket", "has failed: nobody can edit by it any more")
    close(run)


def _on_line(run: Run) -> None:
    from syd_pool.tracer.commands import Asker, carry_out

    assert run.ipc is not None
    try:
        request = run.ipc.recv(NUMBER.size + MOST_LINE)
    except OSError:
        return
    if len(request) < NUMBER.size:
        close(run)
        return
    number = NUMBER.unpack_from(request)[0]
    line = request[NUMBER.size :].decode("utf-8", "surrogateescape")
    state = run.config.rules.lock
    if not (lock.may_read_by_socket if line in _TEXTS else lock.may_ask_by_socket)(state):
        _reply(run.ipc, number, EPERM, b"")
    elif line in _TEXTS:
        from syd_pool.tracer import showing

        text = showing.as_json(run, False) if line == "stat" else showing.as_text(run)
        _reply(run.ipc, number, 0, text)
    else:
        to = run.ipc
        run.ipc_serving = True  # what the line closes is closed behind its answer
        carry_out(run, line, Asker(0, 0, lambda errno: _reply(to, number, errno, b"")))
        run.ipc_serving = False
        if run.sealed:
            close(run)


_TEXTS = ("stat", "stats")


def _reply(to: socket, number: int, errno: int, text: bytes) -> None:
    """One message to syd_ipc; one that does not read it has died."""
    from syd_pool.linux.sockets import send_fd

    message = REPLY.pack(number, errno)
    try:
        if not text:
            to.send(message, MSG_DONTWAIT)
            return
        fd = sealed_memfd("syd-state", len(text))
        try:
            os.pwrite(fd, text, 0)
            send_fd(to, message, fd)
        finally:
            os.close(fd)
    except OSError:
        return
