"""scripts/bench: system calls timed natively, under syd-pool and under peers, in turns.

    scripts/bench                                   every row, 5 rounds, against syd if it is there
    scripts/bench --peer "box=bwrap --dev-bind / /" --rows stat,open+close
    scripts/bench --callers                         many callers and workers on a call without work

Every round runs every contender once; ratios are taken inside a round and their median is shown.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import callers
import measure
from measure import HERE, ROOT, Failed

# row -> the highest ours/syd that is good enough
BARS = {
    "getppid": None,
    "stat": 0.7,
    "stat-missing": 1.0,
    "open+close": 0.8,
    "access": 0.7,
    "readlink": 0.7,
    "mkdir+rmdir": 0.7,
    "create+unlink": 0.7,
    "connect-refused": None,
    "fork+wait": 0.9,
    "vfork+exec": 0.9,
    "start": 0.5,
}
START = "start"  # milliseconds of `true` from start to end; every other row is microseconds a call
SYD = ROOT.parent / "shared/peers/bin/syd"


class Contender:
    """Somebody who runs the calls: what to put in front of a program, and in front of `true`."""

    def __init__(self, name: str, prefix: list[str], start: list[str] | None = None) -> None:
        self.name = name
        self.prefix = prefix
        self.start = [*(prefix if start is None else start), "true"]

    def run(self, count: int, rows: list[str], starts: int) -> dict[str, float]:
        """Row -> figure; rows that failed are missing and told about on stderr."""
        figures: dict[str, float] = {}
        timed = [row for row in rows if row != START]
        try:
            if timed:
                command = [*self.prefix, str(measure.compiled("calls")), str(count)]
                figures = self.parse(measure.output_of(command, 60 + count / 50, {"ROWS": ",".join(timed)}))
            if START in rows:
                figures[START] = measure.start_to_end(self.start, starts)
        except Failed as error:
            print(f"  {self.name}: {error}", file=sys.stderr)
        return figures

    def parse(self, output: str) -> dict[str, float]:
        """The lines of calls.c: "row microseconds", or "row failed: why"."""
        figures = {}
        for line in output.splitlines():
            row, _, figure = line.partition(" ")
            if figure.startswith("failed"):
                print(f"  {self.name}: {line}", file=sys.stderr)
            elif row in BARS:
                figures[row] = float(figure)
        return figures


def contenders(args: argparse.Namespace) -> list[Contender]:
    """Native, us, and the peers: those asked for, else syd where it is."""
    policy = ["-poff", "-P", str(args.policy.resolve()), "--"]
    found = [Contender("native", []), Contender("ours", [args.us, *policy], [args.us, "-poff", "--"])]
    for peer in args.peer:
        name, equals, prefix = peer.partition("=")
        if not equals or not name or name in ("native", "ours"):
            sys.exit(f"scripts/bench: --peer needs NAME='COMMAND PREFIX', not {peer!r}")
        found.append(Contender(name, shlex.split(prefix)))
    syd = str(SYD) if SYD.exists() else shutil.which("syd")
    if syd and all(c.name != "syd" for c in found):
        found.append(Contender("syd", [syd, *policy], [syd, "-poff", "--"]))
    return found


def summary(results: list[dict[str, Any]], names: list[str], rows: list[str]) -> dict[str, Any]:
    """Row -> medians, ratios, bar and verdict."""
    table: dict[str, Any] = {}
    for row in rows:
        ratio = measure.median_ratio(results, row, "ours", "syd")
        bar = BARS[row]
        verdict = "-" if bar is None or "syd" not in names else "PASS" if ratio and ratio <= bar else "FAIL"
        table[row] = {
            "medians": {name: measure.median_of(results, row, name) for name in names},
            "ours/native": measure.median_ratio(results, row, "ours", "native"),
            "ours over": {n: measure.median_ratio(results, row, "ours", n) for n in names if n != "ours"},
            "bar": bar,
            "verdict": verdict,
        }
    return table


def show(value: float | None) -> str:
    """A figure with three digits that count; a dash when there is none."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def print_table(table: dict[str, Any], names: list[str]) -> None:
    """The table for people."""
    peers = [name for name in names if name not in ("native", "ours")]
    heads = [*names, "ours/native", *(f"ours/{p}" for p in peers), "bar", ""]
    print(f"\n{'us a call (start: ms)':22}" + "".join(f"{head:>14}" for head in heads))
    for row, cell in table.items():
        figures = [show(cell["medians"][n]) for n in names]
        ratios = [show(cell["ours/native"]), *(show(cell["ours over"][p]) for p in peers)]
        print(f"{row:22}" + "".join(f"{x:>14}" for x in [*figures, *ratios, show(cell["bar"]), cell["verdict"]]))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--us", default=str(ROOT / "scripts/syd"), help="our command with syd's command line")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PREFIX", help="repeatable")
    parser.add_argument("--policy", type=Path, default=HERE / "allow.syd-3", help="for us and for syd")
    parser.add_argument("--rounds", type=int, default=0, help="default 5; 3 with --callers")
    parser.add_argument("--count", type=int, default=0, help="calls a row, default 5000; 20000 with --callers")
    parser.add_argument("--starts", type=int, default=10, help="starts in each round for the row `start`")
    parser.add_argument("--rows", default=",".join(BARS), help="comma list")
    parser.add_argument("--callers", action="store_true", help="callers x workers on a call without work")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure there")
    parser.add_argument("--max-load", type=float, default=0.8, help="refuse above this 1-minute load")
    parser.add_argument("--force", action="store_true", help="measure whatever the load is")
    args = parser.parse_args()
    unknown = set(args.rows.split(",")) - set(BARS)
    if unknown:
        parser.error(f"unknown rows {', '.join(sorted(unknown))}; known: {', '.join(BARS)}")
    return args


def calls(args: argparse.Namespace, report: dict[str, Any]) -> bool:
    """Time the rows; True if no bar was missed."""
    found = contenders(args)
    names = [c.name for c in found]
    rows = [row for row in BARS if row in args.rows.split(",")]
    count = args.count or 5000

    def one() -> dict[str, Any]:
        return {c.name: c.run(count, rows, args.starts) for c in found}

    results, thrown = measure.rounds(args.rounds or 5, one)
    table = summary(results, names, rows)
    print_table(table, names)
    print(f"\n{len(results)} rounds of {count} calls, {thrown} thrown away; medians over the rounds")
    report |= {"rows": table, "rounds": results, "thrown_away": thrown, "count": count}
    return all(cell["verdict"] != "FAIL" for cell in table.values())


def main() -> None:
    args = arguments()
    report: dict[str, Any] = {"load": measure.quiet_enough(args.max_load, args.force)}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    measure.adopt_orphans()
    good = False
    try:
        good = (callers.compare if args.callers else calls)(args, report)
    except Failed as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
    finally:
        left = measure.end_orphans()
        if left:
            print(f"scripts/bench: {left} processes had been left behind and were ended", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(not good)


if __name__ == "__main__":
    main()
