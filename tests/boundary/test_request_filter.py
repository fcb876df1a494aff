"""The search tree in front of the main filter: what it means, how deep it is, and that it changes nothing else."""

from __future__ import annotations

import os
import random
import sys

import pytest

from syd_pool.boundary import bpf, command_filter
from syd_pool.boundary import filter as seccomp
from syd_pool.boundary.request_filter import MOST, in_front
from syd_pool.linux.numbers import NR
from syd_pool.policy import Ruleset

sys.path.insert(0, os.path.dirname(__file__))

IOCTL = NR["ioctl"]
BEHIND = seccomp.errno_action(77)
PROGRAM = seccomp.compile_filter([(IOCTL, BEHIND, ())], seccomp.ALLOW)
ACTIONS = (seccomp.ALLOW, seccomp.NOTIFY, command_filter.REFUSED)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 64, 300, MOST])
def test_the_tree_means_its_table(count: int) -> None:
    """Each number and its neighbours, with garbage above the lower 32 bits; nothing else is touched."""
    chance = random.Random(count)
    table = {chance.randrange(1 << 32): chance.choice(ACTIONS) for _ in range(count)} | {0: seccomp.ALLOW}
    table[0xFFFFFFFF] = command_filter.REFUSED
    table = dict(list(table.items())[-MOST:])
    program = bpf.Program(in_front(PROGRAM, table))
    steps = []
    for number in table:
        for near in (number - 1, number, number + 1):
            near &= 0xFFFFFFFF
            for garbage in (0, 1 << 32, 0xFFFFFFFF00000000):
                assert program.run(IOCTL, (garbage, near | garbage)) == table.get(near, BEHIND), hex(near)
                steps.append(program.steps)
    assert max(steps) <= 20 + 3 * count.bit_length() + 10, "as deep as a search, not as a list"
    assert len(program.code) < 4096, "BPF_MAXINSNS"
    number = next(iter(table))
    for nr, arch in ((IOCTL, bpf.AUDIT_ARCH_I386), (IOCTL | bpf.X32_BIT, bpf.AUDIT_ARCH_X86_64), (0, 0xC000003E)):
        plain = bpf.Program(PROGRAM)
        assert program.run(nr, (0, number), arch) == plain.run(nr, (0, number), arch)


def test_too_many_are_refused() -> None:
    """The kernel would refuse the program; so do we, before."""
    with pytest.raises(ValueError, match="too many"):
        in_front(PROGRAM, dict.fromkeys(range(MOST + 1), seccomp.ALLOW))


def says(rules: Ruleset, number: int) -> int:
    filters = command_filter.command_filters(rules)
    main = seccomp.compile_filter(filters.main, command_filter.UNKNOWN)
    return bpf.Program(in_front(main, filters.requests)).run(IOCTL, (0, number))


def made(*lines: str) -> Ruleset:
    rules = Ruleset()
    rules.profile("off")
    for line in lines:
        rules.apply(line)
    return rules


FIONREAD, TCGETS, TIOCSTI, PUNCH = 0x541B, 0x5401, 0x5412, 0x4030582B
A, N, R = seccomp.ALLOW, seccomp.NOTIFY, command_filter.REFUSED
# rules -> what is said to FIONREAD, TCGETS, TIOCSTI, FS_IOC_UNRESVSP64
CASES: list[tuple[tuple[str, ...], tuple[int, int, int, int]]] = [
    (("lock:on",), (A, A, R, A)),
    (("lock:on", "append+/x"), (A, A, R, N)),
    (("lock:on", "deny/ioctl+TCGETS", "deny/ioctl-TIOCSTI"), (A, R, A, A)),
    (("lock:on", "sandbox/ioctl:on"), (A, N, N, N)),
    (("lock:on", "sandbox/ioctl:on", "allow/ioctl+tcgets,0x5412"), (A, A, A, N)),
    (("lock:on", "sandbox/ioctl:on", "allow/ioctl+T*,F*"), (A, A, N, N)),
    (("lock:on", "sandbox/ioctl:on", "default/ioctl:allow", "append+/x"), (A, A, N, N)),
    (("lock:off",), (N, N, N, N)),
    (("lock:exec", "sandbox/ioctl:on"), (N, N, N, N)),
    (("lock:on", "deny/ioctl+*"), (N, N, N, N)),
]


@pytest.mark.parametrize(("lines", "want"), CASES, ids=[" ".join(lines) for lines, _ in CASES])
def test_who_decides(lines: tuple[str, ...], want: tuple[int, int, int, int]) -> None:
    """The filter where the rules are locked and nothing need be logged, else a worker."""
    lock, *rest = lines
    rules = made(*rest, lock)
    got = tuple(says(rules, number) for number in (FIONREAD, TCGETS, TIOCSTI, PUNCH))
    if "deny/ioctl+*" in lines:  # more than a filter can hold: a worker judges what is over
        assert set(got) <= {N, R} and says(rules, 0x12345678) == N
    else:
        assert got == want
