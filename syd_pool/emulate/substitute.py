"""Files that say too much about the machine or the sandbox: the caller gets a copy in memory in their place.

machine-id(5) and its kin give the first 32 digits of the run's id (trace/allow_unsafe_machine_id lifts it), and
proc_pid_status(5) says nothing of tracer, filters and mitigations (trace/allow_unsafe_proc_pid_status).  The copy is
made when the file is opened for reading and judged (syd(7)); it can only be read, and its name in /proc/PID/fd is
that of the file (emulate/readlink.py).
"""

from __future__ import annotations

import os

from syd_pool.emulate.paths import MACHINE_FILES, in_proc, text_of
from syd_pool.linux.libc import AT_FDCWD, MFD_CLOEXEC, MFD_NOEXEC_SEAL, raise_errno, raw_memfd_create, raw_openat
from syd_pool.policy.forced import MACHINE_ID, PID_STATUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

MARK = b"syd:"  # before the name of the file in that of its copy
_PREFIX, _SUFFIX = b"/memfd:" + MARK, b" (deleted)"
_MOST = 65536  # of a status file
_ZERO = frozenset((b"TracerPid", b"NoNewPrivs", b"Seccomp", b"Seccomp_filters"))
# What prctl(2) PR_SET_SPECULATION_CTRL has done, as PROC_PID_STATUS words it -> what a process has by itself
_WORDS = {b"Speculation_Store_Bypass": (b"thread", b"vulnerable"),
          b"SpeculationIndirectBranch": (b"conditional", b"always enabled")}  # fmt: skip


def substitute(call: Call, fd: int, path: bytes, how: int) -> int:
    """`fd`, opened for reading at the link-free `path`, or a copy in its place.  Raises OSError."""
    lifted = call.rules.lifted
    if path in MACHINE_FILES:
        text = b"" if lifted & MACHINE_ID else call.run_id[:32].encode() + b"\n"
    else:
        text = masked(_whole(fd)) if is_status(path) and not lifted & PID_STATUS else b""
    return _copy(fd, text, how) if text else fd


def is_status(path: bytes) -> bool:
    """Is it /proc/PID/status or /proc/PID/task/TID/status?"""
    inside = in_proc(path)
    if inside is None or not inside.endswith(b"/status"):
        return False
    names = inside.split(b"/")[1:]
    return len(names) == 2 or (len(names) == 4 and names[1] == b"task")


def masked(text: bytes) -> bytes:
    """A status file without what tells of the sandbox."""
    return b"\n".join(_line(line) for line in text.split(b"\n"))


def _line(line: bytes) -> bytes:
    key, colon, value = line.partition(b":\t")
    if key in _ZERO:
        return key + colon + b"0"
    if key in _WORDS and value.startswith(_WORDS[key][0]):
        return key + colon + _WORDS[key][1]
    return line


def original(shown: bytes) -> bytes:
    """The name that readlink(2) is to give for what the kernel calls `shown`."""
    if shown.startswith(_PREFIX) and shown.endswith(_SUFFIX):
        name = shown[len(_PREFIX) : -len(_SUFFIX)]
        if name in MACHINE_FILES or is_status(name):
            return name
    return shown


_device: list[int] = []  # of files in memory, once asked


def is_memory(device: int) -> bool:
    """Is it the device that files in memory (memfd_create(2)) are on?"""
    if not _device:
        fd = raise_errno(raw_memfd_create(b"device", MFD_CLOEXEC))
        _device.append(os.fstat(fd).st_dev)
        os.close(fd)
    return device == _device[0]


def copied(link: bytes) -> bytes:
    """The file of which what a link of /proc/PID/fd leads to is our copy; b"" if it is none.  Raises OSError."""
    shown = os.readlink(link)
    name = original(shown)
    return b"" if name is shown else name


def _whole(fd: int) -> bytes:
    parts = []
    size = 0
    while size < _MOST and (part := os.pread(fd, _MOST, size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _copy(fd: int, text: bytes, how: int) -> int:
    """A descriptor of a file in memory with `text`, readable only; closes `fd`."""
    try:
        name = MARK + text_of(fd)
    finally:
        os.close(fd)
    made = raw_memfd_create(name, MFD_CLOEXEC | MFD_NOEXEC_SEAL)
    if made < 0:
        made = raise_errno(raw_memfd_create(name, MFD_CLOEXEC))  # before Linux 6.3
    try:
        os.write(made, text)
        os.fchmod(made, 0o444)
        return raise_errno(raw_openat(AT_FDCWD, b"/proc/self/fd/%d" % made, how & ~(os.O_DIRECT | os.O_NOATIME)))
    finally:
        os.close(made)
