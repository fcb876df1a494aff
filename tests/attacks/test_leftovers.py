"""Small ways that a review found: a cgroup in place of a pid, the order of an errno, limits of a worker's writes."""

from __future__ import annotations

import os
from errno import EINVAL, EPERM
from pathlib import Path

import pytest
from arena import Arena, Identity, Payloads, Runner, is_real_syd

PYTHON = "/usr/bin/python3"

pytestmark = [
    pytest.mark.attack,
    pytest.mark.skipif(not Path(PYTHON).exists(), reason="needs the system's Python"),
    pytest.mark.skipif(is_real_syd(), reason="compares with the kernel's answers"),
]


@pytest.fixture
def as_root(payloads: Payloads) -> Runner:
    """A sandbox whose supervisor is root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    return Runner(Identity("root"), payloads)


WATCH = r"""
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
cgroup = os.open(sys.argv[1], os.O_RDONLY)
os.dup2(cgroup, 0)
attr = ctypes.create_string_buffer(struct.pack("IIQQ", 1, 112, 0, 0), 112)
for number in (cgroup, 0):
    if libc.syscall(298, attr, number, 0, -1, ctypes.c_long(4)) < 0:
        print(ctypes.get_errno())
    else:
        print("watched")
"""


def test_a_cgroup_is_not_a_pid(as_root: Runner, arena: Arena) -> None:
    """PERF_FLAG_PID_CGROUP: everybody in a cgroup would be watched, us too; EPERM, also for descriptor 0.

    The control: natively root may.
    """
    cgroups = [
        line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"
    ]
    command = [PYTHON, "-I", "-S", "-c", WATCH, *cgroups[:1]]
    if not cgroups or as_root.native(command).out != "watched\nwatched\n":
        pytest.skip("no cgroup2 of perf_event here")
    rules = [*arena.rules(), "trace/allow_unsafe_perf:1", "trace/allow_unsafe_caps:1"]
    assert as_root.boxed(command, rules).out == f"{EPERM}\n{EPERM}\n"


MAKE = r"""
import os, sys
for number, flags in enumerate((os.O_EXCL, 0)):
    path = f"{sys.argv[1]}/new{number}"
    try:
        os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT | flags, 0o600)
        print("made")
    except OSError as error:
        print(error.errno, os.path.exists(path))
"""


def test_o_direct_where_the_file_system_has_none(as_root: Runner, arena: Arena) -> None:
    """open(O_CREAT|O_EXCL|O_DIRECT) is EINVAL, and the file is made, as natively; not EEXIST of what we made."""
    for boxed in (False, True):
        command = [PYTHON, "-I", "-S", "-c", MAKE, str(arena.box)]
        command = as_root.syd(command, arena.rules()) if boxed else command
        script = f'mount -t ramfs none {arena.box} && chmod 777 {arena.box} && "$@"'
        outcome = as_root.native(["unshare", "--mount", "/bin/sh", "-c", script, "sh", *command])
        assert outcome.out == f"{EINVAL} True\n" * 2, (boxed, outcome)


GROW = r"""
import os, resource, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGXFSZ})
path = sys.argv[1] + "/grows"
fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o600)
for name, way in (("truncate", lambda n: os.truncate(path, n)), ("ftruncate", lambda n: os.ftruncate(fd, n)),
                  ("fallocate", lambda n: os.posix_fallocate(fd, 0, n))):
    for size in (65536, 65537, 1 << 40):
        try:
            way(size)
            said = os.fstat(fd).st_size
        except OSError as error:
            said = -error.errno
        print(name, size, said, signal.sigtimedwait([signal.SIGXFSZ], 0) is not None)
        os.ftruncate(fd, 0)
"""


def test_the_limit_of_files_counts_for_what_workers_write(runner: Runner, arena: Arena) -> None:
    """rlimit/fsize, and RLIMIT_FSIZE of whoever started us: EFBIG and SIGXFSZ, as natively."""
    native = runner.native(["/bin/sh", "-c", 'ulimit -f 128; exec "$@"', "sh", PYTHON, "-I", "-S", "-c", GROW,
                            str(arena.box)])  # fmt: skip
    assert "truncate 65537 -27 True\n" in native.out and "fallocate 65536 65536" in native.out, native
    (arena.box / "grows").unlink()
    boxed = runner.boxed([PYTHON, "-I", "-S", "-c", GROW, str(arena.box)], [*arena.rules(), "rlimit/fsize:65536"])
    assert boxed.out == native.out
