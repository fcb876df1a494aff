"""What /proc says about one thread: would a signal be delivered, does it run, is it stopped.

Source of the fields: proc_pid_status(5), proc_pid_stat(5), Documentation/scheduler/sched-stats.rst.
Every reader copes with a thread that vanishes between two system calls.
"""

from __future__ import annotations

import os
from errno import ENOENT, ESRCH

from monitor.protocol import WHY_GONE, WHY_SIGNAL

_KILL = 1 << 8  # SIGKILL in a mask
# CHLD, CONT, URG, WINCH: ignored unless caught.  A traced thread has them pending all the same,
# because the kernel drops no signal a tracer may want to see (sig_ignored() in kernel/signal.c).
_QUIET = 1 << 16 | 1 << 17 | 1 << 22 | 1 << 27


def _mask(status: bytes, name: bytes) -> int:
    at = status.find(name)
    return int(status[at + len(name) : at + len(name) + 16], 16) if at >= 0 else 0


def deliverable(status: bytes) -> tuple[int, int]:
    """The signals of /proc/TID/status that would be delivered: (the thread's own, its process's)."""
    caught = _mask(status, b"SigCgt:\t")
    quiet = _mask(status, b"SigBlk:\t") | _mask(status, b"SigIgn:\t") | _QUIET & ~caught
    return _mask(status, b"SigPnd:\t") & ~quiet, _mask(status, b"ShdPnd:\t") & ~quiet


class Caller:
    """The thread whose call is blocked, held by a descriptor of its /proc entry.

    The descriptor stays with the thread that had the number when it was opened: a recycled number is
    not mistaken for it, the read fails with ESRCH.
    """

    __slots__ = ("_fd", "_shared", "since", "tid")

    def __init__(self, tid: int, now: int) -> None:
        self.tid = tid
        self.since = now
        self._shared = 0
        self._fd = -1

    def why(self) -> int:
        """WHY_SIGNAL, WHY_GONE, or 0: nothing ends its wait yet.

        A signal sent to the whole process may be taken by another thread in the next moment: it counts
        at the second look that finds it.
        """
        try:
            if self._fd < 0:
                self._fd = os.open(b"/proc/%d/status" % self.tid, os.O_RDONLY | os.O_CLOEXEC)
            status = os.pread(self._fd, 4096, 0)
        except OSError as error:
            return WHY_GONE if error.errno in (ENOENT, ESRCH) else 0
        own, shared = deliverable(status)
        if own & _KILL or b"State:\tZ" in status or b"State:\tX" in status:
            return WHY_GONE
        again, self._shared = self._shared & shared, shared
        return WHY_SIGNAL if own or again else 0

    def close(self) -> None:
        """Let go of the /proc entry."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def scheduling(pid: int) -> tuple[str, int, int]:
    """(state letter, ns on a CPU, ns waiting for one) of process `pid`; ("X", 0, 0) when it is gone."""
    try:
        with open(b"/proc/%d/stat" % pid, "rb", buffering=0) as file:
            stat = file.read(1024)
        with open(b"/proc/%d/schedstat" % pid, "rb", buffering=0) as file:
            ran, waited, _ = file.read(128).split()
    except (OSError, ValueError):
        return "X", 0, 0
    # the second field is the name in brackets and may hold anything, brackets too
    return chr(stat[stat.rindex(b")") + 2]), int(ran), int(waited)


def blocked_interval_ms(youngest_ms: float, sweep_ms: float, least_ms: float) -> float:
    """How long to wait before the callers of blocked calls are looked at again.

    A sweep may cost an eighth of the time at most; after two seconds of waiting, 20 ms are soon enough.
    """
    return max(least_ms if youngest_ms < 2000 else 20.0, 8 * sweep_ms)


def caller_facts(pid: int) -> dict[str, bytes | int]:
    """cmd, cwd, uid and tty of a log line's `pid`: what can still be read of it."""
    facts: dict[str, bytes | int] = {}
    base = b"/proc/%d/" % pid
    try:
        fd = os.open(base + b"stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            facts["uid"] = os.fstat(fd).st_uid
            stat = os.read(fd, 1024)
        finally:
            os.close(fd)
        facts["cmd"] = stat[stat.index(b"(") + 1 : stat.rindex(b")")]
        tty = int(stat[stat.rindex(b")") + 2 :].split()[4])
        if tty:
            facts["tty"] = tty
        facts["cwd"] = os.readlink(base + b"cwd")
    except (OSError, ValueError, IndexError):
        pass
    return facts
