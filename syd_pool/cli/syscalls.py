"""syd-pool syscalls: how every system call is treated, from the tables of the filter, for people and as JSON."""

from __future__ import annotations

import sys
from errno import EINVAL, errorcode

from syd_pool.boundary.filter import KILL_PROCESS
from syd_pool.boundary.guards import GUARDS, NATIVE, Guard
from syd_pool.emulate.table import CONTINUE, IDENTITY, ROWS
from syd_pool.linux.numbers import NR

USAGE = """\
usage: syd-pool syscalls [--json] [NAME...]

How each system call is treated:
  notify    a worker decides, performs the call and answers
  trace     the caller stops, a worker judges, the kernel performs, the result is verified
  unbuilt   refused with ENOSYS while one of its categories is on
  refuse    the filter refuses it, or the arguments that the note names, unless the option says otherwise
  native    the kernel performs it unseen
A call can have several rows; the hardest answer counts.
"""


def rows() -> list[dict[str, object]]:
    """One dictionary for each treatment, in order of number."""
    table = [
        _row(name, how, list(categories), handler, CONTINUE.get(name, ""), note)
        for name, how, categories, handler, note in ROWS
    ]
    table += [
        _row(name, "notify", [], "identity:changed", CONTINUE[name], "noted, continued; only if it can change anything")
        for name in IDENTITY
    ]
    for guard in GUARDS:
        table += [_row(name, "refuse", [], "", "", _note(guard)) for name in guard.names]
    table += [_row(name, "native", [], "", "", about) for about, names in NATIVE.items() for name in names.split()]
    return sorted(table, key=lambda row: NR[str(row["name"])])


def _row(name: str, how: str, categories: list[str], handler: str, resumed: str, note: str) -> dict[str, object]:
    return {
        "number": NR[name],
        "name": name,
        "how": how,
        "categories": categories,
        "handler": handler,
        "continue": resumed,
        "note": note,
    }


def _note(guard: Guard) -> str:
    """What a guard answers, when, why and what lifts it."""
    errno = guard.action & 0xFFFF
    answer = "kill" if guard.action == KILL_PROCESS else errorcode[errno] if errno else "succeeds without effect"
    parts = [answer + (" for some arguments" if guard.conditions else "")]
    if guard.why:
        parts.append(guard.why)
    if guard.lifted_by:
        parts.append(f"lifted by {guard.lifted_by}")
    return "; ".join(parts)


def text(table: list[dict[str, object]] | None = None) -> str:
    """The table as aligned columns."""
    lines = [f"{'NR':>4} {'NAME':22} {'HOW':8} {'CATEGORIES':42} NOTE"]
    for row in rows() if table is None else table:
        names = row["categories"]
        joined = ",".join(names) if isinstance(names, list) else ""
        lines.append(f"{row['number']:4} {row['name']:22} {row['how']:8} {joined:42} {row['note']}".rstrip())
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> int:
    """Print the table.  Returns the exit status."""
    if words in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
        return 0
    as_json = words[:1] == ["--json"]
    names = words[1:] if as_json else words
    unknown = [name for name in names if name not in NR]
    if unknown:
        what = "argument" if unknown[0].startswith("-") else "system call"
        sys.stderr.write(f"syd-pool syscalls: unknown {what} {unknown[0]!r}\n{USAGE}")
        return EINVAL
    table = [row for row in rows() if not names or row["name"] in names]
    if as_json:
        import json

        sys.stdout.write(json.dumps(table, indent=1) + "\n")
    else:
        sys.stdout.write(text(table))
    return 0
