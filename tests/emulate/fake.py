"""A caller that can be asked twice: by the kernel, which runs its system call, and by our handler.

One forked child serves a whole test.  It makes the system calls it is told to, which gives the native answer;
while it waits for the next, it is the caller of our handlers: its memory, working directory and descriptors
are real.  Strings and buffers lie in pages that both have at the same addresses.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pickle
import struct
import traceback
from typing import TYPE_CHECKING

from syd_pool.linux.libc import raw_vm_readv
from tests.emulate.native import nothing, raw
from tests.emulate.trees import TreeCall, handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from syd_pool.policy import Ruleset

_AREA = 16384
_area = ctypes.create_string_buffer(_AREA)
BUFFER = ctypes.addressof(_area)  # where calls put their results
_texts = ctypes.create_string_buffer(_AREA)


class FakeCall(TreeCall):
    """A TreeCall that can also take descriptors; the installed one stays in `installed`."""

    def __init__(self, rules: Ruleset, pid: int, name: str, args: list[int]):
        super().__init__(rules, pid, name, args)
        self.installed = -1
        self.install_flags = 0
        self.blocked = 0

    def install(self, fd: int, flags: int, alone: bool = False) -> None:
        self.installed, self.install_flags = fd, flags

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        buffer = ctypes.create_string_buffer(bytes(data), len(data) or 1)
        self.write_from(address, ctypes.addressof(buffer), len(data))

    def blocking(self, fn: Callable[..., int], *args: Any) -> int:
        self.blocked += 1
        return fn(*args)


class Opened:
    """What an open gave: the object, F_GETFL, close-on-exec."""

    def __init__(self, fd: int, cloexec: bool):
        status = os.fstat(fd)
        self.object = (status.st_dev, status.st_ino)
        self.facts = (oct(status.st_mode), status.st_uid, status.st_gid, status.st_size)
        self.flags = fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_NOFOLLOW
        self.cloexec = cloexec

    def elsewhere(self) -> tuple[object, ...]:
        """What must be the same of an equal object in another tree."""
        return self.facts, self.flags, self.cloexec

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opened) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"Opened({self.facts}, {self.flags:#o}, {self.cloexec})"


class Caller:
    """The forked child.  To be ended by end()."""

    def __init__(self, rules: Ruleset, directory: os.PathLike[str], prepare: Callable[[], object] = nothing):
        self.rules = rules
        theirs, self._tell = os.pipe()
        self._hear, ours = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._tell)
            os.close(self._hear)
            self._serve(os.dup2(theirs, 200), os.dup2(ours, 201), directory, prepare)
        os.close(theirs)
        os.close(ours)

    def _serve(self, theirs: int, ours: int, directory: os.PathLike[str], prepare: Callable[[], object]) -> None:
        try:
            os.chdir(directory)
            prepare()
            while True:
                size = os.read(theirs, 4)
                if not size:
                    break
                data = b""
                while len(data) < int.from_bytes(size, "little"):
                    data += os.read(theirs, 65536)
                function, *args = pickle.loads(data)
                answer = pickle.dumps(function(*args))
                os.write(ours, len(answer).to_bytes(4, "little") + answer)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)

    def do(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a module-level function in the child."""
        message = pickle.dumps((function, *args))
        os.write(self._tell, len(message).to_bytes(4, "little") + message)
        size = int.from_bytes(os.read(self._hear, 4), "little")
        assert size, "the caller died"
        data = b""
        while len(data) < size:
            data += os.read(self._hear, 65536)
        return pickle.loads(data)

    def native(self, name: str, *args: int | bytes) -> tuple[int, bytes]:
        """The kernel's answer: (result or -errno, what is in BUFFER then)."""
        result: tuple[int, bytes] = self.do(native_call, name, args)
        return result

    def native_open(self, name: str, *args: int | bytes) -> Opened | int:
        """As native(), for calls that open."""
        result: Opened | int = self.do(native_open, name, args)
        return result

    def call(self, name: str, *args: int | bytes) -> FakeCall:
        """The Call of our handler; its strings are put into the child first."""
        words = self.do(lay, args)
        return FakeCall(self.rules, self.pid, name, words)

    def ours(self, name: str, *args: int | bytes) -> tuple[int, bytes]:
        """Our handler's answer: (result or -errno, what is in BUFFER then)."""
        call = self.call(name, *args)
        try:
            result = call.run(handler(name))
        finally:
            call.close_kept()
        assert result is not None
        assert raw_vm_readv(self.pid, BUFFER, BUFFER, _AREA) == _AREA
        return result, _area.raw

    def our_call(self, name: str, *args: int | bytes) -> tuple[Opened | int, FakeCall]:
        """Our handler's answer to an open."""
        call = self.call(name, *args)
        try:
            result = call.run(handler(name))
            if result is not None:
                return result, call
            cloexec = bool(call.install_flags & os.O_CLOEXEC)
            return Opened(call.installed, cloexec), call
        finally:
            call.close_kept()
            if call.installed >= 0:
                os.close(call.installed)

    def our_open(self, name: str, *args: int | bytes) -> Opened | int:
        """As our_call(), the answer only."""
        return self.our_call(name, *args)[0]

    def end(self) -> None:
        """Let the child exit."""
        os.close(self._tell)
        os.waitpid(self.pid, 0)
        os.close(self._hear)


def judged(judge: Callable[[Any], Any], call: FakeCall) -> Any:
    """What judge_exec() or judge_chdir() says of a call; nothing stays open."""
    try:
        return judge(call)
    finally:
        call.close_kept()


@contextlib.contextmanager
def calling(rules: Ruleset, directory: os.PathLike[str], prepare: Callable[[], object] = nothing) -> Iterator[Caller]:
    """A Caller for the length of a test."""
    caller = Caller(rules, directory, prepare)
    try:
        yield caller
    finally:
        caller.end()


# --- in the child -------------------------------------------------------------------------------------


def lay(args: tuple[int | bytes, ...]) -> list[int]:
    """Put the strings where both sides have them, clear BUFFER; the argument words."""
    ctypes.memset(BUFFER, 0xAA, _AREA)
    words, at = [], 0
    for arg in args:
        if isinstance(arg, int):
            words.append(arg)
            continue
        ctypes.memmove(ctypes.addressof(_texts) + at, arg + b"\0", len(arg) + 1)
        words.append(ctypes.addressof(_texts) + at)
        at += len(arg) + 1
    return words


def native_call(name: str, args: tuple[int | bytes, ...]) -> tuple[int, bytes]:
    result = raw(name, *lay(args))
    return result, _area.raw


def native_open(name: str, args: tuple[int | bytes, ...]) -> Opened | int:
    fd = raw(name, *lay(args))
    if fd < 0:
        return fd
    try:
        return Opened(fd, bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC))
    finally:
        os.close(fd)


def open_as(path: bytes, flags: int, number: int) -> None:
    """Have a path open under a number, inheritable."""
    fd = os.open(path, flags)
    os.dup2(fd, number)
    os.close(fd)


def open_how(flags: int, mode: int = 0, resolve: int = 0) -> bytes:
    """struct open_how"""
    return struct.pack("QQQ", flags, mode, resolve)
