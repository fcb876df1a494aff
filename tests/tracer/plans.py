"""Where a worker dies and how, as numbers that both the test and the process under test know."""

from __future__ import annotations

# words of the state file
W_CURRENT = 0  # victims that have made their call: the next one is the victim of this entry
W_LENGTH = 1
W_HITS = 2  # how often a fault was met
W_ARM = 4
W_SEEN = 5
PLAN = 64  # four words an entry: system call, point, death, thread of the victim << 1 | it has happened
EFFECTS = 8192  # how often the effect of entry N was carried out
STATE_SIZE = 131072

DEATHS = ("kill", "segv", "abrt", "sys", "exit")

# in the order of a call's way through a worker
POINTS = (
    "taken", "read-before", "read-after", "looked-up", "judged", "valid", "begin-before", "begin-after",
    "effect-after", "addfd-before", "addfd-after", "hand-before", "hand-after", "complete-before", "complete-after",
    "send-before", "send-after", "count-before", "count-after", "closing",
    "stop2-before", "stop2-after", "stop3-before", "stop3-after", "stop4-before", "stop4-after", "stop5-before",
    "stop5-after", "stop7-before", "stop7-after", "stop8-before", "stop8-after",
)  # fmt: skip

SEND, TWO_STEP, STRICT = "send", "two-step", "strict"
