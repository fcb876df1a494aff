"""trace/allow_safe_bind: what the sandbox has bound may be connected to, exactly that, from the next call on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench import Bench

PYTHON = "/usr/bin/python3"
NET = ["sandbox/net:on", "allow/net/bind+any!0-65535", "allow/net/bind+@*", "allow/net/bind+/***",
       "trace/allow_unsafe_exec_nopie:1"]  # fmt: skip
PROGRAM = """
import json, os, socket, sys
box, said = sys.argv[1], {}
os.chdir(box)

def connect(family, address):
    with socket.socket(family) as s:
        s.settimeout(5)
        try:
            s.connect(address)
        except OSError as error:
            return error.errno
    return 0

def bound(name, family, address, others=()):
    with socket.socket(family) as s:
        s.bind(address)
        s.listen(8)
        where = s.getsockname()
        said[name] = [connect(family, where)]
        pid = os.fork()
        if pid == 0:
            os._exit(connect(family, where))
        said[name].append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        said[name] += [connect(family, other) for other in others]

other = socket.socket(socket.AF_UNIX)
bound("ip", socket.AF_INET, ("127.0.0.1", 0))
bound("ip6", socket.AF_INET6, ("::1", 0))
bound("abstract", socket.AF_UNIX, "\\0syd-pool-bound-" + str(os.getpid()))
bound("path", socket.AF_UNIX, box + "/socket", [sys.argv[2]])
bound("relative", socket.AF_UNIX, "here")
bound("wild", socket.AF_UNIX, box + "/../*", [sys.argv[2]])
bound("class", socket.AF_UNIX, box + "/[!x]\\\\", [])
print(json.dumps(said))
"""


def said(bench: Bench, *rules: str) -> dict[str, list[int]]:
    """What the program finds: by itself, by its child, and at a socket of somebody else."""
    import socket

    outside = bench.root / "outside"
    outside.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(outside))
        other.listen(8)
        (bench.root / "*").unlink(missing_ok=True)
        for name in ("socket", "here", "[!x]\\"):
            (bench.box / name).unlink(missing_ok=True)
        command = [PYTHON, "-I", "-S", "-c", PROGRAM, str(bench.box), str(outside)]
        outcome, _ = bench.run("nothing", command, 40, rules=[*NET, "trace/allow_unsafe_filename:1", *rules])
    assert outcome.out, outcome.err[-3000:]
    found: dict[str, list[int]] = json.loads(outcome.out)
    return found


@pytest.mark.skipif(not Path(PYTHON).exists(), reason="needs the system's Python")
@pytest.mark.parametrize("lock", ["lock:on", "lock:off"])
def test_what_is_bound_may_be_connected_to(bench: Bench, lock: str) -> None:
    """By every process, although connecting is denied; a name with wildcards allows nothing else.

    The control: without the option everything is refused.
    """
    refused = 111  # ECONNREFUSED
    assert all(set(numbers) == {refused} for numbers in said(bench, lock).values())
    found = said(bench, "trace/allow_safe_bind:1", lock)
    for name in ("ip", "ip6", "abstract", "path", "relative", "wild", "class"):
        assert found[name][:2] == [0, 0], (name, found)
    assert found["path"][2] == found["wild"][2] == refused, found
