"""Calls that change who the caller is: judged by their registers, noted, then performed by the kernel.

SafeSetID (syd(7)): a command without a capability can only take on ids it has, and the kernel sees to that.
One that was given CAP_SETUID or CAP_SETGID (setuid+FROM:TO, trace/allow_safe_setuid) may take on what a rule
names for the id it acts with, and nothing else.  setgroups(2) is refused but for giving all groups up: its
list is in memory that can change after it was judged.
"""

from __future__ import annotations

import os
from errno import EPERM

from syd_pool.linux.numbers import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

_UNCHANGED = 0xFFFFFFFF
# name -> (list of rules, how many ids)
_IDS = {
    "setuid": ("setuid", 1), "setreuid": ("setuid", 2), "setresuid": ("setuid", 3), "setfsuid": ("setuid", 1),
    "setgid": ("setgid", 1), "setregid": ("setgid", 2), "setresgid": ("setgid", 3), "setfsgid": ("setgid", 1),
}  # fmt: skip
_KEEPS = {"setuid": "trace/allow_safe_setuid", "setgid": "trace/allow_safe_setgid"}


def changed(call: Call) -> int | None:
    """setuid(2), setgid(2), setgroups(2), capset(2) and their kin.

    The tracer notes it and lets the kernel perform the call on the caller itself; from its next call on
    a worker reads the caller's identity anew and acts with it (docs/design.md).
    """
    name = NAME[call.nr]
    if not call.rules.option("trace/allow_unsafe_caps") and not _permitted(call, name):
        _report(call, name)
        return -EPERM
    call.note_identity()
    return None


def _permitted(call: Call, name: str) -> bool:
    rules = call.rules
    if name == "setgroups":
        return not rules.option(_KEEPS["setgid"]) or call.args[0] & _UNCHANGED == 0
    if name not in _IDS:
        return True
    kind, count = _IDS[name]
    if not rules.option(_KEEPS[kind]):
        return True  # it has no capability for it: the kernel lets through what needs none
    own = _ids(call, b"Uid" if kind == "setuid" else b"Gid")
    target = rules.transits[kind].get(own[1])
    return all(value in own or value in (target, _UNCHANGED) for value in (a & _UNCHANGED for a in call.args[:count]))


def _ids(call: Call, field: bytes) -> list[int]:
    """Real, effective, saved and file system id of the caller.  Raises OSError; Gone."""
    with open(b"/proc/%d/status" % call.tid, "rb") as file:
        # the first line holds a name that the caller chooses, but no line break
        fields = dict(line.split(b":", 1) for line in file if b":" in line)
    call.valid()
    return [int(word) for word in fields[field].split()]


def _report(call: Call, name: str) -> None:
    ids = ",".join(str(a & _UNCHANGED) for a in call.args[: _IDS.get(name, ("", 0))[1]])
    tip = f"configure `{_IDS[name][0]}+FROM:TO'" if name in _IDS else "only setgroups(0, NULL) is let through"
    call.log(
        [
            ("level", b"warn"), ("ctx", b"safesetid"), ("sys", name.encode()), ("args", ids.encode()),
            ("msg", os.strerror(EPERM).encode()), ("pid", call.tid), ("tgid", call.tgid), ("tip", tip.encode()),
        ]
    )  # fmt: skip
