"""What a running sandbox can be told, for programs that speak to it (syd(1) --api; the "api" of open("/dev/syd")).

Made from the parser's own tables: what cannot be said while the command runs, or is not built, is not in it.
A method is said as stat("ROOT/PATH OP ARGUMENT") without blanks; names of the keys as in syd.

    name, desc     what a binding may call it, and what it does
    path           what is said, "" for the root itself
    base           what follows the path after a slash, before the operator
    op             operator
    argv, argc     type and number of what follows; argc -1: any number, joined by `args`
"""

from __future__ import annotations

import os

from syd_pool.policy import actions, categories, lock, options, values
from syd_pool.policy.live import is_static

API_MAJOR, API_MINOR = 3, 1
ROOT = "/dev/syd"
HELPERS = os.path.join(os.path.dirname(__file__), "helpers")

Method = dict[str, "str | int"]

_WORDS = (
    ("check", "", "is there a sandbox, and may I speak to it?"),
    ("stat", "stat", "print the rules on the sandbox's standard error"),
    ("dump", "dump", "as stat, as JSON"),
    ("reset", "reset", "back to the defaults; the lock stays"),
    ("panic", "panic", "end the run at once with status 127"),
    ("ghost", "ghost", "let go for ever: every judged call fails with ENOSYS"),
)
_TYPES = {
    values.BOOL: "$bool", values.UINT: "$uint", values.OCTAL: "$octal", values.DURATION: "$duration",
    values.SIZE: "$size", values.LEVEL: "$level", values.VERBOSE: "$byte", values.BYTE: "$byte",
}  # fmt: skip


def helper(name: str) -> bytes:
    """The library `syd.sh` or `syd.el`.  Raises OSError."""
    with open(os.path.join(HELPERS, name), "rb") as file:
        return file.read()


def specification() -> dict[str, object]:
    """Root, version, methods and types."""
    version = {"major": API_MAJOR, "minor": API_MINOR, "version": f"{API_MAJOR}.{API_MINOR}"}
    return {"root": ROOT, "version": version, "methods": [*_words(), *_rules(), *_options()], "types": _types()}


def _words() -> list[Method]:
    found: list[Method] = [{"name": name, "desc": desc, "path": path} for name, path, desc in _WORDS]
    found.append(_method("lock", "close the lock", "lock", ":", "$state"))
    found.append({"name": "load", "desc": "a profile, or a file open for reading", "path": "load", "base": "$source"})
    run = _method("cmd_exec", "run a program outside the sandbox", "cmd/exec", "!", "$str")
    return [*found, {**run, "argc": -1, "args": "\x1f"}]


def _method(name: str, desc: str, path: str, op: str, argv: str, base: str = "") -> Method:
    found: Method = {"name": name, "desc": desc, "path": path}
    if base:
        found["base"] = base
    found["op"] = op
    if argv:
        found |= {"argv": argv, "argc": 1}
    return found


def _rules() -> list[Method]:
    found = [
        _method("enable", "switch categories on or off", "sandbox", ":", "$bool", "$switches"),
        _method("enabled", "are the categories on?  ENOENT: no", "sandbox", "?", "", "$switches"),
        _method("default", "what happens where no rule matches", "default", ":", "$action", "$categories"),
    ]
    for action in actions.BY_NAME:
        for verb, op, what in (("add", "+", "add"), ("remove", "-", "take the last such away"), ("clear", "^", "all")):
            desc = f"rules that {action}: {what}"
            found.append(_method(f"{action}_{verb}", desc, action, op, "$pattern", "$categories"))
    return found


def _options() -> list[Method]:
    found = []
    for name, (kind, _, support, when, why) in options.OPTIONS.items():
        if when == options.LIVE and support != options.NO:
            short = name.removeprefix("trace/").replace("/", "_")
            desc = f"set {name}" + (f" ({why})" if why else "")
            found.append(_method(short, desc, name, ":", _TYPES.get(kind, "$str")))
    return found


def _types() -> list[dict[str, object]]:
    switches = sorted(n for n in categories.ALL if n in categories.BUILT and not is_static(f"sandbox/{n}", ":"))
    rules = sorted((*categories.GLOB, "fs"))
    return [
        {"name": "$str", "desc": "text", "fmt": "utf-8"},
        {"name": "$bool", "desc": "a switch", "enum": ["on", "off"]},
        {"name": "$uint", "desc": "a whole number", "fmt": "int", "min": 0, "max": 2**64 - 1},
        {"name": "$byte", "desc": "a small whole number", "fmt": "int", "min": 0, "max": 255},
        {"name": "$octal", "desc": "a mode in octal digits, -1: none", "impl": "$str"},
        {"name": "$duration", "desc": "such as 10s or 1h30m", "impl": "$str"},
        {"name": "$size", "desc": "such as 4096 or 64M", "impl": "$str"},
        {"name": "$level", "desc": "a log level", "enum": list(values.LOG_LEVELS)},
        {"name": "$state", "desc": "a state of the lock", "enum": sorted(set(lock.NAMES.values()))},
        {"name": "$action", "desc": "what happens", "enum": list(actions.BY_NAME)},
        {"name": "$switches", "desc": "categories with a switch, several with commas", "enum": switches},
        {"name": "$categories", "desc": "categories with rules, several with commas", "enum": rules},
        {"name": "$sets", "desc": "names for several categories", "enum": sorted(categories.SETS)},
        {"name": "$pattern", "desc": "a path pattern, or an address of net categories", "impl": "$str"},
        {"name": "$source", "desc": "a profile's name, or a descriptor's number", "impl": "$str"},
    ]
