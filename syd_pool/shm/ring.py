"""The rings between the tracer and one worker.

        tracer                                             worker
          |  request memfd: head, slots   (tracer writes)    |
          |------------------------------------------------->|   doorbell: eventfd, rung if all was done
          |  worker memfd: taken, done, phase, completions   |
          |<-------------------------------------------------|   doorbell: eventfd, rung for completions

Who writes each word: the request memfd is written by the tracer alone and sealed against any later
writable mapping; the worker memfd is written by its worker alone.  Nothing is shared between workers.

Memory order (x86-64, TSO): a payload is stored first and published by one aligned native 8-byte
store through a cast memoryview, which is never torn (kernel-facts 2.2; tests/shm/test_tear.py).  The
only store-then-load pair is the doorbell's: `done` against `head`; the monitor rings again for a slot that
nobody took for BACKSTOP_MS, instead of a fence Python does not have.

Indices are 64-bit and only grow; slot `i` lives at `i % SLOTS`.  A slot carries its own index, so a
stale one shows.  A ring of a dead process is thrown away, never reused (I8).
"""

from __future__ import annotations

from mmap import ACCESS_READ, MADV_DONTFORK, MAP_SHARED, mmap
from os import pwrite
from struct import Struct

from syd_pool.linux.libc import F_SEAL_FUTURE_WRITE, F_SEAL_SEAL, add_seals, sealed_memfd

SLOTS = 256
SLOT_SIZE = 128
HEADER = 4096
REQUEST_SIZE = HEADER + SLOTS * SLOT_SIZE

# request memfd, 8-byte words of the header; the tracer writes all of them
Q_HEAD = 0  # slots published
Q_ACK = 8  # the last `may block` announcement that was acknowledged
Q_SKIP = 9  # where the worker goes on after that announcement: slots before it went elsewhere
Q_READ = 11  # completions the tracer has read
Q_STOP = 10  # 1: finish what you hold and exit
Q_BELL = 12  # ring the tracer when so many slots are finished
NEVER = (1 << 64) - 1  # ... it does not wait for that

# kinds of slot
NOTIFY = 1
EXEC = 2  # seccomp stop of execve or execveat: judge
EXEC_DONE = 3  # exec event: verify what was mapped
CHDIR = 4  # seccomp stop of chdir or fchdir: judge
CHDIR_DONE = 5  # syscall exit stop: verify the new directory
MAP = 7  # seccomp stop of a mmap with PROT_EXEC of a file: judge
MAP_DONE = 8  # its syscall exit stop: verify what can be executed

# A slot: kind, run, index, policy position, tgid, exec generation, credential generation, flags,
# then struct seccomp_notif (80 bytes), then one word of facts about the run.
SLOT = Struct("<IIQQIIII80sQ")
S_HEAD = Struct("<IIQQIIII")
S_NOTIF = S_HEAD.size  # 40
# the same slot with the notification's fields apart: one unpack on the way of a call
SLOT_FIELDS = Struct("<IIQQIII4x" + "QI4xiI8x6Q" + "Q")
S_FACTS = 120
F_CHROOTED = 1  # the command has called chroot(2): no path is allowed any more
# The upper half of the facts: how often any caller has called umask(2).  While it stands still, so does every
# umask; 0 is the umask the run began with, UMASK_UNKNOWN that nobody looks.
UMASK_SHIFT = 32
UMASK_UNKNOWN = 0xFFFFFFFF
assert SLOT.size == SLOT_FIELDS.size == SLOT_SIZE

# worker memfd, 8-byte words of the header; the worker writes all of them
W_TAKEN = 0  # index + 1 of the slot last taken
W_DONE = 8  # slots finished, in order
W_PHASE = 9  # index << 8 | phase of the call in hand, see below
W_NUMBER = 10  # two-step: the descriptor number that was installed: installed(index, number)
W_ANSWERED = 11  # calls this worker answered; the one in hand too, before W_DONE (tracer/ledger.py)
W_GONE = 12  # calls whose caller was gone, likewise
W_COMPLETED = 16  # completions published
W_BLOCKS = 17  # `may block` announcements made
W_DROPPED = 20  # log lines that found the log full
W_READY = 19  # 1 when its filter is installed

# phases of the call in hand (I3), as bits: a descriptor may follow an effect (O_CREAT)
TAKEN = 0  # may be dispatched again
EFFECT = 1  # a non-idempotent call has been announced
DESCRIPTOR = 2  # ADDFD with SEND is under way: dying here leaves the outcome unknown
HANDED = 8  # strict: the descriptor was handed to the tracer, which answers

COMPLETIONS = 64
COMPLETION_SIZE = 64
WORKER_SIZE = HEADER + COMPLETIONS * COMPLETION_SIZE
# kind, errno, index, then five words that depend on the kind
COMPLETION = Struct("<Iiq5Qq")
assert COMPLETION.size == COMPLETION_SIZE

# kinds of completion
C_VERDICT = 1  # errno; EXEC: exe dev, ino, loader dev, ino; CHDIR: dev, ino
C_MAY_BLOCK = 2  # value: number of the announcement
C_UNBLOCKED = 3  # the announced call has ended by itself
C_INTERRUPTED = 4  # ... or by our signal: the tracer answers
C_DESCRIPTOR = 5  # strict: a descriptor waits in the socket
C_IDENTITY = 6  # the caller changes its identity with this call
C_EXIT = 7  # action `exit`: errno
C_CHROOT = 9  # the caller may chroot: the tracer notes it and answers
C_TRACEME = 10  # the caller asks to be traced: the tracer remembers whom it told so, and answers
C_KILLS = 13  # the rules kill the caller (action `kill`): SegvGuard counts it
C_READY = 8  # the worker is confined and takes slots
C_BOUND = 12  # the caller's socket is bound: the tracer lets others connect to it, and answers
C_CONNECTED = 14  # a Unix socket of the caller's is connected: its cookie, who the caller is, its inode
C_COMMAND = 11  # the caller speaks to its sandbox: the tracer reads what it says and answers

BACKSTOP_MS = 100
EXIT_BEHIND = 75  # EX_TEMPFAIL: of a worker too far behind the journal of edits; its calls go to others


def installed(index: int, number: int) -> int:
    """W_NUMBER: a descriptor's number and whose call it was installed for, in one store; never 0."""
    return (index + 1 & 0xFFFFFFFF) << 32 | number


def number_of(word: int, index: int) -> int:
    """The number in a word of installed(), if it is slot `index`'s; else -1."""
    return word & 0xFFFFFFFF if word and word >> 32 == index + 1 & 0xFFFFFFFF else -1


class Ring:
    """One mapped memfd as words and bytes.

    `q` are its 8-byte words, `b` its bytes.  The mapping is not inherited by a fork
    (MADV_DONTFORK), so that a worker never has a sibling's ring in its address space.
    """

    __slots__ = ("b", "fd", "map", "q")

    def __init__(self, fd: int, size: int, writable: bool) -> None:
        self.fd = fd
        self.map = mmap(fd, size, MAP_SHARED) if writable else mmap(fd, size, access=ACCESS_READ)
        self.map.madvise(MADV_DONTFORK)
        self.b = memoryview(self.map)
        self.q = self.b.cast("Q")

    def close(self) -> None:
        """Unmap.  Never call it in a fork of the process that mapped: nothing is mapped there."""
        self.q.release()
        self.b.release()
        self.map.close()


def create_request(first: int = 0) -> Ring:
    """The tracer's side of a request ring: mapped here writable, for everybody later read-only.

    first: index of the first slot; 0 but in tests of the wrap-around.
    """
    fd = sealed_memfd("syd-request", REQUEST_SIZE)
    ring = Ring(fd, REQUEST_SIZE, True)
    add_seals(fd, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)
    ring.q[Q_HEAD] = ring.q[Q_SKIP] = first
    ring.q[Q_BELL] = NEVER
    return ring


def create_worker_page(first: int = 0) -> Ring:
    """The memfd that one worker writes; the tracer reads it."""
    fd = sealed_memfd("syd-worker", WORKER_SIZE)
    for word in (W_TAKEN, W_DONE):
        pwrite(fd, first.to_bytes(8, "little"), word * 8)
    return Ring(fd, WORKER_SIZE, False)
