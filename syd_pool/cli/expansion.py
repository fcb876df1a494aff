"""The shell of config/expand, in a sandbox of our own: it may read and compute, and nothing else.

    policy/substitute.py --script--> run() --fork--> a run of ours: keeper, tracer, /bin/sh --> its output, by a pipe

What it may not: write anywhere but to that pipe, reach the network, signal anybody, take longer than it is given.
It is what any command of ours is: without capabilities, in a Landlock domain where there is one, under limits.
"""

from __future__ import annotations

import os
from time import monotonic

from syd_pool.cli import host
from syd_pool.cli.config import RunConfig
from syd_pool.linux.landlock import signal_scope
from syd_pool.linux.libc import die_with_parent
from syd_pool.linux.signals import SIGKILL
from syd_pool.policy import Ruleset
from syd_pool.policy.substitute import MOST, SHELL, TIMED_OUT, TOO_MUCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

GRACE = 5.0  # seconds for our own start and end, after which the whole run is killed
RULES = (
    "sandbox/fs:off",
    "allow/rpath,exec+/***",
    "allow/wpath+/dev/null",
    "sandbox/lock:on",
    "default/lock:warn",
    "allow/lock/rpath,exec+/",
    "trace/allow_unsafe_exec_nopie:1",
    "trace/allow_unsafe_exec_script:1",
    "trace/allow_unsafe_exec_interactive:1",
    "rlimit/as:1G",
    "rlimit/nofile:256",
)


def run(script: bytes, env: dict[bytes, bytes], seconds: float) -> tuple[int, bytes]:
    """Status and output of /bin/sh with this script; TIMED_OUT, TOO_MUCH.  Raises OSError, Refused.

    seconds  that it may take, of time and of the processor
    """
    host.require()
    read, write = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(script, env, seconds, write, parent)
    os.close(write)
    status = TIMED_OUT
    try:
        output, verdict = _collect(read, monotonic() + seconds + GRACE)
        if verdict:
            os.kill(pid, SIGKILL)  # the keeper: everything dies with it
    except BaseException:
        os.kill(pid, SIGKILL)
        raise
    finally:
        os.close(read)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return verdict or status, output


def _become(script: bytes, env: dict[bytes, bytes], seconds: float, write: int, parent: int) -> NoReturn:
    """In the child: the run that executes the shell."""
    try:
        die_with_parent(parent)
        null = os.open(b"/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(write, 1)
        rules = Ruleset()
        for line in (*RULES, f"rlimit/cpu:{int(seconds) + 1}", f"timeout:{seconds:f}s", "lock:on"):
            rules.apply(line)
        config = RunConfig(rules, [SHELL, b"-c", script])
        config.env = env
        config.timeout = seconds
        config.run_id = os.urandom(64).hex()
        config.signal_scope = signal_scope()
        from syd_pool.tracer.run import run as run_it

        os._exit(run_it(config))
    except BaseException as error:
        os.write(2, f"syd-pool: config/expand: {type(error).__name__}: {error}\n".encode())
    os._exit(70)


def _collect(read: int, deadline: float) -> tuple[bytes, int]:
    """Everything up to the end of the last process that may write, and 0; or why that was not waited for."""
    import select

    poller = select.poll()
    poller.register(read, select.POLLIN)
    output = b""
    while True:
        left = deadline - monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            return output, TIMED_OUT
        data = os.read(read, MOST)
        if not data:
            return output, 0
        output += data
        if len(output) > MOST:
            return output, TOO_MUCH
