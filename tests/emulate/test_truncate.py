"""truncate."""

from __future__ import annotations

import os
import resource
import signal
from errno import EACCES, EFBIG, EINVAL, EISDIR, ENOENT
from pathlib import Path

import pytest

from tests.emulate.native import snapshot
from tests.emulate.trees import Trees

PATHS = [
    b"ok/f", b"ok/f/", b"ok/f/.", b"ok/n", b"ok/d", b"ok/d/", b"ok/l", b"ok/l/", b"ok/dl", b"ok/ld",
    b"ok/lhf", b"ok/lh/f", b"ok/p", b"", b".", b"/", b"x" * 256, b"x" * 4096, b"/dev/null",
    b"/proc/self/status", b"/proc/self/fd/6",
]  # fmt: skip


@pytest.mark.parametrize("length", [0, 3, 10_000])
@pytest.mark.parametrize("path", PATHS)
def test_every_path_as_natively(tmp_path: Path, path: bytes, length: int) -> None:
    """Result, errno and tree are the kernel's; /proc/self/fd/6 is the caller's file 6."""
    Trees(tmp_path, descriptors={6: b"ok/g"}).both("truncate", path, length)


@pytest.mark.parametrize("length", [-1, -(1 << 63), 1 << 63, (1 << 63) - 1, 1 << 32])
def test_lengths(tmp_path: Path, length: int) -> None:
    """Negative is EINVAL before the path is looked at; too large is EFBIG, from the file system."""
    trees = Trees(tmp_path)
    trees.both("truncate", b"ok/missing", length)
    native, ours = trees.native("truncate", b"ok/f", length), trees.ours("truncate", b"ok/f", length)
    assert ours == native
    assert (trees.top / "ok/f").stat().st_size == (trees.native_top / "ok/f").stat().st_size


def test_running_program_is_busy(tmp_path: Path) -> None:
    """ETXTBSY comes from the kernel."""
    trees = Trees(tmp_path)
    for top in (trees.top, trees.native_top):
        (top / "ok/sleep").write_bytes(Path("/bin/sleep").read_bytes())
        (top / "ok/sleep").chmod(0o755)
    pids = [os.posix_spawn(top / "ok/sleep", ["sleep", "60"], {}) for top in (trees.top, trees.native_top)]
    try:
        assert trees.both("truncate", b"ok/sleep", 0) < 0
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_bad_pointer(tmp_path: Path) -> None:
    """EFAULT; EINVAL for the length comes first."""
    trees = Trees(tmp_path)
    trees.both("truncate", 8, 0)
    trees.both("truncate", 8, -1)
    assert not trees.call.effects


def test_limit_of_the_caller(tmp_path: Path) -> None:
    """Beyond the caller's RLIMIT_FSIZE: EFBIG and SIGXFSZ for it, not for us; ours is not applied."""
    trees = Trees(tmp_path)
    trees.limits = {resource.RLIMIT_FSIZE: (100, 100)}
    assert trees.ours("truncate", b"ok/f", 101) == -EFBIG
    endings = [trees.call.ended_by]
    assert (trees.top / "ok/f").stat().st_size == 4
    assert trees.ours("truncate", b"ok/f", 100) == 0
    endings.append(trees.call.ended_by)
    assert trees.ours("truncate", b"ok/d", 101) == -EISDIR  # as natively: before the limit, no signal
    endings.append(trees.call.ended_by)
    assert endings == [signal.SIGXFSZ, None, None]


def test_denied_file(tmp_path: Path) -> None:
    """EACCES, also through a link; missing is ENOENT and a bad length EINVAL first."""
    trees = Trees(tmp_path, ["sandbox/truncate:on", "allow/truncate+/***", "deny/truncate+@/hid/***"])
    before = snapshot(trees.top)
    assert trees.ours("truncate", b"hid/f", 0) == -EACCES
    assert trees.call.denied == [("truncate", str(trees.top / "hid/f"))]
    assert trees.ours("truncate", b"ok/lhf", 0) == -EACCES
    assert trees.ours("truncate", b"hid/n", 0) == -ENOENT
    assert trees.ours("truncate", b"hid/f", -1) == -EINVAL
    assert snapshot(trees.top) == before
    assert trees.ours("truncate", b"ok/f", 0) == 0  # positive control


@pytest.mark.parametrize("path", [b"hid/f", b"hid/n", b"hid/sub", b"ok/lhf", b"ok/lha"])
def test_hidden_and_absent_names_are_alike(tmp_path: Path, path: bytes) -> None:
    """C7: ENOENT whatever is there."""
    trees = Trees(tmp_path, ["sandbox/stat,truncate:on", "allow/stat,truncate+/***", "deny/stat+@/hid/***"])
    assert trees.ours("truncate", path, 0) == -ENOENT


def test_file_that_is_exchanged_after_the_judgement(tmp_path: Path) -> None:
    """C1: what is truncated is the file that was judged, whatever bears its name by then."""
    trees = Trees(tmp_path, ["sandbox/truncate:on", "allow/truncate+/***", "deny/truncate+@/hid/***"])

    def swap() -> None:
        os.rename(trees.top / "ok/f", trees.top / "ok/away")
        os.symlink("../hid/f", trees.top / "ok/f")

    trees.before_effect = swap
    assert trees.ours("truncate", b"ok/f", 0) == 0
    assert (trees.top / "hid/f").read_text() == "hid/f"
    assert (trees.top / "ok/away").read_text() == ""
