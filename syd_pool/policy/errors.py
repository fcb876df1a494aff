"""What a wrong configuration command raises.

    Exception
      BadRule      errno, source, reason, remedy

The errno is the exit status of a run whose configuration is wrong (syd(2), ERRORS): part of the interface.
"""

from __future__ import annotations


class BadRule(Exception):
    """A configuration command cannot be carried out.

    errno   the exit status: EINVAL malformed, EOPNOTSUPP not built, EPERM locked or forbidden, ...
    source  where the command stood: `file:line`, a profile's `name:line`, or "" on the command line
    reason  what is wrong, naming the command
    remedy  what to do instead; may be empty
    """

    def __init__(self, errno: int, reason: str, remedy: str = "", source: str = "") -> None:
        super().__init__(errno, reason, remedy, source)
        self.errno = errno
        self.reason = reason
        self.remedy = remedy
        self.source = source

    def __str__(self) -> str:
        text = f"{self.source}: {self.reason}" if self.source else self.reason
        return f"{text}: {self.remedy}" if self.remedy else text

    def at(self, source: str) -> BadRule:
        """Set the source unless an inner file has set it already; returns itself, to be raised."""
        self.source = self.source or source
        return self
