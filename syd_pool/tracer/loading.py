"""load/FD: the text in a descriptor of the caller (syd(2), load)."""

from __future__ import annotations

import os
from errno import EBADF, EBADFD, EFBIG
from stat import S_ISREG

from syd_pool.linux.libc import descriptor_of
from syd_pool.policy.parse import bad

LARGEST = 1 << 20  # bytes: the tracer reads it between two calls


def text_of(tid: int, tgid: int, fd: int) -> bytes:
    """What a regular file holds from where its descriptor `fd` of thread `tid` stands.  Raises BadRule.

    It is read through an open file description of its own position's owner: the caller's, as in syd.
    """
    line = f"load/{fd}"
    if fd < 0:
        raise bad(line, "no such descriptor", errno=EBADF)
    try:
        own = descriptor_of(tid, tgid, fd)
    except OSError as error:
        raise bad(line, "no such descriptor", errno=error.errno or EBADF) from None
    try:
        return _read(line, own)
    except OSError as error:
        raise bad(line, "cannot be read", "open it for reading", error.errno or EBADF) from None
    finally:
        os.close(own)


def _read(line: str, fd: int) -> bytes:
    if not S_ISREG(os.fstat(fd).st_mode):
        raise bad(line, "is not a regular file", errno=EBADFD)
    data = b""
    while part := os.read(fd, LARGEST + 1 - len(data)):
        data += part
        if len(data) > LARGEST:
            raise bad(line, f"is larger than {LARGEST >> 20} MiB", errno=EFBIG)
    return data
