"""F9, F10, G9: a worker that is not ours any more, each named on faulty.py's command line."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from typing import Any

import faults
from faults import wrap_handlers
from plans import W_ARM, W_HITS, W_SEEN

from syd_pool.linux import libc, notify
from syd_pool.linux.numbers import NR
from syd_pool.shm.ring import (
    C_BOUND,
    C_CHROOT,
    C_COMMAND,
    C_DESCRIPTOR,
    C_EXIT,
    C_IDENTITY,
    C_INTERRUPTED,
    C_KILLS,
    C_MAY_BLOCK,
    C_TRACEME,
    C_UNBLOCKED,
    C_VERDICT,
    EXIT_BEHIND,
    W_ANSWERED,
    W_COMPLETED,
    W_DONE,
    W_PHASE,
)
from syd_pool.worker import caller as caller_module
from syd_pool.worker.caller import Caller


def _only_first_worker(evil: Callable[[Caller], Any]) -> None:
    """`evil` in place of the handler of symlink(2), the first W_ARM times only."""

    def wrap(nr: int, handler: Callable[..., Any]) -> Callable[..., Any]:
        def outer(call: Caller) -> Any:
            if faults.words[W_HITS] < faults.words[W_ARM]:
                faults.words[W_HITS] += 1
                return evil(call)
            return handler(call)

        return outer if nr == NR["symlink"] else handler

    wrap_handlers(wrap)


def behind() -> None:
    """Leaves as if it could not catch up with the edits."""
    _only_first_worker(lambda call: os._exit(EXIT_BEHIND))


def evil_kinds() -> None:
    """Completions of kinds that do not exist."""
    _only_first_worker(lambda call: call.complete(0x7777, 0, 1, 2, 3))


def evil_random() -> None:
    """Random bytes as completions."""

    def evil(call: Caller) -> None:
        for _ in range(20):
            done = call.words[W_COMPLETED]
            at = 4096 + done % 64 * 64
            call.page.b[at : at + 64] = os.urandom(64)
            call.words[W_COMPLETED] = done + 1
        os.eventfd_write(call._bell, 1)

    _only_first_worker(evil)


def evil_indices() -> None:
    """Every known kind about slots that are not its own: older ones, later ones, far away."""

    def evil(call: Caller) -> int:
        kinds = (C_VERDICT, C_MAY_BLOCK, C_UNBLOCKED, C_INTERRUPTED, C_DESCRIPTOR, C_IDENTITY, C_CHROOT, C_TRACEME,
                 C_COMMAND, C_KILLS, C_BOUND)  # fmt: skip
        true = call.index
        choice = faults.words[W_HITS] - 1
        call.index = true + (-1, 1, 1 << 40, -(1 << 40))[choice // len(kinds) % 4]
        call.complete(kinds[choice % len(kinds)], 0, 1, 2, 3)
        call.index = true
        return -13

    _only_first_worker(evil)


def evil_identity() -> None:
    """Claims that a call it should emulate changes an identity, to have it continued."""
    _only_first_worker(lambda call: call.complete(C_IDENTITY, 0))


def evil_command() -> None:
    """Claims that a call is a command which the tracer shall carry out, and writes one into the caller."""
    _only_first_worker(lambda call: call.complete(C_COMMAND, 0))


def evil_interrupt() -> None:
    """Claims an interrupt where nothing was announced."""
    _only_first_worker(lambda call: call.complete(C_INTERRUPTED, 0, 9))


def evil_counters() -> None:
    """Says it has published, done and answered more than there is."""

    def evil(call: Caller) -> None:
        which = faults.words[W_HITS] % 3
        if which == 0:
            call.words[W_COMPLETED] = 1 << 60
        elif which == 1:
            call.words[W_DONE] = 1 << 50
        else:
            call.words[W_PHASE] = call.index << 8 | 0xFF
        call.words[W_ANSWERED] = 1 << 39
        os.eventfd_write(call._bell, 1)
        time.sleep(0.05)

    _only_first_worker(evil)


def evil_omission() -> None:
    """Says a call is finished that it never answered."""
    _only_first_worker(lambda call: None)


def evil_descriptor() -> None:
    """strict: hands over a descriptor for another call's id, or without a message, or before the phase."""

    def evil(call: Caller) -> None:
        fd = os.open("/proc/self/status", os.O_RDONLY)
        which = faults.words[W_HITS] % 3
        if which == 0:
            caller_module.send_fd(call._socket, notify.ADDFD.pack(call.id ^ 0x10, 0, 0, 0, 0), fd)
        elif which == 1:
            caller_module.send_fd(call._socket, b"short", fd)
        call.complete(C_DESCRIPTOR, 0, call.id)

    _only_first_worker(evil)


def evil_exit() -> None:
    """Ends the run by C_EXIT although no rule says `exit`: a worker may, but the end must be orderly."""

    def evil(call: Caller) -> int:
        call.complete(C_EXIT, 33)
        return -13

    _only_first_worker(evil)


# --- G9, F9 ----------------------------------------------------------------------------------------


def vandal() -> None:
    """A worker tries to write and to resize everything it shares but its own page; answers what worked."""

    def evil(call: Caller) -> int:
        done = 0
        for name in os.listdir("/proc/self/fd"):
            link = "/proc/self/fd/" + name
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if "memfd:syd" not in target:
                continue
            faults.words[W_SEEN] += 1
            done |= _vandalise(link, int(name), "syd-worker" in target)
        done |= _write_mappings()
        return done

    def wrap(nr: int, handler: Callable[..., Any]) -> Callable[..., Any]:
        return evil if nr == NR["symlink"] else handler

    wrap_handlers(wrap)


def _vandalise(link: str, fd: int, own: bool) -> int:
    done = 0
    for bit, act in (
        (1, lambda: os.ftruncate(fd, 0)),
        (2, lambda: os.ftruncate(fd, 1 << 20)),
        (4, lambda: None if own else os.pwrite(fd, b"\1" * 8, 0)),
        (8, lambda: None if own else os.pwrite(os.open(link, os.O_RDWR), b"\1" * 8, 0)),
        (16, lambda: None if own else mmap.mmap(fd, 4096)),
        (32, lambda: os.truncate(link, 0)),
    ):
        try:
            if act() is not None or (not own and bit > 2) or bit in (1, 2, 32):
                done |= bit
        except OSError:
            pass
    return done


def _write_mappings() -> int:
    """mprotect(2) what is mapped read-only of ours to writable."""
    done = 0
    with open("/proc/self/maps") as maps:
        lines = maps.read().splitlines()
    for line in lines:
        span, flags = line.split()[:2]
        if "memfd:syd" in line and "w" not in flags:
            first, last = (int(part, 16) for part in span.split("-"))
            faults.words[W_SEEN] += 1
            try:
                libc.syscall("mprotect", first, last - first, 3)
                done |= 64
            except OSError:
                pass
    return done
