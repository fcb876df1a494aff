"""What an executable file says about itself: the interpreter of a script, the loader of an ELF file, its form.

Read as the kernel reads it, from a descriptor of the judged file.  The form is what the options
trace/deny_exec_* and trace/allow_unsafe_exec_{ldso,nopie,stack} are about; 0 is what the kernel will not run.
A library is told from a position-independent program as readelf(1) does: neither a loader is asked for
(PT_INTERP) nor DF_1_PIE set.  So ld.so(8) itself is one, which would run any readable file.
"""

from __future__ import annotations

import os
from struct import Struct
from struct import error as struct_error

HEAD = 256  # BINPRM_BUF_SIZE of <linux/binfmts.h>: what the kernel reads to tell formats apart
PATH_MAX = 4096

# bits of a form
SCRIPT = 1  # begins with #!
ELF = 2
ELF32 = 4
DYNAMIC = 8  # has a loader
STATIC = 16
LIBRARY = 32
FIXED = 64  # always at the same addresses: no PIE
STACK = 128  # asks for a stack that can be executed

NAMES = {
    SCRIPT: b"script",
    ELF32: b"32-bit program",
    DYNAMIC: b"dynamically linked program",
    STATIC: b"statically linked program",
    LIBRARY: b"library or loader executed as a program",
    FIXED: b"program is not position-independent",
    STACK: b"program asks for an executable stack",
}


def script_interpreter(head: bytes) -> bytes | None:
    """The interpreter's path in a #! line as load_script() in fs/binfmt_script.c cuts it.

    None: not a script the kernel would run (ENOEXEC).
    """
    head = head.ljust(HEAD, b"\0")
    nul = head.find(b"\0")
    end = head.find(b"\n", 0, nul if nul >= 0 else HEAD)
    if end < 0:
        rest = head[2:].lstrip(b" \t")
        if not rest or not any(c in rest for c in (b" ", b"\t", b"\0")):
            return None  # all blank, or the path is cut by the end of the buffer
        end = HEAD - 1
    line = head[2:end].strip(b" \t")
    if not line:
        return None
    for blank in (b" ", b"\t", b"\0"):
        line = line.partition(blank)[0]
    return line


# elf(5).  Class -> (e_phoff's place and format, e_phentsize's place), program header, the places of p_offset,
# p_filesz and p_flags in it, an entry of the dynamic section
_ELF64 = (Struct("<Q"), 32, 54, Struct("<IIQQQQQQ"), 2, 5, 1, Struct("<QQ"))
_ELF32 = (Struct("<I"), 28, 42, Struct("<IIIIIIII"), 1, 4, 6, Struct("<II"))
_HALVES = Struct("<HH")
_ET_EXEC, _ET_DYN = b"\2\0", b"\3\0"
_PT_DYNAMIC, _PT_INTERP, _PT_GNU_STACK = 2, 3, 0x6474E551
_PF_X = 1
_DT_NULL, _DT_FLAGS_1, _DF_1_PIE = 0, 0x6FFFFFFB, 0x08000000
_MOST_HEADERS = 65536  # load_elf_phdrs() in fs/binfmt_elf.c: more bytes are ENOEXEC


def elf(fd: int, head: bytes) -> tuple[bytes | None, int]:
    """(PT_INTERP, form) of the file open as `fd`, whose first bytes are `head`; form 0 if it is no ELF program."""
    layout = {b"\x7fELF\x02\x01": _ELF64, b"\x7fELF\x01\x01": _ELF32}.get(head[:6])
    kind = head[16:18]
    if layout is None or kind not in (_ET_EXEC, _ET_DYN):
        return None, 0
    word, offset_at, size_at, header, offset, size, flags, entry = layout
    form = ELF | (ELF32 if layout is _ELF32 else 0) | (FIXED if kind == _ET_EXEC else 0)
    loader, pie = None, kind == _ET_EXEC
    try:
        (table,) = word.unpack_from(head, offset_at)
        entry_size, entries = _HALVES.unpack_from(head, size_at)
        if entry_size != header.size or not 0 < entries * entry_size <= _MOST_HEADERS:
            return None, 0
        for fields in header.iter_unpack(os.pread(fd, entries * entry_size, table)):
            if fields[0] == _PT_INTERP and loader is None:  # load_elf_binary() looks at the first one
                loader = _name_at(fd, fields[offset], fields[size])
                if loader is None:
                    return None, 0
            elif fields[0] == _PT_GNU_STACK and fields[flags] & _PF_X:
                form |= STACK
            elif fields[0] == _PT_DYNAMIC and not pie:
                pie = _is_pie(fd, fields[offset], fields[size], entry)
    except (struct_error, OverflowError):  # shorter than it says
        return None, 0
    if loader is not None:
        return loader, form | DYNAMIC
    return None, form | STATIC | (0 if pie else LIBRARY)


def _is_pie(fd: int, offset: int, size: int, entry: Struct) -> bool:
    """Does the dynamic section say DF_1_PIE?"""
    section = os.pread(fd, min(size, _MOST_HEADERS), offset)
    for tag, value in entry.iter_unpack(section[: len(section) // entry.size * entry.size]):
        if tag == _DT_FLAGS_1:
            return bool(value & _DF_1_PIE)
        if tag == _DT_NULL:
            break
    return False


def _name_at(fd: int, offset: int, size: int) -> bytes | None:
    if not 2 <= size <= PATH_MAX:
        return None
    name = os.pread(fd, size, offset)
    if len(name) != size or name[-1]:
        return None
    return name.partition(b"\0")[0]
