"""chdir(2), fchdir(2): category `chdir`.

Only the caller can change its own working directory, so the kernel performs the call.  Under ptrace a
worker judges at the entry (judge_chdir) while the tracee waits, and looks at the exit where the caller
really is (verify_chdir): a path that another thread changed in between ends in SIGKILL, not in a
forbidden directory.  Without ptrace the handlers judge and continue, which races (table.py says so).
"""

from __future__ import annotations

import os
from errno import EBADF, EIO, ENOTDIR
from stat import S_ISDIR

from syd_pool.emulate.call import AT_FDCWD, DOTLESS, EMPTY, FOLLOW
from syd_pool.emulate.judge import judge_walk
from syd_pool.linux.numbers import NR
from syd_pool.policy.actions import WARN
from syd_pool.policy.forced import NO_DOTDOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call, Found

_NR_FCHDIR = NR["fchdir"]


class ChdirVerdict:
    """errno 0: the caller may go to `directory`, (st_dev, st_ino); else the call fails with errno."""

    __slots__ = ("directory", "errno")

    def __init__(self) -> None:
        self.errno = 0
        self.directory = (0, 0)


def chdir(call: Call) -> int | None:
    """chdir(path), without ptrace"""
    return _judge_and_continue(call)


def fchdir(call: Call) -> int | None:
    """fchdir(fd), without ptrace"""
    return _judge_and_continue(call)


def _judge_and_continue(call: Call) -> int | None:
    verdict = judge_chdir(call)
    if verdict.errno:
        return -verdict.errno
    call.valid()
    call.resume()
    return None


def judge_chdir(call: Call) -> ChdirVerdict:
    """May the caller go where this chdir or fchdir leads?  Raises Gone."""
    verdict = ChdirVerdict()
    try:
        verdict.directory = _judge(call)
    except OSError as error:
        verdict.errno = error.errno or EIO
    return verdict


def _judge(call: Call) -> tuple[int, int]:
    """The directory's (st_dev, st_ino).  Raises OSError with what the call is to fail with."""
    found = _wanted(call)
    path = found.path
    verdicts = call.rules.verdicts
    if verdicts["stat"][path]:
        call.judge("stat", path)
    status = os.fstat(found.fd)
    if not S_ISDIR(status.st_mode):
        raise OSError(ENOTDIR, os.strerror(ENOTDIR), path)
    judge_walk(call, path)
    if verdicts["chdir"][path]:
        call.judge("chdir", path)
    return status.st_dev, status.st_ino


def _wanted(call: Call) -> Found:
    if call.nr != _NR_FCHDIR:
        how = FOLLOW | DOTLESS if call.rules.opens & NO_DOTDOT else FOLLOW
        return call.find(call, AT_FDCWD, call.string(call.args[0]), how)
    fd = call.fd(0)
    if fd < 0:  # AT_FDCWD means nothing here
        raise OSError(EBADF, os.strerror(EBADF))
    return call.find(call, fd, b"", EMPTY)


def verify_chdir(call: Call, expected: tuple[int, int]) -> bool:
    """After a chdir that succeeded: is the caller where it was allowed to go?  False: kill it.

    Threads share their working directory, so another one's chdir, judged by itself, may already have
    moved on.  Elsewhere is therefore judged by the kernel's own name of the place, and only a place that
    the rules allow passes; none does where the options say how to get there, which nobody can see any more.
    """
    here = b"/proc/%d/cwd" % call.tid
    try:
        status = os.stat(here)
        if (status.st_dev, status.st_ino) == expected and any(expected):
            return True
        if call.nr != _NR_FCHDIR and (call.rules.resolve or call.rules.opens & NO_DOTDOT):
            return False
        return _allowed(call, os.readlink(here))
    except OSError:
        return _others_are_allowed(call)


def _others_are_allowed(call: Call) -> bool:
    """The thread itself is gone (its group ends, or a sibling executes): is every one left where it may be?

    They may share its directory.  One that cannot be looked at is gone, too.
    """
    try:
        threads = os.listdir(b"/proc/%d/task" % call.tgid)
    except OSError:
        return False
    for thread in threads:
        try:
            path = os.readlink(b"/proc/%d/task/%b/cwd" % (call.tgid, thread))
        except FileNotFoundError:
            continue
        except OSError:
            return False
        if not _allowed(call, path):
            return False
    return True


def _allowed(call: Call, path: bytes) -> bool:
    """Do the rules let the caller be in `path`?  Asks only: nothing is logged, nobody is signalled."""
    if path[:1] != b"/":  # "(unreachable)": outside the root
        return False
    own = b"/proc/%d" % call.tgid
    if path == own or path.startswith(own + b"/"):
        path = b"/proc/self" + path[len(own) :]
    rules = call.rules
    worst = max(rules.verdicts["stat"][path], rules.verdicts["chdir"][path], rules.walk[path])
    return worst <= WARN
