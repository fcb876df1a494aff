"""syd-pool run [options] [--] command: from the command line to a RunConfig, then to the tracer.

    words --options.Parser--> (option, value) --Builder--> RunConfig --tracer.run.run--> exit status

Guarantees: options take effect strictly from left to right; the first mistake ends the run, with one line
that names it and its errno as exit status, before anything has been started.
"""

from __future__ import annotations

import os
import sys
from errno import EINVAL, ENOMEM

from syd_pool import policy
from syd_pool.cli import environment, host
from syd_pool.cli.config import FD_ANSWERS, RunConfig
from syd_pool.cli.environment import number
from syd_pool.cli.options import OPTIONS, Parser, Refused
from syd_pool.linux.landlock import signal_scope
from syd_pool.policy import Ruleset
from syd_pool.policy.errors import BadRule
from syd_pool.policy.lock import at_start
from syd_pool.policy.parse import check_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HELP_HEAD = """\
usage: {usage} [options] [--] command [argument...]

Run a command; the system calls that the rules name are decided, and carried out, by the sandbox.
"""
HELP_TAIL = """
Rules are applied in the order they are given, and the last one that matches wins:

    {usage} -p off -m sandbox/read:on -m 'allow/read+/***' -m 'deny/read+/etc/shadow' -- cat /etc/shadow

The exit status is the command's; 128+N if signal N killed it; 124 after the time limit (-t); the errno if
a rule is wrong or the command cannot be started. --status-fd tells these apart for programs.
Variables: SYD_LOG, SYD_LOG_FD, SYD_NPROC, SYD_NPROC_MAX, SYD_TMOUT, SYD_ID, SYD_PID_FN, SYD_CHDIR, SYD_PDS,
SYD_SHELL; see docs/usage.md.
"""

SHELL = "/bin/sh"  # of -c
LOGIN_SHELL = ["/usr/bin/bash", "--login", "--noprofile", "--norc", "--restricted"]  # syd(1), SYD_SHELL


def _shell(script: bytes, env: dict[bytes, bytes], seconds: float) -> tuple[int, bytes]:
    """Who runs the commands of config/expand, imported where there is one."""
    from syd_pool.cli import expansion

    return expansion.run(script, env, seconds)


class Builder:
    """Takes the options one by one; `finish` gives the RunConfig."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        policy.shell = _shell
        self.rules = Ruleset()
        self.config = RunConfig(self.rules, [])
        self.string: str | None = None
        self._from_environment()

    def _from_environment(self) -> None:
        """What the SYD_ variables say; options come later and override it."""
        env, config = self.env, self.config
        config.log_buffer = environment.log_buffer(env)
        config.log_fd = environment.log_fd(env)
        config.log_level = environment.log_level(env)
        config.log_pretty = environment.log_pretty(env, config.log_fd)
        config.run_id = environment.run_id(env)
        config.signal_scope = signal_scope() and env.get("SYD_POOL_TEST_NO_SIGNAL_SCOPE") != "1"
        config.test_null = env.get("SYD_POOL_TEST_NULL") == "1"
        for name, option in (("SYD_NPROC", "nproc"), ("SYD_NPROC_MAX", "nproc_max")):
            if env.get(name):
                setattr(config, option, number(env[name], 1, name))
        if env.get("SYD_DUMP_SCMP"):
            self.export(env["SYD_DUMP_SCMP"], "SYD_DUMP_SCMP")
        for name, command in environment.commands(env):
            self._policy(name, self.rules.apply, command)

    def _policy(self, source: str, apply: Callable[[str], object], what: str) -> None:
        """Hand one word to the policy; what it refuses ends the run with its errno."""
        try:
            apply(what)
        except BadRule as error:
            raise Refused(error.errno or EINVAL, f"{source}: {error}") from None
        except OSError as error:
            raise Refused(error.errno or EINVAL, f"{source}: {what}: {error.strerror}") from None

    # one method for each option, called by its name; a test checks that none is missing

    def rule(self, value: str) -> None:
        self._policy("-m", self.rules.apply, value)

    def profile(self, value: str) -> None:
        self._policy("-p", self.rules.profile, value)

    def file(self, value: str) -> None:
        self._policy("-P", self.rules.load, value)

    def trace(self, _: str) -> None:
        self._policy("-x", self.rules.profile, "trace")

    def user(self, _: str) -> None:
        self._policy("-f", self.rules.profile, "user")

    def shell_string(self, value: str) -> None:
        self._policy("-c", self.rules.profile, "user")
        self.string = value

    def verbose(self, _: str) -> None:
        now = self.rules.option("log/verbose")
        self._policy("-v", self.rules.apply, f"log/verbose:{(now if isinstance(now, int) else 0) + 1}")

    def timeout(self, value: str) -> None:
        self._policy("-t", self.rules.apply, f"timeout:{value}")

    def quick(self, _: str) -> None:
        """Nothing: there is no slow boot."""

    def alias(self, value: str) -> None:
        self.config.alias = os.fsencode(value)

    def env_edit(self, value: str) -> None:
        self._policy("-e", lambda word: check_lock(self.rules, word), value)
        environment.edit(self.rules, value)

    def export(self, value: str, source: str = "-E") -> None:
        if value.lower() not in ("bpf", "pfc"):
            raise Refused(EINVAL, f"{source} must be bpf or pfc, not {value!r}")
        self.config.export = value.lower()

    def nproc(self, value: str) -> None:
        self.config.nproc = number(value, 1, "--nproc")

    def nproc_max(self, value: str) -> None:
        self.config.nproc_max = number(value, 1, "--nproc-max")

    def fd_answers(self, value: str) -> None:
        if value not in FD_ANSWERS:
            raise Refused(EINVAL, f"--fd-answers must be one of {', '.join(FD_ANSWERS)}, not {value!r}")
        self.config.fd_answers = value

    def status_fd(self, value: str) -> None:
        self.config.status_fd = environment.writable(number(value, 0, "--status-fd"), "--status-fd")

    def finish(self, command: list[str], shell: bool) -> RunConfig:
        """The complete configuration.  shell: without a command the login shell is run, as syd does."""
        config = self.config
        if self.string is not None:
            command = [self.env.get("SYD_SHELL") or SHELL, "-c", self.string, *command]
        elif not command and shell:
            command = [self.env["SYD_SHELL"]] if self.env.get("SYD_SHELL") else LOGIN_SHELL
        elif not command and not config.export:
            raise Refused(EINVAL, "no command given: syd-pool run [options] [--] command; see syd-pool run --help")
        if config.nproc_max and config.nproc_max < config.nproc:
            raise Refused(
                EINVAL,
                f"the pool cannot start with {config.nproc} workers and have at most {config.nproc_max}",
            )
        config.argv = [os.fsencode(word) for word in command]
        config.env = environment.for_command(self.rules, os.environb)
        self.rules.lock = at_start(self.rules.lock, self.rules.option("ipc") is not None)
        timeout, level = self.rules.option("timeout"), self.rules.option("log/level")
        config.timeout = timeout if isinstance(timeout, int | float) else None
        config.log_level = level if isinstance(level, int) else config.log_level
        return config


# Option.name -> the method of Builder
ACTIONS: dict[str, Callable[[Builder, str], None]] = {
    "verbose": Builder.verbose,
    "q": Builder.quick,
    "m": Builder.rule,
    "profile": Builder.profile,
    "P": Builder.file,
    "x": Builder.trace,
    "f": Builder.user,
    "login": Builder.user,
    "c": Builder.shell_string,
    "a": Builder.alias,
    "e": Builder.env_edit,
    "t": Builder.timeout,
    "E": Builder.export,
    "nproc": Builder.nproc,
    "nproc-max": Builder.nproc_max,
    "fd-answers": Builder.fd_answers,
    "status-fd": Builder.status_fd,
}
# these end the command line where they stand
ENDING = ("help", "version", "check", "api", "el", "sh")


def configure(words: list[str], env: Mapping[str, str], shell: bool = False) -> RunConfig | str:
    """The configuration that `words` describe, or the option of ENDING that came first.  Raises Refused."""
    parser = Parser(words)
    builder: Builder | None = None
    for option, value in parser:
        if option.name in ENDING:
            return option.name
        builder = builder or Builder(env)
        ACTIONS[option.name](builder, value)
    return (builder or Builder(env)).finish(parser.rest, shell)


def usage(program: str) -> str:
    """The help text, from the table of options."""
    command = program if program == "syd" else f"{program} run"
    lines = [f"  {f'{o.shown} {o.arg}':24} {o.about}" for o in OPTIONS if not o.unbuilt]
    unbuilt = ", ".join(o.shown for o in OPTIONS if o.unbuilt)
    table = "\n".join(lines)
    missing = f"\n\nNot built yet, refused by name: {unbuilt}" if unbuilt else ""
    return f"{HELP_HEAD}\n{table}{missing}\n{HELP_TAIL}".format(usage=command)


def markdown() -> str:
    """The table of options in docs/usage.md."""
    rows = [f"| `{o.shown}{' ' + o.arg if o.arg else ''}` | {o.about} |" for o in OPTIONS if not o.unbuilt]
    return "\n".join(["| option | meaning |", "|---|---|", *rows])


def settle(env: Mapping[str, str]) -> None:
    """SYD_PDS, SYD_PID_FN and SYD_CHDIR: what is done to this process before the start.  Raises Refused."""
    if env.get("SYD_PDS"):
        from syd_pool.linux.libc import PR_SET_PDEATHSIG, prctl

        prctl(PR_SET_PDEATHSIG, environment.signal_number(env["SYD_PDS"]))
    if env.get("SYD_PID_FN"):
        write_pid(env["SYD_PID_FN"])
    if env.get("SYD_CHDIR"):
        os.chdir("/")


def write_pid(path: str) -> None:
    """SYD_PID_FN: our process id in a new file that only its owner may read.  Raises Refused."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
    except OSError as error:
        tip = "remove it or unset SYD_PID_FN" if isinstance(error, FileExistsError) else "see SYD_PID_FN"
        raise Refused(error.errno or EINVAL, f"pid file {path}: {error.strerror}: {tip}") from None
    os.write(fd, b"%d" % os.getpid())
    os.close(fd)


def one_line(text: str) -> str:
    """`text` without line breaks and control characters, which a rule or a path may contain."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def end(option: str, program: str) -> int:
    """Carry out an option of ENDING."""
    if option == "help":
        sys.stdout.write(usage(program))
        return 0
    if option == "version":
        from syd_pool.cli.main import print_version

        return print_version()
    if option in ("api", "el", "sh"):
        return print_library(option)
    from syd_pool.cli import check

    return check.main([])


def print_library(option: str) -> int:
    """--api, --el, --sh: for those who speak to a running sandbox."""
    from syd_pool.policy import interface

    if option == "api":
        import json

        sys.stdout.write(json.dumps(interface.specification(), indent=2) + "\n")
    else:
        sys.stdout.write(interface.helper(f"syd.{option}").decode())
    return 0


def main(words: list[str], program: str = "syd-pool") -> int:
    """Run a command in the sandbox.  Returns its exit status, or the errno of what was refused."""
    try:
        config = configure(words, os.environ, shell=program == "syd")
        if isinstance(config, str):
            return end(config, program)
        host.require()
        settle(os.environ)
    except Refused as refused:
        os.write(2, f"{program}: {one_line(str(refused))}\n".encode())
        return refused.errno
    except MemoryError:
        return ENOMEM
    from syd_pool.tracer.run import run

    return run(config)
