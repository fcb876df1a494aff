"""Verbs, and what the start path may import."""

from __future__ import annotations

import json
import subprocess
import sys
from errno import EINVAL, EOPNOTSUPP
from pathlib import Path

import pytest

from syd_pool import __version__
from syd_pool.cli import check, main, syscalls
from syd_pool.emulate.table import ROWS
from syd_pool.linux.numbers import NR
from syd_pool.policy import files

ROOT = Path(__file__).resolve().parents[2]
SLOW = {
    "argparse", "asyncio", "dataclasses", "enum", "inspect", "json", "logging", "pathlib", "re", "shutil",
    "socket", "subprocess", "tempfile", "threading", "typing",
}  # fmt: skip


def start(code: str) -> str:
    """What a fresh `python -I -S` prints for `code`, with the work tree on its path."""
    head = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
    done = subprocess.run([sys.executable, "-I", "-S", "-c", head + code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("module", ["main", "run", "options", "config", "environment", "host"])
def test_the_start_path_imports_nothing_slow(module: str) -> None:
    """Every import of these modules is paid in front of every command."""
    loaded = set(start(f"import syd_pool.cli.{module}; print(*sys.modules)").split())
    assert not loaded & SLOW


def test_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    """Help teaches every verb; an unknown one is refused with their names."""
    assert main.main(["syd-pool", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in main.VERBS)
    assert main.main(["syd-pool", "rnu"]) == EINVAL
    assert "run, check" in capsys.readouterr().err
    assert main.main(["syd-pool"]) == EINVAL
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["syd-pool", "--version"], ["syd-pool", "run", "-V"], ["/x/syd", "--version"]])
def test_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The first line of --version is for programs."""
    assert main.main(words) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"syd-pool {__version__}"


@pytest.mark.parametrize("verb", list(main.VERBS))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """syd-pool VERB --help prints its usage and ends with 0."""
    assert main.main(["syd-pool", verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: syd-pool {verb}")


@pytest.mark.parametrize("verb", [verb for verb in main.VERBS if verb != "run"])
def test_every_verb_refuses_what_it_does_not_know(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown argument ends with EINVAL, before anything is done."""
    assert main.main(["syd-pool", verb, "--bogus"]) == EINVAL
    assert capsys.readouterr().out == ""


def test_a_bug_is_not_mistaken_for_the_commands_status() -> None:
    """An exception nobody expected ends with 101 and a traceback."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from syd_pool.cli import main;"
        "main.VERBS['run'] = None; main.call = lambda *_: 1 / 0; main.launch(['syd-pool', 'run'])"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert (done.returncode, "ZeroDivisionError" in done.stderr) == (101, True)


def test_syscalls_prints_the_whole_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Every number of the kernel is printed, as text and as JSON, in order, and how it is treated."""
    assert syscalls.main([]) == 0
    names = [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert sorted(set(names), key=NR.__getitem__) == sorted(NR, key=NR.__getitem__)
    assert names == sorted(names, key=NR.__getitem__)
    assert syscalls.main(["--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in table] == names
    hows = {(row["name"], row["how"]) for row in table}
    assert {(row[0], row[1]) for row in ROWS} <= hows
    assert ("io_uring_setup", "refuse") in hows and ("read", "native") in hows


def test_syscalls_prints_what_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Names choose rows; a name that is no system call is an error."""
    assert syscalls.main(["--json", "chroot"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in table} == {"chroot"}
    assert any("lifted by trace/allow_unsafe_chroot" in row["note"] for row in table)
    assert syscalls.main(["opne"]) == EINVAL


def test_check_does_what_it_reports() -> None:
    """Everything that is needed is there where these tests run, and nothing is left behind."""
    code = (
        "from syd_pool.cli import check; import os, sys; status = check.main(['--json']);"
        "left = open(f'/proc/self/task/{os.getpid()}/children').read(); sys.exit(status or 9 * bool(left))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"]
    assert [probe["name"] for probe in report["probes"]] == [probe.name for probe in check.PROBES]


def test_check_tells_what_is_lost(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that fails says what is lost and how to get it; if it is needed the exit status is 1."""

    def fails() -> str:
        raise PermissionError(1, "Operation not permitted")

    probe = check.Probe("thing", True, "everything", "ask for it", fails)
    monkeypatch.setattr(check, "PROBES", (probe,))
    assert check.main([]) == 1
    out = capsys.readouterr().out
    assert "MISSING" in out
    assert "lost: everything" in out
    assert "to get it: ask for it" in out
    monkeypatch.setattr(check, "PROBES", (probe._replace(needed=False),))
    assert check.main([]) == 0


def test_a_probe_sees_a_failing_child() -> None:
    """The errno that a probe's child met is the probe's."""

    def body(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(PermissionError), check.child(body) as (pid, _):
        check.finish(pid)


def test_profile_lists_shows_and_checks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """list names every profile, show prints its lines, check says what is left out, and the errno of a mistake."""
    assert main.main(["syd-pool", "profile", "list"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == set(files.available())
    assert main.main(["syd-pool", "profile", "show", "M"]) == 0
    assert "trace/allow_unsafe_exec_memory:1" in capsys.readouterr().out.splitlines()
    assert main.main(["syd-pool", "profile", "show", "--flat", "user"]) == 0
    assert "sandbox/fs:on" in capsys.readouterr().out.splitlines()
    assert main.main(["syd-pool", "profile", "check", "trace"]) == 0
    assert capsys.readouterr().out.startswith("left out: trace.syd-3:")
    file = tmp_path / "x.syd-3"
    file.write_text("sandbox/read:on\nbad\n")
    assert main.main(["syd-pool", "profile", "check", str(file)]) == EINVAL
    assert f"{file}:2" in capsys.readouterr().err
    assert main.main(["syd-pool", "profile", "check", "container"]) == EOPNOTSUPP
