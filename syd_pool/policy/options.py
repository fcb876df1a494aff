"""Every option of syd(2) that is no category, in one table: what it takes, what it starts as, what we do.

A row of OPTIONS is (kind, default, state, why):
  kind   how the value is written; the functions of VALUES read it
  state  BUILT   its effect is in force, whatever the value
         LIFTS   it switches a guard off: accepted.  Either the guard stands and obeys, or there is none
         ASKS    it asks for something not built: only a value that asks for nothing is accepted
  why    for ASKS: what is missing

Values that ask for nothing are the default and, for booleans, `off`.
An option becomes built by changing one word here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BOOL, UINT, OCTAL, DURATION, SIZE, NICE, TEXT, LEVEL, VERBOSE, MEMORY, NAMESPACES, SIGNED, BYTE = range(13)

BUILT, LIFTS, ASKS = "built", "lifts", "asks"

Value = bool | int | float | str | None
Row = tuple[int, Value, str, str]

OWN = -1  # ipc/uid, ipc/gid: the one we run with; None: any

NAMESPACE_NAMES = ("mount", "uts", "ipc", "user", "pid", "net", "cgroup", "time")
LOG_LEVELS = ("emerg", "alert", "crit", "error", "warn", "notice", "info", "debug")

_LIFTED = (
    "safe_setgid safe_setuid safe_syslog unsafe_any_addr unsafe_bind unsafe_cap_fixup "
    "unsafe_caps unsafe_cbpf unsafe_chown unsafe_chroot unsafe_copy unsafe_cpu unsafe_create "
    "unsafe_deprecated unsafe_dumpable unsafe_ebpf unsafe_env unsafe_exec_interactive unsafe_exec_ldso "
    "unsafe_exec_libc unsafe_exec_memory unsafe_exec_nopie unsafe_exec_null unsafe_exec_script "
    "unsafe_exec_speculative unsafe_exec_stack unsafe_filename unsafe_hardlinks unsafe_ip_pktinfo "
    "unsafe_ip_retopts unsafe_ipv6_rthdr unsafe_ipv6_scope unsafe_kcapi unsafe_keyring unsafe_kptr "
    "unsafe_machine_id unsafe_madvise unsafe_magiclinks unsafe_mbind unsafe_memfd unsafe_mkbdev "
    "unsafe_mkcdev unsafe_msgqueue unsafe_nice unsafe_nocookie unsafe_nomseal unsafe_notify_bdev "
    "unsafe_notify_cdev unsafe_noxom unsafe_oob unsafe_open_kfd unsafe_open_path unsafe_open_suid "
    "unsafe_page_cache unsafe_perf unsafe_perm_msgqueue unsafe_perm_shm unsafe_personality unsafe_pipe "
    "unsafe_pivot_root unsafe_pkey unsafe_prctl unsafe_prlimit unsafe_proc_files unsafe_proc_pid_status "
    "unsafe_ptrace unsafe_recvmsg unsafe_rseq unsafe_sendfd_bdev unsafe_sendfd_cdev unsafe_sendfd_dir "
    "unsafe_sendfd_fifo unsafe_sendfd_magiclink unsafe_sendfd_memfd unsafe_sendfd_misc "
    "unsafe_sendfd_secretmem unsafe_sendfd_socket unsafe_sendfd_symlink unsafe_setsockopt unsafe_shm "
    "unsafe_sigreturn unsafe_socket unsafe_stat_bdev unsafe_stat_cdev unsafe_sticky unsafe_symlinks "
    "unsafe_sync unsafe_sysinfo unsafe_syslog unsafe_time unsafe_uname unsafe_uring unsafe_vmsplice "
    "unsafe_xattr unsupp_socket"
)

_ASKED = {
    "allow_safe_bind": "a bind(2) cannot add a rule for all workers yet; allow the address by allow/net/connect+",
    "deny_dotdot": "`..` in paths is not refused yet",
    "deny_tsc": "the time stamp counter is not guarded yet",
    "deny_vdso": "the vDSO is not removed yet",
    "force_cloexec": "descriptors are not forced to close on exec yet",
    "force_local_net": "addresses are not rewritten yet",
    "force_no_magiclinks": "path resolution has no forced flags yet",
    "force_no_symlinks": "path resolution has no forced flags yet",
    "force_no_xdev": "path resolution has no forced flags yet",
    "force_rand_fd": "descriptor numbers are not randomised yet",
    "force_ro_open": "use deny/write,create,truncate+/***",
}

_NAMESPACES = "namespaces are not built yet"
_MOUNTS = "mounts and another root are not built yet"
_LIMITS = "resource limits are not built yet; use prlimit(1) in front of the command"
_UTS = "uname(2) is not answered by us yet"
_TPE = "trusted path execution is not built yet"
_PROXY = "the proxy is not built yet"
_PTY = "the terminal is not replaced yet"
_CRYPT = "encryption is not built"


def _table() -> dict[str, Row]:
    off: Row = (BOOL, False, LIFTS, "")
    rows: dict[str, Row] = {"trace/allow_" + name: off for name in _LIFTED.split()}
    for name, why in _ASKED.items():
        rows["trace/" + name] = (BOOL, False, ASKS, why)
    for name in (*NAMESPACE_NAMES, "all"):
        rows["unshare/" + name] = (BOOL, False, ASKS, _NAMESPACES)
    for name in ("as", "data", "fsize", "memlock", "msgqueue", "stack", "core"):
        rows["rlimit/" + name] = (SIZE, None, ASKS, _LIMITS)
    for name in ("nofile", "nproc", "rtprio", "sigpending"):
        rows["rlimit/" + name] = (SIZE, None, ASKS, _LIMITS)
    for name in ("cpu", "rttime"):
        rows["rlimit/" + name] = (DURATION, None, ASKS, _LIMITS)
    for name in ("negate", "root_owned", "user_owned", "root_mount"):
        rows["tpe/" + name] = (BOOL, False, ASKS, _TPE)
    rows.update(_SINGLE)
    return rows


_SINGLE: dict[str, Row] = {
    "trace/deny_exec_elf32": (BOOL, False, BUILT, ""),
    "trace/deny_exec_elf_dynamic": (BOOL, False, BUILT, ""),
    "trace/deny_exec_elf_static": (BOOL, False, BUILT, ""),
    "trace/deny_exec_script": (BOOL, False, BUILT, ""),
    "trace/exit_wait_all": (BOOL, False, BUILT, ""),
    "trace/memory_access": (MEMORY, 2, BUILT, ""),
    "trace/sync_seccomp": (BOOL, True, BUILT, ""),
    "trace/force_umask": (OCTAL, -1, ASKS, "the umask is not forced yet"),
    "trace/allow_unsafe_namespace": (NAMESPACES, "", ASKS, "workers share the command's namespaces"),
    "timeout": (DURATION, None, BUILT, ""),
    "log/level": (LEVEL, None, BUILT, ""),
    "log/verbose": (VERBOSE, 0, BUILT, ""),
    # no-ops as long as sandbox/lock is off (syd(2)), which it is
    "log/lock/same_exec_off": (BOOL, False, LIFTS, ""),
    "log/lock/new_exec_on": (BOOL, False, LIFTS, ""),
    "log/lock/subdomains_off": (BOOL, False, LIFTS, ""),
    "config/expand": (
        DURATION,
        0.0,
        ASKS,
        "command substitution is not built; only variables and ~ are expanded",
    ),
    "ipc": (TEXT, None, BUILT, ""),
    "ipc/uid": (UINT, OWN, BUILT, ""),
    "ipc/gid": (UINT, OWN, BUILT, ""),
    "pty/row": (UINT, None, ASKS, _PTY),
    "pty/col": (UINT, None, ASKS, _PTY),
    "root": (TEXT, None, ASKS, _MOUNTS),
    "root/map": (BOOL, False, ASKS, _NAMESPACES),
    "root/fake": (BOOL, False, ASKS, "user ids are not faked yet"),
    "workdir": (TEXT, None, ASKS, _MOUNTS),
    "time": (SIGNED, None, ASKS, _NAMESPACES),
    "time/boot": (SIGNED, None, ASKS, _NAMESPACES),
    "time/mono": (SIGNED, None, ASKS, _NAMESPACES),
    "uts/host": (TEXT, None, ASKS, _UTS),
    "uts/domain": (TEXT, None, ASKS, _UTS),
    "uts/version": (TEXT, None, ASKS, _UTS),
    "mem/max": (SIZE, 0, ASKS, "memory limits are not built yet"),
    "mem/vm_max": (SIZE, 0, ASKS, "memory limits are not built yet"),
    "pid/max": (UINT, 0, ASKS, "process limits are not built yet"),
    "rlimit/nice": (NICE, None, ASKS, _LIMITS),
    "tpe/gid": (UINT, None, ASKS, _TPE),
    "segvguard/expiry": (DURATION, 120.0, BUILT, ""),
    "segvguard/suspension": (DURATION, 600.0, BUILT, ""),
    "segvguard/maxcrashes": (BYTE, 5, BUILT, ""),
    "crypt/key": (TEXT, None, ASKS, _CRYPT),
    "crypt/key/enc": (TEXT, None, ASKS, _CRYPT),
    "crypt/key/mac": (TEXT, None, ASKS, _CRYPT),
    "crypt/tmp": (TEXT, "mem", ASKS, _CRYPT),
    "proxy/addr": (TEXT, "127.0.0.1", ASKS, _PROXY),
    "proxy/port": (UINT, 9050, ASKS, _PROXY),
    "proxy/ext/host": (TEXT, "127.0.0.1", ASKS, _PROXY),
    "proxy/ext/port": (UINT, 9050, ASKS, _PROXY),
    "proxy/ext/unix": (TEXT, None, ASKS, _PROXY),
}

OPTIONS = _table()
ALIASES = {"pty/x": "pty/row", "pty/y": "pty/col"}

# Lists whose every element asks for something that is not built; taking elements away is accepted.
UNBUILT_LISTS = {
    "append": "append-only files are not built yet",
    "mask": "masks are not built yet",
    "block": "IP block lists are not built yet",
    "force": "checksums of executables are not built yet",
    "crypt": _CRYPT,
    "bind": _MOUNTS,
    "bind-try": _MOUNTS,
    "mkdir": _MOUNTS,
    "mkdir-try": _MOUNTS,
    "mkfile": _MOUNTS,
    "mkfile-try": _MOUNTS,
    "mkfifo": _MOUNTS,
    "mkfifo-try": _MOUNTS,
    "link": _MOUNTS,
    "link-try": _MOUNTS,
    "symlink": _MOUNTS,
    "symlink-try": _MOUNTS,
}

# These groups take comma lists (syd(7), SANDBOX RULE SHORTCUTS)
GROUPS = ("unshare/", "log/lock/")


def boolean(text: str) -> bool:
    """on/off, true/false, yes/no, 1/0 and any prefix of true, false, yes and no.  Raises ValueError."""
    word = text.lower()
    if word in ("on", "1") or (word and ("true".startswith(word) or "yes".startswith(word))):
        return True
    if word in ("off", "0") or (word and ("false".startswith(word) or "no".startswith(word))):
        return False
    raise ValueError("must be on or off")


def whole(text: str, least: int = 0, most: int = 2**64 - 1) -> int:
    """A decimal number in a closed range.  Raises ValueError."""
    digits = text[1:] if text[:1] == "-" else text
    if not (digits.isascii() and digits.isdigit()) or not least <= int(text) <= most:
        raise ValueError(f"must be a whole number from {least} to {most}")
    return int(text)


_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60, "h": 3600, "hr": 3600, "hrs": 3600,
    "hour": 3600, "hours": 3600, "d": 86400, "day": 86400, "days": 86400, "w": 604800, "week": 604800,
    "weeks": 604800, "": 1,
}  # fmt: skip
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}


def _number(text: str) -> tuple[float, str]:
    """The number that `text` begins with, and what follows it.  Raises ValueError."""
    end = 0
    while end < len(text) and (text[end] in "0123456789" or (text[end] == "." and "." not in text[:end])):
        end += 1
    if not text[:end].strip("."):
        raise ValueError("must begin with a number")
    return float(text[:end]), text[end:].lstrip(" ")


def duration(text: str) -> float:
    """Seconds: 10, 1.5s, 1h30m, `10 minutes`.  Raises ValueError."""
    total, rest = 0.0, text.strip(" ").lower()
    while True:
        value, rest = _number(rest)
        end = 0
        while end < len(rest) and rest[end].isalpha():
            end += 1
        if rest[:end] not in _SECONDS:
            raise ValueError("must be a duration such as 10s or 1h30m")
        total += value * _SECONDS[rest[:end]]
        rest = rest[end:].lstrip(" ")
        if not rest:
            break
    if not total < 2**32:
        raise ValueError("must be less than 136 years")
    return total


def size(text: str) -> int:
    """Bytes: 4096, 64M, `1.5 GiB`; k, m, g, t, p, e are powers of 1024, as in syd.  Raises ValueError."""
    value, unit = _number(text.strip(" "))
    unit = unit.lower().removesuffix("b").removesuffix("i")
    if unit not in _POWERS:
        raise ValueError("must be a size such as 4096 or 64M")
    value *= 1024.0 ** _POWERS[unit]
    if not value < 2**64:
        raise ValueError("must fit into 64 bits")
    return int(value)


def octal(text: str) -> int:
    """A mode, or -1 to unset.  Raises ValueError."""
    if text == "-1":
        return -1
    if not text or text.strip("01234567") or int(text, 8) > 0o7777:
        raise ValueError("must be an octal mode or -1")
    return int(text, 8)


def log_level(text: str) -> int:
    """An index into LOG_LEVELS.  Raises ValueError."""
    return LOG_LEVELS.index(text) if text in LOG_LEVELS else whole(text, 0, 7)


def namespaces(text: str) -> str:
    """A comma list of namespaces, "" for none.  Raises ValueError."""
    if text in ("none", "off"):
        return ""
    if any(name not in NAMESPACE_NAMES and name != "all" for name in text.split(",")):
        raise ValueError(f"must be of {', '.join(NAMESPACE_NAMES)}, all or none")
    return text


def text_value(text: str) -> str:
    """Anything but nothing.  Raises ValueError."""
    if not text:
        raise ValueError("must not be empty")
    return text


# kind -> (reader, may be `none` or `off`)
VALUES: dict[int, tuple[Callable[[str], Value], bool]] = {
    BOOL: (boolean, False),
    UINT: (whole, True),
    OCTAL: (octal, False),
    DURATION: (duration, True),
    SIZE: (size, True),
    NICE: (lambda t: whole(t, -20, 20), True),
    TEXT: (text_value, True),
    LEVEL: (log_level, False),
    VERBOSE: (lambda t: whole(t, 0, 255), False),
    MEMORY: (lambda t: whole(t, 0, 2), False),
    NAMESPACES: (namespaces, False),
    SIGNED: (lambda t: whole(t, -(2**63), 2**63 - 1), True),
    BYTE: (lambda t: whole(t, 1, 255), False),
}


def read(name: str, text: str) -> Value:
    """The value of option `name` as written.  Raises ValueError with what it must be."""
    kind, default, _, _ = OPTIONS[name]
    reader, unset = VALUES[kind]
    if unset and text in ("none", "off"):
        return None if default == OWN and kind == UINT else default
    if text == "inf" and name.startswith("rlimit/"):
        return default  # no limit of ours: what was inherited stays
    value: Value = reader(text)
    return value


def asks(name: str, value: Value) -> str:
    """Why `value` cannot be had; "" if it can."""
    _, default, state, why = OPTIONS[name]
    return why if state == ASKS and value != default else ""
