"""What one run was asked to do: filled by cli/run.py (or by a program), read by tracer/run.py."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.policy import Ruleset

# the levels of syslog(3), which syd's SYD_LOG and log/level use
LOG_LEVELS = ("emerg", "alert", "crit", "error", "warn", "notice", "info", "debug")
WARN = LOG_LEVELS.index("warn")

FD_ANSWERS = ("send", "two-step", "strict")  # design.md I2


class RunConfig:
    """Everything the tracer needs to start one run.

    rules       policy as the options, files and variables left it, applied in their order
    argv        the command and its arguments; empty only with `export`
    alias       what the command sees as argv[0], None: its own name (-a)
    env         the whole environment of the command: no SYD_ variables but SYD_TEST_*, -e and setenv! applied
    timeout     seconds until the run is ended with status 124; None: no limit (-t, timeout:, SYD_TMOUT)
    nproc       workers to start with; 0: one for each CPU this process may use (--nproc, SYD_NPROC)
    nproc_max   workers the monitor may grow the pool to; 0: its own limit (--nproc-max, SYD_NPROC_MAX)
    fd_answers  how a descriptor reaches the caller: "send", "two-step" or "strict" (design.md I2)
    status_fd   descriptor for JSON lines about the run, -1: none; it is close-on-exec (--status-fd)
    export      "bpf" or "pfc": print the filters instead of running; "" otherwise (-E, SYD_DUMP_SCMP)
    log_fd      descriptor for log lines, -1: no log; close-on-exec if it is above 2 (SYD_LOG_FD)
    log_level   index into LOG_LEVELS: lines above it are not written (SYD_LOG, else 4, warn)
    log_buffer  bytes of the log that syslog(2) shows, 0: 256 KiB (SYD_LOG_BUF_LEN)
    log_pretty  spread log lines for human readers: a terminal (SYD_FORCE_TTY, SYD_QUIET_TTY)
    run_id      128 hexadecimal digits that name the run in every log line (SYD_ID, else random)
    signal_scope  Landlock keeps signals inside the sandbox (not with SYD_POOL_TEST_NO_SIGNAL_SCOPE=1)
    test_null   for scripts/bench --callers only: notify getppid and answer it with 42 (SYD_POOL_TEST_NULL=1)
    """

    __slots__ = (
        "alias",
        "argv",
        "env",
        "export",
        "fd_answers",
        "log_buffer",
        "log_fd",
        "log_level",
        "log_pretty",
        "nproc",
        "nproc_max",
        "rules",
        "run_id",
        "signal_scope",
        "status_fd",
        "test_null",
        "timeout",
    )

    def __init__(self, rules: Ruleset, argv: list[bytes]) -> None:
        self.rules = rules
        self.argv = argv
        self.alias: bytes | None = None
        self.env: dict[bytes, bytes] = {}
        self.timeout: float | None = None
        self.nproc = 0
        self.nproc_max = 0
        self.fd_answers = "send"
        self.status_fd = -1
        self.export = ""
        self.log_fd = 2
        self.log_level = WARN
        self.log_buffer = 0
        self.log_pretty = False
        self.run_id = ""
        self.signal_scope = True
        self.test_null = False
