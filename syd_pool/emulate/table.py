"""How every system call is treated: the table that the filter, the workers and the docs are made from.

A row is (name, how, categories, handler, note):
  how       NOTIFY  a worker performs the call and answers
            TRACE   the tracee stops, a worker judges, the kernel performs it, a worker verifies (I5);
                    without ptrace the same handler answers CONTINUE, which races: see the note
            NOTE    the kernel performs it, the tracer notes that it happened; native without ptrace
            UNBUILT takes a path but has no handler yet: refused with ENOSYS while one of its
                    categories is on
  categories  the row is in force while one of them is on; an empty tuple is always.  While the lock is open
            every row is: the filter cannot grow
  handler   "module:function" below syd_pool.emulate

A call without a row passes natively unless boundary/guards.py refuses it; a number that the kernel's
table does not name is refused there too.  To add a call is to add a function and a row.
"""

from __future__ import annotations

from syd_pool.policy.forced import CLOEXEC, NO_DOTDOT, RANDOM, XATTR
from syd_pool.policy.lock import EXEC, OFF, is_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from syd_pool.policy import Ruleset

NOTIFY, TRACE, NOTE, UNBUILT = "notify", "trace", "note", "unbuilt"

_STAT = ("stat", "walk")
_KEPT = ("mask", "append")  # no categories but lists: there is an element, or one may come
_OPEN = ("read", "write", "readdir", "create", "truncate", "mktemp", "walk", "stat")
_EXEC = ("exec", "tpe", "walk", "stat")
_FORMS = tuple(f"trace/deny_exec_{form}" for form in ("elf32", "elf_dynamic", "elf_static", "script"))
_LINKS = ("rename", "create", "delete", "walk", "stat", *_KEPT)
_OWNER = ("chown", "chgrp", "walk", "stat", *_KEPT)
_NODES = ("create", "mkbdev", "mkcdev", "mkfifo", "net/bind", "walk", "stat", *_KEPT)
# What an option keeps a capability for is done by workers, which have it; the command has not
_WITH = {
    "bind": ("trace/allow_unsafe_bind", "trace/force_local_net"),
    **dict.fromkeys(("connect", "sendto", "sendmsg", "sendmmsg"), ("trace/force_local_net",)),
    **dict.fromkeys(("chown", "lchown", "fchown", "fchownat"), ("trace/allow_unsafe_chown",)),
    **dict.fromkeys(("mknod", "mknodat"), ("trace/allow_unsafe_mkbdev", "trace/allow_unsafe_mkcdev")),
}
_MODES = ("chmod", "fchmod", "fchmodat", "fchmodat2", "mknod", "mknodat")  # what trace/force_umask is about, and open
_NICE = "with trace/allow_unsafe_nice, of the command's processes only"
# What trace/force_no_{magiclinks,symlinks,xdev} are about beside every row with `walk`
_LEADING = ("getdents64", "bind", "connect", "sendto", "sendmsg", "sendmmsg")
# New descriptors without a path: about these options, no category
_FRESH = ("trace/force_cloexec", "trace/force_rand_fd")
_FRESH_NOTE = "judged by nothing; continued while neither option is set"
_PEERS = (*_FRESH, "block", "net/accept")
_PEERS_NOTE = "the peer is judged; continued while no rule is about it and neither option is set"
# Refused without an answer of ours unless the option is set (boundary/guards.py)
LIFTED = {
    **dict.fromkeys(
        ("sched_setparam", "sched_setscheduler", "sched_setattr", "setpriority", "ioprio_set"),
        "trace/allow_unsafe_nice",
    ),
    **dict.fromkeys(("migrate_pages", "move_pages"), "trace/allow_unsafe_mbind"),
    "perf_event_open": "trace/allow_unsafe_perf",
}
_GET, _SET = ("read", "walk", "stat"), ("chattr", "walk", "stat", *_KEPT)  # extended attributes

_MAPPED = "of a file with PROT_EXEC, or with MAP_SHARED for append; without ptrace: judged and continued, racy"

Row = tuple[str, str, tuple[str, ...], str, str]

ROWS: tuple[Row, ...] = (
    ("stat", NOTIFY, (*_STAT, "mask"), "stat:stat", ""),
    ("lstat", NOTIFY, (*_STAT, "mask"), "stat:lstat", ""),
    ("newfstatat", NOTIFY, (*_STAT, "mask"), "stat:newfstatat", ""),
    ("statx", NOTIFY, (*_STAT, "mask"), "stat:statx", ""),
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
    ("unlink", NOTIFY, ("delete", "walk", "stat", *_KEPT), "unlink:unlink", ""),
    ("unlinkat", NOTIFY, ("delete", "rmdir", "walk", "stat", *_KEPT), "unlink:unlinkat", ""),
    ("rename", NOTIFY, _LINKS, "rename:rename", ""),
    ("renameat", NOTIFY, _LINKS, "rename:renameat", ""),
    ("renameat2", NOTIFY, _LINKS, "rename:renameat2", ""),
    ("link", NOTIFY, _LINKS, "link:link", ""),
    ("linkat", NOTIFY, _LINKS, "link:linkat", ""),
    ("symlink", NOTIFY, ("symlink", "walk", "stat"), "symlink:symlink", ""),
    ("symlinkat", NOTIFY, ("symlink", "walk", "stat"), "symlink:symlinkat", ""),
    ("truncate", NOTIFY, ("truncate", "walk", "stat", *_KEPT), "truncate:truncate", ""),
    ("statfs", NOTIFY, _STAT, "statfs:statfs", ""),
    ("chmod", NOTIFY, ("chmod", "walk", "stat", *_KEPT), "chmod:chmod", ""),
    ("fchmodat", NOTIFY, ("chmod", "walk", "stat", *_KEPT), "chmod:fchmodat", ""),
    ("fchmodat2", NOTIFY, ("chmod", "walk", "stat", *_KEPT), "chmod:fchmodat2", ""),
    ("chown", NOTIFY, _OWNER, "chown:chown", ""),
    ("lchown", NOTIFY, _OWNER, "chown:lchown", ""),
    ("fchownat", NOTIFY, _OWNER, "chown:fchownat", ""),
    ("utime", NOTIFY, ("utime", "walk", "stat", *_KEPT), "utime:utime", ""),
    ("utimes", NOTIFY, ("utime", "walk", "stat", *_KEPT), "utime:utimes", ""),
    ("futimesat", NOTIFY, ("utime", "walk", "stat", *_KEPT), "utime:futimesat", ""),
    ("utimensat", NOTIFY, ("utime", "walk", "stat", *_KEPT), "utime:utimensat", ""),
    ("mknod", NOTIFY, _NODES, "mknod:mknod", ""),
    ("mknodat", NOTIFY, _NODES, "mknod:mknodat", ""),
    ("getxattr", NOTIFY, _GET, "xattr:getxattr", ""),
    ("lgetxattr", NOTIFY, _GET, "xattr:lgetxattr", ""),
    ("listxattr", NOTIFY, _GET, "xattr:listxattr", ""),
    ("llistxattr", NOTIFY, _GET, "xattr:llistxattr", ""),
    ("setxattr", NOTIFY, _SET, "xattr:setxattr", ""),
    ("lsetxattr", NOTIFY, _SET, "xattr:lsetxattr", ""),
    ("removexattr", NOTIFY, _SET, "xattr:removexattr", ""),
    ("lremovexattr", NOTIFY, _SET, "xattr:lremovexattr", ""),
    # on a descriptor: how it was opened says nothing about these
    ("fchmod", NOTIFY, ("chmod", *_KEPT), "chmod:fchmod", ""),
    ("fchown", NOTIFY, ("chown", "chgrp", *_KEPT), "chown:fchown", ""),
    ("ftruncate", NOTIFY, ("truncate", *_KEPT), "truncate:ftruncate", ""),
    ("fallocate", NOTIFY, ("truncate", *_KEPT), "truncate:fallocate", ""),
    ("fgetxattr", NOTIFY, ("read",), "xattr:fgetxattr", ""),
    ("flistxattr", NOTIFY, ("read",), "xattr:flistxattr", ""),
    ("fsetxattr", NOTIFY, ("chattr", *_KEPT), "xattr:fsetxattr", ""),
    ("fremovexattr", NOTIFY, ("chattr", *_KEPT), "xattr:fremovexattr", ""),
    ("inotify_add_watch", NOTIFY, ("notify", "walk", "stat"), "inotify:inotify_add_watch", ""),
    ("chroot", NOTIFY, ("chroot",), "chroot:chroot", "never performed; afterwards every judged path is refused"),
    ("execve", TRACE, _EXEC, "exec:execve", "without ptrace: judged and continued, racy"),
    ("execveat", TRACE, _EXEC, "exec:execveat", "without ptrace: judged and continued, racy"),
    ("chdir", TRACE, ("chdir", "walk", "stat"), "chdir:chdir", "without ptrace: judged and continued, racy"),
    ("fchdir", TRACE, ("chdir", "walk", "stat"), "chdir:fchdir", "without ptrace: judged and continued, racy"),
    ("umask", NOTE, (), "", "nothing is judged; workers create under the caller's umask, which they remember"),
    ("mmap", TRACE, ("exec", "tpe", "append"), "mapping:mmap", _MAPPED),
    # what undoes O_APPEND
    ("fcntl", NOTIFY, ("append",), "fcntl:setfl", "F_SETFL without O_APPEND only"),
    ("pwritev2", NOTIFY, ("append",), "kept:without_append", "RWF_NOAPPEND only: refused"),
    ("io_setup", NOTIFY, ("append",), "kept:without_append", "refused: its requests may carry RWF_NOAPPEND"),
    ("io_submit", NOTIFY, ("append",), "kept:without_append", "refused: its requests may carry RWF_NOAPPEND"),
    (
        "ioctl",
        NOTIFY,
        ("ioctl", "append"),
        "ioctl:ioctl",
        "decided by the filter where it needs no log",
    ),
    ("bind", NOTIFY, ("net/bind",), "net:bind", ""),
    ("connect", NOTIFY, ("net/connect", "block"), "net:connect", ""),
    ("sendto", NOTIFY, ("net/connect", "block"), "net:sendto", "native without an address"),
    ("sendmsg", NOTIFY, ("net/connect", "net/sendfd", "block"), "net:sendmsg", ""),
    ("sendmmsg", NOTIFY, ("net/connect", "net/sendfd", "block"), "net:sendmmsg", ""),
    ("socketpair", NOTIFY, ("net/bind",), "net:socketpair", "judged as !unnamed and continued"),
    ("getsockopt", NOTIFY, ("net/connect",), "peer:getsockopt", "SO_PEERCRED and SO_PEERPIDFD only; nothing is judged"),
    ("ptrace", NOTIFY, (), "ptrace:traceme", "PTRACE_TRACEME only: 0, then EPERM; not performed"),
    ("socket", NOTIFY, _FRESH, "fresh:socket", _FRESH_NOTE),
    ("accept", NOTIFY, _PEERS, "fresh:accept", _PEERS_NOTE),
    ("accept4", NOTIFY, _PEERS, "fresh:accept4", _PEERS_NOTE),
    ("memfd_create", NOTIFY, _FRESH, "fresh:memfd_create", _FRESH_NOTE),
    ("pidfd_open", NOTIFY, (), "signal:pidfd_open_", "our own processes do not exist"),
    # about other processes only
    ("sched_setaffinity", NOTIFY, (), "priority:by_pid", "of another process only: one of the command's"),
    ("prlimit64", NOTIFY, (), "priority:prlimit64", "a limit of another process only: one of the command's"),
    ("sched_setparam", NOTIFY, (), "priority:by_pid", _NICE),
    ("sched_setscheduler", NOTIFY, (), "priority:by_pid", _NICE),
    ("sched_setattr", NOTIFY, (), "priority:by_pid", _NICE),
    ("setpriority", NOTIFY, (), "priority:setpriority", _NICE),
    ("ioprio_set", NOTIFY, (), "priority:ioprio_set", _NICE),
    ("migrate_pages", NOTIFY, (), "priority:by_pid", "with trace/allow_unsafe_mbind, of the command's processes only"),
    ("move_pages", NOTIFY, (), "priority:by_pid", "with trace/allow_unsafe_mbind, of the command's processes only"),
    ("perf_event_open", NOTIFY, (), "priority:perf_event_open", "with trace/allow_unsafe_perf, as above"),
    # paths without a handler yet
    ("getxattrat", UNBUILT, _GET, "", "programs fall back to the older calls"),
    ("listxattrat", UNBUILT, _GET, "", "programs fall back to the older calls"),
    ("setxattrat", UNBUILT, _SET, "", "programs fall back to the older calls"),
    ("removexattrat", UNBUILT, _SET, "", "programs fall back to the older calls"),
    ("file_getattr", UNBUILT, ("read", "stat"), "", ""),
    ("file_setattr", UNBUILT, ("chattr", *_KEPT), "", ""),
    ("fanotify_mark", UNBUILT, ("notify",), "", ""),
    ("acct", UNBUILT, ("write",), "", ""),
    ("getdents", UNBUILT, ("stat",), "", "old struct; nothing built this century uses it"),
)

# I5: the only calls that may be answered with CONTINUE, each with its reason.  Every other one is
# answered with a value, and worker/answer.py refuses to build the flag for it.
CONTINUE: dict[str, str] = {
    "open": "O_PATH or /dev/kfd, where the user chose the race (trace/allow_unsafe_open_path, open_kfd)",
    "openat": "O_PATH or /dev/kfd, where the user chose the race (trace/allow_unsafe_open_path, open_kfd)",
    "openat2": "O_PATH only, where the user chose the race (trace/allow_unsafe_open_path)",
    "execve": "only without ptrace, where the user chose the race",
    "execveat": "only without ptrace, where the user chose the race",
    "chdir": "only without ptrace, where the user chose the race",
    "fchdir": "only without ptrace, where the user chose the race",
    "mmap": "only without ptrace, where the user chose the race",
    **dict.fromkeys(("socket", "accept", "accept4", "memfd_create"), "nothing of it is judged"),
    "socketpair": "registers only; what is judged is a constant",
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
    "ptrace": "PTRACE_TRACEME, which has no arguments, of who is not our own child (trace/allow_unsafe_ptrace)",
    "pidfd_open": "registers only; what is done with a pidfd is judged by the pidfd",
    **dict.fromkeys(("fcntl", "pwritev2", "io_setup", "io_submit"), "while nothing is append-only: nothing is judged"),
    "ioctl": "registers only; the descriptor and what the argument points to are not judged",
    "prctl": "registers only; PR_CAPBSET_DROP and PR_SET_SECUREBITS, which take from what the next exec gives; "
    "and PR_SET_NAME, whose name is for the log alone",
}

# Where Landlock has no signal scope (before Linux 6.12) these keep signals inside the sandbox.
_LATER = "a recycled number can only be a new worker's, whose loss costs no call"
SIGNALS: tuple[Row, ...] = (
    ("kill", NOTIFY, (), "signal:kill", "only where Landlock has no signal scope"),
    ("tkill", NOTIFY, (), "signal:tkill", "only where Landlock has no signal scope"),
    ("tgkill", NOTIFY, (), "signal:tgkill", "only where Landlock has no signal scope"),
    ("rt_sigqueueinfo", NOTIFY, (), "signal:tkill", "only where Landlock has no signal scope"),
    ("rt_tgsigqueueinfo", NOTIFY, (), "signal:tgkill", "only where Landlock has no signal scope"),
    ("pidfd_send_signal", NOTIFY, (), "signal:pidfd_send_signal_", "only where Landlock has no signal scope"),
)
CONTINUE.update((row[0], f"registers only; {_LATER}") for row in SIGNALS)
CONTINUE["pidfd_send_signal"] = "the pidfd is judged as we hold it, and no other of ours can be had"

CONTINUE.update((row[0], f"registers only; {_LATER}") for row in ROWS if row[3].startswith("priority:"))

# Calls after which the caller may have another identity (B7).  They are noted and continued.
IDENTITY = ("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid",
            "setgroups", "capset", "prctl")  # fmt: skip


def makes_sockets(rules: Ruleset) -> bool:
    """May workers have to make sockets for the command, or accept connections (emulate/fresh.py)?"""
    judged = bool(rules.blocks) or rules.accepted is not None
    return is_open(rules.lock) or judged or bool(rules.opens & (CLOEXEC | RANDOM))


def logs_names(rules: Ruleset) -> bool:
    """log/verbose:2: who names himself is in the log (PR_SET_NAME)."""
    verbose = rules.option("log/verbose")
    return isinstance(verbose, int) and verbose >= 2


def keeps_log(rules: Ruleset) -> bool:
    """Does anybody of this run read our log by syslog(2)?  (syd(2), trace/allow_safe_syslog)"""
    if rules.option("trace/allow_unsafe_syslog"):
        return False  # the host's
    return bool(rules.option("trace/allow_safe_syslog")) or rules.lock in (OFF, EXEC)


def in_force(rules: Ruleset, identity: bool = True, scoped: bool = True) -> Iterator[Row]:
    """The rows that the rules of a run put in force.

    identity: the command may change its identity (it starts with a capability), so set-id calls are noted.
    scoped: Landlock keeps signals inside the sandbox (linux/landlock.py signal_scope), so they are native.
    """
    lists = {
        "mask": rules.masks,
        "append": rules.appends,
        "block": rules.blocks,
        "net/accept": rules.accepted is not None,
    }
    enabled = rules.enabled | {name for name, elements in lists.items() if elements}
    live = is_open(rules.lock)  # any category may be switched on later
    mask = rules.option("trace/force_umask")
    masked = isinstance(mask, int) and not isinstance(mask, bool) and mask >= 0
    forms = any(rules.option(option) for option in _FORMS)
    for row in ROWS:
        name, how, categories, _, _ = row
        forced = (rules.resolve and ("walk" in categories or name in _LEADING)) or (
            rules.opens & NO_DOTDOT and name in ("chdir", "fchdir")
        )
        if not rules.lifted & XATTR and name.endswith("xattr") and how == NOTIFY:
            forced = True
        if categories in (_FRESH, _PEERS) and rules.opens & (CLOEXEC | RANDOM):
            forced = True
        if name == "chroot" and rules.option("trace/allow_unsafe_chroot"):
            continue  # the guard answers 0 (boundary/guards.py)
        if name in LIFTED and not rules.option(LIFTED[name]):
            continue
        on = live or not categories or any(c in enabled for c in categories) or (forms and categories is _EXEC)
        # done by workers, which have a capability that the command has not
        kept = any(rules.option(option) for option in _WITH.get(name, ())) or (masked and name in _MODES)
        # even with every category off: magic links of other processes, and what /proc has of ours
        if on or kept or forced or (how == NOTIFY and categories is _OPEN):
            yield row
    if not scoped:
        yield from SIGNALS
    if identity:
        for name in IDENTITY:
            yield (name, NOTIFY, (), "identity:changed", "noted, continued")
    if keeps_log(rules):
        yield ("syslog", NOTIFY, (), "syslog:syslog", "our own log, for who may see it; never the host's")
    if logs_names(rules):
        yield ("prctl", NOTIFY, (), "identity:prctl", "PR_SET_NAME is logged (log/verbose:2), then as above")
