"""Who is at the other end of a Unix socket: SO_PEERCRED, SO_PEERPIDFD, SCM_CREDENTIALS.

A worker connects and sends for the command, so the kernel takes it for the peer.  What the command is told must be
what it is told natively: each program prints what it sees with its own pids by name, and both outputs are compared.
"""

from __future__ import annotations

import os
import socket
import struct
from errno import EPERM, ESRCH
from pathlib import Path

import pytest
from arena import Arena, Runner, is_real_syd
from test_identity import small_pid_space

from syd_pool.linux.unix_diag import look, open_diag, peer_cookie
from syd_pool.shm import peers
from syd_pool.tracer import peers as noting

PYTHON = "/usr/bin/python3"
NET = ["sandbox/net:on", "allow/net/bind,net/connect,net/sendfd+/***", "allow/net/bind,net/connect,net/sendfd+@***",
       "allow/net/bind,net/connect,net/sendfd+!unnamed", "lock:on"]  # fmt: skip

pytestmark = [
    pytest.mark.attack,
    pytest.mark.skipif(not Path(PYTHON).exists(), reason="needs the system's Python"),
    pytest.mark.skipif(is_real_syd(), reason="compares with the kernel's answers"),
]

BEGIN = r"""
import os, socket, struct, sys, time
CRED, PIDFD = 17, 77
names = {os.getpid(): "server", 0: "unknown"}

def cred(s):
    pid, uid, gid = struct.unpack("iII", s.getsockopt(1, CRED, 12))
    return names.get(pid, "stranger") + f" {uid == os.getuid()} {gid == os.getgid()}"

def pidfd(s):
    try:
        fd = s.getsockopt(1, PIDFD)
    except OSError as error:
        return f"errno {error.errno}"
    with open(f"/proc/self/fdinfo/{fd}") as file:
        text = file.read()
    flags = int(text.split("flags:")[1].split()[0], 8)
    os.close(fd)
    pid = int(text.split("\nPid:")[1].split()[0])
    return names.get(pid, "stranger") + f" {bool(flags & 0o2000000)}"

def forked(name, function, *args):
    pid = os.fork()
    if not pid:
        try:
            function(*args)
        finally:
            os._exit(0)
    names[pid] = name
    return pid

def listening(kind, address):
    s = socket.socket(socket.AF_UNIX, kind)
    s.bind(address)
    s.listen(64)
    return s
"""

SEES = """
def client(kind, address, go_on):
    with socket.socket(socket.AF_UNIX, kind) as c:
        c.connect(address)
        c.send(b"x")
        os.read(go_on, 1)

def pair(n):
    a, b = socket.socketpair()
    print(n, cred(a), cred(b), pidfd(a))

where = (1, "\\0peer-%d" % os.getpid()), (1, sys.argv[1] + "/s1"), (5, sys.argv[1] + "/s2")
for n, (kind, address) in enumerate(where):
    server = listening(kind, address)
    go_on, say = os.pipe()
    pids = [forked("client" + str(i), client, kind, address, go_on) for i in range(3)]
    accepted = [server.accept()[0] for _ in pids]
    print(n, sorted(cred(s) for s in accepted), sorted(pidfd(s) for s in accepted))
    print(n, accepted[0].getsockopt(1, CRED, 3)[:3] == accepted[0].getsockopt(1, CRED, 12)[:3])
    own = socket.socket(socket.AF_UNIX, kind)
    own.connect(address)
    other = server.accept()[0]
    print(n, cred(own), cred(other), pidfd(own), pidfd(other), cred(server))
    os.write(say, b"xxx")
    for pid in pids:
        os.waitpid(pid, 0)
    pair(n)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(struct.unpack("iii", udp.getsockopt(1, CRED, 12)), pidfd(udp))
"""


def both(runner: Runner, arena: Arena, program: str, rules: list[str] = NET, *words: str) -> tuple[str, str]:
    """What a program prints natively and in the sandbox."""
    said = []
    for boxed in (False, True):
        command = [PYTHON, "-I", "-S", "-c", BEGIN + program, str(arena.box), *words]
        outcome = runner.boxed(command, [*arena.rules(), *rules], 60) if boxed else runner.native(command, 60)
        assert outcome.status == 0 and not outcome.err, (boxed, outcome.err)
        for name in ("s1", "s2"):
            (arena.box / name).unlink(missing_ok=True)
        said.append(outcome.out)
    return said[0], said[1]


def test_who_connects_is_the_caller(runner: Runner, arena: Arena) -> None:
    """SO_PEERCRED and SO_PEERPIDFD of accepted, connecting, listening and paired sockets, as natively."""
    native, boxed = both(runner, arena, SEES)
    assert "client0 True True" in native and "stranger" not in native, native
    assert boxed == native


def test_who_is_outside_sees_a_worker(runner: Runner, arena: Arena) -> None:
    """The control: the kernel itself does not know the caller; what the command is told is our doing."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(arena.box / "outside"))
        os.chmod(arena.box / "outside", 0o777)
        server.listen()
        program = "c = socket.socket(socket.AF_UNIX); c.connect(sys.argv[1] + '/outside'); c.send(b'%d' % os.getpid())"
        command = [PYTHON, "-I", "-S", "-c", BEGIN + program, str(arena.box)]
        for boxed in (False, True):
            outcome = runner.boxed(command, [*arena.rules(), *NET]) if boxed else runner.native(command)
            assert outcome.status == 0, outcome.err
            accepted, _ = server.accept()
            with accepted:
                said = int(accepted.recv(20))
                pid = struct.unpack("iII", accepted.getsockopt(1, 17, 12))[0]
            assert (pid == said) is not boxed


ARGUMENTS = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
server = listening(1, "\\0arguments-%d" % os.getpid())
client = socket.socket(socket.AF_UNIX)
client.connect(server.getsockname())
accepted = server.accept()[0]
page = ctypes.create_string_buffer(64)
length = ctypes.c_int()

def ask(fd, name, size, value=None, where=None):
    length.value = size
    page.value = b""
    r = libc.syscall(55, fd, ctypes.c_long(0x500000001), ctypes.c_long(0x700000000 + name),
                     ctypes.addressof(page) if value is None else value,
                     ctypes.addressof(length) if where is None else where)
    return r if r >= 0 else -ctypes.get_errno(), length.value

before = len(os.listdir("/proc/self/fd"))
for name in (CRED, PIDFD):
    for fd in (accepted.fileno(), 0, 99, -1):
        print(name, fd > 2, [ask(fd, name, size) for size in (-1, -2147483648)])
        print(name, fd > 2, ask(fd, name, 12, 8), ask(fd, name, 12, None, 8))
        print(name, fd > 2, ask(fd, name, 0, 8 if name == CRED and fd < 0 else None)[0] in (0, -9, -88))
print(ask(accepted.fileno(), CRED, 100), ask(accepted.fileno(), CRED, 5))
print(len(os.listdir("/proc/self/fd")) - before)
"""


def test_arguments_are_taken_as_the_kernel_takes_them(runner: Runner, arena: Arena) -> None:
    """Sizes, bad pointers, bad descriptors, rubbish in the upper halves; no descriptor is left behind by a failure."""
    native, boxed = both(runner, arena, ARGUMENTS)
    assert boxed == native


PASSED_ON = """
server = listening(1, "\\0passed-%d" % os.getpid())

def connects_again(c, told):
    try:
        c.connect(server.getsockname())
    except OSError as error:
        os.write(told, b"%d" % error.errno)
    time.sleep(20)

def connects_and_goes():
    with socket.socket(socket.AF_UNIX) as c:
        c.connect(server.getsockname())
        hear, told = os.pipe()
        pid = os.fork()
        if not pid:
            connects_again(c, told)
            os._exit(0)
        c.send(b"%d %s" % (pid, os.read(hear, 9)))
        os._exit(0)

gone = forked("gone", connects_and_goes)
accepted = server.accept()[0]
heir, errno = map(int, accepted.recv(99).split())
names[heir] = "heir"
print(errno, cred(accepted))
os.waitpid(gone, 0)
print(cred(accepted))
print("pidfd", pidfd(accepted))
os.kill(heir, 9)
"""


def test_who_connected_stays_the_peer(runner: Runner, arena: Arena) -> None:
    """A child that inherits the socket, and tries to connect it again, does not become the peer; nor when the
    parent has ended.  There is no pidfd of who has ended."""
    native, boxed = both(runner, arena, PASSED_ON)
    native, boxed = (text.partition("pidfd ") for text in (native, boxed))
    assert boxed[0] == native[0] == "106 gone True True\ngone True True\n"
    assert boxed[2] == f"errno {ESRCH}\n"
    assert native[2] in (boxed[2], "stranger True\n")  # since Linux 6.16 of who has ended, too: Pid -1


CLOSED = """
server = listening(1, "\\0closed-%d" % os.getpid())
def client():
    with socket.socket(socket.AF_UNIX) as c:
        c.connect(server.getsockname())
for n in range(20):
    os.waitpid(forked("client", client), 0)
    accepted = server.accept()[0]
    print(cred(accepted), pidfd(accepted) if n % 2 else "")
"""


def test_of_a_closed_end_no_worker_is_shown(runner: Runner, arena: Arena) -> None:
    """The kernel cannot name an end that is closed: pid 0, with the right ids, and no pidfd; never one of ours."""
    native, boxed = both(runner, arena, CLOSED)
    assert set(native.splitlines()) <= {"client True True ", f"client True True errno {ESRCH}",
                                        "client True True stranger True"}  # fmt: skip
    assert set(boxed.splitlines()) == {"unknown True True ", f"unknown True True errno {ESRCH}"}


RECYCLED = """
def client(go_on):
    c = socket.socket(socket.AF_UNIX)
    c.connect(server.getsockname())
    if os.fork() == 0:
        os.read(go_on, 1)
    os._exit(0)

server = listening(1, "\\0recycled-%d" % os.getpid())
go_on, say = os.pipe()
while os.waitpid(forked("", os._exit, 0), 0)[0] < 310:  # those below 300 are used once only (RESERVED_PIDS)
    pass
gone = forked("gone", client, go_on)
accepted = server.accept()[0]
os.waitpid(gone, 0)
for _ in range(2000):
    pid = os.fork()
    if not pid:
        time.sleep(20 if os.getpid() == gone else 0)
        os._exit(0)
    if pid == gone:
        break
    os.waitpid(pid, 0)
names[gone] = "impostor"
print("recycled", pid == gone)
print("cred", cred(accepted))
print("pidfd", pidfd(accepted))
os.kill(gone, 9)
"""


def test_a_recycled_number_gets_no_pidfd(runner: Runner, arena: Arena) -> None:
    """Another process with the number of who connected is not its peer."""
    if os.geteuid() != 0:
        pytest.skip("needs root for a pid namespace with a small pid_max")
    inner = [PYTHON, "-I", "-S", "-c", BEGIN + RECYCLED, str(arena.box)]
    as_root = Runner(type(runner.identity)("root"), runner.payload)
    outcome = as_root.native(small_pid_space(runner, inner, [*arena.rules(), *NET]), 90)
    assert "recycled True" in outcome.out, outcome.err
    assert f"pidfd errno {ESRCH}" in outcome.out, outcome.out


CREDENTIALS = """
def send(messages):
    a, b = socket.socketpair()
    b.setsockopt(1, 16, 1)  # SO_PASSCRED
    try:
        a.sendmsg([b"x"], [(1, 2, struct.pack("iII", *m)) for m in messages])
    except OSError as error:
        return error.errno
    found = b.recvmsg(9, 999)[1]
    return [names.get(struct.unpack("iII", data)[0], "stranger") for _, _, data in found]

me = os.getpid(), os.getuid(), os.getgid()
print(send([me]), send([me, me]), send([(os.getppid(), *me[1:])]), send([me, (1, *me[1:])]), send([(*me[:2], 7777)]))
"""


def test_credentials_name_the_caller_and_nobody_else(runner: Runner, arena: Arena) -> None:
    """SCM_CREDENTIALS of the caller, once or twice, pass; those of another pid are EPERM.  Without CAP_SYS_ADMIN the
    kernel takes nobody's from a worker, so for an ordinary user it is EPERM."""
    _, boxed = both(runner, arena, CREDENTIALS)
    good = str(["server"]) if runner.identity.uid is None and os.geteuid() == 0 else str(EPERM)
    assert boxed.strip() == f"{good} {good} {EPERM} {EPERM} {EPERM}"
    native = runner_natively_without_capabilities(runner, arena)
    assert native.strip() == f"['server'] ['server'] {EPERM} {EPERM} {EPERM}"


def runner_natively_without_capabilities(runner: Runner, arena: Arena) -> str:
    """What CREDENTIALS prints natively, without the capabilities that the command has not."""
    command = [PYTHON, "-I", "-S", "-c", BEGIN + CREDENTIALS, str(arena.box)]
    if runner.identity.uid is None:
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    return runner.native(command).out


class _Run:
    """What noting a connection needs of the run."""

    def __init__(self) -> None:
        self.peers = peers.create_peers()
        self.diag = -1


def cookie_of(s: socket.socket) -> int:
    return int.from_bytes(s.getsockopt(1, 57, 8), "little")


def test_the_page_is_bounded_and_forgets_closed_sockets_first() -> None:
    """A full bucket loses an entry whose socket is closed; only where all are open the oldest goes."""
    run = _Run()
    held: list[socket.socket] = []
    wanted = 0
    while len(held) <= peers.WAYS:
        s = socket.socket(socket.AF_UNIX)
        cookie = cookie_of(s)
        wanted = wanted or cookie % peers.BUCKETS
        if cookie % peers.BUCKETS == wanted:
            held.append(s)
            if len(held) == peers.WAYS + 1:
                held[3].close()
            noting.note(run, 100 + len(held), cookie, 7, os.fstat(s.fileno()).st_ino)  # type: ignore[arg-type]
        else:
            s.close()
    assert [peers.find(run.peers, cookie_of(s)) for i, s in enumerate(held) if i != 3] == [
        (101 + i, 7) for i in range(peers.WAYS + 1) if i != 3
    ]
    noting.note(run, 500, wanted + (1 << 60) // peers.BUCKETS * peers.BUCKETS, 7, 0)  # type: ignore[arg-type]
    assert peers.find(run.peers, cookie_of(held[0])) is None, "the oldest"
    assert peers.find(run.peers, cookie_of(held[1])) == (102, 7)
    for s in held:
        s.close()
    os.close(run.diag)


def test_a_cookie_is_asked_for_exactly() -> None:
    """sock_diag: the other end by its cookie; none of a closed one, nor by a wrong cookie."""
    diag = open_diag()
    a, b = socket.socketpair()
    inode = os.fstat(a.fileno()).st_ino
    assert peer_cookie(diag, inode, cookie_of(a)) == cookie_of(b)
    assert look(diag, inode, cookie_of(a) + 1) is None
    assert peer_cookie(diag, inode, cookie_of(a) + 1) == 0
    b.close()
    assert peer_cookie(diag, inode, cookie_of(a)) == 0
    a.close()
    assert look(diag, inode) is None
    os.close(diag)


def test_pids_of_workers_are_remembered() -> None:
    """The bit of a number, and of no other."""
    page = peers.create_peers()
    for pid in (1, 63, 64, 65536, peers.PIDS - 1):
        peers.mark_ours(page, pid)
    asked = (0, 1, 2, 62, 63, 64, 65, 65536, peers.PIDS - 1, peers.PIDS, -1)
    assert [pid for pid in asked if peers.was_ours(page, pid)] == [1, 63, 64, 65536, peers.PIDS - 1]
