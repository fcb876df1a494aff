"""One configuration command at a time: syd's language (syd(2), syd(5), syd(7)), onto a Ruleset.

    name:value   set           list+element  append      list-element  take away the last such
    name!value   do            list^element  take away all such         `lock`, `l`, `reset`: words

Guarantees: a command is carried out whole or not at all; what is not understood raises EINVAL, what is not
built raises EOPNOTSUPP and names it, what is forbidden EPERM.  Nothing is accepted and then not done.

Variables in the value are expanded, never in the name.
"""

from __future__ import annotations

from errno import EACCES, EEXIST, EINVAL, ENOENT, EOPNOTSUPP, EPERM

from syd_pool.policy import categories, keep, options, requests, values
from syd_pool.policy.actions import ALLOW, BY_NAME, DENY
from syd_pool.policy.errors import BadRule
from syd_pool.policy.lock import CLOSED, DROP, NAMES, ON, may_follow
from syd_pool.policy.patterns import normal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from syd_pool.policy.rules import Ruleset

    T = TypeVar("T")

# A list name or category set that has a `-` of its own, and what follows it
_DASHED = (("all", "x"), ("bind", "try"), ("mkdir", "try"), ("mkfile", "try"), ("mkfifo", "try"),
           ("link", "try"), ("symlink", "try"))  # fmt: skip

_NOT_ALLOW = frozenset(BY_NAME) - {"allow"}
# default/<category> takes every action but for these (syd(2))
_DEFAULTS = {
    "block": _NOT_ALLOW,
    "force": _NOT_ALLOW,
    "segvguard": _NOT_ALLOW,
    "tpe": _NOT_ALLOW,
    "pid": frozenset(("warn", "filter", "stop", "abort", "kill", "exit")),
    "lock": frozenset(("kill", "deny", "warn")),
}

GUARD_WHY = {
    "force": "checksums of executables are not built yet",
    "mem": "memory limits are not built yet",
    "pid": "process limits are not built yet",
    "proxy": "the proxy is not built yet",
    "pty": "the terminal is not replaced yet",
    "crypt": "encryption is not built",
}
# The other lists: what of them is done
LISTS = {
    "allow/ioctl+": (options.PARTLY, "SECCOMP_IOCTL_NOTIF_* are refused always"),
    "deny/ioctl+": (options.YES, ""),
    "allow/lock/*+": (options.YES, ""),
    "allow/net/accept+": (options.YES, ""),
    "block+": (options.YES, ""),
    "deny/net/accept+": (options.YES, ""),
    "allow/net/link+": (options.PARTLY, "netlink families are not judged, so all are allowed"),
    "deny/net/link+": (options.NO, "netlink families are not judged yet"),
    "mask+": (options.YES, ""),
    "append+": (options.YES, ""),
    "passenv+": (options.YES, ""),
    "setenv!": (options.YES, ""),
    "unsetenv!": (options.YES, ""),
    "clearenv!": (options.YES, ""),
    "setuid+": (options.YES, ""),
    "setgid+": (options.YES, ""),
    "include": (options.YES, ""),
    "include_profile": (options.YES, ""),
}
_SPECIAL = ("!unnamed", "!secretmem")
_SPECIAL_PREFIXES = ("!memfd:", "!memfd-hugetlb:")

LEAST_TARGET = {"setuid": 11, "setgid": 14}  # syd(2): operator, uucp


def bad(line: str, why: str, remedy: str = "", errno: int = EINVAL) -> BadRule:
    """The error for a command: it is quoted, so that the user finds it."""
    return BadRule(errno, f"`{line}': {why}", remedy)


def unbuilt(line: str, why: str) -> BadRule:
    """The error for a command that is right but cannot be carried out."""
    return BadRule(EOPNOTSUPP, f"`{line}' is not supported: {why}")


def check_lock(rules: Ruleset, line: str) -> None:
    """Raise BadRule (EPERM) when the rules are locked."""
    if rules.lock in CLOSED:
        raise bad(line, "the rules are locked", f"give lock:{rules.lock} last", EPERM)


def apply(rules: Ruleset, line: str, source: str = "") -> None:
    """Carry out one command.  Raises BadRule."""
    try:
        check_lock(rules, line)
        if rules.lock == DROP:
            _check_drop(rules, line)
        carry_out(rules, line)
    except BadRule as error:
        raise error.at(source) from None


def _check_drop(rules: Ruleset, line: str) -> None:
    """After lock:drop only what tightens is taken, from files and options too.  Raises BadRule."""
    from syd_pool.policy.live import tightens

    name, operator, text = split(line)
    if not tightens(rules, line, name, operator, _expand(rules, text)):  # by what it will be, not by `$NAME`
        raise bad(line, "does not tighten the rules, and the lock is `drop'", "give lock:drop last", EPERM)


def carry_out(rules: Ruleset, line: str) -> None:
    """As apply(), whatever the lock says."""
    if "\0" in line or "\n" in line:
        raise bad(line.replace("\0", "\\0"), "a command is one line without NUL bytes")
    word = _WORDS.get(line)
    if word is not None:
        word(rules, line)
        return
    if line.startswith("include_profile "):
        from syd_pool.policy.files import profile

        profile(rules, line[len("include_profile ") :].strip())
        return
    name, operator, text = split(line)
    if operator == "?":
        raise bad(line, "queries are for the run-time interface")
    first, slash, rest = name.partition("/")
    if slash and first in BY_NAME and operator in "+-^":
        _rule(rules, line, BY_NAME[first], rest, operator, text)
    elif slash and first == "sandbox" and operator == ":":
        _switch(rules, line, rest, text)
    elif slash and first == "default" and operator == ":":
        _default(rules, line, rest, text)
    elif name in _COMMANDS:
        _COMMANDS[name](rules, line, operator, text)
    elif operator == ":":
        _option(rules, line, name, text)
    elif name in options.UNBUILT_LISTS and operator in "+-^!":
        _unbuilt_list(rules, line, name, operator, text)
    else:
        raise bad(line, *_unknown(name, operator))


def _unknown(name: str, operator: str) -> tuple[str, str]:
    if name == "include" or name.startswith("include "):
        return "only a configuration file can include a file", "use -P FILE"
    if name in options.OPTIONS:
        return f"`{name}' takes no `{operator}'", f"write {name}:VALUE"
    return "no such command", "see syd(2) for the commands"


def split(line: str) -> tuple[str, str, str]:
    """name, operator and value; a command without an operator has two empty ones."""
    for i, c in enumerate(line):
        if c in ":+^!?" or (c == "-" and not _dash_of_name(line, i)):
            return line[:i], c, line[i + 1 :]
    return line, "", ""


def _dash_of_name(line: str, i: int) -> bool:
    """Does the `-` at i belong to `all-x` or `bind-try`?"""
    for before, after in _DASHED:
        end = i + 1 + len(after)
        if line.endswith(before, 0, i) and line.startswith(after, i + 1) and line[end : end + 1] in "+-^:,!?":
            if i == len(before) or line[i - len(before) - 1] in "/,":
                return True
    return False


def _expand(rules: Ruleset, text: str) -> str:
    if rules.live:  # never at run time (syd(2), config/expand)
        return text
    if "$" in text or text[:1] == "~" or ("`" in text and rules.option("config/expand")):
        from syd_pool.policy.expand import expand

        return expand(rules, text)
    return text


# --- switches and defaults -----------------------------------------------------------------------


def _categories(line: str, names: str, also: tuple[str, ...] = ()) -> list[str]:
    """The categories of a comma list.  Raises BadRule."""
    found: list[str] = []
    for name in names.split(","):
        expanded = [name] if name in also else categories.expand(name)
        if expanded is None:
            raise bad(line, f"`{name}' is no category", f"categories are {', '.join(sorted(categories.ALL))}")
        found += expanded
    return found


def _switch(rules: Ruleset, line: str, names: str, text: str) -> None:
    on = _read(line, values.boolean, _expand(rules, text))
    chosen = _categories(line, names)
    for category in chosen:
        if category in categories.LISTS:
            raise bad(line, f"`{category}' has no switch", "use sandbox/net")
        if on and category in categories.GUARDS and category not in categories.BUILT:
            raise unbuilt(line, GUARD_WHY[category])
    for category in chosen:
        rules.switch(category, on)


def _default(rules: Ruleset, line: str, names: str, text: str) -> None:
    text = _expand(rules, text)
    chosen = _categories(line, names, categories.ACTION_ONLY)
    for category in chosen:
        allowed = _DEFAULTS.get(category, BY_NAME)
        if text not in allowed or category in categories.LISTS:
            raise bad(
                line,
                f"the default of `{category}' cannot be `{text}'",
                f"one of {', '.join(sorted(allowed))}",
            )
    for category in chosen:
        rules.set_default(category, BY_NAME[text])


def _read(line: str, reader: Callable[[str], T], text: str) -> T:
    try:
        return reader(text)
    except ValueError as error:
        raise bad(line, str(error)) from None


# --- rules ---------------------------------------------------------------------------------------


def _rule(rules: Ruleset, line: str, action: int, names: str, operator: str, text: str) -> None:
    """<action>/<categories> and one of + - ^"""
    text = _expand(rules, text)
    if not text:
        raise bad(line, "a rule needs a pattern", "for instance allow/read+/usr/***")
    if names.startswith("lock/"):
        _lock_rule(rules, line, action, names, operator, text)
    elif names == "ioctl":
        _ioctl_rule(rules, line, action, operator, text)
    elif names == "fs":
        _fs_rule(rules, line, action, operator, text)
    else:
        chosen = _categories(line, names)
        if any(category not in GLOB_AND_LISTS for category in chosen):
            raise bad(line, f"`{names}' has no rules of this kind")
        _path_rule(rules, line, action, chosen, operator, text)


GLOB_AND_LISTS = frozenset((*categories.GLOB, *categories.LISTS))


def _path_rule(rules: Ruleset, line: str, action: int, chosen: list[str], operator: str, text: str) -> None:
    only_net = all(category.startswith("net/") for category in chosen)
    if "net/link" in chosen:
        _link_rule(line, action, chosen, operator, text)
        return
    text = _unhex(text)
    if "net/accept" in chosen and (text[0] in "/@" or text in _SPECIAL) and action != ALLOW:
        raise unbuilt(line, "of accepted connections only IP addresses are judged")
    if text[0] in "/@" or text in _SPECIAL or text.startswith(_SPECIAL_PREFIXES):
        pattern = text.encode("utf-8", "surrogateescape")
        if text[0] == "/":
            pattern = normal(pattern)
        for category in chosen:
            if operator == "+":
                rules.add(action, category, pattern)
            else:
                rules.remove(action, category, pattern, operator == "^")
        return
    if not only_net:
        raise bad(line, "a pattern begins with a slash", "write an absolute path")
    from syd_pool.policy.addresses import check

    _read(line, check, text)
    _edit(rules.addresses, [(action, category, text) for category in chosen], operator)
    for category in chosen:
        rules.refresh(category)


def _unhex(text: str) -> str:
    """A pattern whose bytes are written in hexadecimal, as the log writes what is no text; else `text`."""
    if text[:2] not in ("2f", "2F", "40", "21") or len(text) % 2 or text.strip("0123456789abcdefABCDEF"):
        return text
    return bytes.fromhex(text).decode("utf-8", "surrogateescape")


def _edit(rules: list[T], elements: list[T], operator: str) -> None:
    """Append, take away the last equal one, or all equal ones."""
    for element in elements:
        if operator == "+":
            rules.append(element)
        elif operator == "^":
            rules[:] = [rule for rule in rules if rule != element]
        else:
            for i in range(len(rules) - 1, -1, -1):
                if rules[i] == element:
                    del rules[i]
                    break


def _link_rule(line: str, action: int, chosen: list[str], operator: str, text: str) -> None:
    """Families of netlink sockets: no guard of ours stands before them."""
    from syd_pool.policy.addresses import NETLINK

    if chosen != ["net/link"] or any(name not in NETLINK for name in text.split(",")):
        raise bad(line, "not a list of netlink families", f"families are {', '.join(NETLINK)}")
    if action > ALLOW and operator == "+":
        raise unbuilt(line, LISTS["deny/net/link+"][1])


def _lock_rule(rules: Ruleset, line: str, action: int, names: str, operator: str, text: str) -> None:
    """Landlock rules only ever allow, paths or ports, and say nothing while sandbox/lock is off."""
    rights = categories.expand_lock(names)
    if rights is None:
        raise bad(line, f"`{names}' is no right of Landlock", f"rights are {', '.join(categories.LOCK_RIGHTS)}")
    if action != ALLOW:
        raise bad(line, "lock rules can only allow")
    if set(rights) <= {"bind", "connect"} and (text[0] != "/" or "bind" not in rights):
        from syd_pool.policy.addresses import ports

        _read(line, ports, text)
    else:  # `all` and `net` with a path: ports have nothing to do with it
        rights = [right for right in rights if right != "connect"]
        text = _lock_path(line, text)
    _edit(rules.landlock, [(right, text) for right in rights], operator)


def _lock_path(line: str, text: str) -> str:
    """A path that a lock rule is about, absolute; where it leads is looked up at the start.  Raises BadRule."""
    if ".." in text.split("/"):
        raise bad(line, "the path has a `..'", "name it by its canonical path", EACCES)
    import os

    try:
        return "/" + os.path.normpath(os.path.join(os.getcwd() if text[0] != "/" else "/", text)).lstrip("/")
    except OSError as error:
        raise bad(line, "there is no current directory to begin at", errno=error.errno or ENOENT) from None


def _ioctl_rule(rules: Ruleset, line: str, action: int, operator: str, text: str) -> None:
    """Requests of ioctl(2), by number or name: only allowed or denied."""
    if action not in (ALLOW, DENY):
        raise bad(line, "ioctl requests are allowed or denied", "the action is default/ioctl's")
    try:
        numbers = requests.read(text, action)
    except requests.Unliftable as error:
        if action == ALLOW or operator != "+":
            raise unbuilt(line, str(error)) from None
        numbers = []  # denied it is
    except ValueError as error:
        raise bad(line, str(error)) from None
    _edit(rules.requests, [(action, number) for number in numbers], operator)
    rules.refresh("ioctl")


def _fs_rule(rules: Ruleset, line: str, action: int, operator: str, text: str) -> None:
    from syd_pool.policy.filesystems import lookup

    elements = text.split(",")
    for element in elements:
        _read(line, lookup, element)
    _edit(rules.filesystems, [(action, element) for element in elements], operator)
    rules.refresh("fs")


def _unbuilt_list(rules: Ruleset, line: str, name: str, operator: str, text: str) -> None:
    """A list that is always empty: taking away is done, adding is refused."""
    if operator == "+":
        if not _expand(rules, text):
            raise bad(line, "an element is missing")
        raise unbuilt(line, options.UNBUILT_LISTS[name])
    if operator == "!":
        raise bad(line, "no such command", "see syd(2) for the commands")
    if operator == "-" and not text:
        raise bad(line, "an element is missing")


# --- block ---------------------------------------------------------------------------------------


def _block(rules: Ruleset, line: str, operator: str, text: str) -> None:
    """block+NETWORK, block-NETWORK, block^, block!"""
    from syd_pool.policy import blocks

    text = _expand(rules, text)
    if operator not in "+-^!" or not operator or bool(text) == (operator in "^!"):
        raise bad(line, "write block+NETWORK, block-NETWORK, block^ or block!")
    if operator == "^":
        rules.blocks.clear()
    elif operator == "!":
        rules.blocks[:] = blocks.Blocked(rules.blocks).simplified()
    else:
        rules.blocks.append(_read(line, lambda network: blocks.read(network, operator == "+"), text))
    rules.refresh("block")


# --- mask and append -----------------------------------------------------------------------------


def _mask(rules: Ruleset, line: str, operator: str, text: str) -> None:
    """mask+PATTERN[:TARGET[:DIRECTORY]], mask-PATTERN, mask^"""
    text = _expand(rules, text)
    if operator not in "+-^" or not operator or bool(text) == (operator == "^"):
        raise bad(line, "write mask+PATTERN[:TARGET[:DIRECTORY]], mask-PATTERN or mask^")
    if operator == "^":
        rules.masks.clear()
    elif operator == "+":
        rules.masks.append(_read(line, keep.read_mask, text))
    else:
        pattern = _read(line, keep.read_mask, text)[0]
        _edit(rules.masks, [mask for mask in rules.masks if mask[0] == pattern][-1:], "-")
    rules.refresh("mask")


def _append(rules: Ruleset, line: str, operator: str, text: str) -> None:
    """append+PATTERN, append-PATTERN, append^PATTERN"""
    if operator not in "+-^" or not operator:
        raise bad(line, "write append+PATTERN, append-PATTERN or append^PATTERN")
    _edit(rules.appends, [_read(line, keep.read_append, _expand(rules, text))], operator)
    rules.refresh("append")


# --- options -------------------------------------------------------------------------------------


def _option(rules: Ruleset, line: str, name: str, text: str) -> None:
    names = _names(name)
    for one in names:
        if one not in options.OPTIONS:
            raise bad(line, f"no such option `{one}'", "see syd(2) for the options")
    text = _expand(rules, text)
    read: dict[str, values.Value] = {}
    for one in names:
        try:
            read[one] = options.read(one, text)
        except ValueError as error:
            raise bad(line, str(error)) from None
        why = options.refusal(one, read[one])
        if why:
            raise unbuilt(line, why)
    rules.set_options(read)


def _names(name: str) -> list[str]:
    """The options that a name stands for: `unshare/user,pid` is two."""
    for group in options.GROUPS:
        if name.startswith(group):
            return [group + one for one in name[len(group) :].split(",")]
    return [options.ALIASES.get(name, name)]


def _lock(rules: Ruleset, line: str, operator: str, text: str) -> None:
    if operator != ":":
        raise bad(line, "the lock is set with lock:STATE")
    text = _expand(rules, text)
    if text not in NAMES:
        raise bad(line, "the lock is on, off, exec, ipc, drop or read")
    _set_lock(rules, line, NAMES[text])


def _set_lock(rules: Ruleset, line: str, state: str) -> None:
    if not may_follow(rules.lock, state):
        raise bad(line, f"the lock is `{rules.lock}' already and cannot become `{state}'", errno=EPERM)
    rules.lock = state


# --- environment ---------------------------------------------------------------------------------


def _variable(line: str, name: str) -> bytes:
    """A variable's name that may be edited.  Raises BadRule."""
    if not name or "=" in name:
        raise bad(line, "the name of a variable is missing or holds a `='")
    if name.startswith("SYD_"):
        raise bad(line, "SYD_ variables never reach the command", "choose another name", EPERM)
    return name.encode("utf-8", "surrogateescape")


def _setenv(rules: Ruleset, line: str, operator: str, text: str) -> None:
    name, equals, value = _expand(rules, text).partition("=")
    if operator != "!" or not equals:
        raise bad(line, "write setenv!NAME=VALUE")
    rules.env.append(("set", _variable(line, name), value.encode("utf-8", "surrogateescape")))


def _unsetenv(rules: Ruleset, line: str, operator: str, text: str) -> None:
    if operator != "!":
        raise bad(line, "write unsetenv!NAME")
    if text.startswith("SYD_"):
        text = text.partition("=")[0]
    rules.env.append(("unset", _variable(line, text), b""))


def _clearenv(rules: Ruleset, line: str, operator: str, text: str) -> None:
    if operator != "!" or text:
        raise bad(line, "write clearenv!")
    rules.env.append(("clear", b"", b""))


def _passenv(rules: Ruleset, line: str, operator: str, text: str) -> None:
    """Variables that are passed on although they look dangerous (environment.py)."""
    if operator not in "+-^" or not operator or not text:
        raise bad(line, "write passenv+PATTERN")
    if text.startswith("SYD_"):
        raise bad(line, "SYD_ variables never reach the command", errno=EPERM)
    _edit(rules.passenv, [text], operator)


# --- SafeSetID -----------------------------------------------------------------------------------


def _transit(rules: Ruleset, line: str, operator: str, text: str) -> None:
    """setuid+FROM:TO and setgid+FROM:TO: a change of identity that is allowed."""
    name = line[:6]
    transits = rules.transits[name]
    text = _expand(rules, text)
    source, colon, target = text.partition(":")
    if operator == "^" and not text:
        transits.clear()
        return
    if operator not in "+-^" or not operator or bool(colon) == (operator == "^"):
        raise bad(line, f"write {name}+FROM:TO, {name}-FROM:TO, {name}^FROM or {name}^")
    start = _identity(line, name, source)
    if operator == "^":
        transits.pop(start, None)
        return
    end = _identity(line, name, target)
    if operator == "-":
        if transits.get(start) == end:
            del transits[start]
        return
    if start == end:
        raise bad(line, "source and target are the same")
    if end < LEAST_TARGET[name]:
        raise bad(line, f"the target is below {LEAST_TARGET[name]}", "choose an ordinary account", EACCES)
    if start in transits:
        raise bad(line, f"{start} has a target already", f"take it away with {name}^{start}", EEXIST)
    transits[start] = end
    rules.set_options({f"trace/allow_safe_{name}": True})


def _identity(line: str, name: str, text: str) -> int:
    """An id by number or name.  Raises BadRule."""
    if text.isascii() and text.isdigit() and len(text) < 11 and int(text) < 2**32 - 1:
        return int(text)
    try:
        if name == "setuid":
            import pwd

            return pwd.getpwnam(text).pw_uid
        import grp

        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise bad(line, f"`{text}' is neither a number nor a known name") from None


# --- words ---------------------------------------------------------------------------------------


def _run_time_only(_: Ruleset, line: str) -> None:
    raise bad(line, "only the run-time interface has this command")


def _show(rules: Ruleset, line: str) -> None:
    """stat, dump: the rules as they are here, on standard error."""
    from syd_pool.policy import describe

    describe.write((describe.as_json if line == "dump" else describe.as_text)(describe.state(rules)))


def _command(rules: Ruleset, line: str, operator: str, _: str) -> None:
    if operator != "!":
        raise bad(line, "write cmd/exec!COMMAND")
    _run_time_only(rules, line)


_WORDS: dict[str, Callable[[Ruleset, str], None]] = {
    "lock": lambda rules, line: _set_lock(rules, line, ON),
    "l": lambda rules, line: _set_lock(rules, line, ON),
    "reset": lambda rules, _: rules.reset(),
    "stat": _show,
    "dump": _show,
    "panic": _run_time_only,
    "ghost": _run_time_only,
}

_COMMANDS: dict[str, Callable[[Ruleset, str, str, str], None]] = {
    "lock": _lock,
    "setenv": _setenv,
    "unsetenv": _unsetenv,
    "clearenv": _clearenv,
    "passenv": _passenv,
    "setuid": _transit,
    "setgid": _transit,
    "cmd/exec": _command,
    "mask": _mask,
    "block": _block,
    "append": _append,
}
