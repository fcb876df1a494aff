"""mask and append: files that are shown as others, and files that only grow (syd(2), policy/keep.py).

    open(2)       a masked path gives its target, once the rules have allowed the path itself; the target is not
                  judged.  A target that keeps what is written (no device) cannot be opened for writing.
                  An append-only path is opened for writing with O_APPEND only, and never with O_TRUNC.
    stat(2)       a masked path shows its target; readlink(2), access(2), getdents64(2) and execve(2) the file itself
    what changes  a masked or append-only file, or its name, is EPERM
    rename(2)     of a directory in which a pattern names something is EPERM too: it would not match any more

Handlers ask `call.rules.kept` first, which is False as long as there is neither a mask nor an append-only file.
"""

from __future__ import annotations

import os
from errno import EOPNOTSUPP, EPERM
from stat import S_ISCHR, S_ISDIR

from syd_pool.linux.libc import AT_FDCWD, O_PATH, RESOLVE_NO_SYMLINKS, open_how, raw_openat2_how
from syd_pool.linux.numbers import NAME
from syd_pool.policy.keep import written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

_ACCMODE, _APPEND, _TRUNC = 3, os.O_APPEND, os.O_TRUNC
_NAMELESS = os.O_TMPFILE & ~os.O_DIRECTORY
_HOW_TARGET = open_how(O_PATH | os.O_CLOEXEC, RESOLVE_NO_SYMLINKS)


def protect(call: Call, path: bytes) -> None:
    """Refuse to change `path` if it is masked or append-only.  Raises OSError EPERM."""
    rules = call.rules
    if rules.masked is not None and rules.masked[path] >= 0:
        _refuse(call, path, "mask", written(rules.masks[rules.masked[path]]))
    if rules.appended is not None and rules.appended[path] >= 0:
        _refuse_append(call, path)


def protect_growth(call: Call, path: bytes) -> None:
    """Refuse what would let `path` be overwritten if it is append-only.  Raises OSError EPERM."""
    appended = call.rules.appended
    if appended is not None and appended[path] >= 0:
        _refuse_append(call, path)


def is_kept(call: Call, path: bytes) -> bool:
    """Is `path` masked or append-only?"""
    masked, appended = call.rules.masked, call.rules.appended
    return (masked is not None and masked[path] >= 0) or (appended is not None and appended[path] >= 0)


def protect_name(call: Call, path: bytes) -> None:
    """As protect(), for what is moved: no directory with something masked or append-only in it either."""
    protect(call, path)
    for matches, name in ((call.rules.masked, "mask"), (call.rules.appended, "append")):
        if matches is not None and matches.below(path):
            _refuse(call, path, name, f"{name}: a pattern names something in it")


def check_open(call: Call, path: bytes, flags: int) -> None:
    """May an append-only path be opened so?  Raises OSError EPERM."""
    appended = call.rules.appended
    if appended is None or appended[path] < 0:
        return
    if flags & _TRUNC or (flags & _ACCMODE and not flags & _APPEND):
        _refuse_append(call, path)


def target_of(call: Call, path: bytes, kind: int) -> int:
    """The target of a masked path as a kept O_PATH descriptor, -1 where there is no mask on it.

    kind: st_mode of what is masked.  Raises OSError ENOENT where the target is not there.
    """
    rules = call.rules
    index = rules.masked[path] if rules.masked is not None else -1
    if index < 0:
        return -1
    _, target, directory = rules.masks[index]
    fd = raw_openat2_how(AT_FDCWD, directory if directory and S_ISDIR(kind) else target, _HOW_TARGET)
    if fd < 0:
        raise OSError(-fd, "the target of a mask", path)
    return call.keep(fd)


def check_target(call: Call, path: bytes, kind: int, flags: int) -> None:
    """A target is shown, not changed: only what a device swallows may be written.  Raises OSError EPERM."""
    if flags & _NAMELESS or (flags & (_ACCMODE | _TRUNC) and not S_ISCHR(kind)):
        protect(call, path)


def shown_instead(call: Call, path: bytes, fd: int) -> int:
    """What stat(2) looks at: the target of a masked path, else `fd`."""
    masked = call.rules.masked
    if masked is None or masked[path] < 0:
        return fd
    return target_of(call, path, os.fstat(fd).st_mode)


# --- ways around append-only that a descriptor gives ---------------------------------------------


def without_append(call: Call) -> int | None:
    """pwritev2(2) with RWF_NOAPPEND; io_setup(2), io_submit(2), whose requests carry the same flag where nobody
    can judge it: refused while there is an append-only file.
    """
    if call.rules.appended is not None:
        return -EOPNOTSUPP
    call.valid()
    call.resume()
    return None


def _refuse_append(call: Call, path: bytes) -> None:
    rules = call.rules
    pattern = rules.appends[rules.appended[path]] if rules.appended is not None else b""
    _refuse(call, path, "append", "append+" + pattern.decode("utf-8", "surrogateescape"))


def _refuse(call: Call, path: bytes, what: str, rule: str) -> None:
    call.log(
        [
            ("level", b"warn"),
            ("ctx", b"access"),
            ("cap", what.encode()),
            ("act", b"deny"),
            ("sys", NAME.get(call.nr, "?").encode()),
            ("path", path),
            ("pid", call.tid),
            ("tgid", call.tgid),
            ("rule", rule.encode("utf-8", "surrogateescape")),
        ]
    )
    raise OSError(EPERM, os.strerror(EPERM), path)
