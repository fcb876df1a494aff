"""The two filters of the command, from the table of calls and the guards (I12).

`parent`  default ALLOW.  The guards with conditions: refusals of some arguments of a call that is
          otherwise native or emulated.  The kernel takes the most severe answer of all filters (KILL,
          ERRNO, NOTIFY, TRACE, ALLOW), so these hold whatever the other filter says.
`main`    default ENOSYS, so that an unknown number fails.  One answer for each call; has the listener.

Two, not one: "everything but these two values" takes some thirty instructions a value in BPF made of
masks, and ioctl is called often.  A call that both allow without conditions never runs either: the
kernel keeps a bitmap of those (kernel/seccomp.c, seccomp_cache_check_allow).
"""

from __future__ import annotations

import os
from errno import EACCES, ENOSYS

from syd_pool.boundary import guards
from syd_pool.boundary.filter import ALLOW, NOTIFY, bits_clear, bits_set, errno_action, int_is, long_is, trace_action
from syd_pool.boundary.request_filter import MOST
from syd_pool.emulate import table
from syd_pool.emulate.ioctl import ALLOCATING
from syd_pool.linux.numbers import NR
from syd_pool.policy import actions
from syd_pool.policy.lock import is_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from syd_pool.boundary.filter import Condition, Rule
    from syd_pool.policy import Ruleset

UNKNOWN = errno_action(ENOSYS)
REFUSED = errno_action(EACCES)

# A row of the table that is about some arguments only, any of these; the rest of the call is as without the row.
_EXECUTABLE = (bits_set(2, 4), bits_clear(3, 0x20))  # PROT_EXEC, MAP_ANONYMOUS
_SHARED = (bits_set(3, 1), bits_clear(3, 0x20))  # MAP_SHARED, or MAP_SHARED_VALIDATE; MAP_ANONYMOUS
ONLY_WHEN: dict[str, tuple[tuple[Condition, ...], ...]] = {
    "mmap": (_EXECUTABLE, _SHARED),
    "fcntl": ((int_is(1, 4), bits_clear(2, os.O_APPEND)),),  # F_SETFL
    "pwritev2": ((bits_set(5, 0x20),),),  # RWF_NOAPPEND
    "ptrace": ((int_is(0, 0),),),  # PTRACE_TRACEME
    "prctl": ((int_is(0, 24),), (int_is(0, 28),)),  # PR_CAPBSET_DROP, PR_SET_SECUREBITS
    "getsockopt": ((int_is(1, 1), int_is(2, 17)), (int_is(1, 1), int_is(2, 77))),  # SO_PEERCRED, SO_PEERPIDFD
}

_NAMES_ITSELF = (int_is(0, 15),)  # PR_SET_NAME

# A row of the table that is not about these: they are as without the row.
_ITSELF = ((int_is(0, 0),),)
EXCEPT_WHEN: dict[str, tuple[tuple[Condition, ...], ...]] = {
    "sendto": ((long_is(4, 0),),),  # send(2): the peer was judged when the socket was connected
    **dict.fromkeys(("sched_setaffinity", "sched_setparam", "sched_setscheduler", "sched_setattr"), _ITSELF),
    **dict.fromkeys(("prlimit64", "migrate_pages", "move_pages"), _ITSELF),
    "setpriority": ((int_is(0, 0), int_is(1, 0)),),  # PRIO_PROCESS, itself
    "ioprio_set": ((int_is(0, 1), int_is(1, 0)),),  # IOPRIO_WHO_PROCESS, itself
    "perf_event_open": ((int_is(1, 0), bits_clear(4, 4)),),  # PERF_FLAG_PID_CGROUP: the number is a descriptor
}


class CommandFilters:
    """Rules of both filters, not compiled yet.

    traced    whether any answer is TRACE
    requests  what is decided of ioctl(2) in front of main, number -> action (request_filter.py)
    """

    __slots__ = ("main", "parent", "requests", "traced")

    def __init__(self, parent: list[Rule], main: list[Rule], traced: bool, requests: dict[int, int] | None = None):
        self.parent = parent
        self.main = main
        self.requests = requests or {}
        self.traced = traced


def _answers(rows: Iterable[table.Row], ptrace: bool) -> dict[str, int]:
    """Name -> action of the rows.

    TRACE's data is the call's number, for logs.  Dispatch on the number itself:
    a command with trace/allow_unsafe_cbpf may add filters of its own whose TRACE carries other data.
    """
    actions: dict[str, int] = {}
    for name, how, *_ in rows:
        if how == table.NOTIFY or (how == table.TRACE and not ptrace):
            actions[name] = NOTIFY
        elif how == table.NOTE and not ptrace:
            continue
        elif how in (table.TRACE, table.NOTE):
            actions[name] = trace_action(NR[name])
        elif how == table.UNBUILT:
            actions.setdefault(name, UNKNOWN)
        else:
            raise ValueError(f"{name}: no such treatment: {how}")
    return actions


def command_filters(rules: Ruleset, ptrace: bool = True, identity: bool = True, scoped: bool = True) -> CommandFilters:
    """The filters of a run.

    ptrace: False turns TRACE into NOTIFY (trace/allow_unsafe_ptrace); identity, scoped: see table.in_force().
    """
    conditional, outright = guards.rules_of(rules.option, scoped)
    answers = _answers(table.in_force(rules, identity, scoped), ptrace)
    requests, judged = _requests(rules)
    if judged:
        answers["ioctl"] = NOTIFY
    else:
        answers.pop("ioctl", None)
    native = dict.fromkeys(guards.native_names(), ALLOW)
    native.update(dict.fromkeys((row[0] for row in table.ROWS), ALLOW))
    native.update(dict.fromkeys((name for g in guards.GUARDS for name in g.names), ALLOW))
    native.update(outright)
    parent = [rule for rule in conditional if not _covers(rule, answers)]
    main: list[Rule] = []
    for name, action in native.items():
        answer = answers.get(name)
        if answer is None or (answer == UNKNOWN and name in outright):
            main.append((NR[name], action, ()))
        elif name in ONLY_WHEN:
            main += [(NR[name], answer, conditions) for conditions in _only_when(name, rules, identity)]
            main.append((NR[name], action, ()))
        elif name in EXCEPT_WHEN:
            main += [(NR[name], action, conditions) for conditions in EXCEPT_WHEN[name]]
            main.append((NR[name], answer, ()))
        else:
            main.append((NR[name], answer, ()))
    traced = any(action & 0xFFFF0000 == trace_action() for action in answers.values())
    return CommandFilters(parent, main, traced, requests)


def _requests(rules: Ruleset) -> tuple[dict[int, int], bool]:
    """(what the filter decides of ioctl(2), is every other request judged by a worker?)

    Nothing while the rules may change: the filter cannot.
    """
    if is_open(rules.lock):
        return {}, True
    verdicts = rules.requested
    on = "ioctl" in rules.enabled
    by_default = ALLOW if not on or verdicts.default == actions.ALLOW else NOTIFY
    refused = NOTIFY if on else REFUSED  # with a line in the log
    decided = {number: ALLOW if action == actions.ALLOW else refused for number, action in verdicts.items()}
    found = {number: action for number, action in decided.items() if action != by_default}
    if rules.appends:
        found |= {number: NOTIFY for number in ALLOCATING if found.get(number, ALLOW) == ALLOW}
    if len(found) > MOST:  # the filter decides some, all of them are in the rules
        return dict(list(found.items())[-MOST:]), True
    return found, by_default == NOTIFY


def _only_when(name: str, rules: Ruleset, identity: bool) -> tuple[tuple[Condition, ...], ...]:
    """ONLY_WHEN of one call, without what the rules of this run can never be about.

    Of prctl(2): what log/verbose:2 shows, and what changes an identity where there is one to change.
    """
    if name == "prctl" and table.logs_names(rules):
        return (_NAMES_ITSELF, *(ONLY_WHEN[name] if identity else ()))
    if name != "mmap" or is_open(rules.lock):
        return ONLY_WHEN[name]
    executable = (_EXECUTABLE,) if {"exec", "tpe"} & rules.enabled else ()
    return (*executable, _SHARED) if rules.appends else executable


def _covers(rule: Rule, answers: dict[str, int]) -> bool:
    """A row of the table answers just what this guard refuses: then the guard must not outrank it."""
    nr, _, conditions = rule
    return any(nr == NR[name] and conditions in only and name in answers for name, only in ONLY_WHEN.items())
