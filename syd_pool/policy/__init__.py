"""Text to rules to decisions.  Pure: it needs no kernel, only the files it is told to read.

from syd_pool.policy import Ruleset

rules = Ruleset()
rules.profile("off")
rules.apply("sandbox/read:on")
rules.apply("allow/read+/usr/***")
rules.verdicts["read"][b"/etc/passwd"]      # actions.DENY
"""

from syd_pool.policy.rules import Ruleset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # (program for sh, environment, seconds) -> (status, output)
    Shell = Callable[[bytes, dict[bytes, bytes], float], tuple[int, bytes]]

shell: "Shell | None" = None  # who runs the commands of config/expand; none unless a program says so

__all__ = ["Ruleset", "shell"]
