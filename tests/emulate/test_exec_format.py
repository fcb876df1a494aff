"""What the kernel will open for a program: the #! line and PT_INTERP, against the kernel itself."""

from __future__ import annotations

import errno
import os
import random
import struct
from pathlib import Path

import pytest

from syd_pool.emulate.program import elf, script_interpreter


def _native_exec(path: Path | bytes) -> int:
    """0 when the kernel executes `path`, else the errno."""
    pid = os.fork()
    if not pid:
        try:
            os.execve(path, [b"x"], {})
        except OSError as error:
            os._exit(error.errno or 255)
        finally:
            os._exit(254)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _write_program(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o755)
    return path


TRUE = b"/bin/true"
PIECES = (b" ", b"\t", TRUE, b"\n", b"\0", b"-x", b"\r", b"/missing", TRUE + b" " * 240, b"y" * 250)
LINES = (
    TRUE + b"\n",
    b" " + TRUE + b"\n",
    TRUE,
    b"\n",
    b"",
    b" \n",
    TRUE + b"\0\n",
    b"\t" + TRUE + b"\tx y\n",
)


def test_script_interpreter_is_what_the_kernel_runs(tmp_path: Path) -> None:
    """For any #! line: ENOEXEC when we see no interpreter, else the errno of executing that interpreter."""
    seed = 20261124
    dice = random.Random(seed)
    heads = [b"".join(dice.choices(PIECES, k=dice.randint(0, 6))) for _ in range(150)]
    heads += LINES
    for n in range(240, 250):  # around the end of the kernel's 256 bytes
        heads += [TRUE + b" " * n + b"\n", b"/" * n + TRUE + b"\n", b"/" * n + TRUE]
    outcomes = set()
    for number, line in enumerate(heads):
        head = b"#!" + line
        expected = script_interpreter(head[:256])
        outcome = _native_exec(_write_program(tmp_path / f"s{number}", head))
        if expected is None:
            assert outcome == errno.ENOEXEC, (seed, head)
        else:  # b"" is the working directory: getname_kernel() does not mind
            assert outcome == _native_exec(expected or b"."), (seed, head, expected)
        outcomes.add(outcome)
    assert outcomes >= {0, errno.ENOENT, errno.ENOEXEC}


def test_elf_loader_of_a_dynamic_program() -> None:
    """PT_INTERP of a system binary is the loader's path, the one the kernel maps."""
    fd = os.open("/bin/true", os.O_RDONLY)
    try:
        loader = elf(fd, os.pread(fd, 256, 0))[0]
    finally:
        os.close(fd)
    assert loader is not None
    assert loader.startswith(b"/lib")
    assert os.path.exists(loader)


def _elf(tmp_path: Path, header: bytes, rest: bytes = b"") -> bytes | None:
    path = _write_program(tmp_path / "elf", header + rest)
    fd = os.open(path, os.O_RDONLY)
    try:
        return elf(fd, os.pread(fd, 256, 0))[0]
    finally:
        os.close(fd)


def _header(kind: int, phoff: int, phentsize: int, phnum: int) -> bytes:
    ident = b"\x7fELF" + bytes([kind, 1, 1]) + bytes(9)
    if kind == 2:
        return ident + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, phoff, 0, 0, 64, phentsize, phnum, 0, 0, 0)
    return ident + struct.pack("<HHIIIIIHHHHHH", 3, 3, 1, 0, phoff, 0, 0, 52, phentsize, phnum, 0, 0, 0)


def _interp(size: int) -> bytes:
    """A 64-bit PT_INTERP entry whose name of `size` bytes comes right behind it."""
    return struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, size, size, 1)


def test_elf_loader_in_both_classes(tmp_path: Path) -> None:
    """The fields of 64-bit and 32-bit headers are found at their places."""
    assert _elf(tmp_path, _header(2, 64, 56, 1), _interp(7) + b"/ld.so\0") == b"/ld.so"
    program = struct.pack("<IIIIIIII", 3, 84, 0, 0, 7, 7, 4, 1)
    assert _elf(tmp_path, _header(1, 52, 32, 1), program + b"/ld.so\0") == b"/ld.so"


@pytest.mark.parametrize(
    ("header", "rest"),
    [
        (b"", b""),
        (b"\x7fELF", b""),
        (_header(2, 64, 56, 1), b""),  # table beyond the end
        (_header(2, 64, 55, 1), bytes(56)),  # wrong entry size
        (_header(2, 64, 56, 0), b""),
        (_header(2, 64, 56, 2000), bytes(56)),  # table too large for the kernel
        (_header(2, 1 << 63, 56, 1), bytes(56)),  # offset beyond what pread takes
        (_header(2, 64, 56, 1), _interp(1) + b"\0"),  # too short a name
        (_header(2, 64, 56, 1), _interp(4097) + b"/" * 4097),
        (_header(2, 64, 56, 1), _interp(7) + b"/ld.so!"),  # no NUL
    ],
)
def test_malformed_elf_has_no_loader_and_does_not_run(tmp_path: Path, header: bytes, rest: bytes) -> None:
    """What we cannot parse the kernel refuses, so nothing unapproved is mapped."""
    assert _elf(tmp_path, header, rest) is None
    assert _native_exec(tmp_path / "elf") == errno.ENOEXEC
