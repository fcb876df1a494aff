"""statfs."""

from __future__ import annotations

from errno import EFAULT, ENOENT
from pathlib import Path

import pytest

from tests.emulate.trees import Trees
from tests.emulate.words import BAD, Shared

PATHS = [
    b"ok", b"ok/", b"ok/f", b"ok/f/", b"ok/l", b"ok/dl", b"ok/ld/.", b"ok/missing", b"ok/f/x", b"", b".",
    b"/proc", b"/proc/self/", b"/sys", b"/dev/shm", b"x" * 4096,
]  # fmt: skip
_STEADY = (slice(0, 24), slice(40, 48), slice(56, None))  # all but f_bfree, f_bavail and f_ffree, which others change


@pytest.mark.parametrize("path", PATHS)
def test_every_path_as_natively(tmp_path: Path, path: bytes) -> None:
    """Errno and what is written are the kernel's; nothing is written behind the structure."""
    trees, out = Trees(tmp_path), Shared()
    native, by_kernel = trees.native("statfs", path, out.fill()), out.data()
    ours, by_us = trees.ours("statfs", path, out.fill()), out.data()
    assert ours == native
    for part in _STEADY:
        assert by_us[part] == by_kernel[part]
    assert (by_us[:8] == b"\xee" * 8) == (native < 0)


def test_bad_pointers(tmp_path: Path) -> None:
    """EFAULT for either."""
    trees = Trees(tmp_path)
    assert trees.both("statfs", b"ok", BAD) == -EFAULT
    assert trees.both("statfs", BAD, Shared().address) == -EFAULT


def test_hidden_object(tmp_path: Path) -> None:
    """`stat` denied is ENOENT and nothing is told; elsewhere it works."""
    trees, out = Trees(tmp_path, ["sandbox/stat:on", "allow/stat+/***", "deny/stat+@/hid/***"]), Shared()
    for name in (b"hid/f", b"hid/absent", b"ok/lhf"):
        assert trees.ours("statfs", name, out.fill()) == -ENOENT
        assert out.data() == b"\xee" * 4096
    assert trees.ours("statfs", b"ok", out.fill()) == 0  # positive control
    assert out.data()[:8] != b"\xee" * 8
