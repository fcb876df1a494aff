"""From words to a RunConfig; the policy is a recorder here, its own tests are elsewhere."""

from __future__ import annotations

import os
from errno import EBADF, EINVAL, ENOENT, EPERM
from typing import Any

import pytest

from syd_pool.cli import host, run
from syd_pool.cli.config import RunConfig
from syd_pool.cli.options import OPTIONS, Refused
from syd_pool.policy.errors import BadRule


class Recorder:
    """Stands for a Ruleset: writes down what it is asked to apply, and refuses what begins with `bad`."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.lock = "unset"
        self.passed: set[bytes] = set()
        self.passenv: list[str] = []

    def _note(self, kind: str, text: str) -> None:
        self.seen.append((kind, text))
        if text.startswith("bad"):
            raise BadRule(EPERM, f"{text}: not today")
        if text.startswith("/missing"):
            raise FileNotFoundError(ENOENT, "No such file or directory", text)

    def apply(self, line: str) -> None:
        self._note("apply", line)

    def profile(self, name: str) -> None:
        self._note("profile", name)

    def load(self, path: str) -> None:
        self._note("load", path)

    def option(self, name: str) -> Any:
        """The last value that was applied, as a number."""
        values = [line.partition(":")[2] for kind, line in self.seen if line.startswith(name + ":")]
        return int(values[-1].removesuffix("s")) if values else None

    def environment(self, env: dict[bytes, bytes]) -> dict[bytes, bytes]:
        return dict(env)


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "Ruleset", Recorder)


def configured(*words: str, env: dict[str, str] | None = None, shell: bool = False) -> RunConfig:
    config = run.configure(list(words), env or {}, shell)
    assert isinstance(config, RunConfig)
    return config


def seen(config: RunConfig) -> list[tuple[str, str]]:
    rules: Any = config.rules
    assert isinstance(rules, Recorder)
    return rules.seen


def refusal(*words: str, env: dict[str, str] | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        run.configure(list(words), env or {})
    return caught.value


def test_every_built_option_has_an_action() -> None:
    """No option of the table is accepted and then forgotten."""
    assert {o.name for o in OPTIONS if not o.unbuilt} == set(run.ACTIONS) | set(run.ENDING)


def test_rules_reach_the_policy_in_order() -> None:
    """-m, -p and -P take effect strictly from left to right, after the variables."""
    config = configured("-ma", "-pfs", "-P", "f.syd-3", "-mb", "-t5s", "-v", "-v", "true", env={"SYD_TMOUT": "9s"})
    assert seen(config) == [
        ("apply", "timeout:9s"),
        ("apply", "a"),
        ("profile", "fs"),
        ("load", "f.syd-3"),
        ("apply", "b"),
        ("apply", "timeout:5s"),
        ("apply", "log/verbose:1"),
        ("apply", "log/verbose:2"),
    ]
    assert config.argv == [b"true"]
    assert config.timeout == 5


def test_the_log_level_of_a_rule_wins_over_the_variable() -> None:
    """SYD_LOG is the default of log/level."""
    assert configured("true", env={"SYD_LOG": "info"}).log_level == 6
    assert configured("-mlog/level:3", "true", env={"SYD_LOG": "info"}).log_level == 3


def test_profiles_of_options() -> None:
    """-x is profile trace, -f and -l are profile user."""
    assert seen(configured("-x", "-f", "-l", "true")) == [
        ("profile", "trace"),
        ("profile", "user"),
        ("profile", "user"),
    ]


def test_a_refused_rule_ends_with_its_errno_and_names_its_option() -> None:
    """A bad rule exits with the errno that the policy gives."""
    error = refusal("-mbad", "true")
    assert (error.errno, str(error)) == (EPERM, "-m: bad: not today")
    assert refusal("-P", "/missing", "true").errno == ENOENT
    assert str(refusal("true", env={"SYD_TMOUT": "1", "SYD_IPC": "x"} | {"SYD_NPROC": "0"})).startswith("SYD_NPROC")


def test_the_command_and_its_name() -> None:
    """-a is argv[0]; the words of the command are bytes as they were given."""
    config = configured("-a", "alias", "--", os.fsdecode(b"x\xff"), "-m")
    assert (config.alias, config.argv) == (b"alias", [b"x\xff", b"-m"])
    assert configured("true").alias is None


def test_a_string_is_run_by_a_shell() -> None:
    """-c runs its value by $SYD_SHELL under profile user."""
    config = configured("-c", "echo $0", "x")
    assert config.argv == [b"/bin/sh", b"-c", b"echo $0", b"x"]
    assert seen(config) == [("profile", "user")]
    assert configured("-cx", env={"SYD_SHELL": "/bin/dash"}).argv == [b"/bin/dash", b"-c", b"x"]


def test_without_a_command() -> None:
    """`run` wants a command; syd starts the login shell; -E needs none."""
    assert refusal("-q").errno == EINVAL
    assert configured("-q", shell=True).argv[0] == b"/usr/bin/bash"
    assert configured("-q", shell=True, env={"SYD_SHELL": "/bin/dash"}).argv == [b"/bin/dash"]
    assert configured("-EPfc").export == "pfc"
    assert configured("-E", "bpf").export == "bpf"
    assert configured(env={"SYD_DUMP_SCMP": "bpf"}).export == "bpf"


@pytest.mark.parametrize(
    "words",
    [
        ["-Eb", "true"],
        ["-Ef", "true"],
        ["--nproc", "0", "true"],
        ["--nproc=x", "true"],
        ["--nproc=4", "--nproc-max=3", "true"],
        ["--fd-answers", "maybe", "true"],
        ["--status-fd", "-1", "true"],
        ["-e=", "true"],
    ],
)
def test_wrong_values_are_refused(words: list[str]) -> None:
    """A value that cannot be carried out ends with EINVAL."""
    assert refusal(*words).errno == EINVAL


def test_pool_options() -> None:
    """Options override variables; 0 stands for not given."""
    config = configured("--nproc=2", "--fd-answers=strict", "true", env={"SYD_NPROC": "9", "SYD_NPROC_MAX": "9"})
    assert (config.nproc, config.nproc_max, config.fd_answers) == (2, 9, "strict")
    config = configured("true")
    assert (config.nproc, config.nproc_max, config.fd_answers, config.status_fd) == (0, 0, "send", -1)


def test_status_fd_is_kept_from_the_command() -> None:
    """--status-fd must be open for writing and becomes close-on-exec."""
    readable, writable = os.pipe()
    os.set_inheritable(writable, True)
    try:
        assert configured("--status-fd", str(writable), "true").status_fd == writable
        assert not os.get_inheritable(writable)
        assert refusal("--status-fd=999", "true").errno == EBADF
    finally:
        os.close(readable)
        os.close(writable)


@pytest.mark.parametrize(("word", "name"), [("-h", "help"), ("-V", "version"), ("--check", "check")])
def test_options_that_end_do_so_at_their_place(word: str, name: str) -> None:
    """--help wins over what stands after it, not over a mistake before it."""
    assert run.configure([word, "--bogus"], {}) == name
    assert refusal("-mbad", word).errno == EPERM


def test_a_mistake_is_one_line_and_its_errno_the_status(capfd: pytest.CaptureFixture[str]) -> None:
    """main() prints one line on stderr, nothing on stdout, and starts nothing."""
    assert run.main(["-m", "bad\nrule", "true"]) == EPERM
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "syd-pool: -m: bad\\nrule: not today\n"


def test_a_pid_file_is_new_and_private(tmp_path: Any) -> None:
    """SYD_PID_FN must not exist, and only its owner may read it."""
    path = tmp_path / "pid"
    run.settle({"SYD_PID_FN": str(path)})
    assert path.read_text() == str(os.getpid())
    assert path.stat().st_mode & 0o777 == 0o400
    with pytest.raises(Refused) as caught:
        run.settle({"SYD_PID_FN": str(path)})
    assert caught.value.errno == 17


@pytest.mark.parametrize(
    ("system", "release", "machine", "fine"),
    [
        ("Linux", "5.19.0", "x86_64", True),
        ("Linux", "6.18.44-fc-v445", "x86_64", True),
        ("Linux", "5.18.19", "x86_64", False),
        ("Linux", "6.1", "aarch64", False),
        ("Linux", "nonsense", "x86_64", False),
        ("Darwin", "23.0", "x86_64", False),
    ],
)
def test_other_systems_are_refused(system: str, release: str, machine: str, fine: bool) -> None:
    """x86_64 Linux from 5.19 on, with a clear refusal elsewhere."""
    uname = os.uname_result((system, "host", release, "version", machine))
    if fine:
        host.require(uname)
    else:
        with pytest.raises(Refused, match=r"supported|too old"):
            host.require(uname)
