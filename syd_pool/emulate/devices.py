"""Opening devices for somebody else: which may wait, and which terminal /dev/tty is."""

from __future__ import annotations

import os
from errno import ENXIO
from stat import S_ISCHR

from syd_pool.linux.libc import AT_FDCWD, raw_openat
from syd_pool.linux.proc import whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call

TTY = os.makedev(5, 0)
# Majors of character devices whose opening neither waits nor does anything (Documentation/admin-guide/
# devices.txt): memory, alternate tty devices (/dev/ptmx, /dev/console), Unix98 ptys
_QUICK = frozenset((1, 5, *range(136, 144)))
_PTS = range(136, 144)


def is_quick(device: int) -> bool:
    """Does opening this character device neither wait nor have an effect?"""
    return os.major(device) in _QUICK


def is_kfd(device: int) -> bool:
    """Is it the AMD GPU's /dev/kfd?  Its major is given out by the kernel as it loads (/proc/devices)."""
    for line in whole("/proc/devices").split(b"\n"):
        number, _, name = line.strip().partition(b" ")
        if name == b"kfd":
            return os.major(device) == int(number)
    return False


def open_tty(call: Call, how: int) -> int:
    """Open the controlling terminal of the caller (a worker has none): a descriptor or -errno."""
    device = _terminal(call)
    if not device:
        return -ENXIO
    for name in _names(call, device):
        held = raw_openat(AT_FDCWD, name, os.O_PATH | os.O_CLOEXEC)
        if held < 0:
            continue
        call.keep(held)
        status = os.fstat(held)
        if S_ISCHR(status.st_mode) and status.st_rdev == device:
            call.valid()
            call.begin_effect()
            return raw_openat(AT_FDCWD, b"/proc/self/fd/%d" % held, how)
    return -ENXIO


def _terminal(call: Call) -> int:
    """tty_nr of proc_pid_stat(5): the device, 0 for none."""
    fd = os.open(b"/proc/%d/stat" % call.tid, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 4096)
    finally:
        os.close(fd)
    call.valid()
    number = int(text[text.rindex(b")") + 2 :].split()[4])
    return os.makedev(number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00) if number else 0


def _names(call: Call, device: int) -> list[bytes]:
    """Where that terminal may be found; it may also only be held, from another mount of devpts."""
    major, minor = os.major(device), os.minor(device)
    names = [b"/proc/%d/fd/%d" % (call.tid, fd) for fd in (0, 1, 2)]
    if major in _PTS:
        names.insert(0, b"/dev/pts/%d" % ((major - _PTS.start) * 256 + minor))
    elif major == 4:
        names.insert(0, b"/dev/tty%d" % minor if minor < 64 else b"/dev/ttyS%d" % (minor - 64))
    return names
