"""truncate(2), ftruncate(2), fallocate(2): category `truncate`."""

from __future__ import annotations

import os
from errno import EFBIG, EINVAL
from fcntl import F_GETFL, fcntl
from stat import S_ISREG

from syd_pool.emulate.call import AT_FDCWD, FOLLOW
from syd_pool.emulate.held import judged_fd
from syd_pool.emulate.judge import send_signal
from syd_pool.emulate.kept import protect
from syd_pool.linux.libc import raise_errno, raw_fallocate, raw_truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

SIGXFSZ = 25
FALLOC_FL_KEEP_SIZE = 1


def truncate(call: Call) -> int:
    """truncate(path, length)"""
    length = call.args[1]
    if length >> 63:
        return -EINVAL
    found = call.find(call, AT_FDCWD, call.string(call.args[0]), FOLLOW)
    path = found.path
    verdicts = call.rules.verdicts
    if verdicts["stat"][path]:
        call.judge("stat", path)
    if verdicts["truncate"][path]:
        call.judge("truncate", path)
    if call.rules.kept:
        protect(call, path)
    own = b"/proc/self/fd/%d" % found.fd  # the object that was judged, whatever its name is now
    if length > os.fstat(found.fd).st_size and length > _largest_file(call) and _writable(own):
        send_signal(call, SIGXFSZ)
        return -EFBIG
    call.valid()
    call.begin_effect()
    return call.blocking(raw_truncate, own, length)  # it waits where somebody has a lease on the file (fcntl(2))


def ftruncate(call: Call) -> int:
    """ftruncate(fd, length)"""
    length = call.args[1]
    if length >> 63:
        return -EINVAL
    own = judged_fd(call, call.fd(0), "truncate")
    if _too_large(call, own, length):
        return -EFBIG
    call.valid()
    call.begin_effect()
    os.ftruncate(own, length)
    return 0


def fallocate(call: Call) -> int:
    """fallocate(fd, mode, offset, length)"""
    mode, offset, length = call.int(1), call.args[2], call.args[3]
    own = judged_fd(call, call.fd(0), "truncate")
    if not (offset | length) >> 63 and not mode & FALLOC_FL_KEEP_SIZE and _too_large(call, own, offset + length):
        return -EFBIG
    call.valid()
    call.begin_effect()
    return raise_errno(raw_fallocate(own, mode, offset, length))


def _too_large(call: Call, own: int, length: int) -> bool:
    """Would this make a file larger than the caller may?  Then it has got its SIGXFSZ."""
    status = os.fstat(own)
    if not S_ISREG(status.st_mode) or length <= status.st_size or length <= _largest_file(call):
        return False
    if not fcntl(own, F_GETFL) & os.O_ACCMODE:
        return False
    send_signal(call, SIGXFSZ)
    return True


def _largest_file(call: Call) -> int:
    """The caller's RLIMIT_FSIZE: the kernel would apply ours.  Read from /proc, see proc_pid_limits(5)."""
    fd = os.open(b"/proc/%d/limits" % call.tid, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 4096)
    finally:
        os.close(fd)
    call.valid()
    soft = text[text.index(b"Max file size") + 13 :].split(None, 1)[0]
    return 1 << 63 if soft == b"unlimited" else int(soft)


def _writable(path: bytes) -> bool:
    """Would the kernel come as far as the limit?  It asks for a regular file and write permission first."""
    return os.path.isfile(path) and os.access(path, os.W_OK, effective_ids=True)
