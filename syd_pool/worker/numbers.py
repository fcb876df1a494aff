"""trace/force_rand_fd: a number for a new descriptor of the caller that nobody can guess and nobody has.

Between the look and ADDFD another thread of the caller may take the number, by dup2(2) or through another worker; then
what it got there is closed, as dup2 over it would do.  With a thousand free numbers that is one chance in a thousand
for two opens in the same microseconds.
"""

from __future__ import annotations

import os
from ctypes import addressof, create_string_buffer
from errno import EBADF, EMFILE, ENOENT

from syd_pool.linux.libc import AT_FDCWD, RLIMIT_NOFILE, raw_readlinkat, soft_limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.worker.caller import Caller

LEAST = 3  # what a program has closed of 0, 1 and 2 must not become a file it prints into
MOST = 65536  # the kernel's table is as long as the greatest number: 512 KiB in every process that forks from there
_TRIES = 8

_buffer = create_string_buffer(1)
_target = addressof(_buffer)


def free_number(call: Caller) -> int:
    """A random number below the caller's RLIMIT_NOFILE that it has not open.  Raises OSError EMFILE.

    Asks valid(), for it reads /proc/TID.
    """
    limit: int = min(soft_limit(call.tid, RLIMIT_NOFILE), MOST)
    if limit <= LEAST:
        raise OSError(EMFILE, os.strerror(EMFILE))
    start = _random(limit)
    for number in [_random(limit) for _ in range(_TRIES)]:
        if _is_free(call, number):
            call.valid()
            return number
    others: list[int] = [*range(start, limit), *range(LEAST, start)]
    for number in others:  # nearly full
        if _is_free(call, number):
            call.valid()
            return number
    call.valid()
    raise OSError(EMFILE, os.strerror(EMFILE))


def _random(limit: int) -> int:
    return LEAST + int.from_bytes(os.getrandom(8), "little") % (limit - LEAST)


def _is_free(call: Caller, number: int) -> bool:
    if not call.cred_gen:
        result = raw_readlinkat(AT_FDCWD, b"/proc/%d/fd/%d" % (call.tid, number), _target, 1)
        if result < 0 and result != -ENOENT:
            raise OSError(-result, os.strerror(-result))
        return bool(result < 0)
    try:  # its /proc/TID/fd is root's since it changed its ids
        call.own_fd(number)
    except OSError as error:
        if error.errno != EBADF:
            raise
        return True
    return False
