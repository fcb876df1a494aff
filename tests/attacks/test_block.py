"""block and net/accept: who is not connected to, and who does not get in.  Loopback only."""

from __future__ import annotations

import os
import sys
from errno import ECONNABORTED, ECONNREFUSED, ENOTCONN

import pytest
from arena import Arena, Runner, is_real_syd

pytestmark = pytest.mark.attack

PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
# A server on 127.0.0.2 whom 127.0.0.3 calls; COMMANDS are given before, and after the first attempt
SCRIPT = """
import os, socket, sys, threading
def api(command): os.stat('/dev/syd/' + command)
def tried(what):
    try: what()
    except OSError as error: return error.errno
    return 0
def call(server, source='127.0.0.3'):
    peer = socket.socket()
    peer.bind((source, 0))
    peer.settimeout(5)
    result = tried(lambda: peer.connect(server.getsockname()))
    return result, peer
def taken(server, wait):
    server.settimeout(None if wait else 5)
    def take():
        connection, address = server.accept()
        assert address[0] == '127.0.0.3' and connection.recv(5) == b'hello' and connection.getpeername() == address
    return tried(take)
for command in sys.argv[1:2]:
    for one in command.split():
        api(one)
server = socket.create_server(('127.0.0.2', 0))
results = []
for wait in (False, True):
    result, peer = call(server)
    results.append(result)
    if not result:
        peer.send(b'hello')
        results.append(taken(server, wait))
late = []
def wait_for(): late.append(taken(server, True))
thread = threading.Thread(target=wait_for)
thread.start()
result, peer = call(server)
if result:
    server.shutdown(2)
else:
    peer.send(b'hello')
thread.join()
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
results += [late[0] if not result else -1, tried(lambda: datagram.sendto(b'x', ('127.0.0.2', 9)))]
print(*results)
"""
WELCOME = [0, 0, 0, 0, 0, 0]
CASES = [
    ([], WELCOME),
    (["block+10.0.0.0/8", "deny/net/accept+10.0.0.0/8!0-65535"], WELCOME),
    (["block+127.0.0.3"], [0, ECONNABORTED, 0, ECONNABORTED, ECONNABORTED, 0]),
    (["block+127.0.0.0/29", "block-127.0.0.2"], [0, ECONNABORTED, 0, ECONNABORTED, ECONNABORTED, 0]),
    (["deny/net/accept+127.0.0.3!0-65535"], [0, ECONNABORTED, 0, ECONNABORTED, ECONNABORTED, 0]),
    (["block+127.0.0.2"], [ECONNREFUSED, ECONNREFUSED, -1, ENOTCONN]),
    (["default/block:warn", "block+127.0.0.0/8"], WELCOME),
]


@pytest.mark.parametrize("edited", [False, True], ids=["start", "edited"])
@pytest.mark.parametrize(("rules", "want"), CASES, ids=[" ".join(rules) for rules, _ in CASES])
def test_who_gets_through(runner: Runner, arena: Arena, rules: list[str], want: list[int], edited: bool) -> None:
    """At the start and by an edit; the first case and `warn` are the controls: everybody does."""
    if is_real_syd():
        pytest.skip("syd has no rules of net/accept and no block without sandbox/net/connect")
    given = ["lock:off"] if edited else rules
    command = [PYTHON, "-S", "-c", SCRIPT, *([" ".join(rules)] if edited else [])]
    outcome = runner.boxed(command, [*given, "trace/allow_unsafe_exec_nopie:1"])
    assert [int(word) for word in outcome.out.split()] == want, outcome
