"""Requests of ioctl(2) that the filter decides: a search tree in front of the command's main filter.

libseccomp has no `all but these` for many values, and ioctl is called often: what is allowed or refused silently
is found by some six comparisons here, and everything else goes on into the program behind (command_filter.py).
The request is a register, and of it the lower 32 bits are what the kernel sees (I7).

    arch, nr ioctl?  --no--> main
        request < middle? ... request == one of three? --yes--> its action
                                                        --no--> main
"""

from __future__ import annotations

from struct import Struct

from syd_pool.linux.numbers import NR

MOST = 1000  # requests: with main's own instructions well below the kernel's 4,096 (BPF_MAXINSNS)
_LEAF = 3  # numbers that are compared one after the other
_INSTRUCTION = Struct("<HBBI")  # struct sock_filter
_LD, _JA, _JEQ, _JGE, _RET = 0x20, 0x05, 0x15, 0x35, 0x06
_ARCH, _NR, _REQUEST = 4, 0, 24  # in struct seccomp_data; of argument 1 the lower half
_AUDIT_ARCH_X86_64 = 0xC000003E
_ON = 0xFFFFFFFF  # jump to the program behind, until it is known where that is

Code = list[tuple[int, int, int, int]]


def in_front(program: bytes, requests: dict[int, int]) -> bytes:
    """`program` with the requests (number -> action of seccomp) decided in front of it."""
    if not requests:
        return program
    if len(requests) > MOST:
        raise ValueError(f"{len(requests)} requests are too many for a filter")
    tree = _tree(sorted(requests.items()))
    code: Code = [
        (_LD, 0, 0, _ARCH),
        (_JEQ, 1, 0, _AUDIT_ARCH_X86_64),
        (_JA, 0, 0, _ON),
        (_LD, 0, 0, _NR),
        (_JEQ, 1, 0, NR["ioctl"]),
        (_JA, 0, 0, _ON),
        (_LD, 0, 0, _REQUEST),
        *tree,
    ]
    end = len(code)
    placed = ((op, yes, no, end - at - 1 if op == _JA and k == _ON else k) for at, (op, yes, no, k) in enumerate(code))
    return b"".join(_INSTRUCTION.pack(*one) for one in placed) + program


def _tree(entries: list[tuple[int, int]]) -> Code:
    if len(entries) <= _LEAF:
        leaf: Code = []
        for number, action in entries:
            leaf += [(_JEQ, 0, 1, number), (_RET, 0, 0, action)]
        return [*leaf, (_JA, 0, 0, _ON)]
    middle = len(entries) // 2
    low, high = _tree(entries[:middle]), _tree(entries[middle:])
    return [(_JGE, 0, 1, entries[middle][0]), (_JA, 0, 0, len(low)), *low, *high]
