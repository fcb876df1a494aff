"""A9, B1, B3, B4, B7: which value, which process, which thread and whose identity a call is judged by."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess

import pytest
from arena import (
    ALL,
    Arena,
    Identity,
    Payloads,
    Runner,
    assert_silent,
    is_real_syd,
    open_directory,
    open_file,
    status_of,
    switch_on,
    syd_differs,
    unharmed,
)

pytestmark = pytest.mark.attack


def test_a9_upper_halves_of_int_arguments(runner: Runner, arena: Arena) -> None:
    """A9: an int argument is judged by the 32 bits the kernel will see; rubbish above them changes no verdict."""
    open_file(arena.box / "kept", "must stay\n")
    open_directory(arena.box / "directory")
    (arena.box / "link").symlink_to("aaaa")
    (arena.box / "dangling").symlink_to("nowhere")
    command = [runner.payload("upper_bits"), str(arena.box), str(arena.ctf)]
    rules = [*arena.rules(), f"deny/write,truncate+{arena.box}/kept", f"deny/rmdir,delete+{arena.box}/directory"]
    with unharmed(arena):
        outcome = runner.boxed(command, rules)
    assert outcome.status == 0, outcome.err
    assert (arena.box / "kept").read_text() == "must stay\n" and (arena.box / "directory").is_dir()
    seen = {key: value.split() for key, value in outcome.facts.items()}
    uneven = {key: value for key, value in seen.items() if len(set(value)) != 1}
    assert not uneven, uneven
    assert all("0" not in value for key, value in seen.items() if key.startswith("!")), seen
    native = {key: value.split() for key, value in runner.native(command).facts.items()}
    assert all("0" in value for key, value in native.items() if key.startswith("!")), native
    guards = {"prctl-seccomp", "seccomp-mode", "ioctl-notif-recv"}
    plain = {key for key in native if not key.startswith("!")} - guards
    wrong = {key: (native[key], seen[key]) for key in plain if native[key] != seen[key]}
    with syd_differs("access and statx are stricter about unknown bits"):
        assert not wrong, wrong


def test_b1_recycled_pids(runner: Runner, arena: Arena, seconds: float) -> None:
    """B1: with 400 pids in all, callers die and their numbers return; nobody ever gets another's file."""
    if os.geteuid() != 0:
        pytest.skip("needs root for a pid namespace with a small pid_max")
    for nonce in range(1000):
        open_file(arena.box / f"nonce{nonce:04}", f"{nonce}\n")
    for boxed in (True, False):
        lasting = str(max(1.0, 1.5 * seconds) if boxed else 0.5)
        inner = [runner.payload("nonces"), lasting, str(arena.box), "8"]
        outcome = runner_as_root(runner).native(
            small_pid_space(runner, inner, arena.rules() if boxed else None), 60 + 5 * seconds
        )
        assert not outcome.leftovers
        assert outcome.status == 0, outcome.err
        assert outcome.number("wrong", -1) == 0 and outcome.number("refused", -1) == 0, (boxed, outcome.out)
        with syd_differs("too slow for its pids to return within a second"):
            assert outcome.number("recycled") > 0, f"no pid was ever recycled: {outcome.out}"


@pytest.mark.parametrize("ptrace", [True, False])
def test_umask_of_whoever_creates(runner: Runner, arena: Arena, ptrace: bool) -> None:
    """B1, B3: files get the umask of the process that makes them, also when it is shared (CLONE_FS), its pid is used
    again, or workers remember another."""
    rules = [*arena.rules(), *(() if ptrace else ("trace/allow_unsafe_ptrace:1",))]
    inner = [runner.payload("umasks"), str(arena.box), "150"]
    assert runner.native(inner).out == "made 1502\nwrong 0\n"
    if runner.identity.uid is None:
        boxed = runner.native(small_pid_space(runner, inner, rules), 60)
    else:
        boxed = runner.boxed(inner, rules)
    assert (boxed.status, boxed.out) == (0, "made 1502\nwrong 0\n"), boxed.err


def runner_as_root(runner: Runner) -> Runner:
    """The same payloads, started as root (who may make the namespace)."""
    return Runner(Identity("root"), runner.payload)


def small_pid_space(runner: Runner, inner: list[str], rules: list[str] | None) -> list[str]:
    """In a new pid namespace with pid_max 400, as the runner's identity."""
    command = inner if rules is None else runner.syd(inner, rules)
    if runner.identity.uid is not None:
        uid = str(runner.identity.uid)
        command = ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", *command]
    script = 'echo 400 >/proc/sys/kernel/pid_max || exit 95; "$@"; exit $?'
    return ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "/bin/sh", "-c", script, "sh", *command]


@pytest.mark.parametrize("leader", ["stay", "leave"])
def test_b3_threads_belong_to_their_group(runner: Runner, arena: Arena, leader: str) -> None:
    """B3: 64 threads share their group's directory, umask and identity, also when the leader is a zombie."""
    command = [runner.payload("threads"), "64", leader, str(arena.box)]
    native = runner.native(command)
    boxed = runner.boxed(command, arena.rules())
    assert (native.status, native.out) == (0, "opened 320\nmodes 320\nown 320\nspawned 64\n")
    assert boxed.status == 0, (boxed.status, boxed.out, boxed.err)
    with syd_differs("/proc/self fails for a thread whose leader has gone"):
        assert boxed.out == native.out


def test_b4_exec_from_another_thread(runner: Runner, arena: Arena, seconds: float) -> None:
    """B4: a thread that is not the leader execs under 16 siblings' calls in flight, over and over: no hang, no
    stray answer."""
    rounds = str(int(200 * seconds))
    command = [runner.payload("thread_exec"), rounds, str(2 * seconds), str(arena.box / "aaaa")]
    native = runner.native([command[0], "20", *command[2:]])
    assert native.status == 0 and native.number("rounds") > 0, (native.status, native.err)
    boxed = runner.boxed(command, arena.rules(), 30 + 10 * seconds)
    assert boxed.status == 0, (boxed.status, boxed.out, boxed.err)
    assert boxed.number("rounds") >= min(20, native.number("rounds")) / 4


@pytest.fixture
def root_runner(payloads: Payloads) -> Runner:
    """A sandbox whose supervisor is root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    return Runner(Identity("root"), payloads)


def private_file(arena: Arena) -> str:
    """A file of root's that only root may read, in a directory where only root may delete."""
    path = arena.root / "private"
    path.mkdir(mode=0o755)
    (path / "file").write_text(arena.flag)
    (path / "file").chmod(0o600)
    return str(path / "file")


IDENTITY_FACTS = {
    "setid": "0",
    "private": "13",
    "private-write": "13",
    "private-access": "13",
    "private-unlink": "13",
    "made": "1000 1000 640",
    "directory": "1000 1000 750",
}


@pytest.mark.root
def test_b7_identity_changed_inside(root_runner: Runner, arena: Arena) -> None:
    """B7: after the command becomes uid 1000 the sandbox acts as uid 1000: no file of root's, own files, own
    umask."""
    private = private_file(arena)
    command = [root_runner.payload("drop_to_user"), private, str(arena.box)]
    lifted = ["trace/allow_safe_setuid:1", "trace/allow_safe_setgid:1", "setuid+0:1000", "setgid+0:1000"]
    outcome = root_runner.boxed(
        command, [*(lifted if is_real_syd() else ["trace/allow_unsafe_caps:1"]), *arena.rules()]
    )
    assert outcome.status == 0, (outcome.status, outcome.out, outcome.err)
    if outcome.facts["setid"] != "0":
        pytest.skip(f"the sandbox refuses to change the identity (errno {outcome.facts['setid']}): nothing to exceed")
    with syd_differs("some of its threads still act as root after a permitted change"):
        assert outcome.facts == IDENTITY_FACTS


@pytest.mark.root
def test_b7_identity_control(root_runner: Runner, arena: Arena) -> None:
    """B7 control: the same facts natively; and without the change root reads its own file."""
    private = private_file(arena)
    command = [root_runner.payload("drop_to_user"), private, str(arena.box)]
    assert root_runner.native(command).facts == IDENTITY_FACTS
    assert arena.flag in root_runner.boxed(["/bin/cat", private], arena.rules()).out


@pytest.mark.root
def test_b7_set_user_id_program(root_runner: Runner, arena: Arena) -> None:
    """B7: a set-user-id program gains nothing in the sandbox, as its privileges are frozen at the start."""
    program = arena.root / "cat"
    shutil.copy("/bin/cat", program)
    program.chmod(0o4755)
    private = private_file(arena)
    uid = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]
    native = subprocess.run([*uid, str(program), private], capture_output=True, timeout=20, text=True)
    if native.returncode:
        pytest.skip("the file system is mounted nosuid")
    assert arena.flag in native.stdout
    assert stat.S_ISUID & program.stat().st_mode
    done = subprocess.run(
        [*uid, *root_runner.syd([str(program), private], [*switch_on(), f"allow/{ALL}+/***"])],
        capture_output=True,
        timeout=30,
        text=True,
        cwd="/",
    )
    if "ermission denied" in done.stderr and not done.stdout and status_of(done.returncode) == 126:
        pytest.skip("uid 1000 cannot start the sandbox")
    assert arena.flag not in done.stdout + done.stderr
    assert done.returncode != 0
    assert_silent_twice(root_runner, arena, str(program), private)


def assert_silent_twice(runner: Runner, arena: Arena, program: str, private: str) -> None:
    """As root the same program is allowed: the refusal above was about identity, not about the path."""
    outcome = runner.boxed([program, private], arena.rules())
    assert arena.flag in outcome.out
    with pytest.raises(AssertionError):
        assert_silent(outcome, arena)
