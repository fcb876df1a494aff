"""What the tracer and the monitor say to each other.

    tracer                                                        monitor
      |  control page (memfd, written by the tracer alone)           |
      |------------------------------------------------------------->|  syd_pool/shm/control.py
      |  WAKE, NEW_WORKER (+ page), DEAD, EXIT, PING, STATS (+ fd)    |
      |------------------------------------------------------------->|
      |  SPAWN, RETIRE, KILL, INTERRUPT, KICK, REVIVE                 |  one SEQPACKET pair
      |<-------------------------------------------------------------|
      |  monitor page (memfd, written by the monitor alone)          |
      |<-------------------------------------------------------------|  M_* below

The monitor decides, the tracer does.  A request is advice about the state at the time it was sent:
the tracer drops it when the worker's generation, or what the argument names, is no longer true.
Nothing here is answered and nothing blocks: a full socket loses a request, and the next look at the
pages makes it again.  Lost WAKEs cost at most one tick (TICK_MS, or IDLE_MS when nothing moves).

Constants and one struct; the tracer imports this in front of every command.
"""

from __future__ import annotations

from struct import Struct

# kind, worker index, worker generation, argument, key
MESSAGE = Struct("<HHIQQ")
MESSAGE_SIZE = 24
assert MESSAGE.size == MESSAGE_SIZE

# --- tracer -> monitor ---------------------------------------------------------------------------

WAKE = 1  # look at the pages: all workers are busy, one announced `may block`, one died
NEW_WORKER = 2  # index, generation; the worker's page memfd by SCM_RIGHTS
WORKER_DEAD = 3  # index, generation; argument: death()
EXIT = 4  # drain the log and leave
PING = 5  # take a turn: M_BEAT shows that it is alive
STATS = 6  # a descriptor by SCM_RIGHTS that one JSON object is written to
REFUSED = 7  # a SPAWN could not be done; argument: errno, or 0: there are as many workers as may be

# --- monitor -> tracer ---------------------------------------------------------------------------

SPAWN = 33  # argument: how many workers to fork
RETIRE = 34  # index, generation: give it no more slots, let it finish and exit
KILL = 35  # index, generation; argument: reason | done << 8.  Drop it unless W_DONE is still `done`, the
#            record is not BLOCKED, no completion of it is unread, and its phase is not DESCRIPTOR
INTERRUPT = 36  # index, generation; argument: R_SEQ of the blocked call; key: why, WHY_*.  Repeated
#                 every few milliseconds until the record is no longer BLOCKED with that R_SEQ
KICK = 37  # index, generation: ring its doorbell, a slot was not taken for KICK_MS (a counted fault)
REVIVE = 38  # index, generation: SIGCONT it; stopped in the descriptor phase, where it may not be killed

# reasons, in KILL's argument and in death()
REASON_NONE = 0
REASON_STALL = 1  # no progress on the slot in hand
REASON_BOOT = 2  # did not become ready in time

# why a blocked call is interrupted
WHY_SIGNAL = 1  # its caller has a signal that would be delivered
WHY_GONE = 2  # its caller is dead, a zombie, or has SIGKILL pending

# --- monitor page: 8-byte words, written by the monitor alone -------------------------------------

M_BEAT = 0  # grows at every turn of the loop
M_TIME = 1  # CLOCK_MONOTONIC, ns, of that turn
M_LINES = 8  # log lines written
M_DROPPED = 9  # log lines lost because the log's reader did not keep up, or refused by the kernel
M_BAD = 10  # datagrams that were no log line
M_TICKS = 16
M_KICKS = 17
M_STALLS = 18
M_INTERRUPTS = 19
M_SPAWNS = 20  # workers asked for
M_RETIRES = 21
M_LOST = 23  # requests the socket had no room for
MONITOR_SIZE = 4096

# --- times ---------------------------------------------------------------------------------------

TICK_MS = 100  # while calls are outstanding
IDLE_MS = 500  # while nothing moves
BLOCKED_MS = 5  # while a call is blocked: signals of its caller
GROW_MS = 2  # while all workers are busy: does the work wait?
KICK_MS = 100


def death(status: int, reason: int) -> int:
    """WORKER_DEAD's argument: the status of waitpid(2) and the reason of a KILL that was carried out."""
    return (status & 0xFFFFFFFF) | reason << 32
