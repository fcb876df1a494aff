"""B7: real, effective, saved and file-system ids that differ: every answer as natively, whoever the worker is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from arena import Arena, Identity, Payloads, Runner, is_real_syd, open_directory

pytestmark = [pytest.mark.attack, pytest.mark.root]

# A program that takes on ids and then meets files: root's, its own, and one it may only search for.
PROGRAM = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    words = [a.encode() if isinstance(a, str) else a for a in arguments]
    return ctypes.get_errno() if libc.syscall(*words) < 0 else 0
FACCESSAT2, AT_EACCESS, CWD = 439, 0x200, -100
box, how = sys.argv[1], sys.argv[2]
os.chdir(box)
if how != "none":
    real, effective, saved, group, fs, drop = map(int, how.split(","))
    os.setgroups([])
    os.setresgid(group, group, group)
    if drop:
        libc.prctl(8, 1)  # PR_SET_KEEPCAPS
    os.setresuid(real, effective, saved)
    if fs >= 0:
        libc.setfsuid(fs)
for name in "root600 root644 root666 user600 user400 dir700 dir700/file none user-in-777/root600".split():
    for mode in (0, 1, 2, 4, 6, 7):
        print(name, mode, call(21, name, mode), call(269, CWD, name, mode, 0), call(FACCESSAT2, CWD, name, mode, 0),
              call(FACCESSAT2, CWD, name, mode, AT_EACCESS), call(FACCESSAT2, CWD, name, mode, AT_EACCESS | 0x100))
    print(name, "open", call(257, CWD, name, os.O_RDONLY, 0), call(257, CWD, name, os.O_WRONLY, 0))
    print(name, "link", call(86, name, "link-of-" + name.replace("/", "-")))
    print(name, "chmod", call(90, name, 0o640) if name.startswith("user") else "")
    print(name, "rename", call(82, name, name))
    print(name, "truncate", call(76, name, 0) if name == "root600" else "")
    print(name, "utime", call(132, name, 0))
    print(name, "chown", call(92, name, -1, -1), call(92, name, os.getuid(), -1) if how != "none" else "")
print("mkdir", call(83, "made", 0o777), "mknod", call(133, "made-node", 0o10666, 0))
print("symlink", call(88, "x", "made-link"))
print("create", call(257, CWD, "made-file", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
for name in ("made", "made-node", "made-link", "made-file"):
    try:
        st = os.lstat(name)
        print(name, st.st_uid, st.st_gid, oct(st.st_mode))
    except OSError as error:
        print(name, error.errno)
print("unlink", call(87, "dir755/file"), call(87, "sticky/root"), call(87, "sticky/user"), call(84, "dir755/empty"))
print("exec", call(59, "root700", 0, 0))
"""


def build(box: Path) -> None:
    """Files of root's and of uid 1000's."""
    open_directory(box)
    for name, mode in (("dir700", 0o700), ("dir755", 0o755), ("sticky", 0o1777), ("user-in-777", 0o777)):
        (box / name).mkdir()
        (box / name).chmod(mode)
    for name, mode in (
        ("root600", 0o600), ("root644", 0o644), ("root666", 0o666), ("user600", 0o600), ("user400", 0o400),
        ("dir700/file", 0o666), ("dir755/file", 0o666), ("sticky/root", 0o666), ("sticky/user", 0o666),
        ("user-in-777/root600", 0o600), ("root700", 0o700),
    ):  # fmt: skip
        (box / name).write_text("text")
        (box / name).chmod(mode)
        if "user" in name.split("/")[-1]:
            os.chown(box / name, 1000, 1000)
    (box / "dir755/empty").mkdir()


def test_b7_thousands_of_groups(payloads: Payloads, arena: Arena) -> None:
    """B7: an identity of 5,000 groups is read whole: its files are its own, and no worker dies of it."""
    if os.geteuid() != 0 or is_real_syd():
        pytest.skip("needs root, and a sandbox that lets identities change")
    (arena.box / "group").write_text("text")
    os.chown(arena.box / "group", 0, 5999)
    (arena.box / "group").chmod(0o640)
    program = (
        "import os; os.setgroups(range(1000, 6000)); os.setresuid(1000, 1000, 1000); "
        f"print(open({str(arena.box / 'group')!r}).read())"
    )
    runner = Runner(Identity("root"), payloads)
    command = ["python3", "-c", program]
    outcome = runner.boxed(command, ["sandbox/all:on", "allow/all+/***", "trace/allow_unsafe_caps:1"])
    assert (outcome.status, outcome.out, outcome.err) == (0, "text\n", ""), outcome
    assert runner.native(command).out == "text\n", "control"


@pytest.mark.parametrize(
    "how",
    [
        "none",
        "1000,1000,1000,1000,-1,0",
        "0,1000,0,1000,-1,0",  # effective only
        "1000,0,0,0,-1,0",  # real only: what access(2) asks with
        "1000,0,0,1000,-1,0",
        "1000,1000,0,1000,-1,0",
        "1001,1000,0,1000,-1,0",
        "0,0,0,0,1000,0",  # the file system's only
        "1000,1000,1000,1000,-1,1",  # keeps its permitted capabilities, has none in effect
        "1000,1001,1000,0,-1,1",
    ],
)
def test_b7_access_as_natively(payloads: Payloads, arena: Arena, how: str) -> None:
    """B7: access(2) by the real, AT_EACCESS by the effective ids, everything else by the file system's: as natively."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if is_real_syd():
        pytest.skip("refuses changes of identity")
    runner = Runner(Identity("root"), payloads)
    said = []
    for boxed in (False, True):
        box = arena.root / ("boxed" if boxed else "native")
        build(box)
        command = ["python3", "-c", PROGRAM, str(box), how]
        everything = ["sandbox/all:on", "allow/all+/***", "trace/allow_unsafe_caps:1"]
        outcome = runner.boxed(command, everything) if boxed else runner.native(command)
        assert outcome.status == 0, outcome
        said.append(outcome.out.splitlines())
    differing = [(native, ours) for native, ours in zip(*said, strict=True) if native != ours]
    assert not differing, differing
