"""What the documents and the completions say is what the table of options says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from syd_pool.cli import completions, option_list, run
from syd_pool.cli.options import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
SHELLS = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}


def test_usage_has_the_table_of_options() -> None:
    """docs/usage.md contains exactly the table that the options make."""
    text = (ROOT / "docs/usage.md").read_text()
    assert f"-->\n{run.markdown()}\n<!--" in text, "put the output of syd_pool.cli.run.markdown() there"


def test_the_list_of_options_is_current() -> None:
    """docs/options.md is what the tables make; scripts/docs writes it."""
    assert (ROOT / "docs/options.md").read_text() == option_list.markdown(), "run scripts/docs"


def test_every_option_is_in_the_help() -> None:
    """--help tells about every option, and says which are refused."""
    text = run.usage("syd-pool")
    assert all(option.shown in text for option in OPTIONS)


@pytest.mark.parametrize("shell", SHELLS)
def test_completions_offer_what_works(shell: str) -> None:
    """Every built option is offered, no unbuilt one is."""
    text = completions.SHELLS[shell]()
    for option in OPTIONS:
        for name in (option.short, option.long):
            if shell == "fish":
                shown = f"-l {name} " if len(name) > 1 else f"-s {name} "
            else:
                shown = f"--{name}" if len(name) > 1 else f"-{name}"
            if name:
                assert (shown in text) == (not option.unbuilt), f"{shown} in {shell}"


@pytest.mark.parametrize("shell", SHELLS)
def test_completions_are_valid(shell: str, tmp_path: Path) -> None:
    """The shell itself parses what we print for it."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "completion"
    script.write_text(completions.SHELLS[shell]())
    done = subprocess.run([*SHELLS[shell], str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def complete(line: list[str]) -> set[str]:
    """What bash offers for the last word of `line`."""
    script = f"""{completions.bash()}
COMP_WORDS=({" ".join(repr(word) for word in line)}); COMP_CWORD={len(line) - 1}
_syd_pool; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (["syd-pool", ""], "completions"),
        (["syd-pool", "completions", ""], "fish"),
        (["syd-pool", "run", "--fd-answers", ""], "two-step"),
        (["syd-pool", "run", "--f"], "--fd-answers"),
        (["syd", "-E", "p"], "pfc"),
        (["syd", "-q", "--n"], "--nproc-max"),
    ],
)
def test_bash_completes(line: list[str], offered: str) -> None:
    """The completion function answers as a user expects."""
    assert offered in complete(line)


def test_bash_leaves_the_command_alone() -> None:
    """After the command our options are not offered."""
    assert "--nproc" not in complete(["syd-pool", "run", "-m", "x", "ls", "--n"])
