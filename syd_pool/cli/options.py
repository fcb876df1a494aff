"""Every option of `syd-pool run` and of scripts/syd, as a table, and the parser that walks it.

From this table come the parser, --help, the shell completions and docs/usage.md's list (a test compares).

Grammar, that of syd(1): short options may be joined (-qx), the value of an option may be joined or follow
(-mX, -m X, -m=X, --profile=X, --profile X), and parsing stops at `--` or at the first word that is no option.
The parser yields options one by one, strictly from left to right: a configuration command means what it
means at its place, and the first mistake ends the run before anything later is looked at.

argparse would cost 10 ms in front of every command.
"""

from __future__ import annotations

from errno import EINVAL, EOPNOTSUPP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Refused(Exception):
    """The command line cannot be carried out; `errno` is the exit status, the text the remedy."""

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(message)
        self.errno = errno


class Option:
    """One option.

    short, long  its names without dashes, "" when it has none
    arg          what its value is called in the help; "" when it takes none
    about        one line for the help
    values       what it may be, for completion: words, "FILE", "PROFILE" or ""
    unbuilt      why it is refused, "" when it works
    """

    __slots__ = ("about", "arg", "long", "short", "unbuilt", "values")

    def __init__(self, short: str, long: str, arg: str, about: str, values: str = "", unbuilt: str = "") -> None:
        self.short = short
        self.long = long
        self.arg = arg
        self.about = about
        self.values = values
        self.unbuilt = unbuilt

    @property
    def name(self) -> str:
        """Its name for run.py: the long one, else the short one."""
        return self.long or self.short

    @property
    def shown(self) -> str:
        """Its names as a user types them."""
        return ", ".join(n for n in (self.short and f"-{self.short}", self.long and f"--{self.long}") if n)


OPTIONS = (
    Option("h", "help", "", "show this help and exit"),
    Option("V", "version", "", "show the version and exit"),
    Option("C", "check", "", "do what the sandbox needs from this system, say what is missing, and exit"),
    Option("v", "verbose", "", "more keys in every log line: log/verbose plus one"),
    Option("q", "", "", "quick boot: accepted for syd's sake, every start is quick"),
    Option("m", "", "CONFIG", "apply one configuration command, for instance -m allow/read+/usr/***"),
    Option("p", "profile", "NAME", "apply a built-in profile, for instance -p fs", values="PROFILE"),
    Option("P", "", "FILE", "apply a configuration file (its name ends in .syd-3)", values="FILE"),
    Option("x", "", "", "trace mode, which allows and logs what would be denied: profile trace"),
    Option("f", "", "", "apply profile user first, as a login shell does"),
    Option("l", "login", "", "the same as -f"),
    Option("c", "", "STRING", "run STRING by $SYD_SHELL (default /bin/sh) under profile user"),
    Option("a", "", "ALIAS", "argv[0] of the command"),
    Option("e", "", "VAR[=VALUE]", "VAR=VALUE sets, VAR removes, VAR= passes a variable of the command through"),
    Option("t", "", "DURATION", "end the run after DURATION (10s, 2m) with status 124; none: no limit"),
    Option("E", "", "MODE", "print the seccomp filters instead of running: bpf or pfc", values="bpf pfc"),
    Option("", "nproc", "N", "start N workers (default: one for each CPU)"),
    Option("", "nproc-max", "N", "let the pool grow to N workers"),
    Option(
        "",
        "fd-answers",
        "MODE",
        "how opened files reach the command, see docs/usage.md",
        "send two-step strict",
    ),
    Option("", "status-fd", "FD", "write JSON lines about the run (started, ready, exec, exit, summary) to FD"),
    Option("", "api", "", "print what a running sandbox can be told, as JSON, and exit"),
    Option("", "el", "", "print the Emacs Lisp library to speak to the sandbox and exit"),
    Option("", "sh", "", "print the shell function esyd, which speaks to the sandbox, and exit"),
)

SHORT = {option.short: option for option in OPTIONS if option.short}
LONG = {option.long: option for option in OPTIONS if option.long}


def unknown(name: str, known: dict[str, Option]) -> Refused:
    """The refusal of an option that does not exist, with the name that was perhaps meant."""
    near = [o.shown for word, o in known.items() if len(name) > 1 and (word.startswith(name) or name.startswith(word))]
    tip = f"did you mean {near[0]}?" if near else "see syd-pool run --help"
    dashes = "--" if known is LONG else "-"
    return Refused(EINVAL, f"unknown option {dashes}{name}: {tip}")


def built(option: Option) -> Option:
    """Refuse an option that does not work yet, by name."""
    if option.unbuilt:
        raise Refused(EOPNOTSUPP, f"option {option.shown} is not supported: {option.unbuilt}")
    return option


class Parser:
    """One walk over the arguments: iterate for (option, value), then `rest` is the command."""

    __slots__ = ("_words", "rest")

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self.rest: list[str] = []

    def __iter__(self) -> Iterator[tuple[Option, str]]:
        """Yield (option, value) in order; value is "" for an option that takes none.  Raises Refused."""
        words = self._words
        i = 0
        while i < len(words):
            word = words[i]
            i += 1
            if word == "--":
                break
            if word[:1] != "-" or word == "-":
                i -= 1
                break
            follows = words[i] if i < len(words) else None
            pairs, took = _long(word[2:], follows) if word[:2] == "--" else _shorts(word[1:], follows)
            i += took
            for option, value in pairs:
                yield built(option), value
        self.rest = words[i:]


def _long(word: str, follows: str | None) -> tuple[list[tuple[Option, str]], int]:
    """One long option: what it says, and how many of the following words it took."""
    name, equals, value = word.partition("=")
    option = LONG.get(name)
    if option is None:
        raise unknown(name, LONG)
    if not option.arg:
        if equals:
            raise Refused(EINVAL, f"option --{name} takes no value")
        return [(option, "")], 0
    if equals:
        return [(option, value)], 0
    return [(option, _following(option, follows))], 1


def _shorts(word: str, follows: str | None) -> tuple[list[tuple[Option, str]], int]:
    """A cluster of short options; the first one that takes a value takes the rest of the word."""
    pairs: list[tuple[Option, str]] = []
    for i, letter in enumerate(word):
        option = SHORT.get(letter)
        if option is None:
            raise unknown(letter, SHORT)
        if option.arg:
            value = word[i + 1 :]
            if value:
                return [*pairs, (option, value.removeprefix("="))], 0
            return [*pairs, (option, _following(option, follows))], 1
        pairs.append((option, ""))
    return pairs, 0


def _following(option: Option, follows: str | None) -> str:
    if follows is None:
        raise Refused(EINVAL, f"option {option.shown} needs a value: {option.arg}")
    return follows
