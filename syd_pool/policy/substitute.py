"""config/expand:SECONDS: commands and the shell's own expansions in the value of a command (syd(2), config/expand).

    text --pieces()--> literal | shell piece --script()--> `policy.shell` (who runs us) --> one line of text

A shell piece is $(COMMAND), `COMMAND`, $((SUM)) or a ${...} that is more than a name with a default.  The rest is
expanded as without a shell, and every piece stands by itself: no other quoting, splitting or pattern is done.
A command that fails or prints nothing is an error: `allow/read+$(false)/***` must not become `allow/read+/***`.
"""

from __future__ import annotations

import os
from errno import EINVAL, EOPNOTSUPP, ETIMEDOUT

import syd_pool.policy as policy
from syd_pool.policy.errors import BadRule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from syd_pool.policy.rules import Ruleset

SHELL = b"/bin/sh"
MOST = 1 << 16  # bytes that an expansion may become
TOO_MUCH, TIMED_OUT = -1, 124  # statuses of policy.shell that are not the shell's own
_NOTHING = 113  # the script's own word for a command that printed nothing

_CLOSERS = {"$(": ")", "${": "}", "`": "`"}


def begins(text: str, at: int) -> bool:
    """Does a piece for the shell begin here?"""
    if text[at] == "`" or text.startswith("$(", at):
        return True
    if not text.startswith("${", at):
        return False
    close = text.find("}", at)
    name, has_default, default = text[at + 2 : close].partition(":-")
    return close < 0 or not _is_name(name) or (bool(has_default) and ("$" in default or "`" in default))


def _is_name(text: str) -> bool:
    return text.replace("_", "a").isalnum() and text.isascii()


def end_of(text: str, at: int) -> int:
    """Where the piece that begins at `at` ends.  Raises BadRule when it is not closed."""
    opener = "`" if text[at] == "`" else text[at : at + 2]
    end = _close(text, at + len(opener), _CLOSERS[opener])
    if end < 0:
        raise BadRule(EINVAL, f"`{text[at:]}' is not closed", f"write a `{_CLOSERS[opener]}'")
    return end


def _close(text: str, at: int, closer: str) -> int:
    """Behind the `closer` of what has been opened before `at`; -1 if there is none."""
    while 0 <= at < len(text):
        c = text[at]
        if c == closer:
            return at + 1
        if c == "\\":
            at += 2
        elif c == "'" and closer != '"':
            at = text.find("'", at + 1) + 1 or -1
        elif c == '"':
            at = _close(text, at + 1, '"')
        elif c == "(" and closer == ")":
            at = _close(text, at + 1, ")")
        elif c == "`" or text[at : at + 2] in _CLOSERS:
            opener = "`" if c == "`" else text[at : at + 2]
            at = _close(text, at + len(opener), _CLOSERS[opener])
        else:
            at += 1
    return -1


def script(pieces: list[tuple[bool, str]]) -> bytes:
    """A program for sh(1) that prints the pieces, (for the shell, text) each, one behind the other."""
    lines = ["set -fu", "x="]
    for shell, text in pieces:
        if not shell:
            lines.append("x=$x'" + text.replace("'", "'\\''") + "'")
            continue
        lines.append(f"p={text} || exit")
        if not text.startswith(("${", "$((")):
            lines.append(f'[ "$p" ] || exit {_NOTHING}')
        lines.append("x=$x$p")
    lines.append('printf %s "$x"')
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def run(
    rules: Ruleset, shown: str, pieces: list[tuple[bool, str]], seconds: float, computed: dict[str, Callable[[], str]]
) -> str:
    """What the shell makes of the pieces of a text.

    shown     the text, for errors
    computed  variables that syd(5) sets for configurations
    Raises BadRule.
    """
    if policy.shell is None:
        raise BadRule(EOPNOTSUPP, f"`{shown}' needs a shell, and none is run here", "write config/expand:0 before it")
    env = {name.encode(): os.fsencode(value()) for name, value in computed.items()}
    env = rules.environment({**os.environb, **env})
    status, output = policy.shell(script(pieces), env, seconds)
    if status == TIMED_OUT:
        raise BadRule(ETIMEDOUT, f"`{shown}' took longer than {seconds:g} s", "give config/expand more time")
    if status == TOO_MUCH or len(output) > MOST:
        raise BadRule(EINVAL, f"`{shown}' became more than {MOST >> 10} KiB")
    if status == _NOTHING:
        raise BadRule(EINVAL, f"a command in `{shown}' printed nothing", "let it print a name, or fail")
    if status:
        raise BadRule(EINVAL, f"`{shown}' failed with status {status}", "try it in sh; nothing can be written there")
    try:
        text = output.decode()
    except UnicodeDecodeError:
        raise BadRule(EINVAL, f"`{shown}' became what is not UTF-8") from None
    if "\n" in text or "\0" in text:
        raise BadRule(EINVAL, f"`{shown}' became more than one line")
    return text
