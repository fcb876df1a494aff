"""bind(2) to a path: the socket is made in the held, judged directory, and keeps the name it was given.

The name that a Unix socket is bound to is what getsockname(2), and its peers, see: it must be the text that
the caller wrote, not a path of ours.  So the call is made with that text, and what it may lead to is fixed:

    name              in the caller's directory, which is held: fchdir(2) to it, then bind
    any/other/path    a thread allows itself to make sockets below the held directory only (Landlock), goes
                      where the caller is, and binds: whoever moves a directory on the way gets EACCES

Landlock rules reach below a directory, so after the second the name is looked up where it was judged; if it
is not there, the socket is shut down for good: nobody can connect to it.

Without Landlock in the kernel the socket is made as `name` in the held directory: as safe, but the bound
name is the last component.
"""

from __future__ import annotations

import os
from _thread import allocate_lock, start_new_thread
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL, EEXIST
from stat import S_ISSOCK

from syd_pool.emulate import netaddr
from syd_pool.emulate.call import AT_FDCWD, FOLLOW
from syd_pool.emulate.names import may_make
from syd_pool.linux import landlock
from syd_pool.linux.libc import O_PATH, raw_bind, raw_openat, shutdown, wear_umask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call, Found

_SHUT_RDWR = 2


def bind_path(call: Call, own: int, raw: bytes, path: bytes, safe: object) -> int:
    """Bind the caller's socket, held as `own`, to `path`.  0 or -errno; raises OSError when refused.

    safe: then others may connect to it (trace/allow_safe_bind)
    """
    at = call.entry(call, AT_FDCWD, path, 0)
    if may_make(call, at, "net/bind") == -EEXIST or at.fd >= 0 or not at.name:
        return -EADDRINUSE
    result = _bind(call, own, raw, path, at)
    if safe and not result:
        call.hand_bound(at.path)
    return result


def _bind(call: Call, own: int, raw: bytes, path: bytes, at: Found) -> int:
    plain = b"/" not in path.rstrip(b"/")
    where = at.parent if plain else call.find(call, AT_FDCWD, b".", FOLLOW).fd
    mask = call.umask()  # asks valid()
    back = call.keep(raw_openat(AT_FDCWD, b".", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    wear_umask(mask)
    os.fchdir(where)
    try:
        call.begin_effect()
        if plain:
            return raw_bind(own, raw)
        result = _bind_below(at.parent, own, raw)
        if result is None:
            os.fchdir(at.parent)
            slash = b"/" if path.endswith(b"/") else b""
            return raw_bind(own, netaddr.unix(at.name + slash))
    finally:
        os.fchdir(back)
    return result if result else _verify(own, at)


def _bind_below(parent: int, own: int, raw: bytes) -> int | None:
    """bind(2) in a thread that can make sockets below `parent` only.  None: there is no Landlock."""
    done = allocate_lock()
    done.acquire()
    answer: list[int | None] = [-EACCES]

    def work() -> None:
        try:
            landlock.restrict_this_thread(landlock.LANDLOCK_ACCESS_FS_MAKE_SOCK, parent)
            answer[0] = raw_bind(own, raw)
        except OSError:
            answer[0] = None
        finally:
            done.release()

    try:
        start_new_thread(work, ())
    except RuntimeError:  # no more threads for this user
        return None
    done.acquire()
    return answer[0]


def _verify(own: int, at: Found) -> int:
    """Is the new socket where it was judged?  0, or -EADDRNOTAVAIL and nobody can connect to it."""
    try:
        if S_ISSOCK(os.stat(at.name, dir_fd=at.parent, follow_symlinks=False).st_mode):
            return 0
    except OSError:
        pass
    shutdown(own, _SHUT_RDWR)
    return -EADDRNOTAVAIL
