"""The lock: who may still change the rules, and what may follow what (syd(2), lock).

    unset --start--> on, or ipc where a control socket is configured
    off   every process of the sandbox may edit         exec  only the command itself
    ipc   only the control socket                       drop  everybody, and only to tighten
    read  nobody; open("/dev/syd") shows the rules      on    nobody

The states only close: NEXT has every step that is allowed.  syd(2) lets ipc become read, which syd 3.52
refuses; drop, which cannot see the rules, stays blind.
"""

from __future__ import annotations

UNSET, ON, OFF, EXEC, IPC, DROP, READ = "unset", "on", "off", "exec", "ipc", "drop", "read"

NAMES = {
    "on": ON, "1": ON, "off": OFF, "0": OFF, "exec": EXEC, "x": EXEC, "ipc": IPC, "i": IPC, "drop": DROP, "d": DROP,
    "read": READ, "r": READ, "ro": READ, "readonly": READ, "read-only": READ,
}  # fmt: skip

_ALL = frozenset((ON, OFF, EXEC, IPC, DROP, READ))
NEXT: dict[str, frozenset[str]] = {
    UNSET: _ALL,
    OFF: _ALL,
    EXEC: _ALL - {OFF},
    IPC: _ALL - {OFF, EXEC},
    DROP: frozenset((DROP, ON)),
    READ: frozenset(),
    ON: frozenset(),
}

CLOSED = (ON, READ)  # nothing is ever edited again


def may_follow(now: str, wanted: str) -> bool:
    """May the lock go from `now` to `wanted`?"""
    return wanted in NEXT[now]


def at_start(now: str, socket: bool) -> str:
    """What an unset lock becomes when the command is executed.  socket: `ipc` is configured."""
    if now != UNSET:
        return now
    return IPC if socket else ON


def is_open(state: str) -> bool:
    """May the rules still change once the command runs?"""
    return state in (OFF, EXEC, IPC, DROP)


def may_edit(state: str, eldest: bool) -> bool:
    """May a process of the sandbox use the stat interface?  eldest: it is the command itself."""
    return state in (OFF, DROP) or (state == EXEC and eldest)


def may_read(state: str, eldest: bool) -> bool:
    """May it open /dev/syd?"""
    return state in (OFF, READ) or (state == EXEC and eldest)


def may_ask_by_socket(state: str) -> bool:
    """May whoever uses the control socket give commands?"""
    return state in (OFF, IPC, DROP)


def may_read_by_socket(state: str) -> bool:
    """May it see the rules there?"""
    return state in (OFF, IPC)
