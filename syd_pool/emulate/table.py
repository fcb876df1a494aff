"""How every system call is treated: the table that the filter, the workers and the docs are made from.

A row is (name, how, categories, handler, note):
  how       NOTIFY  a worker performs the call and answers
            TRACE   the tracee stops, a worker judges, the kernel performs it, a worker verifies (I5);
                    without ptrace the same handler answers CONTINUE, which races: see the note
            UNBUILT takes a path but has no handler yet: refused with ENOSYS while one of its
                    categories is on
  categories  the row is in force while one of them is on; an empty tuple is always
  handler   "module:function" below syd_pool.emulate

A call without a row passes natively unless boundary/guards.py refuses it; a number that the kernel's
table does not name is refused there too.  To add a call is to add a function and a row.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from syd_pool.policy import Ruleset

NOTIFY, TRACE, UNBUILT = "notify", "trace", "unbuilt"

_STAT = ("stat", "walk")
_OPEN = ("read", "write", "readdir", "create", "truncate", "mktemp", "walk", "stat")
_LINKS = ("rename", "create", "delete", "walk", "stat")

Row = tuple[str, str, tuple[str, ...], str, str]

ROWS: tuple[Row, ...] = (
    ("stat", NOTIFY, _STAT, "stat:stat", ""),
    ("lstat", NOTIFY, _STAT, "stat:lstat", ""),
    ("newfstatat", NOTIFY, _STAT, "stat:newfstatat", ""),
    ("statx", NOTIFY, _STAT, "stat:statx", ""),
    ("access", NOTIFY, _STAT, "access:access", ""),
    ("faccessat", NOTIFY, _STAT, "access:faccessat", ""),
    ("faccessat2", NOTIFY, _STAT, "access:faccessat2", ""),
    ("readlink", NOTIFY, _STAT, "readlink:readlink", ""),
    ("readlinkat", NOTIFY, _STAT, "readlink:readlinkat", ""),
    ("getdents64", NOTIFY, ("stat",), "getdents:getdents64", "hidden entries are cut"),
    ("open", NOTIFY, _OPEN, "open:open", ""),
    ("openat", NOTIFY, _OPEN, "open:openat", ""),
    ("openat2", NOTIFY, _OPEN, "open:openat2", ""),
    ("creat", NOTIFY, _OPEN, "open:creat", ""),
    ("mkdir", NOTIFY, ("mkdir", "walk", "stat"), "mkdir:mkdir", ""),
    ("mkdirat", NOTIFY, ("mkdir", "walk", "stat"), "mkdir:mkdirat", ""),
    ("rmdir", NOTIFY, ("rmdir", "walk", "stat"), "unlink:rmdir", ""),
    ("unlink", NOTIFY, ("delete", "walk", "stat"), "unlink:unlink", ""),
    ("unlinkat", NOTIFY, ("delete", "rmdir", "walk", "stat"), "unlink:unlinkat", ""),
    ("rename", NOTIFY, _LINKS, "rename:rename", ""),
    ("renameat", NOTIFY, _LINKS, "rename:renameat", ""),
    ("renameat2", NOTIFY, _LINKS, "rename:renameat2", ""),
    ("link", NOTIFY, _LINKS, "link:link", ""),
    ("linkat", NOTIFY, _LINKS, "link:linkat", ""),
    ("symlink", NOTIFY, ("symlink", "walk", "stat"), "symlink:symlink", ""),
    ("symlinkat", NOTIFY, ("symlink", "walk", "stat"), "symlink:symlinkat", ""),
    ("truncate", NOTIFY, ("truncate", "walk", "stat"), "truncate:truncate", ""),
    ("execve", TRACE, ("exec",), "exec:execve", "without ptrace: judged and continued, racy"),
    ("execveat", TRACE, ("exec",), "exec:execveat", "without ptrace: judged and continued, racy"),
    ("chdir", TRACE, ("chdir", "walk"), "chdir:chdir", "without ptrace: judged and continued, racy"),
    ("fchdir", TRACE, ("chdir", "walk"), "chdir:fchdir", "without ptrace: judged and continued, racy"),
    # paths without a handler yet
    ("statfs", UNBUILT, _STAT, "", ""),
    ("chmod", UNBUILT, ("chmod",), "", ""),
    ("fchmodat", UNBUILT, ("chmod",), "", ""),
    ("fchmodat2", UNBUILT, ("chmod",), "", ""),
    ("chown", UNBUILT, ("chown", "chgrp"), "", ""),
    ("lchown", UNBUILT, ("chown", "chgrp"), "", ""),
    ("fchownat", UNBUILT, ("chown", "chgrp"), "", ""),
    ("utime", UNBUILT, ("utime",), "", ""),
    ("utimes", UNBUILT, ("utime",), "", ""),
    ("futimesat", UNBUILT, ("utime",), "", ""),
    ("utimensat", UNBUILT, ("utime",), "", ""),
    ("mknod", UNBUILT, ("create", "mkbdev", "mkcdev", "mkfifo", "net/bind"), "", ""),
    ("mknodat", UNBUILT, ("create", "mkbdev", "mkcdev", "mkfifo", "net/bind"), "", ""),
    ("getxattr", UNBUILT, ("read",), "", ""),
    ("lgetxattr", UNBUILT, ("read",), "", ""),
    ("listxattr", UNBUILT, ("read",), "", ""),
    ("llistxattr", UNBUILT, ("read",), "", ""),
    ("getxattrat", UNBUILT, ("read",), "", ""),
    ("listxattrat", UNBUILT, ("read",), "", ""),
    ("setxattr", UNBUILT, ("chattr",), "", ""),
    ("lsetxattr", UNBUILT, ("chattr",), "", ""),
    ("removexattr", UNBUILT, ("chattr",), "", ""),
    ("lremovexattr", UNBUILT, ("chattr",), "", ""),
    ("setxattrat", UNBUILT, ("chattr",), "", ""),
    ("removexattrat", UNBUILT, ("chattr",), "", ""),
    ("file_getattr", UNBUILT, ("read", "stat"), "", ""),
    ("file_setattr", UNBUILT, ("chattr",), "", ""),
    ("inotify_add_watch", UNBUILT, ("notify",), "", ""),
    ("fanotify_mark", UNBUILT, ("notify",), "", ""),
    ("acct", UNBUILT, ("write",), "", ""),
    ("bind", UNBUILT, ("net/bind",), "", ""),
    ("connect", UNBUILT, ("net/connect",), "", ""),
    ("getdents", UNBUILT, ("stat",), "", "old struct; nothing built this century uses it"),
)

# I5: the only calls that may be answered with CONTINUE, each with its reason.  Every other one is
# answered with a value, and worker/answer.py refuses to build the flag for it.
CONTINUE: dict[str, str] = {
    "execve": "only without ptrace, where the user chose the race",
    "execveat": "only without ptrace, where the user chose the race",
    "chdir": "only without ptrace, where the user chose the race",
    "fchdir": "only without ptrace, where the user chose the race",
    "setuid": "registers only",
    "setgid": "registers only",
    "setreuid": "registers only",
    "setregid": "registers only",
    "setresuid": "registers only",
    "setresgid": "registers only",
    "setfsuid": "registers only",
    "setfsgid": "registers only",
    "setgroups": "nothing of it is judged; the identity is read anew before the caller's next call",
    "capset": "nothing of it is judged; the identity is read anew before the caller's next call",
}

# Calls after which the caller may have another identity (B7).  They are noted and continued.
IDENTITY = ("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid",
            "setgroups", "capset")  # fmt: skip


def in_force(rules: Ruleset, identity: bool = True) -> Iterator[Row]:
    """The rows that the rules of a run put in force.

    identity: the command may change its identity (it starts with a capability), so set-id calls are noted.
    """
    enabled = rules.enabled
    guard = not rules.option("trace/allow_unsafe_magiclinks")
    for row in ROWS:
        name, how, categories, _, _ = row
        if not categories or any(c in enabled for c in categories):
            yield row
        elif guard and how == NOTIFY and categories is _OPEN:
            yield row  # magic links of other processes are guarded even with every category off
    if identity:
        for name in IDENTITY:
            yield (name, NOTIFY, (), "identity:changed", "noted, continued")
