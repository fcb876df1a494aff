"""Text to rules to decisions.  Pure: it needs no kernel, only the files it is told to read.

from syd_pool.policy import Ruleset

rules = Ruleset()
rules.profile("off")
rules.apply("sandbox/read:on")
rules.apply("allow/read+/usr/***")
rules.verdicts["read"][b"/etc/passwd"]      # actions.DENY
"""

from syd_pool.policy.rules import Ruleset

__all__ = ["Ruleset"]
