"""syd-pool ctl: speak with a running sandbox by its control socket (syd(2), ipc).

syd-pool run -m ipc:@build -- make &          syd-pool ctl @build 'deny/read+/etc/shadow'
"""

from __future__ import annotations

import os
import sys
from errno import EINVAL, EPIPE

USAGE = """\
usage: syd-pool ctl ADDRESS [COMMAND...]

Give commands to the sandbox whose control socket is at ADDRESS (a path, or @NAME), one after the other, and
print what it answers; without a command, those on standard input, one a line.  COMMAND is one of syd(2), or

    ping      is it there?              version   of the interface
    stat      its rules, as JSON        stats     ... as text

Stops at the first command that fails; the exit status is its errno.
"""
WORDS = ("ping", "version", "stat", "stats", "reset", "dump", "panic", "lock:on", "lock:read", "lock:drop")
_LIMIT = 4000  # bytes of a line


def connect(address: str) -> int:
    """A descriptor of a connected socket.  Raises OSError."""
    from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

    name = os.fsencode(address)
    client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        client.connect(b"\0" + name[1:] if name[:1] == b"@" else name)
        return client.detach()
    finally:
        client.close()


def ask(address: str, command: str) -> bytes:
    """What the sandbox answers to one command.  Raises OSError; EPIPE when it hangs up without a word."""
    line = os.fsencode(command)
    if b"\n" in line or not line.strip() or len(line) >= _LIMIT:
        raise OSError(EINVAL, f"a command is one line of at most {_LIMIT} bytes")
    fd = connect(address)
    try:
        os.write(fd, line + b"\n")
        answer = b""
        while part := os.read(fd, 65536):
            answer += part
    finally:
        os.close(fd)
    if not answer:
        raise OSError(EPIPE, "the sandbox hung up: it has ended, or its rules are locked")
    return answer


def errno_of(answer: bytes) -> int:
    """The errno in an answer, 0 for success and for a text."""
    if not answer.startswith(b'{"err":'):
        return 0
    end = answer.index(b",")
    return int(answer[7:end])


def main(words: list[str]) -> int:
    """Give the commands.  Returns the errno of the first that fails."""
    if words in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
        return 0
    if not words or words[0].startswith("-"):
        sys.stderr.write(USAGE)
        return EINVAL
    address, *commands = words
    for command in commands or (line.strip("\n") for line in sys.stdin):
        try:
            answer = ask(address, command)
        except OSError as error:
            sys.stderr.write(f"syd-pool ctl: {address}: {error.strerror}\n")
            return error.errno or EINVAL
        sys.stdout.flush()
        os.write(1, answer)
        if errno := errno_of(answer):
            return errno
    return 0
