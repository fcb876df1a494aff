"""Seccomp filters: from rules to BPF, to a cache, to the kernel.

A filter is a default action and *rules* (number, action, conditions).  The rules of one system call
are read in order and the first whose conditions all hold decides, as people read a table; libseccomp
has no order and silently drops rules that overlap with another action (2.5.4, measured), so
`disjoint` rewrites them into rules of which at most one can hold, and only those reach libseccomp.

A condition is (argument, mask, value): it holds if argument & mask == value.  For an argument that
the kernel declares as int the mask must stay within the lower 32 bits, else garbage above them
changes the verdict (design.md I7; snapd LP#1812973): use `int_is` and `bits_set`.

A number of another ABI (int 0x80, x32) never reaches the rules: ACT_BADARCH kills the process.

Compiling costs about 10 ms of processor time and the import of pyseccomp 33, so the result is kept
on disk and looked up by its content; most starts load neither pyseccomp nor libseccomp.
"""

from __future__ import annotations

import marshal
import os
import sys
from binascii import crc32
from errno import ELIBACC

from syd_pool.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Condition = tuple[int, int, int]
    Rule = tuple[int, int, tuple[Condition, ...]]
    Cube = dict[int, tuple[int, int]]

# Actions, include/uapi/linux/seccomp.h
KILL_PROCESS = 0x80000000
NOTIFY = 0x7FC00000
ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_TRACE = 0x7FF00000

INT = 0xFFFFFFFF
LONG = 0xFFFFFFFFFFFFFFFF

# In the key of a cached filter: raise it when the same rules must compile to something else.
FORMAT = 1
_HEAD = 16  # crc32 of the rest, length of the key, length of the program; four bytes spare


def errno_action(errno: int) -> int:
    """The action `fail with errno`; errno 0 makes the call a no-op that succeeds."""
    return _ERRNO | (errno & 0xFFFF)


def trace_action(data: int = 0) -> int:
    """The action `stop for the tracer`; `data` is what PTRACE_GETEVENTMSG shows."""
    return _TRACE | (data & 0xFFFF)


def int_is(argument: int, value: int) -> Condition:
    """The kernel's int `argument` equals `value`, whatever its upper 32 bits hold."""
    return (argument, INT, value & INT)


def long_is(argument: int, value: int) -> Condition:
    """The 64-bit `argument` (a pointer, a size) equals `value`."""
    return (argument, LONG, value & LONG)


def bits_set(argument: int, bits: int) -> Condition:
    """All of `bits` are set in `argument`."""
    return (argument, bits, bits)


def bits_clear(argument: int, bits: int) -> Condition:
    """None of `bits` is set in `argument`."""
    return (argument, bits, 0)


# --- rules to disjoint rules ---------------------------------------------------------------------


def _meet(a: Cube, b: Cube) -> Cube | None:
    """Where both hold; None if nowhere."""
    both = dict(a)
    for argument, (mask, value) in b.items():
        have_mask, have = both.get(argument, (0, 0))
        if (have ^ value) & have_mask & mask:
            return None
        both[argument] = (have_mask | mask, have | value)
    return both


def _minus(a: Cube, b: Cube) -> list[Cube]:
    """Where `a` holds and `b` does not, as cubes that exclude each other.

    One per bit that `b` fixes and `a` leaves free: the bits before it as in `b`, this one the other way.
    """
    if _meet(a, b) is None:
        return [a]
    rest = []
    seen = dict(a)
    for argument, (mask, value) in b.items():
        have_mask, have = seen.get(argument, (0, 0))
        free = mask & ~have_mask
        while free:
            bit = 1 << (free.bit_length() - 1)
            free ^= bit
            rest.append({**seen, argument: (have_mask | bit, have | (bit & ~value))})
            have_mask |= bit
            have |= bit & value
            seen[argument] = (have_mask, have)
    return rest


def _cube(conditions: Iterable[Condition]) -> Cube | None:
    """The conjunction of `conditions`; None if they exclude each other."""
    cube: Cube = {}
    for argument, mask, value in conditions:
        if value & ~mask:
            raise ValueError(f"condition on argument {argument} can never hold: {mask:#x} {value:#x}")
        both = _meet(cube, {argument: (mask, value)})
        if both is None:
            return None
        cube = both
    return cube


def disjoint(rules: Iterable[Rule], default: int) -> list[Rule]:
    """First-match `rules` as rules of which at most one holds; those equal to `default` are left out."""
    calls: dict[int, list[tuple[int, Cube]]] = {}
    for nr, action, conditions in rules:
        cube = _cube(conditions)
        if cube is not None:
            calls.setdefault(nr, []).append((action, cube))
    out: list[Rule] = []
    for nr, chain in calls.items():
        free: list[Cube] = [{}]
        for action, cube in chain:
            # What nobody before took: written whole where it can be, in pieces where it must
            pieces = [both for part in free if (both := _meet(part, cube)) is not None]
            free = [rest for part in free for rest in _minus(part, cube)]
            if action != default:
                out += [(nr, action, tuple((n, m, v) for n, (m, v) in sorted(p.items()))) for p in pieces]
    return out


def decide(rules: Iterable[Rule], default: int, nr: int, args: Sequence[int]) -> int:
    """What first-match `rules` say of one call: the meaning that the compiled program must have."""
    for number, action, conditions in rules:
        if number == nr and all(args[n] & mask == value for n, mask, value in conditions):
            return action
    return default


# --- compiling -----------------------------------------------------------------------------------


def compile_filter(rules: Iterable[Rule], default: int, text: bool = False) -> bytes:
    """The program for `rules`: sock_filter structures, or libseccomp's pseudo code with `text`.

    Raises OSError, as libseccomp does.
    """
    try:
        import pyseccomp  # 33 ms: it starts ldconfig twice
    except (ImportError, RuntimeError) as error:
        raise OSError(ELIBACC, f"cannot compile a filter: {error}; install libseccomp2 and pyseccomp") from error

    program = pyseccomp.SyscallFilter(default)
    program.set_attr(pyseccomp.Attr.ACT_BADARCH, KILL_PROCESS)
    program.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a binary tree over the numbers
    for nr, action, conditions in disjoint(rules, default):
        args = [pyseccomp.Arg(n, pyseccomp.MASKED_EQ, mask, value) for n, mask, value in conditions]
        program.add_rule_exactly(action, nr, *args)
    fd = os.memfd_create("filter", libc.MFD_CLOEXEC)
    with open(fd, "r+b") as out:
        if text:
            program.export_pfc(out)
        else:
            program.export_bpf(out)
        out.seek(0)
        return out.read()


# --- cache ---------------------------------------------------------------------------------------


def cache_directory() -> str:
    """Where compiled filters are kept: the environment's var/, else beside this module.

    Not sys.prefix: `python -S` does not run the code that points it at the environment.
    """
    prefix = os.path.dirname(os.path.dirname(sys.executable))
    if os.path.exists(prefix + "/pyvenv.cfg"):
        return prefix + "/var/syd-pool/filters"
    return os.path.dirname(__file__) + "/filters"


def _key(rules: Sequence[Rule], default: int) -> bytes:
    # Version 2 of the format writes no back references, so equal rules give equal bytes
    return marshal.dumps((FORMAT, default, tuple(rules)), 2)


def _path(key: bytes, directory: str) -> str:
    return f"{directory}/{crc32(key):08x}-{len(key)}.bpf"


def _read(path: str, key: bytes) -> bytes | None:
    """The program in `path` if it was made from `key` and nobody but us or root could have written it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o170022 != 0o100000:
            return None
        data = os.read(fd, 1 << 20)
    except OSError:
        return None
    finally:
        os.close(fd)
    program = data[_HEAD + len(key) :]
    if data[_HEAD : _HEAD + len(key)] != key or data[:_HEAD] != _head(key, program) or not program:
        return None
    return program


def _head(key: bytes, program: bytes) -> bytes:
    sizes = len(key).to_bytes(4, "little") + len(program).to_bytes(4, "little")
    return crc32(program, crc32(key)).to_bytes(4, "little") + sizes + bytes(4)


def _write(path: str, key: bytes, program: bytes) -> None:
    """Keep `program`; a directory that cannot be written only costs the next start its 50 ms."""
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError:
        return
    try:
        try:
            os.fchmod(fd, 0o644)  # whatever the umask: others may read, nobody else may write
            os.write(fd, _head(key, program) + key + program)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass


def cached(rules: Sequence[Rule], default: int, directory: str | None = None) -> bytes:
    """The program for `rules`, from the cache if it is there, else compiled and kept.

    The whole rule list is stored with the program and compared, so a wrong hit is not possible;
    a file that is damaged, or that somebody else could have written, is compiled anew.
    """
    key = _key(rules, default)
    path = _path(key, directory or cache_directory())
    program = _read(path, key)
    if program is None:
        program = compile_filter(rules, default)
        _write(path, key, program)
    return program


def load(program: bytes, flags: int = 0) -> int:
    """seccomp(2): put `program` on this thread.  Returns the listener if `flags` ask for one.

    Needs no_new_privs or CAP_SYS_ADMIN.  Raises OSError (EBUSY: there is a listener already).
    """
    return libc.seccomp_filter(program, flags)
