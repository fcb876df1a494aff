"""The control page: what the tracer tells everybody about the run and its workers.

One memfd, written by the tracer alone and sealed against any later writable mapping (G9: a worker
cannot set should-exit); the monitor and the view map it read-only.

    bytes 0..4095      header, 8-byte words H_*
    bytes 4096..69631  RECORDS records of 64 bytes, one per worker index, 8-byte words R_*

Who writes: the tracer, every word, through `cast('Q')` stores only (never torn on x86-64).  A record
is published by R_STATE, one word that carries generation and state: `enter` and `block` store the
other words first.  A reader reads R_STATE, the others, R_STATE again, and starts over if it changed.

On the way of a call the tracer stores one word here: R_HEAD (`page.q[record(index) + R_HEAD]`).
Whether a worker is busy is not a state but R_HEAD against W_DONE of the worker's own page.
"""

from __future__ import annotations

from syd_pool.linux.libc import F_SEAL_FUTURE_WRITE, F_SEAL_SEAL, add_seals, sealed_memfd
from syd_pool.shm.ring import Ring

RECORDS = 1024
RECORD_WORDS = 8
HEADER = 4096
SIZE = HEADER + RECORDS * RECORD_WORDS * 8
VERSION = 1

# header, first cache line: the run
H_EXIT = 0  # 1: everybody leaves
H_SLOTS = 2  # records ever used: indices are below it
H_BACKLOG = 3  # calls received that no ring had room for
H_VERSION = 4
H_TRACER = 5  # pid
H_NPROC = 6
H_NPROC_MAX = 7
# second: counters
H_AGAIN = 9  # slots written a second time, after a death or a `may block`
H_GONE = 11  # calls whose caller was gone
H_EIO = 12  # calls whose worker died after `effect started`
H_UNKNOWN = 13  # calls whose caller was killed: died in the descriptor phase
H_BLOCKED = 14  # `may block` announcements
H_INTERRUPTED = 15
# third: the pool
H_SPAWNED = 16
H_RETIRED = 18
H_KILLED = 19  # by request of the monitor
H_DIED = 20  # any other death
H_DENIED = 21  # poison calls denied
H_MONITORS = 22  # monitors started
H_LOG_DROPPED = 23  # log lines the tracer could not hand over
# fourth: our processes that have no record
H_KEEPER = 24  # pid
H_MONITOR = 25  # pid, 0 while there is none
H_OUTSIDE = 27  # syd_exec, likewise
H_IPC = 28  # syd_ipc, likewise
H_PRINTER = 29  # syd_show, likewise
H_LOADER = 30  # syd_load, likewise
H_ELDEST = 26  # pid of the command's first process, which is not ours

# a record
R_PID = 0
R_STATE = 1  # generation << 8 | state; published last
R_HEAD = 2  # slots written to its request ring
R_SINCE = 3  # CLOCK_MONOTONIC, ns, of the last change of state
R_TID = 4  # BLOCKED: the thread whose call it is
R_SEQ = 5  # BLOCKED: number of the announcement (W_BLOCKS)
R_CPU = 6  # CPU it is pinned on + 1, 0 if it is not

# states
EMPTY = 0
STARTING = 1  # forked, W_READY not yet seen
READY = 2  # takes slots, idle or busy
BLOCKED = 3  # announced `may block`: its untaken slots went elsewhere
RETIRING = 4  # finishes what it holds, then exits
DEAD = 5  # reaped; the index may be used again with the next generation
STATES = ("empty", "starting", "ready", "blocked", "retiring", "dead")


def create_control(tracer: int, nproc: int, nproc_max: int) -> Ring:
    """The tracer's control page: mapped here writable, for everybody later read-only."""
    fd = sealed_memfd("syd-control", SIZE)
    page = Ring(fd, SIZE, True)
    add_seals(fd, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)
    q = page.q
    q[H_VERSION] = VERSION
    q[H_TRACER] = tracer
    q[H_NPROC] = nproc
    q[H_NPROC_MAX] = nproc_max
    return page


def map_control(fd: int) -> Ring:
    """A reader's mapping.  Raises ValueError when the page is of another version."""
    page = Ring(fd, SIZE, False)
    if page.q[H_VERSION] != VERSION:
        raise ValueError(f"control page: version {page.q[H_VERSION]}, not {VERSION}")
    return page


def record(index: int) -> int:
    """Where the words of worker `index` begin in `page.q`."""
    return 512 + index * 8  # HEADER // 8, RECORD_WORDS


def enter(page: Ring, index: int, pid: int, generation: int, now: int, cpu: int = 0) -> None:
    """The tracer forked worker `index`: a fresh record, STARTING."""
    q, at = page.q, record(index)
    q[at + R_STATE] = generation << 8 | EMPTY
    q[at + R_PID] = pid
    q[at + R_HEAD] = q[at + R_TID] = q[at + R_SEQ] = 0
    q[at + R_SINCE] = now
    q[at + R_CPU] = cpu
    q[at + R_STATE] = generation << 8 | STARTING
    if q[H_SLOTS] <= index:
        q[H_SLOTS] = index + 1


def change(page: Ring, index: int, state: int, now: int) -> None:
    """Worker `index` goes to `state` (READY, RETIRING, DEAD; for BLOCKED see `block`)."""
    q, at = page.q, record(index)
    q[at + R_SINCE] = now
    q[at + R_STATE] = q[at + R_STATE] & ~0xFF | state


def block(page: Ring, index: int, tid: int, seq: int, now: int) -> None:
    """Worker `index` announced that the call of thread `tid` may block."""
    q, at = page.q, record(index)
    q[at + R_TID] = tid
    q[at + R_SEQ] = seq
    change(page, index, BLOCKED, now)


def snapshot(page: Ring, index: int) -> tuple[int, int, int, int, int, int, int]:
    """A consistent (pid, generation, state, head, since, tid, seq) of one record, for readers.

    Gives up after a few changes under its eyes: the last read stands, the next look sees better.
    """
    q, at = page.q, record(index)
    for _ in range(4):
        word = q[at + R_STATE]
        pid, head, since = q[at + R_PID], q[at + R_HEAD], q[at + R_SINCE]
        tid, seq = q[at + R_TID], q[at + R_SEQ]
        if word == q[at + R_STATE]:
            break
    return pid, word >> 8, word & 0xFF, head, since, tid, seq


class OwnPids:
    """Our processes, which do not exist for the command: `pid in own_pids`.

    An entry goes before its process is reaped, so a recycled pid is never taken for ours.
    """

    __slots__ = ("_q",)

    def __init__(self, page: Ring) -> None:
        self._q = page.q

    def family(self) -> tuple[int, int, int]:
        """(keeper, tracer, eldest): whose children are whose tells our processes from the command's."""
        return self._q[H_KEEPER], self._q[H_TRACER], self._q[H_ELDEST]

    def __contains__(self, pid: object) -> bool:
        q = self._q
        if pid in (q[H_TRACER], q[H_KEEPER], q[H_MONITOR], q[H_OUTSIDE], q[H_IPC], q[H_PRINTER], q[H_LOADER]):
            return pid != 0
        for index in range(q[H_SLOTS]):
            at = record(index)
            if q[at + R_PID] == pid and (q[at + R_STATE] & 0xFF) not in (EMPTY, DEAD):
                return True
        return False
