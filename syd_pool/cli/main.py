"""The commands: syd-pool VERB, and `syd` with syd's own command line.

    scripts/run ----> launch.py --> launch(["syd-pool", "run", ...]) --> run.py --> tracer/run.py
    scripts/syd ----> launch.py --> launch(["syd", ...]) ------------^
    .venv/bin/syd-pool --------> main() --> one of VERBS

Only the module of the chosen verb is imported.
"""

from __future__ import annotations

import os
import sys
from errno import EINVAL, EPIPE

PANIC = 101  # syd's exit status when a thread of its own dies

# verb -> what it does; each is a module here with main(words: list[str]) -> int
VERBS = {
    "run": "run a command in the sandbox",
    "check": "try everything that the sandbox needs from this system",
    "syscalls": "print how each system call is treated",
    "profile": "list, show and check the built-in profiles, and files",
    "options": "print what is supported of the configuration language",
    "ctl": "give commands to a running sandbox by its control socket",
    "exec": "print the path that has a command run outside the sandbox",
    "completions": "print the completions of a shell: bash, zsh or fish",
}

HELP = """\
usage: syd-pool VERB ...

{verbs}

Run a command that may read everything below /usr, write nowhere, and start programs of /usr/bin:

    syd-pool run -p off -m sandbox/read,write,create,exec:on \\
        -m 'allow/read+/usr/***' -m 'allow/read+/etc/ld.so.cache' -m 'allow/exec+/usr/***' -- ls /usr

See first what a command would need (everything is allowed, and what no rule allows is logged):

    syd-pool run -p off -m sandbox/all:on -m default/all:warn -- make

syd-pool VERB --help tells about one verb; --version prints the version.
The configuration language is that of syd 3: docs/usage.md.
"""


def main(argv: list[str] | None = None) -> int:
    """Entry point; called by the name `syd` it takes syd's command line.  Returns the exit status."""
    words = sys.argv if argv is None else argv
    program = os.path.basename(words[0])
    if program == "syd" or program.startswith("-"):
        return main_syd(words)
    verb = words[1] if len(words) > 1 else ""
    if verb in VERBS:
        return call(verb, words[2:])
    if verb in ("-h", "--help", "help"):
        sys.stdout.write(help_text())
        return 0
    if verb in ("-V", "--version", "version"):
        return print_version()
    if not verb:
        sys.stderr.write(help_text())
    else:
        sys.stderr.write(f"syd-pool: unknown verb {verb!r}: one of {', '.join(VERBS)}; see syd-pool --help\n")
    return EINVAL


def main_syd(argv: list[str]) -> int:
    """syd's own command line: options and a command without a verb, and a login shell without either."""
    from syd_pool.cli import run

    login = len(argv) == 1 or argv[0].startswith("-")
    return run.main(["-f", *argv[1:]] if login else argv[1:], program="syd")


def call(verb: str, words: list[str]) -> int:
    """Run one verb."""
    if verb == "run":
        from syd_pool.cli import run

        return run.main(words)
    if verb == "check":
        from syd_pool.cli import check

        return check.main(words)
    if verb == "syscalls":
        from syd_pool.cli import syscalls

        return syscalls.main(words)
    if verb == "profile":
        from syd_pool.cli import profiles

        return profiles.main(words)
    if verb == "options":
        from syd_pool.cli import option_list

        return option_list.main(words)
    if verb == "ctl":
        from syd_pool.cli import ctl

        return ctl.main(words)
    if verb == "exec":
        from syd_pool.cli import exec as exec_

        return exec_.main(words)
    from syd_pool.cli import completions

    return completions.main(words)


def launch(argv: list[str]) -> None:
    """main(), then end at once: tearing an interpreter down costs more than a small command does.

    A bug in us ends with PANIC, which no command's own status is likely to be.
    """
    try:
        status = main(argv)
    except KeyboardInterrupt:
        status = 130
    except Exception:
        sys.excepthook(*sys.exc_info())
        status = PANIC
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        status = status or EPIPE
    os._exit(status)


def print_version() -> int:
    """The version, then what this build knows: one fact a line, the first one for programs."""
    from syd_pool import __version__

    sys.stdout.write(f"syd-pool {__version__}\nApplication kernel for Linux, after syd 3.52\nLicense: MIT\n")
    return 0


def help_text() -> str:
    """The help of `syd-pool` itself."""
    return HELP.format(verbs="\n".join(f"    {verb:12} {about}" for verb, about in VERBS.items()))
