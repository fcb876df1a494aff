"""Extended attributes: get*, list*: category `read`; set*, remove*: category `chattr`.

The calls take no O_PATH descriptor, so the held object is reached by a path of ours (held.py); what a
descriptor of the caller holds, too (fgetxattr(2) and its kin).  The *xattrat calls of Linux 6.13 are not built.
The order of the checks is that of fs/xattr.c since Linux 6.13: name and value, then the path.
"""

from __future__ import annotations

from ctypes import addressof, create_string_buffer, memmove
from errno import E2BIG, EINVAL, ENAMETOOLONG, ENODATA, EPERM, ERANGE

from syd_pool.emulate.call import FOLLOW
from syd_pool.emulate.held import judge_object, judged_fd, own_path, reach
from syd_pool.linux.libc import raw_getxattr, raw_listxattr, raw_removexattr, raw_setxattr
from syd_pool.policy.forced import XATTR
from syd_pool.policy.lock import EXEC, OFF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

# <linux/limits.h>.  The kernel cuts greater sizes of a buffer down to these, so no caller makes us take more.
XATTR_NAME_MAX = 255
XATTR_SIZE_MAX = 65536
XATTR_LIST_MAX = 65536
XATTR_CREATE, XATTR_REPLACE = 1, 2
_CLOSED = (b"security.", b"system.", b"trusted.")

_storage = create_string_buffer(XATTR_SIZE_MAX)
_buffer = addressof(_storage)


def getxattr(call: Call) -> int:
    """getxattr(path, name, value, size)"""
    return _get(call, FOLLOW)


def lgetxattr(call: Call) -> int:
    """lgetxattr(path, name, value, size)"""
    return _get(call, 0)


def listxattr(call: Call) -> int:
    """listxattr(path, list, size)"""
    return _list(call, FOLLOW)


def llistxattr(call: Call) -> int:
    """llistxattr(path, list, size)"""
    return _list(call, 0)


def setxattr(call: Call) -> int:
    """setxattr(path, name, value, size, flags)"""
    return _set(call, FOLLOW)


def lsetxattr(call: Call) -> int:
    """lsetxattr(path, name, value, size, flags)"""
    return _set(call, 0)


def removexattr(call: Call) -> int:
    """removexattr(path, name)"""
    return _remove(call, FOLLOW)


def lremovexattr(call: Call) -> int:
    """lremovexattr(path, name)"""
    return _remove(call, 0)


def fgetxattr(call: Call) -> int:
    """fgetxattr(fd, name, value, size)"""
    return _get(call, None)


def flistxattr(call: Call) -> int:
    """flistxattr(fd, list, size)"""
    return _list(call, None)


def fsetxattr(call: Call) -> int:
    """fsetxattr(fd, name, value, size, flags)"""
    return _set(call, None)


def fremovexattr(call: Call) -> int:
    """fremovexattr(fd, name)"""
    return _remove(call, None)


def _judged(call: Call, follow: int | None, category: str) -> tuple[bytes, bool]:
    """(path of ours, is it a link) of the first argument: a path, or without `follow` a descriptor."""
    if follow is None:
        return own_path(judged_fd(call, call.fd(0), category)), False
    text, path, link = reach(call, call.string(call.args[0]), follow)
    judge_object(call, text, category)
    return path, link


def _get(call: Call, follow: int | None) -> int:
    name = _name(call)
    path, link = _judged(call, follow, "read")
    if _is_closed(call, name):
        return -ENODATA
    size = min(call.args[3], XATTR_SIZE_MAX)
    return _hand_over(call, call.args[2], size, raw_getxattr(path, name, _buffer, size, link))


def _list(call: Call, follow: int | None) -> int:
    path, link = _judged(call, follow, "read")
    size = min(call.args[2], XATTR_LIST_MAX)
    if not _is_guarded(call):
        return _hand_over(call, call.args[1], size, raw_listxattr(path, _buffer, size, link))
    length = raw_listxattr(path, _buffer, XATTR_LIST_MAX, link)
    if length > 0:
        names = _storage.raw[:length].split(b"\0")[:-1]
        shown = b"".join(name + b"\0" for name in names if not name.startswith(_CLOSED))
        length = len(shown)
        memmove(_buffer, shown, length)
    if size and length > size:
        return -ERANGE
    return _hand_over(call, call.args[1], size, length)


def _set(call: Call, follow: int | None) -> int:
    flags = call.int(4)
    if flags & ~(XATTR_CREATE | XATTR_REPLACE):
        return -EINVAL
    name = _name(call)
    size = call.args[3]
    if size > XATTR_SIZE_MAX:
        return -E2BIG
    value = call.read(call.args[2], size) if size else b""
    path, link = _judged(call, follow, "chattr")
    if _is_closed(call, name):
        return -EPERM
    call.valid()
    call.begin_effect()
    return raw_setxattr(path, name, value, flags, link)


def _remove(call: Call, follow: int | None) -> int:
    name = _name(call)
    path, link = _judged(call, follow, "chattr")
    if _is_closed(call, name):
        return -ENODATA
    call.valid()
    call.begin_effect()
    return raw_removexattr(path, name, link)


def _is_guarded(call: Call) -> bool:
    """Are the namespaces of _CLOSED closed to the caller: may it not edit the rules either (syd(2))?"""
    if call.rules.lifted & XATTR:
        return False
    lock = call.rules.lock
    return lock != OFF and not (lock == EXEC and call.own_pids.family()[2] == call.tgid)


def _is_closed(call: Call, name: bytes) -> bool:
    return name.startswith(_CLOSED) and _is_guarded(call)


def _name(call: Call) -> bytes:
    """The name of the attribute, always the second argument; empty and too long ones are ERANGE."""
    try:
        name = call.string(call.args[1])
    except OSError as error:
        if error.errno != ENAMETOOLONG:
            raise
        name = b""
    if not 0 < len(name) <= XATTR_NAME_MAX:
        raise OSError(ERANGE, "name of an extended attribute")
    return name


def _hand_over(call: Call, address: int, size: int, got: int) -> int:
    """Give the caller what was got; a size of 0 only asked for the length."""
    if got > 0 and size:
        call.valid()
        call.write_from(address, _buffer, got)
    return got
