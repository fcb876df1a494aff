"""truncate(2): category `truncate`.  ftruncate(2) passes natively: its descriptor was judged when opened."""

from __future__ import annotations

import os
from errno import EFBIG, EINVAL

from syd_pool.emulate.call import AT_FDCWD, FOLLOW
from syd_pool.emulate.judge import send_signal
from syd_pool.linux.libc import raw_truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

SIGXFSZ = 25


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
    own = b"/proc/self/fd/%d" % found.fd  # the object that was judged, whatever its name is now
    if length > os.fstat(found.fd).st_size and length > _largest_file(call) and _writable(own):
        send_signal(call, SIGXFSZ)
        return -EFBIG
    call.valid()
    call.begin_effect()
    return raw_truncate(own, length)


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
