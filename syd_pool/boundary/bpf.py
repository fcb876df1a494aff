"""A small evaluator of seccomp's classic BPF, so that a test of a filter needs no kernel (I12).

Source: Documentation/networking/filter.rst and kernel/seccomp.c (seccomp_check_filter lists the
instructions that a filter may hold).  What a filter may not hold raises ValueError here too.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_I386 = 0x40000003
X32_BIT = 0x40000000

_INSTRUCTION = Struct("<HBBI")  # struct sock_filter: code, jt, jf, k
_DATA = Struct("<iIQ6Q")  # struct seccomp_data: nr, arch, instruction_pointer, args

_LD_ABS, _LD_IMM, _LD_MEM, _ST = 0x20, 0x00, 0x60, 0x02
_ALU_AND, _ALU_OR = 0x54, 0x44
_JA, _RET_K, _RET_A = 0x05, 0x06, 0x16
_JUMPS = {
    0x15: lambda a, k: a == k,
    0x25: lambda a, k: a > k,
    0x35: lambda a, k: a >= k,
    0x45: lambda a, k: a & k != 0,
}


class Program:
    """A filter in memory.  `run` gives the action for one call; `steps` counts what it executed."""

    __slots__ = ("code", "steps")

    def __init__(self, program: bytes):
        if not program or len(program) % 8:
            raise ValueError(f"not a filter: {len(program)} bytes")
        self.code: list[tuple[int, int, int, int]] = list(_INSTRUCTION.iter_unpack(program))
        self.steps = 0

    def run(self, nr: int, args: Sequence[int] = (), arch: int = AUDIT_ARCH_X86_64) -> int:
        """The action for system call `nr`.  Raises ValueError for what the kernel would not load."""
        filled = (*args, *(0,) * (6 - len(args)))
        signed = (nr & 0x7FFFFFFF) - (nr & 0x80000000)
        data = _DATA.pack(signed, arch, 0, *filled)
        accumulator, memory, at, self.steps = 0, [0] * 16, 0, 0
        while True:
            code, jump_true, jump_false, k = self.code[at]
            self.steps += 1
            at += 1
            if code == _LD_ABS:
                if k % 4 or k > 60:
                    raise ValueError(f"load from {k}")
                accumulator = int.from_bytes(data[k : k + 4], "little")
            elif code in _JUMPS:
                at += jump_true if _JUMPS[code](accumulator, k) else jump_false
            elif code == _RET_K:
                return k
            elif code == _RET_A:
                return accumulator
            elif code == _JA:
                at += k
            elif code == _ALU_AND:
                accumulator &= k
            elif code == _ALU_OR:
                accumulator |= k
            elif code == _LD_IMM:
                accumulator = k
            elif code == _LD_MEM:
                accumulator = memory[k]
            elif code == _ST:
                memory[k] = accumulator
            else:
                raise ValueError(f"instruction {code:#x} at {at - 1}")
