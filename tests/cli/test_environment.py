"""SYD_ variables steer us and never reach the command."""

from __future__ import annotations

import os
import signal
import subprocess
from errno import EBADF, EBADFD, EINVAL, EPERM
from pathlib import Path

import pytest

from syd_pool.cli import environment
from syd_pool.cli.options import Refused
from syd_pool.policy import Ruleset


def refusal(call: object, *args: object) -> int:
    """The errno with which a call is refused."""
    with pytest.raises(Refused) as caught:
        call(*args)  # type: ignore[operator]
    return caught.value.errno


def edited(env: dict[bytes, bytes], *words: str, rules: tuple[str, ...] = ()) -> dict[bytes, bytes]:
    """The command's environment after -e WORD..., then RULES."""
    ruleset = Ruleset()
    for word in words:
        environment.edit(ruleset, word)
    for rule in rules:
        ruleset.apply(rule)
    return environment.for_command(ruleset, env)


def test_syd_variables_are_removed_but_those_of_tests() -> None:
    """All SYD_* are removed from the command's environment, except SYD_TEST_*, whatever is asked for."""
    env = {b"SYD_KEY": b"sekrit", b"SYD_LOG": b"notice", b"SYD_TEST_DO": b"x", b"SYD": b"kept", b"PATH": b"/bin"}
    kept = {b"SYD_TEST_DO": b"x", b"SYD": b"kept", b"PATH": b"/bin"}
    assert edited(env) == kept
    assert edited(env, rules=("trace/allow_unsafe_env:1", "passenv+*")) == kept


def test_option_e_sets_removes_and_passes() -> None:
    """-e VAR=VALUE sets, -e VAR removes, -e VAR= passes through; of several the last one counts."""
    env = {b"A": b"1", b"B": b"2", b"C": b"3", b"D": b"4"}
    got = edited(env, "A=x=y", "B", "C=", "D", "D=5", "E=6", "E")
    assert got == {b"A": b"x=y", b"C": b"3", b"D": b"5"}


def test_edits_count_in_their_order() -> None:
    """-e, setenv!, unsetenv! and clearenv! are one list; the last one about a variable decides, as in syd."""
    assert edited({b"A": b"1"}, "A=2", rules=("unsetenv!A",)) == {}
    assert edited({b"A": b"1"}, "A=2", rules=("setenv!A=3",)) == {b"A": b"3"}
    assert edited({b"A": b"1"}, "A=2", rules=("clearenv!", "setenv!B=4")) == {b"B": b"4"}


@pytest.mark.parametrize(
    ("word", "errno"),
    [("=x", EINVAL), ("", EINVAL), ("SYD_X=1", EPERM), ("SYD_X", EPERM), ("SYD_TEST_X=1", EPERM)],
)
def test_option_e_refuses(word: str, errno: int) -> None:
    """A name is needed, and SYD_ names are ours."""
    assert refusal(environment.edit, Ruleset(), word) == errno


def test_bytes_that_are_no_utf8_survive() -> None:
    """Environment and arguments are bytes."""
    assert edited({}, os.fsdecode(b"A=\xff")) == {b"A": b"\xff"}


# What syd 3.52 holds back of some two hundred names (tried), and secrets by their names
HELD_BACK = """
    API_KEY AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN CREDENTIALS_DIRECTORY
    DBUS_SESSION_BUS_ADDRESS DISPLAY GCONV_PATH GDK_PIXBUF_MODULE_FILE GETCONF_DIR GH_TOKEN GITHUB_TOKEN
    GIT_ASKPASS GLIBC_TUNABLES GPG_AGENT_INFO GTK_MODULES GTK_PATH HOSTALIASES LANG LANGUAGE LC_ALL LC_TIME
    LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT LIBPATH LOCALDOMAIN LOCPATH MALLOC_ARENA_MAX MALLOC_CHECK_
    MALLOC_PERTURB_ MALLOC_TRACE NIS_PATH NLSPATH OLDPWD PGPASSWORD PWD QT_PLUGIN_PATH QT_QPA_PLATFORM
    RESOLV_HOST_CONF RES_OPTIONS SESSION_MANAGER SSH_AGENT_PID SSH_AUTH_SOCK SSLKEYLOGFILE SUDO_ASKPASS TMPDIR
    TZ TZDIR WAYLAND_DISPLAY XAUTHORITY XDG_CONFIG_HOME XDG_RUNTIME_DIR MY_SECRET DB_PASSWORD
""".split()
PASSED_ON = "PATH HOME USER SHELL TERM EDITOR CC CFLAGS PYTHONPATH http_proxy LS_COLORS LADDER TMP".split()


@pytest.mark.parametrize("name", HELD_BACK)
def test_a_dangerous_variable_is_held_back(name: str) -> None:
    """It reaches the command only by passenv+, -e or trace/allow_unsafe_env; setenv! alone does not lift it."""
    env = {name.encode(): b"v"}
    assert edited(env) == {}
    assert edited({}, rules=(f"setenv!{name}=v",)) == {}
    assert edited(env, f"{name}=") == edited({}, f"{name}=v") == env
    for rule in (f"passenv+{name}", f"passenv+{name[:2]}*", "passenv+*", "trace/allow_unsafe_env:1"):
        assert edited(env, rules=(rule,)) == env
    assert edited(env, rules=("passenv+*", "passenv-*")) == {}


def test_other_variables_are_passed_on() -> None:
    """The control: what programs need stays."""
    env = {name.encode(): b"v" for name in PASSED_ON}
    assert edited(env) == env


def test_the_command_sees_what_is_left(tmp_path: Path) -> None:
    """Through the program: env(1) prints no variable that is held back, and all that were asked for."""
    syd = Path(__file__).resolve().parents[2] / "scripts" / "syd"
    env = {"PATH": os.environ["PATH"], "LD_BIND_NOW": "1", "MY_TOKEN": "s", "LANG": "C", "SYD_X": "1"}
    done = subprocess.run(
        [syd, "-poff", "-eLANG=", "-eA=b", "--", "/usr/bin/env"], env=env, capture_output=True, text=True
    )
    assert set(done.stdout.split()) == {f"PATH={env['PATH']}", "LANG=C", "A=b"}
    done = subprocess.run([syd, "-poff", "-mpassenv+*", "--", "/usr/bin/env"], env=env, capture_output=True, text=True)
    assert {"LD_BIND_NOW=1", "MY_TOKEN=s", "LANG=C"} <= set(done.stdout.split()), "control"
    assert "SYD_X" not in done.stdout


@pytest.mark.parametrize(("text", "fd"), [("", 2), ("-9", -1), ("-1", -1)])
def test_log_fd_defaults_to_stderr_and_negative_is_no_log(text: str, fd: int) -> None:
    """SYD_LOG_FD: unset is stderr, negative disables."""
    assert environment.log_fd({"SYD_LOG_FD": text}) == fd


def test_log_fd_must_be_open_and_writable(tmp_path: object) -> None:
    """A descriptor that is not open ends with EBADF, one that is read-only with EBADFD."""
    assert refusal(environment.log_fd, {"SYD_LOG_FD": "x"}) == EBADF
    assert refusal(environment.log_fd, {"SYD_LOG_FD": "999"}) == EBADF
    assert refusal(environment.log_fd, {"SYD_LOG_FD": "9" * 30}) == EBADF
    readable, writable = os.pipe()
    try:
        assert refusal(environment.log_fd, {"SYD_LOG_FD": str(readable)}) == EBADFD
        os.set_inheritable(writable, True)
        assert environment.log_fd({"SYD_LOG_FD": str(writable)}) == writable
        assert not os.get_inheritable(writable), "the command must not get the log"
    finally:
        os.close(readable)
        os.close(writable)


def test_log_level() -> None:
    """SYD_LOG takes the eight levels of syslog(3); another word is refused, not guessed."""
    assert environment.log_level({}) == 4
    assert environment.log_level({"SYD_LOG": "EMERG"}) == 0
    assert environment.log_level({"SYD_LOG": "debug"}) == 7
    assert refusal(environment.log_level, {"SYD_LOG": "loud"}) == EINVAL


def test_a_log_is_pretty_on_a_terminal_only() -> None:
    """SYD_FORCE_TTY and SYD_QUIET_TTY decide before the descriptor does."""
    ours, theirs = os.openpty()
    try:
        assert environment.log_pretty({}, theirs)
        assert not environment.log_pretty({"SYD_QUIET_TTY": ""}, theirs)
        assert not environment.log_pretty({}, -1)
        assert environment.log_pretty({"SYD_FORCE_TTY": ""}, -1)
    finally:
        os.close(ours)
        os.close(theirs)


def test_run_id() -> None:
    """SYD_ID is 128 hexadecimal digits, not starting with 32 zeros; without it, it is random."""
    assert len(environment.run_id({})) == 128
    assert environment.run_id({}) != environment.run_id({})
    assert environment.run_id({"SYD_ID": "a" * 128}) == "a" * 128
    for wrong in ("a", "A" * 128, "0" * 128, "0" * 32 + "a" * 96, "g" * 128):
        assert refusal(environment.run_id, {"SYD_ID": wrong}) == EINVAL


@pytest.mark.parametrize("text", ["TERM", "term", "SIGTERM", "15"])
def test_parent_death_signal_by_name_or_number(text: str) -> None:
    """SYD_PDS is a signal's name or number."""
    assert environment.signal_number(text) == signal.SIGTERM


@pytest.mark.parametrize("text", ["XX", "_DFL", "DFL", "-1", "65", "BLOCK"])
def test_parent_death_signal_refuses(text: str) -> None:
    """What is no signal is refused, also when the signal module has something of that name."""
    assert refusal(environment.signal_number, text) == EINVAL


def test_variables_that_are_configuration_commands() -> None:
    """A variable that stands for a command becomes that command; what is not built is refused."""
    env = {"SYD_FORCE_CLOEXEC": "", "SYD_TMOUT": "5s", "SYD_RLIMIT_NOFILE": "64", "SYD_OWN": "x"}
    assert list(environment.commands(env)) == [
        ("SYD_FORCE_CLOEXEC", "trace/force_cloexec:1"),
        ("SYD_TMOUT", "timeout:5s"),
        ("SYD_RLIMIT_NOFILE", "rlimit/nofile:64"),
    ]


def test_the_size_of_the_log_in_memory() -> None:
    """SYD_LOG_BUF_LEN, as people write sizes."""
    assert environment.log_buffer({}) == environment.log_buffer({"SYD_LOG_BUF_LEN": ""}) == 0
    assert environment.log_buffer({"SYD_LOG_BUF_LEN": "64K"}) == 65536
    for text in ("x", "1", "2G", "-1"):
        assert refusal(environment.log_buffer, {"SYD_LOG_BUF_LEN": text}) == EINVAL


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.5", "\u0663"])
def test_numbers_are_whole_and_not_below_the_least(text: str) -> None:
    """SYD_NPROC and its kin take ASCII digits, 1 or more."""
    assert refusal(environment.number, text, 1, "SYD_NPROC") == EINVAL
