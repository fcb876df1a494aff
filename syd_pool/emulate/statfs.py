"""statfs(2): category `stat`.  fstatfs(2) passes natively."""

from __future__ import annotations

from ctypes import addressof, create_string_buffer

from syd_pool.emulate.call import AT_FDCWD, FOLLOW
from syd_pool.emulate.held import judge_object
from syd_pool.linux.libc import raw_fstatfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

STATFS_SIZE = 120  # struct statfs of x86_64

_storage = create_string_buffer(STATFS_SIZE)
_buffer = addressof(_storage)


def statfs(call: Call) -> int:
    """statfs(path, buf)"""
    found = call.find(call, AT_FDCWD, call.string(call.args[0]), FOLLOW)
    judge_object(call, found.path)
    result = raw_fstatfs(found.fd, _buffer)
    if result == 0:
        call.valid()
        call.write_from(call.args[1], _buffer, STATFS_SIZE)
    return result
