"""May this machine run us at all?  Asked in front of every run: one uname(2)."""

from __future__ import annotations

import os
from errno import EOPNOTSUPP

from syd_pool.cli.options import Refused

# SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, without which a signal makes an emulated call fail with EINTR
OLDEST = (5, 19)


def release(text: str) -> tuple[int, int]:
    """(6, 18) of "6.18.44-generic"; (0, 0) of what is no kernel release."""
    major, _, rest = text.partition(".")
    minor = ""
    for letter in rest:
        if not letter.isdigit():
            break
        minor += letter
    return (int(major), int(minor)) if major.isdigit() and minor else (0, 0)


def require(uname: os.uname_result | None = None) -> None:
    """Raise Refused unless this is Linux 5.19 or newer on x86_64."""
    system, _, kernel, _, machine = uname or os.uname()
    if system != "Linux":
        raise Refused(EOPNOTSUPP, f"{system} is not supported: syd-pool sandboxes with seccomp, which is Linux's")
    if machine != "x86_64":
        raise Refused(EOPNOTSUPP, f"machine {machine} is not supported: only x86_64 is built")
    if release(kernel) < OLDEST:
        raise Refused(EOPNOTSUPP, f"Linux {kernel} is too old: 5.19 or newer is needed (seccomp WAIT_KILLABLE_RECV)")
