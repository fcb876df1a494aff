"""sandbox/lock: the kernel refuses what no lock rule allows, to the command and to the workers that act for it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from syd_pool.linux import landlock

ROOT = Path(__file__).resolve().parents[2]
SYD = ROOT / "scripts" / "syd"
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable

pytestmark = [pytest.mark.attack, pytest.mark.skipif(landlock.abi() < 6, reason="needs Landlock ABI 6")]

# One act for each right, done in a directory; prints `right: errno`
ACTS = r"""
import os, socket, sys
from fcntl import ioctl

def opened(path, flags):
    os.close(os.open(path, flags))

def execute(path):
    pid = os.fork()
    if pid == 0:
        try:
            os.execv(path, [path])
        except OSError as error:
            os._exit(error.errno)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise OSError(status, "")

def bound(path):
    os.chdir(os.path.dirname(path))
    socket.socket(socket.AF_UNIX).bind("socket")

ACTS = {
    "read": lambda d: opened(d + "/file", os.O_RDONLY),
    "write": lambda d: opened(d + "/file", os.O_WRONLY),
    "truncate": lambda d: os.truncate(d + "/file", 0),
    "readdir": lambda d: os.listdir(d),
    "create": lambda d: opened(d + "/new", os.O_CREAT | os.O_EXCL),
    "delete": lambda d: os.unlink(d + "/away"),
    "rename": lambda d: os.rename(d + "/one/file", d + "/two/file"),
    "symlink": lambda d: os.symlink("x", d + "/link"),
    "mkdir": lambda d: os.mkdir(d + "/sub"),
    "rmdir": lambda d: os.rmdir(d + "/empty"),
    "mkfifo": lambda d: os.mkfifo(d + "/fifo"),
    "bind": lambda d: bound(d + "/socket"),
    "exec": lambda d: execute(d + "/true"),
}
if sys.argv[1] == "wait":
    print("ready", flush=True)
    sys.stdin.readline()
elif sys.argv[1] == "drop":
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
for act in ACTS:
    for place in sys.argv[2] + "/" + act, sys.argv[2] + "/all":
        try:
            ACTS[act](place)
            print(act, os.path.basename(place), 0, flush=True)
        except OSError as error:
            print(act, os.path.basename(place), error.errno, flush=True)
"""
RIGHTS = ("read", "write", "truncate", "readdir", "create", "delete", "rename", "symlink", "mkdir", "rmdir", "mkfifo",
          "bind", "exec")  # fmt: skip
EACCES, EXDEV, EPERM = 13, 18, 1
REFUSED = {right: EXDEV if right == "rename" else EACCES for right in RIGHTS}  # landlock(7): REFER is EXDEV

BASE = ("trace/allow_unsafe_exec_nopie:1", "trace/allow_unsafe_create:1")
# Calls are native, or made by workers that no rule holds back
MODES = {"native": (), "workers": ("sandbox/all:on", "allow/all+/***", "allow/net+@*", "allow/net+any!0-65535")}
SYSTEM = ["allow/lock/rpath,exec+/usr", "allow/lock/rpath+/etc", *(
    f"allow/lock/rpath,exec+/{name}" for name in ("lib", "lib64", "bin") if os.path.exists(f"/{name}")
)]  # fmt: skip


def command(rules: list[str] | tuple[str, ...], argv: list[str]) -> list[str]:
    return [str(SYD), "-poff", *(word for rule in (*BASE, *rules) for word in ("-m", rule)), "--", *argv]


def facts(output: str) -> dict[tuple[str, str], int]:
    """(right, place) -> errno."""
    lines = [line.split() for line in output.splitlines() if line != "ready"]
    return {(right, place): int(errno) for right, place, errno in lines}


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A directory for each right, and one for all of them."""
    for name in (*RIGHTS, "all"):
        place = tmp_path / name
        for directory in ("one", "two", "empty"):
            (place / directory).mkdir(parents=True)
        for file in ("file", "away", "one/file"):
            (place / file).write_text("x")
        shutil.copy("/bin/true", place / "true")
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o777)  # for whom the command becomes
    for above in tmp_path.parents[:-2]:
        if above.stat().st_uid == os.geteuid() and str(above).startswith("/tmp/pytest"):
            os.chmod(above, above.stat().st_mode | 0o011)
    return tmp_path


def all_but_one(ground: Path) -> list[str]:
    """Lock rules: in every directory one right is missing, in `all` none."""
    rules = ["sandbox/lock:on", *SYSTEM]
    for right in RIGHTS:
        rules += [f"allow/lock/all+{ground}/{right}", f"allow/lock/{right}-{ground}/{right}"]
    return [*rules, f"allow/lock/all+{ground}/all"]


def run(rules: list[str] | tuple[str, ...], argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(rules, argv), capture_output=True, text=True, timeout=60, check=False)


def acts(rules: list[str], ground: Path, how: str = "now") -> dict[tuple[str, str], int]:
    done = run(rules, [PYTHON, "-ISc", ACTS, how, str(ground)])
    assert done.returncode == 0, done.stderr
    return facts(done.stdout)


@pytest.mark.parametrize("mode", MODES)
def test_each_right_is_confined(mode: str, ground: Path) -> None:
    """What lacks its right is refused with Landlock's errno, and nothing else is, by whomever the call is made."""
    found = acts([*MODES[mode], *all_but_one(ground)], ground)
    assert {right: found[right, right] for right in RIGHTS} == REFUSED
    assert [found[right, "all"] for right in RIGHTS] == [0] * len(RIGHTS)


@pytest.mark.parametrize("mode", MODES)
def test_the_control_without_it(mode: str, ground: Path) -> None:
    found = acts([*MODES[mode], *all_but_one(ground), "sandbox/lock:off"], ground)
    assert set(found.values()) == {0}, found


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its identity")
def test_who_changes_identity_stays_confined(ground: Path) -> None:
    """Workers that take on another identity act inside the same domain."""
    rules = [
        *MODES["workers"],
        "trace/allow_safe_setuid:1",
        "trace/allow_safe_setgid:1",
        "setuid+0:65534",
        "setgid+0:65534",
    ]
    found = acts([*rules, *all_but_one(ground)], ground, "drop")
    assert {right: found[right, right] for right in RIGHTS} == REFUSED
    assert [found[right, "all"] for right in RIGHTS] == [0] * len(RIGHTS)


def test_a_worker_born_later_is_confined(ground: Path) -> None:
    """Those that replace killed ones come from the same place."""
    argv = command([*MODES["workers"], *all_but_one(ground)], [PYTHON, "-ISc", ACTS, "wait", str(ground)])
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as syd:
        try:
            assert syd.stdout and syd.stdout.readline() == "ready\n"
            (tracer,) = children(syd.pid)
            first = named(tracer, b"syd_emu")
            for pid in first:
                os.kill(pid, signal.SIGKILL)
            end = time.monotonic() + 10
            while not (found := named(tracer, b"syd_emu")) or found & first:
                assert time.monotonic() < end, "no worker came"
                time.sleep(0.01)
            output, errors = syd.communicate("\n", timeout=60)
        finally:
            syd.kill()
    assert syd.returncode == 0, errors
    made = facts(output)
    assert {right: made[right, right] for right in RIGHTS} == REFUSED
    assert [made[right, "all"] for right in RIGHTS] == [0] * len(RIGHTS)


def children(pid: int) -> list[int]:
    """Of every thread of a process (/proc/PID/task/TID/children)."""
    return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]


def named(parent: int, comm: bytes) -> set[int]:
    """Children of a process by their names."""
    found = set()
    for pid in children(parent):
        try:
            found |= {pid} if Path(f"/proc/{pid}/comm").read_bytes().strip() == comm else set()
        except OSError:
            pass
    return found


def test_our_own_processes_are_outside(ground: Path) -> None:
    """Tracer and monitor are not confined, command and workers are: told by whose memory may be looked at."""
    argv = command([*MODES["workers"], *all_but_one(ground)], [PYTHON, "-ISc", ACTS, "wait", str(ground)])
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as syd:
        try:
            assert syd.stdout and syd.stdout.readline() == "ready\n"
            (tracer,) = children(syd.pid)
            threads = sorted(os.listdir(f"/proc/{tracer}/task"), key=int)
            status = [Path(f"/proc/{tracer}/task/{tid}/status").read_text() for tid in threads]
            assert ["NoNewPrivs:\t1" in text for text in status] == [False, True], "one thread is inside"
            syd.communicate("\n", timeout=60)
        finally:
            syd.kill()


# --- sockets and devices ----------------------------------------------------------------------------

CONNECT = """
import socket, sys
for text in sys.argv[1:]:
    kind, _, where = text.partition("=")
    try:
        if kind == "abstract":
            socket.socket(socket.AF_UNIX).connect("\\0" + where)
        elif kind == "connect":
            socket.socket().connect(("127.0.0.1", int(where)))
        else:
            socket.socket().bind(("127.0.0.1", int(where)))
        print(0)
    except OSError as error:
        print(error.errno)
"""


def listening() -> socket.socket:
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    found.listen()
    return found


def errnos(rules: list[str] | tuple[str, ...], *wanted: str) -> list[int]:
    done = run(rules, [PYTHON, "-ISc", CONNECT, *wanted])
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("mode", MODES)
def test_ports(mode: str) -> None:
    """Only the ports of bind and connect rules; a range holds both its ends."""
    with listening() as one, listening() as two, listening() as free:
        first, second, bindable = (s.getsockname()[1] for s in (one, two, free))
        free.close()
        wanted = [f"connect={first}", f"connect={second}", "bind=0", f"bind={bindable}"]
        lock = ["sandbox/lock:on", *SYSTEM, f"allow/lock/connect+{second}-{second}"]
        lock += [f"allow/lock/bind+1,{bindable}-{bindable}"]
        assert errnos([*MODES[mode], *lock], *wanted) == [EACCES, 0, EACCES, 0]
        assert errnos(MODES[mode], *wanted) == [0, 0, 0, 0], "control"
        assert errnos([*MODES[mode], *lock, "allow/lock/net+0-65535"], *wanted) == [0, 0, 0, 0]


def test_abstract_sockets_of_others_are_out_of_reach() -> None:
    """A native connection stays inside; one that the rules allow is made by a worker."""
    name = f"syd-pool-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("\0" + name)
        other.listen()
        lock = ["sandbox/lock:on", *SYSTEM]
        assert errnos(lock, f"abstract={name}") == [EPERM]
        assert errnos([*MODES["workers"], *lock], f"abstract={name}") == [0]
        assert errnos((), f"abstract={name}") == [0], "control"


@pytest.mark.parametrize("mode", MODES)
def test_ioctl_on_devices(mode: str) -> None:
    """RNDGETENTCNT of random(4) is a request that everybody may make."""
    text = (
        "import fcntl, sys\n"
        "for path in '/dev/random', '/dev/urandom':\n"
        "    try: fcntl.ioctl(open(path), 0x80045200, bytes(4)); print(0)\n"
        "    except OSError as error: print(error.errno)"
    )
    lock = ["sandbox/lock:on", *SYSTEM, "allow/lock/read,ioctl+/dev/random", "allow/lock/read+/dev/urandom"]
    for rules, expected in (([*lock], "0\n13\n"), (["sandbox/lock:off"], "0\n0\n")):
        assert run([*MODES[mode], *rules], [PYTHON, "-ISc", text]).stdout == expected


# --- the start --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "status", "word"),
    [
        ("allow/lock/read+/no/such/path", 2, "default/lock:deny"),
        ("allow/lock/read+/proc/self/exe", 40, "allow/lock/read+/proc/self/exe"),
        ("allow/lock/mkdir+/etc/passwd", 22, "mkdir"),
    ],
)
def test_a_rule_that_cannot_stand_ends_the_start(rule: str, status: int, word: str, tmp_path: Path) -> None:
    """I1: its errno, one line that names it, and the command never runs."""
    proof = tmp_path / "ran"
    lock = ["sandbox/lock:on", *SYSTEM, f"allow/lock/all+{tmp_path}"]
    assert run(lock, ["touch", str(proof)]).returncode == 0 and proof.exists(), "control"
    proof.unlink()
    done = run([*lock, rule], ["touch", str(proof)])
    assert done.returncode == status and word in done.stderr and len(done.stderr.splitlines()) == 1
    assert not proof.exists()


def test_what_is_left_out_is_in_the_log() -> None:
    """default/lock:warn goes on without a path that is not there, and says so."""
    done = run(["sandbox/lock:on", "default/lock:warn", *SYSTEM, "allow/lock/read+/no/such/path"], ["true"])
    assert done.returncode == 0 and "/no/such/path" in done.stderr


def test_rules_that_execute_nothing_say_how_to_begin() -> None:
    done = run(["sandbox/lock:on"], ["true"])
    assert done.returncode == EACCES and "-p landlock" in done.stderr


def test_on_a_kernel_without_scopes(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Linux before 6.12: command and workers in one domain, signals by our handlers."""
    monkeypatch.setenv("SYD_POOL_TEST_NO_SIGNAL_SCOPE", "1")
    found = acts([*MODES["workers"], *all_but_one(ground)], ground)
    assert {right: found[right, right] for right in RIGHTS} == REFUSED
    assert [found[right, "all"] for right in RIGHTS] == [0] * len(RIGHTS)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes an ordinary user")
@pytest.mark.parametrize("mode", MODES)
def test_an_ordinary_user_is_confined_too(mode: str, ground: Path) -> None:
    """Landlock asks for no capability; workers of a user see the user's command in the same domain."""
    argv = command([*MODES[mode], *all_but_one(ground)], [PYTHON, "-ISc", ACTS, "now", str(ground)])
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, user=1000, group=1000, extra_groups=[]
    )
    assert done.returncode == 0, done.stderr
    found = facts(done.stdout)
    assert {right: found[right, right] for right in RIGHTS} == REFUSED
    assert [found[right, "all"] for right in RIGHTS] == [0] * len(RIGHTS)


@pytest.mark.parametrize(
    "options", [("--fd-answers", "strict"), ("--fd-answers", "two-step"), ("-m", "trace/allow_unsafe_ptrace:1")]
)
def test_every_engine_works_inside(options: tuple[str, ...], ground: Path) -> None:
    argv = command([*MODES["workers"], *all_but_one(ground)], [PYTHON, "-ISc", ACTS, "now", str(ground)])
    done = subprocess.run([argv[0], *options, *argv[1:]], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = facts(done.stdout)
    assert {right: found[right, right] for right in RIGHTS} == REFUSED
    assert [found[right, "all"] for right in RIGHTS] == [0] * len(RIGHTS)


EDITS = """
import errno, os, socket, sys
def say(text):
    os.stat("/dev/syd/" + text)
def connect():
    return socket.socket().connect_ex(("127.0.0.1", int(sys.argv[1])))
print(connect())
say(f"allow/net/connect+127.0.0.0/8!{sys.argv[1]}")
print(connect())
say("sandbox/fs:on")
say("allow/fs+ext4,overlayfs,tmpfs,btrfs,xfs,proc")
open(sys.argv[2]).close()
say("load/fs")
say("deny/read+" + sys.argv[2])
try:
    open(sys.argv[2])
except PermissionError:
    print("denied")
say("reset")
say("lock:on")
"""


def test_rules_change_while_workers_are_confined(tmp_path: Path) -> None:
    """What a rule needs of Python was imported before: inside nothing of it can be read."""
    file = tmp_path / "file"
    file.write_text("x")
    with listening() as server:
        port = str(server.getsockname()[1])
        lock = ["sandbox/lock:on", *SYSTEM, f"allow/lock/read+{tmp_path}", f"allow/lock/connect+{port}", "lock:off"]
        on = ["sandbox/all:on", "allow/all+/***", "sandbox/fs:off"]
        done = run([*on, *lock], [PYTHON, "-ISc", EDITS, port, str(file)])
    assert done.stdout.split() == ["111", "0", "denied"], done.stderr
    assert "a worker died" not in done.stderr and not done.returncode


def test_a_category_without_rules_costs_no_worker(tmp_path: Path) -> None:
    """What is imported at the first question has been imported before the worker was inside."""
    file = tmp_path / "file"
    file.write_text("x")
    lock = ["sandbox/lock:on", *SYSTEM, f"allow/lock/read+{tmp_path}"]
    on = ["sandbox/all,fs:on", "allow/all+/***", "default/fs:warn", "allow/net/connect+loopback!1"]
    text = f"import socket; open({str(file)!r}); print(socket.socket().connect_ex(('127.0.0.1', 1)))"
    done = run([*on, *lock], [PYTHON, "-ISc", text])
    assert (done.returncode, done.stdout) == (0, f"{EACCES}\n"), done.stderr
    assert "a worker died" not in done.stderr and '"cap":"fs"' in done.stderr
