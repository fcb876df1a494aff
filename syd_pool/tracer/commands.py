"""/dev/syd: what the sandbox is told while it runs, judged and carried out here and nowhere else.

    worker: "slot i is a command" --> serve --> [ read it from the caller | may it? ] --> carry_out --> answer
    control socket (ipc.py) ---------------------------------------------------------------^

Guarantees: only a caller that the lock names may edit, and its thread group is taken from the tracer's own
slot, never from a worker; an edit is validated whole, then in the journal, then answered, so every call that
begins after the answer is judged with it (a slot carries the position of the journal it is judged at); once
the lock is closed nothing can be written any more, not even by us.
"""

from __future__ import annotations

import os
from errno import EACCES, EBADF, EBUSY, EINTR, EINVAL, EIO, ENOENT, EPERM
from time import monotonic

from syd_pool.emulate.paths import LIBRARIES, MAGIC, is_magic
from syd_pool.linux import notify
from syd_pool.linux.notify import Gone
from syd_pool.linux.numbers import NR
from syd_pool.policy import live, lock
from syd_pool.policy.errors import BadRule
from syd_pool.policy.lock import DROP, EXEC, IPC, ON
from syd_pool.policy.parse import bad, split
from syd_pool.shm.journal import append, close_journal, create_journal
from syd_pool.tracer import control_socket, outside
from syd_pool.tracer.dispatch import _close, answer_error, answer_value
from syd_pool.worker import memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from syd_pool.tracer.state import Run

EXIT_PANIC = 127  # syd(2), panic

# Where the path is, for every call that may carry a command
STATS = {NR["stat"]: 0, NR["lstat"]: 0, NR["newfstatat"]: 1, NR["statx"]: 1}
OPENS = {NR["open"]: 0, NR["openat"]: 1, NR["openat2"]: 1}
CALLS = {**STATS, **OPENS}


class Asker:
    """Whoever gave a command.

    tid, tgid  the calling thread and its group; 0 for the control socket
    answer     takes 0 or an errno; to be called once, now or later
    waits      does it still wait for that?
    """

    __slots__ = ("answer", "tgid", "tid", "waits")

    def __init__(
        self, tid: int, tgid: int, answer: Callable[[int], None], waits: Callable[[], bool] = lambda: True
    ) -> None:
        self.tid = tid
        self.tgid = tgid
        self.answer = answer
        self.waits = waits


def prepare(run: Run) -> None:
    """Before anybody is forked: the journal, where the rules may still change."""
    rules = run.config.rules
    rules.lock = lock.at_start(rules.lock, rules.option("ipc") is not None)
    if lock.is_open(rules.lock) or rules.option("trace/allow_safe_bind"):
        from syd_pool.policy import addresses, blocks, filesystems, network  # noqa: F401  # workers import nothing
        from syd_pool.policy.requests import names

        names()  # nor do they open files

        run.journal = create_journal()


def serve(run: Run, listener: int, notification: int, tid: int, tgid: int, nr: int, args: tuple[int, ...]) -> None:
    """Answer a call that a worker took for a command."""
    reader = _Reader()
    reader.tid = tid
    try:
        path = memory.string(reader, args[CALLS[nr]])  # type: ignore[arg-type]
    except (Gone, OSError):
        path = b""
    state = run.config.rules.lock
    eldest = is_eldest(run, tid, tgid)
    if not notify.valid(listener, notification):
        run.gone += 1
        return
    if nr in OPENS:
        if path == MAGIC and lock.may_read(state, eldest):
            _show(run, listener, notification, "")
        elif path in LIBRARIES and (lock.may_read(state, eldest) or lock.may_edit(state, eldest)):
            _show(run, listener, notification, LIBRARIES[path])
        else:
            answer_error(run, listener, notification, ENOENT)
        return
    if not is_magic(path) or not lock.may_edit(state, eldest):
        answer_error(run, listener, notification, ENOENT)
        return

    def answer(errno: int) -> None:
        run.serving.discard(notification)
        if listener not in run.listeners:  # let go of meanwhile (ghost.py): the kernel has answered
            run.gone += 1
        elif errno:
            answer_error(run, listener, notification, errno)
        else:
            answer_value(run, listener, notification, 0)

    run.serving.add(notification)  # in nobody's ring any more, and perhaps answered much later

    def waits() -> bool:
        return listener in run.listeners and notify.valid(listener, notification)

    carry_out(run, path[len(MAGIC) + 1 :].decode("utf-8", "surrogateescape"), Asker(tid, tgid, answer, waits))


def is_eldest(run: Run, tid: int, tgid: int) -> bool:
    """Is it the command itself, that one process?"""
    return tgid == run.eldest and not run.eldest_ended and _is_thread_of(tid, tgid)


def _is_thread_of(tid: int, tgid: int) -> bool:
    """Without ptrace nobody tells of a thread's end, and its number may be somebody else's by now."""
    return tid == tgid or os.path.exists(b"/proc/%d/task/%d" % (tgid, tid))


class _Reader:
    """What worker/memory.py needs of a Call."""

    tid: int


def carry_out(run: Run, line: str, asker: Asker) -> None:
    """Carry out one command and answer; the lock has been asked."""

    def act() -> bool:
        return (_WORDS.get(line) or _ACTS.get(split(line)[0]) or (_load if line.startswith("load") else _edit))(
            run, line, asker
        )

    _attempt(run, line, asker, act)


def _attempt(run: Run, line: str, asker: Asker, act: Callable[[], bool]) -> None:
    """Carry out and answer, unless `act` says that this comes later."""
    try:
        later = act()
    except BadRule as error:
        run.log_line(b"notice", "config", asker.tid, str(error))
        asker.answer(error.errno)
    except OSError as error:  # no process, descriptor or memory for it: the asker's misfortune, not the run's
        run.log_line(b"warn", "config", asker.tid, f"`{line}': {error.strerror}")
        asker.answer(error.errno or EIO)
    else:
        if not later:
            asker.answer(0)


def publish(run: Run, lines: list[str]) -> None:
    """What was carried out here is carried out by every worker before its next call."""
    assert run.journal is not None
    run.position = append(run.journal, "\n".join(lines).encode("utf-8", "surrogateescape"))


# --- edits ----------------------------------------------------------------------------------------


def _edit(run: Run, line: str, asker: Asker) -> bool:
    rules = run.config.rules
    if split(line)[1] == "?":
        if not live.query(rules, line):
            raise bad(line, "no", errno=ENOENT)
        return False
    live.edit(rules, line)
    publish(run, [line])
    _take_effect(run, [line])
    return False


def _reset(run: Run, line: str, asker: Asker) -> bool:
    _not_in_drop(run, line)
    live.reset(run.config.rules)
    run.bound.clear()
    publish(run, [line])
    return False


def _check(run: Run, line: str, asker: Asker) -> bool:
    """stat("/dev/syd"): is the interface there?"""
    return False


def _not_in_drop(run: Run, line: str) -> None:
    if run.config.rules.lock == DROP:
        raise bad(line, "the lock is `drop'", errno=EPERM)


def _lock(run: Run, line: str, asker: Asker) -> bool:
    rules = run.config.rules
    if rules.option("ipc") is None and line in ("lock:ipc", "lock:i") and rules.lock != DROP:
        raise bad(line, "there is no control socket", "configure ipc:ADDRESS", EBUSY)
    live.edit(rules, line)
    lock_changed(run)
    return False


def lock_changed(run: Run) -> None:
    """Seal what is never written again, and let those go who only serve edits."""
    state = run.config.rules.lock
    if state in lock.CLOSED and run.journal is not None and not run.sealed:
        if not run.config.rules.option("trace/allow_safe_bind"):  # which goes on adding addresses
            run.journal = close_journal(run.journal)
        run.sealed = True
        outside.end(run)
        control_socket.close(run)
        run.log_line(b"info", "lock", run.eldest, f"the rules are locked: {state}")


def eldest_ended(run: Run) -> None:
    """lock:exec: the one process that could edit is gone."""
    if run.config.rules.lock == EXEC:
        run.config.rules.lock = ON
        lock_changed(run)


def _take_effect(run: Run, lines: list[str]) -> None:
    """What the tracer itself does by the rules."""
    rules = run.config.rules
    if any(line.startswith("timeout:") for line in lines):
        timeout = rules.option("timeout")
        run.deadline = monotonic() + timeout if isinstance(timeout, int | float) else 0.0
    if any(line.startswith("log/") for line in lines):
        from syd_pool.tracer.watch import change_log

        change_log(run)


def _load(run: Run, line: str, asker: Asker) -> bool:
    """load/FD, load/PROFILE: many commands, all or none of them."""
    if not line.startswith("load/") or not line[5:]:
        raise bad(line, "write load/FD or load/PROFILE")
    _not_in_drop(run, line)
    what = line[5:]
    number = what.removeprefix("-")
    if number.isascii() and number.isdigit():
        return _load_descriptor(run, line, asker, int(what))
    from syd_pool.policy.files import profile_commands

    return _carry_out_all(run, profile_commands(run.config.rules, what))


def _load_descriptor(run: Run, line: str, asker: Asker, fd: int) -> bool:
    """load/FD: the rules, and the lock, may be others by the time the text is there.  Raises BadRule, OSError."""
    from syd_pool.policy.files import commands_in
    from syd_pool.tracer import loading

    if not asker.tid:
        raise bad(line, "the control socket has no descriptors of its own", errno=EBADF)

    def done(what: bytes | BadRule) -> None:
        def act() -> bool:
            if isinstance(what, BadRule):
                raise what
            if not asker.waits():
                raise bad(line, "who gave it has left", errno=EINTR)
            if run.config.rules.lock in lock.CLOSED:
                raise bad(line, "the rules are locked", errno=EPERM)
            _not_in_drop(run, line)
            return _carry_out_all(run, commands_in(what))

        _attempt(run, line, asker, act)

    loading.read(run, asker.tid, asker.tgid, fd, done)
    return True


def _carry_out_all(run: Run, lines: list[str]) -> bool:
    """Many edits, all or none of them.  Raises BadRule."""
    from copy import deepcopy

    trial = deepcopy(run.config.rules)
    edits = []
    for one in lines:
        if trial.lock in lock.CLOSED:
            raise bad(one, "the rules are locked", errno=EPERM)
        if split(one)[0] == "lock" and trial.lock != DROP and one in ("lock:ipc", "lock:i"):
            raise bad(one, "write it by itself", errno=EBUSY)
        live.edit(trial, one)
        if split(one)[0] != "lock" and one != "l":
            edits.append(one)
    run.config.rules = trial
    publish(run, edits)
    _take_effect(run, edits)
    lock_changed(run)
    return False


# --- words and acts --------------------------------------------------------------------------------


def _print(run: Run, line: str, asker: Asker) -> bool:
    """stat, dump: the state on our standard error."""
    _not_in_drop(run, line)
    from syd_pool.tracer import showing

    showing.print_state(run, line == "dump")
    return False


def _show(run: Run, listener: int, notification: int, library: str) -> None:
    """open("/dev/syd"): the state as a sealed file in memory; or one of the libraries."""
    from syd_pool.tracer import showing

    try:
        fd = showing.helper_fd(library) if library else showing.state_fd(run)
    except OSError as error:
        answer_error(run, listener, notification, error.errno or EIO)
        return
    try:
        flags = notify.SECCOMP_ADDFD_FLAG_SEND
        _close(run, lambda: notify.add_fd(listener, notification, fd, os.O_CLOEXEC, flags))
    except OSError as error:
        answer_error(run, listener, notification, error.errno or EACCES)
    finally:
        os.close(fd)


def _panic(run: Run, line: str, asker: Asker) -> bool:
    """Exit at once; nobody is left to be answered."""
    _not_in_drop(run, line)
    run.status, run.ended, run.reason = EXIT_PANIC, True, "panic"
    return True


def _ghost(run: Run, line: str, asker: Asker) -> bool:
    from syd_pool.tracer import ghost

    if not asker.tid:
        raise bad(line, "only a process of the sandbox can become a ghost", errno=EINVAL)
    ghost.begin(run, asker)
    return True


def _exec(run: Run, line: str, asker: Asker) -> bool:
    """cmd/exec!PROGRAM and its arguments, separated by US: run outside the sandbox."""
    _not_in_drop(run, line)
    if not line.startswith("cmd/exec!"):
        raise bad(line, "write cmd/exec!PROGRAM", errno=ENOENT)
    outside.execute(run, line[len("cmd/exec!") :], asker)
    return True


_WORDS: dict[str, Callable[[Run, str, Asker], bool]] = {
    "": _check,
    "l": _lock,
    "stat": _print,
    "dump": _print,
    "reset": _reset,
    "panic": _panic,
    "ghost": _ghost,
}
_ACTS: dict[str, Callable[[Run, str, Asker], bool]] = {"lock": _lock, "cmd/exec": _exec}

__all__ = ["CALLS", "IPC", "Asker", "carry_out", "eldest_ended", "lock_changed", "prepare", "publish", "serve"]
