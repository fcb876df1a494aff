"""Compiling: first match wins, upper halves of int arguments do not matter, the cache cannot be wrong."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syd_pool.boundary import bpf
from syd_pool.boundary import filter as seccomp
from syd_pool.linux.numbers import NR

DEFAULT = seccomp.errno_action(38)
GARBAGE = (0, 1 << 32, 0xFFFFFFFF00000000, 0xDEADBEEF00000000)
ACTIONS = (
    seccomp.ALLOW,
    seccomp.NOTIFY,
    seccomp.KILL_PROCESS,
    seccomp.trace_action(7),
    seccomp.errno_action(13),
)

# little words, so that conditions overlap and contradict each other often
conditions = st.builds(
    lambda argument, mask, value: (argument, mask, value & mask),
    st.integers(0, 2),
    st.sampled_from((0b1, 0b11, 0b1010, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)),
    st.integers(0, 15),
)
rules = st.lists(
    st.tuples(st.sampled_from((1, 9, 157)), st.sampled_from(ACTIONS), st.lists(conditions, max_size=2).map(tuple)),
    max_size=5,
)


@settings(max_examples=200, deadline=None, database=None)
@given(rules)
def test_at_most_one_of_the_disjoint_rules_holds_and_it_is_the_first(chain: list[seccomp.Rule]) -> None:
    apart = seccomp.disjoint(chain, DEFAULT)
    for nr in (1, 9, 157, 2):
        for word in range(64):
            args = [word & 3, word >> 2 & 3, word >> 4, 0, 0, 0]
            held = [a for n, a, when in apart if n == nr and all(args[i] & m == v for i, m, v in when)]
            want = seccomp.decide(chain, DEFAULT, nr, args)
            assert held == ([] if want == DEFAULT else [want])


@settings(max_examples=60, deadline=None, database=None)
@given(rules)
def test_the_program_means_its_rules(chain: list[seccomp.Rule]) -> None:
    """I12: libseccomp drops a TRACE rule that overlaps a NOTIFY rule; ours never overlap."""
    program = bpf.Program(seccomp.compile_filter(chain, DEFAULT))
    for nr in (0, 1, 9, 157, 1000):
        for word in range(64):
            args = [word & 3, word >> 2 & 3 | GARBAGE[word % 4], word >> 4, 0, 0, 0]
            assert program.run(nr, args) == seccomp.decide(chain, DEFAULT, nr, args), (nr, args)


def test_libseccomp_would_have_dropped_one() -> None:
    """Positive control: the trap of kernel-facts 3.11 is real, and `disjoint` is what avoids it."""
    pyseccomp = pytest.importorskip("pyseccomp")
    naive = pyseccomp.SyscallFilter(seccomp.ALLOW)
    naive.add_rule_exactly(seccomp.trace_action(1), NR["mmap"], pyseccomp.Arg(2, pyseccomp.MASKED_EQ, 4, 4))
    naive.add_rule_exactly(seccomp.NOTIFY, NR["mmap"])
    fd = os.memfd_create("naive")
    with open(fd, "r+b") as out:
        naive.export_bpf(out)
        out.seek(0)
        program = bpf.Program(out.read())
    assert program.run(NR["mmap"], [0, 0, 4]) == seccomp.NOTIFY
    ours = [
        (NR["mmap"], seccomp.trace_action(1), (seccomp.bits_set(2, 4),)),
        (NR["mmap"], seccomp.NOTIFY, ()),
    ]
    program = bpf.Program(seccomp.compile_filter(ours, seccomp.ALLOW))
    assert program.run(NR["mmap"], [0, 0, 4]) == seccomp.trace_action(1)
    assert program.run(NR["mmap"], [0, 0, 3]) == seccomp.NOTIFY


def test_an_int_is_compared_on_its_lower_half() -> None:
    """I7, attacks.md A9."""
    rule = (NR["ioctl"], seccomp.errno_action(13), (seccomp.int_is(1, 0x5412),))
    program = bpf.Program(seccomp.compile_filter([rule], seccomp.ALLOW))
    for garbage in GARBAGE:
        assert program.run(NR["ioctl"], [0, 0x5412 | garbage]) == seccomp.errno_action(13)
        assert program.run(NR["ioctl"], [0, 0x5413 | garbage]) == seccomp.ALLOW


def test_a_pointer_is_compared_whole() -> None:
    rule = (NR["prlimit64"], seccomp.ALLOW, (seccomp.long_is(2, 0),))
    program = bpf.Program(seccomp.compile_filter([rule], DEFAULT))
    assert program.run(NR["prlimit64"], [0, 0, 0]) == seccomp.ALLOW
    assert program.run(NR["prlimit64"], [0, 0, 1 << 32]) == DEFAULT


def test_other_abis_are_killed() -> None:
    program = bpf.Program(seccomp.compile_filter([(0, seccomp.ALLOW, ())], DEFAULT))
    for nr in (0, 1, 500):
        assert program.run(nr, arch=bpf.AUDIT_ARCH_I386) == seccomp.KILL_PROCESS
        assert program.run(nr | bpf.X32_BIT) == seccomp.KILL_PROCESS


def test_a_condition_that_can_never_hold_is_an_error() -> None:
    with pytest.raises(ValueError, match="never hold"):
        seccomp.disjoint([(1, seccomp.ALLOW, ((0, 1, 2),))], DEFAULT)


def test_the_evaluator_refuses_what_the_kernel_would() -> None:
    with pytest.raises(ValueError, match="not a filter"):
        bpf.Program(b"abc")
    with pytest.raises(ValueError, match="instruction"):
        bpf.Program(b"\x87\0\0\0\0\0\0\0").run(0)


# --- the cache -----------------------------------------------------------------------------------

ONE = [(NR["read"], seccomp.ALLOW, ())]


def test_a_second_start_compiles_nothing(tmp_path, monkeypatch) -> None:
    first = seccomp.cached(ONE, DEFAULT, str(tmp_path))
    monkeypatch.setattr(seccomp, "compile_filter", None)
    assert seccomp.cached(ONE, DEFAULT, str(tmp_path)) == first
    with pytest.raises(TypeError):  # control: other rules are not in the cache
        seccomp.cached([], DEFAULT, str(tmp_path))


def damage(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("at", [0, 4, 20, -1])
def test_a_damaged_file_is_compiled_anew(tmp_path, at: int) -> None:
    good = seccomp.cached(ONE, DEFAULT, str(tmp_path))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole, at % len(whole)))
    assert seccomp.cached(ONE, DEFAULT, str(tmp_path)) == good
    assert file.read_bytes() == whole
    file.write_bytes(whole[:-8])
    assert seccomp.cached(ONE, DEFAULT, str(tmp_path)) == good


@pytest.mark.parametrize("what", ["writable", "owner", "symlink"])
def test_a_file_that_others_could_have_written_is_not_used(tmp_path, what: str) -> None:
    seccomp.cached(ONE, DEFAULT, str(tmp_path))
    (file,) = tmp_path.iterdir()
    key = seccomp._key(ONE, DEFAULT)
    assert seccomp._read(str(file), key)  # control
    if what == "writable":
        file.chmod(0o664)
    elif what == "owner":
        if os.geteuid():
            pytest.skip("needs root")
        os.chown(file, 12345, -1)
    else:
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    assert seccomp._read(str(file), key) is None


def test_a_directory_that_cannot_be_written_is_no_error(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    assert seccomp.cached(ONE, DEFAULT, str(tmp_path / "file" / "below"))
