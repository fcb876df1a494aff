"""The example profiles of docs/examples, as a user would run them: the work is done, and attacks from inside fail.

Every attack succeeds without the profile.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SYD, EXAMPLES = ROOT / "scripts" / "syd", ROOT / "docs" / "examples"
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
OPEN = ["-poff", "-mtrace/allow_unsafe_exec_nopie:1"]  # the control: guards only


class Place:
    """A directory to work in, a secret and a victim outside, a port where nobody should be called."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.work = self.root / "home" / "work"
        self.work.mkdir(parents=True)
        self.secret = self.root / "home" / ".ssh" / "id_ed25519"
        self.secret.parent.mkdir()
        self.secret.write_text("the secret\n")
        (self.secret.parent / "another_file").touch()
        self.victim = self.root / "home" / ".bashrc"
        self.victim.write_text("original\n")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.root / "home"), "GIT_CONFIG_NOSYSTEM": "1"}

    def run(self, profile: str | None, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """A command under docs/examples/PROFILE.syd-3; None: under nothing but the guards."""
        options = OPEN if profile is None else ["-P", str(EXAMPLES / f"{profile}.syd-3")]
        return subprocess.run(
            [SYD, *options, "--", *command],
            cwd=self.work,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def steals(self) -> str:
        """A shell script that prints what it got."""
        connect = (
            f'{PYTHON} -S -c \'import socket; socket.create_connection(("127.0.0.1", {self.port})); print("called")\''
        )
        return (
            f"cat {self.secret}; echo planted >>{self.victim}; cat {self.victim}; ls {self.secret.parent}; {connect}; "
            f"ln -s {self.secret} link && cat link; echo x >{self.root}/new && echo made; cat /etc/shadow | head -1"
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Closed again at the end."""
    found = Place(tmp_path)
    yield found
    found.listener.close()


def assert_nothing(place: Place, out: str) -> None:
    """No attack has got anything."""
    for loot in ("the secret", "planted", "another_file", "called", "made", "root:"):
        assert loot not in out, loot
    assert place.victim.read_text() == "original\n"
    assert not (place.root / "new").exists()


def assert_everything(place: Place, out: str) -> None:
    """The control: the same attacks succeed."""
    for loot in ("the secret", "planted", "another_file", "called", "made"):
        assert loot in out, loot
    place.victim.write_text("original\n")
    (place.root / "new").unlink()


def git(place: Place, profile: str | None, *words: str) -> subprocess.CompletedProcess[str]:
    """git with a name and without a pager."""
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.pager=cat", "-c", "safe.directory=*")
    return place.run(profile, "/usr/bin/git", *who, *words)


needs_git = pytest.mark.skipif(not os.path.exists("/usr/bin/git"), reason="no git")


@needs_git
def test_git_does_its_work(place: Place) -> None:
    """Add, commit, branch, merge, log, diff, gc in a tree."""
    assert git(place, None, "init", "-q", ".").returncode == 0
    (place.work / "file").write_text("one\n")
    for words in (
        ["add", "file"], ["commit", "-qm", "one"], ["checkout", "-qb", "side"], ["rm", "-q", "file"],
        ["commit", "-qm", "two"], ["checkout", "-q", "-"], ["merge", "-q", "side"], ["gc", "-q"], ["status"],
        ["stash", "list"], ["diff", "HEAD~1"],
    ):  # fmt: skip
        done = git(place, "git", *words)
        assert done.returncode == 0, (words, done.stderr)
    assert "two" in git(place, "git", "log").stdout


@needs_git
def test_git_runs_no_hook_and_plants_none(place: Place) -> None:
    """A hook of the tree that steals is not run; a filter cannot make one; settings are not changed."""
    git(place, None, "init", "-q", ".")
    hook = place.work / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nexec 2>&1 >&2\n({place.steals()}) >&2\nexit 0\n")
    hook.chmod(0o755)
    (place.work / "f").write_text("x")
    git(place, "git", "add", "f")
    done = git(place, "git", "commit", "-qm", "x")
    assert_nothing(place, done.stdout + done.stderr)
    for target in (".git/hooks/post-commit", ".git/config"):
        before = (place.work / target).read_bytes() if (place.work / target).exists() else None
        for attack in (
            f"echo x >>{target}",
            f"echo x >t; mv t {target}",
            f"rm -f {target}",
            f"ln -sf /bin/sh {target}",
        ):
            place.run("git", "/bin/sh", "-c", attack)
        after = (place.work / target).read_bytes() if (place.work / target).exists() else None
        assert before == after, target
    git(place, None, "reset", "-q")
    git(place, None, "add", "f")
    done = git(place, None, "commit", "-qm", "x")
    assert_everything(place, done.stdout + done.stderr)


needs_cc = pytest.mark.skipif(shutil.which("cc") is None or shutil.which("make") is None, reason="no compiler")
MAKEFILE = (
    "all: a\na: a.c b.c\n\tcc -O1 -o a a.c b.c\ncheck: a\n\t./a\n\t@sh ./steal.sh 2>&1 || true\nclean:\n\trm -f a *.o\n"
)


@needs_cc
def test_a_build_does_its_work_and_nothing_else(place: Place) -> None:
    """make compiles, links and runs what it made; a test of it that steals gets nothing."""
    (place.work / "a.c").write_text(
        '#include <stdio.h>\nint b(void);\nint main(void) { printf("%d\\n", b()); return 0; }\n'
    )
    (place.work / "b.c").write_text("int b(void) { return 42; }\n")
    (place.work / "Makefile").write_text(MAKEFILE)
    (place.work / "steal.sh").write_text(place.steals())
    done = place.run("cbuild", "make", "all", "check")
    assert done.returncode == 0 and "42" in done.stdout, done.stderr
    assert_nothing(place, done.stdout + done.stderr)
    done = place.run("cbuild", "make", "clean")
    assert done.returncode == 0 and not (place.work / "a").exists()
    (place.work / "link").unlink(missing_ok=True)
    done = place.run(None, "make", "all", "check")
    assert_everything(place, done.stdout + done.stderr)


@needs_cc
def test_a_build_that_runs_away_is_ended(place: Place) -> None:
    """Its limits are in force: files of a gigabyte, half an hour of processor time."""
    done = place.run("cbuild", "/bin/sh", "-c", "ulimit -f; ulimit -t; ulimit -n")
    assert done.stdout.split() == [str((1 << 30) // 512), "1800", "1024"]


SERVICE = """
import http.server, os, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            what, _, argument = self.path[1:].partition("?")
            argument = argument.replace("%20", " ")
            if what == "read": body = open(argument).read()
            elif what == "list": body = str(os.listdir(argument))
            elif what == "write": body = str(open(argument, "w").write("x"))
            elif what == "run": body = subprocess.run(argument, shell=True, capture_output=True, text=True).stdout
            elif what == "connect":
                import socket
                body = str(socket.create_connection(("127.0.0.1", int(argument)), 5) and "called")
            elif what == "bind":
                import socket
                body = str(socket.create_server(("127.0.0.1", int(argument))) and "bound")
            else: body = "served"
        except Exception as e: body = "refused " + type(e).__name__
        data = body.encode()
        self.send_response(200); self.send_header("Content-Length", str(len(data))); self.end_headers()
        self.wfile.write(data)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Service:
    """The service, asked over HTTP."""

    def __init__(self, place: Place, profile: str | None) -> None:
        self.port = free_port()
        options = OPEN if profile is None else ["-P", str(EXAMPLES / f"{profile}.syd-3")]
        env = {**place.env, "SYD_SERVICE_PORT": str(self.port)}
        command = [SYD, *options, "--", PYTHON, str(place.work / "service.py"), str(self.port)]
        self.process = subprocess.Popen(command, cwd=place.work, env=env, stderr=subprocess.DEVNULL)

    def ask(self, what: str) -> str:
        """The body of an answer; waits for the service to come up."""
        for _ in range(200):
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{self.port}/{what.replace(' ', '%20')}", timeout=20
                ) as answer:
                    return str(answer.read().decode())
            except OSError:
                assert self.process.poll() is None, "the service has ended"
                time.sleep(0.05)
        raise AssertionError("the service does not answer")

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(20)


def attacks(place: Place) -> dict[str, str]:
    """Request -> what the answer shows when it succeeds."""
    return {
        f"read?{place.secret}": "the secret",
        f"read?{place.work}/.env": "password",
        f"list?{place.secret.parent}": "another_file",
        f"write?{place.victim}": "1",
        f"write?{place.work}/service.py": "1",
        "run?echo ran": "ran",
        f"connect?{place.port}": "called",
        f"bind?{free_port()}": "bound",
    }


def test_a_service_serves_and_an_attacker_gets_nothing(place: Place) -> None:
    """It answers, reads its files and writes its data; whoever takes it over reads, runs and calls nothing else."""
    source = place.work / "service.py"
    source.write_text(SERVICE)
    (place.work / "data").mkdir()
    (place.work / ".env").write_text("password\n")
    (place.work / "page").write_text("a page\n")
    service = Service(place, "pyservice")
    try:
        assert service.ask("hello") == "served"
        assert service.ask(f"read?{place.work}/page") == "a page\n"
        assert service.ask(f"write?{place.work}/data/new") == "1"
        got = {request: service.ask(request) for request in attacks(place)}
    finally:
        service.close()
    assert not {r: answer for r, answer in got.items() if attacks(place).get(r, "bound") in answer}, got
    assert place.victim.read_text() == "original\n" and source.read_text() == SERVICE
    service = Service(place, None)
    try:
        for request, loot in attacks(place).items():
            assert loot in service.ask(request), f"control: {request}"
    finally:
        service.close()
