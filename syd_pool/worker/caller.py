"""The caller's side of a call: its memory, its descriptors, its answer.

One Caller object serves a worker's whole life.  Everything here that reads the caller or its /proc
entry is followed by valid() before anything is done with what was read (I6), and an answer is built in
one place, answer() and install() below.
"""

from __future__ import annotations

import os
from errno import EBADF, EINPROGRESS, EINTR, EMFILE, ENOENT, ESRCH, ETOOMANYREFS
from fcntl import ioctl
from struct import Struct
from time import monotonic
from time import sleep as nanosleep

from syd_pool.emulate import judge as judging
from syd_pool.emulate.call import Call
from syd_pool.emulate.resume import send_continue
from syd_pool.linux.libc import RLIMIT_NOFILE, pidfd_getfd, pidfd_open_task, size_of, soft_limit
from syd_pool.linux.notify import (
    ADDFD,
    RESP,
    SECCOMP_ADDFD_FLAG_SEND,
    SECCOMP_ADDFD_FLAG_SETFD,
    SECCOMP_IOCTL_NOTIF_ADDFD,
    SECCOMP_IOCTL_NOTIF_ID_VALID,
    SECCOMP_IOCTL_NOTIF_SEND,
    Gone,
)
from syd_pool.linux.proc import field
from syd_pool.linux.signals import SIG_BLOCK, SIG_UNBLOCK, SIGUSR1, pthread_sigmask
from syd_pool.linux.sockets import receive_fd, send_fd
from syd_pool.policy.forced import CLOEXEC, RANDOM
from syd_pool.shm.logline import encode
from syd_pool.shm.ring import (
    C_BOUND,
    C_CHROOT,
    C_COMMAND,
    C_CONNECTED,
    C_DESCRIPTOR,
    C_EXIT,
    C_IDENTITY,
    C_INTERRUPTED,
    C_KILLS,
    C_MAY_BLOCK,
    C_TRACEME,
    C_UNBLOCKED,
    COMPLETION,
    COMPLETION_SIZE,
    COMPLETIONS,
    DESCRIPTOR,
    EFFECT,
    HANDED,
    HEADER,
    Q_READ,
    TAKEN,
    UMASK_SHIFT,
    UMASK_UNKNOWN,
    W_ANSWERED,
    W_BLOCKS,
    W_COMPLETED,
    W_DROPPED,
    W_GONE,
    W_NUMBER,
    W_PHASE,
    installed,
)
from syd_pool.worker import memory
from syd_pool.worker.numbers import free_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as socket_type
    from collections.abc import Callable
    from typing import Any, TypeVar

    from syd_pool.shm.ring import Ring

    Note = TypeVar("Note")

_pack_id = Struct("<Q").pack_into
_id = bytearray(8)  # ioctl() takes bytes at three times the price

SEND, TWO_STEP, STRICT = "send", "two-step", "strict"


AWAIT = 0.05  # seconds that somebody is waited for whose worker may have died before it said what it had done
LOG_BURST, LOG_EACH_SECOND = 400.0, 100.0  # lines of denials that a worker hands to the log


class Caller(Call):
    """The Call of a worker."""

    __slots__ = (
        "_answers",
        "_bell",
        "_log_socket",
        "_log_time",
        "_log_tokens",
        "_socket",
        "announced",
        "answered",
        "borrowed",
        "deposited",
        "execs_wait",
        "facts",
        "gone",
        "handed_over",
        "index",
        "journal",
        "kept",
        "page",
        "panicked",
        "phase",
        "requests",
        "response",
        "umask_gen",
        "umasks",
        "vault",
        "words",
    )

    def __init__(
        self, page: Ring, request: Ring, bell: int, socket: socket_type, log_socket: socket_type | None, answers: str
    ):
        self.page = page
        self.words = page.q
        self.requests = request.q
        self._bell = bell
        self._socket = socket
        self._log_socket = log_socket
        self._log_time, self._log_tokens = 0.0, LOG_BURST
        self._answers = answers
        self.kept: list[int] = []
        self.borrowed: list[int] = []  # duplicates of the caller's, which may not outlive the answer
        self.response = bytearray(RESP.size)
        self.announced = 0  # number of the last `may block` announcement that was not acknowledged yet
        self.vault: tuple[socket_type, socket_type] | None = None  # two-step: in, out; the tracer has the second, too
        self.deposited = False
        self.magic = False
        self.journal: Ring | None = None  # edits of the rules, where they may change
        self.handed_over = False
        self.panicked = False
        self.answered = self.gone = 0
        self.facts = 0  # of the slot in hand
        self.execs_wait = False  # executions wait until what we installed is closed here (tracer/events.py)
        self.umask_gen = 0  # under which `umasks` were read, by thread; generation 0 knows one for all
        self.umasks: dict[int, int] = {}
        self.id = self.tid = self.tgid = self.nr = 0
        self.index = 0  # of the slot in hand
        self.phase = TAKEN  # EFFECT once the call in hand has announced one

    string = memory.string
    read = memory.read
    write = memory.write
    write_from = memory.write_from

    # --- the caller --------------------------------------------------------------------------------

    def valid(self) -> None:
        if self.id:
            try:
                _pack_id(_id, 0, self.id)
                ioctl(self.listener, SECCOMP_IOCTL_NOTIF_ID_VALID, _id)
            except OSError:
                raise Gone from None

    def umask(self) -> int:
        gen = self.facts >> UMASK_SHIFT
        if gen != self.umask_gen or gen == UMASK_UNKNOWN:
            self.umasks.clear()
            self.umask_gen = gen
        mask = self.umasks.get(self.tid if gen else 0)
        if mask is None:
            mask = self.umasks[self.tid] = self._read_umask()
        else:
            self.valid()
        return mask

    def room(self) -> None:
        # Its size is how many descriptors there are, since Linux 6.2; 0 before that (proc_pid_fd(5))
        fds = b"/proc/%d/fd" % self.tid
        size = size_of(fds)
        if size < 0:
            raise Gone
        if soft_limit(self.tid, RLIMIT_NOFILE) <= (size or len(os.listdir(fds))):
            raise OSError(EMFILE, "descriptors")

    def umask_with_room(self) -> int:
        self.room()
        return self.umask()

    def _read_umask(self) -> int:
        """From the beginning of proc_pid_status(5) of the caller: one read of a part of it."""
        fd = os.open(b"/proc/%d/status" % self.tid, os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 512)
        finally:
            os.close(fd)
        self.valid()
        return int(field(text, b"Umask:"), 8)

    def own_fd(self, fd: int) -> int:
        if fd < 0:
            raise OSError(EBADF, "descriptor")
        # Of the thread: it may have a table of its own, and that of a leader that has ended is gone.
        pidfd = pidfd_open_task(self.tid, self.tgid)
        try:
            self.valid()
            self.borrowed.append(own := pidfd_getfd(pidfd, fd))
            return own
        finally:
            os.close(pidfd)

    def note_identity(self) -> None:
        # The tracer answers, after it has noted it: the caller's next call must not overtake the note.
        self.handed_over = True
        self._complete(C_IDENTITY, 0)
        raise Gone

    def note_chroot(self) -> None:
        # The tracer answers: the caller's next call must carry the fact, whichever worker gets it.
        self.handed_over = True
        self._complete(C_CHROOT, 0)
        raise Gone

    def hand_command(self) -> None:
        self.handed_over = True
        self._complete(C_COMMAND, 0)
        raise Gone

    def hand_bound(self, path: bytes) -> None:
        self.give_back()
        self._socket.send(path or b"!")
        self.handed_over = True
        self._complete(C_BOUND, 0)
        raise Gone

    def note_connected(self, cookie: int, identity: int, inode: int) -> None:
        self._complete(C_CONNECTED, 0, cookie, identity, inode)

    def await_note(self, find: Callable[[], Note | None]) -> Note | None:
        until = monotonic() + AWAIT
        while (found := find()) is None and monotonic() < until:
            nanosleep(0.0002)
        return found

    def place(self, fd: int, flags: int) -> int:
        return self._addfd(fd, flags, 0)

    def note_traceme(self) -> None:
        # The tracer answers: what a thread was told before is known to it alone.
        self.handed_over = True
        self._complete(C_TRACEME, 0)
        raise Gone

    # --- announcing and answering ------------------------------------------------------------------

    def begin_effect(self) -> None:
        self.phase = EFFECT
        self.words[W_PHASE] = self.index << 8 | EFFECT

    def keep(self, fd: int) -> int:
        self.kept.append(fd)
        return fd

    def give_back(self) -> None:
        """Close the duplicates of the caller's descriptors, before the answer.

        For a moment longer, and a file it wrote is still open for writing when it is executed (ETXTBSY), a
        socket it closed still has its address.
        """
        for fd in self.borrowed:
            os.close(fd)
        self.borrowed.clear()

    def close_kept(self) -> None:
        """Close what the call held.  Called after the answer: off the caller's time."""
        for fd in self.kept:
            os.close(fd)
        self.kept.clear()

    def answer(self, value: int) -> None:
        """Answer with a value, or with an error when `value` is -errno.  Raises Gone."""
        if value >= 0:
            RESP.pack_into(self.response, 0, self.id, value, 0, 0)
        else:
            RESP.pack_into(self.response, 0, self.id, 0, value, 0)
        self._send()

    def resume(self) -> None:
        self._sent(lambda: send_continue(self.listener, self.id, self.nr))

    def _send(self) -> None:
        self._sent(lambda: ioctl(self.listener, SECCOMP_IOCTL_NOTIF_SEND, self.response))

    def _sent(self, send: Callable[[], object]) -> None:
        if self.borrowed:
            self.give_back()
        try:
            send()
        except OSError as error:
            if error.errno == ENOENT:
                raise Gone from None
            if error.errno != EINPROGRESS:
                raise
        self.count_answer()

    def install(self, fd: int, flags: int, alone: bool = False) -> None:
        writable, flags, number = flags & os.O_ACCMODE, flags & os.O_CLOEXEC, 0
        if self.rules.opens & (CLOEXEC | RANDOM):
            flags, number = self._forced(fd, flags)
        if writable or alone:
            self.borrowed.append(fd)
        else:
            self.keep(fd)
        phase = self.index << 8 | self.phase
        words = self.words
        if self._answers == SEND and not alone and (self.execs_wait or not writable):
            # Every signal is blocked in a worker: an interrupted ADDFD+SEND would return 0 to the caller.
            words[W_PHASE] = phase | DESCRIPTOR
            self._addfd(fd, flags, SECCOMP_ADDFD_FLAG_SEND, number)
            self.count_answer()
        elif self._answers != STRICT or not self._hand_over(fd, flags, phase, number, alone):
            self._deposit(fd)
            try:
                number = self._addfd(fd, flags, 0, number)
                words[W_NUMBER] = installed(self.index, number)
            finally:
                self._take_back()
            self.answer(number)

    def _deposit(self, fd: int) -> None:
        """Two-step: have the file where the tracer finds it should we die before the number is published.

        Where the user has too many descriptors in flight (unix(7), ETOOMANYREFS) it goes without.
        """
        if self.vault is not None:
            try:
                send_fd(self.vault[0], self.index.to_bytes(8, "little"), fd)
            except OSError as error:
                if error.errno != ETOOMANYREFS:
                    raise
                return
            self.deposited = True

    def _take_back(self) -> None:
        if self.deposited and self.vault is not None:
            self.deposited = False
            os.close(receive_fd(self.vault[1], 8)[1])

    def _forced(self, fd: int, flags: int) -> tuple[int, int]:
        """(flags, number) of a descriptor on which the options force something; number 0 is the lowest."""
        opens = self.rules.opens
        if opens & CLOEXEC:
            flags = os.O_CLOEXEC
        if not opens & RANDOM:
            return flags, 0
        try:
            return flags, free_number(self)
        except BaseException:
            os.close(fd)
            raise

    def _hand_over(self, fd: int, flags: int, phase: int, number: int, alone: bool) -> bool:
        """Strict: the tracer installs `fd`.  False where the user has too many descriptors in flight (unix(7))."""
        try:
            # id, flags; the tracer checks id and owner before it installs (I9)
            send_fd(self._socket, ADDFD.pack(self.id, 0, 0, number, flags), fd)
        except OSError as error:
            if error.errno != ETOOMANYREFS:
                raise
            return False
        if alone:
            self.give_back()
        self.words[W_PHASE] = phase | HANDED
        self._complete(C_DESCRIPTOR, 0, self.id)
        return True

    def _addfd(self, fd: int, fd_flags: int, flags: int, number: int = 0) -> int:
        if number:
            flags |= SECCOMP_ADDFD_FLAG_SETFD
        try:
            # a bytearray: for bytes ioctl() would return a copy of them instead of the number
            request = bytearray(ADDFD.pack(self.id, flags, fd, number, fd_flags))
            return int(ioctl(self.listener, SECCOMP_IOCTL_NOTIF_ADDFD, request))
        except OSError as error:
            if error.errno in (ENOENT, ESRCH):
                raise Gone from None
            # EMFILE and kin: nothing was answered, the call fails with it (D5)
            self.words[W_PHASE] = self.index << 8 | self.phase
            if number and error.errno == EBADF:  # its limit is lower by now
                raise OSError(EMFILE, os.strerror(EMFILE)) from None
            raise

    # --- blocking ------------------------------------------------------------------------------------

    def blocking(self, fn: Callable[..., int], *args: Any) -> int:
        self.announced = self.words[W_BLOCKS] + 1
        self.words[W_BLOCKS] = self.announced
        self._complete(C_MAY_BLOCK, 0, self.announced, self.tid)
        pthread_sigmask(SIG_UNBLOCK, (SIGUSR1,))
        result = fn(*args)
        pthread_sigmask(SIG_BLOCK, (SIGUSR1,))
        if result == -EINTR:
            self.handed_over = True
            self.give_back()
            self._complete(C_INTERRUPTED, 0, self.announced)
            raise Gone
        self._complete(C_UNBLOCKED, 0, self.announced)
        return result

    # --- the tracer and the log ----------------------------------------------------------------------

    def _complete(self, kind: int, errno: int, *words: int) -> None:
        """Publish a completion the tracer must act on, and ring it."""
        done = self.words[W_COMPLETED]
        while done - self.requests[Q_READ] >= COMPLETIONS:
            nanosleep(0.0002)  # the tracer is behind by a whole ring: its time, not the caller's
        at = HEADER + done % COMPLETIONS * COMPLETION_SIZE
        five = ((*words, 0, 0, 0, 0, 0))[:5]
        COMPLETION.pack_into(self.page.b, at, kind, errno, self.index, *five, self.tid)
        self.words[W_COMPLETED] = done + 1
        os.eventfd_write(self._bell, 1)

    def complete(self, kind: int, errno: int, *words: int) -> None:
        """As _complete(), for the worker's loop (verdicts)."""
        self._complete(kind, errno, *words)

    def judge(self, category: str, path: bytes) -> None:
        action = self.rules.verdicts[category][path]
        if action:
            judging.act(self, category, path, action)

    def panic(self) -> None:
        self.panicked = True

    def condemn(self) -> None:
        self._complete(C_KILLS, 0)

    def end_run(self, errno: int) -> None:
        self._complete(C_EXIT, errno)

    def log(self, fields: list[tuple[str, bytes | int]]) -> None:
        if self._log_socket is None:
            return
        if ("ctx", b"access") in fields and ("act", b"warn") not in fields and not self._may_log():
            self.words[W_DROPPED] += 1
            return
        try:
            self._log_socket.send(encode(fields))
        except OSError:
            self.words[W_DROPPED] += 1

    def _may_log(self) -> bool:
        """A flood of denials costs its caller little: the log would only count them (monitor/limit.py)."""
        now = monotonic()
        self._log_tokens = min(LOG_BURST, self._log_tokens + (now - self._log_time) * LOG_EACH_SECOND)
        self._log_time = now
        if self._log_tokens < 1:
            return False
        self._log_tokens -= 1
        return True

    def count_answer(self) -> None:
        """The call in hand has been answered."""
        self.answered += 1
        self.words[W_ANSWERED] = self.answered

    def lost(self) -> None:
        """The caller went away, or the tracer answers for us: one call that we did not answer."""
        if not self.handed_over:
            self.gone += 1
            self.words[W_GONE] = self.gone
        self.handed_over = False

    def receive_listener(self, run_id: int) -> int:
        """OPEN of a run from the tracer: its listener's descriptor.  Raises OSError."""
        data, fd = receive_fd(self._socket, 8)
        if fd < 0 or int.from_bytes(data, "little") != run_id:
            raise RuntimeError(f"expected OPEN of run {run_id}, got {data!r}")
        return fd
