"""What can be judged: the categories of syd(2), their sets, defaults and errnos (spec 1.4).

Three kinds:
  GLOB      judged against a path pattern (net/* also against an address)
  fs        judged against the type of the file system, by name
  GUARDS    switches with rules of their own or none (tpe, lock, mem, ...)

BUILT names those whose calls have handlers.  A glob category outside it may be switched on all the same: the
filter then refuses every path call it covers (emulate/table.py, UNBUILT).  A guard outside it may only be
switched off, because nothing would stand for it.
"""

from __future__ import annotations

from errno import EACCES, EADDRNOTAVAIL, ECONNABORTED, ECONNREFUSED, ENOENT, ENOMEM

GLOB = (
    "walk", "stat", "read", "write", "exec", "create", "delete", "rename", "symlink", "truncate", "chdir",
    "readdir", "mkdir", "rmdir", "chown", "chgrp", "chmod", "chattr", "chroot", "notify", "utime", "mkbdev",
    "mkcdev", "mkfifo", "mktemp", "net/bind", "net/connect", "net/sendfd",
)  # fmt: skip
GUARDS = ("ioctl", "force", "tpe", "lock", "mem", "pid", "proxy", "pty", "crypt")
# Rule lists without a switch of their own: `allow/net/link+route`
LISTS = ("net/accept", "net/link")
# Only a default action: `default/block:kill`
ACTION_ONLY = ("block", "segvguard")

NET = ("net/bind", "net/connect", "net/sendfd")

ALL = frozenset((*GLOB, "fs", *GUARDS))

BUILT = frozenset(
    ("walk", "stat", "read", "write", "exec", "create", "delete", "rename", "symlink", "truncate", "chdir",
     "readdir", "mkdir", "rmdir", "mktemp", "chown", "chgrp", "chmod", "chattr", "utime", "mkbdev", "mkcdev",
     "mkfifo", "notify", "chroot", "fs", "ioctl", "lock", "tpe", *NET)
)  # fmt: skip

# syd(2): off by default are walk, stat and chdir.  syd also starts with ioctl, lock and pty on: of these lock is built
# and ioctl; off until they are asked for; what does not stand must not look as if it did.
# syd(2), static: these switches can only be turned on before the command is started.
STATIC = frozenset(("stat", "chdir", "ioctl", "lock", "force", "proxy", "pty", "mem"))
OFF_BY_DEFAULT = frozenset(("walk", "stat", "chdir", *(name for name in GUARDS if name != "tpe")))
ON_BY_DEFAULT = frozenset(ALL - OFF_BY_DEFAULT)

# syd(7), SANDBOX CATEGORY SETS
SETS: dict[str, tuple[str, ...]] = {
    "all": GLOB,
    "all-x": tuple(c for c in GLOB if c != "exec"),
    "lpath": ("walk", "stat", "chdir", "notify"),
    "rpath": ("read", "readdir"),
    "wpath": ("write", "truncate"),
    "cpath": ("create", "delete", "rename"),
    "dpath": ("mkbdev", "mkcdev"),
    "spath": ("mkfifo", "symlink"),
    "tpath": ("mkdir", "rmdir"),
    "fown": ("chown", "chgrp"),
    "fattr": ("chmod", "chattr", "utime"),
    "net": NET,
    "inet": ("net/bind", "net/connect"),
    "bnet": ("net/bind",),
    "cnet": ("net/connect",),
    "snet": ("net/sendfd",),
    "mkdev": ("mkbdev", "mkcdev"),  # as syd(2) names the pair
}

LOCK_RIGHTS = (
    "read", "write", "exec", "ioctl", "create", "delete", "rename", "symlink", "truncate", "readdir", "mkdir",
    "rmdir", "mkbdev", "mkcdev", "mkfifo", "bind", "connect",
)  # fmt: skip
LOCK_SETS: dict[str, tuple[str, ...]] = {
    "all": LOCK_RIGHTS,
    "all-x": tuple(r for r in LOCK_RIGHTS if r != "exec"),
    "rpath": ("read", "readdir"),
    "wpath": ("write", "truncate"),
    "cpath": ("create", "delete", "rename"),
    "dpath": ("mkbdev", "mkcdev"),
    "spath": ("mkfifo", "symlink"),
    "tpath": ("mkdir", "rmdir"),
    "net": ("bind", "connect"),
    "inet": ("bind", "connect"),
    "bnet": ("bind",),
    "cnet": ("connect",),
}

# syd(2), allow/lock/*: what a run starts with, because whoever performs its calls cannot do without
LOCK_DEFAULTS = (
    ("read", "/dev/null"), ("read", "/proc"), ("write", "/dev/null"), ("truncate", "/dev/null"), ("readdir", "/proc"),
)  # fmt: skip

# What a denied call fails with (spec 1.4); everything else EACCES.  A call that sends, and socketpair(2), fail
# with errnos of their own: emulate/net.py.
_ERRNO = {
    "walk": ENOENT,
    "stat": ENOENT,
    "mem": ENOMEM,
    "net/bind": EADDRNOTAVAIL,
    "net/connect": ECONNREFUSED,
    "net/accept": ECONNABORTED,
    "block": ECONNREFUSED,
}


def deny_errno(category: str) -> int:
    """The errno of a denied call.  Raises KeyError for a name that is no category."""
    if category not in ALL and category not in LISTS and category not in ACTION_ONLY:
        raise KeyError(category)
    return _ERRNO.get(category, EACCES)


def expand(names: str) -> list[str] | None:
    """The categories and lists that a comma list of names and sets stands for; None if one is unknown."""
    found: list[str] = []
    for name in names.split(","):
        if name in SETS:
            found += SETS[name]
        elif name in ALL or name in LISTS:
            found.append(name)
        else:
            return None
    return found


def expand_lock(names: str) -> list[str] | None:
    """As expand(), for what stands behind `lock/`."""
    found: list[str] = []
    for name in names.split(","):
        name = name.removeprefix("lock/")
        if name in LOCK_SETS:
            found += LOCK_SETS[name]
        elif name in LOCK_RIGHTS:
            found.append(name)
        else:
            return None
    return found
