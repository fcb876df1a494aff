"""ptrace(2) requests, as the tracer makes them.

Every request may find the tracee gone (ESRCH after SIGKILL is normal at any time): the functions
return False then and raise OSError for anything else.  All of them must run in the thread that seized.
"""

from __future__ import annotations

import os
from ctypes import addressof, create_string_buffer, get_errno
from errno import ESRCH
from struct import Struct

from syd_pool.linux.libc import raw_syscall
from syd_pool.linux.numbers import NR

_NR = NR["ptrace"]

PTRACE_CONT = 7
PTRACE_SYSCALL = 24
PTRACE_PEEKUSER = 3
PTRACE_POKEUSER = 6
PTRACE_GETEVENTMSG = 0x4201
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_LISTEN = 0x4208
PTRACE_GET_SYSCALL_INFO = 0x420E

PTRACE_O_TRACESYSGOOD = 0x01
PTRACE_O_TRACEFORK = 0x02
PTRACE_O_TRACEVFORK = 0x04
PTRACE_O_TRACECLONE = 0x08
PTRACE_O_TRACEEXEC = 0x10
PTRACE_O_TRACESECCOMP = 0x80
PTRACE_O_EXITKILL = 0x100000
OPTIONS = (
    PTRACE_O_TRACESYSGOOD
    | PTRACE_O_TRACEFORK
    | PTRACE_O_TRACEVFORK
    | PTRACE_O_TRACECLONE
    | PTRACE_O_TRACEEXEC
    | PTRACE_O_TRACESECCOMP
    | PTRACE_O_EXITKILL
)

PTRACE_EVENT_FORK = 1
PTRACE_EVENT_VFORK = 2
PTRACE_EVENT_CLONE = 3
PTRACE_EVENT_EXEC = 4
PTRACE_EVENT_SECCOMP = 7
PTRACE_EVENT_STOP = 128

# offsets in struct user_regs_struct, <sys/user.h>
_RAX = 80
_ORIG_RAX = 120

# struct ptrace_syscall_info: op, arch, instruction and stack pointer, then nr and args at entry
_INFO = Struct("<B3xIQQQ6QI")
_info_buffer = create_string_buffer(96)
_info = addressof(_info_buffer)
_word_buffer = create_string_buffer(8)
_word = addressof(_word_buffer)


def _request(request: int, pid: int, addr: int, data: int) -> bool:
    if raw_syscall(_NR, request, pid, addr, data, 0, 0) >= 0:
        return True
    errno = get_errno()
    if errno == ESRCH:
        return False
    raise OSError(errno, f"ptrace({request:#x}, {pid}): {os.strerror(errno)}")


def seize(pid: int) -> bool:
    """Attach without stopping, with every event of OPTIONS; the tracee dies with us."""
    return _request(PTRACE_SEIZE, pid, 0, OPTIONS)


def cont(pid: int, signal: int = 0) -> bool:
    """Resume, delivering `signal`."""
    return _request(PTRACE_CONT, pid, 0, signal)


def cont_to_exit(pid: int) -> bool:
    """Resume until the exit stop of the system call it is in."""
    return _request(PTRACE_SYSCALL, pid, 0, 0)


def listen(pid: int) -> bool:
    """Leave a group-stopped tracee stopped and wait for its SIGCONT."""
    return _request(PTRACE_LISTEN, pid, 0, 0)


def interrupt(pid: int) -> bool:
    """Have a running tracee stop with PTRACE_EVENT_STOP."""
    return _request(PTRACE_INTERRUPT, pid, 0, 0)


def event_message(pid: int) -> int:
    """PTRACE_GETEVENTMSG: the new task of a fork, the old thread id of an exec; 0 when the tracee is gone."""
    return int.from_bytes(_word_buffer.raw, "little") if _request(PTRACE_GETEVENTMSG, pid, 0, _word) else 0


def syscall_entry(pid: int) -> tuple[int, int, tuple[int, ...]] | None:
    """(arch, number, six arguments) of a tracee in a seccomp stop, or None when it is gone."""
    if not _request(PTRACE_GET_SYSCALL_INFO, pid, len(_info_buffer), _info):
        return None
    _, arch, _, _, nr, *args, _ = _INFO.unpack_from(_info_buffer)
    return arch, nr, tuple(args)


def refuse(pid: int, errno: int) -> bool:
    """In a seccomp stop: skip the system call and have it return -errno.

    Number -1 skips the call; what rax holds is then its result (seccomp(2), SECCOMP_RET_TRACE).
    """
    return _poke(pid, _ORIG_RAX, -1) and _poke(pid, _RAX, -errno)


def result(pid: int) -> int | None:
    """What the system call a stopped tracee has just left returned (rax); None when the tracee is gone."""
    return _peek(pid, _RAX)


def number(pid: int) -> int | None:
    """The number of the system call a stopped tracee is in or has just left; -1 for none, None when it is gone."""
    return _peek(pid, _ORIG_RAX)


def set_result(pid: int, value: int) -> bool:
    """Change the result register of a stopped tracee."""
    return _poke(pid, _RAX, value)


def _poke(pid: int, offset: int, value: int) -> bool:
    return _request(PTRACE_POKEUSER, pid, offset, value)


def _peek(pid: int, offset: int) -> int | None:
    if not _request(PTRACE_PEEKUSER, pid, offset, _word):
        return None
    return int.from_bytes(_word_buffer.raw, "little", signed=True)
