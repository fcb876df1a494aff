"""bind, connect, sendto, sendmsg, sendmmsg, socketpair: Unix sockets and loopback only.

The caller is a child (fake.py) that makes the sockets and looks at them; what our handlers read lies in AREA,
which both have at the same address.  Every denial has its control: the same call is shown to work when the
rules allow it.
"""

from __future__ import annotations

import array
import ctypes
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from errno import (
    EACCES,
    EADDRINUSE,
    EADDRNOTAVAIL,
    EAFNOSUPPORT,
    EBADF,
    ECONNREFUSED,
    EFAULT,
    EINVAL,
    EMSGSIZE,
    ENETUNREACH,
    ENOENT,
    ENOTCONN,
    ENOTSOCK,
    EOPNOTSUPP,
    EPIPE,
)
from pathlib import Path
from typing import Any

import pytest

from syd_pool.emulate import control
from syd_pool.emulate.netaddr import unix
from syd_pool.policy import Ruleset
from tests.emulate.fake import Caller, calling
from tests.emulate.native import unguarded
from tests.emulate.trees import handler

_AREA = ctypes.create_string_buffer(1 << 21)
BASE = ctypes.addressof(_AREA)
ALLOWED = (
    "sandbox/net:on",
    "allow/net+/***",
    "allow/net+@**",
    "allow/net+!unnamed",
    "allow/net/bind,net/connect+loopback!0-65535",
)
DGRAM, STREAM = socket.SOCK_DGRAM, socket.SOCK_STREAM
NOSIGNAL, DONTWAIT = socket.MSG_NOSIGNAL, socket.MSG_DONTWAIT


def ruleset(*rules: str) -> Ruleset:
    found = unguarded()
    for rule in rules:
        found.apply(rule)
    return found


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    with calling(ruleset(*ALLOWED), tmp_path) as found:
        yield found


# --- in the child -------------------------------------------------------------------------------------

_sockets: dict[int, socket.socket] = {}
_heard: list[int] = []


def make(family: int, kind: int, *options: tuple[int, int, int]) -> int:
    made = socket.socket(family, kind)
    for option in options:
        made.setsockopt(*option)
    _sockets[made.fileno()] = made
    return made.fileno()


def pair(kind: int) -> tuple[int, int]:
    a, b = socket.socketpair(socket.AF_UNIX, kind)
    _sockets[a.fileno()], _sockets[b.fileno()] = a, b
    return a.fileno(), b.fileno()


def on(fd: int, method: str, *args: Any) -> Any:
    """A method of the socket: its result or -errno."""
    try:
        return getattr(_sockets[fd], method)(*args)
    except OSError as error:
        return -(error.errno or 0)


def receive(fd: int, size: int = 4096) -> Any:
    """What has arrived: the data, the inodes of the descriptors, the credentials; b"" after them is nothing."""
    if not select.select([fd], [], [], 0)[0]:
        return None
    data, extra, _, _ = _sockets[fd].recvmsg(size, 1024)
    inodes, creds = [], None
    for _, kind, payload in extra:
        if kind == socket.SCM_RIGHTS:
            got = array.array("i", payload)
            inodes += [os.fstat(f).st_ino for f in got]
            for f in got:
                os.close(f)
        else:
            creds = struct.unpack("iii", payload)
    return data, inodes, creds


def lay_out(blobs: dict[int, bytes]) -> None:
    for offset, blob in blobs.items():
        ctypes.memmove(BASE + offset, blob, len(blob))


def hear_sigpipe() -> None:
    signal.signal(signal.SIGPIPE, lambda number, frame: _heard.append(number))


def heard() -> list[int]:
    found = list(_heard)
    _heard.clear()
    return found


def descriptor(kind: str) -> int:
    if kind == "memfd":
        return os.memfd_create("x")
    if kind == "fifo":
        return os.pipe()[0]
    if kind == "misc":
        return os.eventfd(0)
    if kind == "socket":
        return pair(DGRAM)[0]
    if kind == "symlink":
        os.symlink("nowhere", "link")
        return os.open("link", os.O_PATH | os.O_NOFOLLOW)
    where = {"": "/etc/passwd", "dir": "/", "cdev": "/dev/null", "magiclink": "/proc/self/exe"}[kind]
    return os.open(where, os.O_PATH | os.O_NOFOLLOW if kind == "magiclink" else os.O_RDONLY)


def inode(fd: int) -> int:
    return os.fstat(fd).st_ino


def fds() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


# --- addresses and headers ----------------------------------------------------------------------------


def v4(host: str, port: int, family: int = socket.AF_INET) -> bytes:
    return struct.pack("<H", family) + struct.pack(">H", port) + socket.inet_aton(host) + bytes(8)


def v6(host: str, port: int, scope: int = 0, family: int = socket.AF_INET6) -> bytes:
    return (
        struct.pack("<H", family)
        + struct.pack(">HI", port, 0)
        + socket.inet_pton(socket.AF_INET6, host)
        + struct.pack("<I", scope)
    )


def abstract(name: bytes) -> bytes:
    return b"\x01\0\0" + name


def cmsg(level: int, kind: int, payload: bytes) -> bytes:
    return control.join([(level, kind, payload)])


def rights(*numbers: int) -> bytes:
    return cmsg(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers).tobytes())


def header(caller: Caller, data: bytes, address: bytes = b"", extra: bytes = b"", at: int = 0) -> int:
    """Lay a message out in the caller; the address of its struct msghdr."""
    name, iov, ctl, body = at + 0x100, at + 0x200, at + 0x300, at + 0x1000
    msg = struct.pack(
        "Qi4xQQQQi4x", BASE + name if address else 0, len(address), BASE + iov, 2, BASE + ctl if extra else 0,
        len(extra), 0,
    )  # fmt: skip
    half = len(data) // 2
    segments = struct.pack("QQQQ", BASE + body, half, BASE + body + half, len(data) - half)
    caller.do(lay_out, {at: msg, name: address, iov: segments, ctl: extra, body: data})
    return BASE + at


def answer(caller: Caller, name: str, *args: int | bytes, rules: Ruleset | None = None) -> int:
    """Our handler's answer, under other rules if given."""
    call = caller.call(name, *args)
    call.rules = rules or caller.rules
    try:
        result = call.run(handler(name))
    finally:
        call.close_kept()
    assert result is not None
    return result


# --- bind ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [b"s", b"./s", b"d/s", b"d/../s", b"d/./s", b"@/s", b"@/d/../d/s", b"l/s", b"@/l/s", b"s/", b"d/s/", b"no/s",
     b"f/s", b"d", b"f", b"dangling", b".", b"..", b"d/.", b"x" * 107, b"x" * 108],
)  # fmt: skip
def test_binds_as_natively(tmp_path: Path, path: bytes) -> None:
    """Result, name of the socket, mode of the file: where it is made is held, what it is called is the caller's."""
    found = []
    for side in ("native", "ours"):
        top = tmp_path / side[0]
        (top / "d").mkdir(parents=True)
        (top / "f").touch()
        (top / "l").symlink_to("d")
        (top / "dangling").symlink_to("nowhere")
        address = unix(path.replace(b"@", os.fsencode(top)))
        with calling(ruleset(*ALLOWED), top, lambda: os.umask(0o27)) as caller:
            fd = caller.do(make, socket.AF_UNIX, DGRAM)
            args = (fd, address, min(len(address) - 1, 110))
            result = caller.native("bind", *args)[0] if side == "native" else answer(caller, "bind", *args)
            name = caller.do(on, fd, "getsockname").replace(str(top), "@")
        tree = sorted((str(p.relative_to(top)), oct(p.lstat().st_mode)) for p in top.rglob("*"))
        found.append((result, name, tree))
    assert found[0] == found[1]


def test_denied_bind_leaves_nothing(caller: Caller, tmp_path: Path) -> None:
    """EADDRNOTAVAIL and no file; the control is the same call, allowed.  What exists is EADDRINUSE either way."""
    fd = caller.do(make, socket.AF_UNIX, DGRAM)
    denied = ruleset(*ALLOWED, "deny/net/bind+/***")
    (tmp_path / "there").touch()
    for address, errno in ((unix(b"s"), EADDRNOTAVAIL), (unix(b"there"), EADDRINUSE)):
        assert answer(caller, "bind", fd, address, len(address), rules=denied) == -errno
    assert os.listdir(tmp_path) == ["there"]
    assert answer(caller, "bind", fd, unix(b"s"), len(unix(b"s"))) == 0
    assert (tmp_path / "s").is_socket()


@pytest.mark.parametrize("swap", [False, True])
def test_a_swapped_directory_gets_no_socket(tmp_path: Path, swap: bool) -> None:
    """A1: the directory on the way becomes a link to a denied one after the judgement: nothing is made there."""
    for name in ("ok", "secret"):
        (tmp_path / name).mkdir()
    path = os.fsencode(tmp_path / "ok/s")
    rules = ruleset(*ALLOWED, f"deny/net/bind+{tmp_path}/secret/***")

    def attack() -> None:
        if swap:
            (tmp_path / "ok").rename(tmp_path / "gone")
            (tmp_path / "ok").symlink_to("secret")

    with calling(rules, tmp_path) as caller:
        fd = caller.do(make, socket.AF_UNIX, DGRAM)
        call = caller.call("bind", fd, unix(path), len(unix(path)))
        call._before_effect = attack
        result = call.run(handler("bind"))
        call.close_kept()
    assert result == (-EACCES if swap else 0)
    assert (tmp_path / "ok/s").exists() != swap
    assert not os.listdir(tmp_path / "secret")


def test_a_socket_that_went_below_is_dead(tmp_path: Path) -> None:
    """What Landlock cannot tell, a directory below the judged one, is noticed, and nobody can connect."""
    (tmp_path / "ok/secret").mkdir(parents=True)
    path = os.fsencode(tmp_path / "ok/s")
    rules = ruleset(*ALLOWED, f"deny/net/bind+{tmp_path}/ok/secret/***")

    def attack() -> None:
        (tmp_path / "ok").rename(tmp_path / "gone")
        (tmp_path / "ok").symlink_to("gone/secret")

    with calling(rules, tmp_path) as caller:
        fd = caller.do(make, socket.AF_UNIX, STREAM)
        call = caller.call("bind", fd, unix(path), len(unix(path)))
        call._before_effect = attack
        assert call.run(handler("bind")) == -EADDRNOTAVAIL
        call.close_kept()
        caller.do(on, fd, "listen")
        with socket.socket(socket.AF_UNIX) as other, pytest.raises(ConnectionRefusedError):
            other.connect(str(tmp_path / "gone/secret/s"))


def test_abstract_and_unnamed(caller: Caller) -> None:
    """@name is judged with every byte; an empty address is !unnamed and the kernel finds a name."""
    one, two = (caller.do(make, socket.AF_UNIX, DGRAM) for _ in range(2))
    name = b"syd-pool-%d\0null" % os.getpid()
    no_null = ruleset(*ALLOWED, f"deny/net/bind+{(b'@' + name).hex()}")
    no_name = ruleset(*ALLOWED, "deny/net/bind+!unnamed")
    address = abstract(name)
    assert answer(caller, "bind", one, address + b"x", len(address), rules=no_null) == -EADDRNOTAVAIL
    assert answer(caller, "bind", one, address, len(address), rules=no_name) == 0
    assert caller.do(on, one, "getsockname") == b"\0" + name
    assert answer(caller, "bind", two, abstract(b""), 2, rules=no_name) == -EADDRNOTAVAIL
    assert answer(caller, "bind", two, abstract(b""), 2, rules=no_null) == 0
    assert len(caller.do(on, two, "getsockname")) == 6


@pytest.mark.parametrize(
    ("family", "address", "judged", "bound"),
    [
        (socket.AF_INET, v4("127.0.0.1", 0), "127.0.0.1!0", "127.0.0.1"),
        (socket.AF_INET, v4("0.0.0.0", 0), "127.0.0.1!0", "127.0.0.1"),
        (socket.AF_INET, v4("0.0.0.0", 0, socket.AF_UNSPEC), "127.0.0.1!0", "127.0.0.1"),
        (socket.AF_INET6, v6("::1", 0, 99), "::1!0", "::1"),
        (socket.AF_INET6, v6("::", 0), "::1!0", "::1"),
        (socket.AF_INET6, v6("::ffff:127.0.0.1", 0), "127.0.0.1!0", "::ffff:127.0.0.1"),
        (socket.AF_INET6, v6("::ffff:0.0.0.0", 0), "127.0.0.1!0", "::ffff:127.0.0.1"),
    ],
)  # fmt: skip
def test_bind_to_an_ip_address(caller: Caller, family: int, address: bytes, judged: str, bound: str) -> None:
    """A mapped address is the v4 it is; the any address is loopback; the scope is dropped."""
    fd = caller.do(make, family, DGRAM)
    only = ruleset("sandbox/net:on", f"allow/net/bind+{judged}")
    nothing = ruleset("sandbox/net:on", "allow/net/bind+any!0", f"deny/net/bind+{judged}")
    assert answer(caller, "bind", fd, address, len(address), rules=nothing) == -EADDRNOTAVAIL
    assert caller.do(on, fd, "getsockname")[1] == 0
    assert answer(caller, "bind", fd, address, len(address), rules=only) == 0
    assert caller.do(on, fd, "getsockname")[0] == bound


def test_any_address_when_allowed(caller: Caller) -> None:
    fd = caller.do(make, socket.AF_INET, DGRAM)
    lifted = ruleset("sandbox/net:on", "allow/net/bind+0.0.0.0!0", "trace/allow_unsafe_any_addr:1")
    assert answer(caller, "bind", fd, v4("0.0.0.0", 0), 16, rules=lifted) == 0
    assert caller.do(on, fd, "getsockname")[0] == "0.0.0.0"


# --- connect ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [STREAM, DGRAM])
@pytest.mark.parametrize("spelling", [b"s", b"l", b"d/../s", b"@/s"])
def test_connect_to_a_path(caller: Caller, tmp_path: Path, kind: int, spelling: bytes) -> None:
    """Judged is where the path leads; denied is ECONNREFUSED and no connection."""
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("s")
    address = unix(spelling.replace(b"@", os.fsencode(tmp_path)))
    denied = ruleset(*ALLOWED, f"deny/net/connect+{tmp_path}/s")
    fd = caller.do(make, socket.AF_UNIX, kind)
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(str(tmp_path / "s"))
        if kind == STREAM:
            server.listen()
        assert answer(caller, "connect", fd, address, len(address), rules=denied) == -ECONNREFUSED
        assert caller.do(on, fd, "getpeername") == -ENOTCONN
        assert answer(caller, "connect", fd, address, len(address)) == 0
        assert caller.do(on, fd, "getpeername") == str(tmp_path / "s")


@pytest.mark.parametrize(("family", "host"), [(2, "127.0.0.1"), (10, "::1"), (10, "::ffff:127.0.0.1")])
def test_connect_over_ip(caller: Caller, family: int, host: str) -> None:
    """A mapped address falls under the rules of v4, and only those."""
    with socket.create_server((host, 0), family=family, dualstack_ipv6=host.startswith("::ffff")) as server:
        port = server.getsockname()[1]
        address = v4(host, port) if family == 2 else v6(host, port)
        judged, other = ("::1", "127.0.0.1") if host == "::1" else ("127.0.0.1", "::1")
        fd = caller.do(make, family, STREAM)
        for rules in ([], [f"allow/net/connect+{other}!{port}"], [f"allow/net/connect+{judged}!{port - 1}"]):
            denied = ruleset("sandbox/net:on", *rules)
            assert answer(caller, "connect", fd, address, len(address), rules=denied) == -ECONNREFUSED
        assert not select.select([server], [], [], 0)[0]
        only = ruleset("sandbox/net:on", f"allow/net/connect+{judged}!{port}")
        assert answer(caller, "connect", fd, address, len(address), rules=only) == 0
        assert caller.do(on, fd, "getpeername")[1] == port


def test_only_what_may_wait_is_announced(caller: Caller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = v4(*server.getsockname())
        for kind, blocked in ((STREAM, 1), (DGRAM, 0), (STREAM | socket.SOCK_NONBLOCK, 0)):
            call = caller.call("connect", caller.do(make, socket.AF_INET, kind), address, 16)
            call.run(handler("connect"))
            call.close_kept()
            assert call.blocked == blocked


def test_the_any_address_is_no_peer(caller: Caller) -> None:
    """ENETUNREACH whatever the rules say (syd(2), allow_unsafe_any_addr); with the option the rules decide."""
    lifted = ruleset("sandbox/net:on", "trace/allow_unsafe_any_addr:1")
    for family, address in ((2, v4("0.0.0.0", 1)), (10, v6("::", 1)), (10, v6("::ffff:0.0.0.0", 1))):
        fd = caller.do(make, family, DGRAM)
        assert answer(caller, "connect", fd, address, len(address)) == -ENETUNREACH
        assert answer(caller, "sendto", fd, b"x", 1, 0, address, len(address)) == -ENETUNREACH
        assert answer(caller, "connect", fd, address, len(address), rules=lifted) == -ECONNREFUSED


def test_letting_go_of_the_peer_is_not_judged(caller: Caller) -> None:
    with socket.socket(socket.AF_INET, DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        fd = caller.do(make, socket.AF_INET, DGRAM)
        caller.do(on, fd, "connect", server.getsockname())
        nothing = ruleset("sandbox/net:on")
        assert answer(caller, "connect", fd, v4("0.0.0.0", 0, socket.AF_UNSPEC), 16, rules=nothing) == 0
        assert caller.do(on, fd, "getpeername") == -ENOTCONN


def test_families_without_rules(caller: Caller) -> None:
    """What no rule can be about is refused, unless the option says otherwise (then it is the kernel's answer)."""
    try:
        fd = caller.do(make, socket.AF_VSOCK, STREAM)
    except (OSError, AssertionError):
        pytest.skip("no AF_VSOCK")
    address = struct.pack("<HHIIB3x", socket.AF_VSOCK, 0, 1, 1, 0)
    assert answer(caller, "connect", fd, address, len(address)) == -EAFNOSUPPORT
    lifted = ruleset("sandbox/net:on", "trace/allow_unsupp_socket:1")
    assert (
        answer(caller, "connect", fd, address, len(address), rules=lifted)
        == caller.native("connect", fd, address, len(address))[0]
    )


@pytest.mark.parametrize("name", ["bind", "connect"])
def test_wrong_arguments(caller: Caller, name: str) -> None:
    """The kernel's errno, in the kernel's order."""
    fd, dgram = caller.do(make, socket.AF_INET, STREAM), caller.do(make, socket.AF_UNIX, DGRAM)
    good = v4("127.0.0.1", 1)
    for args in (
        (-1, 0, 0), (999, 0, 0), (1, 0, 0), (fd, 0, 16), (fd, 8, 16), (fd, good, 0), (fd, good, 1), (fd, good, 2),
        (fd, good, 15), (fd, good, 129), (fd, good, -1), (fd, good, 1 << 32), (fd, unix(b"x"), 4),
        (dgram, good, 16), (dgram, unix(b"x"), 111), (dgram, unix(b"no/x"), 8), (dgram, 0, 10),
    ):  # fmt: skip
        assert answer(caller, name, *args) == caller.native(name, *args)[0], args
    assert answer(caller, name, 1, good, 16) == -ENOTSOCK
    assert answer(caller, name, 999, good, 16) == -EBADF
    assert answer(caller, name, fd, 8, 16) == -EFAULT


# --- sending ------------------------------------------------------------------------------------------


def send(caller: Caller, name: str, fd: int, address: bytes, rules: Ruleset | None = None, extra: bytes = b"") -> int:
    """One byte by any of the calls."""
    if name == "sendto":
        return answer(caller, name, fd, b"x", 1, 0, address or 0, len(address), rules=rules)
    msg = header(caller, b"x", address, extra)
    if name == "sendmsg":
        return answer(caller, name, fd, msg, 0, rules=rules)
    return answer(caller, name, fd, msg, 1, 0, rules=rules)


@pytest.mark.parametrize("name", ["sendto", "sendmsg", "sendmmsg"])
@pytest.mark.parametrize("kind", ["path", "abstract", "v4", "unspec", "v6", "mapped", "v4 by v6"])
def test_sending_to_an_address(caller: Caller, tmp_path: Path, name: str, kind: str) -> None:
    """Denied is ENOTCONN and nothing arrives; allowed, the very same arguments arrive.

    unspec: udp_sendmsg() takes AF_UNSPEC for AF_INET, so the rules must too.
    """
    family = {"path": 1, "abstract": 1, "v4": 2, "unspec": 2, "v6": 10, "mapped": 2, "v4 by v6": 2}[kind]
    with socket.socket(family, DGRAM) as server:
        if family == 1:
            path = os.fsencode(tmp_path / "s") if kind == "path" else b"\0syd-pool-%d" % os.getpid()
            server.bind(path)
            address = unix(path) if kind == "path" else abstract(path[1:])
        else:
            server.bind(("::1" if family == 10 else "127.0.0.1", 0))
            port = server.getsockname()[1]
            address = {
                "v4": v4("127.0.0.1", port),
                "unspec": v4("127.0.0.1", port, socket.AF_UNSPEC),
                "v6": v6("::1", port),
                "mapped": v6("::ffff:127.0.0.1", port),
                "v4 by v6": v4("127.0.0.1", port),
            }[kind]
        fd = caller.do(make, 10 if "6" in kind or kind == "mapped" else family, DGRAM)
        assert send(caller, name, fd, address, ruleset("sandbox/net:on", "allow/net/bind,net/sendfd+/***")) == -ENOTCONN
        assert not select.select([server], [], [], 0)[0]
        assert send(caller, name, fd, address) == 1
        assert server.recv(10) == b"x"


@pytest.mark.parametrize("name", ["sendmsg", "sendmmsg"])
def test_rights_are_judged(caller: Caller, name: str) -> None:
    """net/sendfd on !unnamed: EACCES and nothing arrives; allowed, the very file arrives."""
    fd, peer = caller.do(pair, DGRAM)
    file = caller.do(descriptor, "")
    before = caller.do(fds)
    assert send(caller, name, fd, b"", ruleset(*ALLOWED, "deny/net/sendfd+!unnamed"), rights(file)) == -EACCES
    assert caller.do(receive, peer) is None
    assert send(caller, name, fd, b"", None, rights(file, file)) == 1
    assert caller.do(receive, peer)[:2] == (b"x", [caller.do(inode, file)] * 2)
    assert caller.do(fds) == before


def test_rights_to_an_address(caller: Caller, tmp_path: Path) -> None:
    """With an address it is that which net/sendfd is asked about."""
    server = caller.do(make, socket.AF_UNIX, DGRAM)
    caller.do(on, server, "bind", "s")
    fd, file = caller.do(make, socket.AF_UNIX, DGRAM), caller.do(descriptor, "")
    denied = ruleset(*ALLOWED, f"deny/net/sendfd+{tmp_path}/s")
    assert send(caller, "sendmsg", fd, unix(b"s"), denied) == 1  # without descriptors nobody asks
    assert send(caller, "sendmsg", fd, unix(b"s"), denied, rights(file)) == -EACCES
    assert send(caller, "sendmsg", fd, unix(b"s"), ruleset(*ALLOWED, "deny/net/sendfd+!unnamed"), rights(file)) == 1


@pytest.mark.parametrize("kind", ["dir", "cdev", "socket", "fifo", "memfd", "misc", "symlink", "magiclink"])
def test_kinds_of_files_that_are_not_passed(caller: Caller, kind: str) -> None:
    """D2: EACCES by what it is; its option, and no other, lets it pass."""
    fd, peer = caller.do(pair, DGRAM)
    file = caller.do(descriptor, kind)
    others = ["dir", "cdev", "socket", "fifo", "memfd", "misc", "symlink", "magiclink"]
    others.remove(kind)
    without = ruleset(*ALLOWED, *(f"trace/allow_unsafe_sendfd_{o}:1" for o in others))
    assert send(caller, "sendmsg", fd, b"", without, rights(file)) == -EACCES
    assert caller.do(receive, peer) is None
    lifted = ruleset(*ALLOWED, f"trace/allow_unsafe_sendfd_{kind}:1")
    assert send(caller, "sendmsg", fd, b"", lifted, rights(file)) == 1
    assert caller.do(receive, peer)[1] == [caller.do(inode, file)]


def test_the_receiver_sees_the_caller(caller: Caller) -> None:
    """SO_PASSCRED shows the caller's pid and ids, said by it or not (needs CAP_SYS_ADMIN)."""
    if os.geteuid():
        pytest.skip("only CAP_SYS_ADMIN may name another process")
    fd, peer = caller.do(pair, DGRAM)
    caller.do(on, peer, "setsockopt", socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    ucred = struct.pack("iii", caller.pid, 0, 0)
    for extra in (b"", cmsg(socket.SOL_SOCKET, control.SCM_CREDENTIALS, ucred)):
        assert send(caller, "sendmsg", fd, b"", None, extra) == 1
        assert caller.do(receive, peer)[2] == (caller.pid, 0, 0)


def test_nobody_speaks_for_the_worker(caller: Caller) -> None:
    """Credentials that name the process that sends for us are refused; natively too, for want of that pid."""
    fd, peer = caller.do(pair, DGRAM)
    ours = cmsg(socket.SOL_SOCKET, control.SCM_CREDENTIALS, struct.pack("iii", os.getpid(), 0, 0))
    assert send(caller, "sendmsg", fd, b"", None, ours) == -1
    assert caller.do(receive, peer) is None


def test_broken_headers(caller: Caller) -> None:
    """The kernel's errno for pointers and sizes that are wrong, and nothing arrives."""
    fd, peer = caller.do(pair, DGRAM)
    good = header(caller, b"x")
    fields = list(struct.unpack("Qi4xQQQQi4x", bytes(caller.do(peek, 0, 56))))
    for place, value in ((0, 8), (1, -1), (2, 8), (3, 1025), (3, 1 << 40), (4, 8)):
        broken = list(fields)
        broken[place] = value
        if place == 0:
            broken[1] = 16
        if place == 1:
            broken[0] = BASE
        if place == 4:
            broken[5] = 24
        caller.do(lay_out, {0: struct.pack("Qi4xQQQQi4x", *broken)})
        native = caller.native("sendmsg", fd, good, 0)[0]
        assert native < 0
        assert answer(caller, "sendmsg", fd, good, 0) == native, (place, value)
    assert answer(caller, "sendmsg", fd, 8, 0) == -EFAULT
    assert answer(caller, "sendmsg", 1, good, 0) == -ENOTSOCK
    assert caller.do(receive, peer) is None


def peek(offset: int, size: int) -> bytes:
    return _AREA.raw[offset : offset + size]


@pytest.mark.parametrize(
    "extra",
    [b"x" * 15, b"x" * 16, struct.pack("Qii", 15, 1, 1), struct.pack("Qii", 17, 1, 1), struct.pack("Qii", 16, 1, 1),
     struct.pack("Qii", 16, 1, 99), rights(999), rights(-1), rights(*[0] * 254), rights(0)[:-1]],
)  # fmt: skip
def test_broken_control_messages(caller: Caller, extra: bytes) -> None:
    fd, _ = caller.do(pair, DGRAM)
    msg = header(caller, b"x", b"", extra)
    lifted = ruleset(*ALLOWED, *(f"trace/allow_unsafe_sendfd_{k}:1" for k in ("cdev", "fifo", "misc")))
    assert answer(caller, "sendmsg", fd, msg, 0, rules=lifted) == caller.native("sendmsg", fd, msg, 0)[0]


def test_sendmmsg_counts(caller: Caller) -> None:
    """As many as went, each with its length; the first refusal is the errno only when it comes first."""
    fd = caller.do(make, socket.AF_UNIX, DGRAM)
    for name in ("a", "b"):
        caller.do(on, caller.do(make, socket.AF_UNIX, DGRAM), "bind", name)
    denied = ruleset(*ALLOWED, "deny/net/connect+/***/b")
    headers = b""
    for i, name in enumerate((b"a", b"a", b"b", b"a")):
        at = 0x10000 * (i + 1)
        header(caller, b"y" * (i + 1), unix(name), at=at)
        headers += bytes(caller.do(peek, at, 56)) + struct.pack("I4x", 77)
    caller.do(lay_out, {0: headers})

    def lengths() -> list[int]:
        return [struct.unpack_from("I", caller.do(peek, 64 * i + 56, 4))[0] for i in range(4)]

    assert answer(caller, "sendmmsg", fd, BASE, 4, 0, rules=denied) == 2
    assert lengths() == [1, 2, 77, 77]
    assert answer(caller, "sendmmsg", fd, BASE + 128, 2, 0, rules=denied) == -ENOTCONN
    assert answer(caller, "sendmmsg", fd, BASE, 4, 0) == 4
    assert lengths() == [1, 2, 3, 4]
    assert answer(caller, "sendmmsg", fd, BASE, 0, 0) == caller.native("sendmmsg", fd, BASE, 0, 0)[0] == 0


@pytest.mark.parametrize("name", ["sendto", "sendmsg", "sendmmsg"])
def test_sigpipe_is_the_caller_s(caller: Caller, name: str) -> None:
    """EPIPE raises it once in the caller, never with MSG_NOSIGNAL, never for datagrams; we survive."""
    caller.do(hear_sigpipe)
    for kind in (STREAM, DGRAM):
        fd, peer = caller.do(pair, kind)
        caller.do(on, peer, "shutdown", socket.SHUT_RDWR)
        for flags in (0, NOSIGNAL):
            msg = header(caller, b"x")
            args = {"sendto": (fd, b"x", 1, flags, 0, 0), "sendmsg": (fd, msg, flags), "sendmmsg": (fd, msg, 1, flags)}
            native = caller.native(name, *args[name])[0], caller.do(heard)
            ours = answer(caller, name, *args[name]), caller.do(heard)
            assert ours == native == (-EPIPE, [13] if kind == STREAM and not flags else [])


def test_a_stream_takes_what_fits(caller: Caller) -> None:
    """Without waiting as much as natively; with waiting everything, in order."""
    data = os.urandom(600_000)
    fd, peer = caller.do(pair, STREAM)
    msg = header(caller, data)
    sent = answer(caller, "sendmsg", fd, msg, DONTWAIT)
    assert 0 < sent < len(data)
    assert answer(caller, "sendmsg", fd, msg, DONTWAIT) == -11
    other = caller.call("sendmsg", fd, msg, 0).own_fd(peer)
    with socket.socket(fileno=other) as reader:
        assert read_all(reader, sent) == data[:sent]
        child = os.fork()
        if not child:
            os._exit(0 if read_all(reader, len(data)) == data else 1)
        assert answer(caller, "sendmsg", fd, msg, 0) == len(data)
        assert os.waitpid(child, 0)[1] == 0


def read_all(reader: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += reader.recv(size - len(found))
    return found


def test_too_long_datagrams(caller: Caller) -> None:
    fd, _ = caller.do(pair, DGRAM)
    msg = header(caller, b"x" * 1_000_000)
    assert answer(caller, "sendmsg", fd, msg, 0) == caller.native("sendmsg", fd, msg, 0)[0] == -EMSGSIZE
    assert answer(caller, "sendto", fd, BASE, 1 << 30, 0, 0, 0) == -EMSGSIZE


def test_steering_control_messages_are_taken_out(caller: Caller) -> None:
    """IP_PKTINFO names a source address nobody judged: dropped unless the option lifts it (then the kernel refuses)."""
    with socket.socket(socket.AF_INET, DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        fd, address = caller.do(make, socket.AF_INET, DGRAM), v4(*server.getsockname())
        info = cmsg(0, 8, struct.pack("i", 0) + socket.inet_aton("127.0.0.77") + bytes(4))
        assert send(caller, "sendmsg", fd, address, None, info) == 1
        assert server.recvfrom(9)[1][0] == "127.0.0.1"
        lifted = ruleset(*ALLOWED, "trace/allow_unsafe_ip_pktinfo:1")
        assert send(caller, "sendmsg", fd, address, lifted, info) == 1
        assert server.recvfrom(9)[1][0] == "127.0.0.77"


# --- socketpair ---------------------------------------------------------------------------------------


def test_socketpair(caller: Caller) -> None:
    """Judged as !unnamed and then the kernel's: nothing of it is in memory but where the answer goes."""
    call = caller.call("socketpair", 1, 1, 0, BASE)
    assert call.run(handler("socketpair")) is None
    assert call.resumed
    call.rules = ruleset("sandbox/net:on", "allow/net/bind+/***")
    call.resumed = False
    assert call.run(handler("socketpair")) == -EOPNOTSUPP
    assert not call.resumed


def test_nothing_stays_open(caller: Caller) -> None:
    """A worker keeps no descriptor of a call, whatever became of it."""
    fd, peer = caller.do(pair, DGRAM)
    file = caller.do(descriptor, "")
    before = fds()
    for _ in range(20):
        send(caller, "sendmsg", fd, b"", None, rights(file))
        caller.do(receive, peer)
        answer(caller, "bind", fd, unix(b"no/x"), 8)
        answer(caller, "connect", fd, unix(b"x"), 4)
    assert fds() == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > len(before)
    assert answer(caller, "connect", fd, unix(b"x"), 4) == -ENOENT
    assert answer(caller, "bind", fd, unix(b"x"), 111) == -EINVAL


# --- races and interrupts -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sendto", "sendmsg", "connect", "bind"])
def test_memory_that_changes_after_the_judgement(caller: Caller, name: str) -> None:
    """A7: address, header and descriptor become others just before the effect: the judged ones are used.

    The control: the same change before the judgement is seen.
    """
    with socket.socket(socket.AF_INET, DGRAM) as good, socket.socket(socket.AF_INET, DGRAM) as bad:
        for server in (good, bad):
            server.bind(("127.0.0.1", 0))
        ports = good.getsockname()[1], bad.getsockname()[1]
        if name == "bind":
            ports = ports[0] ^ 1, ports[1] ^ 1
        only = ruleset("sandbox/net:on", f"allow/net/connect,net/bind+127.0.0.1!{ports[0]}")
        names = [v4("127.0.0.1", port) for port in ports]
        fd = caller.do(make, socket.AF_INET, DGRAM)
        msg = header(caller, b"x", names[0])
        where = BASE + 0x100
        args = {"sendto": (fd, b"x", 1, 0, where, 16), "sendmsg": (fd, msg, 0)}.get(name, (fd, where, 16))
        call = caller.call(name, *args)
        call.rules = only

        def attack() -> None:
            caller.do(lay_out, {0x100: names[1]})

        call._before_effect = attack
        assert call.run(handler(name)) == (1 if name.startswith("send") else 0)
        call.close_kept()
        if name == "bind":
            assert caller.do(on, fd, "getsockname")[1] == ports[0]
        elif name == "connect":
            assert caller.do(on, fd, "getpeername")[1] == ports[0]
        else:
            assert good.recv(9) == b"x"
            assert not select.select([bad], [], [], 0)[0]
        errno = {"bind": EADDRNOTAVAIL, "connect": ECONNREFUSED}.get(name, ENOTCONN)
        assert answer(caller, name, *args, rules=only) == -errno


_INTERRUPTED = """
import os, signal, socket, threading, time
class Alarm(Exception): pass
def alarm(*a): raise Alarm
listener = socket.socket(socket.AF_UNIX); listener.bind("full"); listener.listen(0)
first = socket.socket(socket.AF_UNIX); first.connect("full")
s = socket.socket(socket.AF_UNIX)
signal.signal(signal.SIGALRM, alarm); signal.setitimer(signal.ITIMER_REAL, 0.2)
t = time.monotonic()
try: s.connect("full"); print("connected too early")
except Alarm: print("EINTR", time.monotonic() - t < 1)
signal.signal(signal.SIGALRM, lambda *a: None); signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.2); threading.Timer(0.5, listener.accept).start()
s.connect("full"); print("restarted", s.getpeername(), time.monotonic() - t < 2)
a, b = socket.socketpair(); signal.signal(signal.SIGALRM, alarm); signal.setitimer(signal.ITIMER_REAL, 0.2)
try: print("sent", a.sendmsg([b"x" * 400000]))
except Alarm: b.setblocking(False); print("partial", 0 < len(b.recv(400000)) < 400000)
"""


def test_blocked_calls_are_interrupted(tmp_path: Path) -> None:
    """H4: connect and sendmsg that wait end for a handler, restart with SA_RESTART, never send twice."""
    command = [sys.executable, "-I", "-S", "-c", _INTERRUPTED]
    syd = [str(Path(__file__).parents[2] / "scripts/syd"), "-poff", *(f"-m{rule}" for rule in ALLOWED), "--"]
    native, ours = tmp_path / "native", tmp_path / "ours"
    native.mkdir()
    ours.mkdir()
    expected = subprocess.run(command, cwd=native, capture_output=True, timeout=30, check=True).stdout
    assert expected == b"EINTR True\nrestarted full True\npartial True\n"
    found = subprocess.run([*syd, *command], cwd=ours, capture_output=True, timeout=60)
    assert (found.returncode, found.stdout) == (0, expected), found.stderr
