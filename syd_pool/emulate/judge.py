"""From a verdict of the rules to what happens: log, signal, errno.

The nine actions are those of syd(2); what each does is in ACT below.
"""

from __future__ import annotations

import os

from syd_pool.linux.libc import pidfd_open, pidfd_send_signal
from syd_pool.linux.numbers import NAME
from syd_pool.policy import actions
from syd_pool.policy.patterns import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

SIGABRT, SIGKILL, SIGSTOP = 6, 9, 19
_SIGNALS = {actions.ABORT: SIGABRT, actions.KILL: SIGKILL, actions.STOP: SIGSTOP}


def judge(call: Call, category: str, path: bytes) -> None:
    """Ask the rules of the run whether `category` is allowed on `path`.

    Raises OSError with the category's errno when it is not.  The hot case, ALLOW, is one dictionary look-up.
    """
    action = call.rules.verdicts[category][path]
    if action:
        act(call, category, path, action)


def judge_walk(call: Call, directory: bytes) -> None:
    """As judge(), for `walk` on every directory from the root to `directory` at once."""
    action = call.rules.walk[directory]
    if action:
        act(call, "walk", directory, action)


def act(call: Call, category: str, path: bytes, action: int, why: str = "") -> None:
    """Carry out an action other than ALLOW; `why` goes to the log.  Raises OSError unless the action is WARN."""
    if action != actions.FILTER:
        report(call, category, path, action, why)
    if action == actions.WARN:
        return
    errno = call.rules.errno(category)
    signal = _SIGNALS.get(action)
    if signal:
        send_signal(call, signal)
    elif action == actions.PANIC:
        call.panic()
    elif action == actions.EXIT:
        call.end_run(errno)
    raise OSError(errno, os.strerror(errno), path)


def send_signal(call: Call, signal: int) -> None:
    """Signal the caller's thread group, which cannot have been recycled while the call is valid."""
    pidfd = pidfd_open(call.tgid)
    try:
        call.valid()
        if signal == SIGKILL:
            call.condemn()
        pidfd_send_signal(pidfd, signal)
    finally:
        os.close(pidfd)


def _key(category: str, path: bytes) -> str:
    """The log's key for what was judged: a path, an IP address, or the address of a Unix socket."""
    if category == "ioctl":
        return "ctl"
    if not category.startswith(("net/", "block")):
        return "path"
    return "unix" if path[:1] in (b"/", b"@", b"!") else "addr"


def _lifting(category: str, path: bytes) -> str:
    """The command that would allow just this."""
    if category == "block":
        return "block-" + path.partition(b"!")[0].decode()
    return f"allow/{category}+{quoted(path)}"


_told: dict[tuple[str, bytes], tuple[object, list[tuple[str, bytes | int]]]] = {}
_MOST_TOLD = 256
# Categories that no rule about a path decides
_TIPS = {"tpe": "take the write permission from it, move it, or configure `sandbox/tpe:off'"}


def _reasons(call: Call, category: str, path: bytes) -> list[tuple[str, bytes | int]]:
    """Which rule decided, and which would allow it; kept until the rules of the category change."""
    rules = call.rules
    others: dict[str, object] = {"ioctl": rules.requested, "block": rules.blocked, "net/accept": rules.accepted}
    verdicts = others[category] if category in others else rules.verdicts.get(category)
    known = _told.get((category, path))
    if known is not None and known[0] is verdicts:
        return known[1]
    found: list[tuple[str, bytes | int]] = [
        ("rule", call.rules.explain(category, path).encode("utf-8", "surrogateescape")),
        ("tip", _TIPS.get(category, f"configure `{_lifting(category, path)}'").encode()),
    ]
    if len(_told) >= _MOST_TOLD:
        _told.clear()
    _told[category, path] = verdicts, found
    return found


def _arguments(call: Call) -> list[tuple[str, bytes | int]]:
    """From log/verbose:1 on the registers of the call, from 3 on what else the kernel said of it."""
    verbose = call.rules.option("log/verbose")
    if not isinstance(verbose, int) or not verbose:
        return []
    found: list[tuple[str, bytes | int]] = [("args", b",".join(b"%#x" % a for a in call.args))]
    if verbose > 2:
        facts = (call.id, call.nr, call.exec_gen, call.cred_gen)
        found.append(("req", b"id=%#x nr=%d arch=x86_64 execs=%d identity=%d" % facts))
    return found


def report(call: Call, category: str, path: bytes, action: int, why: str = "") -> None:
    """One log line for a decision (spec 1.14)."""
    level = b"notice" if category in ("walk", "stat") else b"warn"
    call.log(
        [
            ("level", level),
            ("ctx", b"access"),
            ("cap", category.encode()),
            ("act", actions.NAMES[action].encode()),
            ("sys", NAME.get(call.nr, "?").encode()),
            *([("msg", why.encode())] if why else []),
            (_key(category, path), path),
            *_arguments(call),
            ("pid", call.tid),
            ("tgid", call.tgid),
            *_reasons(call, category, path),
        ]
    )
