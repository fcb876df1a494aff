"""Calls that change who the caller is: judged by their registers, noted, then performed by the kernel.

SafeSetID (syd(7)): a command without a capability can only take on ids it has, and the kernel sees to that.
One that was given CAP_SETUID or CAP_SETGID (setuid+FROM:TO, trace/allow_safe_setuid) may take on what a rule
names for the id it acts with, and nothing else.  The list of setgroups(2) is in memory that can change after it
was judged: the groups are looked at once more before anything is done for the caller again (groups_permitted).
"""

from __future__ import annotations

import os
from errno import EPERM

from syd_pool.emulate.judge import send_signal
from syd_pool.linux import proc
from syd_pool.linux.numbers import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from syd_pool.emulate.call import Call
    from syd_pool.policy import Ruleset

SIGSYS = 31
_PR_SET_NAME, _NAME = 15, 15  # and the bytes of a name that count
_UNCHANGED = 0xFFFFFFFF
_LAST_OF_SYSTEM = {"setuid": 11, "setgid": 14}
_MOST_GROUPS = 65536  # NGROUPS_MAX
# name -> (list of rules, how many ids)
_IDS = {
    "setuid": ("setuid", 1), "setreuid": ("setuid", 2), "setresuid": ("setuid", 3), "setfsuid": ("setuid", 1),
    "setgid": ("setgid", 1), "setregid": ("setgid", 2), "setresgid": ("setgid", 3), "setfsgid": ("setgid", 1),
}  # fmt: skip
_FIELDS = {"setuid": b"Uid:", "setgid": b"Gid:"}
_KEEPS = {"setuid": "trace/allow_safe_setuid", "setgid": "trace/allow_safe_setgid"}


def changed(call: Call) -> int | None:
    """setuid(2), setgid(2), setgroups(2), capset(2) and their kin.

    The tracer notes it and lets the kernel perform the call on the caller itself; from its next call on
    a worker reads the caller's identity anew and acts with it (docs/design.md).
    """
    name = NAME[call.nr]
    if not call.rules.option("trace/allow_unsafe_caps") and not _permitted(call, name):
        system = name in _IDS and _system_account(call, name)
        _report(call, name, b"notice" if system else b"warn")
        if system:
            send_signal(call, SIGSYS)
        return -EPERM
    call.note_identity()
    return None


def prctl(call: Call) -> int | None:
    """prctl(2) under log/verbose:2: PR_SET_NAME is logged, whatever it is worth, and performed; else changed()."""
    if call.args[0] & 0xFFFFFFFF != _PR_SET_NAME:
        return changed(call)
    try:
        name = call.string(call.args[1])[:_NAME]
    except OSError:  # no such memory: for the kernel to say
        call.resume()
        return None
    call.log([("level", b"info"), ("ctx", b"name"), ("sys", b"prctl"), ("name", name), ("pid", call.tid),
              ("tgid", call.tgid)])  # fmt: skip
    call.resume()
    return None


def _permitted(call: Call, name: str) -> bool:
    rules = call.rules
    if name == "setgroups":
        count = call.args[0] & _UNCHANGED
        if not rules.option(_KEEPS["setgid"]) or not 0 < count <= _MOST_GROUPS:
            return True  # without a capability, or without a list: for the kernel to decide
        data = call.read(call.args[1], 4 * count)
        call.valid()
        return groups_permitted(rules, [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)])
    if name not in _IDS:
        return True
    kind, count = _IDS[name]
    if not rules.option(_KEEPS[kind]):
        return True  # it has no capability for it: the kernel lets through what needs none
    own = _ids(call, _FIELDS[kind])
    target = rules.transits[kind].get(own[1])
    return all(value in own or value in (target, _UNCHANGED) for value in (a & _UNCHANGED for a in call.args[:count]))


def foreign_ids(rules: Ruleset, tid: int, name: str, args: tuple[int, ...]) -> tuple[str, set[int]]:
    """(list of rules, ids that thread `tid` would take on and does not have), where it takes a rule to have them.

    Raises OSError when the thread is gone.
    """
    kind, count = _IDS.get(name, ("", 0))
    if not kind or rules.option("trace/allow_unsafe_caps") or not rules.option(_KEEPS[kind]):
        return kind, set()
    own = [int(word) for word in proc.field(proc.status(tid), _FIELDS[kind]).split()]
    return kind, {a & _UNCHANGED for a in args[:count]} - {*own, _UNCHANGED}


def _system_account(call: Call, name: str) -> bool:
    """Was it one of the system's first accounts, up to operator or uucp?  That ends the caller, as in syd."""
    kind, count = _IDS[name]
    return any(a & _UNCHANGED <= _LAST_OF_SYSTEM[kind] for a in call.args[:count])


def groups_permitted(rules: Ruleset, groups: Iterable[int]) -> bool:
    """May a caller be in these groups: ours from the start, and those that a rule lets it become?"""
    if rules.option("trace/allow_unsafe_caps") or not rules.option(_KEEPS["setgid"]):
        return True
    return {*groups} <= {*os.getgroups(), os.getgid(), *rules.transits["setgid"].values()}


def _ids(call: Call, field: bytes) -> list[int]:
    """Real, effective, saved and file system id of the caller.  Raises OSError; Gone."""
    text = proc.status(call.tid)
    call.valid()
    return [int(word) for word in proc.field(text, field).split()]


def _report(call: Call, name: str, level: bytes) -> None:
    ids = ",".join(str(a & _UNCHANGED) for a in call.args[: _IDS.get(name, ("", 0))[1]])
    tip = f"configure `{_IDS[name][0] if name in _IDS else 'setgid'}+FROM:TO'"
    call.log(
        [
            ("level", level), ("ctx", b"safesetid"), ("sys", name.encode()), ("args", ids.encode()),
            ("msg", os.strerror(EPERM).encode()), ("pid", call.tid), ("tgid", call.tgid), ("tip", tip.encode()),
        ]
    )  # fmt: skip
