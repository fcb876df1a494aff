"""syd-pool exec: the path that has a command run outside the sandbox, for stat(2) or test(1) (syd(2), cmd/exec).

test -c "$(syd-pool exec make install)"
"""

from __future__ import annotations

import os
import sys
from errno import EINVAL, ENAMETOOLONG

US = b"\x1f"
PREFIX = b"/dev/syd/cmd/exec!"
PATH_MAX = 4096

USAGE = """\
usage: syd-pool exec [--] COMMAND [ARGUMENT...]

Print the path that has COMMAND run outside the sandbox when a process that may edit its rules calls stat(2) on it:

    test -c "$(syd-pool exec make install)"
"""


def path(words: list[bytes]) -> bytes:
    """The path for a command.  Raises OSError: EINVAL for a word with a US in it, ENAMETOOLONG."""
    if any(US in word for word in words):
        raise OSError(EINVAL, "a word holds the separator itself (US, octal 037)")
    text = PREFIX + US.join(words)
    if len(text) >= PATH_MAX:
        raise OSError(ENAMETOOLONG, f"the command is longer than a path may be ({PATH_MAX} bytes): put it in a script")
    return text


def main(words: list[str]) -> int:
    """Print the path.  Returns the exit status."""
    if words in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
        return 0
    if words[:1] == ["--"]:
        words = words[1:]
    if not words or words[0].startswith("-"):
        sys.stderr.write(USAGE)
        return EINVAL
    try:
        text = path([os.fsencode(word) for word in words])
    except OSError as error:
        sys.stderr.write(f"syd-pool exec: {error.strerror}\n")
        return error.errno or EINVAL
    sys.stdout.flush()
    os.write(1, text)
    return 0
