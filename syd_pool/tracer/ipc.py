"""syd_ipc: serves the control socket (syd(2), ipc).

    poll --> accept | read a line, with the credentials of its sender | hand it to the tracer | write the reply

Who talks to it: clients, the tracer.  It may be told anything by anybody; it takes a line only from somebody
whose uid and gid, as the kernel wrote them on this very message, are the ones that were configured, or from
root.  It holds nothing: if it dies the socket is gone, and no edit is half done.
Guarantees: one command at a time for each client; a client that does not read or write costs nobody else;
at most CLIENTS of them, a line at most LINE bytes, and while a client has lines that were not carried out
nothing more is read from it: what it sends then waits in its socket, and so does it.
"""

from __future__ import annotations

import os
import select
from errno import E2BIG, EACCES, EINVAL
from struct import Struct

from syd_pool.boundary.filter import load
from syd_pool.linux import libc
from syd_pool.linux.sockets import receive_fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as socket_type
    from typing import NoReturn


CLIENTS = 64
LINE = 4000
_MOST_DEAF = 1 << 20
_UCRED = Struct("iII")
_NUMBER = Struct("<Q")
_REPLY = Struct("<Qi")
MSG_DONTWAIT, MSG_NOSIGNAL, MSG_CTRUNC = 0x40, 0x4000, 8
POLLIN, POLLOUT = 1, 4
SOL_SOCKET, SCM_RIGHTS, SCM_CREDENTIALS, SO_PEERCRED = 1, 1, 2, 17
ONCE, INTERACTIVE, PROMPT = "n", "i", "p"
MODES = (ONCE, INTERACTIVE, PROMPT)


class Client:
    """One connection.

    mode    ONCE, INTERACTIVE or PROMPT; lines: read and not yet handed over; out: not yet written
    waits   the tracer has its command; ending: close it when `out` is written
    deaf    what it still sends is thrown away: how many bytes it may, -1 while it is listened to
    """

    __slots__ = ("deaf", "ending", "lines", "mode", "number", "out", "peer", "rest", "socket", "waits")

    def __init__(self, socket: socket_type, number: int) -> None:
        self.socket = socket
        self.number = number
        self.peer = _UCRED.unpack(socket.getsockopt(SOL_SOCKET, SO_PEERCRED, _UCRED.size))
        self.mode = ONCE
        self.rest = b""
        self.lines: list[bytes] = []
        self.out = b""
        self.waits = False
        self.ending = False
        self.deaf = -1


class Server:
    """The socket, the tracer, the ids that are asked for (None: any) and the clients by descriptor."""

    def __init__(self, listening: socket_type, tracer: socket_type, uid: int | None, gid: int | None) -> None:
        self.listening = listening
        self.tracer = tracer
        self.uid = uid
        self.gid = gid
        self.clients: dict[int, Client] = {}
        self.poller = select.poll()
        self.count = 0


def run(
    listening: socket_type, tracer: socket_type, parent: int, uid: object, gid: object, compiled: bytes
) -> NoReturn:
    """Be syd_ipc until the tracer hangs up."""
    try:
        libc.set_name("syd_ipc")
        libc.die_with_parent(parent)
        libc.close_all_but({2, listening.fileno(), tracer.fileno()})
        ids = [value if isinstance(value, int) else None for value in (uid, gid)]
        server = Server(listening, tracer, *ids)
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        load(compiled)
        serve(server)
    finally:
        os._exit(0)
    raise AssertionError("it serves until the end")


def serve(server: Server) -> None:
    """Until the tracer hangs up; what was answered by then is still written."""
    poller, clients = server.poller, server.clients
    poller.register(server.listening, POLLIN)
    poller.register(server.tracer, POLLIN)
    while True:
        for fd, _ in poller.poll():
            if fd == server.tracer.fileno():
                if not _on_reply(server):
                    return
            elif fd == server.listening.fileno():
                _on_connect(server)
            elif fd in clients:
                _on_client(server, clients[fd])


def _on_connect(server: Server) -> None:
    from _socket import AF_UNIX, SOCK_STREAM, socket

    try:
        fd, _ = server.listening._accept()  # type: ignore[attr-defined]
    except OSError:
        return
    if len(server.clients) >= CLIENTS and not _make_room(server):
        os.close(fd)
        return
    server.count += 1
    accepted = socket(AF_UNIX, SOCK_STREAM, 0, fd)
    accepted.setblocking(False)
    client = server.clients[fd] = Client(accepted, server.count << 16 | fd)
    _attend(server, client)


def _attend(server: Server, client: Client) -> None:
    """What is waited for: that it takes something, that it sends something, or neither while the tracer has a line."""
    if client.out:
        server.poller.register(client.socket, POLLOUT)
    elif not (client.waits or client.lines):
        server.poller.register(client.socket, POLLIN)
    else:
        _ignore(server, client)


def _ignore(server: Server, client: Client) -> None:
    try:
        server.poller.unregister(client.socket)
    except KeyError:
        pass  # it was not listened to


def _make_room(server: Server) -> bool:
    """Hang up on a client that is not heard anyway: strangers may not keep away who is."""
    for client in server.clients.values():
        if not authorised(server, client.peer):
            _drop(server, client)
            return True
    return False


def _drop(server: Server, client: Client) -> None:
    fd = client.socket.fileno()
    client.ending = True  # whatever it has still said is not carried out
    _ignore(server, client)
    del server.clients[fd]
    client.socket.close()


def _on_client(server: Server, client: Client) -> None:
    """It has sent something, or can take something."""
    if client.out:
        _write(server, client)
        return
    try:
        data, ancillary, flags, _ = client.socket.recvmsg(LINE, 256)
    except BlockingIOError:
        return
    except OSError:
        data, ancillary, flags = b"", [], 0
    if client.deaf >= 0:
        client.deaf -= len(data)
        if not data or client.deaf < 0:
            _drop(server, client)
        return
    sender = None
    for level, kind, payload in ancillary:
        if (level, kind) == (SOL_SOCKET, SCM_CREDENTIALS):
            sender = _UCRED.unpack(payload[: _UCRED.size])
        elif (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
            for at in range(0, len(payload) - 3, 4):
                os.close(int.from_bytes(payload[at : at + 4], "little"))
    if not data:
        if client.rest:  # a last line without its end
            client.lines.append(client.rest)
            client.rest = b""
            _next(server, client, True)
        else:
            _drop(server, client)
        return
    if sender is None or flags & MSG_CTRUNC or not (authorised(server, sender) and authorised(server, client.peer)):
        _refuse(server, client, EACCES, "AUTH")
        return
    client.rest += data
    if len(client.rest) >= LINE and b"\n" not in client.rest:
        _refuse(server, client, E2BIG, "RATE")
        return
    *lines, client.rest = client.rest.split(b"\n")
    client.lines += lines
    _next(server, client)


def _refuse(server: Server, client: Client, errno: int, text: str) -> None:
    """Say why, and read on for a while: closing on what was not read would take the answer away (ECONNRESET)."""
    client.deaf = _MOST_DEAF
    _say(server, client, errno, text, False)
    if client.socket.fileno() >= 0:
        client.socket.shutdown(1)  # SHUT_WR


def authorised(server: Server, who: tuple[int, ...]) -> bool:
    """Are these ids (pid, uid, gid) the ones that were asked for?  root's always are."""
    _, uid, gid = who
    return uid == 0 or (server.uid in (None, uid) and server.gid in (None, gid))


def _next(server: Server, client: Client, last: bool = False) -> None:
    """Take the next line, if the client does not wait for an answer yet."""
    while client.lines and not client.waits and not client.ending:
        line = client.lines.pop(0).strip()
        if not line:
            continue
        _take(server, client, line.decode("utf-8", "surrogateescape"))
        if client.mode == ONCE or last:
            client.lines.clear()
    if not client.ending:
        _attend(server, client)


def _take(server: Server, client: Client, line: str) -> None:
    once = client.mode == ONCE
    if line in ("quit", "exit"):
        client.ending = True
        _write(server, client)
    elif line == "ping":
        _say(server, client, 0, "PONG", once)
    elif line == "version":
        _send(server, client, b'{"version":"3.1","major":3,"minor":1}\n', once)
    elif line.split(" ", maxsplit=1)[0] == "prompt":
        _prompt(server, client, line[6:].strip())
    else:
        client.waits = True
        try:
            server.tracer.send(_NUMBER.pack(client.number) + line.encode("utf-8", "surrogateescape"))
        except OSError:
            _say(server, client, E2BIG, "RATE", True)


def _prompt(server: Server, client: Client, mode: str) -> None:
    """prompt [n|i|p]: from one line to many, and back."""
    if mode and mode not in MODES:
        _say(server, client, EINVAL, "the mode is n, i or p", client.mode == ONCE)
        return
    client.mode = mode or (INTERACTIVE if client.mode == PROMPT else PROMPT)
    _send(server, client, b"", client.mode == ONCE)


def _on_reply(server: Server) -> bool:
    """The tracer has answered; False when it has hung up."""
    try:
        message, fd = receive_fd(server.tracer, _REPLY.size)
    except OSError:
        return False
    if len(message) != _REPLY.size:
        return False
    number, errno = _REPLY.unpack(message)
    text = b""
    if fd >= 0:
        text = os.pread(fd, os.fstat(fd).st_size, 0)
        os.close(fd)
    client = server.clients.get(number & 0xFFFF)
    if client is None or client.number != number:
        return True  # it has left meanwhile
    client.waits = False
    if text:
        _send(server, client, text, client.mode == ONCE)
    else:
        _say(server, client, errno, os.strerror(errno) if errno else "OK", client.mode == ONCE)
    if not client.ending:
        _next(server, client)
    return True


def _say(server: Server, client: Client, errno: int, text: str, end: bool) -> None:
    """A line of JSON: err, an errno or 0, and msg."""
    _send(server, client, b'{"err":%d,"msg":"%s"}\n' % (errno, text.encode("ascii", "replace")), end)


def _send(server: Server, client: Client, data: bytes, end: bool) -> None:
    client.out += data + (b"; " if client.mode == PROMPT and not end else b"")
    client.ending = client.ending or end
    _write(server, client)


def _write(server: Server, client: Client) -> None:
    """As much as it takes; the rest when it can take more."""
    try:
        while client.out:
            client.out = client.out[client.socket.send(client.out, MSG_DONTWAIT | MSG_NOSIGNAL) :]
    except BlockingIOError:
        _attend(server, client)
        return
    except OSError:
        _drop(server, client)
        return
    if client.ending:
        _drop(server, client)
    else:
        _attend(server, client)
