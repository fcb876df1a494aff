"""execve(2), execveat(2): category `exec` on the file, on every interpreter of its #! chain, and on the
dynamic loader that the kernel maps with it (PT_INTERP).

Only the kernel can execute.  Under ptrace the tracee waits in its stop while a worker walks the way the
kernel is about to walk (judge_exec), and waits again at the exec event while a worker compares what was
really mapped with what was approved (verify_exec): whatever was swapped in between, the script, its #!
line, a symbolic link, the loader's name inside the file, ends in SIGKILL before the first instruction.
Without ptrace the handlers judge and continue, which races (table.py says so).

The file that the call names is refused with EACCES.  An interpreter or a loader is nothing the caller asked
for, and a program that gets EACCES for a file it may execute would try that file as a script of its own
(execvp(3), every shell): a refused one ends the caller with SIGKILL, as in syd.

An execution that would fail natively in the lookup fails with the same errno by our hand; what depends on
the file's content or mode (no x bit, unknown format) is left to the kernel.  Formats of binfmt_misc are
not known here: their interpreter was not approved, so they are killed at the event.

Identity of a file is (st_dev, st_ino).  /proc/TID/maps shows the same pair on most file systems but not
on all (btrfs subvolumes and overlayfs before Linux 6.8 show another device), hence _mapped_is_approved().
"""

from __future__ import annotations

import os
from errno import EACCES, EINVAL, EIO, ELOOP, ENOEXEC
from stat import S_ISLNK, S_ISREG
from time import time_ns

from syd_pool.emulate import program
from syd_pool.emulate.call import AS_KERNEL, AT_FDCWD, EMPTY, FOLLOW
from syd_pool.emulate.judge import SIGKILL, act, send_signal
from syd_pool.emulate.trusted import is_refused, judge_trusted
from syd_pool.linux.libc import (
    AT_EMPTY_PATH,
    AT_EXECVE_CHECK,
    AT_SYMLINK_NOFOLLOW,
    raw_syscall,
)
from syd_pool.linux.numbers import NR
from syd_pool.linux.proc import mappings
from syd_pool.policy.actions import DENY, FILTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from syd_pool.emulate.call import Call, Found

    File = tuple[int, int]  # (st_dev, st_ino)
    Needs = tuple[bytes | None, bytes | None, int]  # interpreter of a script, loader of an ELF file, form

_NR_EXECVEAT = NR["execveat"]
_NR_MMAP, _NR_MUNMAP = NR["mmap"], NR["munmap"]

MOST_SCRIPTS = 5  # exec_binprm() in fs/exec.c: one more is ELOOP


class ExecVerdict:
    """errno 0: the kernel may execute, and `exe` with one of `loader` is what must then be found mapped.

    exe      (st_dev, st_ino) of the binary: of the last interpreter when a script is executed
    loader   the same of the dynamic loader; empty for a static binary
    check    AT_EXECVE_CHECK: nothing will be executed, no exec event follows
    """

    __slots__ = ("check", "errno", "exe", "loader")

    def __init__(self) -> None:
        self.errno = 0
        self.exe: File = (0, 0)
        self.loader: list[File] = []
        self.check = False


def execve(call: Call) -> int | None:
    """execve(path, argv, envp), without ptrace"""
    return _judge_and_continue(call)


def execveat(call: Call) -> int | None:
    """execveat(dirfd, path, argv, envp, flags), without ptrace"""
    return _judge_and_continue(call)


def _judge_and_continue(call: Call) -> int | None:
    verdict = judge_exec(call)
    if verdict.errno:
        return -verdict.errno
    call.valid()
    call.resume()
    return None


# --- before --------------------------------------------------------------------------------------


def judge_exec(call: Call) -> ExecVerdict:
    """May the caller execute this?  Raises Gone."""
    verdict = ExecVerdict()
    try:
        _judge(call, verdict)
    except OSError as error:
        verdict.errno = error.errno or EIO
    return verdict


def _judge(call: Call, verdict: ExecVerdict) -> None:
    found, verdict.check = _wanted(call)
    if call.rules.verdicts["stat"][found.path]:
        call.judge("stat", found.path)
    for depth in range(MOST_SCRIPTS + 1):
        status = _approve(call, found) if not depth else _approve_needed(call, found)
        verdict.exe = status.st_dev, status.st_ino
        interpreter, loader, form = _needs(call, found, status)
        _judge_form(call, found.path, form)
        if verdict.check:  # the kernel, too, looks at the file alone
            if not form and os.access(b"/proc/self/fd/%d" % found.fd, os.X_OK, effective_ids=True):
                raise OSError(ENOEXEC, os.strerror(ENOEXEC), found.path)  # as syd; the kernel would not look
            return
        if interpreter is None:
            if loader is not None:
                status = _approve_needed(call, _open_exec(call, loader))
                verdict.loader = [(status.st_dev, status.st_ino)]
            return
        found = _open_exec(call, interpreter)
    raise OSError(ELOOP, os.strerror(ELOOP), found.path)


def _wanted(call: Call) -> tuple[Found, bool]:
    """The file the call names, and whether it asks for a check only.  Raises OSError."""
    if call.nr != _NR_EXECVEAT:
        return call.find(call, AT_FDCWD, call.string(call.args[0]), FOLLOW), False
    flags = call.int(4)
    if flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_EXECVE_CHECK):
        raise OSError(EINVAL, os.strerror(EINVAL))
    how = 0 if flags & AT_SYMLINK_NOFOLLOW else FOLLOW
    if flags & AT_EMPTY_PATH:
        how |= EMPTY
    return call.find(call, call.fd(0), call.string(call.args[1]), how), bool(flags & AT_EXECVE_CHECK)


def _open_exec(call: Call, name: bytes) -> Found:
    """What open_exec() in fs/exec.c finds under a name that stands in a file.  Raises OSError."""
    if not name:  # it means the working directory, which is not executable
        raise OSError(EACCES, os.strerror(EACCES))
    return call.find(call, AT_FDCWD, name, FOLLOW | AS_KERNEL if call.rules.resolve else FOLLOW)


def _approve_needed(call: Call, found: Found) -> os.stat_result:
    """As _approve(), of an interpreter or a loader: the caller of one that the rules refuse is killed."""
    try:
        return _approve(call, found)
    except OSError:
        refused = call.rules.verdicts["exec"][found.path] in (FILTER, DENY)
        if refused or is_refused(call.rules, found.fd, found.path):
            send_signal(call, SIGKILL)
        raise


def _approve(call: Call, found: Found) -> os.stat_result:
    """Judge one file; its status.  Raises OSError when the rules refuse it or the kernel would."""
    path = found.path
    if call.rules.verdicts["exec"][path]:
        call.judge("exec", path)
    status = os.fstat(found.fd)
    if not S_ISREG(status.st_mode):  # a FIFO must not even be opened; do_open_execat() in fs/exec.c
        errno = ELOOP if S_ISLNK(status.st_mode) else EACCES
        raise OSError(errno, os.strerror(errno), path)
    if status.st_nlink == 0:
        refuse_memfd(call, path)
    if "tpe" in call.rules.enabled:
        judge_trusted(call, found.fd, path)
    return status


# What a file may be -> the options that refuse it when they are set (syd(2)); the second half when they are not.
_FORMS = (
    (program.SCRIPT, "trace/deny_exec_script", True),
    (program.ELF32, "trace/deny_exec_elf32", True),
    (program.DYNAMIC, "trace/deny_exec_elf_dynamic", True),
    (program.STATIC, "trace/deny_exec_elf_static", True),
    (program.LIBRARY, "trace/allow_unsafe_exec_ldso", False),
    (program.FIXED, "trace/allow_unsafe_exec_nopie", False),
    (program.STACK, "trace/allow_unsafe_exec_stack", False),
)


def _judge_form(call: Call, path: bytes, form: int) -> None:
    """Refuse what the options do not let be executed.  Raises OSError."""
    for bit, option, when in _FORMS:
        if form & bit and bool(call.rules.option(option)) is when:
            tip = f"configure `{option}:{int(not when)}'".encode()
            call.log(
                [
                    ("level", b"warn"), ("ctx", b"check_elf"), ("msg", program.NAMES[bit]), ("path", path),
                    ("pid", call.tid), ("tgid", call.tgid), ("tip", tip),
                ]
            )  # fmt: skip
            raise OSError(EACCES, os.strerror(EACCES), path)


def refuse_memfd(call: Call, path: bytes) -> None:
    """A file made of memory has no path that a rule could name: refused unless it was opted into (E11)."""
    if path.startswith(b"/memfd:"):
        if not call.rules.option("trace/allow_unsafe_memfd"):
            act(call, "exec", path, DENY)
        call.judge("exec", b"!" + path[1:].removesuffix(b" (deleted)"))


# --- what a file needs ---------------------------------------------------------------------------

# (st_dev, st_ino, size, mtime, ctime) -> Needs.  Only a forecast: what was really mapped is compared at
# the exec event, so a stale entry can get a caller killed but nothing executed.
_known: dict[tuple[int, ...], Needs] = {}
_MOST_KNOWN = 512
_SETTLED_NS = 2_000_000_000  # a file changed less than this ago may change again within one clock tick


def _needs(call: Call, found: Found, status: os.stat_result) -> Needs:
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    needs = _known.get(key)
    if needs is None:
        needs = _read_needs(call, found)
        if time_ns() - status.st_ctime_ns > _SETTLED_NS:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            _known[key] = needs
    return needs


def _read_needs(call: Call, found: Found) -> Needs:
    """Open the judged file for reading and parse its head.  Raises OSError.

    A file that may be executed but not read is refused (EACCES): neither its loader nor, at the event,
    the then undumpable process could be looked at (B5).
    """
    try:
        # Natively an execution waits for a lease (fcntl(2)); a worker does not, others wait for its verdicts: EAGAIN.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        fd = os.open(b"/proc/self/fd/%d" % found.fd, flags)
    except OSError as error:
        call.log([("ctx", b"exec"), ("msg", b"unreadable program"), ("path", found.path), ("pid", call.tid)])
        raise OSError(error.errno or EACCES, "unreadable program", found.path) from None
    try:
        head = os.pread(fd, program.HEAD, 0)
        if head[:2] == b"#!":
            return program.script_interpreter(head), None, program.SCRIPT
        loader, form = program.elf(fd, head)
        return None, loader, form
    finally:
        os.close(fd)


# --- after ---------------------------------------------------------------------------------------


def verify_exec(call: Call, expected: tuple[Sequence[int], Sequence[Sequence[int]]]) -> bool:
    """At the exec event: is what was mapped what was approved, and nothing else?  False: kill.

    expected: (exe, loaders) of the ExecVerdict.
    """
    exe = tuple(expected[0])
    if not any(exe):
        return False
    approved = {exe} | {tuple(file) for file in expected[1]}
    try:
        status = os.stat(b"/proc/%d/exe" % call.tid)
        if (status.st_dev, status.st_ino) != exe:
            return False
        return all(_mapped_is_approved(call.tid, *mapped, approved) for mapped in mapped_files(call.tid))
    except OSError:
        return False


def mapped_files(who: int | bytes) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    """(range, device as "major:minor" in hex, inode, path) of each file mapping of a thread, or of b"self"."""
    for where, _, device, inode, path in mappings(who):
        if inode != b"0":
            yield where, device, inode, path


def _mapped_is_approved(
    tid: int, where: bytes, device: bytes, inode: bytes, path: bytes, approved: set[tuple[int, ...]]
) -> bool:
    """Is this mapping of an approved file?  By the cheapest means that tells."""
    major, minor = device.split(b":")
    if (os.makedev(int(major, 16), int(minor, 16)), int(inode)) in approved:
        return True
    start, end = where.split(b"-")
    try:  # exact on every file system, but wants CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN
        status = os.stat(b"/proc/%d/map_files/%x-%x" % (tid, int(start, 16), int(end, 16)))
    except OSError:
        return _shown_alike(path, device, inode, approved)
    return (status.st_dev, status.st_ino) in approved


def _shown_alike(path: bytes, device: bytes, inode: bytes, approved: set[tuple[int, ...]]) -> bool:
    """Without a capability: is `path` an approved file, and does a mapping of it show this device and inode?

    We map the file ourselves and read our own maps: the kernel shows one file alike to everybody.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return False
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) not in approved:
            return False
        address = raw_syscall(_NR_MMAP, 0, 4096, 1, 2, fd, 0)  # PROT_READ, MAP_PRIVATE
    finally:
        os.close(fd)
    if address == -1:
        return False
    try:
        for where, *shown, _ in mapped_files(b"self"):
            if int(where.partition(b"-")[0], 16) == address:
                return shown == [device, inode]
    finally:
        raw_syscall(_NR_MUNMAP, address, 4096, 0, 0, 0, 0)
    return False
