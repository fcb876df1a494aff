"""What can be broken: each function here patches one place, and is named on faulty.py's command line.

Everything runs in the process under test: in the worker after its filter is installed, so a fault uses only
calls the filter lets through (tgkill of itself, a bad pointer, abort, exit, and one call that is forbidden).
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from plans import DEATHS, EFFECTS, PLAN, POINTS, W_ARM, W_CURRENT, W_HITS, W_LENGTH, W_SEEN

import monitor.main
from syd_pool.boundary import command_filter, spawn
from syd_pool.emulate import create, mkdir, rename
from syd_pool.emulate import open as opening
from syd_pool.linux import libc, notify
from syd_pool.linux.numbers import NR
from syd_pool.shm.ring import (
    CHDIR,
    EXEC,
    EXEC_DONE,
    W_ANSWERED,
)
from syd_pool.tracer import deaths, dispatch, run
from syd_pool.worker import caller as caller_module
from syd_pool.worker import lookup
from syd_pool.worker import main as worker_main
from syd_pool.worker.caller import Caller

words: memoryview  # of the state file


def apply(name: str, path: str) -> None:
    """Map the state and patch."""
    global words
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    words = memoryview(mmap.mmap(fd, 0)).cast("Q")
    os.close(fd)
    import evil
    import failpoints

    known = {**vars(evil), **vars(failpoints), **globals()}
    for part in name.split(","):
        known[part]()


# --- wrapping --------------------------------------------------------------------------------------


def around(
    owner: Any, name: str, before: Callable[[], object] | None, after: Callable[[], object] | None = None
) -> None:
    """Call `before` and `after` around a function or method of `owner`."""
    inner = getattr(owner, name)

    def outer(*args: Any, **more: Any) -> Any:
        if before:
            before()
        result = inner(*args, **more)
        if after:
            after()
        return result

    setattr(owner, name, outer)


class Failed(OSError):
    """What a failpoint raises."""


def fails(owner: Any, name: str, errno: int = 5) -> None:
    """The function raises OSError."""

    def outer(*args: Any, **more: Any) -> Any:
        words[W_HITS] += 1
        raise Failed(errno, f"failpoint {name}")

    setattr(owner, name, outer)


def wrap_handlers(wrap: Callable[[int, Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace every handler of the table by wrap(number, handler)."""
    inner = run.handlers

    def outer(*args: Any) -> dict[int, Any]:
        return {nr: wrap(nr, handler) for nr, handler in inner(*args).items()}

    run.handlers = outer


# --- dying -----------------------------------------------------------------------------------------


def die(how: str) -> None:
    """End this worker, its filter being on."""
    if how in ("exit", "leave"):
        os._exit(how == "exit")
    if how == "abrt":
        os.abort()
    if how == "segv":
        ctypes.string_at(1)
    if how == "sys":
        libc.syscall("socket", 1, 1, 0)
    libc.syscall("tgkill", os.getpid(), os.getpid(), 9)
    raise AssertionError("still alive")


current: list[Caller] = []  # the one Caller of this worker


def note_caller() -> None:
    """Know the Caller of this worker, for wrappers of functions that are not given it."""
    inner = Caller.__init__

    def outer(self: Caller, *args: Any) -> None:
        current.append(self)
        inner(self, *args)

    Caller.__init__ = outer  # type: ignore[method-assign]


RECENT = 16  # victims among which a thread is looked for: ids are used again


def entry_of(tid: int) -> int:
    """Where the plan's entry for this victim begins; 0 if it is none."""
    last = words[W_CURRENT]
    for number in range(last - 1, max(-1, last - RECENT), -1):
        at = PLAN + number * 4
        if words[at + 3] >> 1 == tid:
            return at
    return 0


def meet(call: Caller) -> None:
    """The next victim comes with its call: from now on the next entry is this thread's, whichever worker it meets.

    Victims come one after the other, but a worker that has answered one may still be at it when the next one calls.
    """
    number = words[W_CURRENT]
    if number < words[W_LENGTH] and words[PLAN + number * 4] == call.nr and not entry_of(call.tid):
        words[PLAN + number * 4 + 3] = call.tid << 1
        words[W_CURRENT] = number + 1


def here(point: str) -> Callable[[], None]:
    """A wrapper's half: act if the entry of whose call this is names this point, once."""
    code = POINTS.index(point)

    def act() -> None:
        at = entry_of(current[-1].tid) if current else 0
        if not at or words[at] != current[-1].nr or words[at + 1] != code or words[at + 3] & 1:
            return
        words[at + 3] |= 1
        reached(DEATHS[words[at + 2]])

    return act


reached: Callable[[str], None] = die


def effects_of(owner: Any, name: str) -> None:
    """Count what the function does by the last component's number: /dir/vN."""
    inner = getattr(owner, name)

    def outer(directory: int, path: bytes, *rest: Any) -> Any:
        result = inner(directory, path, *rest)
        last = path[path.rfind(b"/") + 1 :]
        if last[:1] == b"v" and last[1:].isdigit() and result >= 0:
            words[EFFECTS + int(last[1:])] += 1
        return result

    setattr(owner, name, outer)


def plan() -> None:
    """Die at the points of the plan, one after the other (tests/tracer/test_deaths.py)."""
    note_caller()
    deaths.POISON_DEATHS = 1 << 40  # poison has tests of its own
    inner = run.handlers
    taken = here("taken")

    def handlers(*args: Any) -> dict[int, Any]:
        def wrap(handler: Callable[..., Any]) -> Callable[..., Any]:
            def outer(call: Caller) -> Any:
                meet(call)
                taken()
                return handler(call)

            return outer

        return {nr: wrap(handler) for nr, handler in inner(*args).items()}

    run.handlers = handlers
    effects_of(mkdir, "raw_mkdirat")
    effects_of(create, "raw_openat2")
    effects_of(rename, "raw_renameat2")
    around(Caller, "string", here("read-before"), here("read-after"))
    for owner, name in ((lookup, "find"), (lookup, "entry"), (opening, "quick")):
        around(owner, name, None, here("looked-up"))
    for owner, name in ((opening, "_judge"), (mkdir, "may_make")):
        around(owner, name, None, here("judged"))
    around(Caller, "valid", None, here("valid"))
    around(Caller, "begin_effect", here("begin-before"), here("begin-after"))
    for owner, name in ((mkdir, "raw_mkdirat"), (create, "raw_openat2"), (rename, "raw_renameat2")):
        around(owner, name, None, here("effect-after"))
    opening.raw_openat = _really(opening.raw_openat, here("effect-after"))
    around(Caller, "_addfd", here("addfd-before"), here("addfd-after"))
    around(caller_module, "send_fd", here("hand-before"), here("hand-after"))
    around(Caller, "_complete", here("complete-before"), here("complete-after"))
    around(Caller, "_send", here("send-before"), here("send-after"))
    around(worker_main, "ioctl", here("send-before"), here("send-after"))
    born = Caller.__init__

    def watched(self: Caller, *args: Any) -> None:
        born(self, *args)
        self.words = _Counting(self.words)  # type: ignore[assignment]

    Caller.__init__ = watched  # type: ignore[method-assign]
    for name in ("close_kept", "give_back"):
        around(Caller, name, here("closing"))
    for kind, function in list(worker_main._STOPS.items()):
        worker_main._STOPS[kind] = _stop(function, here(f"stop{kind}-before"), here(f"stop{kind}-after"))


class _Counting:
    """The words of a worker's page, with something to happen around the count of an answer."""

    def __init__(self, words: memoryview) -> None:
        self.inner = words
        self.before, self.after = here("count-before"), here("count-after")

    def __getitem__(self, at: int) -> int:
        return self.inner[at]

    def __setitem__(self, at: int, value: int) -> None:
        if at != W_ANSWERED:
            self.inner[at] = value
            return
        self.before()
        self.inner[at] = value
        self.after()


def _really(inner: Callable[..., int], after: Callable[[], None]) -> Callable[..., int]:
    """raw_openat() but not when it is only asked which flags there are (directory -1)."""

    def outer(directory: int, *args: Any) -> int:
        result = inner(directory, *args)
        if directory != -1:
            after()
        return result

    return outer


def _stop(function: Callable[..., Any], before: Callable[[], None], after: Callable[[], None]) -> Callable[..., Any]:
    def outer(call: Caller) -> Any:
        meet(call)
        before()
        verdict = function(call)
        after()
        return verdict

    return outer


def _kill_target(_how: str) -> None:
    """Kill the caller, and wait until its call is gone."""
    call = current[-1]
    pidfd = libc.pidfd_open(call.tgid)
    libc.pidfd_send_signal(pidfd, 9)
    os.close(pidfd)
    end = time.monotonic() + 2
    while call.id and time.monotonic() < end and notify.valid(call.listener, call.id):
        time.sleep(0.0005)


def kill_targets() -> None:
    """As plan(), but it is the caller that dies (B2)."""
    global reached
    reached = _kill_target
    plan()


# --- G5: poison ------------------------------------------------------------------------------------


POISON = {NR["symlink"]: "segv", NR["truncate"]: "exit", NR["rmdir"]: "leave", NR["link"]: "kill"}


def poison() -> None:
    """Calls that always cost the worker; judging and verifying the execution of .../poison*, and chdir there, too."""

    def wrap(nr: int, handler: Callable[..., Any]) -> Callable[..., Any]:
        def outer(call: Caller) -> Any:
            words[W_HITS] += 1
            die(POISON[nr])

        return outer if nr in POISON else handler

    wrap_handlers(wrap)
    for kind, function in list(worker_main._STOPS.items()):
        worker_main._STOPS[kind] = _poisoned(kind, function)


def _poisoned(kind: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """.../poison at the judgement, .../poison-after at the verification."""

    def outer(call: Caller) -> Any:
        if kind in (EXEC, CHDIR):
            bad = call.nr in (NR["execve"], NR["chdir"]) and call.string(call.args[0]).endswith(b"/poison")
        else:
            bad = b"/poison-after" in os.readlink(f"/proc/{call.tid}/{'exe' if kind == EXEC_DONE else 'cwd'}").encode()
        if bad:
            words[W_HITS] += 1
            die("segv")
        return function(call)

    return outer


# --- F2, G7: a stalled worker ----------------------------------------------------------------------


def userfaultfd() -> None:
    """Let the command have userfaultfd(2), to stall a worker in its own memory."""
    inner = command_filter.command_filters

    def outer(*args: Any) -> Any:
        filters = inner(*args)
        number = NR["userfaultfd"]
        filters.main = [(nr, 0x7FFF0000 if nr == number else action, c) for nr, action, c in filters.main]
        return filters

    spawn.command_filters = outer


def sleepy() -> None:
    """Reading the memory of a caller of symlink(2) never ends (a page that never comes)."""
    inner = Caller.string

    def outer(self: Caller, address: int) -> bytes:
        if self.nr == NR["symlink"]:
            words[W_HITS] += 1
            time.sleep(1000)
        return inner(self, address)

    Caller.string = outer  # type: ignore[method-assign]


def deaf() -> None:
    """A worker that does not hear of edits: what the test of edits must notice."""
    worker_main._catch_up = lambda caller, known, position: None


# --- F11 -------------------------------------------------------------------------------------------


def rare() -> None:
    """Rare paths on every call, under the worker's filter: gc, malloc_trim, an exception, a traceback."""
    trim = ctypes.CDLL(None).malloc_trim

    def wrap(nr: int, handler: Callable[..., Any]) -> Callable[..., Any]:
        def outer(call: Caller) -> Any:
            words[W_HITS] += 1
            gc.collect()
            block = [bytearray(1 << 20) for _ in range(4)]
            del block
            trim(0)
            try:
                raise KeyError(nr)
            except KeyError:
                sys.exc_info()
            os.getpid(), time.time(), time.localtime(), os.urandom(4)
            return handler(call)

        return outer

    wrap_handlers(wrap)


def raising() -> None:
    """Every handler raises what it must not, for a process whose umask is 0777 (the payload's sign)."""

    def wrap(nr: int, handler: Callable[..., Any]) -> Callable[..., Any]:
        def outer(call: Caller) -> Any:
            if nr != NR["getdents64"] and call.umask() == 0o777:
                words[W_HITS] += 1
                raise ValueError("a bug")
            return handler(call)

        return outer

    wrap_handlers(wrap)


# --- G12 -------------------------------------------------------------------------------------------


def vanishing() -> None:
    """Kill the process that W_ARM names between poll and RECV."""
    inner = dispatch.receive

    def outer(this: Any, listener: int) -> None:
        victim = words[W_ARM]
        if victim and words[W_SEEN] != victim:
            try:
                if open(f"/proc/{victim}/syscall").read().split()[0] == str(NR["rmdir"]):
                    words[W_SEEN] = victim
                    words[W_HITS] += 1
                    os.kill(victim, 9)
                    while open(f"/proc/{victim}/stat").read().rsplit(")", 1)[1].split()[0] not in "ZXt":
                        time.sleep(0.0001)
            except (OSError, IndexError):
                pass
        inner(this, listener)

    dispatch.receive = outer


# --- the monitor -----------------------------------------------------------------------------------


def dying_monitor() -> None:
    """Every monitor dies as soon as it is born."""

    def outer(*args: Any) -> None:
        words[W_HITS] += 1
        os._exit(3)

    monitor.main.run = outer


def nothing() -> None:
    """No fault: the control."""
