"""syd-pool profile: the built-in profiles, and whether a profile or a configuration file can be carried out."""

from __future__ import annotations

import sys
from errno import EINVAL

from syd_pool import policy
from syd_pool.cli import expansion
from syd_pool.policy import Ruleset, files
from syd_pool.policy.errors import BadRule

USAGE = """\
usage: syd-pool profile list
       syd-pool profile show [--flat] NAME
       syd-pool profile check NAME|FILE...

  list   every profile: its letter, whether it is whole, and its first line
  show   the lines of a profile; --flat puts included profiles in their place
  check  carry profiles or files out, in this order, on a policy that is thrown away; print what is left out because
         it is not built.  The status is the errno of the first mistake
"""


def describe(name: str) -> str:
    """What a profile says of itself in its first line."""
    first = files.text_of(name).partition("\n")[0]
    return first.removeprefix("#").strip()


def flat(name: str) -> list[str]:
    """The lines of a profile with included ones in their place."""
    out = []
    for line in files.text_of(name).splitlines():
        words = line.removeprefix("if_built ").split()
        if words[:1] == ["include_profile"]:
            out.append(f"# {line}")
            for one in files.names(words[1]):
                out += flat(one)
        else:
            out.append(line)
    return out


def _list() -> int:
    from syd_pool.cli.option_list import profile_support

    letters = {name: letter for letter, name in files.LETTERS.items()}
    for name in files.available():
        support, _ = profile_support(name)
        sys.stdout.write(f"{name:12} {letters.get(name, ' ')} {support:9} {describe(name)}\n")
    return 0


def _show(words: list[str]) -> int:
    everything = words[:1] == ["--flat"]
    for name in files.names(words[-1]):
        lines = flat(name) if everything else files.text_of(name).splitlines()
        sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _check(words: list[str]) -> int:
    policy.shell = expansion.run
    rules = Ruleset()
    for word in words:
        if "/" in word or word.endswith(files.SUFFIX):
            rules.load(word)
            continue
        for name in files.names(word):
            for line, why in files.left_out(rules, name):
                sys.stdout.write(f"left out: {line}: {why}\n")
    count = sum(len(paths.rules) for paths in rules._paths.values())
    sys.stdout.write(f"ok: {count} path rules, {len(rules.addresses)} address rules, lock {rules.lock}\n")
    return 0


def main(words: list[str]) -> int:
    """Returns the exit status: 0, or the errno of a mistake."""
    verb, rest = words[0] if words else "", words[1:]
    try:
        if verb in ("-h", "--help"):
            sys.stdout.write(USAGE)
            return 0
        if verb == "list" and not rest:
            return _list()
        if verb == "show" and len(rest) == 1 + (rest[:1] == ["--flat"]):
            return _show(rest)
        if verb == "check" and rest:
            return _check(rest)
    except BadRule as error:
        sys.stderr.write(f"syd-pool profile: {error}\n")
        return error.errno
    sys.stderr.write(f"syd-pool profile: unknown arguments {' '.join(words)!r}\n{USAGE}")
    return EINVAL
