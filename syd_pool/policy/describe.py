"""The rules of a run as data, for open("/dev/syd"), `dump` and `stat`; names of the keys as in syd."""

from __future__ import annotations

import os

from syd_pool.policy import actions, categories, options
from syd_pool.policy.actions import DENY
from syd_pool.policy.requests import name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.policy.rules import Ruleset

_PLAIN = (
    ("umask", "trace/force_umask", -1), ("tmout", "timeout", None), ("verbose", "log/verbose", None),
    ("mem_max", "mem/max", None), ("mem_vm_max", "mem/vm_max", None), ("pid_max", "pid/max", None),
    ("rootdir", "root", None), ("workdir", "workdir", None), ("ipc", "ipc", None),
    ("segvguard_expiry", "segvguard/expiry", None), ("segvguard_suspension", "segvguard/suspension", None),
    ("segvguard_maxcrashes", "segvguard/maxcrashes", None),
)  # fmt: skip


def state(rules: Ruleset) -> dict[str, object]:
    """Everything that decides, in an order that people can read."""
    found: dict[str, object] = {
        "lock": rules.lock,
        "state": [name for name in (*categories.GLOB, "fs", *categories.GUARDS) if name in rules.enabled],
        "flags": sorted(_flag(name) for name, value in rules.values.items() if value is True),
        "chroot": rules.chrooted,
    }
    for key, name, unset in _PLAIN:
        value = rules.option(name)
        found[key] = None if value == unset else _printable(value)
    for name in options.OPTIONS:
        if name.startswith("rlimit/"):
            found[name.replace("/", "_")] = rules.option(name)
    for name in (*categories.GLOB, "fs", *categories.GUARDS, *categories.ACTION_ONLY):
        found["default_" + name.replace("/", "_")] = actions.NAMES[rules.defaults.get(name, DENY)]
    found["transit_uids"] = [list(pair) for pair in rules.transits["setuid"].items()]
    found["transit_gids"] = [list(pair) for pair in rules.transits["setgid"].items()]
    found["fs_rules"] = [[name, actions.NAMES[action]] for action, name in reversed(rules.filesystems)]
    found["cidr_rules"] = [_rule(action, name, text) for action, name, text in reversed(rules.addresses)]
    found["glob_rules"] = [
        _rule(action, name, pattern.decode("utf-8", "backslashreplace")) for name, action, pattern in rules.path_rules()
    ]
    found["mask_rules"] = [[_text(part) or None for part in mask] for mask in reversed(rules.masks)]
    found["append_rules"] = [_text(pattern) for pattern in reversed(rules.appends)]
    found["ioctl_rules"] = [[name_of(number), actions.NAMES[action]] for action, number in reversed(rules.requests)]
    found["lock_rules"] = [[_printable(one) for one in pair] for pair in rules.landlock]
    return found


def _printable(value: object) -> object:
    """As it is, but for a text with bytes that are no UTF-8, which JSON has no way to write."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _rule(action: int, category: str, pattern: str) -> dict[str, str]:
    return {"act": actions.NAMES[action], "cap": category, "pat": pattern}


def _flag(name: str) -> str:
    return name.removeprefix("trace/").replace("_", "-").replace("/", "-")


def text(facts: dict[str, object]) -> str:
    """As lines, for people: lists one element a line."""
    lines = []
    for key, value in facts.items():
        if isinstance(value, list):
            lines.append(f"{key}: {len(value)}")
            lines += [f"    {_shown(one)}" for one in value]
        else:
            lines.append(f"{key}: {_shown(value)}")
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        if "act" in value:
            return f"{value['act']}/{value['cap']}+{value['pat']}"
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    if isinstance(value, list):
        return " ".join(_shown(one) for one in value)
    return "none" if value is None else str(value)


def as_json(facts: dict[str, object], indent: bool = True) -> bytes:
    """As JSON, with a line break at its end."""
    import orjson

    return orjson.dumps(facts, option=orjson.OPT_INDENT_2 if indent else 0) + b"\n"


def as_text(facts: dict[str, object]) -> bytes:
    """As lines, for people."""
    return text(facts).encode("utf-8", "backslashreplace")


def write(data: bytes) -> None:
    """Everything, on standard error.  Raises OSError."""
    while data:
        data = data[os.write(2, data) :]
