"""readlink(2), readlinkat(2): category `stat`; hidden is ENOENT.

The links of /proc say what they say to the caller: /proc/self its own process, exe, cwd and fd/N what it
has.  Those of other processes are EACCES (spec 1.12, magic links).
"""

from __future__ import annotations

from ctypes import addressof, create_string_buffer, memmove, string_at
from errno import EACCES, EINVAL, ENOENT

from syd_pool.emulate.call import AT_FDCWD, EMPTY
from syd_pool.emulate.judge import judge_walk
from syd_pool.emulate.paths import HOW_LINK, in_proc, is_own, pid_in, plain
from syd_pool.emulate.quick import quick
from syd_pool.emulate.substitute import original
from syd_pool.linux.libc import raw_readlinkat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

_PATH_MAX = 4096
_OWN = frozenset((b"/proc/self/exe", b"/proc/self/cwd", b"/proc/self/root"))
_buffer = create_string_buffer(_PATH_MAX)
_text = addressof(_buffer)


def readlink(call: Call) -> int:
    """readlink(path, buffer, size)"""
    return _readlink(call, AT_FDCWD, 0)


def readlinkat(call: Call) -> int:
    """readlinkat(dirfd, path, buffer, size): an empty path is the link that dirfd holds"""
    return _readlink(call, call.fd(0), 1)


def _readlink(call: Call, dirfd: int, i: int) -> int:
    buffer, size = call.args[i + 1], call.fd(i + 2)
    if size <= 0:
        return -EINVAL
    path = call.string(call.args[i])
    if path in _OWN and in_proc(path) == path[5:] and not call.rules.resolve:
        length = _own_link(call, path)
        if length >= 0:
            return _answer(call, length, buffer, size)
    if plain[path]:
        fd = quick(call, path, HOW_LINK)
        if fd == -ENOENT:
            return fd
        if fd >= 0:
            return _answer(call, raw_readlinkat(fd, b"", _text, _PATH_MAX), buffer, size)
    found = call.find(call, dirfd, path, EMPTY if i else 0)
    shown = found.path
    if call.rules.verdicts["stat"][shown]:
        call.judge("stat", shown)
    length = _read(call, found.fd, shown)
    if length == -ENOENT and not path:
        return length
    return _answer(call, length, buffer, size)


def _own_link(call: Call, path: bytes) -> int:
    """As _read(), of a link that no other can be on the way to: it need not be held, which is a quarter of the call."""
    if "walk" in call.rules.enabled:
        judge_walk(call, b"/proc/self")
    if call.rules.verdicts["stat"][path]:
        call.judge("stat", path)
    return raw_readlinkat(AT_FDCWD, b"/proc/%d/%b" % (call.tgid, path[11:]), _text, _PATH_MAX)


def _answer(call: Call, length: int, buffer: int, size: int) -> int:
    if length < 0:  # what is held and is no link says ENOENT to an empty path
        return -EINVAL if length == -ENOENT else length
    length = min(length, size)
    call.valid()
    call.write_from(buffer, _text, length)
    return length


def _read(call: Call, fd: int, path: bytes) -> int:
    """The target of the link we hold into _buffer: its length or -errno."""
    length = raw_readlinkat(fd, b"", _text, _PATH_MAX)
    inside = in_proc(path)
    if length < 0 or inside is None:
        return length
    shown = string_at(_text, length)
    if (name := original(shown)) is not shown:
        length = _put(name)
    if inside == b"/self":
        return _put(b"%d" % call.tgid)
    if inside == b"/thread-self":
        return _put(b"%d/task/%d" % (call.tgid, call.tid))
    pid = pid_in(inside)
    if pid and not is_own(call, pid) and not call.rules.option("trace/allow_unsafe_magiclinks"):
        return -EACCES
    return length


def _put(text: bytes) -> int:
    memmove(_text, text, len(text))
    return len(text)
