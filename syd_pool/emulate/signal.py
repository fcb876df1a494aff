"""kill(2), tkill(2), tgkill(2), rt_sigqueueinfo(2), rt_tgsigqueueinfo(2), pidfd_send_signal(2), pidfd_open(2).

On Linux 6.12 and later Landlock keeps every signal inside the sandbox.  On older kernels these handlers do:
what is not of the command's tree (tree.py), ours and everybody else's, gets nothing and the answer is EPERM,
as with Landlock.

One process      judged by number, then performed by the kernel.  A number that nobody has is answered here:
                 it may be the next worker's.  One that is freed and taken by a new worker between the two
                 loses us a worker, which the pool survives (I2); neither the tracer nor the keeper are ever
                 started anew.
A process group  performed by the kernel if nobody else is in it, and none of us ever joins one.  Otherwise,
                 and for kill(-1), each process is signalled by a worker through a pidfd: it then sees SI_QUEUE
                 with the caller's pid in place of SI_USER, which the kernel lets nobody else claim.

A pidfd is judged as we hold it; none of ours can be had (pidfd_open here, SO_PEERPIDFD and /proc/PID refused),
so that another one under its number is no gain.  Signals that a file's owner gets (F_SETOWN) are limited to
those that all of us block, by the filter.
"""

from __future__ import annotations

import os
from ctypes import addressof, create_string_buffer
from errno import EBADF, EINVAL, EPERM, ESRCH
from struct import Struct

from syd_pool.emulate import tree
from syd_pool.linux.libc import pidfd_open, pidfd_send_signal
from syd_pool.linux.proc import field, whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from syd_pool.emulate.call import Call

SIGKILL, SIGCONT, SIGSTOP = 9, 18, 19
_NSIG = 64
_CTX, _OUTSIDE = b"signal", b"process %d is outside of the sandbox"  # of the log line
_INT_MIN = -0x80000000
_SI_QUEUE = -1
_INFO = Struct("iiiiiI")  # signo, errno, code, padding, pid, uid of siginfo_t
_INFO_SIZE = 128
_CAP_KILL = 1 << 5
_MOST_ROUNDS = 64  # of looking for children that were forked while their parents were being killed
# <linux/pidfd.h>; Linux 6.9
_THREAD, _THREAD_GROUP, _PROCESS_GROUP = 1, 2, 4


def kill(call: Call) -> int | None:
    """kill(pid, sig)"""
    pid = call.fd(0)
    if pid > 0:
        return _one(call, pid)
    if pid == _INT_MIN:
        return -ESRCH
    if pid == -1:
        return _everybody(call, call.fd(1))
    return _group(call, -pid, call.fd(1))


def tkill(call: Call) -> int | None:
    """tkill(tid, sig)"""
    return _one(call, call.fd(0))


def tgkill(call: Call) -> int | None:
    """tgkill(tgid, tid, sig), rt_tgsigqueueinfo(tgid, tid, sig, info)"""
    return _one(call, call.fd(1))


def pidfd_send_signal_(call: Call) -> int | None:
    """pidfd_send_signal(pidfd, sig, info, flags)"""
    pid = _pid_of(call.own_fd(call.fd(0)))
    if call.int(3) == _PROCESS_GROUP:
        return _group(call, pid, call.fd(1))
    return _one(call, pid)


def pidfd_open_(call: Call) -> int | None:
    """pidfd_open(pid, flags): our own processes do not exist."""
    pid = call.fd(0)
    if pid > 0:
        tgid = int(field(tree.status(pid), b"Tgid:"))
        call.valid()
        if tgid in call.own_pids:
            return -ESRCH
    call.resume()
    return None


def _one(call: Call, tid: int) -> int | None:
    return tree.own_only(call, tid, _CTX, _OUTSIDE)


def _pid_of(own: int) -> int:
    """The process that a pidfd is about.  Raises OSError: EBADF for another descriptor, ESRCH when it is gone.

    A directory of /proc, which the kernel takes too, is not: nothing keeps one of ours from being put in its place.
    """
    text = whole(b"/proc/self/fdinfo/%d" % own)
    if b"\nPid:" not in text:
        raise OSError(EBADF, os.strerror(EBADF))
    pid = int(field(text, b"Pid:"))
    if pid <= 0:
        raise tree.no_process(pid)
    return pid


# --- many at once ---------------------------------------------------------------------------------------


def _group(call: Call, group: int, number: int) -> int | None:
    processes = tree.everybody()
    if not group:
        group = processes[call.tgid].group if call.tgid in processes else 0
    wanted = {pid for pid, one in processes.items() if one.group == group}
    call.valid()
    if not wanted:
        return -ESRCH
    inside = wanted & tree.members(call, processes)
    if not inside:
        return tree.refuse(call, _CTX, _OUTSIDE % -group)
    if inside == wanted:
        call.resume()
        return None
    errors = _send_all(call, number, lambda one: one.group == group, True)
    return 0 if 0 in errors else -errors[-1] if errors else -ESRCH


def _everybody(call: Call, number: int) -> int:
    """kill_something_info() of kernel/signal.c: not the caller, and EPERM counts as nothing."""
    call.valid()
    errors = _send_all(call, number, lambda one: True, False)
    counting = [error for error in errors if error != EPERM]
    return -counting[-1] if counting else 0  # there always is somebody: ourselves


def _send_all(call: Call, number: int, wanted: Callable[[tree.Kin], bool], caller_too: bool) -> list[int]:
    """Signal every process of the tree that is wanted, the caller last: the errno of each, 0 for success.

    What is forked while we are at it escapes; of SIGKILL and SIGSTOP only what forks faster than we look again.
    """
    call.begin_effect()
    info = _info(call, number)
    done: set[int] = set()
    errors: list[int] = []
    for _ in range(_MOST_ROUNDS if number in (SIGKILL, SIGSTOP) else 1):
        processes = tree.everybody()
        found = {pid for pid in tree.members(call, processes) if wanted(processes[pid])} - done - {call.tgid}
        if not found:
            break
        errors += [error for pid in sorted(found) if (error := _send(call, pid, number, info)) != ESRCH]
        done |= found
    if caller_too:
        errors.append(_send(call, call.tgid, number, info))
    return errors


def _info(call: Call, number: int) -> bytes:
    uid = int(field(tree.status(call.tid), b"Uid:").split()[0])
    return _INFO.pack(number, 0, _SI_QUEUE, 0, call.tgid, uid).ljust(_INFO_SIZE, b"\0")


def _send(call: Call, pid: int, number: int, info: bytes) -> int:
    """One signal through a pidfd, which was one of the tree's when it was held.  The errno, 0 for success."""
    if not 0 <= number <= _NSIG:
        return EINVAL
    try:
        pidfd = pidfd_open(pid)
    except OSError as error:
        return error.errno or ESRCH
    try:
        if not tree.belongs(call, pid) or not _may_signal(call, pid, number):
            return EPERM
        buffer = create_string_buffer(info, _INFO_SIZE)
        pidfd_send_signal(pidfd, number, addressof(buffer))
    except OSError as error:
        return error.errno or ESRCH
    finally:
        os.close(pidfd)
    return 0


def _may_signal(call: Call, pid: int, number: int) -> bool:
    """kill_ok_by_cred() and check_kill_permission() of kernel/signal.c, about the caller and not about us."""
    caller, target = tree.status(call.tid), tree.status(pid)
    real, effective, *_ = field(caller, b"Uid:").split()
    its_real, _, its_saved, _ = field(target, b"Uid:").split()
    if {real, effective} & {its_real, its_saved} or int(field(caller, b"CapEff:"), 16) & _CAP_KILL:
        return True
    if number != SIGCONT:
        return pid == call.tgid
    here, there = tree.kin(call.tgid), tree.kin(pid)
    return here is not None and there is not None and here.session == there.session
