"""The hot way of every call that looks at a path: plain, one openat2, one dictionary look-up per category."""

from __future__ import annotations

from errno import ELOOP, ENOENT

from syd_pool.emulate.judge import judge_walk
from syd_pool.emulate.paths import plain
from syd_pool.linux.libc import AT_FDCWD, raw_openat2_how

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

_MISSING, _LINK = -ENOENT, -ELOOP


def quick(call: Call, path: bytes, how: object) -> int:
    """Hold a plain path (paths.py): a kept O_PATH descriptor, or -ENOENT; either judged by walk and stat.

    Any other -errno means that find() has to look.  Raises OSError when the rules refuse.
    """
    rules = call.rules
    if rules.resolve:
        return _LINK
    fd = raw_openat2_how(AT_FDCWD, path, how)
    if fd >= 0:
        call.keep(fd)
    elif fd != _MISSING:
        if fd == _LINK:
            plain.learn(path, False)
        return fd
    if "walk" in rules.enabled:
        cut = path.rfind(b"/")
        if cut:
            judge_walk(call, path[:cut])
    if rules.verdicts["stat"][path]:
        call.judge("stat", path)
    return fd
