"""The ground on which a sandbox is attacked: payloads, a secret, a box, the sandbox's command line, an oracle.

Nothing here knows how the sandbox works inside. It is started by its command line (env SYD_UNDER_TEST, by default
scripts/syd), and everything it leaves behind is found by ancestry: while a run lasts this process is a child
subreaper, so an orphan of the run becomes our child and cannot hide, whatever session, process group or name it has.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

TESTS = Path(__file__).resolve().parents[1]
SOURCES = TESTS / "payloads"
SYD = os.environ.get("SYD_UNDER_TEST", str(TESTS.parent / "scripts" / "syd"))
USER = 1000
# Long attacks (scripts/attack --seconds N) may take longer than any deadline written for the short ones.
PATIENCE = 4 * max(0.0, float(os.environ.get("SYD_ATTACK_SECONDS", "1")) - 2)
SECRET_MODE = 0o646

# The categories that have handlers: a call of an enabled category without a handler is refused, so no other is
# switched on.
CATEGORIES = "walk,stat,read,write,readdir,exec,create,delete,rename,symlink,truncate,chdir,mkdir,rmdir,mktemp".split(
    ","
)
ALL = ",".join(CATEGORIES)
# What the payloads need of syd beyond our categories, and what its own suite passes to every run.
LIFTED = (
    "trace/allow_unsafe_open_path:1",
    "trace/allow_unsafe_dumpable:1",
    "trace/allow_unsafe_exec_nopie:1",
    "trace/allow_unsafe_prlimit:1",
    "trace/allow_unsafe_exec_null:1",
    "trace/allow_unsafe_create:1",
    "trace/allow_unsafe_hardlinks:1",
    "trace/allow_unsafe_symlinks:1",
    "trace/allow_unsafe_sticky:1",
    "trace/allow_unsafe_filename:1",
    "trace/allow_unsafe_xattr:1",  # cp -a sets an ACL
)

_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_CHILD_SUBREAPER = 36


def is_real_syd() -> bool:
    """Is the program under test the original? (Known differences are skipped or noted by name.)"""
    return Path(SYD).resolve().parent.name == "bin" and "peers" in Path(SYD).parts


@contextlib.contextmanager
def syd_differs(how: str) -> Iterator[None]:
    """A claim that the original does not fulfil: expected to fail there, and only there."""
    try:
        yield
    except AssertionError:
        if is_real_syd():
            pytest.xfail(f"real syd: {how}")
        raise


# ---- processes -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Process:
    """One process as /proc showed it."""

    pid: int
    ppid: int
    comm: str
    state: str
    exe: str
    tracer: int

    @property
    def of_sandbox(self) -> bool:
        """A process of the sandbox itself, not of the command it runs."""
        name = os.path.basename(self.exe)
        return self.comm.startswith("syd") or name.startswith(("syd", "memfd:syd", "python"))


def read_process(pid: int) -> Process | None:
    """One process, None if it has gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    try:
        exe = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        exe = ""
    comm = stat[stat.index("(") + 1 : stat.rindex(")")]
    state, ppid = stat[stat.rindex(")") + 2 :].split()[:2]
    tracer = re.search(r"^TracerPid:\s*(\d+)", status, re.M)
    return Process(pid, int(ppid), comm, state, exe, int(tracer.group(1)) if tracer else 0)


def descendants(root: int) -> dict[int, Process]:
    """Every living or dead-but-unreaped process below `root`."""
    everyone = {int(name): read_process(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    found: dict[int, Process] = {}
    grown = {root}
    while grown:
        grown = {pid for pid, p in everyone.items() if p and p.ppid in grown and pid not in found}
        found.update({pid: p for pid in grown if (p := everyone[pid])})
    return found


def kill_one(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal one process through its pidfd; one that has gone is no error."""
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)


def wait_until(condition, deadline: float, step: float = 0.01) -> bool:  # type: ignore[no-untyped-def]
    """Poll a condition until a deadline (seconds from now); its last value."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            return bool(condition())
        time.sleep(step)
    return True


class Nursery:
    """While open, orphans of what is started become our children; at the end nothing of it lives.

    `leftovers` after close: the processes that had to be killed. A correct run has none.
    """

    def __init__(self) -> None:
        self.before = set(descendants(os.getpid()))
        self.owned: set[int] = set()  # reaped by their subprocess.Popen, not by us
        self.leftovers: list[Process] = []
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def strangers(self) -> dict[int, Process]:
        """Descendants of ours that were not there when the nursery opened, the dead reaped."""
        found = {pid: p for pid, p in descendants(os.getpid()).items() if pid not in self.before}
        for pid, process in list(found.items()):
            if process.state == "Z" and process.ppid == os.getpid() and pid not in self.owned:
                with contextlib.suppress(OSError):
                    os.waitpid(pid, os.WNOHANG)
                del found[pid]
        return {pid: p for pid, p in found.items() if p.state != "Z"}

    def close(self, patience: float = 2.0) -> None:
        """Wait for the end of everything, then kill what is left."""
        wait_until(lambda: not self.strangers(), patience)
        self.leftovers = list(self.strangers().values())
        end = time.monotonic() + 10
        while (alive := self.strangers()) and time.monotonic() < end:
            for pid in alive:
                kill_one(pid)
            time.sleep(0.02)
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


# ---- payloads ------------------------------------------------------------------------------------


class Payloads:
    """Small C programs, compiled when first asked for into a directory that every user can read."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="payloads-"))
        self.directory.chmod(0o755)

    def __call__(self, name: str, **defines: int) -> str:
        source = SOURCES / f"{name}.c"
        output = self.directory / "_".join([name, *(f"{k}{v}" for k, v in defines.items())])
        if not output.exists():
            first = source.read_text().split("\n", 1)[0]
            flags = first.removeprefix("// cc:").split() if first.startswith("// cc:") else []
            macros = [f"-D{name}={value}" for name, value in defines.items()]
            subprocess.run(
                ["cc", "-O1", "-Wall", "-pthread", f"-I{SOURCES}", *macros, "-o", output, source, *flags],
                check=True,
                timeout=60,
            )
            output.chmod(0o755)
        return str(output)

    def remove(self) -> None:
        """Delete everything built."""
        shutil.rmtree(self.directory, ignore_errors=True)


# ---- the ground ----------------------------------------------------------------------------------


@dataclass
class Arena:
    """A box where everything is allowed, a ctf that only the sandbox protects, and the secret that lies in it."""

    root: Path
    flag: str = field(default_factory=lambda: "FLAG{" + secrets.token_hex(12) + "}")

    @property
    def box(self) -> Path:
        return self.root / "box"

    @property
    def ctf(self) -> Path:
        return self.root / "ctf"

    @classmethod
    def make(cls) -> Arena:
        """A fresh ground that both root and an ordinary user could read and change natively."""
        arena = cls(Path(os.path.realpath(tempfile.mkdtemp(prefix="arena-"))))
        arena.root.chmod(0o755)
        for directory in (arena.box, arena.ctf):
            open_directory(directory)
        arena.secret("FLAG")
        open_file(arena.box / "aaaa", "a file of the box\n")
        return arena

    def secret(self, name: str) -> Path:
        """One more file with the flag in it, open to everyone natively."""
        path = self.ctf / name
        open_directory(path.parent)
        open_file(path, self.flag + "\n", SECRET_MODE)
        return path

    def snapshot(self) -> dict[str, tuple[object, ...]]:
        """Everything about the protected tree that an attacker could have changed."""
        return tree(self.ctf, times=True)

    def rules(self) -> list[str]:
        """All built categories on; everything allowed but the protected tree."""
        return [*switch_on(), f"allow/{ALL}+/***", f"deny/{ALL}+{self.ctf}/***"]

    def remove(self) -> None:
        """Delete the ground."""
        shutil.rmtree(self.root, ignore_errors=True)


def open_directory(path: Path) -> None:
    """A directory in which everyone may do everything."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777)


def deep(root: Path) -> Path:
    """A directory so far down that no generated path climbs out of the arena."""
    path = root
    for name in "12345678":
        path = path / name
        open_directory(path)
    return path


def open_file(path: Path, text: str, mode: int = 0o666) -> None:
    """A file that everyone may read and write."""
    path.write_text(text)
    path.chmod(mode)


def switch_on(categories: Iterable[str] = CATEGORIES) -> list[str]:
    """The commands that enable categories."""
    return [f"sandbox/{category}:on" for category in categories]


def tree(root: Path, times: bool = False) -> dict[str, tuple[object, ...]]:
    """A directory tree as data: type, mode, size, content hash or link target (and times and inode)."""
    found: dict[str, tuple[object, ...]] = {}
    for where, directories, files in os.walk(root):
        for name in [".", *directories, *files] if where == str(root) else [*directories, *files]:
            path = os.path.join(where, name)
            st = os.lstat(path)
            entry: tuple[object, ...] = (oct(st.st_mode), st.st_size if not os.path.isdir(path) else 0, content(path))
            if times:
                entry += (st.st_ino, st.st_mtime_ns, st.st_uid)
            found[os.path.relpath(path, root)] = entry
    return found


def content(path: str) -> str:
    """What a file says, as a hash; a link, as its target."""
    if os.path.islink(path):
        return os.readlink(path)
    if not os.path.isfile(path):
        return ""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


# ---- running -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """Who runs: root as we are, or the ordinary user."""

    name: str
    uid: int | None = None

    def arguments(self) -> dict[str, object]:
        """For subprocess.Popen."""
        return {} if self.uid is None else {"user": self.uid, "group": self.uid, "extra_groups": []}


@dataclass
class Outcome:
    """How a run ended."""

    status: int
    out: str
    err: str
    seconds: float
    leftovers: list[Process]

    @property
    def facts(self) -> dict[str, str]:
        """The `key value` lines of a payload."""
        return dict(line.split(" ", 1) for line in self.out.splitlines() if " " in line)

    def number(self, key: str, default: int = 0) -> int:
        """A fact that is a number."""
        return int(self.facts.get(key, default))

    def errnos(self, prefix: str) -> dict[int, int]:
        """PREFIX.errno.N counts."""
        head = f"{prefix}.errno."
        return {int(k.removeprefix(head)): int(v) for k, v in self.facts.items() if k.startswith(head)}


def status_of(code: int) -> int:
    """subprocess's return code the shell's way."""
    return code if code >= 0 else 128 - code


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small fixed environment: nothing of the caller's leaks into a comparison.

    But SYD_POOL_TEST_NO_SIGNAL_SCOPE=1, with which every attack is made as on Linux before 6.12.
    """
    older = {name: os.environ[name] for name in ("SYD_POOL_TEST_NO_SIGNAL_SCOPE",) if name in os.environ}
    base = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "HOME": "/tmp", "TERM": "dumb"}
    return {**base, **older, **(extra or {})}


class Running:
    """A command under way, its output read line by line with a deadline."""

    def __init__(
        self,
        command: Sequence[str],
        identity: Identity,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    ) -> None:
        self.nursery = Nursery()
        self.errors = tempfile.TemporaryFile()
        self.buffer = b""
        self.lines: list[str] = []
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env=environment(env),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            pass_fds=pass_fds,
            start_new_session=True,
            bufsize=0,
            **identity.arguments(),  # type: ignore[call-overload]
        )
        self.nursery.owned.add(self.process.pid)
        self.ended = os.pidfd_open(self.process.pid)

    def line(self, prefix: str, deadline: float = 20.0) -> str:
        """Read until a line with this prefix; its rest."""
        end = time.monotonic() + deadline
        while True:
            for text in self.lines:
                if text.startswith(prefix):
                    return text[len(prefix) :].strip()
            if not self._read(end) and (self._over() or time.monotonic() > end):
                raise AssertionError(f"no line {prefix!r}; got {self.lines!r}; stderr {self.stderr()!r}")

    def _over(self) -> bool:
        return bool(select.select([self.ended], [], [], 0)[0])

    def _read(self, end: float) -> bool:
        """Take what was written; False at the end of output, of the process or of the time."""
        assert self.process.stdout is not None
        out = self.process.stdout.fileno()
        ready = select.select([out, self.ended], [], [], max(0.0, end - time.monotonic()))[0]
        data = os.read(out, 65536) if out in ready else b""
        self.buffer += data
        *whole, self.buffer = self.buffer.split(b"\n")
        self.lines += [text.decode("utf-8", "backslashreplace") for text in whole]
        return bool(data)

    def stderr(self) -> str:
        """What was written to stderr so far."""
        self.errors.seek(0)
        return self.errors.read().decode("utf-8", "backslashreplace")

    def tree(self) -> dict[int, Process]:
        """The sandbox's own processes and the command's, alive now."""
        return self.nursery.strangers()

    def sandbox(self) -> dict[int, Process]:
        """The processes of the sandbox itself."""
        return {pid: p for pid, p in self.tree().items() if p.of_sandbox}

    def command(self) -> dict[int, Process]:
        """The processes it runs."""
        return {pid: p for pid, p in self.tree().items() if not p.of_sandbox}

    def finish(self, deadline: float) -> Outcome:
        """Wait for the end; past the deadline is a failure (a hang is never waited for)."""
        end = self.started + deadline + PATIENCE
        while self._read(end):
            pass
        try:
            code = self.process.wait(max(0.05, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            stuck = ", ".join(f"{p.pid}:{p.comm}:{p.state}" for p in self.tree().values())
            raise AssertionError(
                f"still running after {deadline} s: {stuck}; out {self.lines[-5:]!r}; stderr {self.stderr()[-2000:]!r}"
            ) from None
        seconds = time.monotonic() - self.started
        rest = [self.buffer.decode("utf-8", "backslashreplace")] if self.buffer else []
        self.nursery.close()
        text = "\n".join(self.lines + rest) + ("\n" if self.lines and not rest else "")
        return Outcome(status_of(code), text, self.stderr(), seconds, self.nursery.leftovers)

    def abandon(self) -> None:
        """Kill and reap everything, whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
        self.nursery.close(patience=0)
        with contextlib.suppress(Exception):
            self.process.wait(5)
        if self.process.stdout:
            self.process.stdout.close()
        os.close(self.ended)
        self.errors.close()


class Runner:
    """Runs commands natively or in the sandbox, as one identity."""

    def __init__(self, identity: Identity, payloads: Payloads) -> None:
        self.identity = identity
        self.payload = payloads

    def syd(self, command: Sequence[str], rules: Iterable[str], options: Sequence[str] = ()) -> list[str]:
        """The sandbox's command line."""
        given = [f"-m{rule}" for rule in (*LIFTED, *rules)]
        return [SYD, "-q", "-poff", *options, *given, "--", *command]

    @contextlib.contextmanager
    def start(self, command: Sequence[str], **how) -> Iterator[Running]:  # type: ignore[no-untyped-def]
        """Start a command line; whatever happens nothing of it survives."""
        running = Running(command, self.identity, **how)
        try:
            yield running
        finally:
            running.abandon()

    def native(self, command: Sequence[str], deadline: float = 30.0, **how) -> Outcome:  # type: ignore[no-untyped-def]
        """Run with the protection off."""
        with self.start(command, **how) as running:
            return running.finish(deadline)

    def boxed(  # type: ignore[no-untyped-def]
        self,
        command: Sequence[str],
        rules: Iterable[str],
        deadline: float = 60.0,
        options: Sequence[str] = (),
        **how,
    ) -> Outcome:
        """Run in the sandbox; nothing may be left of it afterwards."""
        with self.start(self.syd(command, rules, options), **how) as running:
            outcome = running.finish(deadline)
        assert not outcome.leftovers, f"left behind: {outcome.leftovers}"
        return outcome


@contextlib.contextmanager
def unharmed(arena: Arena) -> Iterator[None]:
    """The oracle: within, nothing under the protected tree may change."""
    before = arena.snapshot()
    yield
    after = arena.snapshot()
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert not changed, f"changed in the protected tree: {sorted(changed)}"


def assert_silent(outcome: Outcome, arena: Arena) -> None:
    """The secret reached neither output."""
    assert arena.flag not in outcome.out + outcome.err
