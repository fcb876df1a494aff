"""syd-pool syscalls: the table of emulate/table.py, for people and as JSON."""

from __future__ import annotations

import sys
from errno import EINVAL

from syd_pool.emulate.table import CONTINUE, ROWS
from syd_pool.linux.numbers import NR

USAGE = """\
usage: syd-pool syscalls [--json]

How each system call that takes part in the sandbox is treated:
  notify    a worker decides, performs the call and answers
  trace     the caller stops, a worker judges, the kernel performs, the result is verified
  unbuilt   refused with ENOSYS while one of its categories is on
A call without a row passes to the kernel unless the filter refuses it (syd-pool run -E pfc prints that).
"""


def rows() -> list[dict[str, object]]:
    """The table, one dictionary for each call, in order of number."""
    table = [
        {
            "number": NR[name],
            "name": name,
            "how": how,
            "categories": list(categories),
            "handler": handler,
            "continue": CONTINUE.get(name, ""),
            "note": note,
        }
        for name, how, categories, handler, note in ROWS
    ]
    return sorted(table, key=lambda row: NR[str(row["name"])])


def text() -> str:
    """The table as aligned columns."""
    lines = [f"{'NR':>4} {'NAME':18} {'HOW':8} {'CATEGORIES':42} NOTE"]
    for name, how, categories, _, note in sorted(ROWS, key=lambda row: NR[row[0]]):
        lines.append(f"{NR[name]:4} {name:18} {how:8} {','.join(categories):42} {note}".rstrip())
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> int:
    """Print the table.  Returns the exit status."""
    if words in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
    elif words == ["--json"]:
        import json

        sys.stdout.write(json.dumps(rows(), indent=1) + "\n")
    elif not words:
        sys.stdout.write(text())
    else:
        sys.stderr.write(f"syd-pool syscalls: unknown argument {words[0]!r}\n{USAGE}")
        return EINVAL
    return 0
