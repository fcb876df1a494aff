"""sandbox/lock: the `allow/lock/*` rules as a Landlock ruleset (syd(7), Lock Sandboxing).

    Ruleset.landlock --plan()--> Plan --build()--> a ruleset, for tracer/inside.py

What every rule leaves out is refused: all rights that the kernel knows are handled.  default/lock says what
a run is worth that cannot be confined as it was asked to be:

    kill  a right that the kernel cannot confine, or a path that is not there, ends the start
    deny  both are noted in the log, and the rest is in force; without Landlock the start ends
    warn  as deny, and without Landlock the run goes on
"""

from __future__ import annotations

import os
from errno import EINVAL, ELOOP, ENOENT, ENOSYS, EOPNOTSUPP
from stat import S_ISDIR

from syd_pool.boundary.spawn import SetupFailed
from syd_pool.linux import landlock
from syd_pool.linux.libc import AT_FDCWD, O_PATH, RESOLVE_NO_MAGICLINKS, openat2
from syd_pool.policy.actions import KILL, WARN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from syd_pool.policy import Ruleset

# right of lock/RIGHT+PATH -> (LANDLOCK_ACCESS_FS_*, the ABI it came with)
PATH_RIGHTS = {
    "read": (landlock.LANDLOCK_ACCESS_FS_READ_FILE, 1),
    "write": (landlock.LANDLOCK_ACCESS_FS_WRITE_FILE, 1),
    "exec": (landlock.LANDLOCK_ACCESS_FS_EXECUTE, 1),
    "ioctl": (landlock.LANDLOCK_ACCESS_FS_IOCTL_DEV, 5),
    "create": (landlock.LANDLOCK_ACCESS_FS_MAKE_REG, 1),
    "delete": (landlock.LANDLOCK_ACCESS_FS_REMOVE_FILE, 1),
    "rename": (landlock.LANDLOCK_ACCESS_FS_REFER, 2),
    "symlink": (landlock.LANDLOCK_ACCESS_FS_MAKE_SYM, 1),
    "truncate": (landlock.LANDLOCK_ACCESS_FS_TRUNCATE, 3),
    "readdir": (landlock.LANDLOCK_ACCESS_FS_READ_DIR, 1),
    "mkdir": (landlock.LANDLOCK_ACCESS_FS_MAKE_DIR, 1),
    "rmdir": (landlock.LANDLOCK_ACCESS_FS_REMOVE_DIR, 1),
    "mkbdev": (landlock.LANDLOCK_ACCESS_FS_MAKE_BLOCK, 1),
    "mkcdev": (landlock.LANDLOCK_ACCESS_FS_MAKE_CHAR, 1),
    "mkfifo": (landlock.LANDLOCK_ACCESS_FS_MAKE_FIFO, 1),
    "bind": (landlock.LANDLOCK_ACCESS_FS_MAKE_SOCK, 1),
}
# right of lock/RIGHT+PORTS -> (LANDLOCK_ACCESS_NET_*, the ABI it came with)
PORT_RIGHTS = {
    "bind": (landlock.LANDLOCK_ACCESS_NET_BIND_TCP, 4),
    "connect": (landlock.LANDLOCK_ACCESS_NET_CONNECT_TCP, 4),
}
PORTS = 65536
_LOG_FLAGS = {
    "log/lock/same_exec_off": landlock.LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF,
    "log/lock/new_exec_on": landlock.LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON,
    "log/lock/subdomains_off": landlock.LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF,
}


class Plan:
    """What is to be asked of the kernel.

    fs, net  rights that are refused wherever no rule allows them
    paths    path -> rights below it
    ports    right -> the ports it is allowed for
    missing  names of rights that this kernel cannot confine
    """

    __slots__ = ("fs", "missing", "net", "paths", "ports")

    def __init__(self, abi: int) -> None:
        self.fs = sum(bit for bit, since in PATH_RIGHTS.values() if since <= abi)
        self.net = sum(bit for bit, since in PORT_RIGHTS.values() if since <= abi)
        self.paths: dict[str, int] = {}
        self.ports: dict[int, list[int]] = {}
        self.missing = [name for name, (_, since) in PATH_RIGHTS.items() if since > abi]
        self.missing += [f"{name} (ports)" for name, (_, since) in PORT_RIGHTS.items() if since > abi]


def plan(rules: list[tuple[str, str]], abi: int) -> Plan:
    """The plan for (right, path or ports) rules on a kernel with this ABI."""
    made = Plan(abi)
    marks = {name: bytearray(PORTS) for name in PORT_RIGHTS}
    for right, text in rules:
        if right in PORT_RIGHTS and text[:1] != "/":
            _mark(marks[right], text)
        else:
            made.paths[text] = made.paths.get(text, 0) | PATH_RIGHTS[right][0]
    for name, allowed in marks.items():
        bit = PORT_RIGHTS[name][0] & made.net
        if 0 not in allowed:  # every port: nothing to refuse, and 65,536 rules fewer
            made.net &= ~bit
        elif bit:
            made.ports[bit] = [port for port in range(PORTS) if allowed[port]]
    return made


def _mark(allowed: bytearray, text: str) -> None:
    for item in text.split(","):
        low, dash, high = item.partition("-")
        first, last = int(low), int(high if dash else low)
        allowed[first : last + 1] = b"\1" * (last + 1 - first)


def build(rules: Ruleset, abi: int, note: Callable[[str], None]) -> int:
    """The ruleset that sandbox/lock asks for, -1 where the run goes on without.  Raises SetupFailed.

    note  is told what is left out
    """
    level = rules.defaults["lock"]
    if not abi:
        return _without(level, note)
    wanted = plan(rules.landlock, abi)
    if wanted.missing:
        text = f"Landlock of this kernel (ABI {abi}) cannot confine {', '.join(wanted.missing)}"
        if level == KILL:
            raise _failed(EOPNOTSUPP, f"{text}: default/lock:deny confines the rest")
        note(text)
    ruleset = landlock.create(wanted.fs, wanted.net)
    try:
        for path, access in wanted.paths.items():
            _add_path(ruleset, path, access & wanted.fs, level, note)
        for bit, ports in wanted.ports.items():
            for port in ports:
                landlock.add_port(ruleset, bit, port)
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset


def _without(level: int, note: Callable[[str], None]) -> int:
    text = "sandbox/lock:on needs Landlock, which this kernel has not, or was booted without (lsm=landlock,...)"
    if level != WARN:
        raise _failed(ENOSYS, f"{text}: sandbox/lock:off or default/lock:warn goes on without it")
    note(text)
    return -1


def _add_path(ruleset: int, path: str, access: int, level: int, note: Callable[[str], None]) -> None:
    """One path with all its rights.  A file takes fewer of them than a directory."""
    rule = f"allow/lock/{','.join(name for name, (bit, _) in PATH_RIGHTS.items() if access & bit)}+{path}"
    if not access:  # rights of a later kernel: noted already
        return
    try:
        fd = openat2(AT_FDCWD, os.fsencode(path), O_PATH | os.O_CLOEXEC, RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno == ELOOP:
            raise _failed(ELOOP, f"`{rule}' leads through a link of /proc: name what it stands for") from None
        if error.errno != ENOENT:
            raise _failed(error.errno or EINVAL, f"`{rule}' cannot be opened") from None
        if level == KILL:
            raise _failed(ENOENT, f"`{rule}': take the rule away, or default/lock:deny leaves it out") from None
        note(f"`{rule}' is left out: there is no such file or directory")
        return
    try:
        if not S_ISDIR(os.fstat(fd).st_mode):
            access &= landlock.ACCESS_FILE
        if access:
            landlock.add_path(ruleset, access, fd)
        elif level == KILL:
            raise _failed(EINVAL, f"`{rule}' is about what is done in a directory, and this is none")
        else:
            note(f"`{rule}' is left out: it is about what is done in a directory, and this is none")
    except SetupFailed:
        raise
    except OSError as error:
        raise _failed(error.errno or EINVAL, f"`{rule}' is refused by the kernel") from None
    finally:
        os.close(fd)


def _failed(errno: int, text: str) -> SetupFailed:
    return SetupFailed(errno, "landlock", text)


def log_flags(rules: Ruleset, abi: int) -> int:
    """LANDLOCK_RESTRICT_SELF_LOG_* of log/lock/*; none before Linux 6.15 (syd(2))."""
    if abi < landlock.LOG_ABI:
        return 0
    return sum(flag for name, flag in _LOG_FLAGS.items() if rules.option(name))
