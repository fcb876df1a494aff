"""The control socket: who is heard, what is answered, that it ends with the lock (syd(2), ipc)."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from arena import wait_until
from bench import Bench, Run

ROOT = Path(__file__).resolve().parents[2]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")


class Line:
    """A connection to the socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect("\0" + address[1:] if address[0] == "@" else address)
        except OSError:
            self.socket.close()
            raise
        self.socket.settimeout(10)

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def rest(self) -> bytes:
        """Everything until it hangs up."""
        out = b""
        while part := self.socket.recv(65536):
            out += part
        self.socket.close()
        return out


def ask(address: str, command: str) -> dict[str, object]:
    """One command, one answer."""
    line = Line(address)
    line.say(command.encode() + b"\n")
    answer: dict[str, object] = json.loads(line.rest())
    return answer


@contextlib.contextmanager
def served(bench: Bench, *rules: str, address: str = "", words: Sequence[str] = ()) -> Iterator[tuple[Run, str]]:
    """A run with a control socket, ready to be spoken to."""
    address = address or f"@syd-pool-test-{os.getpid()}-{bench.root.name}"
    command = list(words) or ["/bin/sh", "-c", "echo up; exec sleep 60"]
    with bench.start("nothing", command, rules=[f"ipc:{address}", *rules]) as run:
        if not words:
            run.running.line("up")
        yield run, address


def test_what_is_answered(bench: Bench) -> None:
    """Compact JSON: the commands of the socket, and those of syd(2) with their errnos."""
    with served(bench) as (run, address):
        assert ask(address, "ping") == {"err": 0, "msg": "PONG"}
        assert ask(address, "version") == {"version": "3.1", "major": 3, "minor": 1}
        state = ask(address, "stat")
        assert state["lock"] == "ipc"
        assert state["cpid"] in run.running.tree()
        assert ask(address, "sandbox/tpe?")["err"] == errno.ENOENT
        assert ask(address, "sandbox/mkdir:off")["err"] == 0
        assert ask(address, "sandbox/mkdir?")["err"] == errno.ENOENT
        assert ask(address, "foo")["err"] == errno.EINVAL
        assert ask(address, "lock:off")["err"] == errno.EPERM
        assert ask(address, "unshare/user:1")["err"] == errno.EBUSY
        assert ask(address, "ghost")["err"] == errno.EINVAL
        assert ask(address, "load/0")["err"] == errno.EBADF
        line = Line(address)
        line.say(b"stats\n")
        assert b"lock: ipc\n" in line.rest()


def test_the_command_cannot_edit(bench: Bench, speak: Path) -> None:
    """With ipc the lock is `ipc` unless said otherwise: the stat interface is not there."""
    words = [str(speak), "stat:/dev/syd", "wait:900"]
    with served(bench, words=words) as (run, address):
        run.running.line(f"stat:/dev/syd {errno.ENOENT}")
        assert ask(address, "ping")["err"] == 0
        run.finish(30)


def test_an_edit_is_judged(bench: Bench) -> None:
    """What is answered on the socket holds for the next call of the command; cmd/exec and panic work from there."""
    secret = bench.box / "secret"
    secret.write_text("x\n")
    loop = "echo up; while read line; do cat $line || echo denied; done"
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w", buffering=1) as to, os.fdopen(read_end) as given:
        address = f"@syd-pool-judged-{os.getpid()}"
        with bench.start("nothing", ["/bin/sh", "-c", loop], rules=[f"ipc:{address}"], stdin=given) as run:
            run.running.line("up")
            to.write(f"{secret}\n")
            run.running.line("x")
            assert ask(address, f"deny/read+{secret}")["err"] == 0
            to.write(f"{secret}\n")
            run.running.line("denied")
            assert ask(address, "cmd/exec!/nonexistent")["err"] == errno.ENOENT
            assert ask(address, "cmd/exec!true")["err"] == 0
            line = Line(address)
            line.say(b"panic\n")
            assert line.rest() == b""
            assert run.finish(20).status == 127


def test_many_ask_for_commands_at_once(bench: Bench) -> None:
    """Each is answered its own errno, and the ledger of calls knows nothing of them."""
    with served(bench) as (run, address):
        lines = [Line(address) for _ in range(30)]
        for i, line in enumerate(lines):
            line.say(b"cmd/exec!%s\n" % (b"true", b"/nonexistent", b"/etc/passwd")[i % 3])
        said = [json.loads(line.rest())["err"] for line in lines]
        assert said == [0, errno.ENOENT, errno.EACCES] * 10
        ask(address, "cmd/exec!sleep\x1f0.1")
        line = Line(address)
        line.say(b"panic\n")
        line.rest()
        assert run.finish(20).status == 127


def test_modes(bench: Bench) -> None:
    """n: one command and the end.  i: many.  p: with a prompt.  quit and exit end each."""
    with served(bench) as (_, address):
        line = Line(address)
        line.say(b"ping\nping\n")
        assert line.rest() == b'{"err":0,"msg":"PONG"}\n'
        line = Line(address)
        line.say(b"prompt\nping\nprompt\nsandbox/all?\nprompt p\nprompt x\nquit\n")
        pong, yes = b'{"err":0,"msg":"PONG"}\n', b'{"err":0,"msg":"OK"}\n'
        said = line.rest()
        assert said.startswith(b"; " + pong + b"; ")
        assert said.count(b"; ") == 4, said
        assert said.split(b"; ")[2] in (yes, b'{"err":2,"msg":"No such file or directory"}\n')
        assert b'"err":22' in said
        line = Line(address)
        line.say(b"ping")  # no end of line
        line.socket.shutdown(socket.SHUT_WR)
        assert line.rest() == pong


def test_many_and_rude_clients(bench: Bench) -> None:
    """Who says nothing, too much, or does not read costs the others nothing; too long a line is E2BIG."""
    with served(bench) as (run, address):
        silent = [Line(address) for _ in range(40)]
        for line in silent[:20]:
            line.say(b"prompt i\n" + b"stats\n" * 50)
        flood = Line(address)
        flood.say(b"x" * 200_000)
        assert flood.rest() == b'{"err":7,"msg":"RATE"}\n'
        for _ in range(20):
            assert ask(address, "ping")["err"] == 0
        for line in silent:
            line.socket.close()
        assert ask(address, "stat")["lock"] == "ipc"
        extra = [Line(address) for _ in range(80)]  # 64 are served, the rest are hung up on
        for line in extra:
            line.socket.close()
        assert wait_until(lambda: ask(address, "ping")["err"] == 0, 5)
        assert len(run.processes("syd_ipc")) == 1


def as_user(address: str, uid: int, gid: int) -> dict[str, object]:
    """ping by another user."""
    code = (
        "import os,socket,sys; os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[2]));"
        "s=socket.socket(socket.AF_UNIX); s.connect('\\0'+sys.argv[1][1:]); s.sendall(b'ping\\n');"
        "sys.stdout.buffer.write(b''.join(iter(lambda: s.recv(999), b'')))"
    )
    words = [sys.executable, "-I", "-S", "-c", code, address, str(uid), str(gid)]
    words[0] = "/usr/bin/python3"  # one that everybody may execute
    done = subprocess.run(words, capture_output=True, timeout=20)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@root_only
@pytest.mark.parametrize(("rules", "uid", "gid", "heard"), [
    ((), 1000, 1000, False), (("ipc/uid:1000",), 1000, 1000, False),
    (("ipc/uid:1000", "ipc/gid:1000"), 1000, 1000, True),
    (("ipc/uid:1000", "ipc/gid:1000"), 1000, 1001, False), (("ipc/uid:1000", "ipc/gid:none"), 1000, 1001, True),
    (("ipc/uid:none", "ipc/gid:off"), 1001, 1002, True), (("ipc/gid:0",), 1000, 0, False)])  # fmt: skip
def test_who_is_heard(bench: Bench, rules: Sequence[str], uid: int, gid: int, heard: bool) -> None:
    """Only the ids that were configured, by default our own; root always."""
    with served(bench, *rules) as (_, address):
        assert as_user(address, uid, gid) == ({"err": 0, "msg": "PONG"} if heard else {"err": 13, "msg": "AUTH"})
        assert ask(address, "ping")["err"] == 0


@root_only
def test_credentials_cannot_be_handed_on(bench: Bench) -> None:
    """A connection that another user has opened stays theirs: SO_PEERCRED is asked as well as each message's sender."""
    with served(bench) as (_, address):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            os.setgroups([])
            os.setgid(1000)
            os.setuid(1000)
            line = Line(address)
            socket.send_fds(theirs, [b"x"], [line.socket.fileno()])
            os._exit(0)
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        os.waitpid(pid, 0)
        with socket.socket(fileno=descriptors[0]) as line:
            line.settimeout(10)
            ucred = struct.pack("iII", os.getpid(), 0, 0)
            line.sendmsg([b"ping\n"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, ucred)])
            assert json.loads(line.recv(999)) == {"err": 13, "msg": "AUTH"}
        ours.close()
        theirs.close()


@pytest.mark.parametrize("state", ["on", "read"])
def test_it_ends_with_the_lock(bench: Bench, state: str) -> None:
    """The command that locks is answered; then nobody is there."""
    with served(bench, "lock:off") as (run, address):
        waiting = Line(address)
        waiting.say(b"prompt i\nping\n")
        assert waiting.socket.recv(99) == b'{"err":0,"msg":"PONG"}\n'
        assert ask(address, f"lock:{state}") == {"err": 0, "msg": "OK"}
        assert wait_until(lambda: not run.processes("syd_ipc"), 5)
        with pytest.raises(ConnectionRefusedError):
            Line(address)
        assert waiting.rest() == b""


def test_locked_from_the_start(bench: Bench) -> None:
    """lock:on with ipc: there is no socket."""
    with served(bench, "lock:on") as (run, address):
        assert run.processes("syd_ipc") == []
        with pytest.raises(ConnectionRefusedError):
            Line(address)


def test_a_path(bench: Bench) -> None:
    """A path is bound where it is named, stays there at the end, and is refused when something is there already."""
    address = str(bench.root / "control")
    with served(bench, address=address) as (_, _):
        assert ask(address, "ping")["err"] == 0
    assert Path(address).is_socket()
    outcome, _ = bench.run("nothing", ["/bin/echo", "ran"], 30, rules=[f"ipc:{address}"])
    assert outcome.status == errno.EADDRINUSE
    assert "ipc" in outcome.err
    assert not outcome.out


def test_killed(bench: Bench) -> None:
    """kill -9 of syd_ipc: the run goes on, the log says so, an edit is done or not."""
    with served(bench) as (run, address):
        os.kill(run.one("syd_ipc"), 9)
        assert wait_until(lambda: not run.processes("syd_ipc"), 5)
        assert wait_until(lambda: "the control socket" in run.running.stderr(), 5)
        with pytest.raises(ConnectionRefusedError):
            Line(address)
        assert run.processes("syd_main")


# --- the client --------------------------------------------------------------------------------------


def ctl(*words: str) -> tuple[int, str, str]:
    """syd-pool ctl."""
    code = "import sys; from syd_pool.cli.main import launch; launch(['syd-pool', 'ctl', *sys.argv[1:]])"
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30)
    return done.returncode, done.stdout, done.stderr


def test_ctl(bench: Bench) -> None:
    """It prints the answers, stops at the first error, and its status is that errno."""
    with served(bench) as (_, address):
        assert ctl(address, "ping", "sandbox/mkdir:off") == (0, '{"err":0,"msg":"PONG"}\n{"err":0,"msg":"OK"}\n', "")
        status, out, _ = ctl(address, "sandbox/mkdir?", "ping")
        assert (status, "PONG" in out) == (errno.ENOENT, False)
        assert json.loads(ctl(address, "stat")[1])["lock"] == "ipc"
        assert ctl(address, "lock:on")[0] == 0
        status, _, err = ctl(address, "ping")
        assert status in (errno.ECONNREFUSED, errno.EPIPE)
        assert address in err
    assert ctl()[0] == errno.EINVAL
    assert ctl(address, "a\nb")[0] == errno.EINVAL


def test_who_leaves_in_the_middle_costs_nobody_else(bench: Bench) -> None:
    """Lines that wait when their sender is found to have gone are thrown away, and the next client is served."""
    with served(bench) as (run, address):
        serving = run.one("syd_ipc")
        for _ in range(20):
            line = Line(address)
            line.say(b"prompt i\nping\nping\nsandbox/mkdir:off\n")
            line.socket.close()
        assert ask(address, "ping")["err"] == 0
        assert run.one("syd_ipc") == serving


@pytest.mark.parametrize("state", ["off", "ipc", "drop", "exec"])
def test_the_lock_says_what_the_socket_may(bench: Bench, state: str) -> None:
    """drop: the rules cannot be seen, and only tightened; exec: it is the command that may edit, nobody else."""
    tighter, looser = "deny/read+/nowhere", "allow/read+/nowhere"
    eperm = errno.EPERM
    expected = {"off": [0, 0, 0], "ipc": [0, 0, 0], "drop": [eperm, 0, eperm], "exec": [eperm] * 3}[state]
    with served(bench, f"lock:{state}") as (_, address):
        assert [ask(address, words).get("err", 0) for words in ("stat", tighter, looser)] == expected
        assert ask(address, "ping")["err"] == 0


def resident(pid: int) -> int:
    """Kilobytes of memory of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])


def test_who_sends_more_than_is_carried_out_waits(bench: Bench) -> None:
    """While a line is not carried out nothing more is read: a flood fills its own socket, not our memory; every line
    is answered in the end, and others are served meanwhile."""
    with served(bench) as (run, address):
        server, tracer = run.one("syd_ipc"), run.one("syd_main")
        line = Line(address)
        line.say(b"prompt i\n")
        before = resident(server)
        os.kill(tracer, signal.SIGSTOP)
        line.socket.settimeout(0.5)
        flood, sent = b"sandbox/mkdir:on\n" * 4000, 0
        with contextlib.suppress(TimeoutError):
            while sent < 30 << 20:
                sent += line.socket.send(flood[sent % len(flood) :])
        grown = resident(server) - before
        assert ask(address, "ping")["msg"] == "PONG"
        os.kill(tracer, signal.SIGCONT)
        assert sent < 4 << 20, "it was all taken"
        assert grown < 2048, grown
        line.socket.shutdown(socket.SHUT_WR)
        line.socket.settimeout(20)
        answers = line.rest().count(b"\n")
        # the line that was cut may be no command; it is answered like the others
        assert answers == -(-sent // 17), (answers, sent)


@root_only
def test_strangers_do_not_keep_others_away(bench: Bench) -> None:
    """All places taken by another user: ours is served all the same; the control: our own do take the places."""
    with served(bench) as (_, address):
        code = (
            "import os,socket,sys,time; os.setgroups([]); os.setgid(1000); os.setuid(1000);"
            "a=[socket.socket(socket.AF_UNIX) for _ in range(64)]; [s.connect('\\0'+sys.argv[1][1:]) for s in a];"
            "print('up', flush=True); time.sleep(60)"
        )
        words = ["/usr/bin/python3", "-I", "-S", "-c", code, address]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as strangers:
            try:
                assert strangers.stdout is not None and strangers.stdout.readline() == b"up\n"
                assert silent(address), "nobody is heard"
            finally:
                strangers.kill()
        own = [Line(address) for _ in range(64)]
        assert wait_until(lambda: not silent(address), 5), "control"
        for line in own:
            line.socket.close()


def silent(address: str) -> bytes:
    """What the server says to a ping; nothing where there is no place."""
    line = Line(address)
    try:
        line.say(b"ping\n")
        return line.rest()
    except OSError:
        return b""
    finally:
        line.socket.close()
