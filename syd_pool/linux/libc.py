"""Thin calls into libc and the kernel.

Two kinds.  Plain functions raise OSError with the errno and the path, as `os` does.  Functions
named `raw_*` return the result or -errno and raise nothing: they are for the way of a call, where
an exception costs more than the system call.  Only what `os` lacks, or does at a higher price, is here.

Imports only ctypes, errno, os and struct: this module is loaded in front of every command.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import (
    CFUNCTYPE,
    addressof,
    byref,
    c_char_p,
    c_int,
    c_long,
    c_ulong,
    c_void_p,
    create_string_buffer,
    get_errno,
)
from errno import EBADF, EINVAL
from struct import Struct

from syd_pool.linux.numbers import NR

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EACCESS = 0x200
AT_REMOVEDIR = 0x200
AT_SYMLINK_FOLLOW = 0x400
AT_EMPTY_PATH = 0x1000
AT_EXECVE_CHECK = 0x10000

O_PATH = os.O_PATH
O_TMPFILE = os.O_TMPFILE
PIDFD_THREAD = os.O_EXCL  # Linux 6.9
O_LARGEFILE = 0o100000  # what the kernel shows; os.O_LARGEFILE is 0 on x86_64

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20

# <linux/securebits.h>; the lock of each bit is the next bit.  Linux 6.14, no capability needed
SECBIT_EXEC_RESTRICT_FILE = 1 << 8
SECBIT_EXEC_DENY_INTERACTIVE = 1 << 10

PROC_SUPER_MAGIC = 0x9FA0

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

MFD_CLOEXEC = 1
MFD_ALLOW_SEALING = 2
MFD_NOEXEC_SEAL = 8
F_ADD_SEALS = 1033
F_SEAL_SEAL = 1
F_SEAL_SHRINK = 2
F_SEAL_GROW = 4
F_SEAL_WRITE = 8
F_SEAL_FUTURE_WRITE = 16

_libc = ctypes.CDLL(None, use_errno=True)

# syscall(2) in two ways.
#
# raw_syscall: declared types, any 64-bit argument, any thread.
raw_syscall = CFUNCTYPE(c_long, c_long, c_long, c_long, c_long, c_long, c_long, c_long, use_errno=True)(
    ("syscall", _libc)
)
# _quick: a third of the price (a getpid: 0.25 us against 0.66), because nothing is declared, the interpreter is not
# let go and errno is read where it is.  So: only for the thread a process began with; bytes, descriptors and other
# words of at most 32 bits as they are (ctypes cuts longer ones off); addresses of our buffers through _pointer;
# AT_FDCWD as _CWD, since a negative number is dear; the sixth argument never an int: it goes by the stack, where
# ctypes would write four bytes of eight.
_quick = ctypes.PyDLL(None).syscall
_quick.restype = c_long
_errno_location = ctypes.PyDLL(None)["__errno_location"]
_errno_location.restype = c_void_p
_errno = c_int.from_address(_errno_location())


def _find_errno() -> None:
    """In a new process, whose only thread may be another one than the parent's first (tracer/inside.py)."""
    global _errno
    _errno = c_int.from_address(_errno_location())


os.register_at_fork(after_in_child=_find_errno)


class _Pointers(dict[int, c_void_p]):
    """Address of a buffer that stays -> the same for _quick."""

    def __missing__(self, address: int) -> c_void_p:
        self[address] = pointer = c_void_p(address)
        return pointer


_pointer = _Pointers()
_CWD = c_int(AT_FDCWD)
_ZERO = c_ulong(0)


_NR_OPENAT = NR["openat"]
_NR_OPENAT2 = NR["openat2"]
_NR_FSTAT = NR["fstat"]
_NR_NEWFSTATAT = NR["newfstatat"]
_NR_STATX = NR["statx"]
_NR_FACCESSAT2 = NR["faccessat2"]
_NR_READLINKAT = NR["readlinkat"]
_NR_GETDENTS64 = NR["getdents64"]
_NR_MKDIRAT = NR["mkdirat"]
_NR_UNLINKAT = NR["unlinkat"]
_NR_RENAMEAT2 = NR["renameat2"]
_NR_LINKAT = NR["linkat"]
_NR_SYMLINKAT = NR["symlinkat"]
_NR_TRUNCATE = NR["truncate"]
_NR_FCHMODAT = NR["fchmodat"]
_NR_FCHMODAT2 = NR["fchmodat2"]
_NR_FCHOWNAT = NR["fchownat"]
_NR_UTIMENSAT = NR["utimensat"]
_NR_MKNODAT = NR["mknodat"]
_NR_FSTATFS = NR["fstatfs"]
_NR_INOTIFY_ADD_WATCH = NR["inotify_add_watch"]
# indexed by `link`: the call that follows a symbolic link, the one that means the link itself
_NR_GETXATTR = NR["getxattr"], NR["lgetxattr"]
_NR_LISTXATTR = NR["listxattr"], NR["llistxattr"]
_NR_SETXATTR = NR["setxattr"], NR["lsetxattr"]
_NR_REMOVEXATTR = NR["removexattr"], NR["lremovexattr"]
_NR_SOCKET, _NR_ACCEPT4, _NR_MEMFD = NR["socket"], NR["accept4"], NR["memfd_create"]
_NR_BIND = NR["bind"]
_NR_CONNECT = NR["connect"]
_NR_SENDMSG = NR["sendmsg"]
_NR_GETSOCKOPT = NR["getsockopt"]
_NR_PIDFD_GETFD = NR["pidfd_getfd"]
_NR_PRLIMIT64 = NR["prlimit64"]
_NR_VM_READV = NR["process_vm_readv"]
_NR_VM_WRITEV = NR["process_vm_writev"]

_OPEN_HOW = Struct("QQQ")
_how_buffer = create_string_buffer(_OPEN_HOW.size)
_how = byref(_how_buffer)
_IOVEC = Struct("QQ")
_TWO_IOVECS = Struct("QQQQ")
_iov_buffer = create_string_buffer(_TWO_IOVECS.size)
_liov, _riov = c_void_p(addressof(_iov_buffer)), c_void_p(addressof(_iov_buffer) + _IOVEC.size)
# Words that a worker's filter wants in unused argument registers of some calls (boundary/worker_filter.py);
# 0 in every other process.
COOKIED = frozenset(
    ("openat2", "pidfd_open", "pidfd_getfd", "pidfd_send_signal", "setfsuid", "setfsgid", "setgroups", "setresuid",
     "setresgid", "capset", "bind", "connect", "shutdown", "socket", "accept4", "landlock_create_ruleset",
     "landlock_add_rule", "landlock_restrict_self")
)  # fmt: skip
_cookie_one = _cookie_two = 0
_one, _two = c_ulong(0), c_ulong(0)  # the same for _quick


def set_cookies(one: int, two: int) -> None:
    """From now on the calls in COOKIED carry these words in their fifth and sixth argument."""
    global _cookie_one, _cookie_two
    _cookie_one, _cookie_two = _one.value, _two.value = one, two


_pack_how = _OPEN_HOW.pack_into
_pack_iovs = _TWO_IOVECS.pack_into


def raise_errno(result: int, path: bytes | str | None = None) -> int:
    """Turn a -errno into OSError (with `path`); a result >= 0 passes through."""
    if result < 0:
        raise OSError(-result, os.strerror(-result), path)
    return result


def syscall(name: str, *args: int) -> int:
    """syscall(2) by name with integer arguments.  Raises OSError."""
    filled = args + (0,) * (6 - len(args))
    if name in COOKIED:
        filled = (*filled[:4], _cookie_one, _cookie_two)
    result: int = raw_syscall(NR[name], *filled)
    if result < 0:
        raise OSError(get_errno(), f"{name}: {os.strerror(get_errno())}")
    return result


# --- files ---------------------------------------------------------------------------------------


def raw_openat2(dirfd: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2): a new descriptor or -errno.  `path` ends at its first NUL."""
    _pack_how(_how_buffer, 0, flags, mode, resolve)
    fd = _quick(_NR_OPENAT2, _CWD if dirfd == AT_FDCWD else dirfd, path, _how, 24, _one, _two)
    return fd if fd >= 0 else -_errno.value


def open_how(flags: int, resolve: int, mode: int = 0) -> object:
    """A struct open_how that stays, for raw_openat2_how()."""
    return byref(create_string_buffer(_OPEN_HOW.pack(flags, mode, resolve), _OPEN_HOW.size))


def raw_openat2_how(dirfd: int, path: bytes, how: object) -> int:
    """As raw_openat2(), with what open_how() returned."""
    fd = _quick(_NR_OPENAT2, _CWD if dirfd == AT_FDCWD else dirfd, path, how, 24, _one, _two)
    return fd if fd >= 0 else -_errno.value


def raw_openat(dirfd: int, path: bytes, flags: int, mode: int = 0) -> int:
    """openat(2) without the EINTR loop of os.open (PEP 475): a new descriptor or -errno."""
    fd = _quick(_NR_OPENAT, _CWD if dirfd == AT_FDCWD else dirfd, path, flags, mode)
    return fd if fd >= 0 else -_errno.value


def raw_fstat(fd: int, buffer: int) -> int:
    """fstat(2) into the 144 bytes at address `buffer`."""
    return 0 if _quick(_NR_FSTAT, fd, _pointer[buffer]) == 0 else -_errno.value


_STAT_SIZE = 48  # where st_size is in struct stat
_stat_buffer = create_string_buffer(144)
_stat, _stat_size = byref(_stat_buffer), c_long.from_buffer(_stat_buffer, _STAT_SIZE)


def size_of(path: bytes) -> int:
    """st_size of what a path leads to, or -errno."""
    return _stat_size.value if _quick(_NR_NEWFSTATAT, _CWD, path, _stat, 0) == 0 else -_errno.value


def raw_fstatat(dirfd: int, path: bytes, buffer: int, flags: int) -> int:
    """newfstatat(2) into the 144 bytes at address `buffer`."""
    return (
        0
        if _quick(_NR_NEWFSTATAT, _CWD if dirfd == AT_FDCWD else dirfd, path, _pointer[buffer], flags) == 0
        else -_errno.value
    )


def raw_statx(dirfd: int, path: bytes, flags: int, mask: int, buffer: int) -> int:
    """statx(2) into the 256 bytes at address `buffer`."""
    return (
        0
        if _quick(_NR_STATX, _CWD if dirfd == AT_FDCWD else dirfd, path, flags, mask, _pointer[buffer]) == 0
        else -_errno.value
    )


def raw_faccessat2(dirfd: int, path: bytes, mode: int, flags: int) -> int:
    """faccessat2(2)."""
    return 0 if _quick(_NR_FACCESSAT2, _CWD if dirfd == AT_FDCWD else dirfd, path, mode, flags) == 0 else -_errno.value


def raw_readlinkat(dirfd: int, path: bytes, buffer: int, size: int) -> int:
    """readlinkat(2) into `size` bytes at address `buffer`: the length or -errno."""
    n = _quick(_NR_READLINKAT, _CWD if dirfd == AT_FDCWD else dirfd, path, _pointer[buffer], size)
    return n if n >= 0 else -_errno.value


def raw_getdents64(fd: int, buffer: int, size: int) -> int:
    """getdents64(2) into `size` bytes at address `buffer`: the length, 0 at the end, or -errno."""
    n = _quick(_NR_GETDENTS64, fd, _pointer[buffer], size)
    return n if n >= 0 else -_errno.value


def raw_mkdirat(dirfd: int, path: bytes, mode: int) -> int:
    """mkdirat(2)."""
    return 0 if _quick(_NR_MKDIRAT, _CWD if dirfd == AT_FDCWD else dirfd, path, mode) == 0 else -_errno.value


def raw_unlinkat(dirfd: int, path: bytes, flags: int) -> int:
    """unlinkat(2)."""
    return 0 if _quick(_NR_UNLINKAT, _CWD if dirfd == AT_FDCWD else dirfd, path, flags) == 0 else -_errno.value


def raw_renameat2(olddir: int, old: bytes, newdir: int, new: bytes, flags: int) -> int:
    """renameat2(2)."""
    return 0 if _quick(_NR_RENAMEAT2, olddir, old, newdir, new, flags) == 0 else -_errno.value


def raw_linkat(olddir: int, old: bytes, newdir: int, new: bytes, flags: int) -> int:
    """linkat(2)."""
    return 0 if _quick(_NR_LINKAT, olddir, old, newdir, new, flags) == 0 else -_errno.value


def raw_symlinkat(target: bytes, dirfd: int, path: bytes) -> int:
    """symlinkat(2)."""
    return 0 if _quick(_NR_SYMLINKAT, target, dirfd, path) == 0 else -_errno.value


_path_first = CFUNCTYPE(c_long, c_long, c_char_p, c_long, c_long, c_long, c_long, c_long, use_errno=True)(
    ("syscall", _libc)
)


def raw_truncate(path: bytes, length: int) -> int:
    """truncate(2)."""
    return 0 if _path_first(_NR_TRUNCATE, path, length, 0, 0, 0, 0) == 0 else -get_errno()


def raw_fallocate(fd: int, mode: int, offset: int, length: int) -> int:
    """fallocate(2)."""
    return 0 if raw_syscall(NR["fallocate"], fd, mode, offset, length, 0, 0) == 0 else -get_errno()


def raw_fchmodat(dirfd: int, path: bytes, mode: int) -> int:
    """fchmodat(2) as the kernel has it: without flags."""
    return 0 if _quick(_NR_FCHMODAT, _CWD if dirfd == AT_FDCWD else dirfd, path, mode) == 0 else -_errno.value


def raw_fchmodat2(dirfd: int, path: bytes, mode: int, flags: int) -> int:
    """fchmodat2(2), Linux 6.6."""
    return 0 if _quick(_NR_FCHMODAT2, _CWD if dirfd == AT_FDCWD else dirfd, path, mode, flags) == 0 else -_errno.value


def raw_fchownat(dirfd: int, path: bytes, uid: int, gid: int, flags: int) -> int:
    """fchownat(2)."""
    return (
        0 if _quick(_NR_FCHOWNAT, _CWD if dirfd == AT_FDCWD else dirfd, path, uid, gid, flags) == 0 else -_errno.value
    )


def raw_utimensat(dirfd: int, path: bytes, times: int, flags: int) -> int:
    """utimensat(2) with the two struct timespec at address `times`, or 0 for now."""
    return (
        0
        if _quick(_NR_UTIMENSAT, _CWD if dirfd == AT_FDCWD else dirfd, path, _pointer[times], flags) == 0
        else -_errno.value
    )


def raw_mknodat(dirfd: int, path: bytes, mode: int, device: int) -> int:
    """mknodat(2)."""
    return 0 if _quick(_NR_MKNODAT, _CWD if dirfd == AT_FDCWD else dirfd, path, mode, device) == 0 else -_errno.value


def raw_fstatfs(fd: int, buffer: int) -> int:
    """fstatfs(2) into the 120 bytes at address `buffer`."""
    return 0 if _quick(_NR_FSTATFS, fd, _pointer[buffer]) == 0 else -_errno.value


def raw_inotify_add_watch(fd: int, path: bytes, mask: int) -> int:
    """inotify_add_watch(2): the watch descriptor or -errno."""
    wd = _quick(_NR_INOTIFY_ADD_WATCH, fd, path, mask)
    return wd if wd >= 0 else -_errno.value


def raw_getxattr(path: bytes, name: bytes, buffer: int, size: int, link: bool) -> int:
    """getxattr(2) into `size` bytes at address `buffer`, or lgetxattr(2): the length or -errno."""
    n = _quick(_NR_GETXATTR[link], path, name, _pointer[buffer], size)
    return n if n >= 0 else -_errno.value


def raw_listxattr(path: bytes, buffer: int, size: int, link: bool) -> int:
    """listxattr(2) into `size` bytes at address `buffer`, or llistxattr(2): the length or -errno."""
    n = _quick(_NR_LISTXATTR[link], path, _pointer[buffer], size)
    return n if n >= 0 else -_errno.value


def raw_setxattr(path: bytes, name: bytes, value: bytes, flags: int, link: bool) -> int:
    """setxattr(2) or lsetxattr(2)."""
    result = _quick(_NR_SETXATTR[link], path, name, value, len(value), flags)
    return 0 if result == 0 else -_errno.value


def raw_removexattr(path: bytes, name: bytes, link: bool) -> int:
    """removexattr(2) or lremovexattr(2)."""
    return 0 if _quick(_NR_REMOVEXATTR[link], path, name) == 0 else -_errno.value


def openat2(dirfd: int, path: bytes, flags: int, resolve: int = 0, mode: int = 0) -> int:
    """openat2(2).  Raises OSError with the path."""
    return raise_errno(raw_openat2(dirfd, path, flags, resolve, mode), path)


def fstatfs_type(fd: int) -> int:
    """f_type of fstatfs(2): the file system's magic number.  Raises OSError."""
    buffer = create_string_buffer(120)
    if raw_syscall(NR["fstatfs"], fd, addressof(buffer), 0, 0, 0, 0) < 0:
        raise OSError(get_errno(), os.strerror(get_errno()))
    return int.from_bytes(buffer.raw[:8], "little")


# --- sockets: on a caller's, which is reached by a duplicate -------------------------------------

SOL_SOCKET = 1
SO_TYPE, SO_DOMAIN = 3, 39
SO_PEERCRED, SO_COOKIE, SO_PEERPIDFD = 17, 57, 77

_address_first = CFUNCTYPE(c_long, c_long, c_long, c_char_p, c_long, c_long, c_long, c_long, use_errno=True)(
    ("syscall", _libc)
)
_MSGHDR = Struct("QIxxxxQQQQi4x")  # struct msghdr: name, namelen, iov, iovlen, control, controllen, flags
_LENGTH, _ADDRESS_SIZE = Struct("I"), 128  # struct sockaddr_storage
_address_buffer = create_string_buffer(_LENGTH.size + _ADDRESS_SIZE)
_address = addressof(_address_buffer)
_OPTION = Struct("iI")  # an int and its length
_option_buffer = create_string_buffer(_OPTION.size)
_option = addressof(_option_buffer)


def raw_socket(family: int, kind: int, protocol: int) -> int:
    """socket(2): a new descriptor or -errno."""
    fd = raw_syscall(_NR_SOCKET, family, kind, protocol, 0, _cookie_one, _cookie_two)
    return fd if fd >= 0 else -get_errno()


def raw_accept4(fd: int, flags: int) -> tuple[int, bytes]:
    """accept4(2): (a new descriptor or -errno, the peer's address); it may block."""
    _LENGTH.pack_into(_address_buffer, 0, _ADDRESS_SIZE)
    made = raw_syscall(_NR_ACCEPT4, fd, _address + _LENGTH.size, _address, flags, _cookie_one, _cookie_two)
    if made < 0:
        return -get_errno(), b""
    size = min(_LENGTH.unpack_from(_address_buffer)[0], _ADDRESS_SIZE)
    return made, _address_buffer.raw[_LENGTH.size : _LENGTH.size + size]


def raw_memfd_create(name: bytes, flags: int) -> int:
    """memfd_create(2): a new descriptor or -errno."""
    fd = _path_first(_NR_MEMFD, name, flags, 0, 0, 0, 0)
    return fd if fd >= 0 else -get_errno()


def raw_bind(fd: int, address: bytes) -> int:
    """bind(2)."""
    result = _address_first(_NR_BIND, fd, address, len(address), 0, _cookie_one, _cookie_two)
    return 0 if result == 0 else -get_errno()


def raw_connect(fd: int, address: bytes) -> int:
    """connect(2); it may block."""
    result = _quick(_NR_CONNECT, fd, address, len(address), 0, _one, _two)
    return 0 if result == 0 else -_errno.value


def raw_sendmsg(fd: int, address: bytes | None, data: bytes, control: bytes, flags: int) -> int:
    """sendmsg(2) of one buffer: how much was sent, or -errno; it may block."""
    name = create_string_buffer(address or b"", len(address or b"") + 1)
    body = create_string_buffer(data, len(data) + 1)
    extra = create_string_buffer(control, len(control) + 1)
    iov = create_string_buffer(_IOVEC.pack(addressof(body), len(data)), _IOVEC.size)
    message = create_string_buffer(
        _MSGHDR.pack(
            0 if address is None else addressof(name), len(address or b""), addressof(iov), 1,
            addressof(extra) if control else 0, len(control), 0,
        ),
        _MSGHDR.size,
    )  # fmt: skip
    n = raw_syscall(_NR_SENDMSG, fd, addressof(message), flags, 0, 0, 0)
    return n if n >= 0 else -get_errno()


def raw_socket_option(fd: int, name: int) -> int:
    """getsockopt(2) of an int of SOL_SOCKET: the value or -errno (-ENOTSOCK, -EBADF)."""
    _OPTION.pack_into(_option_buffer, 0, 0, 4)
    result = raw_syscall(_NR_GETSOCKOPT, fd, SOL_SOCKET, name, _option, _option + 4, _cookie_two)
    value: int = _OPTION.unpack_from(_option_buffer)[0]
    return value if result == 0 else -get_errno()


def socket_option(fd: int, name: int, size: int) -> bytes:
    """getsockopt(2) of `size` bytes of SOL_SOCKET.  Raises OSError."""
    value = create_string_buffer(size)
    length = create_string_buffer(size.to_bytes(4, "little"), 4)
    if raw_syscall(_NR_GETSOCKOPT, fd, SOL_SOCKET, name, addressof(value), addressof(length), _cookie_two):
        raise OSError(get_errno(), f"getsockopt: {os.strerror(get_errno())}")
    return value.raw


def shutdown(fd: int, how: int) -> None:
    """shutdown(2).  Raises OSError."""
    syscall("shutdown", fd, how)


# --- other processes -----------------------------------------------------------------------------


def raw_vm_readv(pid: int, address: int, buffer: int, size: int) -> int:
    """process_vm_readv(2): `size` bytes at the caller's `address` into our address `buffer`.

    Returns how many bytes were read (fewer at an unmapped page) or -errno.
    """
    _pack_iovs(_iov_buffer, 0, buffer, size, address, size)
    n = _quick(_NR_VM_READV, pid, _liov, 1, _riov, 1, _ZERO)
    return n if n >= 0 else -_errno.value


def raw_vm_writev(pid: int, address: int, buffer: int, size: int) -> int:
    """process_vm_writev(2): `size` bytes at our address `buffer` into the caller's `address`."""
    _pack_iovs(_iov_buffer, 0, buffer, size, address, size)
    n = _quick(_NR_VM_WRITEV, pid, _liov, 1, _riov, 1, _ZERO)
    return n if n >= 0 else -_errno.value


RLIMIT_NOFILE = 7
RLIM_INFINITY = 0xFFFFFFFFFFFFFFFF
_limit_buffer = create_string_buffer(16)  # struct rlimit64
_limit, _soft = byref(_limit_buffer), c_ulong.from_buffer(_limit_buffer)


def soft_limit(pid: int, resource: int) -> int:
    """The soft limit of another process, prlimit(2); RLIM_INFINITY when it may not be asked."""
    if _quick(_NR_PRLIMIT64, pid, resource, 0, _limit) < 0:
        return RLIM_INFINITY
    return _soft.value


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2): a duplicate of another process's descriptor.  Raises OSError."""
    new: int = _quick(_NR_PIDFD_GETFD, pidfd, fd, 0, 0, _one, _two)
    if new < 0:
        errno = _errno.value
        raise OSError(errno, f"pidfd_getfd: {os.strerror(errno)}")
    return new


def pidfd_open(pid: int, flags: int = 0) -> int:
    """pidfd_open(2), which os.pidfd_open makes without a worker's cookies.  Raises OSError."""
    return syscall("pidfd_open", pid, flags)


def pidfd_open_task(tid: int, tgid: int) -> int:
    """A pidfd of one thread; before Linux 6.9, which has none, of its thread group.  Raises OSError."""
    try:
        return pidfd_open(tid, PIDFD_THREAD)
    except OSError as error:
        if error.errno != EINVAL:
            raise
    return pidfd_open(tgid)


def descriptor_of(tid: int, tgid: int, fd: int) -> int:
    """A duplicate of what thread `tid` of group `tgid` holds as `fd`.  Raises OSError."""
    pidfd = pidfd_open_task(tid, tgid)
    try:
        return pidfd_getfd(pidfd, fd)
    finally:
        os.close(pidfd)


def same_file(fd: int, tid: int, number: int) -> bool:
    """Is our `fd` the same open file (not only the same name) as `number` of thread `tid`?  kcmp(2); no is -EBADF, too.

    Raises OSError: ENOSYS, ESRCH, EPERM.
    """
    try:
        return syscall("kcmp", os.getpid(), tid, 0, fd, number) == 0
    except OSError as error:
        if error.errno != EBADF:
            raise
        return False


def pidfd_send_signal(pidfd: int, sig: int, info: int = 0) -> None:
    """pidfd_send_signal(2); info: address of a siginfo_t, or 0.  Raises OSError."""
    syscall("pidfd_send_signal", pidfd, sig, info)


def tgkill(tgid: int, tid: int, sig: int) -> None:
    """tgkill(2).  Raises OSError."""
    syscall("tgkill", tgid, tid, sig)


# --- this process --------------------------------------------------------------------------------

sched_getcpu = ctypes.PyDLL(None).sched_getcpu


class _AskedCpu:
    """this_cpu where the kernel does not keep it in our memory."""

    def __getitem__(self, _at: int) -> int:
        cpu: int = sched_getcpu()
        return cpu


def _this_cpu() -> memoryview | _AskedCpu:
    """Where the kernel writes the CPU of the main thread: cpu_id of its struct rseq (glibc 2.35, rseq(2)).

    Asking costs 0.3 us of a call's 7, most of it because it evicts what the call needs next.
    """
    try:
        registered = ctypes.c_uint.in_dll(_libc, "__rseq_size").value
        offset = ctypes.c_ssize_t.in_dll(_libc, "__rseq_offset").value
    except ValueError:
        return _AskedCpu()
    if not registered:
        return _AskedCpu()
    pthread_self = ctypes.PyDLL(None).pthread_self  # the thread pointer, on x86-64
    pthread_self.restype = c_void_p
    return memoryview(ctypes.c_uint32.from_address(pthread_self() + offset + 4)).cast("B").cast("I")


this_cpu = _this_cpu()  # this_cpu[0]; of the main thread


def prctl(option: int, *args: int) -> int:
    """prctl(2).  Raises OSError."""
    return syscall("prctl", option, *args)


_worn = -1


def wear_umask(mask: int) -> None:
    """umask(2), unless it is this one already; for who says it before everything that is created."""
    global _worn
    if mask != _worn:
        os.umask(mask)
        _worn = mask


def set_name(name: str) -> None:
    """PR_SET_NAME: the comm of this thread (15 bytes)."""
    buffer = create_string_buffer(name.encode()[:15])
    prctl(PR_SET_NAME, addressof(buffer))


def die_with_parent(parent: int) -> None:
    """PR_SET_PDEATHSIG SIGKILL, re-checked: if `parent` died before we asked, we go at once."""
    prctl(PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        os._exit(137)


def close_range(first: int, last: int, flags: int = 0) -> None:
    """close_range(2), both ends included.  Raises OSError."""
    syscall("close_range", first, last, flags)


def close_all_but(keep: set[int] | list[int]) -> None:
    """Close every descriptor that is not in `keep`."""
    first = 0
    for fd in sorted(set(keep)):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first, 0xFFFFFFFF)


def seccomp_filter(bpf: bytes, flags: int) -> int:
    """seccomp(2) SECCOMP_SET_MODE_FILTER with a compiled program (8 bytes an instruction).

    Returns the listener with SECCOMP_FILTER_FLAG_NEW_LISTENER, else 0.  Raises OSError.
    """
    program = create_string_buffer(bpf, len(bpf))
    fprog = create_string_buffer(Struct("HxxxxxxQ").pack(len(bpf) // 8, addressof(program)), 16)
    return syscall("seccomp", 1, flags, addressof(fprog))


def sealed_memfd(name: str, size: int) -> int:
    """memfd_create(2) of fixed `size`: may be mapped and written, neither shrunk nor grown.

    Raises OSError.  MFD_NOEXEC_SEAL needs Linux 6.3; older kernels get it without.
    """
    try:
        fd = os.memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL)
    except OSError:
        fd = os.memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    add_seals(fd, F_SEAL_SHRINK | F_SEAL_GROW)
    return fd


def add_seals(fd: int, seals: int) -> None:
    """F_ADD_SEALS, see fcntl(2).  Raises OSError."""
    syscall("fcntl", fd, F_ADD_SEALS, seals)


def timer(seconds: float) -> int:
    """timerfd_create(2), timerfd_settime(2): a descriptor that can be read once, after so long.  Raises OSError."""
    fd = syscall("timerfd_create", 1, 0o2000000)  # CLOCK_MONOTONIC, TFD_CLOEXEC
    when = create_string_buffer(Struct("qqqq").pack(0, 0, int(seconds), int(seconds % 1 * 1e9)), 32)
    try:
        syscall("timerfd_settime", fd, 0, addressof(when), 0)
    except OSError:
        os.close(fd)
        raise
    return fd


def signalfd(signals: list[int], flags: int = 0o2004000) -> int:
    """signalfd4(2) for `signals` (they must be blocked).  Default flags: NONBLOCK and CLOEXEC."""
    mask = create_string_buffer(sum(1 << (s - 1) for s in signals).to_bytes(8, "little"), 8)
    return syscall("signalfd4", -1, addressof(mask), 8, flags)
