"""cmd/exec: a command that runs outside the sandbox, and outlives it if it likes (syd(2), cmd/exec).

    keeper --fork--> (ends) --fork--> syd_exec --fork--> the command
                                         ^
    tracer ---- request, errno ----------+

syd_exec is no descendant of the keeper, which kills all of its own at the end; it is there only where the lock
lets somebody ask for it, ends with the run, and is told by nobody but the tracer.  The command gets a process
group of its own, /dev/null as its input, our standard output and error, no other descriptor, the directory /,
the umask 077 and our own environment.
"""

from __future__ import annotations

import os
from errno import EAGAIN, EBUSY, EINVAL, ENOEXEC
from struct import Struct

from syd_pool.boundary import keeper
from syd_pool.linux.libc import close_all_but, close_range, set_name
from syd_pool.linux.signals import SIG_DFL, SIG_IGN, SIG_SETMASK, SIGCHLD, pthread_sigmask, signal
from syd_pool.linux.sockets import seqpacket_pair
from syd_pool.policy import lock
from syd_pool.policy.parse import bad
from syd_pool.shm.control import H_OUTSIDE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import NoReturn

    from syd_pool.policy import Ruleset
    from syd_pool.tracer.commands import Asker
    from syd_pool.tracer.state import Run

    Helper = tuple[socket, int]

US = "\x1f"
MOST = 65536  # bytes of a request
MOST_ASKED = 64  # requests that wait for an answer
_NUMBER = Struct("<Q")
_ANSWER = Struct("<Qi")
MSG_DONTWAIT = 0x40


def start(rules: Ruleset) -> Helper | None:
    """Before the keeper: fork syd_exec, if the lock lets anybody use it.  Returns the tracer's end and its pid.

    Raises OSError: no process for it.
    """
    state = lock.at_start(rules.lock, rules.option("ipc") is not None)
    if state not in (lock.OFF, lock.EXEC, lock.IPC):
        return None
    ours, theirs = seqpacket_pair()
    pid = os.fork()
    if pid == 0:
        try:
            if os.fork() == 0:
                _settle(theirs)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    theirs.close()
    return ours, int.from_bytes(ours.recv(_NUMBER.size), "little")


def watch(run: Run, helper: Helper | None) -> None:
    """In the tracer: its answers are waited for from now on."""
    if helper is not None:
        run.outside, run.control.q[H_OUTSIDE] = helper
        run.watched[run.outside.fileno()] = _on_answer
        run.others.register(run.outside, 1)  # POLLIN


def execute(run: Run, words: str, asker: Asker) -> None:
    """Have it run; the asker is answered when it runs, or cannot.  Raises BadRule."""
    arguments = words.split(US)
    if not arguments[0]:
        raise bad("cmd/exec!", "no program is named", "separate program and arguments by US, see syd-pool exec")
    if run.outside is None:
        raise bad("cmd/exec!", "the sandbox was not started for it", "start with lock:off, exec or ipc", EBUSY)
    run.requests += 1
    number = run.requests
    request = _NUMBER.pack(number) + words.encode("utf-8", "surrogateescape")
    if len(run.asked) >= MOST_ASKED or len(request) > MOST:
        raise bad("cmd/exec!", "too much is asked for at once", errno=EAGAIN)
    try:
        run.outside.send(request, MSG_DONTWAIT)
    except OSError:
        raise bad("cmd/exec!", "who executes does not answer", errno=EAGAIN) from None
    run.asked[number] = asker


def end(run: Run) -> None:
    """Nobody may ask any more: it ends once it has done what it was asked."""
    if run.outside is None:
        return
    run.outside.shutdown(1)  # SHUT_WR


def _on_answer(run: Run) -> None:
    assert run.outside is not None
    try:
        answer = run.outside.recv(_ANSWER.size, MSG_DONTWAIT)
    except OSError:
        return
    if len(answer) != _ANSWER.size:
        _gone(run)
        return
    number, errno = _ANSWER.unpack(answer)
    asker = run.asked.pop(number, None)
    if asker is not None:
        asker.answer(errno)


def _gone(run: Run) -> None:
    """It has ended: nothing it was asked will be done."""
    assert run.outside is not None
    run.others.unregister(run.outside)
    del run.watched[run.outside.fileno()]
    run.outside.close()
    run.outside = None
    run.control.q[H_OUTSIDE] = 0
    for asker in run.asked.values():
        asker.answer(EBUSY)
    run.asked.clear()


# --- in syd_exec -----------------------------------------------------------------------------------


def _settle(requests: socket) -> NoReturn:
    set_name("syd_exec")
    close_all_but({0, 1, 2, requests.fileno()})
    requests.send(_NUMBER.pack(os.getpid()))
    signal(SIGCHLD, SIG_IGN)  # nobody waits for what it starts
    while request := requests.recv(MOST):
        number = _NUMBER.unpack_from(request)[0]
        words = request[_NUMBER.size :].split(US.encode())
        try:
            errno = _start(words)
        except OSError as error:
            errno = error.errno or EINVAL
        requests.send(_ANSWER.pack(number, errno))
    os._exit(0)


def _start(words: list[bytes]) -> int:
    """Start it; 0 once it executes, else the errno of its exec."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _execute(words, writer)
    os.close(writer)
    try:
        report = os.read(reader, 4)
    finally:
        os.close(reader)
    return int.from_bytes(report, "little")


def _execute(words: list[bytes], report: int) -> NoReturn:
    errno = EINVAL
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(b"/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0)
        os.dup2(report, 3)
        os.set_inheritable(3, False)
        report = 3
        close_range(4, 0xFFFFFFFF)
        os.umask(0o077)
        os.chdir(b"/")
        for number in keeper.CATCHABLE:
            signal(number, SIG_IGN if number in keeper.IGNORED else SIG_DFL)
        pthread_sigmask(SIG_SETMASK, keeper.MASK)
        os.execvp(words[0], words)
    except OSError as error:
        errno = error.errno or ENOEXEC
    finally:
        os.write(report, errno.to_bytes(4, "little"))
        os._exit(127)
    raise AssertionError("executed")
