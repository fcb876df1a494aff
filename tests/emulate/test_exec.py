"""execve and execveat: the judgement before, the verification at the exec event, the way without ptrace."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import struct
import subprocess
from contextlib import contextmanager
from errno import EACCES, EINVAL, ELOOP, ENOENT, ENOEXEC, ENOTDIR
from typing import TYPE_CHECKING

import pytest

from syd_pool.emulate import exec as exec_
from syd_pool.emulate import program
from syd_pool.emulate.exec import judge_exec, verify_exec
from syd_pool.policy import Ruleset
from tests.emulate.trees import TreeCall, Trees

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from syd_pool.emulate.call import Call

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, AT_EXECVE_CHECK = 0x100, 0x1000, 0x10000
PTRACE_TRACEME = 0
ON = ["sandbox/exec:on", "allow/exec+/***"]


def _identity(path: Path | str | bytes) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _loader() -> str:
    fd = os.open("/bin/true", os.O_RDONLY)
    try:
        name = program.elf(fd, os.pread(fd, 256, 0))[0]
    finally:
        os.close(fd)
    assert name is not None
    return os.fsdecode(name)


def _script(path: Path, interpreter: object, mode: int = 0o755) -> None:
    path.write_text(f"#!{interpreter} -x\n")
    path.chmod(mode)


def _populate(top: Path) -> None:
    """Programs in ok/ and hid/; `relative` interpreters are found from the caller's directory."""
    for where in ("ok", "hid"):
        shutil.copy("/bin/true", top / where / "true")
        _script(top / where / "script", "/bin/true")
    _script(top / "ok/to-hid", top / "hid/true")
    _script(top / "ok/to-hid-script", top / "hid/script")
    _script(top / "ok/to-missing", top / "hid/missing")
    _script(top / "ok/relative", "ok/true")
    _script(top / "ok/to-fifo", top / "ok/p")
    (top / "ok/empty").write_text("#!\n")
    (top / "ok/empty").chmod(0o755)
    (top / "ok/plain").write_text("text\n")
    (top / "ok/plain").chmod(0o755)
    shutil.copy("/bin/true", top / "ok/no-x")
    (top / "ok/no-x").chmod(0o644)
    (top / "ok/to-true").symlink_to("true")
    (top / "ok/link-to-hid").symlink_to("../hid/true")
    (top / "ok/s0").symlink_to("true")
    for n in range(1, 8):
        _script(top / f"ok/s{n}", top / f"ok/s{n - 1}")


@pytest.fixture(autouse=True)
def _fresh_forecasts() -> None:
    exec_._known.clear()


def _trees(tmp_path: Path, *rules: str, descriptors: dict[int, bytes] | None = None) -> Trees:
    trees = Trees(tmp_path, [*ON, *rules], descriptors=descriptors)
    _populate(trees.top)
    _populate(trees.native_top)
    return trees


def _judge(call: Call) -> int:
    """judge_exec as an answer: 0 or -errno; the verdict in the call's result."""
    assert isinstance(call, TreeCall)
    verdict = call.result = judge_exec(call)
    return -verdict.errno


NATIVE = {
    b"ok/true": 0, b"ok/to-true": 0, b"ok/script": 0, b"ok/relative": 0, b"ok/s5": 0, b"ok/s6": -ELOOP,
    b"ok/s7": -ELOOP, b"ok/missing": -ENOENT, b"ok/to-missing": -ENOENT, b"ok/dl": -ENOENT, b"": -ENOENT,
    b"ok/true/": -ENOTDIR, b"ok/true/x": -ENOTDIR, b"ok/d": -EACCES, b"ok": -EACCES, b"ok/p": -EACCES,
    b"ok/to-fifo": -EACCES, b"/dev/null": -EACCES,
    b"ok/empty": 0, b"ok/plain": 0, b"ok/no-x": 0,  # the kernel itself refuses these three
}  # fmt: skip


@pytest.mark.parametrize("path", NATIVE)
def test_verdict_is_the_kernels_answer(tmp_path: Path, path: bytes) -> None:
    """What fails in the lookup fails by our hand with the same errno; mode and format are the kernel's."""
    trees = _trees(tmp_path)
    ours = trees.ask(_judge, "execve", path, 0, 0)
    assert ours == NATIVE[path]
    if ours:
        null = ctypes.create_string_buffer(8)
        assert trees.native("execve", path, ctypes.addressof(null), ctypes.addressof(null)) == ours


@pytest.mark.parametrize(
    ("path", "exe", "loader"),
    [
        (b"ok/true", "ok/true", True),
        (b"ok/to-true", "ok/true", True),
        (b"ok/script", "/bin/true", True),
        (b"ok/relative", "ok/true", True),
        (b"ok/s4", "ok/true", True),
        (b"ok/plain", "ok/plain", False),
    ],
)
def test_verdict_names_what_will_be_mapped(tmp_path: Path, path: bytes, exe: str, loader: bool) -> None:
    """Of a script the last interpreter; with the loader of a dynamic program."""
    trees = _trees(tmp_path)
    assert trees.ask(_judge, "execve", path, 0, 0) == 0
    assert trees.call.result.exe == _identity(trees.top / exe)
    assert trees.call.result.loader == ([_identity(_loader())] if loader else [])


@pytest.mark.parametrize(
    "path",
    [b"hid/true", b"hid/script", b"ok/link-to-hid", b"ok/to-hid", b"ok/to-hid-script", b"/proc/self/fd/7"],
)
def test_denied_program(tmp_path: Path, path: bytes) -> None:
    """EACCES for the file; SIGKILL, too, for any interpreter of its chain; elsewhere it is allowed."""
    trees = _trees(tmp_path, "deny/exec+@/hid/***", descriptors={7: b"hid/true"})
    assert trees.ask(_judge, "execve", path, 0, 0) == -EACCES
    assert [line[0] for line in trees.call.denied] == ["exec"]
    assert trees.call.ended_by == (signal.SIGKILL if b"to-hid" in path and b"link" not in path else None)
    control = _trees(tmp_path / "control", descriptors={7: b"hid/true"})
    assert control.ask(_judge, "execve", path, 0, 0) == 0
    assert control.call.ended_by is None


def test_denied_loader(tmp_path: Path) -> None:
    """A dynamic program whose loader is denied is not executed, and who asked for it is killed."""
    trees = _trees(tmp_path, f"deny/exec+{os.path.realpath(_loader())}")
    assert trees.ask(_judge, "execve", b"ok/true", 0, 0) == -EACCES
    assert trees.call.denied == [("exec", os.path.realpath(_loader()))]
    assert trees.call.ended_by == signal.SIGKILL


@pytest.mark.parametrize(
    ("action", "ended_by"), [("warn", None), ("filter", signal.SIGKILL), ("abort", signal.SIGABRT)]
)
def test_actions_on_an_interpreter(tmp_path: Path, action: str, ended_by: signal.Signals | None) -> None:
    """Only a refusal without a signal of its own becomes SIGKILL; one that is missing stays an error."""
    trees = _trees(tmp_path, f"{action}/exec+@/hid/***")
    assert trees.ask(_judge, "execve", b"ok/to-hid", 0, 0) == (0 if action == "warn" else -EACCES)
    assert trees.call.ended_by == ended_by
    assert trees.ask(_judge, "execve", b"ok/to-missing", 0, 0) == -ENOENT
    assert trees.call.ended_by is None


@pytest.mark.parametrize("hides", ["stat", "walk"])
@pytest.mark.parametrize("path", [b"hid/true", b"hid/missing", b"hid/f", b"hid/sub", b"ok/link-to-hid"])
def test_hidden_program(tmp_path: Path, hides: str, path: bytes) -> None:
    """ENOENT, whatever is there."""
    trees = _trees(tmp_path, f"sandbox/{hides}:on", f"allow/{hides}+/***", f"deny/{hides}+@/hid/***")
    assert trees.ask(_judge, "execve", path, 0, 0) == -ENOENT


@pytest.mark.parametrize(
    ("dirfd", "path", "flags", "expected"),
    [
        (AT_FDCWD, b"ok/true", 0, 0),
        (7, b"true", 0, 0),
        (6, b"", AT_EMPTY_PATH, 0),
        (6, b"", 0, -ENOENT),
        (7, b"", AT_EMPTY_PATH, -EACCES),
        (6, b"true", 0, -ENOTDIR),
        (7, b"to-true", AT_SYMLINK_NOFOLLOW, -ELOOP),
        (7, b"true", AT_SYMLINK_NOFOLLOW, 0),
        (7, b"true", 0x2, -EINVAL),
        (99, 8, 0x2, -EINVAL),
        (7, b"true", 1 << 32, 0),
        (5, b"", AT_EMPTY_PATH, -EACCES),
        (5, b"true", 0, -EACCES),
        (5, b"true", AT_EXECVE_CHECK, -EACCES),
        (4, b"", AT_EMPTY_PATH | AT_EXECVE_CHECK, -EACCES),
        (7, b"true", AT_EXECVE_CHECK, 0),
        (7, b"to-hid", AT_EXECVE_CHECK, 0),
    ],
)
def test_execveat(tmp_path: Path, dirfd: int, path: bytes | int, flags: int, expected: int) -> None:
    """4 is hid/true, 5 the denied directory, 6 ok/true, 7 ok/; flags are 32 bits (I7)."""
    trees = _trees(tmp_path, "deny/exec+@/hid/***", descriptors={4: b"hid/true", 5: b"hid", 6: b"ok/true", 7: b"ok"})
    assert trees.ask(_judge, "execveat", dirfd, path, 0, 0, flags) == expected
    assert trees.call.result.check is (bool(flags & AT_EXECVE_CHECK) and expected != -EINVAL)


def test_program_in_memory_is_refused(tmp_path: Path) -> None:
    """E11: a memfd has no path a rule could name; the option opens the way, judged as !memfd:NAME."""
    fd = os.memfd_create("x", 0)
    try:
        with open("/bin/true", "rb") as file:
            os.write(fd, file.read())
        trees = _trees(tmp_path)
        assert trees.ask(_judge, "execveat", fd, b"", 0, 0, AT_EMPTY_PATH) == -EACCES
        assert trees.ask(_judge, "execve", b"/proc/self/fd/%d" % fd, 0, 0) == -EACCES
    finally:
        os.close(fd)


def test_a_fifo_as_interpreter_does_not_block(tmp_path: Path) -> None:
    """What is not a regular file is refused before it is opened."""
    trees = _trees(tmp_path)
    signal.alarm(10)
    try:
        assert trees.ask(_judge, "execve", b"ok/to-fifo", 0, 0) == -EACCES
    finally:
        signal.alarm(0)


def test_forecast_notices_a_changed_script(tmp_path: Path) -> None:
    """The same name, rewritten: its new interpreter is judged, settled or not."""
    trees = _trees(tmp_path, "deny/exec+@/hid/***")
    script = trees.top / "ok/script"
    os.utime(script, (0, 0))
    for interpreter, answer in (("/bin/true", 0), (trees.top / "hid/true", -EACCES), ("/bin/true", 0)):
        _script(script, interpreter)
        assert trees.ask(_judge, "execve", b"ok/script", 0, 0) == answer


def test_without_ptrace_the_kernel_continues(tmp_path: Path) -> None:
    """The handlers answer a denied call and let an allowed one continue."""
    trees = _trees(tmp_path, "deny/exec+@/hid/***")
    assert trees.ours("execve", b"ok/true", 0, 0) is None
    assert trees.call.resumed
    assert trees.ours("execveat", AT_FDCWD, b"ok/true", 0, 0, 0) is None
    assert trees.ours("execve", b"hid/true", 0, 0) == -EACCES
    assert not trees.call.resumed


# --- the form of a program ------------------------------------------------------------------------


PROGRAMS = {
    "pie": ("-pie", "-fPIE"),
    "static-pie": ("-static-pie", "-fPIE"),
    "static": ("-static", "-no-pie"),
    "fixed": ("-no-pie", "-fno-pie"),
    "stack": ("-pie", "-fPIE", "-Wl,-z,execstack"),
    "library": ("-shared", "-fPIC"),
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One program of every form, and a script."""
    top = tmp_path_factory.mktemp("programs")
    (top / "p.c").write_text("int main(void) { return 0; }\n")
    for name, flags in PROGRAMS.items():
        subprocess.run(["cc", "-w", *flags, "-o", name, "p.c"], cwd=top, check=True, timeout=60)
    _script(top / "script", top / "pie")
    _script(top / "to-fixed", top / "fixed")
    shutil.copy(os.path.realpath(_loader()), top / "ld.so")
    (top / "empty").write_bytes(b"")
    (top / "empty").chmod(0o755)
    return top


FORMS = [
    ((), {"static", "fixed", "stack", "library", "ld.so", "to-fixed"}),
    (("allow_unsafe_exec_nopie",), {"stack", "library", "ld.so"}),
    (("allow_unsafe_exec_stack",), {"static", "fixed", "library", "ld.so", "to-fixed"}),
    (("allow_unsafe_exec_ldso",), {"static", "fixed", "stack", "to-fixed"}),
    (("allow_unsafe_exec_nopie", "allow_unsafe_exec_stack", "allow_unsafe_exec_ldso"), set()),
]
ASKED = {
    "deny_exec_script": {"script", "to-fixed"},
    "deny_exec_elf_static": {"static", "static-pie", "library", "ld.so"},
    "deny_exec_elf_dynamic": {"pie", "fixed", "stack", "script", "to-fixed"},
    "deny_exec_elf32": set(),
}
FORMS += [((*FORMS[-1][0], option), refused) for option, refused in ASKED.items()]


@pytest.mark.parametrize(("options", "refused"), FORMS)
def test_forms_of_programs(tmp_path: Path, programs: Path, options: tuple[str, ...], refused: set[str]) -> None:
    """syd(2): which program each option refuses (EACCES), itself or as an interpreter, and no other."""
    trees = _trees(tmp_path, *(f"trace/{option}:1" for option in options))
    names = [*PROGRAMS, "script", "to-fixed", "ld.so"]
    answers = {name: trees.ask(_judge, "execve", os.fsencode(programs / name), 0, 0) for name in names}
    assert answers == {name: -EACCES if name in refused else 0 for name in names}
    assert trees.call.ended_by is None


def test_a_32_bit_program(tmp_path: Path) -> None:
    """deny_exec_elf32, on a header alone: the kernel never sees it."""
    header = b"\x7fELF\1\1\1" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    for options, answer in (("trace/deny_exec_elf32:1",), -EACCES), ((), 0):
        trees = _trees(tmp_path / str(answer), "trace/allow_unsafe_exec_nopie:1", *options)
        (trees.top / "ok/old").write_bytes(header + struct.pack("<IIIIIIII", 1, 0, 0, 0, 0, 0, 0, 0))
        assert trees.ask(_judge, "execve", b"ok/old", 0, 0) == answer


@pytest.mark.parametrize(("name", "expected"), [("pie", 0), ("fixed", -EACCES), ("empty", -ENOEXEC), ("p.c", 0)])
def test_a_check_asks_for_the_form_too(tmp_path: Path, programs: Path, name: str, expected: int) -> None:
    """AT_EXECVE_CHECK: as syd, what is no program at all is ENOEXEC; without an x bit the kernel says so."""
    trees = _trees(tmp_path)
    path = os.fsencode(programs / name)
    assert trees.ask(_judge, "execveat", AT_FDCWD, path, 0, 0, AT_EXECVE_CHECK) == expected


# --- at the exec event ---------------------------------------------------------------------------


@contextmanager
def _stopped_at_exec(path: Path | str) -> Iterator[int]:
    """A process that has executed `path` and stands before its first instruction."""
    pid = os.fork()
    if not pid:
        try:
            ctypes.CDLL(None).ptrace(PTRACE_TRACEME, 0, 0, 0)
            os.execve(path, [b"x"], {})
        finally:
            os._exit(99)
    try:
        status = os.waitpid(pid, 0)[1]
        assert os.WIFSTOPPED(status), os.waitstatus_to_exitcode(status)
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _verify(trees: Trees, path: Path | str, exe: Path | str | None, *loaders: Path | str) -> bool:
    """What verify_exec says when `path` was executed and the others had been approved."""
    with _stopped_at_exec(path) as pid:
        approved = _identity(exe) if exe else (0, 0)
        return verify_exec(TreeCall(trees.rules, pid, "execve", ()), (approved, [_identity(x) for x in loaders]))


def test_what_was_approved_passes(tmp_path: Path) -> None:
    """A dynamic program with its loader; a script by its interpreter."""
    trees = _trees(tmp_path)
    assert _verify(trees, trees.top / "ok/true", trees.top / "ok/true", _loader())
    assert _verify(trees, trees.top / "ok/script", "/bin/true", _loader())


def test_anything_else_is_fatal(tmp_path: Path) -> None:
    """A4: another program, another loader, no loader, nothing approved: False, so the tracer kills."""
    trees = _trees(tmp_path)
    ran = trees.top / "ok/true"
    assert not _verify(trees, ran, trees.top / "hid/true", _loader())
    assert not _verify(trees, ran, ran, trees.top / "hid/true")
    assert not _verify(trees, ran, ran)
    assert not _verify(trees, ran, None)
    assert not _verify(trees, _loader(), ran, _loader())  # the loader itself, which could run anything
    assert not _verify(trees, trees.top / "ok/script", trees.top / "ok/script", _loader())


def test_interpreter_swapped_between_check_and_exec(tmp_path: Path) -> None:
    """A4 end to end, won by the attacker every time: judged with /bin/true, executed with the denied copy."""
    trees = _trees(tmp_path, "deny/exec+@/hid/***")
    swapped = trees.top / "ok/script"
    assert trees.ask(_judge, "execve", b"ok/script", 0, 0) == 0
    verdict = trees.call.result
    _script(swapped, trees.top / "hid/true")
    with _stopped_at_exec(swapped) as pid:
        assert os.readlink(f"/proc/{pid}/exe") == str(trees.top / "hid/true")  # positive control: it runs
        assert not verify_exec(TreeCall(trees.rules, pid, "execve", ()), (verdict.exe, verdict.loader))


def test_process_that_is_gone_fails(tmp_path: Path) -> None:
    """What cannot be looked at is not approved."""
    trees = _trees(tmp_path)
    with _stopped_at_exec("/bin/true") as pid:
        pass
    approved = (_identity("/bin/true"), [_identity(_loader())])
    assert not verify_exec(TreeCall(trees.rules, pid, "execve", ()), approved)


@pytest.mark.parametrize("capable", [True, False])
@pytest.mark.parametrize("honest", [True, False])
def test_maps_with_another_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capable: bool, honest: bool) -> None:
    """Where maps shows another device than stat (btrfs): map_files tells, or, incapable, our own map."""
    mapped_files, stat = exec_.mapped_files, os.stat

    def elsewhere(tid: int | bytes) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
        return ((where, b"ff:7f", inode, path) for where, _, inode, path in mapped_files(tid))

    def incapable(path: str | bytes, **keywords: Any) -> os.stat_result:
        if isinstance(path, bytes) and b"map_files" in path:
            raise PermissionError(1, "CAP_CHECKPOINT_RESTORE", path)
        return stat(path, **keywords)

    def another_inode(tid: int | bytes) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
        for where, device, inode, path in elsewhere(tid):
            yield where, device, inode if tid == b"self" else inode + b"0", path

    monkeypatch.setattr(exec_, "mapped_files", elsewhere)
    if not capable:
        monkeypatch.setattr(os, "stat", incapable)
    trees = _trees(tmp_path)
    loader = _loader() if honest else "/bin/true"
    with _stopped_at_exec(trees.top / "ok/true") as pid:
        approved = (_identity(trees.top / "ok/true"), [_identity(loader)])
        call = TreeCall(trees.rules, pid, "execve", ())
        assert verify_exec(call, approved) is honest
        if not capable:  # the path is an approved file's, but another file is mapped
            monkeypatch.setattr(exec_, "mapped_files", another_inode)
            assert not verify_exec(call, approved)


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_as_an_ordinary_user_too() -> None:
    """Without any capability the own maps and exe of a child of the same user are readable."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: the change of identity took it
            with _stopped_at_exec("/bin/true") as child:
                approved = (_identity("/bin/true"), [_identity(_loader())])
                call = TreeCall(Ruleset(), child, "execve", ())
                code = 0 if verify_exec(call, approved) and not verify_exec(call, (approved[0], [])) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
