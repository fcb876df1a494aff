"""Signals and scheduling of real threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from hypothesis import given
from hypothesis import strategies as st

from monitor.facts import Caller, blocked_interval_ms, caller_facts, deliverable, scheduling
from monitor.protocol import WHY_GONE, WHY_SIGNAL

MASKS = st.integers(0, 2**64 - 1)
QUIET = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}


def status(own: int, shared: int, blocked: int, ignored: int, caught: int) -> bytes:
    """The lines of /proc/TID/status that matter."""
    fields = [
        ("SigPnd", own),
        ("ShdPnd", shared),
        ("SigBlk", blocked),
        ("SigIgn", ignored),
        ("SigCgt", caught),
    ]
    return b"Name:\tSigPnd\nState:\tS (sleeping)\n" + b"".join(
        b"%s:\t%016x\n" % (name.encode(), value) for name, value in fields
    )


@given(MASKS, MASKS, MASKS, MASKS, MASKS)
def test_deliverable(own: int, shared: int, blocked: int, ignored: int, caught: int) -> None:
    """Pending, not blocked, not ignored; ignored by default counts only when caught."""
    found_own, found_shared = deliverable(status(own, shared, blocked, ignored, caught))
    for sig in range(1, 65):
        bit = 1 << sig - 1
        heard = not blocked & bit and not ignored & bit and (sig not in QUIET or bool(caught & bit))
        assert bool(found_own & bit) == bool(own & bit and heard)
        assert bool(found_shared & bit) == bool(shared & bit and heard)


def child(code: str) -> subprocess.Popen[bytes]:
    """A Python child that says `ready` when `code` has run, then waits."""
    program = f"import signal,os,sys,time\n{code}\nos.write(1,b'ready')\nsignal.sigwait([64])"
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(5) == b"ready"
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it and take it away."""
    process.kill()
    process.communicate()


def test_nothing_pending() -> None:
    """A thread that only waits is left alone, however often it is looked at."""
    process = child("")
    try:
        caller = Caller(process.pid, 0)
        assert [caller.why() for _ in range(3)] == [0, 0, 0]
        caller.close()
    finally:
        stop(process)


def test_a_blocked_signal_does_not_count() -> None:
    """Pending and blocked: it would not be delivered."""
    process = child("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])")
    try:
        process.send_signal(signal.SIGUSR1)
        caller = Caller(process.pid, 0)
        assert [caller.why() for _ in range(3)] == [0, 0, 0]
        caller.close()
    finally:
        stop(process)


def test_a_pending_signal_of_a_stopped_process() -> None:
    """A real pending signal: of the process at the second look, SIGKILL or death at once."""
    process = child("signal.signal(signal.SIGUSR1, lambda *_: None)")
    try:
        process.send_signal(signal.SIGSTOP)
        while scheduling(process.pid)[0] != "T":
            time.sleep(0.001)
        caller = Caller(process.pid, 0)
        assert caller.why() == 0
        process.send_signal(signal.SIGUSR1)
        assert caller.why() == 0  # another thread might take it
        assert caller.why() == WHY_SIGNAL
        process.kill()
        while scheduling(process.pid)[0] not in "ZX":
            time.sleep(0.001)
        assert caller.why() == WHY_GONE  # a zombie
        process.wait()
        assert caller.why() == WHY_GONE  # nothing at all
        caller.close()
    finally:
        stop(process)


def test_a_recycled_number_is_not_the_caller() -> None:
    """The /proc entry that is held belongs to the thread that died, not to its number."""
    first = child("")
    caller = Caller(first.pid, 0)
    assert caller.why() == 0
    stop(first)
    assert caller.why() == WHY_GONE
    caller.close()
    nobody = Caller(first.pid, 0)
    assert nobody.why() == WHY_GONE


def test_scheduling() -> None:
    """State and CPU time of ourselves; a name full of brackets does not confuse; nobody is X."""
    state, ran, waited = scheduling(os.getpid())
    assert state == "R"
    assert ran > 0
    assert waited >= 0
    process = child("open('/proc/self/comm','w').write(') R (')")
    try:
        deadline = time.monotonic() + 5
        while scheduling(process.pid)[0] != "S" and time.monotonic() < deadline:
            time.sleep(0.001)
        assert scheduling(process.pid)[0] == "S"
        assert caller_facts(process.pid)["cmd"] == b") R ("
    finally:
        stop(process)
    assert scheduling(process.pid) == ("X", 0, 0)
    assert caller_facts(process.pid) == {}


@given(st.floats(0, 10**7), st.floats(0, 10**4))
def test_the_sweep_stays_cheap(age: float, sweep: float) -> None:
    """At most an eighth of the time; soon while the call is young (H4: 50 ms)."""
    interval = blocked_interval_ms(age, sweep, 5)
    assert interval >= 8 * sweep
    assert sweep > 2 or interval <= 20
