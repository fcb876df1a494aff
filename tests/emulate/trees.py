"""Two equal trees: the kernel acts in one, our handler in the other, and both must come out alike.

    native/   ok/ and hid/ as build() makes them; system calls of a forked child
    ours/     the same; the handler of the call, with a forked child as its caller

The child's memory holds the same strings at the same addresses as ours when it was forked, so the
arguments of a call are the addresses of our own buffers, read from the child as a worker reads them.
"""

from __future__ import annotations

import ctypes
import os
import signal
from importlib import import_module
from typing import TYPE_CHECKING

from syd_pool.emulate import judge as judging
from syd_pool.emulate.call import Call
from syd_pool.emulate.table import ROWS
from syd_pool.linux.libc import pidfd_getfd, raw_vm_readv, raw_vm_writev
from syd_pool.linux.numbers import NR
from syd_pool.policy import Ruleset
from syd_pool.worker import lookup
from tests.emulate.native import Answer, fork_caller, in_child, nothing, snapshot, unguarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from typing import Any

EVERYTHING_ALLOWED = ("sandbox/all:on", "allow/all+/***")
_HANDLERS = {row[0]: row[3] for row in ROWS}


def handler(name: str) -> Callable[[Call], int | None]:
    """The function that the table names for a system call."""
    module, function = _HANDLERS[name].split(":")
    found: Callable[[Call], int | None] = getattr(import_module("syd_pool.emulate." + module), function)
    return found


def build(top: Path) -> None:
    """ok/: what the tests play with; hid/: what the rules are set against."""
    for name in ("ok/d", "ok/full/x", "hid/sub"):
        (top / name).mkdir(parents=True)
    for name in ("ok/f", "ok/g", "hid/f"):
        (top / name).write_text(name)
    links = {"l": "f", "dl": "nowhere", "ld": "d", "lh": "../hid", "lhf": "../hid/f", "lha": "../hid/absent"}
    for name, target in links.items():
        (top / "ok" / name).symlink_to(target)
    os.link(top / "ok/g", top / "ok/g2")
    os.mkfifo(top / "ok/p")


class TreeCall(Call):
    """A Call whose caller is a forked child; remembers what the handler did besides answering."""

    result: Any  # what a test's own function leaves here

    def __init__(
        self,
        rules: Ruleset,
        pid: int,
        name: str,
        args: Iterable[int],
        before_effect: Callable[[], object] = nothing,
    ):
        self.rules = rules
        self.id, self.listener, self.exec_gen, self.cred_gen = 0, -1, 0, 0
        self.magic = False
        self.tid = self.tgid = pid
        self.nr = NR[name]
        self.args = tuple(a & 0xFFFFFFFFFFFFFFFF for a in (*args, 0, 0, 0, 0, 0, 0))[:6]
        self.run_id = "0123456789abcdef" * 8
        self.own_pids = ()
        self.find, self.entry = lookup.find, lookup.entry
        self.effects = 0
        self.resumed = False
        self.denied: list[tuple[str, str]] = []
        self.ended_by: signal.Signals | None = None
        self._before_effect = before_effect
        self._kept: list[int] = []

    def string(self, address: int) -> bytes:
        text = b""
        buffer = ctypes.create_string_buffer(256)
        while len(text) < 4096:
            size = min(256, 4096 - (address & 4095))
            got = raw_vm_readv(self.tid, address, ctypes.addressof(buffer), size)
            if got <= 0:
                raise OSError(14, "EFAULT")
            part, end, _ = buffer.raw[:got].partition(b"\0")
            text += part
            address += got
            if end:
                break
        if len(text) > 4095:
            raise OSError(36, "ENAMETOOLONG")
        return text

    def read(self, address: int, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        if raw_vm_readv(self.tid, address, ctypes.addressof(buffer), size) != size:
            raise OSError(14, "EFAULT")
        return buffer.raw

    def write_from(self, address: int, buffer: int, size: int) -> None:
        if raw_vm_writev(self.tid, address, buffer, size) != size:
            raise OSError(14, "EFAULT")

    def valid(self) -> None:
        """A child of ours stays until we reap it."""

    def begin_effect(self) -> None:
        self.effects += 1
        self._before_effect()

    def blocking(self, fn: Callable[..., int], *args: Any) -> int:
        return fn(*args)

    def umask_with_room(self) -> int:
        return self.umask()

    def umask(self) -> int:
        with open(f"/proc/{self.tid}/status") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith("Umask"))

    def keep(self, fd: int) -> int:
        self._kept.append(fd)
        return fd

    def own_fd(self, fd: int) -> int:
        pidfd = os.pidfd_open(self.tgid)
        try:
            return self.keep(pidfd_getfd(pidfd, fd))
        finally:
            os.close(pidfd)

    def resume(self) -> None:
        self.resumed = True

    def note_connected(self, cookie: int, identity: int, inode: int) -> None:
        self.connected = cookie, identity, inode

    def condemn(self) -> None:
        self.condemned = True

    def judge(self, category: str, path: bytes) -> None:
        judging.judge(self, category, path)

    def log(self, fields: list[tuple[str, bytes | int]]) -> None:
        line = dict(fields)
        if line.get("ctx") == b"access":
            category = line["cap"]
            path = next(line[key] for key in ("path", "addr", "unix") if key in line)
            assert isinstance(category, bytes)
            assert isinstance(path, bytes)
            self.denied.append((category.decode(), os.fsdecode(path)))

    def run(self, function: Callable[[Call], int | None]) -> Answer | None:
        """The handler's answer as the worker would send it."""
        try:
            return function(self)
        except OSError as error:
            return -(error.errno or 5)

    def close_kept(self) -> None:
        """As the worker after the answer."""
        for fd in self._kept:
            os.close(fd)


class Trees:
    """See the module's docstring.

    rules        configuration lines upon profile off, @ stands for the top of ours/; without any,
                 every category is on and allows everything
    descriptors  what the caller has open: number -> path (8 and 9 are O_PATH)
    unnamed      number -> directory of an O_TMPFILE file the caller has open
    """

    def __init__(
        self,
        tmp_path: Path,
        rules: Iterable[str] = (),
        descriptors: Mapping[int, bytes] | None = None,
        unnamed: Mapping[int, bytes] | None = None,
    ):
        self.native_top = tmp_path / "native"
        self.top = tmp_path / "ours"
        build(self.native_top)
        build(self.top)
        self.rules = unguarded()
        for rule in rules or EVERYTHING_ALLOWED:
            self.rules.apply(rule.replace("@", str(self.top)))
        self.descriptors = descriptors or {}
        self.unnamed = unnamed or {}
        self.umask = 0o22
        self.limits: dict[int, tuple[int, int]] = {}
        self.before_effect: Callable[[], object] = nothing
        self.call: TreeCall  # of the last ours()

    def prepare(self) -> None:
        """What a caller does before its call, in the child."""
        for number, path in self.descriptors.items():
            flags = os.O_PATH | os.O_NOFOLLOW if number in (8, 9) else os.O_RDONLY
            os.dup2(os.open(path, flags), number)
        for number, path in self.unnamed.items():
            os.dup2(os.open(path, os.O_TMPFILE | os.O_WRONLY), number)
        os.umask(self.umask)

    def native(self, name: str, *args: int | bytes) -> Answer:
        """The kernel's answer, given in native/."""
        return in_child(self.native_top, name, *args, prepare=self.prepare)

    def ours(self, name: str, *args: int | bytes) -> Answer | None:
        """Our handler's answer, given in ours/; None when it lets the call continue."""
        return self.ask(handler(name), name, *args)

    def ask(self, function: Callable[[Call], int | None], name: str, *args: int | bytes) -> Answer | None:
        """As ours(), with the function to be asked."""
        texts = [ctypes.create_string_buffer(a) if isinstance(a, bytes) else a for a in args]
        words = [t if isinstance(t, int) else ctypes.addressof(t) for t in texts]
        caller = fork_caller(self.top, self.prepare, self.limits)
        self.call = TreeCall(self.rules, caller.pid, name, words, self.before_effect)
        try:
            return self.call.run(function)
        finally:
            self.call.close_kept()
            self.call.ended_by = caller.end()

    def both(self, name: str, *args: int | bytes) -> Answer:
        """The answer, after the kernel's and ours were found equal, and so what they left behind."""
        native, ours = self.native(name, *args), self.ours(name, *args)
        assert ours == native, f"{name}{args}: {ours}, natively {native}"
        assert snapshot(self.top) == snapshot(self.native_top), f"{name}{args}"
        return native
