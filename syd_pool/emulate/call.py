"""What a handler gets: one system call of one caller.

There is one Call object in a worker, filled anew for every call.  The worker subclasses it with the
parts that touch the caller (worker/caller.py); a test subclasses it with a fake.  A handler is

    def handler(call: Call) -> int | None

and returns the call's result (>= 0), -errno, or None when the call has already been answered
(`return call.install(fd, flags)`, `return call.resume()`).  It may raise OSError (its errno is the
answer) or Gone.  Anything else it raises is a bug in us: the caller gets EACCES and the worker dies.
"""

from __future__ import annotations

from syd_pool.linux.libc import AT_FDCWD

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins  # Call.int hides the type of that name
    from collections.abc import Callable
    from typing import Any, Protocol, TypeVar

    from syd_pool.policy import Ruleset
    from syd_pool.shm.ring import Ring

    Found_ = TypeVar("Found_")

    class Ours(Protocol):
        """Our processes (shm/control.py OwnPids)."""

        def __contains__(self, pid: object, /) -> bool: ...
        def family(self) -> tuple[builtins.int, builtins.int, builtins.int]: ...


# flags of find() and entry()
FOLLOW = 1  # follow a symbolic link in the last component
EMPTY = 2  # an empty path means dirfd itself (AT_EMPTY_PATH)
UNOPENED = 4  # entry(): the object need not be looked for; names.exists() asks where the answer matters
DOTLESS = 8  # ".." is EACCES, in the path and in every link on its way (trace/deny_dotdot)
AS_KERNEL = 16  # the kernel will look it up by itself: of what the options force only NO_MAGICLINKS holds


class Found:
    """Where a path led.

    fd      O_PATH descriptor of the object; -1 when it is missing or was not looked for (entry() only)
    parent  O_PATH descriptor of the directory that holds it; -1 when find() had no need of it
    name    last component, bytes without a slash (b"" when the path is a directory by itself: "/", "..")
    path    absolute, link-free text for the rules; the caller's own /proc/TGID is /proc/self
    mode    st_mode when it is known, else 0
    slash   the path ended in a slash or "/."
    """

    __slots__ = ("fd", "mode", "name", "parent", "path", "slash")

    def __init__(self, fd: int, parent: int, name: bytes, path: bytes, mode: int = 0, slash: bool = False):
        self.fd = fd
        self.parent = parent
        self.name = name
        self.path = path
        self.mode = mode
        self.slash = slash


class Call:
    """One system call of one caller; see the module's docstring."""

    __slots__ = (
        "args",
        "cred_gen",
        "entry",
        "exec_gen",
        "find",
        "id",
        "listener",
        "magic",
        "nr",
        "own_pids",
        "peers",
        "rules",
        "run_id",
        "tgid",
        "tid",
    )

    id: builtins.int  # notification id; 0 in a ptrace stop
    listener: builtins.int  # this worker's descriptor of the run's listener
    tid: builtins.int  # the calling thread
    tgid: builtins.int  # its thread group
    nr: builtins.int
    args: tuple[builtins.int, ...]  # six unsigned 64-bit words
    exec_gen: builtins.int  # how often the thread group has executed; what was cached before is stale
    cred_gen: builtins.int  # 0 while the caller has the identity the run started with
    rules: Ruleset
    run_id: str  # 128 hexadecimal digits that name the run
    magic: bool  # the run began with rules that may change or be seen: /dev/syd is there
    own_pids: Ours  # our processes, which do not exist for the caller
    peers: tuple[Ring, builtins.int]  # who connected (shm/peers.py), and a socket to ask the kernel by (unix_diag.py)
    find: Callable[[Call, builtins.int, bytes, builtins.int], Found]  # worker/lookup.py
    entry: Callable[[Call, builtins.int, bytes, builtins.int], Found]

    def int(self, i: builtins.int) -> builtins.int:
        """Argument `i` as the kernel sees an unsigned int: its lower 32 bits (I7)."""
        return self.args[i] & 0xFFFFFFFF

    def fd(self, i: builtins.int) -> builtins.int:
        """Argument `i` as a descriptor: signed 32 bits; AT_FDCWD is -100."""
        value = self.args[i] & 0xFFFFFFFF
        return value - 0x100000000 if value & 0x80000000 else value

    def string(self, address: builtins.int) -> bytes:
        """The caller's C string at `address`, at most 4095 bytes.  Raises OSError EFAULT, ENAMETOOLONG."""
        raise NotImplementedError

    def read(self, address: builtins.int, size: builtins.int) -> bytes:
        """Exactly `size` bytes of the caller.  Raises OSError EFAULT."""
        raise NotImplementedError

    def write(self, address: builtins.int, data: bytes | bytearray | memoryview) -> None:
        """Write into the caller, honouring its page protection.  Raises OSError EFAULT."""
        raise NotImplementedError

    def write_from(self, address: builtins.int, buffer: builtins.int, size: builtins.int) -> None:
        """As write(), from `size` bytes at our address `buffer` (no copy)."""
        raise NotImplementedError

    def valid(self) -> None:
        """Is the caller still waiting?  Asked after its memory or /proc entry was read.  Raises Gone."""
        raise NotImplementedError

    def begin_effect(self) -> None:
        """Announce that something that cannot be repeated starts now (I3)."""
        raise NotImplementedError

    def umask(self) -> builtins.int:
        """The caller's umask.  Asks valid() as well.  Raises Gone."""
        raise NotImplementedError

    def room(self) -> None:
        """Raises OSError EMFILE where the caller has as many descriptors as it may have."""
        raise NotImplementedError

    def umask_with_room(self) -> builtins.int:
        """As umask(), for a call that will need a descriptor: raises OSError EMFILE at the caller's limit.

        The kernel looks for a free descriptor before it creates a file; so do we (attacks.md D5).
        """
        raise NotImplementedError

    def keep(self, fd: builtins.int) -> builtins.int:
        """Have `fd` closed once the call is answered, off the caller's time; returns it."""
        raise NotImplementedError

    def install(self, fd: builtins.int, flags: builtins.int, alone: bool = False) -> None:
        """Answer with `fd` as a new descriptor of the caller and close ours.

        flags: of open(2), O_CLOEXEC counts; with an access mode in them ours is closed before the answer, so
        that the caller may write, close and execute the file at once (else ETXTBSY).
        alone: ours is closed before the answer in every mode but strict.
        """
        raise NotImplementedError

    def note_identity(self) -> None:
        """Hand the call to the tracer, which notes the change of identity and continues it.  Raises Gone."""
        raise NotImplementedError

    def note_chroot(self) -> None:
        """Hand the call to the tracer, which closes the file system to the whole run and answers 0.  Raises Gone."""
        raise NotImplementedError

    def hand_command(self) -> None:
        """Hand the call to the tracer, which reads the command anew, carries it out and answers.  Raises Gone."""
        raise NotImplementedError

    def hand_bound(self, path: bytes) -> None:
        """Hand a bind(2) that has succeeded to the tracer, which allows connecting to it and answers 0.  Raises Gone.

        path: where the socket is, b"" for an address that the socket itself tells
        """
        raise NotImplementedError

    def note_connected(self, cookie: builtins.int, identity: builtins.int, inode: builtins.int) -> None:
        """Tell the tracer that a worker has connected this socket for the caller (emulate/peer.py)."""
        raise NotImplementedError

    def await_note(self, find: Callable[[], Found_ | None]) -> Found_ | None:
        """What `find` finds once the tracer has heard of it: tried for AWAIT seconds at most."""
        raise NotImplementedError

    def place(self, fd: builtins.int, flags: builtins.int) -> builtins.int:
        """The number of `fd` as a new descriptor of the caller, which is told of it otherwise than by the result.

        Raises OSError (EMFILE); Gone.
        """
        raise NotImplementedError

    def note_traceme(self) -> None:
        """Hand the call to the tracer, which answers PTRACE_TRACEME as it would end natively.  Raises Gone."""
        raise NotImplementedError

    def resume(self) -> None:
        """Answer with CONTINUE, if the table lists this call as one that may (I5)."""
        raise NotImplementedError

    def blocking(self, fn: Callable[..., builtins.int], *args: Any) -> builtins.int:
        """Run a raw_* call that may block: announced, interruptible.  Returns its result.

        Raises Gone when the call was interrupted: the tracer then answers for it.
        """
        raise NotImplementedError

    def own_fd(self, fd: builtins.int) -> builtins.int:
        """A duplicate of the caller's descriptor `fd` in this worker (kept).  Raises OSError EBADF."""
        raise NotImplementedError

    def log(self, fields: list[tuple[str, bytes | builtins.int]]) -> None:
        """Hand one line to the log writer (keys of shm/logline.py); never blocks."""
        raise NotImplementedError

    def panic(self) -> None:
        """Have the worker crash once the call is answered (action `panic`)."""
        raise NotImplementedError

    def condemn(self) -> None:
        """Tell the tracer that the rules kill the caller, before it is done."""
        raise NotImplementedError

    def end_run(self, errno: builtins.int) -> None:
        """Have the tracer end the run with `errno` (action `exit`)."""
        raise NotImplementedError

    def judge(self, category: str, path: bytes) -> None:
        """Ask the rules; log and act as the action says.  Raises OSError with the category's errno."""
        raise NotImplementedError


__all__ = ["AS_KERNEL", "AT_FDCWD", "DOTLESS", "EMPTY", "FOLLOW", "UNOPENED", "Call", "Found"]
