"""Environment variables: those that steer us (SYD_*), and those the command gets.

Names and meanings: syd(1), ENVIRONMENT.  A variable that is another way to write a configuration command
becomes that command, so the policy accepts or refuses it by name.
"""

from __future__ import annotations

import os
from errno import EBADF, EBADFD, EINVAL, EPERM

from syd_pool.cli.config import LOG_LEVELS, WARN
from syd_pool.cli.options import Refused
from syd_pool.policy.environment import allowed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from syd_pool.policy import Ruleset

# Present means on, whatever the value is, as in syd.
SWITCHES = {
    "SYD_FORCE_NO_SYMLINKS": "trace/force_no_symlinks:1",
    "SYD_FORCE_NO_MAGICLINKS": "trace/force_no_magiclinks:1",
    "SYD_FORCE_NO_XDEV": "trace/force_no_xdev:1",
    "SYD_FORCE_CLOEXEC": "trace/force_cloexec:1",
    "SYD_FORCE_RAND_FD": "trace/force_rand_fd:1",
    "SYD_FORCE_RO_OPEN": "trace/force_ro_open:1",
    "SYD_FORCE_LOCAL_NET": "trace/force_local_net:1",
    "SYD_PROC_PID_MEM_FALLBACK": "trace/memory_access:0",
    "SYD_NO_CROSS_MEMORY_ATTACH": "trace/memory_access:1",  # after the fallback: it has precedence
}
# The value is the command's value.
VALUES = {
    "SYD_TMOUT": "timeout:",
    "SYD_IPC": "ipc:",
    "SYD_PROXY_HOST": "proxy/ext/host:",
    "SYD_PROXY_PORT": "proxy/ext/port:",
    "SYD_PROXY_UNIX": "proxy/ext/unix:",
}
RLIMIT = "SYD_RLIMIT_"
MOST_LOG = 1 << 30  # bytes of log in memory


def commands(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(variable, configuration command) for each variable that stands for one, in the order of the tables."""
    for name, command in SWITCHES.items():
        if name in env:
            yield name, command
    for name, command in VALUES.items():
        if name in env:
            yield name, command + env[name]
    for name in sorted(env):
        if name.startswith(RLIMIT):
            yield name, f"rlimit/{name[len(RLIMIT) :].lower()}:{env[name]}"


def log_buffer(env: Mapping[str, str]) -> int:
    """SYD_LOG_BUF_LEN in bytes, 0 where it is not set.  Raises Refused."""
    text = env.get("SYD_LOG_BUF_LEN")
    if not text:
        return 0
    from syd_pool.policy.values import size

    try:
        found = size(text)
    except ValueError as error:
        raise Refused(EINVAL, f"SYD_LOG_BUF_LEN {error}") from None
    if not 4096 <= found <= MOST_LOG:
        raise Refused(EINVAL, f"SYD_LOG_BUF_LEN must be from 4K to 1G, not {text!r}")
    return found


def number(text: str, least: int, source: str) -> int:
    """A decimal number not below `least`.  Raises Refused."""
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise Refused(EINVAL, f"{source} must be a whole number, {least} or more, not {text!r}")
    return int(text)


def log_level(env: Mapping[str, str]) -> int:
    """SYD_LOG as an index into LOG_LEVELS.  Raises Refused."""
    name = env.get("SYD_LOG", "").lower()
    if not name:
        return WARN
    if name not in LOG_LEVELS:
        raise Refused(EINVAL, f"SYD_LOG must be one of {', '.join(LOG_LEVELS)}, not {name!r}")
    return LOG_LEVELS.index(name)


def log_fd(env: Mapping[str, str]) -> int:
    """SYD_LOG_FD, checked; -1 is no log.  Raises Refused: EBADF, or EBADFD if not writable."""
    text = env.get("SYD_LOG_FD", "")
    if not text:
        return 2
    try:
        fd = int(text)
    except ValueError:
        raise Refused(EBADF, f"SYD_LOG_FD must be a number, not {text!r}") from None
    return writable(fd, "SYD_LOG_FD") if fd >= 0 else -1


def writable(fd: int, source: str) -> int:
    """Check that `fd` is open for writing and keep it from the command, unless it is a standard stream."""
    import fcntl

    try:
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_PATH)
    except (OSError, OverflowError):
        raise Refused(EBADF, f"{source}: descriptor {fd} is not open") from None
    if mode not in (os.O_WRONLY, os.O_RDWR):
        raise Refused(EBADFD, f"{source}: descriptor {fd} is not open for writing")
    if fd > 2:
        os.set_inheritable(fd, False)
    return fd


def log_pretty(env: Mapping[str, str], fd: int) -> bool:
    """Does a human read the log?  SYD_FORCE_TTY: yes, SYD_QUIET_TTY: no, else: on a terminal."""
    if "SYD_FORCE_TTY" in env:
        return True
    return fd >= 0 and "SYD_QUIET_TTY" not in env and os.isatty(fd)


def run_id(env: Mapping[str, str]) -> str:
    """SYD_ID, checked, or a random one.  Raises Refused."""
    text = env.get("SYD_ID", "")
    if not text:
        return os.urandom(64).hex()
    # syd's manual says 128 digits, syd 3.52 takes 64; both are taken here
    if len(text) not in (64, 128) or text.strip("0123456789abcdef") or not text[:32].strip("0"):
        raise Refused(EINVAL, "SYD_ID must be 128 lowercase hexadecimal digits, the first 32 not all zero")
    return text


def signal_number(text: str) -> int:
    """The signal that SYD_PDS names: TERM, SIGTERM or 15; 0 is none.  Raises Refused."""
    import signal

    name = text.upper().removeprefix("SIG")
    found = getattr(signal, f"SIG{name}", None)
    if name.isalnum() and isinstance(found, signal.Signals):
        return int(found)
    if text.isascii() and text.isdigit() and int(text) < signal.NSIG:
        return int(text)
    raise Refused(EINVAL, f"SYD_PDS must be a signal's name or number, not {text!r}")


def edit(rules: Ruleset, text: str) -> None:
    """One -e, at its place among the rules: VAR=VALUE sets, VAR removes, VAR= passes on.  Raises Refused.

    A variable that is set or passed on reaches the command although it looks dangerous.
    """
    name, equals, value = os.fsencode(text).partition(b"=")
    if not name:
        raise Refused(EINVAL, f"option -e needs VAR=VALUE, VAR= or VAR, not {text!r}")
    if name.startswith(b"SYD_"):
        raise Refused(EPERM, f"option -e: {os.fsdecode(name)}: SYD_ variables never reach the command")
    if value:
        rules.env.append(("set", name, value))
    elif not equals:
        rules.env.append(("unset", name, b""))
    if equals:
        rules.passed.add(name)


def for_command(rules: Ruleset, environ: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The command's environment: `environ` after all edits, without what is held back (policy/environment.py)."""
    everything = bool(rules.option("trace/allow_unsafe_env"))
    return allowed(rules.environment(environ), rules.passed, rules.passenv, everything)
