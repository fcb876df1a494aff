"""Commands while the command runs: which may still be given, what tightens, what a query answers (syd(2)).

    text --edit--> parse.py --> Ruleset          in the tracer, which answers whoever asked
    text --replay------------> Ruleset           in every worker, for what the tracer has carried out

Guarantees: what must be chosen at the start is EBUSY; in lock:drop what does not tighten is EPERM; an edit
is carried out whole or not at all, and a replay of the same texts leads to the same rules.  Nothing is
expanded at run time: a `$` is a dollar sign.
"""

from __future__ import annotations

from errno import EBUSY, EPERM

from syd_pool.policy import categories, options, values
from syd_pool.policy.actions import ALLOW, BY_NAME, DENY, WARN
from syd_pool.policy.lock import DROP
from syd_pool.policy.parse import bad, carry_out, split
from syd_pool.policy.patterns import literal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from syd_pool.policy.rules import Ruleset

# syd(2), static: lists and commands that are chosen at the start.  Of options their table says it.
_STATIC = (
    "include include_profile setenv unsetenv clearenv passenv bind bind-try mkdir mkdir-try mkfile mkfile-try "
    "mkfifo mkfifo-try link link-try symlink symlink-try crypt setuid setgid"
).split()
_STATIC_GROUPS = ("unshare/", "rlimit/", "root/", "time/", "pty/", "crypt/", "proxy/", "ipc/")
_STATIC_GUARDS = frozenset(("force", "lock", "mem", "proxy", "pty", "crypt"))
# For lock:drop: the new value must not be below, or above, the old one
_BOUND = "\0bound "  # a command holds no NUL byte
_RAISED = ("segvguard/expiry", "segvguard/suspension")
_LOWERED = ("segvguard/maxcrashes", "mem/max", "mem/vm_max", "pid/max")
_UNLIMITED = ("mem/max", "mem/vm_max", "pid/max")  # where 0 is no limit
_SHOWN = ("sandbox/", "unshare/")  # what can be asked with `?`


def edit(rules: Ruleset, line: str) -> None:
    """Carry out one command of a running sandbox; the lock itself is asked by who calls.  Raises BadRule."""
    name, operator, text = split(line)
    if is_static(name, operator):
        raise bad(line, "must be chosen before the command is started", "give it with -m", EBUSY)
    if rules.lock == DROP and not tightens(rules, line, name, operator, text):
        raise bad(line, "does not tighten the rules, and the lock is `drop'", errno=EPERM)
    replay(rules, line)


def replay(rules: Ruleset, line: str) -> None:
    """Carry out a command that is known to be allowed.  Raises BadRule."""
    if line == "reset":
        reset(rules)
        return
    if line.startswith(_BOUND):
        allow_bound(rules, bytes.fromhex(line[len(_BOUND) :]))
        return
    before, rules.live = rules.live, True
    try:
        carry_out(rules, line)
    finally:
        rules.live = before


def reset(rules: Ruleset) -> None:
    """Back to the defaults, but for the lock and for what only the start could choose (syd(2), reset)."""
    kept = {name: value for name, value in rules.values.items() if is_static(name, ":")}
    env, passenv, transits, landlock = rules.env, rules.passenv, rules.transits, rules.landlock
    guards, level = rules.enabled & _STATIC_GUARDS, rules.defaults["lock"]
    rules.reset()
    rules.enabled |= guards
    rules.defaults["lock"] = level
    rules.set_options(kept)
    rules.env, rules.passenv, rules.transits, rules.landlock = env, passenv, transits, landlock


def bound(text: bytes) -> str:
    """The line of the journal for allow_bound(): no command that anybody can give."""
    return _BOUND + text.hex()


def allow_bound(rules: Ruleset, text: bytes) -> None:
    """trace/allow_safe_bind: what was bound may be connected to, exactly that, whatever is in its name."""
    if text[:1] not in (b"/", b"@"):
        rules.addresses.append((ALLOW, "net/connect", text.decode("ascii")))
        rules.refresh("net/connect")
    else:
        rules.add(ALLOW, "net/connect", literal(text))


def query(rules: Ruleset, line: str) -> bool:
    """`sandbox/read?`, `unshare/user?`: is all of it on?  Raises BadRule."""
    name, operator, text = split(line)
    if operator != "?" or text or not name.startswith(_SHOWN):
        raise bad(line, "cannot be asked", "ask sandbox/CATEGORY? or unshare/NAMESPACE?")
    if rules.lock == DROP:
        raise bad(line, "the lock is `drop': the rules cannot be seen", errno=EPERM)
    kind, _, names = name.partition("/")
    if kind == "unshare":
        chosen = [f"unshare/{one}" for one in names.split(",")]
        if any(one not in options.OPTIONS for one in chosen):
            raise bad(line, f"no such option `{name}'")
        return all(rules.option(one) for one in chosen)
    found = categories.expand(names)
    if found is None or any(one in categories.LISTS for one in found):
        raise bad(line, f"`{names}' is no category")
    return all(one in rules.enabled for one in found)


def is_static(name: str, operator: str) -> bool:
    """Is this chosen at the start, once and for all?"""
    if name in options.OPTIONS:
        return options.OPTIONS[name][3] == options.START
    if name in _STATIC or name.startswith((*_STATIC_GROUPS, "include ", "include_profile ")):
        return True
    first, _, rest = name.partition("/")
    if first == "sandbox":
        return operator == ":" and any(one in _STATIC_GUARDS for one in rest.split(","))
    if first == "default":
        return "lock" in rest.split(",")
    if first in BY_NAME:
        return rest.startswith(("lock/", "net/link")) or (name == "deny/ioctl" and operator in "-^")
    return False


# --- lock:drop ------------------------------------------------------------------------------------


def tightens(rules: Ruleset, line: str, name: str, operator: str, text: str) -> bool:
    """Does the command take rights away, or at least give none (syd(2), drop)?

    What cannot be read tightens nothing it could loosen: parse.py says EINVAL.
    """
    first, _, rest = name.partition("/")
    if first in BY_NAME and operator in "+-^" and operator:
        return _rule_tightens(rules, BY_NAME[first], rest, operator)
    if operator == ":" and first == "sandbox":
        return _read(values.boolean, text) is not False
    if operator == ":" and first == "default":
        return _default_tightens(rules, rest, text)
    if operator == ":" and name in options.OPTIONS:
        return _option_tightens(rules, name, text)
    if name in ("block", "force"):
        return operator == "+" or line == "block!"
    if name in ("append", "mask", "reset", "cmd/exec"):
        return False
    return name == "lock" or line == "l" or not is_static(name, operator)


def _read(reader: Callable[[str], bool], text: str) -> bool | None:
    try:
        return reader(text)
    except ValueError:
        return None


def _rule_tightens(rules: Ruleset, action: int, names: str, operator: str) -> bool:
    """Rules that deny may come, rules that allow may go.

    `filter` and `abort` deny too: syd lets them go, we only where there are none, which is no change.
    """
    if action >= DENY:
        return operator == "+"
    if operator == "+":
        return False
    return action in (ALLOW, WARN) or not rules.has_rules(action, categories.expand(names) or [names])


def _default_tightens(rules: Ruleset, names: str, text: str) -> bool:
    if text not in BY_NAME:
        return True
    found = [one for name in names.split(",") for one in (categories.expand(name) or [name])]
    return all(BY_NAME[text] >= rules.defaults.get(one, DENY) for one in found)


def _option_tightens(rules: Ruleset, name: str, text: str) -> bool:
    try:
        new = options.read(name, text)
    except ValueError:
        return True
    old = rules.option(name)
    rest = name.partition("/")[2]
    if name == "trace/force_umask":
        return isinstance(new, int) and isinstance(old, int) and new >= 0 and (old < 0 or new & old == old)
    if name.startswith("trace/allow_"):
        return not new
    if name.startswith(("trace/", "unshare/")) or rest == "root_owned":
        return bool(new)
    if name == "config/expand":
        return not new
    if not isinstance(new, int | float) or not isinstance(old, int | float):
        return False
    if name in _RAISED:
        return new >= old
    if name in _LOWERED:
        return (not old if name in _UNLIMITED else False) or (0 < new <= old) or new == old
    return False
