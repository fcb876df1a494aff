"""Table, guards and native list together: every call in one place, and the filter says so (I12)."""

from __future__ import annotations

import os
import sys
from collections import Counter
from errno import EACCES, EINVAL, ENOPROTOOPT, ENOSYS, EOPNOTSUPP, EPERM
from itertools import product

import pytest

from syd_pool.boundary import bpf, command_filter, guards
from syd_pool.boundary import filter as seccomp
from syd_pool.boundary.request_filter import in_front
from syd_pool.emulate import table
from syd_pool.linux.numbers import NR

sys.path.insert(0, os.path.dirname(__file__))
from harness import Rules

GARBAGE = (0, 1 << 32, 0xFFFFFFFF00000000)
ALL = sorted({c for row in table.ROWS for c in row[2]})
OPTIONS = sorted({g.lifted_by for g in guards.GUARDS if g.lifted_by})


class Both:
    """The two filters of a command as the kernel combines them: the most severe action counts."""

    def __init__(self, rules: Rules, ptrace: bool = True, scoped: bool = True) -> None:
        self.rules = command_filter.command_filters(rules, ptrace, True, scoped)  # type: ignore[arg-type]
        self.parent = bpf.Program(seccomp.compile_filter(self.rules.parent, seccomp.ALLOW))
        main = seccomp.compile_filter(self.rules.main, command_filter.UNKNOWN)
        self.main = bpf.Program(in_front(main, self.rules.requests))

    def run(self, nr: int, args: tuple[int, ...] = (), arch: int = bpf.AUDIT_ARCH_X86_64) -> int:
        found = self.parent.run(nr, args, arch), self.main.run(nr, args, arch)
        return min(found, key=lambda a: -1 if a == seccomp.KILL_PROCESS else a & 0xFFFF0000)

    def says(self, name: str, *args: int) -> int:
        return self.run(NR[name], args)


@pytest.fixture(scope="module")
def off() -> Both:
    return Both(Rules())


def test_every_number_is_in_exactly_one_place() -> None:
    """Nothing passes because nobody thought of it: a new number must be put into a list."""
    refused = [name for g in guards.GUARDS if not g.conditions for name in g.names]
    rows = [row[0] for row in table.ROWS]
    counted = Counter([*guards.native_names(), *refused, *rows])
    # refused here and in the table: acct is refused either way, chroot and PTRACE_TRACEME are never performed, and
    # others are refused unless an option lifts that, and judged then
    known_twice = {"acct", "chroot", "ptrace", *table.LIFTED}
    assert {n for n, c in counted.items() if c > 1} - known_twice == set()
    assert set(NR) == set(counted)


@pytest.mark.parametrize("enabled", [[], ALL], ids=["off", "all"])
@pytest.mark.parametrize("options", [[], OPTIONS], ids=["guarded", "lifted"])
@pytest.mark.parametrize(("ptrace", "scoped"), [(True, True), (False, True), (True, False)])
def test_the_programs_mean_the_rules(enabled: list[str], options: list[str], ptrace: bool, scoped: bool) -> None:
    """Every number x values of every condition x garbage above the lower 32 bits x other ABIs."""
    both = Both(Rules(*options, enabled=enabled), ptrace, scoped)
    rules, default = [both.rules.parent, both.rules.main], [seccomp.ALLOW, command_filter.UNKNOWN]
    values: dict[int, set[int]] = {}
    for nr, _, when in rules[0] + rules[1]:
        values.setdefault(nr, set()).update(v for _, _, v in when)
    for nr in range(-1, 600):
        known = set(both.rules.requests) if nr == NR["ioctl"] else set()
        for value, garbage in product(values.get(nr, set()) | {0, 1} | known, GARBAGE):
            args = (value | garbage,) * 6
            assert both.parent.run(nr, args) == seccomp.decide(rules[0], default[0], nr, args), (nr, args)
            want = seccomp.decide(rules[1], default[1], nr, args)
            if nr == NR["ioctl"]:
                want = both.rules.requests.get(args[1] & 0xFFFFFFFF, want)
            assert both.main.run(nr, args) == want, (nr, args)
        if nr >= 0:
            assert both.run(nr, arch=bpf.AUDIT_ARCH_I386) == seccomp.KILL_PROCESS
            assert both.run(nr | bpf.X32_BIT) == seccomp.KILL_PROCESS


@pytest.mark.parametrize("ptrace", [True, False])
def test_every_row_of_the_table_is_in_force(ptrace: bool) -> None:
    """With its category on, a call is notified or traced as its row says, whatever its arguments."""
    # guards that come before the row
    rules = Rules("trace/allow_unsafe_oob", "trace/allow_unsafe_prlimit", enabled=ALL)
    both = Both(rules, ptrace)
    for name, how, *_ in table.in_force(rules):  # type: ignore[arg-type]
        if name in command_filter.ONLY_WHEN:
            continue
        want = {table.NOTIFY: seccomp.NOTIFY, table.UNBUILT: command_filter.UNKNOWN}.get(
            how, seccomp.trace_action(NR[name]) if ptrace else seccomp.NOTIFY
        )
        if how == table.NOTE and not ptrace:
            want = seccomp.ALLOW
        for word in (0, 1, 0x7FFFFFFF, (1 << 64) - 1):
            if name in command_filter.EXCEPT_WHEN and not word:
                continue
            assert both.says(name, *(word,) * 6) == want, (name, word)


def test_local_network_needs_no_category() -> None:
    """trace/force_local_net puts every call that names an address in force; without it they are native."""
    for name in ("bind", "connect", "sendto", "sendmsg", "sendmmsg"):
        assert Both(Rules("trace/force_local_net")).says(name, 3, 1, 2, 0, 1, 16) == seccomp.NOTIFY
        assert Both(Rules()).says(name, 3, 1, 2, 0, 1, 16) == seccomp.ALLOW


def test_sendto_without_an_address_is_native() -> None:
    """The whole 64-bit pointer counts; out-of-band data is refused with an address or without (syd(7))."""
    both = Both(Rules(enabled=ALL), True)
    assert both.says("sendto", 3, 1, 1, 0, 0, 16) == seccomp.ALLOW
    for address in (1, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1):
        assert both.says("sendto", 3, 1, 1, 0, address, 0) == seccomp.NOTIFY, hex(address)
    for address in (0, 1 << 32):
        assert both.says("sendto", 3, 1, 1, 1 | 1 << 32, address, 0) == seccomp.errno_action(EOPNOTSUPP)


SIGNALLING = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")


def test_signals_are_judged_where_landlock_has_no_scope(off: Both) -> None:
    """Linux before 6.12: whatever can reach a process of ours is a worker's question or refused."""
    unscoped = Both(Rules(), scoped=False)
    for name in SIGNALLING:
        assert (off.says(name, 1, 9), unscoped.says(name, 1, 9)) == (seccomp.ALLOW, seccomp.NOTIFY), name
    for signal in range(65):
        want = seccomp.ALLOW if signal in (0, 29) or signal > 33 else seccomp.errno_action(EINVAL)
        for garbage in GARBAGE:
            assert unscoped.says("fcntl", 3, 10 | garbage, signal | garbage) == want, signal
    for name, option in (("getsockopt", 77), ("setsockopt", 76)):
        assert unscoped.says(name, 3, 1, option) == seccomp.errno_action(ENOPROTOOPT)
        assert unscoped.says(name, 3, 1, option + 2) == off.says(name, 3, 1, option) == seccomp.ALLOW
    lifted = Both(Rules("trace/allow_unsafe_magiclinks"), scoped=False)
    assert lifted.says("openat") == seccomp.NOTIFY, "a directory of ours in /proc is a pidfd"


@pytest.mark.parametrize(
    ("name", "itself", "another"),
    [
        ("sched_setaffinity", [(0, 8, 1)], [(1, 8, 1), (-1, 8, 1)]),
        ("sched_setscheduler", [(0, 3, 1)], [(7, 3, 1)]),
        ("sched_setattr", [(0, 1, 0)], [(7, 1, 0)]),
        ("sched_setparam", [(0, 1)], [(7, 1)]),
        ("setpriority", [(0, 0, 19)], [(0, 1, 19), (1, 0, 19), (2, 0, 19)]),
        ("ioprio_set", [(1, 0, 0)], [(1, 9, 0), (2, 0, 0), (3, 0, 0)]),
        ("prlimit64", [(0, 7, 1, 0), (0, 7, 0, 1)], [(9, 7, 1, 0), (9, 7, 1 << 32, 0)]),
        ("move_pages", [(0, 1)], [(5, 1)]),
        ("migrate_pages", [(0, 1)], [(5, 1)]),
        ("perf_event_open", [(1, 0, -1)], [(1, 5, -1), (1, -1, 0), (1, 0, 0, -1, 4), (1, 0, 0, -1, 12)]),
    ],
)
def test_what_slows_others_down_is_judged(
    off: Both, name: str, itself: list[tuple[int, ...]], another: list[tuple[int, ...]]
) -> None:
    """With its option too: about itself it passes natively, about another process a worker is asked (D3, E9)."""
    options = ("nice", "prlimit", "mbind", "perf")
    lifted = Both(Rules(*(f"trace/allow_unsafe_{option}" for option in options)))
    for args in itself:
        assert lifted.says(name, *(a & (1 << 64) - 1 for a in args)) == seccomp.ALLOW, args
    for args in another:
        assert lifted.says(name, *(a & (1 << 64) - 1 for a in args)) == seccomp.NOTIFY, args
    if name != "sched_setaffinity":
        assert off.says(name, *(a & (1 << 64) - 1 for a in another[0])) not in (seccomp.ALLOW, seccomp.NOTIFY)


def test_the_kernel_takes_the_filters() -> None:
    """BPF_MAXINSNS of <linux/bpf_common.h>, with room for what is still to come."""
    for options in ([], OPTIONS):
        for scoped in (True, False):
            both = Both(Rules(*options, enabled=ALL), scoped=scoped)
            for rules, default in ((both.rules.main, command_filter.UNKNOWN), (both.rules.parent, seccomp.ALLOW)):
                assert len(seccomp.compile_filter(rules, default)) // 8 < 4096 * 3 // 4


def test_unknown_numbers_fail(off: Both) -> None:
    known = set(NR.values())
    for nr in range(700):
        if nr not in known:
            assert off.run(nr) == seccomp.errno_action(ENOSYS)


def test_what_programs_live_on_is_native(off: Both) -> None:
    for name in (
        "read",
        "write",
        "mmap",
        "futex",
        "clone",
        "vfork",
        "wait4",
        "socket",
        "ioctl",
        "prctl",
        "rseq",
    ):
        assert off.says(name) == seccomp.ALLOW, name


@pytest.mark.parametrize(
    ("name", "args", "errno"),
    [
        ("io_uring_setup", (), ENOSYS),
        ("seccomp", (1,), EINVAL),
        ("prctl", (22, 2), EINVAL),
        ("clone3", (), ENOSYS),
        ("clone", (0x20000,), EPERM),
        ("clone", (0x10000000 | 17,), EPERM),
        ("clone", (0x800000,), EPERM),
        ("unshare", (0x80,), EPERM),
        ("setns", (), EPERM),
        ("mount", (), ENOSYS),
        ("mount_setattr", (), ENOSYS),
        ("pivot_root", (), EPERM),
        ("chroot", (), EPERM),
        ("process_vm_readv", (), ENOSYS),
        ("pidfd_getfd", (), ENOSYS),
        ("userfaultfd", (), ENOSYS),
        ("bpf", (), ENOSYS),
        ("keyctl", (), ENOSYS),
        ("open_by_handle_at", (), ENOSYS),
        ("prlimit64", (0, 7, 1 << 63), ENOSYS),
        ("ioctl", (0, 0x5412), EACCES),
        ("ioctl", (0, 0xC0182101), EACCES),
        ("landlock_restrict_self", (), ENOSYS),
        ("ptrace", (16,), 0),
        ("prctl", (0x59616D61,), 0),
    ],
)
def test_refusals(off: Both, name: str, args: tuple[int, ...], errno: int) -> None:
    """Each with garbage in the upper halves of its int arguments too (I7)."""
    assert off.says(name, *args) == seccomp.errno_action(errno)
    if max(args, default=0) < 1 << 32:
        assert off.says(name, *(a | 0xFFFFFFFF00000000 for a in args)) == seccomp.errno_action(errno)


def test_clone_of_threads_and_processes_is_native(off: Both) -> None:
    """pthread_create's and fork's flags; the exit signal shares a bit with CLONE_NEWTIME."""
    for flags in (0x3D0F00, 0x01200011, 0x4111, 0x80 | 17):
        assert off.says("clone", flags) == seccomp.ALLOW


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_lifts_its_guards_and_no_other(off: Both, option: str) -> None:
    lifted = Both(Rules(option))
    for guard in guards.GUARDS:
        for name in guard.names:
            for when in guard.conditions or ((),):
                args = [0 if when else 99] * 6  # 0 is PTRACE_TRACEME, which is a row of the table
                for argument, _, value in when:
                    args[argument] |= value
                before, after = off.says(name, *args), lifted.says(name, *args)
                assert before == guard.action, (name, args)
                if guard.lifted_by == option and table.LIFTED.get(name) == option:
                    assert after == seccomp.NOTIFY, name
                elif guard.lifted_by == option:
                    assert after == (seccomp.ALLOW if guard.lifted is None else guard.lifted), name
                else:
                    assert after == before, name


def test_nothing_lifts_what_workers_depend_on() -> None:
    both = Both(Rules(*OPTIONS))
    for name, args in (
        ("clone", (0x20000,)),
        ("unshare", (0x10000000,)),
        ("setns", ()),
        ("mount", ()),
        ("clone3", ()),
    ):
        assert both.says(name, *args) != seccomp.ALLOW


def test_traceme_is_the_tables(off: Both) -> None:
    """The second PTRACE_TRACEME of a thread must fail, which a filter cannot know; every other request succeeds."""
    assert off.says("ptrace", 0) == off.says("ptrace", 0 | 1 << 32) == seccomp.NOTIFY
    assert off.says("ptrace", 16) == seccomp.errno_action(0)
