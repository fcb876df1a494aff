"""What the command may not do whatever its rules say: capabilities, securebits, memory, speculation, limits, priority.

    policy --of_command()--> Privileges --drop(), in the child before its filters--> kernel
           --limits()------> put_limits(), by the tracer in the moment before the exec
           --of_worker()---> (effective, permitted), put on by every worker at its birth

Guarantees: a capability that the policy does not keep is gone from every set of the command, the bounding
set too, before its first instruction; a worker acts with the command's capabilities, so that it cannot be
asked for what the command may not do.  What the kernel does not take (EPERM without CAP_SETPCAP, EINVAL on
an older one) is left out only where syd leaves it out: securebits, MDWE, speculation, priority.

Sources: capabilities(7), prctl(2), ioprio_set(2), syd(7) "Managing Linux Capabilities", "Securebits",
"Memory-Deny-Write-Execute", "Speculative Execution Mitigation", "Process Priority".
"""

from __future__ import annotations

from ctypes import addressof, create_string_buffer
from errno import EINVAL, ENODEV, ENXIO, EPERM, ERANGE
from struct import Struct

from syd_pool.linux import caps, libc
from syd_pool.policy.options import INFINITY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.policy import Ruleset

    Limit = tuple[int, int, int]

# What an option keeps for the command, and what only for the workers that act for it.
FOR_COMMAND = {
    "trace/allow_unsafe_syslog": caps.CAP_SYSLOG,
    "trace/allow_unsafe_time": caps.CAP_SYS_TIME,
    "trace/allow_unsafe_socket": caps.CAP_NET_RAW,
    "trace/allow_safe_setuid": caps.CAP_SETUID,
    "trace/allow_safe_setgid": caps.CAP_SETGID,
}
FOR_WORKERS = {
    "trace/allow_unsafe_bind": caps.CAP_NET_BIND_SERVICE,
    "trace/allow_unsafe_chown": caps.CAP_CHOWN,
    "trace/allow_unsafe_mkbdev": caps.CAP_MKNOD,
    "trace/allow_unsafe_mkcdev": caps.CAP_MKNOD,
}

# <linux/securebits.h>; the lock of each bit is the next bit
SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP, SECBIT_KEEP_CAPS, SECBIT_NO_CAP_AMBIENT_RAISE = 1, 1 << 2, 1 << 4, 1 << 6

# <linux/prctl.h>
PR_CAPBSET_DROP = 24
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
PR_SET_SPECULATION_CTRL, PR_SPEC_FORCE_DISABLE = 53, 1 << 3
_SPECULATION = (0, 1, 2)  # PR_SPEC_STORE_BYPASS, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_L1D_FLUSH
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1

_PRIO_PROCESS, _LEAST_NICE = 0, 19
_IOPRIO_WHO_PROCESS, _IOPRIO_IDLE = 1, 3 << 13

# <asm-generic/resource.h>
RLIMITS = {
    "cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "nproc": 6, "nofile": 7, "memlock": 8, "as": 9,
    "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}  # fmt: skip
_NICE_BASE = 20  # RLIMIT_NICE counts from nice 20 downwards, getrlimit(2)
_LIMIT = Struct("<QQ")


class Privileges:
    """What drop() does, decided and packed before the fork.

    kept        capabilities that the command has after its exec; None: nothing is taken
    securebits  to be added; `unprivileged` where the kernel wants CAP_SETPCAP for them
    """

    __slots__ = ("ambient", "final", "header", "kept", "mdwe", "polite", "securebits", "speculation", "unprivileged")

    def __init__(self, kept: int | None, securebits: int, unprivileged: int):
        self.kept = kept
        self.securebits = securebits
        self.unprivileged = unprivileged
        self.mdwe = self.speculation = self.polite = False
        self.header = create_string_buffer(caps.header(), 8)
        self.ambient = create_string_buffer(24)
        self.final = create_string_buffer(24)


def _of(rules: Ruleset, table: dict[str, int]) -> int:
    found = 0
    for option, capability in table.items():
        if rules.option(option):
            found |= caps.bit(capability)
    return found


def kept_by_command(rules: Ruleset, permitted: int) -> int:
    """The capabilities that the command keeps of `permitted`."""
    return permitted if rules.option("trace/allow_unsafe_caps") else _of(rules, FOR_COMMAND) & permitted


def of_worker(rules: Ruleset, permitted: int) -> tuple[int, int]:
    """(effective, permitted) of a worker; `permitted` is what the tracer has.

    SYS_PTRACE is only used to look at callers.  SYS_ADMIN says whose pid a message comes from and is raised
    for that moment only (emulate/send.py); the ids, and KILL, are needed where the command may change its own.
    """
    kept = kept_by_command(rules, permitted)
    effective = (kept | _of(rules, FOR_WORKERS) | caps.bit(caps.CAP_SYS_PTRACE)) & permitted
    spare = caps.bit(caps.CAP_SYS_ADMIN)
    if kept:
        spare |= caps.bit(caps.CAP_SETUID) | caps.bit(caps.CAP_SETGID) | caps.bit(caps.CAP_KILL)
    return effective, (effective | spare) & permitted


def of_command(rules: Ruleset) -> Privileges:
    """Everything that drop() will need."""
    permitted = caps.current()[1]
    everything = bool(rules.option("trace/allow_unsafe_caps"))
    kept = kept_by_command(rules, permitted)
    found = Privileges(None if everything else kept, *_securebits(rules, everything))
    if not everything:
        found.ambient = create_string_buffer(caps.data(permitted, permitted, kept), 24)
        found.final = create_string_buffer(caps.data(kept, kept, kept), 24)
    found.mdwe = not rules.option("trace/allow_unsafe_exec_memory")
    found.speculation = not rules.option("trace/allow_unsafe_exec_speculative")
    found.polite = not rules.option("trace/allow_unsafe_nice")
    return found


def _securebits(rules: Ruleset, everything: bool) -> tuple[int, int]:
    """(all that are wanted, those that need no capability), with their locks."""
    scripts = 0
    if not rules.option("trace/allow_unsafe_exec_script"):
        scripts |= libc.SECBIT_EXEC_RESTRICT_FILE
    if not rules.option("trace/allow_unsafe_exec_interactive"):
        scripts |= libc.SECBIT_EXEC_DENY_INTERACTIVE
    bits = scripts
    if not everything:
        bits |= SECBIT_NOROOT | SECBIT_NO_CAP_AMBIENT_RAISE
    if not everything and not rules.option("trace/allow_unsafe_cap_fixup"):
        bits |= SECBIT_NO_SETUID_FIXUP
        return bits | bits << 1 | SECBIT_KEEP_CAPS << 1, scripts | scripts << 1
    return bits | bits << 1, scripts | scripts << 1


# --- in the child --------------------------------------------------------------------------------


def drop(privileges: Privileges) -> None:
    """Give up what the command may not have.  Raises OSError where it must not be left out."""
    if privileges.polite:
        _be_polite()
    if privileges.speculation:
        for feature in _SPECULATION:
            _try(PR_SET_SPECULATION_CTRL, feature, PR_SPEC_FORCE_DISABLE)
    if privileges.mdwe:
        _try(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN)
    kept = privileges.kept
    if kept:  # what is ambient survives an exec without SECBIT_NOROOT's root
        libc.syscall("capset", addressof(privileges.header), addressof(privileges.ambient))
        for capability in caps.members(kept):
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)
    _set_securebits(privileges)
    if kept is not None:
        for capability in range(caps.MOST):
            if not kept >> capability & 1 and not _drop_from_bounding_set(capability):
                break
        libc.syscall("capset", addressof(privileges.header), addressof(privileges.final))


def _drop_from_bounding_set(capability: int) -> bool:
    """False when there is no more to be done: the last capability, or no CAP_SETPCAP, without which there is none
    to regain either (no_new_privs)."""
    try:
        libc.prctl(PR_CAPBSET_DROP, capability)
    except OSError as error:
        if error.errno not in (EINVAL, EPERM):
            raise
        return False
    return True


def _set_securebits(privileges: Privileges) -> None:
    """Add them; without CAP_SETPCAP those that need none.  As in syd nothing is done where the kernel takes none.

    EPERM: no CAP_SETPCAP; Linux before 6.14, which knows no bits without it; or a parent has locked another value.
    """
    for bits in (privileges.securebits, privileges.unprivileged):
        if not bits:
            continue
        try:
            libc.prctl(libc.PR_SET_SECUREBITS, libc.prctl(libc.PR_GET_SECUREBITS) | bits)
            return
        except OSError as error:
            if error.errno != EPERM:
                raise


def _try(option: int, *args: int) -> None:
    """A prctl(2) that an older kernel, or this processor, need not have."""
    try:
        libc.prctl(option, *args)
    except OSError as error:
        if error.errno not in (EINVAL, ENODEV, ENXIO, EPERM, ERANGE):
            raise


def _be_polite() -> None:
    """The lowest priority for processor and disk, setpriority(2) and ioprio_set(2); the filter keeps it so."""
    libc.syscall("setpriority", _PRIO_PROCESS, 0, _LEAST_NICE)
    try:
        libc.syscall("ioprio_set", _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)
    except OSError as error:
        if error.errno not in (EINVAL, EPERM):
            raise


# --- limits, in the tracer -----------------------------------------------------------------------


def limits(rules: Ruleset) -> list[Limit]:
    """rlimit/* as (RLIMIT_ number, soft, hard); what is unset stays as it was inherited."""
    found = []
    for name, number in RLIMITS.items():
        value = rules.option("rlimit/" + name)
        if value is None and name == "core" and not rules.option("trace/allow_unsafe_prlimit"):
            value = 0  # no core dumps, syd(7) "Restricting Resource Limits, Core Dumps"
        if not isinstance(value, int | float):
            continue
        if value == INFINITY and name != "nice":
            limit = libc.RLIM_INFINITY
        else:
            limit = _NICE_BASE - int(value) if name == "nice" else int(value)
        found.append((number, limit, limit))
    return found


def put_limits(pid: int, wanted: list[Limit]) -> None:
    """prlimit(2) on the command, after its own preparations: a low RLIMIT_AS must not stop those.  Raises OSError."""
    for number, soft, hard in wanted:
        value = create_string_buffer(_LIMIT.pack(soft, hard), 16)
        libc.syscall("prlimit64", pid, number, addressof(value), 0)
