"""The kernel's own answer, to compare ours with: calls made in a forked child, and what they left behind."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import stat
from typing import TYPE_CHECKING

from syd_pool.linux.numbers import NR
from syd_pool.policy import Ruleset
from syd_pool.policy.forced import GUARDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_libc = ctypes.CDLL(None, use_errno=True)
Answer = int  # a result, or -errno


def unguarded() -> Ruleset:
    """Profile off, and every guard of files lifted: what is left must be as natively."""
    rules = Ruleset()
    rules.profile("off")
    rules.set_options(dict.fromkeys(GUARDS, True))
    return rules


def nothing() -> None:
    """What a caller prepares when it has nothing to prepare."""


def raw(name: str, *args: int | bytes) -> Answer:
    """One system call of this process: its result or -errno."""
    words = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in args]
    result: int = _libc.syscall(ctypes.c_long(NR[name]), *words)
    return result if result >= 0 else -ctypes.get_errno()


def in_child(
    directory: str | os.PathLike[str], name: str, *args: int | bytes, prepare: Callable[[], object] = nothing
) -> Answer:
    """One system call of a child whose working directory is `directory`: 0 or -errno."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.chdir(directory)
            saved = os.dup2(writing, 200)
            prepare()
            os.write(saved, b"%d" % raw(name, *args))
        finally:
            os._exit(0)
    os.close(writing)
    answer = os.read(reading, 20)
    os.close(reading)
    os.waitpid(pid, 0)
    return int(answer)


class Child:
    """A caller that does nothing but be there."""

    def __init__(self, pid: int, leash: int):
        self.pid = pid
        self._leash = leash

    def end(self) -> signal.Signals | None:
        """Let it exit; the signal that ended it before that, if one did."""
        os.close(self._leash)  # a signal that is already pending comes first
        status = os.waitpid(self.pid, 0)[1]
        return signal.Signals(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else None


def fork_caller(
    directory: str | os.PathLike[str],
    prepare: Callable[[], object] = nothing,
    limits: Mapping[int, tuple[int, int]] | None = None,
) -> Child:
    """A child in `directory`, ready to be looked at; to be ended by end()."""
    ready, tell_ready = os.pipe()
    leash, our_end = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.chdir(directory)
            os.close(our_end)
            waits = os.dup2(leash, 200)
            tells = os.dup2(tell_ready, 201)
            os.close(leash)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            prepare()
            for limit, values in (limits or {}).items():
                resource.setrlimit(limit, values)
            os.write(tells, b"!")
            os.read(waits, 1)
        finally:
            os._exit(0)
    os.close(tell_ready)
    os.close(leash)
    assert os.read(ready, 1) == b"!", "the caller could not be prepared"
    os.close(ready)
    return Child(pid, our_end)


def snapshot(directory: str | os.PathLike[str]) -> dict[str, tuple[object, ...]]:
    """Everything below `directory` that a call on names can change: type, mode, links, owner, content."""
    found: dict[str, tuple[object, ...]] = {}
    top = os.fsencode(directory)
    for where, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(where, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                try:
                    with open(path, "rb") as file:
                        content = file.read()
                except PermissionError:  # of a user's own file with mode 0
                    content = "unreadable"
            row = (oct(status.st_mode), status.st_nlink, status.st_uid, status.st_gid, content)
            found[os.fsdecode(os.path.relpath(path, top))] = row
    return found
