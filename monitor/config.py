"""What the monitor is told when it starts."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from mmap import mmap

LEVELS = ("emerg", "alert", "crit", "error", "warn", "notice", "info", "debug")
WARN = 4
NPROC_MAX = 256  # what is meant by `unbounded` where nobody said more


class Config:
    """Numbers and switches; plain data, so that it survives a fork and a restart of the monitor.

    Attributes:
        nproc, nproc_max        workers that are kept; workers there may be
        keep_alive_ms           an extra worker that was idle so long retires
        stall_ms                a worker without progress for so long is killed
        boot_ms                 ... and one that did not become ready
        log_fd, log_level       where lines go (-1: nowhere), the last level that is written (0..7)
        pretty                  None: pretty on a terminal; True, False: always, never
        ring                    keeps lines for syslog(2) (shm/logring.py); None: nobody reads them there
        sandbox, name, syd      keys `id`, `sid` and `syd` of every line; empty or 0: left out
    """

    __slots__ = (
        "boot_ms",
        "keep_alive_ms",
        "log_fd",
        "log_level",
        "name",
        "nproc",
        "nproc_max",
        "pretty",
        "ring",
        "sandbox",
        "stall_ms",
        "syd",
    )

    def __init__(self, nproc: int, nproc_max: int) -> None:
        self.nproc = nproc
        self.nproc_max = max(nproc, nproc_max)
        self.keep_alive_ms = 3000
        self.stall_ms = 10_000
        self.boot_ms = 10_000
        self.log_fd = 2
        self.log_level = WARN
        self.pretty: bool | None = None
        self.ring: mmap | None = None
        self.sandbox = ""
        self.name = ""
        self.syd = 0


def level(text: str) -> int:
    """A log level by name or number (syd(2) log/level).  Raises ValueError."""
    if text in LEVELS:
        return LEVELS.index(text)
    if len(text) == 1 and text in "01234567":
        return int(text)
    raise ValueError(f"log level: {text!r} is none of {', '.join(LEVELS)} or 0..7")


def from_environment(environ: Mapping[str, str], nproc: int, nproc_max: int = NPROC_MAX) -> Config:
    """Config with the log settings of SYD_LOG, SYD_LOG_FD, SYD_QUIET_TTY and SYD_FORCE_TTY.

    Raises ValueError for what cannot be read, OSError(EBADF) for a log descriptor that is not open.
    """
    config = Config(nproc, nproc_max)
    config.log_level = level(environ.get("SYD_LOG", "warn"))
    config.log_fd = max(-1, int(environ.get("SYD_LOG_FD", "2")))
    if config.log_fd >= 0 and "SYD_LOG_FD" in environ:
        import os

        os.fstat(config.log_fd)
    if "SYD_FORCE_TTY" in environ:
        config.pretty = True
    if "SYD_QUIET_TTY" in environ:
        config.pretty = False
    return config
