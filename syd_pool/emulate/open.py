"""open(2), openat(2), openat2(2), creat(2).

    path --> held object (O_PATH) --> judged --> opened for real from what is held --> descriptor
         \\-> missing, O_CREAT: held directory, judged, created there with O_EXCL

Opening has effects (O_TRUNC, FIFOs, devices), so it is decided on the O_PATH descriptor and the object is
then reopened through our own /proc/self/fd: the same object, whatever the path means by now (I5).

Categories (syd(2)): exactly one of mktemp (O_TMPFILE), create (a new file), truncate (O_TRUNC on an
existing one); beside it read and write by the access mode; readdir for a directory; fs by the file system.

O_PATH.  The kernel lets nobody install an O_PATH descriptor in another process (ADDFD: EBADF), so the
caller gets a readable one of a file or directory, judged as reading, as syd does; other objects, whose opening
has effects, are refused with EACCES and links with ELOOP.
"""

from __future__ import annotations

import os
from errno import E2BIG, EACCES, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO
from stat import S_ISBLK, S_ISCHR, S_ISDIR, S_ISFIFO, S_ISLNK, S_ISREG

from syd_pool.emulate.call import AT_FDCWD, EMPTY, FOLLOW, Found
from syd_pool.emulate.judge import act
from syd_pool.linux.libc import O_PATH, fstatfs_type, raw_openat, raw_openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

O_ACCMODE, O_RDONLY, O_WRONLY, O_RDWR = 3, 0, 1, 2
O_CREAT, O_EXCL, O_NOCTTY, O_TRUNC, O_APPEND, O_NONBLOCK = 0o100, 0o200, 0o400, 0o1000, 0o2000, 0o4000
O_DIRECTORY, O_NOFOLLOW, O_CLOEXEC = 0o200000, 0o400000, 0o2000000
O_TMPFILE_BIT = 0o20000000  # __O_TMPFILE
# VALID_OPEN_FLAGS of include/linux/fcntl.h: open() ignores any other bit, openat2() refuses it
VALID = (
    O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | os.O_SYNC | os.O_DSYNC | os.O_ASYNC
    | os.O_DIRECT | 0o100000 | O_DIRECTORY | O_NOFOLLOW | os.O_NOATIME | O_CLOEXEC | O_PATH | O_TMPFILE_BIT
)  # fmt: skip  # 0o100000 is the kernel's O_LARGEFILE, which os.O_LARGEFILE is not on x86_64
_WITH_PATH = O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC
# what only says how to get there, or is ours to decide
_NOT_REOPENED = O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
_HOW_SIZE = 24
_PAGE = 4096
_RESOLVE_ALL = 0x3F
_RESOLVE_CACHED = 0x20
_MOST_RACES = 16  # between `it is missing` and `it exists`

# Devices whose opening never waits: memory (1), tty and console (5), ptys (136..143)
_QUICK_MAJORS = (1, 5, *range(136, 144))
_TTY = os.makedev(5, 0)


def open(call: Call) -> int | None:
    """open(path, flags, mode)"""
    return _open(call, AT_FDCWD, call.string(call.args[0]), _known(call.int(1)), call.int(2))


def openat(call: Call) -> int | None:
    """openat(dirfd, path, flags, mode)"""
    return _open(call, call.fd(0), call.string(call.args[1]), _known(call.int(2)), call.int(3))


def creat(call: Call) -> int | None:
    """creat(path, mode)"""
    return _open(call, AT_FDCWD, call.string(call.args[0]), O_CREAT | O_WRONLY | O_TRUNC, call.int(1))


def openat2(call: Call) -> int | None:
    """openat2(dirfd, path, how, size)"""
    size = call.args[3]
    if size < _HOW_SIZE:
        return -EINVAL
    if size > _PAGE:
        return -E2BIG
    raw = call.read(call.args[2], size)
    if any(raw[_HOW_SIZE:]):
        return -E2BIG
    flags, mode, resolve = (int.from_bytes(raw[at : at + 8], "little") for at in (0, 8, 16))
    if flags & ~VALID or resolve & ~_RESOLVE_ALL:
        return -EINVAL
    creates = flags & (O_CREAT | O_TMPFILE_BIT)
    if mode & ~0o7777 or (mode and not creates):
        return -EINVAL
    if flags & O_PATH and flags & ~_WITH_PATH:
        return -EINVAL
    path = call.string(call.args[1])
    if not resolve:
        return _open(call, call.fd(0), path, flags, mode)
    return _open_resolved(call, call.fd(0), path, flags, mode, resolve)


def _known(flags: int) -> int:
    """What open() makes of its flags: unknown bits are dropped, O_PATH drops all but its own."""
    flags &= VALID
    return flags & _WITH_PATH if flags & O_PATH else flags


def _refused(flags: int) -> int:
    """0, or the -errno of build_open_flags() in fs/open.c."""
    if flags & O_TMPFILE_BIT:
        if not flags & O_DIRECTORY or flags & O_ACCMODE == O_RDONLY or flags & O_CREAT:
            return -EINVAL
    elif flags & O_DIRECTORY and flags & O_CREAT:
        return -EINVAL
    return 0


def _open(call: Call, dirfd: int, path: bytes, flags: int, mode: int) -> int | None:
    refused = _refused(flags)
    if refused:
        return refused
    if not flags & O_CREAT:
        found = call.find(call, dirfd, path, 0 if flags & O_NOFOLLOW else FOLLOW)
        return _open_found(call, found, flags, mode)
    follow = 0 if flags & (O_NOFOLLOW | O_EXCL) else FOLLOW
    for _ in range(_MOST_RACES):
        found = call.entry(call, dirfd, path, follow)
        if found.fd >= 0:
            return _open_found(call, found, flags, mode)
        result = _create(call, found, flags, mode)
        if result != -EEXIST or flags & O_EXCL:
            return result
    return -EEXIST


# --- an existing object --------------------------------------------------------------------------


def _open_found(call: Call, found: Found, flags: int, mode: int) -> int | None:
    kind = found.mode or os.fstat(found.fd).st_mode
    path = found.path
    verdicts = call.rules.verdicts
    if verdicts["stat"][path]:
        call.judge("stat", path)
    if flags & O_CREAT and flags & O_EXCL:
        return -EEXIST
    refused = _wrong_kind(kind, found, flags)
    if refused:
        return refused
    _judge(call, path, kind, flags)
    if "fs" in call.rules.enabled:
        _judge_filesystem(call, found.fd, path)
    if flags & O_TMPFILE_BIT:
        return _open_tmpfile(call, found.fd, flags, mode)
    fd = _reopen(call, found.fd, kind, flags)
    if fd < 0:
        return fd
    return call.install(fd, flags & O_CLOEXEC)


def _wrong_kind(kind: int, found: Found, flags: int) -> int:
    """0, or -errno for an object that cannot be opened so (do_open() in fs/namei.c)."""
    if S_ISLNK(kind):
        return -ENOTDIR if flags & O_DIRECTORY and not flags & O_PATH else -ELOOP
    if S_ISDIR(kind):
        if flags & O_TMPFILE_BIT:
            return 0
        if flags & O_CREAT or flags & O_ACCMODE != O_RDONLY:
            return -EISDIR
        return 0
    if flags & O_CREAT and found.slash:
        return -EISDIR
    if flags & O_DIRECTORY or found.slash:
        return -ENOTDIR
    if flags & O_PATH and not S_ISREG(kind):
        return -EACCES
    return 0


def _judge(call: Call, path: bytes, kind: int, flags: int) -> None:
    verdicts = call.rules.verdicts
    if flags & O_TMPFILE_BIT:
        call.judge("mktemp", path)
    elif flags & O_TRUNC and S_ISREG(kind):
        call.judge("truncate", path)
    access = flags & O_ACCMODE
    if access != O_WRONLY:
        category = "readdir" if S_ISDIR(kind) and not flags & O_TMPFILE_BIT else "read"
        if verdicts[category][path]:
            call.judge(category, path)
    if access != O_RDONLY and verdicts["write"][path]:
        call.judge("write", path)


def _judge_filesystem(call: Call, fd: int, path: bytes) -> None:
    action = call.rules.filesystem[fstatfs_type(fd)]
    if action:
        act(call, "fs", path, action)


def _reopen(call: Call, held: int, kind: int, flags: int) -> int:
    """Open the held object for real.  Returns a descriptor or -errno."""
    if flags & O_PATH:
        how = O_RDONLY | flags & O_DIRECTORY
    else:
        how = flags & ~_NOT_REOPENED
    how |= O_NOCTTY | O_CLOEXEC
    name = b"/proc/self/fd/%d" % held
    waits = False
    if S_ISCHR(kind) or S_ISBLK(kind):
        device = os.fstat(held).st_rdev
        if device == _TTY:
            return _open_tty(call, how)
        waits = os.major(device) not in _QUICK_MAJORS
    call.valid()
    if (waits or S_ISFIFO(kind)) and not how & O_NONBLOCK:
        return call.blocking(raw_openat, AT_FDCWD, name, how)
    if flags & O_TRUNC:
        call.begin_effect()
    return raw_openat(AT_FDCWD, name, how)


def _open_tty(call: Call, how: int) -> int:
    """/dev/tty is the controlling terminal of who opens it: the caller's, found by its tty_nr in proc_pid_stat(5)."""
    with_stat = os.open(b"/proc/%d/stat" % call.tid, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(with_stat, 4096)
    finally:
        os.close(with_stat)
    call.valid()
    number = int(text[text.rindex(b")") + 2 :].split()[4])
    major, minor = os.major(number), os.minor(number)
    if 136 <= major <= 143:
        return raw_openat(AT_FDCWD, b"/dev/pts/%d" % ((major - 136) * 256 + minor), how)
    if major == 4:
        return raw_openat(AT_FDCWD, b"/dev/tty%d" % minor if minor < 64 else b"/dev/ttyS%d" % (minor - 64), how)
    return -ENXIO


# --- a new one -----------------------------------------------------------------------------------


def _create(call: Call, found: Found, flags: int, mode: int) -> int | None:
    path = found.path
    if found.slash:
        return -EISDIR
    verdicts = call.rules.verdicts
    if verdicts["stat"][path]:
        call.judge("stat", path)
    call.judge("create", path)
    access = flags & O_ACCMODE
    if access != O_WRONLY and verdicts["read"][path]:
        call.judge("read", path)
    if access != O_RDONLY and verdicts["write"][path]:
        call.judge("write", path)
    if "fs" in call.rules.enabled:
        _judge_filesystem(call, found.parent, path)
    how = flags & ~_NOT_REOPENED | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC
    fd = _with_umask(call, found.parent, found.name, how, mode)
    return fd if fd < 0 else call.install(fd, flags & O_CLOEXEC)


def _open_tmpfile(call: Call, directory: int, flags: int, mode: int) -> int | None:
    """O_TMPFILE: a file without a name; O_EXCL keeps it from ever getting one."""
    how = flags & ~(O_NOFOLLOW | O_CLOEXEC) | O_NOCTTY | O_CLOEXEC
    fd = _with_umask(call, AT_FDCWD, b"/proc/self/fd/%d" % directory, how, mode)
    return fd if fd < 0 else call.install(fd, flags & O_CLOEXEC)


def _with_umask(call: Call, dirfd: int, name: bytes, how: int, mode: int) -> int:
    """Create under the caller's umask itself: a default ACL of the directory replaces it (acl(5))."""
    mask = call.umask()
    call.valid()
    os.umask(mask)
    call.begin_effect()
    fd = raw_openat(dirfd, name, how, mode & 0o7777)
    os.umask(0)
    return fd


# --- openat2 with resolve flags ------------------------------------------------------------------


def _open_resolved(call: Call, dirfd: int, path: bytes, flags: int, mode: int, resolve: int) -> int | None:
    """Let the kernel apply RESOLVE_* to the caller's own directory, then go on with what it found.

    Its /proc/self would be ours, so a path through a procfs link that means the reader is refused.
    """
    refused = _refused(flags)
    if refused:
        return refused
    if resolve & _RESOLVE_CACHED and flags & (O_TRUNC | O_CREAT | O_TMPFILE_BIT):
        return -11  # EAGAIN
    parts = path.split(b"/")
    if b"self" in parts or b"thread-self" in parts:
        return -EACCES
    base = call.find(call, dirfd, b"", EMPTY)
    follow = 0 if flags & O_NOFOLLOW or (flags & O_CREAT and flags & O_EXCL) else FOLLOW
    how = O_PATH | O_CLOEXEC | (0 if follow else O_NOFOLLOW)
    fd = raw_openat2(base.fd, path, how, resolve)
    if fd >= 0:
        call.keep(fd)
        return _open_found(call, _held(fd, path), flags, mode)
    if fd != -ENOENT or not flags & O_CREAT:
        return fd
    return _create_resolved(call, base.fd, path, flags, mode, resolve)


def _held(fd: int, path: bytes) -> Found:
    text = os.readlink(b"/proc/self/fd/%d" % fd)
    return Found(fd, -1, text[text.rfind(b"/") + 1 :], text, 0, path[-1:] == b"/")


def _create_resolved(call: Call, base: int, path: bytes, flags: int, mode: int, resolve: int) -> int | None:
    """The last component is missing: its directory is resolved in the same way and held."""
    if path[-1:] == b"/":
        return -EISDIR
    at = path.rfind(b"/")
    directory, name = path[: at + 1] or b".", path[at + 1 :]
    parent = raw_openat2(base, directory, O_PATH | O_CLOEXEC | O_DIRECTORY, resolve)
    if parent < 0:
        return parent
    call.keep(parent)
    text = os.readlink(b"/proc/self/fd/%d" % parent)
    found = Found(-1, parent, name, (b"" if text == b"/" else text) + b"/" + name)
    return _create(call, found, flags, mode)

