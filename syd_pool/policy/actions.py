"""The nine actions of a rule, ordered by how hard they bite.

When two checks of one call are merged the greater number wins; the order is the one of syd, in which
ABORT ranks below FILTER although both deny.  What each action does to the caller is in emulate/judge.py.
"""

from __future__ import annotations

ALLOW, WARN, ABORT, FILTER, DENY, PANIC, STOP, KILL, EXIT = range(9)

NAMES = ("allow", "warn", "abort", "filter", "deny", "panic", "stop", "kill", "exit")
BY_NAME = {name: action for action, name in enumerate(NAMES)}
