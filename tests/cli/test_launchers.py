"""scripts/run and scripts/syd start from anywhere, by any name, and cost little."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from syd_pool import __version__

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv/bin/python"
SYD = ROOT / "scripts/syd"

pytestmark = pytest.mark.skipif(not (ROOT / ".venv/ready").exists(), reason="scripts/venv has not made the environment")


def version(*command: object, **how: object) -> str:
    """The first line of what `command` prints."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60, **how)  # type: ignore[call-overload]
    assert done.stderr == ""
    return str(done.stdout).split("\n", 1)[0]


WANTED = f"syd-pool {__version__}"


def test_by_absolute_path_from_anywhere() -> None:
    """The current folder does not matter."""
    assert version(SYD, "-V", cwd="/") == WANTED
    assert version(ROOT / "scripts/run", "-V", cwd="/proc/self") == WANTED


@pytest.mark.parametrize(
    ("folder", "name"),
    [(".", "scripts/syd"), ("scripts", "./syd"), ("docs", "../scripts/syd"), ("scripts", "sh syd")],
)
def test_by_relative_path(folder: str, name: str) -> None:
    """However the script is named, it finds its own folder."""
    assert version(*name.split(), "-V", cwd=ROOT / folder) == WANTED


def test_by_symbolic_link(tmp_path: Path) -> None:
    """A link in somebody's bin folder works."""
    (tmp_path / "link").symlink_to(SYD)
    assert version(tmp_path / "link", "-V") == WANTED


def test_without_path_and_home() -> None:
    """No program but /bin/sh and our Python is needed; neither is a home folder."""
    assert version(SYD, "-V", env={"PATH": "/nowhere", "HOME": "/nowhere"}) == WANTED
    assert version(SYD, "-V", env={}) == WANTED


def test_python_variables_of_the_user_do_not_reach_us(tmp_path: Path) -> None:
    """PYTHONPATH and PYTHONHOME belong to the command."""
    (tmp_path / "os.py").write_text("raise SystemExit(99)")
    assert version(SYD, "-V", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere"}) == WANTED


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_as_another_user_and_in_new_namespaces(tmp_path: Path) -> None:
    """The conformance suite starts us in pid and mount namespaces; users may share one work tree."""
    assert version("unshare", "-p", "-m", "-f", "--mount-proc", SYD, "-V") == WANTED
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(SYD), "-V"]
    assert version(*command, cwd="/") == WANTED


def test_an_unknown_option_starts_nothing() -> None:
    """The exit status is the errno, with one line on stderr."""
    done = subprocess.run([SYD, "--bogus", "true"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (22, "syd: unknown option --bogus: see syd-pool run --help\n")


def best(command: list[str], rounds: int = 15) -> float:
    """Milliseconds of a command: mean of the faster half, so that a busy machine fails nothing."""
    took = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took.append((time.perf_counter() - begin) * 1e3)
    return statistics.mean(sorted(took)[: rounds // 2])


def test_the_launcher_costs_little() -> None:
    """The launcher and -V cost less than 8 ms over a bare interpreter; on a quiet machine, 3 and 2."""
    assert Path(sys.executable).exists()
    bare = best([str(PYTHON), "-I", "-S", "-c", "0"])
    ours = best([str(SYD), "-V"])
    assert ours - bare < 8, f"{ours:.1f} ms against {bare:.1f}"


def test_without_any_rule_the_way_out_is_named() -> None:
    """Nothing is allowed that no rule allows; who has no rule yet is told how to begin, who has some is not."""
    run = ROOT / "scripts/run"
    bare = subprocess.run([run, "true"], capture_output=True, text=True, timeout=60)
    assert bare.returncode == 13 and "try `-p user'" in bare.stderr, bare
    other = subprocess.run([run, "-mallow/exec+/nowhere", "true"], capture_output=True, text=True, timeout=60)
    assert other.returncode == 13 and "try" not in other.stderr.split("{")[0], other
    assert subprocess.run([run, "-puser", "true"], timeout=60).returncode == 0
