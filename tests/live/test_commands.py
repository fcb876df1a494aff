"""What /dev/syd answers, in every state of the lock, to whom, by which call (syd(2))."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import subprocess
from collections.abc import Sequence
from errno import EACCES, EAGAIN, EBADF, EBUSY, EFAULT, EINVAL, ENOENT, ENOSYS, EPERM
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from bench import Bench

from syd_pool.policy import Ruleset
from syd_pool.tracer import commands, showing
from syd_pool.tracer.state import Run

STATES = ("off", "exec", "ipc", "drop", "read", "on")


def ask(bench: Bench, speak: Path, rules: Sequence[str], words: Sequence[str]) -> list[int]:
    """What each word gives, in a sandbox that is off but for `rules`."""
    outcome, _ = bench.run("nothing", [str(speak), *words], 30, rules=rules)
    assert outcome.status == 0, (outcome.status, outcome.err[-2000:])
    found = [line.rsplit(" ", 1) for line in outcome.out.splitlines()]
    said = [(word, int(number)) for word, number in (f for f in found if len(f) == 2) if word in words]
    assert [word for word, _ in said] == list(words), outcome.out
    return [number for _, number in said]


# --- the lock --------------------------------------------------------------------------------------

MAY = {"off": True, "exec": True, "drop": True, "ipc": False, "read": False, "on": False}
# (from, to) -> errno of `lock:to`; as syd 3.52 answers, every one of them
REFUSED = {
    ("off", "ipc"): EBUSY, ("exec", "ipc"): EBUSY, ("exec", "off"): EPERM, ("drop", "off"): EPERM,
    ("drop", "exec"): EPERM, ("drop", "ipc"): EPERM, ("drop", "read"): EPERM,
}  # fmt: skip


@pytest.mark.parametrize(("start", "to"), list(itertools.product(STATES, STATES)))
def test_every_transition(bench: Bench, speak: Path, start: str, to: str) -> None:
    """What each state says to each next one, and what is possible then."""
    words = ["stat:/dev/syd", f"stat:/dev/syd/lock:{to}", "stat:/dev/syd/", "stat:/dev/syd/sandbox/mkdir:on",
             "stat:/dev/syd/lock:on", "stat:/dev/syd"]  # fmt: skip
    said = ask(bench, speak, [f"lock:{start}"], words)
    if not MAY[start]:
        assert said == [ENOENT] * 6
        return
    refused = REFUSED.get((start, to), 0)
    after = start if refused else to
    closed = 0 if MAY[after] else ENOENT
    assert said == [0, refused, closed, closed, closed, ENOENT]


def test_unset_is_on(bench: Bench, speak: Path) -> None:
    """Without a lock command nothing can be edited once the command runs."""
    assert ask(bench, speak, [], ["stat:/dev/syd", "stat:/dev/syd/sandbox/read:off", "open:/dev/syd"]) == [ENOENT] * 3


def test_exec_is_for_the_command_alone(bench: Bench, speak: Path) -> None:
    """lock:exec: the command and its threads; no child of it."""
    words = ["fork:/dev/syd/sandbox/read:on", "thread:/dev/syd/sandbox/read:on", "fork:/dev/syd", "stat:/dev/syd"]
    assert ask(bench, speak, ["lock:exec"], words) == [ENOENT, 0, ENOENT, 0]


def test_exec_locks_when_the_command_ends(bench: Bench, speak: Path) -> None:
    """lock:exec: with the one who could edit the rules are sealed; the control: lock:off stays open."""
    script = f"(sleep 1; {speak} stat:/dev/syd) & exit 0"
    for state, said in (("exec", ENOENT), ("off", 0)):
        rules = [f"lock:{state}", "trace/exit_wait_all:1"]
        outcome, _ = bench.run("nothing", ["/bin/sh", "-c", script], 30, rules=rules)
        assert outcome.out.split() == ["stat:/dev/syd", str(said)]


def test_who_may_read(bench: Bench, speak: Path) -> None:
    """open("/dev/syd"): off, exec and read."""
    for state in STATES:
        (said,) = ask(bench, speak, [f"lock:{state}"], ["openrw:/dev/syd"])
        assert said == (0 if state in ("off", "exec", "read") else ENOENT), state


# --- the calls -------------------------------------------------------------------------------------


def test_every_stat_call_is_heard(bench: Bench, speak: Path) -> None:
    """stat, lstat, newfstatat, statx, and a NULL buffer as in syd(2)'s examples; access only looks for a file."""
    for call in ("stat", "lstat", "newfstatat", "statx", "null"):
        words = ["stat:/dev/syd/sandbox/mkdir:off", f"{call}:/dev/syd/sandbox/mkdir:on", "stat:/dev/syd/sandbox/mkdir?"]
        assert ask(bench, speak, ["lock:off"], words) == [0, 0, 0], call
    words = ["stat:/dev/syd/sandbox/mkdir:off", "bad:/dev/syd/sandbox/mkdir:on", "access:/dev/syd/sandbox/mkdir:on",
             "stat:/dev/syd/sandbox/mkdir?"]  # fmt: skip
    assert ask(bench, speak, ["lock:off"], words) == [0, EFAULT, ENOENT, ENOENT]


def test_only_the_text_is_magic(bench: Bench, speak: Path) -> None:
    """No other spelling leads there, and nothing that begins alike."""
    words = [f"stat:{path}" for path in ("/dev//syd", "/dev/./syd", "/dev/../dev/syd", "//dev/syd", "/dev/sydx")]
    assert ask(bench, speak, ["lock:off"], words) == [ENOENT] * 5


def test_opening_a_command_is_refused(bench: Bench, speak: Path) -> None:
    """open(2) shows, it does not edit."""
    words = ["open:/dev/syd/", "open:/dev/syd/sandbox/mkdir:off", "opath:/dev/syd", "ocreat:/dev/syd"]
    assert ask(bench, speak, ["lock:off"], words) == [EINVAL] * 4


def test_errnos(bench: Bench, speak: Path) -> None:
    """Each kind of refusal has the errno of syd(2), ERRORS; none of them changes anything."""
    expected = {
        "sandbox/read?": 0, "sandbox/pty?": ENOENT, "sandbox/read,pty?": ENOENT, "unshare/user?": ENOENT,
        "foo": EINVAL, "foo:1": EINVAL, "sandbox/read": EINVAL, "sandbox/foo:on": EINVAL, "lock?": EINVAL,
        "allow/read?": EINVAL, "allow/read+x": EINVAL, "allow/read+$HOME/x": EINVAL, "lock:foo": EINVAL,
        "include_profile off": EBUSY, "unshare/user:1": EBUSY, "rlimit/nofile:10": EBUSY, "setenv!A=b": EBUSY,
        "clearenv!": EBUSY, "ipc:@x": EBUSY, "sandbox/lock:on": EBUSY, "trace/allow_unsafe_ptrace:1": EBUSY,
        "default/lock:warn": EBUSY, "setuid+0:65534": EBUSY, "root:/": EBUSY, "load/off": EBUSY,
        "load": EINVAL, "load/": EINVAL, "load/nosuch": EINVAL, "load/99": EBADF, "load/-1": EBADF, "load/--1": EINVAL,
        "lock:ipc": EBUSY,
        "cmd/exec": ENOENT, "cmd/exec!": EINVAL, "cmd/exec!/nonexistent": ENOENT, "trace/allow_unsafe_xattr:1": 0,
        "allow/read+/a$b": 0, "sandbox/chdir,stat:off": 0, "sandbox/all:on": 0,
    }  # fmt: skip
    said = ask(bench, speak, ["lock:off"], [f"stat:/dev/syd/{line}" for line in expected])
    assert dict(zip(expected, said, strict=True)) == expected


def test_drop_only_tightens(bench: Bench, speak: Path) -> None:
    """lock:drop, from the start and from a file: what loosens is EPERM, and the rules cannot be seen."""
    expected = {
        "sandbox/mkdir:on": 0, "sandbox/mkdir:off": EPERM, "allow/read+/x": EPERM, "allow/read-/x": 0,
        "deny/mkdir+/x": 0, "deny/mkdir-/x": EPERM, "deny/mkdir^/x": EPERM, "filter/mkdir-/x": 0,
        "default/mkdir:kill": 0, "default/mkdir:deny": EPERM, "default/mkdir:exit": 0, "reset": EPERM, "dump": EPERM,
        "panic": EPERM, "sandbox/mkdir?": EPERM, "cmd/exec!true": EPERM, "load/fs": EPERM, "timeout:9": EPERM,
        "trace/allow_unsafe_xattr:1": EPERM, "trace/allow_unsafe_xattr:0": 0, "segvguard/maxcrashes:9": EPERM,
        "segvguard/maxcrashes:2": 0, "segvguard/expiry:200": 0, "segvguard/expiry:1": EPERM,
    }  # fmt: skip
    said = ask(bench, speak, ["lock:drop"], [f"stat:/dev/syd/{line}" for line in expected])
    assert dict(zip(expected, said, strict=True)) == expected


def test_drop_keeps_rules_that_deny(bench: Bench, speak: Path) -> None:
    """A `filter` rule denies too, so in lock:drop it stays (syd lets it go); the control: lock:off."""
    for state, said in (("drop", EPERM), ("off", 0)):
        rules = ["filter/mkdir+/x", f"lock:{state}"]
        assert ask(bench, speak, rules, ["stat:/dev/syd/filter/mkdir-/x"]) == [said]


# --- what the commands do ----------------------------------------------------------------------------


def test_edits_are_judged(bench: Bench, speak: Path) -> None:
    """Every kind of edit changes the verdict of the next call: rule, default, switch, option, reset."""
    secret = bench.box / "secret"
    secret.write_text("x\n")
    steps = {
        f"open:{secret}": 0, f"stat:/dev/syd/deny/read+{secret}": 0, f"open:{secret}#1": EACCES,
        "stat:/dev/syd/sandbox/read:off": 0, f"open:{secret}#2": 0, "stat:/dev/syd/sandbox/read:on": 0,
        f"open:{secret}#3": EACCES, f"stat:/dev/syd/deny/read^{secret}": 0, f"open:{secret}#4": 0,
        f"stat:/dev/syd/deny/stat+{secret}": 0, f"open:{secret}#5": ENOENT,
    }  # fmt: skip
    outcome, _ = bench.run("nothing", [str(speak), *(word.split("#")[0] for word in steps)], 30, rules=["lock:off"])
    said = [line for line in outcome.out.splitlines() if line.startswith(("open:", "stat:"))]
    assert [int(line.rsplit(" ", 1)[1]) for line in said] == list(steps.values()), outcome.out


def test_reset_forgets_the_rules_and_not_the_lock(bench: Bench, speak: Path) -> None:
    """After reset nothing is allowed but what is off by default, and what only the start could choose stays."""
    words = ["stat:/dev/syd/reset", "stat:/dev/syd/sandbox/stat?", "stat:/dev/syd/sandbox/read?", f"open:{speak}",
             "stat:/dev/syd/trace/allow_unsafe_ptrace:0", "stat:/dev/syd"]  # fmt: skip
    assert ask(bench, speak, ["lock:off"], words) == [0, ENOENT, 0, EACCES, EBUSY, 0]


def test_load_is_all_or_nothing(bench: Bench, speak: Path) -> None:
    """A file of commands is carried out whole, and locks at its end; with one wrong line nothing of it is."""
    words = ["load:sandbox/mkdir:off;foo:1", "stat:/dev/syd/sandbox/mkdir?", "load:sandbox/mkdir:off;# so;;lock:off",
             "stat:/dev/syd/sandbox/mkdir?", "load:sandbox/rmdir:off;lock:on;sandbox/rmdir:on", "stat:/dev/syd",
             "load:sandbox/mkdir:on;lock:on", "stat:/dev/syd"]  # fmt: skip
    assert ask(bench, speak, ["lock:off"], words) == [EINVAL, 0, 0, ENOENT, EPERM, 0, 0, ENOENT]


def test_load_a_profile(bench: Bench, speak: Path) -> None:
    """load/NAME carries out a built-in profile."""
    words = ["stat:/dev/syd/sandbox/stat:off", "stat:/dev/syd/load/hide", "stat:/dev/syd/sandbox/stat?"]
    assert ask(bench, speak, ["lock:off"], words) == [0, 0, 0]


def test_the_state_is_shown(bench: Bench, speak: Path) -> None:
    """open("/dev/syd"): sealed JSON, read-only, close-on-exec, that shows the last edit."""
    words = [str(speak), "stat:/dev/syd/deny/read+/some/***", "open:/dev/syd"]
    outcome, _ = bench.run("nothing", words, 30, rules=["lock:off"])
    first, text = outcome.out.split("cloexec ", 1)
    assert text.startswith("1 writable 0 seals 0xf ")
    state = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert (state["lock"], state["api"]["version"]["version"]) == ("off", "3.1")
    assert "read" in state["state"]
    assert state["glob_rules"][0] != {"act": "deny", "cap": "read", "pat": "/some/***"} or first
    assert {"act": "deny", "cap": "read", "pat": "/some/***"} in state["glob_rules"]


@pytest.mark.parametrize("word", ["dump", "stat"])
def test_the_state_is_printed(bench: Bench, speak: Path, word: str) -> None:
    """dump and stat: on our standard error, as JSON and as lines; nobody waits for whoever reads it."""
    outcome, _ = bench.run("nothing", [str(speak), f"stat:/dev/syd/{word}", "wait:300"], 30, rules=["lock:off"])
    assert ('"lock": "off"' if word == "dump" else "lock: off\n") in outcome.err


def test_nobody_waits_for_who_reads(bench: Bench, speak: Path) -> None:
    """A standard error that nobody reads: one dump waits there, the next are EAGAIN, the sandbox goes on."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, 1031, 4096)  # F_SETPIPE_SZ
    words = [str(speak), *["stat:/dev/syd/dump"] * 4, f"open:{speak}", "stat:/dev/syd/panic"]
    command = bench.command("nothing", words, ["lock:off"])
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, timeout=20)
    os.close(writer)
    assert done.returncode == 127
    said = [int(line.rsplit(b" ", 1)[1]) for line in done.stdout.splitlines() if line.startswith(b"stat")]
    assert (said[0], said[2:]) == (0, [EAGAIN, EAGAIN]), said  # a small one fits into the pipe
    os.close(reader)


def test_who_prints_is_one_of_ours(bench: Bench) -> None:
    """The process that prints the state belongs to the sandbox: the command neither sees nor signals it.

    The control: it is there, and our test sees it.
    """
    reader, writer = os.pipe()
    fcntl.fcntl(writer, 1031, 4096)  # F_SETPIPE_SZ
    script = ("for i in 1 2 3; do test -e /dev/syd/dump; done; echo up; read pid; "
              "test -e /proc/$pid/comm && echo seen; "
              "kill -0 $pid 2>/dev/null && echo reached; echo done")  # fmt: skip
    command = bench.command("nothing", ["/bin/sh", "-c", script], ["lock:off"])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writer) as run:
        os.close(writer)
        assert run.stdin is not None and run.stdout is not None
        try:
            assert run.stdout.readline() == b"up\n"
            found = [pid for pid in os.listdir("/proc") if pid.isdigit() and comm_of(pid) == "syd_show"]
            assert found, "nobody prints"
            run.stdin.write(f"{found[-1]}\n".encode())
            run.stdin.flush()
            assert run.stdout.read() == b"done\n"
        finally:
            os.close(reader)
    assert run.returncode == 0


def comm_of(pid: str) -> str:
    """A process's name; "" when it has gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def test_panic(bench: Bench, speak: Path) -> None:
    """panic: everything ends at once with 127."""
    outcome, run = bench.run("nothing", [str(speak), "stat:/dev/syd/panic", "wait:9000"], 30, rules=["lock:off"])
    assert outcome.status == 127
    assert run.event("exit")["reason"] == "panic"
    assert "wait" not in outcome.out


def test_ghost(bench: Bench, speak: Path) -> None:
    """ghost: answered, then every judged call is ENOSYS, for children too; nothing executes; workers are gone."""
    script = [str(speak), "stat:/dev/syd/ghost", "wait:200", "open:/etc/passwd", "fork:/dev/syd", "stat:/dev/syd",
              "symlink:/tmp/x", "exec:/bin/true", "wait:1500"]  # fmt: skip
    with bench.start("nothing", script, rules=["lock:off"]) as run:
        run.running.line("exec:")
        assert run.processes("syd_emu") == []
        assert run.processes("syd_mon") == []
        outcome = run.finish(30)
    said = [int(line.rsplit(" ", 1)[1]) for line in outcome.out.splitlines()]
    assert said == [0, 0, ENOSYS, ENOSYS, ENOSYS, ENOSYS, ENOSYS, 0], outcome.out
    assert outcome.status == 0


def test_timeout_at_run_time(bench: Bench, speak: Path) -> None:
    """timeout:1s counts from where it is given, timeout:none takes it back."""
    words = ["stat:/dev/syd/timeout:1s", "stat:/dev/syd/timeout:none", "wait:1300", "stat:/dev/syd/timeout:300ms"]
    outcome, _ = bench.run("nothing", [str(speak), *words, "wait:9000"], 30, rules=["lock:off"])
    assert outcome.status == 124
    assert len(outcome.out.splitlines()) == 4


def test_log_level_at_run_time(bench: Bench, speak: Path) -> None:
    """log/level: denials disappear from the log and come back."""
    words = [f"symlink:{bench.box}/a", "stat:/dev/syd/log/level:crit", "wait:700", f"symlink:{bench.box}/b",
             "stat:/dev/syd/log/level:warn", "wait:700", f"symlink:{bench.box}/c"]  # fmt: skip
    rules = ["lock:off", f"deny/symlink+{bench.box}/***"]
    outcome, _ = bench.run("nothing", [str(speak), *words], 30, rules=rules)
    assert [name for name in "abc" if f'{bench.box}/{name}"' in outcome.err] == ["a", "c"], outcome.err


def test_a_name_that_is_no_utf_8(bench: Bench, speak: Path) -> None:
    """Bytes that JSON cannot write, in what the start has chosen: the state is shown all the same."""
    odd = [os.fsdecode(text) for text in (b"ipc:@nowhere\xff", b"allow/lock/read+/\xfe")]
    for some in (["lock:read"], [*odd, "lock:read"]):
        command = ["/bin/cat", "/dev/syd"]
        outcome, _ = bench.run("nothing", command, 30, rules=some)
        assert outcome.status == 0 and json.loads(outcome.out)["lock"] == "read", outcome


def test_a_command_for_which_there_is_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`stat` where fork(2) fails: its asker hears of it, and the run goes on; the control is answered 0."""
    said: list[int] = []
    run = cast(Run, SimpleNamespace(config=SimpleNamespace(rules=Ruleset()), log_line=lambda *_: None))

    def refused(*_: object) -> None:
        raise BlockingIOError(EAGAIN, "no process")

    for how in (refused, lambda *_: None):
        monkeypatch.setattr(showing, "print_state", how)
        commands.carry_out(run, "stat", commands.Asker(1, 1, said.append))
    assert said == [EAGAIN, 0]
