"""What the monitor is told when it starts."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
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
