"""F8 and kin: signals that would leave the sandbox, with Landlock's signal scope and on kernels that have none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from arena import Arena, Runner, Running, is_real_syd, kill_one, read_process

pytestmark = pytest.mark.attack

NO_SCOPE = {"SYD_POOL_TEST_NO_SIGNAL_SCOPE": "1"}
EPERM, ESRCH, EINVAL, EBADF, ENOPROTOOPT = 1, 3, 22, 9, 92


@pytest.fixture(params=["landlock", "handlers"], autouse=True)
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    """What keeps signals inside: Landlock's scope, or our handlers as on Linux before 6.12."""
    if request.param == "handlers" and is_real_syd():
        pytest.skip("the variable is ours")
    return NO_SCOPE if request.param == "handlers" else {}


@pytest.fixture
def victims(runner: Runner) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes of the same user outside of any sandbox; the first leads a group of its own."""
    made = [
        subprocess.Popen(["sleep", "100"], start_new_session=not i, **runner.identity.arguments())  # type: ignore[call-overload]
        for i in range(3)
    ]
    yield made
    for process in made:
        process.kill()
        process.wait()


def threads(pids: list[int]) -> bytes:
    """Lines for the payload: each process with each of its threads."""
    return b"".join(b"%d %s\n" % (pid, name) for pid in pids for name in os.listdir(b"/proc/%d/task" % pid))


def tell(running: Running, pids: list[int]) -> None:
    """Give the payload its targets."""
    assert running.process.stdin is not None
    running.process.stdin.write(threads(pids))
    running.process.stdin.close()


def survives(runner: Runner, words: list[str], rules: list[str], env: dict[str, str], more: list[int]):  # type: ignore[no-untyped-def]
    """Run `signaller` against the sandbox's own processes and `more`: (outcome, summary of the run)."""
    with tempfile.TemporaryFile() as status:
        command = runner.syd([runner.payload("signaller"), *words], rules, ["--status-fd", str(status.fileno())])
        os.set_inheritable(status.fileno(), True)
        with runner.start(command, env=env, stdin=subprocess.PIPE, pass_fds=[status.fileno()]) as running:
            running.line("ready")
            ours = list(running.sandbox())
            assert len(ours) >= 4, ours  # keeper, tracer, monitor, worker
            tell(running, [*ours, *more])
            outcome = running.finish(60)
        assert not outcome.leftovers
        status.seek(0)
        events = [json.loads(line) for line in status.read().splitlines()]
    assert outcome.status == 0 and outcome.facts.get("sent.kill") is not None, outcome
    return outcome, next(event for event in events if event["event"] == "summary")


def test_f8_every_signal_by_every_way(runner: Runner, env: dict[str, str], victims) -> None:  # type: ignore[no-untyped-def]
    """F8: no process of ours and none outside is reached by any of 62 signals in nine ways; the workers live on."""
    outcome, summary = survives(runner, ["each"], [], env, [v.pid for v in victims])
    sent = {key: value for key, value in outcome.facts.items() if key.startswith("sent.") and value != "0"}
    assert not sent, sent
    assert all(read_process(v.pid).state == "S" for v in victims)  # type: ignore[union-attr]
    assert (summary["workers_died"], summary["monitors"]) == (0, 1), summary
    for way in ("kill", "tkill", "tgkill", "queue", "tgqueue"):
        assert set(outcome.errnos(way)) == {EPERM}, (way, outcome.out)
    assert set(outcome.errnos("pidfd")) <= {ESRCH, EPERM}, outcome.out


def test_f8_with_rules_on_files(runner: Runner, arena: Arena, env: dict[str, str]) -> None:
    """F8: the same with every category on, where workers are busy with other calls too."""
    outcome, summary = survives(runner, ["each"], arena.rules(), env, [])
    assert all(value == "0" for key, value in outcome.facts.items() if key.startswith("sent."))
    assert summary["workers_died"] == 0


def test_f8_control(runner: Runner, victims) -> None:  # type: ignore[no-untyped-def]
    """F8 control: natively each way reaches processes of the same user."""
    how = runner.identity.arguments()
    # what has been hit by SIGSTOP stays to be hit again
    stoppers = [subprocess.Popen(["sleep", "100"], **how) for _ in range(8)]  # type: ignore[call-overload]
    try:
        with runner.start([runner.payload("signaller"), "each"], stdin=subprocess.PIPE) as running:
            running.line("ready")
            tell(running, [p.pid for p in stoppers])
            outcome = running.finish(20)
    finally:
        for process in stoppers:
            process.kill()
            process.wait()
    for way in ("kill", "tkill", "tgkill", "queue", "tgqueue", "pidfd", "proc"):
        assert outcome.number(f"sent.{way}") > 0, (way, outcome.out)


def test_f8_owner_of_a_file(runner: Runner, env: dict[str, str], victims) -> None:  # type: ignore[no-untyped-def]
    """F8: a file sends its owner signals: none of ours can be ended by them, whatever signal is chosen."""
    outcome, summary = survives(runner, ["files"], [], env, [])
    assert summary["workers_died"] == 0 and summary["monitors"] == 1
    if env:
        verdicts = {int(k.removeprefix("setsig.")): int(v) for k, v in outcome.facts.items() if k.startswith("setsig.")}
        fatal = dict.fromkeys((signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGUSR1), EINVAL)
        assert verdicts == {0: 0, 40: 0, **fatal}
    with runner.start([runner.payload("signaller"), "files"], stdin=subprocess.PIPE) as running:
        running.line("ready")
        tell(running, [victims[0].pid])
        running.finish(20)
    assert victims[0].wait(5) < 0, "control: natively the owner is ended"


def test_f8_pidfd_of_a_peer(runner: Runner, env: dict[str, str]) -> None:
    """F8: a connection to oneself is made by a worker: the pidfd of the peer is one's own, not the worker's."""
    rules = ["sandbox/net:on", "allow/net/bind+@*", "allow/net/connect+@*"]
    outcome = runner.boxed([runner.payload("signaller"), "peer"], rules, env=env)
    control = runner.native([runner.payload("signaller"), "peer"])
    if control.facts.get("peer") == str(ENOPROTOOPT):
        pytest.skip("no SO_PEERPIDFD before Linux 6.5: no positive control")
    assert control.status == 128 + signal.SIGKILL, "control: natively that pidfd is the connecting process"
    assert outcome.status == 128 + signal.SIGKILL, outcome


def test_f8_nothing_to_put_in_a_pidfds_place(runner: Runner, env: dict[str, str], victims) -> None:  # type: ignore[no-untyped-def]
    """F8: a pidfd may be exchanged after it was judged, so none of ours can be had, by pidfd_open or from /proc."""
    with runner.start(
        runner.syd(
            [runner.payload("signaller"), "swap", "0.3"], [*(["trace/allow_unsafe_magiclinks:1"] if env else [])]
        ),
        env=env,
        stdin=subprocess.PIPE,
    ) as running:
        running.line("ready")
        tell(running, list(running.sandbox())[:1])
        outcome = running.finish(20)
    assert (outcome.status, outcome.facts["held"]) == (0, "0"), outcome
    with runner.start([runner.payload("signaller"), "swap", "0.3"], stdin=subprocess.PIPE) as running:
        running.line("ready")
        tell(running, [victims[1].pid])
        control = running.finish(20)
    assert control.facts["held"] == "1" and victims[1].wait(5) == -signal.SIGUSR2, "control: the exchange works"


# ---- many at once --------------------------------------------------------------------------------------


def many(runner: Runner, how: str, env: dict[str, str], native: bool = False):  # type: ignore[no-untyped-def]
    """Run `signal_many` beside a process that is not of the sandbox but of its process group."""
    command = [runner.payload("signal_many"), how]
    line = command if native else runner.syd(command, [])
    script = 'sleep 100 & echo stranger $!; "$@" <&3; status=$?; kill $! 2>/dev/null && echo alive; exit $status'
    with runner.start(["sh", "-c", f"exec 3<&0; {script}", "sh", *line], env=env, stdin=subprocess.PIPE) as running:
        running.line("ready")
        tell(running, [])
        return running.finish(20)


@pytest.mark.parametrize("how", ["self", "all", "group"])
def test_f8_groups(runner: Runner, env: dict[str, str], how: str) -> None:
    """F8: kill of 0, -1 and -PGID reach each process of the command once, with the sender's pid, and nobody else."""
    if how == "all" and runner.identity.uid is None and os.geteuid() == 0 and not env and is_real_syd():
        pytest.skip("would signal the whole machine")
    outcome = many(runner, how, env)
    assert (outcome.status, outcome.facts.get("result")) == (0, "0"), outcome
    assert "alive" in outcome.out.split(), "the stranger lives"
    got = [tuple(map(int, outcome.facts[f"got.{i}"].split())) for i in range(5)]
    itself = 1 if how == "self" else 0
    assert [g[0] for g in got] == [1, 1, 1, 1, itself], got
    assert all(g[2] == 1 for g in got[: 4 + itself]), got
    codes = {g[1] for g in got[: 4 + itself]}
    assert codes == ({0} if not env or how == "group" else {-1}), codes  # SI_USER, SI_QUEUE


def test_f8_group_control(runner: Runner, env: dict[str, str]) -> None:
    """F8 control: natively kill(0) reaches the stranger of the same process group too."""
    if env:
        pytest.skip("once is enough")
    outcome = many(runner, "self", env, native=True)
    assert "alive" not in outcome.out.split(), outcome


def test_f8_kill_everybody_who_forks(runner: Runner, env: dict[str, str]) -> None:
    """F8: kill(-1, SIGKILL) ends a tree that forks without end; nothing of it is left and the run ends as it should."""
    for _ in range(3):
        outcome = runner.boxed([runner.payload("signal_many"), "bomb"], [], 30, env=env)
        assert outcome.status == 0, outcome
        assert (outcome.facts["result"], outcome.facts["later"]) == ("0", "0"), outcome.out


# ---- recycled numbers ------------------------------------------------------------------------------------


def test_b1_f8_recycled_pids(runner: Runner, env: dict[str, str], seconds: float) -> None:
    """B1, F8: with 400 pids in all, a program kills numbers that were its children's while workers die and new ones
    take such numbers: none of ours is hit, and the tracer and the keeper live."""
    if os.geteuid() != 0:
        pytest.skip("needs root for a pid namespace with a small pid_max")
    if os.uname().release.split(".")[:2] < ["6", "14"]:
        pytest.skip("pid_max is the whole machine's")
    script = 'echo 400 >/proc/sys/kernel/pid_max || exit 95; "$@"; exit $?'
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script, "sh"]
    if runner.identity.uid is not None:
        words += ["setpriv", f"--reuid={runner.identity.uid}", f"--regid={runner.identity.uid}", "--clear-groups"]
    with tempfile.TemporaryFile() as status:
        os.set_inheritable(status.fileno(), True)
        command = runner.syd(
            [runner.payload("recycled"), str(1 + seconds)],
            [],
            ["--nproc=2", "--fd-answers=two-step", "--status-fd", str(status.fileno())],
        )
        root = Runner(type(runner.identity)("root"), runner.payload)
        with root.start([*words, *command], env=env, pass_fds=[status.fileno()]) as running:
            running.line("ready")
            killed = 0
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                workers = [p.pid for p in running.tree().values() if p.comm == "syd_emu"]
                if workers:
                    kill_one(workers[killed % len(workers)])
                    killed += 1
                time.sleep(0.03)
            outcome = running.finish(40)
        status.seek(0)
        events = [json.loads(line) for line in status.read().splitlines()]
    assert outcome.status == 0, outcome
    summary = next(event for event in events if event["event"] == "summary")
    assert killed > 2 and summary["workers_died"] <= killed, (killed, summary)
    assert outcome.number("sent") > 0, ("control: numbers do come back", outcome.out)


def test_number_of_nobody(runner: Runner, env: dict[str, str]) -> None:
    """A number that nobody has is ESRCH, and kill(INT_MIN) too, as natively."""
    code = (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True); "
        "f = lambda *a: (c.syscall(*a), ctypes.get_errno())[1]; "
        "print([f(62, p, 0) for p in (4194303, -2**31, -4194303)], "
        "f(200, 0, 9), f(234, 1, 0, 9), f(62, 1 << 32 | 4194303, 9))"
    )
    assert runner.boxed(["python3", "-c", code], [], env=env).out == "[3, 3, 3] 22 22 3\n"
    assert runner.native(["python3", "-c", code]).out == "[3, 3, 3] 22 22 3\n"


def test_a_sibling_of_the_command(runner: Runner, env: dict[str, str]) -> None:
    """A process made with CLONE_PARENT is the tracer's child, and the command's all the same: it can be signalled."""
    code = (
        "import ctypes, os, signal, time\n"
        "c = ctypes.CDLL(None, use_errno=True)\n"
        "pid = c.syscall(56, 0x8000 | 17, 0, 0, 0, 0)\n"
        "if pid == 0:\n"
        "    while True: time.sleep(1)\n"
        "print(c.kill(pid, 0), c.sched_setaffinity(pid, 8, b'\\1' * 8), c.kill(pid, 9), flush=True)\n"
        "time.sleep(0.2)\n"
        "print(c.kill(pid, 0))\n"
    )
    outcome = runner.boxed(["python3", "-c", code], [], env=env)
    assert (outcome.status, outcome.out.split()) == (0, ["0", "0", "0", "-1"]), outcome


def test_program_of_another_identity(runner: Runner, env: dict[str, str], arena: Arena) -> None:
    """F8, B7: a child that gave its ids up may not signal its parent by a group, and may by its own ids."""
    if runner.identity.uid is not None or os.geteuid() != 0:
        pytest.skip("needs root")
    script = Path(arena.box / "groups.py")
    script.write_text(
        "import os, signal, time\n"
        "signal.signal(signal.SIGUSR1, lambda *a: print('reached', os.geteuid(), flush=True))\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.setresuid(1000, 1000, 1000)\n"
        "    try: os.kill(os.getppid(), signal.SIGUSR1)\n"
        "    except OSError as e: print('parent', e.errno, flush=True)\n"
        "    os.kill(0, signal.SIGUSR1)\n"
        "    time.sleep(0.1)\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
    )
    outcome = runner.boxed(["python3", str(script)], ["trace/allow_unsafe_caps:1"], env=env)
    assert sorted(outcome.out.split("\n")) == ["", "parent 1", "reached 1000"], outcome
