"""mmap(2) of a file with PROT_EXEC, which is what dlopen(3) and every dynamic loader do: categories `exec` and
`tpe` on the file.

The filter stops only these calls.  Under ptrace a worker judges the file behind the descriptor while the caller
waits, the kernel maps, and a worker looks at /proc/TID/maps while the caller waits again: whatever descriptor
was put in the place of the judged one meanwhile, a mapping that the rules refuse ends in SIGKILL before its
first instruction.  A program that has not forked or cloned since it was executed has nobody who could do that,
and goes on at once: that is the loader at every start.  Without ptrace: judged and continued, which races (table.py).

Whoever may read a file may also copy it into memory that can be executed (mprotect(2)); keeping a program from
that is not this category's business (syd(2), trace/allow_unsafe_exec_memory).
"""

from __future__ import annotations

import os
from errno import EACCES, EIO

from syd_pool.emulate.exec import refuse_memfd
from syd_pool.emulate.paths import text_of
from syd_pool.emulate.trusted import is_trusted, judge_trusted, refuses
from syd_pool.linux.proc import mappings
from syd_pool.policy.actions import WARN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from syd_pool.emulate.call import Call

_DELETED = b" (deleted)"
# Memory that only looks like a file: System V segments, MAP_SHARED|MAP_ANONYMOUS, memfd_create(2)
_MEMORY = (b"/SYSV", b"/dev/zero (deleted)", b"/memfd:")


def mmap(call: Call) -> int | None:
    """mmap(address, size, prot, flags, fd, offset), without ptrace"""
    errno = judge_mapping(call)
    if errno:
        return -errno
    call.valid()
    call.resume()
    return None


def judge_mapping(call: Call) -> int:
    """May the caller map this file to execute it?  0 or the errno of the refusal.  Raises Gone."""
    try:
        path = _name(call, call.fd(4))
    except OSError:
        return 0  # the kernel will say what is wrong with the descriptor
    if path[:1] != b"/":  # a socket and the like, which it will not map
        return 0
    try:
        if path.startswith(b"/memfd:"):
            refuse_memfd(call, path)
        elif call.rules.verdicts["exec"][path]:
            call.judge("exec", path)
        if "tpe" in call.rules.enabled and not path.startswith(_MEMORY):
            judge_trusted(call, call.own_fd(call.fd(4)), path)
    except OSError as error:
        return error.errno or EIO
    return 0


def _name(call: Call, fd: int) -> bytes:
    """The kernel's name of what the caller holds as `fd`.  Raises OSError."""
    if not call.cred_gen:
        path = os.readlink(b"/proc/%d/fd/%d" % (call.tid, fd))
        if not path.endswith(_DELETED):
            return path
    return text_of(call.own_fd(fd))


def verify_mapping(call: Call) -> bool:
    """After a mmap that succeeded: do the rules allow everything that the caller could now execute?  False: kill.

    All of it, because another thread may have moved the new mapping away from where it was made.
    """
    rules = call.rules
    verdicts = rules.verdicts["exec"]
    careful = refuses(rules)
    try:
        return all(
            verdicts[path] <= WARN and (not careful or is_trusted(rules, path, gone))
            for path, gone in _executable_files(call.tid)
        )
    except OSError as error:
        # a caller whose maps cannot be seen is not let go on; one that is dying is killed once more
        return error.errno not in (EACCES, EIO) and not os.path.exists(b"/proc/%d" % call.tid)


def _executable_files(tid: int) -> Iterator[tuple[bytes, bool]]:
    """(name, has it lost that name?) of each file that is mapped with PROT_EXEC."""
    for _, permissions, _, inode, shown in mappings(tid):
        if permissions[2:3] == b"x" and inode != b"0" and shown:
            path = shown.replace(b"\\012", b"\n")
            if path[:1] == b"/" and not (path.startswith(_MEMORY) and path.endswith(_DELETED)):
                name = _without_deleted(path, int(inode))
                yield name, name != path


def _without_deleted(path: bytes, inode: int) -> bytes:
    """The name that a mapped file has, or had, unless " (deleted)" really belongs to it."""
    if path.endswith(_DELETED):
        try:
            return path if os.lstat(path).st_ino == inode else path.removesuffix(_DELETED)
        except FileNotFoundError:
            return path.removesuffix(_DELETED)
    return path
