"""I11: a worker's filter holds what a worker needs, and nothing else."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from errno import EINVAL, ENOSYS

import pytest

from syd_pool.boundary import bpf, worker_filter
from syd_pool.boundary import filter as seccomp
from syd_pool.emulate.bind import _bind_below
from syd_pool.emulate.netaddr import unix
from syd_pool.emulate.table import makes_sockets
from syd_pool.linux import libc
from syd_pool.linux.numbers import NR
from syd_pool.policy import Ruleset

COOKIES = (0x1122334455667788, 0x99AABBCCDDEEFF00)


def confined(action: Callable[[], object], confine: bool = True) -> int:
    """Wait status of a child that runs `action`, under the worker's filter if `confine`."""
    install = worker_filter.confinement()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if confine:
                install()
            action()
            code = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def died_by_filter(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS


def work(tmp: str, bell: int, parent: int, tty: int, *pair: socket.socket) -> None:
    """Every kind of call that the loop, the lookup and the families make."""
    where = os.fsencode(tmp)
    os.eventfd_write(bell, 1)
    os.eventfd_read(bell)
    fd = libc.openat2(-100, where, os.O_PATH | os.O_CLOEXEC, libc.RESOLVE_NO_SYMLINKS)
    buffer = ctypes.create_string_buffer(4096)
    at = ctypes.addressof(buffer)
    assert libc.raw_fstat(fd, at) == 0
    assert libc.raw_fstatat(fd, b"", at, libc.AT_EMPTY_PATH) == 0
    assert libc.raw_statx(fd, b"", libc.AT_EMPTY_PATH, 0x7FF, at) == 0
    assert libc.raw_mkdirat(fd, b"d", 0o755) == 0
    assert libc.raw_renameat2(fd, b"d", fd, b"e", 0) == 0
    assert libc.raw_symlinkat(b"e", fd, b"s") == 0
    assert libc.raw_readlinkat(fd, b"s", at, 100) == 1
    made = libc.raw_openat(fd, b"f", os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o644)
    assert made >= 0
    assert libc.raw_linkat(fd, b"f", fd, b"g", 0) == 0
    assert libc.raw_truncate(b"/proc/self/fd/%d" % made, 10) == 0
    assert libc.raw_faccessat2(fd, b"f", os.R_OK, 0) == 0
    libc.fstatfs_type(fd)
    assert libc.raw_fstatfs(fd, at) == 0
    own = b"/proc/self/fd/%d" % made
    assert libc.raw_fchmodat(-100, own, 0o600) == 0
    assert libc.raw_fchmodat2(made, b"", 0o600, libc.AT_EMPTY_PATH) in (0, -ENOSYS)
    assert libc.raw_fchownat(made, b"", -1, -1, libc.AT_EMPTY_PATH) == 0
    assert libc.raw_utimensat(made, b"", 0, libc.AT_EMPTY_PATH) == 0
    assert libc.raw_mknodat(fd, b"p", 0o10600, 0) == 0
    assert libc.raw_unlinkat(fd, b"p", 0) == 0
    for link in (False, True):
        way = own if not link else os.readlink(own)
        libc.raw_setxattr(way, b"user.a", b"value", 0, link)
        libc.raw_getxattr(way, b"user.a", at, 9, link)
        libc.raw_listxattr(way, at, 99, link)
        libc.raw_removexattr(way, b"user.a", link)
    sockets(where, *pair)
    assert libc.raw_inotify_add_watch(made, own, 2) == -EINVAL  # not an instance
    again = os.open(b"/proc/self/fd/%d" % fd, os.O_RDONLY | os.O_DIRECTORY)
    assert libc.raw_getdents64(again, at, 4096) > 0
    os.lseek(again, 0, os.SEEK_SET)
    for name in (b"f", b"g", b"s"):
        assert libc.raw_unlinkat(fd, name, 0) == 0
    assert libc.raw_unlinkat(fd, b"e", libc.AT_REMOVEDIR) == 0
    status = os.open(b"/proc/%d/status" % parent, os.O_RDONLY)
    assert b"Umask:" in os.read(status, 8192)
    assert libc.raw_vm_readv(parent, at, at, 8) == 8
    assert libc.raw_vm_writev(parent, at, at, 0) == 0
    pidfd = libc.pidfd_open(parent)
    os.close(libc.pidfd_getfd(pidfd, 2))
    libc.pidfd_send_signal(pidfd, 0)
    for descriptor in (fd, made, again, status, pidfd):
        os.close(descriptor)
    assert not os.isatty(tty)
    os.umask(0o22)


def sockets(where: bytes, here: socket.socket, there: socket.socket) -> None:
    """What emulate/net.py does with a caller's sockets."""
    fd = libc.openat2(-100, where, os.O_PATH | os.O_CLOEXEC)
    assert _bind_below(fd, here.fileno(), unix(where + b"/sock")) == 0
    assert libc.raw_connect(there.fileno(), unix(where + b"/sock")) == 0
    assert libc.raw_sendmsg(there.fileno(), None, b"x", b"", 0) == 1
    assert libc.raw_socket_option(here.fileno(), libc.SO_TYPE) == socket.SOCK_DGRAM
    assert libc.raw_socket_option(here.fileno(), libc.SO_DOMAIN) == socket.AF_UNIX
    libc.shutdown(here.fileno(), 2)
    assert libc.raw_unlinkat(-100, where + b"/sock", 0) == 0
    os.close(fd)


def rare() -> None:
    """Garbage collection, big and growing allocations, exceptions and their text, time zones, randomness."""
    gc.collect()
    blocks = [bytearray(1 << n) for n in range(10, 24)]
    for block in blocks:
        block.extend(b"x" * (1 << 20))
    del blocks
    gc.collect()
    try:
        os.open(b"/nonexistent/\xff", os.O_RDONLY)
    except OSError as error:
        str(error), repr(error)
    try:
        {}["missing"]  # type: ignore[index]
    except KeyError as error:
        error.with_traceback(None)
    time.time(), time.monotonic(), time.strftime("%c")
    os.urandom(8), hash("x"), f"{1.5:10.3f}", "ä".encode("latin-1")
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    os.sched_getaffinity(0)
    mmap.mmap(-1, 4096).close()
    sys.stderr.write("")


def test_a_worker_may_do_its_work(tmp_path) -> None:
    """Every call of the loop, the lookup and the families passes."""
    bell = os.eventfd(0)
    null = os.open("/dev/null", os.O_RDWR)
    try:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as here,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there,
        ):
            assert confined(lambda: work(str(tmp_path), bell, os.getppid(), null, here, there)) == 0
    finally:
        os.close(bell)
        os.close(null)


def test_python_survives_its_rare_paths() -> None:
    assert confined(rare) == 0


def test_descriptors_pass_over_the_socket_it_was_born_with() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener = os.open("/dev/null", os.O_RDONLY)
    socket.send_fds(ours, [b"open"], [listener])

    def take() -> None:
        data, fds, _, _ = socket.recv_fds(theirs, 16, 1)
        assert data == b"open"
        socket.send_fds(theirs, [b"back"], fds)

    assert confined(take) == 0
    assert socket.recv_fds(ours, 16, 1)[0] == b"back"
    ours.close(), theirs.close(), os.close(listener)


def test_identity_may_be_switched_with_cookies() -> None:
    if os.geteuid():
        pytest.skip("needs root")

    def switch() -> None:
        libc.syscall("setgroups", 0, 0)
        libc.syscall("setfsgid", 1000)
        libc.syscall("setfsuid", 1000)
        assert libc.syscall("setfsuid", -1) == 1000

    assert confined(switch) == 0


def test_panic_still_aborts() -> None:
    """os.abort must give SIGABRT, not SIGSYS: the tracer tells a panic from a bug by it."""
    status = confined(os.abort)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGABRT


def raw(name: str, *args: int) -> Callable[[], int]:
    return lambda: libc.raw_syscall(NR[name], *args, *(0,) * (6 - len(args)))


FORBIDDEN: dict[str, Callable[[], object]] = {
    "execve": lambda: os.execv("/bin/true", ["true"]),
    "fork": os.fork,
    "socket": lambda: socket.socket(socket.AF_UNIX),
    "connect without cookies": raw("connect", -1, 0, 0),
    "ptrace": raw("ptrace", 0),
    "kill another": lambda: os.kill(os.getppid(), 0),
    "tgkill another": raw("tgkill", 1, 1, 0),
    "eventfd": lambda: os.eventfd(0),
    "seccomp": raw("seccomp", 0),
    "executable mapping": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "making memory executable": raw("mprotect", 0, 4096, 5),
    "prctl outside its list": raw("prctl", 4, 1),
    "fcntl outside its list": raw("fcntl", 0, 0x407, 1 << 20),
    "ioctl outside its list": raw("ioctl", 0, 0x5412, 0),
    "receiving notifications": raw("ioctl", 0, 0xC0502100, 0),
    "madvise outside its list": raw("madvise", 0, 0, 12),
    "openat2 without cookies": raw("openat2", -100, 0, 0, 24),
    "pidfd_open without cookies": lambda: os.pidfd_open(1),
    "pidfd_getfd without cookies": raw("pidfd_getfd", 0, 0, 0),
    "bind without cookies": raw("bind", -1, 0, 0),
    "restricting itself without cookies": raw("landlock_restrict_self", -1, 0),
    "a process of its own": raw("clone", 17, 0, 0, 0, 0),
    "getsockopt outside its list": lambda: libc.raw_socket_option(-1, 59),
    "set-id without cookies": raw("setfsuid", 0),
    "setting a limit": raw("prlimit64", 0, 7, 1),
    "mount": raw("mount", 0, 0, 0, 0, 0),
    "an unknown number": lambda: libc.raw_syscall(1000, 0, 0, 0, 0, 0, 0),
    "x32": lambda: libc.raw_syscall(NR["getpid"] | bpf.X32_BIT, 0, 0, 0, 0, 0, 0),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_anything_else_kills_it(what: str) -> None:
    """Default KILL_PROCESS; the control runs the same call without the filter, where it is not SIGSYS."""
    assert died_by_filter(confined(FORBIDDEN[what])), what
    assert not died_by_filter(confined(FORBIDDEN[what], confine=False)), what


def patched() -> bpf.Program:
    rules = worker_filter.worker_rules(sockets=True)
    return bpf.Program(worker_filter.patch(seccomp.compile_filter(rules, seccomp.KILL_PROCESS), COOKIES, 4711))


@pytest.mark.parametrize("name", worker_filter.COOKIE_ARGS)
def test_both_cookies_must_be_whole(name: str) -> None:
    """All 128 bits are compared; any one bit wrong kills."""
    program = patched()
    right = [0, 0, 0, 0, *COOKIES]
    assert program.run(NR[name], right) == seccomp.ALLOW
    for argument in (4, 5):
        for bit in range(64):
            wrong = list(right)
            wrong[argument] ^= 1 << bit
            assert program.run(NR[name], wrong) == seccomp.KILL_PROCESS


@pytest.mark.parametrize("name", ["socket", "accept4"])
def test_sockets_are_made_only_where_an_option_asks(name: str) -> None:
    """A run that starts locked without trace/force_cloexec and force_rand_fd needs no new sockets."""
    args = [0, 0, 0, 0, worker_filter._MARK_ONE, worker_filter._MARK_TWO]
    for sockets, action in ((False, seccomp.KILL_PROCESS), (True, seccomp.ALLOW)):
        rules = worker_filter.worker_rules(sockets=sockets)
        assert seccomp.decide(rules, seccomp.KILL_PROCESS, NR[name], args) == action
    made = Ruleset()
    made.profile("off")
    made.apply("lock:on")
    assert not makes_sockets(made)
    made = Ruleset()
    made.apply("trace/force_rand_fd:1")
    assert makes_sockets(made)


def test_no_mark_is_left_in_the_program() -> None:
    """A worker whose cookie were the mark would have a cookie that everybody knows."""
    program = patched()
    marks = {*worker_filter._MARKS, worker_filter._PID_MARK}
    assert not marks & {k for _, _, _, k in program.code}


def test_a_program_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="marks"):
        worker_filter.patch(seccomp.compile_filter([], seccomp.KILL_PROCESS), COOKIES, 1)


def test_the_program_means_its_rules() -> None:
    """I12 for the worker: every number and argument condition, with garbage in the upper 32 bits."""
    rules = worker_filter.worker_rules()
    program = bpf.Program(seccomp.compile_filter(rules, seccomp.KILL_PROCESS))
    interesting = {v for _, _, when in rules for _, _, v in when} | {0, 1, 4, 5, 0x5412, 1 << 32}
    for nr in range(600):
        for value in interesting:
            for args in ([value] * 6, [value | 1 << 40] * 6, [0, value, 0, value, 0, value]):
                assert program.run(nr, args) == seccomp.decide(rules, seccomp.KILL_PROCESS, nr, args), (
                    nr,
                    args,
                )
    for nr in range(600):
        assert program.run(nr, arch=bpf.AUDIT_ARCH_I386) == seccomp.KILL_PROCESS
        assert program.run(nr | bpf.X32_BIT) == seccomp.KILL_PROCESS


def test_libc_fills_the_same_registers() -> None:
    """linux/libc.py keeps its own list, so that it imports nothing of ours."""
    assert set(worker_filter.COOKIE_ARGS) == set(libc.COOKIED)
    assert set(worker_filter.COOKIE_ARGS.values()) == {(4, 5)}
