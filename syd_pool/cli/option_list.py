"""syd-pool options: what of syd's language is supported, from the tables that the parser runs on.

categories.py, options.py, parse.py, files.py --rows()--> table | JSON | docs/options.md
"""

from __future__ import annotations

import sys
from errno import EINVAL

from syd_pool.cli import options as command_line
from syd_pool.policy import Ruleset, categories, files, lock, parse
from syd_pool.policy.errors import BadRule
from syd_pool.policy.options import LIVE, NO, OPTIONS, PARTLY, START, UNBUILT_LISTS, YES
from syd_pool.policy.values import BOOL, KINDS, LEVEL, LOG_LEVELS

USAGE = """\
usage: syd-pool options [--json | --markdown] [NAME...]

What is supported of the configuration language of syd 3.  With names: only what contains one of them.
  supported  it works as syd(2) says
  partly     it is accepted; the note says what is different
  no         it is refused with EOPNOTSUPP; the note says what is missing or what to do instead
  start      it can only be said before the command is started; live: later, too
"""

MARKDOWN_HEAD = """\
# Options

What is supported of syd's configuration language. Made by `scripts/docs` from the tables the program runs on; the
same as `syd-pool options`. `partly`: accepted, the note says what differs. `no`: refused with EOPNOTSUPP, the note
says what is missing. `start`: only before the command is started; `live`: later, too.
"""

Row = dict[str, str]

_SECTIONS = ("switches", "options", "lists", "lock", "profiles", "command line")


def _row(section: str, name: str, value: str, default: str, support: str, when: str, note: str) -> Row:
    return {
        "section": section,
        "name": name,
        "value": value,
        "default": default,
        "support": support,
        "when": when,
        "note": note,
    }


def rows() -> list[Row]:
    """Every command of the language: one dictionary each, in the order of the sections, then by name."""
    found = [*_switches(), *_options(), *_lists(), *_locks(), *_profiles(), *_command_line()]
    return sorted(found, key=lambda row: (_SECTIONS.index(row["section"]), row["name"]))


def _switches() -> list[Row]:
    found = []
    for name in sorted(categories.ALL):
        built = name in categories.BUILT
        support, note = YES if built else NO, parse.GUARD_WHY.get(name, "")
        if not built and name in categories.GLOB:
            support, note = PARTLY, "while it is on, every call it covers is refused"
        default = "on" if name in categories.ON_BY_DEFAULT else "off"
        when = START if name in categories.STATIC else LIVE
        found.append(_row("switches", "sandbox/" + name, "boolean", default, support, when, note))
    return found


def _shown(kind: int, default: object) -> str:
    if default is None:
        return "none"
    if kind == BOOL:
        return "on" if default else "off"
    if kind == LEVEL:
        return LOG_LEVELS[int(str(default))]
    return f"{default:g}" if isinstance(default, float) else str(default)


def _options() -> list[Row]:
    return [
        _row("options", name, KINDS[kind], _shown(kind, default), support, when, why)
        for name, (kind, default, support, when, why) in OPTIONS.items()
    ]


def _lists() -> list[Row]:
    found = [_row("lists", name + "+", "", "empty", NO, START, why) for name, why in UNBUILT_LISTS.items()]
    for name, (support, why) in parse.LISTS.items():
        found.append(_row("lists", name, "", "empty", support, LIVE, why))
    return found


def _locks() -> list[Row]:
    return [_row("lock", f"lock:{word}", "", "", YES, LIVE, "") for word in sorted(set(lock.NAMES.values()))]


def _profiles() -> list[Row]:
    letters = {name: letter for letter, name in files.LETTERS.items()}
    found = []
    for name in files.available():
        support, note = profile_support(name)
        found.append(_row("profiles", name, letters.get(name, ""), "", support, START, note))
    return found


def profile_support(name: str) -> tuple[str, str]:
    """Whether profile `name` is whole, and what it lacks."""
    try:
        missing = files.left_out(Ruleset(), name)
    except BadRule as error:
        return NO, error.reason
    without = ", ".join(line.partition(": ")[2] for line, _ in missing)
    return (PARTLY, f"without {without}") if missing else (YES, "")


def _command_line() -> list[Row]:
    return [
        _row("command line", option.shown, option.arg, "", NO if option.unbuilt else YES, START, option.unbuilt)
        for option in command_line.OPTIONS
    ]


def _some(table: list[Row], names: list[str]) -> list[Row]:
    return [row for row in table if not names or any(name in row["name"] for name in names)]


def text(table: list[Row]) -> str:
    """Aligned columns."""
    lines = [f"{'NAME':38} {'SUPPORT':9} {'WHEN':5} {'VALUE':20} {'DEFAULT':9} NOTE"]
    for row in table:
        line = f"{row['name']:38} {row['support']:9} {row['when']:5} {row['value']:20} {row['default']:9} {row['note']}"
        lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


def markdown() -> str:
    """docs/options.md; tests/cli/test_docs.py compares."""
    table = rows()
    out = [MARKDOWN_HEAD]
    for section in _SECTIONS:
        out.append(f"## {section.capitalize()}\n")
        out.append("| name | value | default | when | support | note |\n|---|---|---|---|---|---|")
        for row in table:
            if row["section"] == section:
                cells = (f"`{row['name']}`", row["value"], row["default"], row["when"], row["support"], row["note"])
                out.append("| " + " | ".join(cells) + " |")
        out.append("")
    return "\n".join(out)


def main(words: list[str]) -> int:
    """Print the table.  Returns the exit status."""
    if words in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
        return 0
    style = words[0] if words and words[0].startswith("-") else ""
    if style not in ("", "--json", "--markdown") or (style == "--markdown" and len(words) > 1):
        sys.stderr.write(f"syd-pool options: unknown argument {' '.join(words)!r}\n{USAGE}")
        return EINVAL
    found = _some(rows(), words[1:] if style else words)
    if style == "--markdown":
        sys.stdout.write(markdown())
    elif style == "--json":
        import json

        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        sys.stdout.write(text(found))
    return 0 if found else 1
