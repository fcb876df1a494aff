"""C7: hidden names are not told by what calls on sockets say about them."""

from __future__ import annotations

import socket

import pytest
from arena import Arena, Runner, open_directory, open_file

pytestmark = pytest.mark.attack

NAMES = "sock dgram file dir absent sock/x file/x dir/x absent/x dir/sock link dangling".split()
ASK = f"""
import errno, socket, sys
stream, dgram = (lambda: socket.socket(socket.AF_UNIX)), (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
def ask(call):
    try:
        call()
        return "0"
    except OSError as error:
        return errno.errorcode[error.errno]
for name in {NAMES!r}:
    path = sys.argv[1] + "/" + name
    print(name, ask(lambda: stream().bind(path)), ask(lambda: dgram().bind(path)), ask(lambda: stream().connect(path)),
          ask(lambda: dgram().connect(path)), ask(lambda: dgram().sendto(b"x", path)),
          ask(lambda: dgram().sendmsg([b"x"], [], 0, path)))
"""


@pytest.mark.parametrize("by", ["stat", "walk", "lpath"])
@pytest.mark.parametrize("net", ["allowed", "denied"])
def test_c7_sockets(runner: Runner, arena: Arena, by: str, net: str) -> None:
    """C7: bind, connect, sendto and sendmsg say ENOENT of every name below a hidden directory, whatever is there."""
    hidden = arena.box / "hidden"
    open_directory(hidden)
    open_directory(hidden / "dir")
    open_file(hidden / "file", "")
    (hidden / "link").symlink_to("sock")
    (hidden / "dangling").symlink_to("nowhere")
    held = []
    for name, kind in (("sock", socket.SOCK_STREAM), ("dgram", socket.SOCK_DGRAM), ("dir/sock", socket.SOCK_STREAM)):
        held.append(socket.socket(socket.AF_UNIX, kind))
        held[-1].bind(str(hidden / name))
        (hidden / name).chmod(0o777)
    command = ["python3", "-c", ASK, str(hidden)]
    rules = [f"sandbox/{by},net:on", f"allow/{by}+/***", f"deny/{by}+{hidden}/***"]
    if net == "allowed":
        rules += ["allow/net/bind,net/connect+/***"]
    before = sorted(hidden.rglob("*"))
    boxed = runner.boxed(command, rules, cwd=arena.box)
    assert boxed.status == 0 and len(boxed.facts) == len(NAMES), boxed
    assert {word for line in boxed.facts.values() for word in line.split()} == {"ENOENT"}, boxed.out
    assert sorted(hidden.rglob("*")) == before
    native = runner.native(command).facts
    assert len(set(native.values())) > 3, "control: natively the answers tell them apart"
    for one in held:
        one.close()
