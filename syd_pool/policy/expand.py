"""Environment variables and `~` in the value of a command, as syd(5) describes them.

    $NAME  ${NAME}  ${NAME:-default}  $$ (a dollar)   ~  ~/...   (at the start only)

With config/expand:SECONDS also $(COMMAND), `COMMAND` and what else a shell can do: substitute.py.

A variable that is not set and has no default is an error: an empty one could turn `allow/read+$DIR/***` into
`allow/read+/***`.  The default is taken as it is written.  What does not look like a variable stays.
"""

from __future__ import annotations

import os
from errno import EINVAL

from syd_pool.policy.errors import BadRule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.policy.rules import Ruleset

_NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")


def expand(rules: Ruleset, text: str) -> str:
    """`text` with its variables replaced.  Raises BadRule when one is not set."""
    seconds = rules.option("config/expand")
    if isinstance(seconds, float) and seconds and ("$" in text or "`" in text):
        text = _with_shell(rules, text, seconds)
    elif "$" in text:
        text = _variables(rules, text)
    elif text[:1] != "~":
        return text
    if text == "~" or text.startswith("~/"):
        home = lookup(rules, "HOME")
        if home is not None:
            text = home + text[1:]
    return text


def _with_shell(rules: Ruleset, text: str, seconds: float) -> str:
    """As _variables(), with a shell for the pieces that are more."""
    from syd_pool.policy import substitute

    pieces: list[tuple[bool, str]] = []
    at = start = 0
    while at < len(text):
        if text[at] not in "$`":
            at += 1
        elif substitute.begins(text, at):
            pieces.append((False, _variables(rules, text[start:at])))
            start, at = at, substitute.end_of(text, at)
            pieces.append((True, text[start:at]))
            start = at
        else:
            at += 2 if text.startswith("$$", at) else 1
    pieces.append((False, _variables(rules, text[start:])))
    if len(pieces) == 1:
        return pieces[0][1]
    return substitute.run(rules, text, pieces, seconds, _COMPUTED)


def _variables(rules: Ruleset, text: str) -> str:
    out, at = [], 0
    while True:
        dollar = text.find("$", at)
        if dollar < 0:
            out.append(text[at:])
            return "".join(out)
        out.append(text[at:dollar])
        value, at = _variable(rules, text, dollar)
        out.append(value)


def _variable(rules: Ruleset, text: str, dollar: int) -> tuple[str, int]:
    """What stands for the text from the dollar on, and where the rest begins."""
    follows = text[dollar + 1 : dollar + 2]
    if follows == "$":
        return "$", dollar + 2
    if follows == "{":
        close = text.find("}", dollar)
        if close < 0:
            return "${", dollar + 2
        name, has_default, default = text[dollar + 2 : close].partition(":-")
        value = lookup(rules, name)
        if value is None and has_default:
            value = default
        return _must(name, value), close + 1
    end = dollar + 1
    while end < len(text) and text[end] in _NAME:
        end += 1
    if end == dollar + 1:
        return "$", end
    name = text[dollar + 1 : end]
    return _must(name, lookup(rules, name)), end


def _must(name: str, value: str | None) -> str:
    if value is None:
        raise BadRule(EINVAL, f"environment variable `{name}' is not set", f"set it or write ${{{name}:-default}}")
    return value


def lookup(rules: Ruleset, name: str) -> str | None:
    """The variable's value after the setenv! so far; the SYD_ ones of syd(5) are computed."""
    key = os.fsencode(name)
    for operation, edited, value in reversed(rules.env):
        if operation == "set" and edited == key:
            return os.fsdecode(value)
        if (operation == "unset" and edited == key) or (operation == "clear" and not name.startswith("SYD_")):
            return None
    found = os.environ.get(name)
    if name in _COMPUTED:
        found = _COMPUTED[name]()
    if found is None:
        return None
    try:
        found.encode()
    except UnicodeEncodeError:
        raise BadRule(EINVAL, f"environment variable `{name}' is not UTF-8", "set it to UTF-8 text") from None
    return found


def _user(index: int, unknown: str) -> str:
    import pwd

    try:
        return str(pwd.getpwuid(os.getuid())[index])
    except KeyError:
        return unknown


def _pwd() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/proc/self/fdinfo"


def _tty() -> str:
    """The controlling terminal, found as one of the standard streams."""
    for fd in (0, 1, 2):
        try:
            return os.ttyname(fd)
        except OSError:
            continue
    return "/dev/null"


_COMPUTED = {
    "SYD_UID": lambda: str(os.getuid()),
    "SYD_GID": lambda: str(os.getgid()),
    "SYD_USER": lambda: _user(0, "nobody"),
    "SYD_HOME": lambda: _user(5, "/proc/self/fdinfo"),
    "SYD_PWD": _pwd,
    "SYD_TTY": _tty,
}
