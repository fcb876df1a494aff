"""syd-pool check: do each operation that the sandbox needs, once, and say what is missing.

Nothing is concluded from versions or configuration files: a probe performs the operation on a child that it
forks and ends. So a kernel option, a container's filter, Yama or AppArmor all show in the same way.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EACCES, EBUSY, EINVAL, EIO, ENODATA, ENOSYS, EPERM, ETIMEDOUT
from typing import NamedTuple

from syd_pool.cli import host
from syd_pool.cli.options import Refused
from syd_pool.linux import libc, notify
from syd_pool.linux.numbers import NR

USAGE = """\
usage: syd-pool check [--json]

Tries each operation the sandbox needs: what is missing, what is lost without it, how to get it.
The exit status is 0 when nothing that is needed is missing, else 1.
"""

DEADLINE = 10  # seconds that any single probe may take
ANSWER = 42

PTRACE_DETACH = 17
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
# TRACESYSGOOD FORK VFORK CLONE EXEC EXIT TRACESECCOMP EXITKILL, see ptrace(2)
PTRACE_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x40 | 0x80 | 0x100000
CLONE_NEWUSER = 0x10000000
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_ACCESS_FS_READ_DIR = 8

SETUP = "update the kernel, or ask whoever runs this container for a seccomp profile that permits it"


class Probe(NamedTuple):
    """One thing to try.  `attempt` returns a detail to show, or raises OSError, ImportError or Refused."""

    name: str
    needed: bool
    lost: str
    remedy: str
    attempt: Callable[[], str]


class Result(NamedTuple):
    """What came of a probe."""

    probe: Probe
    ok: bool
    detail: str


@contextmanager
def child(body: Callable[[socket.socket], object]) -> Iterator[tuple[int, socket.socket]]:
    """Fork a child that runs `body` with one end of a socket; yields its pid and our end; ends and reaps it.

    The child's exit status is 0, or the errno of the OSError it met.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        status = EIO
        try:
            signal.alarm(DEADLINE)
            ours.close()
            body(theirs)
            status = 0
        except OSError as error:
            status = error.errno or EIO
        finally:
            os._exit(status)
    theirs.close()
    ours.settimeout(DEADLINE)
    try:
        yield pid, ours
    finally:
        ours.close()
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # finish() has reaped it


def finish(pid: int) -> None:
    """Wait for a child of child(); raises the OSError that it met."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status < 0:
        raise OSError(EIO, f"the child was killed by signal {-status}")
    if status:
        raise OSError(status, os.strerror(status))


def getppid_filter() -> bytes:
    """BPF that asks the listener about getppid(2) and allows everything else; see seccomp(2)."""
    load_nr = struct.pack("HBBI", 0x20, 0, 0, 0)
    is_getppid = struct.pack("HBBI", 0x15, 0, 1, NR["getppid"])
    user_notif = struct.pack("HBBI", 0x06, 0, 0, 0x7FC00000)
    allow = struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
    return load_nr + is_getppid + user_notif + allow


def asking(expected: Callable[[int], bool], flags: int = 0) -> Callable[[socket.socket], None]:
    """Body of a child: install the filter, hand the listener over, call getppid, check what came back."""

    def body(link: socket.socket) -> None:
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        listener = libc.seccomp_filter(getppid_filter(), notify.SECCOMP_FILTER_FLAG_NEW_LISTENER | flags)
        socket.send_fds(link, [b"listener"], [listener])
        if not expected(os.getppid()):
            raise OSError(EIO, "the answer did not arrive")

    return body


def listener_of(pid: int, link: socket.socket) -> int:
    """The listener that a child of asking() sends; raises what kept it from doing so."""
    message, fds, _, _ = socket.recv_fds(link, 64, 1)
    if not fds:
        finish(pid)
        raise OSError(ENODATA, f"the child sent {message!r} instead of a listener")
    return fds[0]


def notification(listener: int) -> int:
    """Receive the one call of asking(); returns its id."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    if not poll.poll(DEADLINE * 1000):
        raise OSError(ETIMEDOUT, "no notification arrived")
    buffer = bytearray(notify.NOTIF_SIZE)
    notify.recv(listener, buffer)
    return int(notify.NOTIF.unpack(buffer)[0])


def try_listener() -> str:
    with child(asking(lambda got: got == ANSWER)) as (pid, link):
        listener = listener_of(pid, link)
        notify.send_value(listener, notification(listener), ANSWER)
        finish(pid)
        os.close(listener)
    return "a call was answered"


def try_addfd() -> str:
    inode = os.stat("/").st_ino
    with child(asking(lambda fd: fd > 2 and os.fstat(fd).st_ino == inode)) as (pid, link):
        listener = listener_of(pid, link)
        root = os.open("/", os.O_RDONLY | os.O_CLOEXEC)  # an O_PATH descriptor is refused: EBADF
        call = notification(listener)
        number = notify.add_fd(listener, call, root, os.O_CLOEXEC, notify.SECCOMP_ADDFD_FLAG_SEND)
        finish(pid)
        os.close(root)
        os.close(listener)
    return f"a child got descriptor {number}"


def try_wait_killable() -> str:
    flag = notify.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    with child(asking(lambda got: got == ANSWER, flag)) as (pid, link):
        listener = listener_of(pid, link)
        notify.send_value(listener, notification(listener), ANSWER)
        finish(pid)
        os.close(listener)
    return ""


def try_sync_wake_up() -> str:
    with child(asking(lambda got: got == ANSWER)) as (pid, link):
        listener = listener_of(pid, link)
        notify.sync_wake_up(listener)
        notify.send_value(listener, notification(listener), ANSWER)
        finish(pid)
        os.close(listener)
    return ""


def waiting(link: socket.socket) -> None:
    """Body of a child that lives until it is ended."""
    link.send(b"ready")
    link.recv(1)


def try_seize() -> str:
    with child(waiting) as (pid, link):
        link.recv(64)
        libc.syscall("ptrace", PTRACE_SEIZE, pid, 0, PTRACE_OPTIONS)
        libc.syscall("ptrace", PTRACE_INTERRUPT, pid)
        if not os.WIFSTOPPED(os.waitpid(pid, 0)[1]):
            raise OSError(EIO, "the child did not stop")
        libc.syscall("ptrace", PTRACE_DETACH, pid)
    return "with EXITKILL and every event"


def try_memory() -> str:
    buffer = ctypes.create_string_buffer(b"ours....", 8)
    address = ctypes.addressof(buffer)

    def body(link: socket.socket) -> None:
        buffer.raw = b"theirs.."
        link.send(b"ready")
        link.recv(1)
        if buffer.raw != b"written!":
            raise OSError(EIO, "the write did not arrive")

    with child(body) as (pid, link):
        link.recv(64)
        libc.raise_errno(libc.raw_vm_readv(pid, address, address, 8))
        if buffer.raw != b"theirs..":
            raise OSError(EIO, "read something else")
        buffer.raw = b"written!"
        libc.raise_errno(libc.raw_vm_writev(pid, address, address, 8))
        link.send(b"x")
        finish(pid)
    return "read and written"


def try_openat2() -> str:
    fd = libc.openat2(libc.AT_FDCWD, b"/", os.O_PATH | os.O_CLOEXEC, libc.RESOLVE_NO_SYMLINKS)
    os.close(fd)
    try:
        os.close(libc.openat2(libc.AT_FDCWD, b"/proc/self", os.O_PATH | os.O_CLOEXEC, libc.RESOLVE_NO_SYMLINKS))
    except OSError:
        return "a symbolic link was refused"
    raise OSError(EIO, "RESOLVE_NO_SYMLINKS followed a link")


def try_landlock() -> str:
    abi = libc.syscall("landlock_create_ruleset", 0, 0, LANDLOCK_CREATE_RULESET_VERSION)

    def body(_: socket.socket) -> None:
        attr = ctypes.create_string_buffer(struct.pack("Q", LANDLOCK_ACCESS_FS_READ_DIR), 8)
        ruleset = libc.syscall("landlock_create_ruleset", ctypes.addressof(attr), 8, 0)
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.syscall("landlock_restrict_self", ruleset, 0)
        try:
            os.listdir("/")
        except PermissionError:
            return
        raise OSError(EIO, "the domain did not restrict")

    with child(body) as (pid, _):
        finish(pid)
    from syd_pool.boundary.domain import Plan

    missing = Plan(abi).missing
    return f"ABI {abi}" + (f"; cannot confine {', '.join(missing)}" if missing else "")


def try_pidfd() -> str:
    with child(waiting) as (pid, link):
        link.recv(64)
        pidfd = os.pidfd_open(pid)
        os.close(libc.pidfd_getfd(pidfd, 2))
        libc.pidfd_send_signal(pidfd, 0)
        os.close(pidfd)
    return "opened, a descriptor taken, a signal sent"


def try_user_namespace() -> str:
    with child(lambda _: libc.syscall("unshare", CLONE_NEWUSER)) as (pid, _):
        finish(pid)
    return ""


def try_memfd() -> str:
    fd = libc.sealed_memfd("check", 4096)
    try:
        os.ftruncate(fd, 0)
    except PermissionError:
        return "a seal held"
    finally:
        os.close(fd)
    raise OSError(EIO, "a sealed memfd could be truncated")


def try_libseccomp() -> str:
    import pyseccomp

    pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    return "pyseccomp found it"


def try_host() -> str:
    host.require()
    return f"Linux {os.uname().release}"


PROBES = (
    Probe("system", True, "everything", "use Linux 5.19 or newer on x86_64", try_host),
    Probe("libseccomp", True, "no filter can be compiled", "install it (Debian: libseccomp2)", try_libseccomp),
    Probe("seccomp listener", True, "no system call can be decided", SETUP, try_listener),
    Probe("seccomp ADDFD", True, "no file can be opened for the command", SETUP, try_addfd),
    Probe("seccomp WAIT_KILLABLE_RECV", True, "signals would break calls", "use Linux 5.19", try_wait_killable),
    Probe(
        "seccomp FD_SYNC_WAKE_UP",
        False,
        "every call takes some 50 us longer",
        "use Linux 6.6",
        try_sync_wake_up,
    ),
    Probe(
        "ptrace SEIZE",
        False,
        "exec and chdir are judged with a race (trace/allow_unsafe_ptrace:1)",
        "docker: --cap-add SYS_PTRACE; Yama: kernel.yama.ptrace_scope below 3",
        try_seize,
    ),
    Probe(
        "memory of a child",
        True,
        "no path argument can be read",
        "CONFIG_CROSS_MEMORY_ATTACH; Yama: kernel.yama.ptrace_scope below 3",
        try_memory,
    ),
    Probe("openat2", True, "no path can be resolved safely", SETUP, try_openat2),
    Probe("pidfd", True, "processes could be mistaken for others", SETUP, try_pidfd),
    Probe("sealed memfd", True, "no queue to the workers", SETUP, try_memfd),
    Probe("Landlock", False, "no second layer below the rules", "boot with lsm=landlock,...", try_landlock),
    Probe(
        "user namespace",
        False,
        "unshare/* needs root",
        "sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, AppArmor's restriction",
        try_user_namespace,
    ),
)

# what an errno means in a probe, when the system's own text is no help
MEANING = {
    ENOSYS: "this kernel, or a container's filter, does not have it",
    EPERM: "not permitted: a container's filter, Yama or another security module",
    EACCES: "access denied by a security module",
    EBUSY: "a filter with a listener is in force already: this is inside another sandbox",
    EINVAL: "this kernel does not know it",
}


def attempt(probe: Probe) -> Result:
    """Do what a probe says; whatever goes wrong is its result."""
    try:
        return Result(probe, True, probe.attempt())
    except OSError as error:
        return Result(probe, False, MEANING.get(error.errno or 0) or error.strerror or str(error))
    except (ImportError, AttributeError, RuntimeError, Refused) as error:
        return Result(probe, False, str(error))


def as_json(results: list[Result]) -> str:
    """The results for programs."""
    import json

    probes = [
        {
            "name": r.probe.name,
            "ok": r.ok,
            "needed": r.probe.needed,
            "detail": r.detail,
            "lost": "" if r.ok else r.probe.lost,
            "remedy": "" if r.ok else r.probe.remedy,
        }
        for r in results
    ]
    return json.dumps({"ok": complete(results), "probes": probes}, indent=1) + "\n"


def as_text(results: list[Result]) -> str:
    """The results for people."""
    lines = []
    for result in results:
        probe = result.probe
        word = "ok" if result.ok else "MISSING" if probe.needed else "absent"
        lines.append(f"{word:8} {probe.name:27} {result.detail}".rstrip())
        if not result.ok:
            lines.append(f"{'':8} lost: {probe.lost}")
            lines.append(f"{'':8} to get it: {probe.remedy}")
    lines.append("Everything that is needed is there." if complete(results) else "The sandbox cannot work here.")
    return "\n".join(lines) + "\n"


def complete(results: list[Result]) -> bool:
    """Is everything there that is needed?"""
    return all(r.ok for r in results if r.probe.needed)


def main(words: list[str]) -> int:
    """Try everything and print it.  Returns the exit status."""
    if words in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
        return 0
    if words not in ([], ["--json"]):
        sys.stderr.write(f"syd-pool check: unknown argument {words[0]!r}\n{USAGE}")
        return EINVAL
    results = [attempt(probe) for probe in PROBES]
    sys.stdout.write(as_json(results) if words else as_text(results))
    return 0 if complete(results) else 1
