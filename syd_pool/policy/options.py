"""Every option of syd(2) that is no category, in one table: what it takes, what it starts as, what we do.

A row of OPTIONS is (kind, default, support, when, why):
  kind     how the value is written; values.py reads it
  support  YES     it works as syd(2) says
           PARTLY  it is accepted; `why` says what is different
           NO      it is refused: only a value that asks for nothing is accepted; `why` says what is missing
  when     START   only before the command is started, LIVE also after that (syd(2), static)

Values that ask for nothing are the default, `none` and, for booleans, `off`.
`syd-pool options`, docs/options.md and the shell completions are made from this table.
"""

from __future__ import annotations

from syd_pool.policy.values import (
    BOOL,
    BYTE,
    DURATION,
    LEVEL,
    MEMORY,
    MICROS,
    NAMESPACE_NAMES,
    NAMESPACES,
    NICE,
    OCTAL,
    SIGNED,
    SIZE,
    TEXT,
    UINT,
    VALUES,
    VERBOSE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.policy.values import Value

    Row = tuple[int, Value, str, str, str]

OWN = -1  # ipc/uid, ipc/gid: the one we run with; None: any
YES, PARTLY, NO = "supported", "partly", "no"
START, LIVE = "start", "live"
INFINITY = 2**64 - 1  # rlimit/*:inf, RLIM_INFINITY of setrlimit(2)

_NO_GUARD = "the guard that it lifts is not built: what it permits is permitted always"
_FSTAT = "fstat(2) of a device that is open shows its times in any case: it is native"
_PROC = "no effect without unshare/pid:1, as in syd, and that is not built yet"
_OWN = "our own memory is not guarded in this way; nothing to lift"
_KEPT = "the command gets the capability, where in syd only its emulators have it"
_SETID = "the change a rule names may be made more than once"
_NAMESPACES = "namespaces are not built yet"
_MOUNTS = "mounts and another root are not built yet"
_UTS = "uname(2) is not answered by us yet"
_PROXY = "the proxy is not built yet"
_PTY = "the terminal is not replaced yet"
_CRYPT = "encryption is not built"
_MEMORY = "memory limits are not built yet"

OPTIONS: dict[str, Row] = {
    "trace/allow_safe_bind": (BOOL, False, YES, START, ""),
    "trace/allow_safe_setgid": (BOOL, False, PARTLY, START, _SETID),
    "trace/allow_safe_setuid": (BOOL, False, PARTLY, START, _SETID),
    "trace/allow_safe_syslog": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_any_addr": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_bind": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_cap_fixup": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_caps": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_cbpf": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_chown": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_chroot": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_copy": (BOOL, False, PARTLY, START, _NO_GUARD),
    "trace/allow_unsafe_cpu": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_create": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_deprecated": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_dumpable": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_ebpf": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_env": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_exec_interactive": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_exec_ldso": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_exec_libc": (BOOL, False, PARTLY, START, _NO_GUARD),
    "trace/allow_unsafe_exec_memory": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_exec_nopie": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_exec_null": (BOOL, False, PARTLY, START, _NO_GUARD),
    "trace/allow_unsafe_exec_script": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_exec_speculative": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_exec_stack": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_filename": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_hardlinks": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_ip_pktinfo": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_ip_retopts": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_ipv6_rthdr": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_ipv6_scope": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_kcapi": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_keyring": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_kptr": (BOOL, False, PARTLY, START, _NO_GUARD),
    "trace/allow_unsafe_machine_id": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_madvise": (BOOL, False, PARTLY, START, _NO_GUARD),
    "trace/allow_unsafe_magiclinks": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_mbind": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_memfd": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_mkbdev": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_mkcdev": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_msgqueue": (BOOL, False, PARTLY, START, _NO_GUARD),
    "trace/allow_unsafe_nice": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_nocookie": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_nomseal": (BOOL, False, PARTLY, START, _OWN),
    "trace/allow_unsafe_notify_bdev": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_notify_cdev": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_noxom": (BOOL, False, PARTLY, START, _OWN),
    "trace/allow_unsafe_oob": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_open_kfd": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_open_path": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_open_suid": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_page_cache": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_perf": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_perm_msgqueue": (BOOL, False, PARTLY, START, _NO_GUARD),
    "trace/allow_unsafe_perm_shm": (BOOL, False, PARTLY, START, _NO_GUARD),
    "trace/allow_unsafe_personality": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_pipe": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_pivot_root": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_pkey": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_prctl": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_prlimit": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_proc_files": (BOOL, False, PARTLY, START, _PROC),
    "trace/allow_unsafe_proc_pid_status": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_ptrace": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_recvmsg": (BOOL, False, PARTLY, START, _NO_GUARD),
    "trace/allow_unsafe_rseq": (BOOL, False, PARTLY, START, _NO_GUARD),
    "trace/allow_unsafe_sendfd_bdev": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_sendfd_cdev": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_sendfd_dir": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_sendfd_fifo": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_sendfd_magiclink": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_sendfd_memfd": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_sendfd_misc": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_sendfd_secretmem": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_sendfd_socket": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_sendfd_symlink": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_setsockopt": (BOOL, False, PARTLY, START, _NO_GUARD),
    "trace/allow_unsafe_shm": (BOOL, False, PARTLY, START, _NO_GUARD),
    "trace/allow_unsafe_sigreturn": (BOOL, False, PARTLY, START, _NO_GUARD),
    "trace/allow_unsafe_socket": (BOOL, False, PARTLY, START, _KEPT),
    "trace/allow_unsafe_stat_bdev": (BOOL, False, PARTLY, LIVE, _FSTAT),
    "trace/allow_unsafe_stat_cdev": (BOOL, False, PARTLY, LIVE, _FSTAT),
    "trace/allow_unsafe_sticky": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_symlinks": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_sync": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_sysinfo": (BOOL, False, PARTLY, START, _NO_GUARD),
    "trace/allow_unsafe_syslog": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_time": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_uname": (BOOL, False, PARTLY, START, _NO_GUARD),
    "trace/allow_unsafe_uring": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_vmsplice": (BOOL, False, YES, START, ""),
    "trace/allow_unsafe_xattr": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsupp_socket": (BOOL, False, YES, START, ""),
    "trace/deny_dotdot": (BOOL, False, YES, LIVE, ""),
    "trace/deny_exec_elf32": (BOOL, False, YES, LIVE, ""),
    "trace/deny_exec_elf_dynamic": (BOOL, False, YES, LIVE, ""),
    "trace/deny_exec_elf_static": (BOOL, False, YES, LIVE, ""),
    "trace/deny_exec_script": (BOOL, False, YES, LIVE, ""),
    "trace/deny_tsc": (BOOL, False, NO, START, "the time stamp counter is not guarded yet"),
    "trace/deny_vdso": (BOOL, False, NO, LIVE, "the vDSO is not removed yet"),
    "trace/exit_wait_all": (BOOL, False, YES, START, ""),
    "trace/force_cloexec": (BOOL, False, YES, LIVE, ""),
    "trace/force_local_net": (BOOL, False, YES, LIVE, ""),
    "trace/force_no_magiclinks": (BOOL, False, YES, LIVE, ""),
    "trace/force_no_symlinks": (BOOL, False, YES, LIVE, ""),
    "trace/force_no_xdev": (BOOL, False, YES, LIVE, ""),
    "trace/force_rand_fd": (BOOL, False, YES, LIVE, ""),
    "trace/force_ro_open": (BOOL, False, YES, LIVE, ""),
    "trace/allow_unsafe_namespace": (NAMESPACES, "", NO, START, "workers share the command's namespaces"),
    "trace/force_umask": (OCTAL, -1, YES, LIVE, ""),
    "trace/memory_access": (MEMORY, 2, YES, START, ""),
    "trace/sync_seccomp": (BOOL, True, YES, START, ""),
    "timeout": (DURATION, None, YES, LIVE, ""),
    "log/level": (LEVEL, None, YES, LIVE, ""),
    "log/verbose": (
        VERBOSE,
        0,
        PARTLY,
        LIVE,
        "1 adds arguments to denied calls, 3 the request; 2 logs PR_SET_NAME at level info if said before the start",
    ),
    "log/lock/same_exec_off": (BOOL, False, YES, START, ""),
    "log/lock/new_exec_on": (BOOL, False, YES, START, ""),
    "log/lock/subdomains_off": (BOOL, False, YES, START, ""),
    "config/expand": (DURATION, 0.0, YES, START, ""),
    "rlimit/as": (SIZE, None, YES, START, ""),
    "rlimit/core": (SIZE, 0, YES, START, ""),
    "rlimit/cpu": (DURATION, None, YES, START, ""),
    "rlimit/data": (SIZE, None, YES, START, ""),
    "rlimit/fsize": (SIZE, None, YES, START, ""),
    "rlimit/memlock": (SIZE, 0, YES, START, ""),
    "rlimit/msgqueue": (SIZE, 0, YES, START, ""),
    "rlimit/nice": (NICE, 20, YES, START, ""),
    "rlimit/nofile": (UINT, None, YES, START, ""),
    "rlimit/nproc": (UINT, None, YES, START, ""),
    "rlimit/rtprio": (UINT, 0, YES, START, ""),
    "rlimit/rttime": (MICROS, 0, YES, START, ""),
    "rlimit/sigpending": (UINT, None, YES, START, ""),
    "rlimit/stack": (SIZE, None, YES, START, ""),
    "segvguard/expiry": (DURATION, 120.0, YES, LIVE, ""),
    "segvguard/suspension": (DURATION, 600.0, YES, LIVE, ""),
    "segvguard/maxcrashes": (BYTE, 5, YES, LIVE, ""),
    "ipc": (TEXT, None, YES, START, ""),
    "ipc/uid": (UINT, OWN, YES, START, ""),
    "ipc/gid": (UINT, OWN, YES, START, ""),
    "pty/row": (UINT, None, NO, START, _PTY),
    "pty/col": (UINT, None, NO, START, _PTY),
    "root": (TEXT, None, NO, START, _MOUNTS),
    "root/map": (BOOL, False, NO, START, _NAMESPACES),
    "root/fake": (BOOL, False, NO, START, "user ids are not faked yet"),
    "workdir": (TEXT, None, NO, START, _MOUNTS),
    "time": (SIGNED, None, NO, START, _NAMESPACES),
    "time/boot": (SIGNED, None, NO, START, _NAMESPACES),
    "time/mono": (SIGNED, None, NO, START, _NAMESPACES),
    "uts/host": (TEXT, None, NO, LIVE, _UTS),
    "uts/domain": (TEXT, None, NO, LIVE, _UTS),
    "uts/version": (TEXT, None, NO, LIVE, _UTS),
    "mem/max": (SIZE, 0, NO, LIVE, _MEMORY),
    "mem/vm_max": (SIZE, 0, NO, LIVE, _MEMORY),
    "pid/max": (UINT, 0, NO, LIVE, "process limits are not built yet"),
    "tpe/gid": (UINT, None, YES, LIVE, ""),
    "tpe/negate": (BOOL, False, YES, LIVE, ""),
    "tpe/root_owned": (BOOL, False, YES, LIVE, ""),
    "tpe/user_owned": (BOOL, False, YES, LIVE, ""),
    "tpe/root_mount": (BOOL, False, YES, LIVE, ""),
    "crypt/key": (TEXT, None, NO, START, _CRYPT),
    "crypt/key/enc": (TEXT, None, NO, START, _CRYPT),
    "crypt/key/mac": (TEXT, None, NO, START, _CRYPT),
    "crypt/tmp": (TEXT, "mem", NO, START, _CRYPT),
    "proxy/addr": (TEXT, "127.0.0.1", NO, START, _PROXY),
    "proxy/port": (UINT, 9050, NO, START, _PROXY),
    "proxy/ext/host": (TEXT, "127.0.0.1", NO, START, _PROXY),
    "proxy/ext/port": (UINT, 9050, NO, START, _PROXY),
    "proxy/ext/unix": (TEXT, None, NO, START, _PROXY),
    **{"unshare/" + name: (BOOL, False, NO, START, _NAMESPACES) for name in (*NAMESPACE_NAMES, "all")},
}
ALIASES = {"pty/x": "pty/row", "pty/y": "pty/col"}

# Lists whose every element asks for something that is not built; taking elements away is accepted.
UNBUILT_LISTS = {
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


def read(name: str, text: str) -> Value:
    """The value of option `name` as written.  Raises ValueError with what it must be."""
    kind = OPTIONS[name][0]
    reader, unset = VALUES[kind]
    if unset and text in ("none", "off"):
        return None
    if text == "inf" and name.startswith("rlimit/"):
        return INFINITY
    value: Value = reader(text)
    return value


def refusal(name: str, value: Value) -> str:
    """Why `value` cannot be had; "" if it can."""
    _, default, support, _, why = OPTIONS[name]
    return why if support == NO and value not in (default, None) else ""
