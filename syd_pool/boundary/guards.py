"""What the filter alone refuses, and what passes natively: every system call is in exactly one list.

A call is answered by emulate/table.py, refused by GUARDS, or let through by NATIVE; one that none of
them names (a newer kernel's, say) fails with ENOSYS.  tests/boundary/test_guards.py checks that the
three together name every number of linux/numbers.py.

A guard is lifted by its option and then the call passes natively.  Where that is not so, `lifted_by`
is empty and `why` says what would break:
- trace/allow_unsafe_namespace: workers resolve paths in their own root and mount namespace, and take
  ids in their own user namespace.  The policy refuses every kind of namespace at parse time, as not built.
- trace/allow_unsafe_chroot: workers resolve in their own root; the option makes chroot(2) a no-op that
  succeeds, as in syd, so it is an answer too and not a lift.

Conditions are read as "any of these conjunctions"; see filter.py for the lower 32 bits.
Errnos are those of spec.md section 2, "Answered by filter alone", unless a comment says otherwise.
"""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOPKG, ENOPROTOOPT, ENOSYS, EOPNOTSUPP, EPERM

from syd_pool.boundary.filter import KILL_PROCESS, bits_set, errno_action, int_is
from syd_pool.linux.numbers import NR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from syd_pool.boundary.filter import Condition, Rule

SUCCEED = errno_action(0)

# <linux/sched.h>.  NEWTIME shares its bit with the exit signal of clone(2) and means nothing there.
_NEW = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_NEWTIME = 0x80
_CLONE_PTRACE = 0x2000
_CLONE_UNTRACED = 0x800000

# <linux/prctl.h>
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_MM, _PR_SET_PTRACER = 4, 22, 35, 0x59616D61
_PR_SET_SYSCALL_USER_DISPATCH = 59
_PR_SCHED_CORE = 62

# <linux/personality.h>
_PERSONALITY_KILLS = (0x40000, 0x100000, 0x200000, 0x400000)  # no randomisation, page zero, old layout, RX

_MSG_OOB = 1
# <linux/sctp.h>: SCTP_SOCKOPT_BINDX_ADD, _CONNECTX_OLD, _CONNECTX, _CONNECTX3, of level SOL_SCTP
_SCTP_ADDRESSES = tuple((int_is(1, 132), int_is(2, option)) for option in (100, 107, 110, 111))
_IOC_TYPE, _SECCOMP_TYPE = 0xFF00, ord("!") << 8

_OPTION = "trace/allow_unsafe_"


class Guard:
    """One refusal: `names` get `action` when one of `conditions` holds (none: always).

    lifted_by  the option that lifts it, "" if nothing does
    lifted     the action once it is lifted
    """

    __slots__ = ("action", "conditions", "lifted", "lifted_by", "names", "why")

    def __init__(
        self,
        names: str,
        errno: int,
        why: str,
        option: str = "",
        conditions: tuple[tuple[Condition, ...], ...] = (),
        action: int | None = None,
        lifted: int | None = None,
    ):
        self.names = tuple(names.split())
        self.action = errno_action(errno) if action is None else action
        self.conditions = conditions
        self.why = why
        self.lifted_by = _OPTION + option if option else ""
        self.lifted = lifted


def _any_bit(argument: int, bits: tuple[int, ...]) -> tuple[tuple[Condition, ...], ...]:
    return tuple((bits_set(argument, bit),) for bit in bits)


GUARDS: tuple[Guard, ...] = (
    # Ways around the filter (attacks.md E)
    Guard("io_uring_setup io_uring_enter io_uring_register", ENOSYS, "opens files without a call (E1)", "uring"),
    # only what installs one: libseccomp asks for the actions there are before it builds a filter
    Guard("seccomp", EINVAL, "a nested filter outranks notifications (E6)", "cbpf", ((int_is(0, 0),), (int_is(0, 1),))),
    Guard("prctl", EINVAL, "a nested filter, or strict mode (E6)", "", ((int_is(0, _PR_SET_SECCOMP),),)),
    # 0 for what a debugger would ask for, as syd: a program cannot tell by it that it is traced (E8);
    # PTRACE_TRACEME, of which the second must fail, is a row of the table
    Guard("ptrace", 0, "our own tracing would end; a no-op that succeeds", "ptrace", action=SUCCEED),
    Guard("clone3", ENOSYS, "flags behind a pointer: libc falls back to clone (E4)"),
    Guard("clone", EPERM, "a child outside our tracing (E4)", "", _any_bit(0, (_CLONE_UNTRACED, _CLONE_PTRACE))),
    Guard("clone", EPERM, "another root, user or net than the workers' (E15)", "", _any_bit(0, _NEW)),
    Guard("unshare", EPERM, "another root, user or net than the workers'", "", _any_bit(0, (*_NEW, _NEWTIME))),
    Guard("setns", EPERM, "another root, user or net than the workers'"),
    Guard("pivot_root", EPERM, "workers resolve in their own root (C6)", "pivot_root", lifted=SUCCEED),
    Guard("chroot", EPERM, "workers resolve in their own root (C6)", "chroot", lifted=SUCCEED),
    Guard(
        "mount umount2 fsopen fsconfig fsmount fspick move_mount open_tree open_tree_attr "
        "mount_setattr statmount "
        "listmount",
        ENOSYS,
        "the mount API: paths would mean other files than the rules say (E15)",
    ),
    Guard("open_by_handle_at name_to_handle_at", ENOSYS, "a file without a path (C9)"),
    # nothing judges what its events hand over, and permission events hold up whoever opens: our workers too (C10)
    Guard("fanotify_init", EPERM, "its events are descriptors of files that others open"),
    Guard(
        "prctl",
        EINVAL,
        "SIGSYS handlers in place of calls",
        "prctl",
        ((int_is(0, _PR_SET_SYSCALL_USER_DISPATCH),),),
    ),
    # Other processes, ours among them (D3, E9)
    Guard("process_vm_readv process_vm_writev process_madvise process_mrelease", ENOSYS, "others' memory (E9)"),
    Guard("kcmp pidfd_getfd", ENOSYS, "others' descriptors (D3)"),
    Guard(
        "prctl",
        0,
        "names who may trace; a no-op that succeeds",
        "",
        ((int_is(0, _PR_SET_PTRACER),),),
        SUCCEED,
    ),
    Guard("prctl", EINVAL, "who shares a core with whom, also of others", "", ((int_is(0, _PR_SCHED_CORE),),)),
    Guard("prctl", EPERM, "moves what /proc shows of us", "prctl", ((int_is(0, _PR_SET_MM),),)),
    Guard(
        "prctl",
        0,
        "workers of the same user could not read the caller any more: a no-op that succeeds",
        "dumpable",
        ((int_is(0, _PR_SET_DUMPABLE),),),
        SUCCEED,
    ),
    Guard("userfaultfd", ENOSYS, "stalls a worker in a page of the caller's (F2)"),
    # The kernel
    Guard("bpf", ENOSYS, "", "ebpf"),
    Guard("perf_event_open", ENOSYS, "", "perf"),
    Guard("add_key request_key keyctl", ENOSYS, "keyrings are not in any namespace", "keyring"),
    Guard("pkey_alloc pkey_free pkey_mprotect", ENOSYS, "", "pkey"),
    Guard("vmsplice", ENOSYS, "", "vmsplice"),
    Guard("mbind migrate_pages move_pages", ENOSYS, "", "mbind"),
    Guard("cachestat mincore", ENOSYS, "shows others' use of the page cache", "page_cache"),
    Guard("modify_ldt iopl ioperm", ENOSYS, "", "cpu"),
    Guard("remap_file_pages uselib ustat sysfs", ENOSYS, "", "deprecated"),
    Guard("pipe2", ENOPKG, "notification pipes", "pipe", ((bits_set(1, 0x80),),)),
    Guard("ioctl", EACCES, "the listener's own requests (D7)", "", (((1, _IOC_TYPE, _SECCOMP_TYPE),),)),
    # Out-of-band data (syd(7), Denying MSG_OOB)
    Guard("sendto sendmmsg recvfrom recvmmsg", EOPNOTSUPP, "", "oob", ((bits_set(3, _MSG_OOB),),)),
    Guard("sendmsg recvmsg", EOPNOTSUPP, "", "oob", ((bits_set(2, _MSG_OOB),),)),
    # SCTP names addresses in socket options, which nobody judges
    Guard("setsockopt", EOPNOTSUPP, "binds and connects unjudged", "", _SCTP_ADDRESSES),
    Guard("personality", 0, "", "personality", _any_bit(0, _PERSONALITY_KILLS), KILL_PROCESS),
    Guard("settimeofday clock_settime adjtimex clock_adjtime", ENOSYS, "the host's clock", "time"),
    Guard(
        "setpriority ioprio_set sched_setparam sched_setscheduler sched_setattr",
        0,
        "the command stays at the lowest priority; a no-op that succeeds",
        "nice",
        action=SUCCEED,
    ),
    Guard("setrlimit", ENOSYS, "", "prlimit"),
    Guard("prlimit64", ENOSYS, "reading is allowed", "prlimit", _any_bit(2, tuple(1 << n for n in range(64)))),
    Guard("syslog", EPERM, "the kernel's log", "syslog"),
    Guard("sync syncfs", 0, "stalls the host; a no-op that succeeds", "sync", action=SUCCEED),
    Guard(
        "acct kexec_load kexec_file_load init_module finit_module delete_module create_module "
        "get_kernel_syms query_module reboot swapon swapoff quotactl quotactl_fd vhangup sethostname "
        "setdomainname nfsservctl "
        "lookup_dcookie _sysctl",
        ENOSYS,
        "the host, not the command",
    ),
    Guard(
        "landlock_create_ruleset landlock_add_rule landlock_restrict_self",
        ENOSYS,
        "workers act for the command and would not be restricted with it",
    ),
    Guard(
        "lsm_get_self_attr lsm_set_self_attr lsm_list_modules afs_syscall tuxcall security vserver "
        "getpmsg putpmsg "
        "epoll_ctl_old epoll_wait_old",
        ENOSYS,
        "unused",
    ),
)

# Where Landlock has no signal scope; the calls that signal are rows of the table then.
# A file's owner (F_SETOWN) may be any process of the user, so its signals are limited to those that each of
# our processes blocks: SIGIO, SIGURG, which cannot be chosen, and the real-time ones.
_F_SETSIG, _SIGIO = 10, 29
_FATAL_TO_US = tuple((int_is(1, _F_SETSIG), int_is(2, n)) for n in range(1, 34) if n != _SIGIO)
_SOL_SOCKET, _SO_PASSPIDFD, _SO_PEERPIDFD = 1, 76, 77
UNSCOPED: tuple[Guard, ...] = (
    Guard("fcntl", EINVAL, "signals us by way of a file's owner (F8)", "", _FATAL_TO_US),
    # a worker connects and sends for the command, so its pidfd would be what comes out; as Linux before 6.5
    Guard("getsockopt", ENOPROTOOPT, "a pidfd of ours", "", ((int_is(1, _SOL_SOCKET), int_is(2, _SO_PEERPIDFD)),)),
    Guard("setsockopt", ENOPROTOOPT, "a pidfd of ours", "", ((int_is(1, _SOL_SOCKET), int_is(2, _SO_PASSPIDFD)),)),
)

# Passes natively unless a guard's condition or a row of the table says otherwise.
NATIVE: dict[str, str] = {
    "descriptors": (
        "read write close pread64 pwrite64 readv writev preadv pwritev preadv2 lseek dup "
        "dup2 dup3 close_range flock fsync fdatasync sync_file_range "
        "fadvise64 readahead sendfile splice tee copy_file_range pipe pipe2 fstat fstatfs"
    ),
    "waiting": (
        "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait "
        "epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime "
        "timerfd_gettime inotify_init inotify_init1 inotify_rm_watch "
        "io_destroy io_getevents io_pgetevents io_cancel"
    ),
    "memory": (
        "munmap mprotect mremap msync madvise brk mlock mlock2 mlockall munlock munlockall "
        "membarrier mseal memfd_secret map_shadow_stack set_mempolicy get_mempolicy "
        "set_mempolicy_home_node"
    ),
    "processes": (
        "fork vfork clone exit exit_group wait4 waitid getpid getppid gettid set_tid_address "
        "pidfd_send_signal kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo setpgid "
        "getpgid getpgrp setsid getsid unshare prctl seccomp arch_prctl personality set_thread_area "
        "get_thread_area set_robust_list get_robust_list rseq restart_syscall uretprobe uprobe"
    ),
    "signals": (
        "rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigsuspend rt_sigreturn "
        "sigaltstack pause alarm getitimer setitimer"
    ),
    "time": (
        "nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times timer_create "
        "timer_settime timer_gettime timer_getoverrun timer_delete"
    ),
    "threads": "futex futex_waitv futex_wake futex_wait futex_requeue getcpu sched_yield",
    "scheduling": (
        "sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min "
        "sched_rr_get_interval sched_getattr sched_getaffinity getpriority ioprio_get"
    ),
    "identity": (
        "getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid "
        "setresuid setresgid setfsuid setfsgid setgroups capget capset"
    ),
    "facts": "uname sysinfo getrlimit getrusage getcwd getrandom",
    "sockets": ("listen shutdown recvfrom recvmsg recvmmsg getsockname getpeername setsockopt"),
    "System V and POSIX queues": (
        "shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl mq_open "
        "mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr"
    ),
}


def native_names() -> list[str]:
    """Every name in NATIVE."""
    return [name for names in NATIVE.values() for name in names.split()]


# The command could trace our own processes, were it not in a Landlock domain of its own.
_NEEDS_SCOPE = _OPTION + "ptrace"


def rules_of(option: Callable[[str], object], scoped: bool = True) -> tuple[list[Rule], dict[str, int]]:
    """The guards in force: conditional refusals as rules, unconditional ones as name -> action.

    option: the value of `trace/...`, as Ruleset.option.
    scoped: Landlock keeps signals inside the sandbox, and ptrace(2) with them; else the guards of UNSCOPED are in
            force too, and what only a Landlock domain makes harmless is not lifted.
    """
    conditional: list[Rule] = []
    outright: dict[str, int] = {}
    for guard in GUARDS if scoped else (*GUARDS, *UNSCOPED):
        action: int | None = guard.action
        if guard.lifted_by and option(guard.lifted_by) and (scoped or guard.lifted_by != _NEEDS_SCOPE):
            action = guard.lifted
        if action is None:
            continue
        if guard.conditions:
            for name in guard.names:
                conditional += [(NR[name], action, conditions) for conditions in guard.conditions]
        else:
            outright.update(dict.fromkeys(guard.names, action))
    return conditional, outright
