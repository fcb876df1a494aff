"""open(2), openat(2), openat2(2), creat(2).

    path --> held object (O_PATH) --> judged --> opened for real from what is held --> descriptor
         \\-> missing, O_CREAT: held directory, judged, created there with O_EXCL (create.py)

Opening has effects (O_TRUNC, FIFOs, devices), so it is decided on the O_PATH descriptor and the object is
then opened again through our own /proc/self/fd: the same object, whatever the path means by now (I5).

Categories (syd(2)): exactly one of mktemp (O_TMPFILE), create (a new file), truncate (O_TRUNC on an
existing one); beside it read and write by the access mode; readdir for a directory; fs by the file
system.  Hidden (stat, walk) is ENOENT before any of them.

O_PATH.  The kernel lets nobody install an O_PATH descriptor in another process (ADDFD: EBADF), so the
caller gets a readable one, judged as reading and opened with O_NONBLOCK, as syd does.  A link cannot be
given at all (ELOOP), nor a device whose opening may have effects (EACCES).

Of O_NOFOLLOW, which only says how to get there, F_GETFL shows nothing; all other flags are as natively.
"""

from __future__ import annotations

import os
from errno import E2BIG, EACCES, EAGAIN, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOSYS, ENOTDIR, EPERM
from fcntl import F_SETFL, fcntl
from stat import S_ISBLK, S_ISCHR, S_ISDIR, S_ISFIFO, S_ISLNK, S_ISREG

from syd_pool.emulate.call import AT_FDCWD, DOTLESS, FOLLOW
from syd_pool.emulate.create import (
    create,
    create_at_once,
    create_nameless,
    judge_filesystem,
    judge_new,
    may_create_at_once,
)
from syd_pool.emulate.devices import TTY, is_kfd, is_quick, open_tty
from syd_pool.emulate.kept import check_open, check_target, target_of
from syd_pool.emulate.paths import (
    HOW_FOLLOW,
    HOW_LINK,
    LIBRARIES,
    MAGIC,
    RESOLVE_SHIFT,
    in_proc,
    is_magic,
    is_own,
    pid_in,
    plain,
)
from syd_pool.emulate.quick import quick
from syd_pool.emulate.sticky import is_own_and_closed, may_open_to_create
from syd_pool.emulate.substitute import substitute
from syd_pool.linux.libc import O_LARGEFILE, raw_openat, raw_openat2
from syd_pool.linux.numbers import NR
from syd_pool.policy.forced import CREATE, KFD, NO_DOTDOT, READ_ONLY, SUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

O_ACCMODE, O_RDONLY, O_WRONLY, O_RDWR = 3, 0, 1, 2
O_CREAT, O_EXCL, O_NOCTTY, O_TRUNC, O_NONBLOCK = 0o100, 0o200, 0o400, 0o1000, 0o4000
O_DIRECTORY, O_NOFOLLOW, O_CLOEXEC, O_PATH = os.O_DIRECTORY, os.O_NOFOLLOW, os.O_CLOEXEC, os.O_PATH
O_TMPFILE_BIT = 0o20000000  # __O_TMPFILE

# VALID_OPEN_FLAGS of include/linux/fcntl.h: open() ignores any other bit, openat2() refuses it
VALID = (
    O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | os.O_APPEND | O_NONBLOCK | os.O_SYNC | os.O_ASYNC
    | os.O_DIRECT | O_LARGEFILE | O_DIRECTORY | O_NOFOLLOW | os.O_NOATIME | O_CLOEXEC | O_PATH | O_TMPFILE_BIT
)  # fmt: skip
_CHANGES = O_ACCMODE | O_CREAT | O_TRUNC | O_TMPFILE_BIT  # what trace/force_ro_open refuses, syd 3.52.0: EPERM
_NR_OPENAT2 = NR["openat2"]
_SET_ID = 0o6000
_WITH_PATH = O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC
_NOT_REOPENED = O_CREAT | O_NOFOLLOW | O_PATH
_HOW_SIZE = 24
_PAGE = 4096
_MOST_COMBINATIONS = 1024  # of flags whose validity is remembered
_MOST_RACES = 16  # between "it is missing" and "it exists"

# What anybody may read of another process: the rest of /proc/PID is guarded as its links are
_PUBLIC = frozenset(
    b"autogroup cgroup cmdline comm cpuset limits loginuid mountinfo mounts mountstats net oom_adj oom_score "
    b"oom_score_adj sched schedstat sessionid stat statm status task wchan".split()
)


def open(call: Call) -> int | None:  # noqa: A001
    """open(path, flags, mode)"""
    return _at(call, AT_FDCWD, 0, call.args[1])


def openat(call: Call) -> int | None:
    """openat(dirfd, path, flags, mode)"""
    return _at(call, call.fd(0), 1, call.args[2])


def creat(call: Call) -> int | None:
    """creat(path, mode)"""
    return _open(call, AT_FDCWD, call.string(call.args[0]), O_CREAT | O_WRONLY | O_TRUNC, call.int(1), 0)


def openat2(call: Call) -> int | None:
    """openat2(dirfd, path, how, size)"""
    size = call.args[3]
    if size < _HOW_SIZE:
        return -EINVAL
    if size > _PAGE:
        return -E2BIG
    how = call.read(call.args[2], size)
    if any(how[_HOW_SIZE:]):
        return -E2BIG
    flags, mode, resolve = (int.from_bytes(how[at : at + 8], "little") for at in (0, 8, 16))
    # Which combinations there are changes from kernel to kernel, so it is asked: they come before the path.
    refused = raw_openat2(-1, b"", flags, resolve, mode)
    if refused != -ENOENT:
        return refused
    return _open(call, call.fd(0), call.string(call.args[1]), flags, mode, resolve)


class _Refused(dict[int, int]):
    """flags of open() -> 0, or the kernel's -errno for that combination (build_open_flags, fs/open.c).

    The kernel is asked with an empty path, which it looks at later: there are few combinations in use.
    """

    def __missing__(self, flags: int) -> int:
        answer = raw_openat(-1, b"", flags)
        if len(self) >= _MOST_COMBINATIONS:
            self.clear()
        self[flags] = answer = 0 if answer == -ENOENT else answer
        return answer


_refused = _Refused()


def _at(call: Call, dirfd: int, i: int, flags: int) -> int | None:
    flags &= VALID
    if flags & O_PATH:
        flags &= _WITH_PATH
    refused = _refused[flags]
    if refused:
        return refused
    return _open(call, dirfd, call.string(call.args[i]), flags, call.args[i + 2], 0)


def _open(call: Call, dirfd: int, path: bytes, flags: int, mode: int, resolve: int) -> int | None:
    if call.magic and path.startswith(MAGIC) and (is_magic(path) or path in LIBRARIES):
        if (path != MAGIC and path not in LIBRARIES) or flags & (O_CREAT | O_PATH | O_DIRECTORY):
            return -EINVAL
        call.hand_command()
    dotless = 0
    if call.rules.opens:
        dotless = _judge_forced(call, path, flags)
    if flags & O_CREAT:
        return _open_or_create(call, dirfd, path, flags, mode, dotless | resolve << RESOLVE_SHIFT)
    if plain[path] and not resolve:
        fd = quick(call, path, HOW_LINK if flags & O_NOFOLLOW else HOW_FOLLOW)
        if fd >= 0:
            return _existing(call, fd, path, flags, mode)
        if fd == -ENOENT:
            return fd
    how = (0 if flags & O_NOFOLLOW else FOLLOW) | dotless | resolve << RESOLVE_SHIFT
    found = call.find(call, dirfd, path, how)
    if call.rules.verdicts["stat"][found.path]:
        call.judge("stat", found.path)
    return _existing(call, found.fd, found.path, flags, mode)


def _judge_forced(call: Call, path: bytes, flags: int) -> int:
    """What the options force on an open: a flag for find().  Raises OSError when they refuse."""
    opens = call.rules.opens
    if opens & READ_ONLY and not flags & O_PATH and flags & _CHANGES:
        raise OSError(EPERM, os.strerror(EPERM), path)
    return DOTLESS if opens & NO_DOTDOT else 0


def _open_or_create(call: Call, dirfd: int, path: bytes, flags: int, mode: int, way: int) -> int | None:
    """way: flags of find() beside FOLLOW"""
    if not call.rules.lifted & CREATE:
        flags |= O_NOFOLLOW  # nothing is made or opened to be made behind a link (syd(7), Trusted File Creation)
    if plain[path] and not way >> RESOLVE_SHIFT:
        # the hot way: at most one look and one creation; what it cannot answer is looked at again below
        fd = -ENOENT if flags & O_EXCL else quick(call, path, HOW_LINK if flags & O_NOFOLLOW else HOW_FOLLOW)
        if fd >= 0:
            return _existing(call, fd, path, flags, mode)
        if fd == -ENOENT and may_create_at_once(call, path, flags):
            result = create_at_once(call, path, flags, mode)
            if result is None or (result == -EEXIST and flags & O_EXCL):
                return result
            if result == -EINVAL and flags & os.O_DIRECT:
                return result  # do_dentry_open() of fs/open.c: the file has been made all the same
    how = (0 if flags & (O_NOFOLLOW | O_EXCL) else FOLLOW) | way
    for _ in range(_MOST_RACES):
        found = call.entry(call, dirfd, path, how)
        if call.rules.verdicts["stat"][found.path]:
            call.judge("stat", found.path)
        if found.slash and found.name:
            return -EISDIR
        if found.fd >= 0:
            return _existing(call, found.fd, found.path, flags, mode)
        judge_new(call, found, flags)
        if call.rules.kept:
            target = target_of(call, found.path, 0)
            if target >= 0:
                return _give_target(call, target, found.path, flags, mode)
        result = create(call, found, flags, mode)
        if result != -EEXIST or flags & O_EXCL:
            return result
    return -EEXIST


# --- what exists ----------------------------------------------------------------------------------


def _existing(call: Call, held: int, path: bytes, flags: int, mode: int) -> int | None:
    status = os.fstat(held)
    kind = status.st_mode
    if flags & O_PATH and call.rules.option("trace/allow_unsafe_open_path"):
        call.valid()
        call.resume()  # the user chose: the kernel resolves it again, and what it finds can only be looked at
        return None
    refused = _wrong_kind(kind, flags)
    if refused:
        return refused
    if flags & O_CREAT and not _may_create(call, status, path):
        return -EACCES
    if kind & _SET_ID and S_ISREG(kind) and not call.rules.lifted & SUID:
        return -EACCES  # in every mode (syd 3.52.0)
    special = not plain[path]
    if special:
        _guard_proc(call, path, kind, flags)
    _judge(call, path, kind, flags)
    if "fs" in call.rules.enabled:
        judge_filesystem(call, held, path)
    if call.rules.kept:
        target = target_of(call, path, kind)
        if target >= 0:
            return _give_target(call, target, path, flags, mode)
        check_open(call, path, flags)
    return _give(call, held, status, flags, mode, path if special else b"")


def _give_target(call: Call, target: int, path: bytes, flags: int, mode: int) -> int | None:
    """Answer with what the masked `path` is shown as."""
    status = os.fstat(target)
    check_target(call, path, status.st_mode, flags)
    if S_ISCHR(status.st_mode) and is_kfd(status.st_rdev):
        return -EACCES  # it is opened by the kernel, which would open what is masked
    flags &= ~(O_CREAT | O_EXCL | O_NOFOLLOW)
    return _wrong_kind(status.st_mode, flags) or _give(call, target, status, flags, mode)


def _give(call: Call, held: int, status: os.stat_result, flags: int, mode: int, special: bytes = b"") -> int | None:
    """Open for real what is held, and answer with it.  special: its path if that is not plain (paths.py)"""
    kind = status.st_mode
    if flags & O_TMPFILE_BIT:
        return create_nameless(call, held, flags, mode)
    how = flags & ~_NOT_REOPENED | O_NOCTTY | O_CLOEXEC
    if flags & O_CREAT:
        how &= ~O_EXCL  # alone it has a meaning of its own, for block devices
    if flags & O_PATH:
        how |= O_NONBLOCK
    if S_ISCHR(kind) and call.rules.lifted & KFD and is_kfd(status.st_rdev):
        return _leave_kfd(call, flags)
    if S_ISREG(kind) or S_ISDIR(kind):
        if flags & O_TRUNC:
            call.valid()
            call.begin_effect()
        fd = _open_file(call, held, how)
    else:
        fd = _open_special(call, held, kind, status.st_rdev, how, flags & O_PATH)
    if fd < 0:
        return fd
    if special and S_ISREG(kind) and not flags & O_ACCMODE:
        fd = substitute(call, fd, special, how)
    call.install(fd, flags & (O_CLOEXEC | O_ACCMODE if S_ISREG(kind) else O_CLOEXEC))
    return None


def _leave_kfd(call: Call, flags: int) -> int | None:
    """trace/allow_unsafe_open_kfd: the kernel opens the device in the caller, who alone may use it then (syd(2)).

    The path is resolved again: whoever sets the option allows a race for as long as it is set.
    """
    if call.nr == _NR_OPENAT2:
        return -ENOSYS
    if flags & O_ACCMODE != O_RDWR or flags & (O_CREAT | O_TRUNC | O_TMPFILE_BIT):
        return -EACCES
    call.valid()
    call.resume()
    return None


def _may_create(call: Call, status: os.stat_result, path: bytes) -> bool:
    """May what exists be opened with O_CREAT?  It was opened to be new, and somebody else may have put it there."""
    if not call.rules.lifted & CREATE and (S_ISREG(status.st_mode) or S_ISFIFO(status.st_mode)):
        return is_own_and_closed(status)
    return may_open_to_create(status, path)


def _wrong_kind(kind: int, flags: int) -> int:
    """0, or -errno for an object that cannot be opened so; in the order of do_open() in fs/namei.c."""
    if flags & O_CREAT:
        if flags & O_EXCL:
            return -EEXIST
        if S_ISDIR(kind):
            return -EISDIR
    if S_ISDIR(kind):
        return -EISDIR if flags & O_ACCMODE and not flags & O_TMPFILE_BIT else 0
    if flags & O_DIRECTORY:
        return -ENOTDIR
    return -ELOOP if S_ISLNK(kind) else 0


def _guard_proc(call: Call, path: bytes, kind: int, flags: int) -> None:
    """Raises OSError EACCES for what belongs to another process and only its tracer may see (spec 1.12)."""
    inside = in_proc(path)
    pid = pid_in(inside) if inside is not None else 0
    if inside is None or not pid or is_own(call, pid) or call.rules.option("trace/allow_unsafe_magiclinks"):
        return
    names = inside.split(b"/")[2:]
    if names[:1] == [b"task"]:
        names = names[2:]
    if names and (names[0] not in _PUBLIC or (flags & O_ACCMODE and not S_ISDIR(kind))):
        raise OSError(EACCES, os.strerror(EACCES), path)


def _judge(call: Call, path: bytes, kind: int, flags: int) -> None:
    verdicts = call.rules.verdicts
    if flags & O_TMPFILE_BIT:
        if verdicts["mktemp"][path]:
            call.judge("mktemp", path)
    elif flags & O_TRUNC and S_ISREG(kind) and verdicts["truncate"][path]:
        call.judge("truncate", path)
    access = flags & O_ACCMODE
    if access != O_WRONLY:
        category = "readdir" if S_ISDIR(kind) and not flags & O_TMPFILE_BIT else "read"
        if verdicts[category][path]:
            call.judge(category, path)
    if access and verdicts["write"][path]:
        call.judge("write", path)


def _open_file(call: Call, held: int, how: int) -> int:
    """Open a regular file or directory that is held: it waits only where somebody has a lease on it (fcntl(2))."""
    name = b"/proc/self/fd/%d" % held
    if how & O_NONBLOCK:
        return raw_openat(AT_FDCWD, name, how)
    fd = raw_openat(AT_FDCWD, name, how | O_NONBLOCK)
    if fd >= 0:
        fcntl(fd, F_SETFL, how)
    elif fd == -EAGAIN:
        return call.blocking(raw_openat, AT_FDCWD, name, how)
    return fd


def _open_special(call: Call, held: int, kind: int, device: int, how: int, only_path: int) -> int:
    """Open a FIFO, device or socket that is held: effects from here on, and it may have to wait."""
    call.valid()
    waits = S_ISFIFO(kind) and how & O_ACCMODE != O_RDWR
    if S_ISCHR(kind) or S_ISBLK(kind):
        if device == TTY and S_ISCHR(kind):
            return open_tty(call, how)
        waits = not (S_ISCHR(kind) and is_quick(device))
        if waits and only_path:
            return -EACCES
    call.begin_effect()
    name = b"/proc/self/fd/%d" % held
    if waits and not how & O_NONBLOCK:
        return call.blocking(raw_openat, AT_FDCWD, name, how)
    return raw_openat(AT_FDCWD, name, how)
