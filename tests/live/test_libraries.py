"""--api, --sh, --el and /dev/syd.sh, /dev/syd.el: what programs use to speak to a running sandbox."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from syd_pool.policy import Ruleset, interface, live
from syd_pool.policy.errors import BadRule

SYD = Path(__file__).resolve().parents[2] / "scripts" / "syd"
SHELLS = [shell for shell in ("sh", "bash", "zsh", "busybox") if shutil.which(shell)]


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def inside(shell: str, lock: str, text: str, *rules: str) -> list[str]:
    """What a shell says that is the command of a sandbox and has read the library."""
    start = [shell, "sh"] if shell == "busybox" else [shell]
    done = run(str(SYD), "-poff", *(f"-m{rule}" for rule in rules), f"-mlock:{lock}", "--", *start, "-c", text)
    return done.stdout.split()


# --- the shell function -----------------------------------------------------------------------------

SESSION = """
. /dev/syd.sh
say() { "$@" 2>/dev/null; echo "$?"; }
say esyd check
say esyd enabled mkdir
say esyd enable mkdir,rmdir
say esyd enabled mkdir
say mkdir d
say esyd allow mkdir '/***'
say mkdir d
say esyd deny rmdir "$PWD/d"
say rmdir d
say esyd undo deny rmdir "$PWD/d"
say esyd allow rmdir '/***' '/x y'
say rmdir d
say esyd default warn mkdir
say esyd clear allow rmdir '/x y'
say esyd trace/force_umask:077 'timeout:1h'
say esyd disable mkdir
say esyd load fs
say esyd nonsense
say esyd allow mkdir
say esyd
say esyd lock
say esyd check
say esyd reset
"""
EXPECTED = "0 1 0 0 1 0 0 0 1 0 0 0 0 0 0 0 0 1 2 2 0 1 1".split()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("lock", ["off", "exec"])
def test_a_session_in_a_shell(shell: str, lock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every verb, in the shell itself: with lock:exec no child of it would be listened to."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o777)
    assert inside(shell, lock, SESSION) == EXPECTED


@pytest.mark.parametrize("shell", SHELLS)
def test_a_program_outside(shell: str, tmp_path: Path) -> None:
    """esyd exec: words stay words, blanks and all; the sandboxed shell itself may not do the same."""
    tmp_path.chmod(0o777)
    text = f". /dev/syd.sh; esyd exec /usr/bin/touch '{tmp_path}/a b'; echo $?; : >'{tmp_path}/c' || echo refused"
    found = inside(shell, "exec", text, "sandbox/create:on", "allow/create+/dev/null")
    assert found[0] == "0" and not (tmp_path / "c").exists()
    deadline = 200
    while not (tmp_path / "a b").exists() and deadline:
        deadline -= 1
        run("sleep", "0.02")
    assert (tmp_path / "a b").exists()


def test_the_state_is_the_json_of_the_kernel_path() -> None:
    done = run(str(SYD), "-poff", "-mlock:off", "--", "sh", "-c", ". /dev/syd.sh; esyd state")
    state = json.loads(done.stdout)
    assert state["lock"] == "off" and state["api"] == interface.specification()


def test_outside_nobody_listens() -> None:
    """The library is harmless where there is no sandbox, and leaves the shell's options alone."""
    done = run(
        "sh", "-euc", f'eval "$({SYD} --sh)"; esyd check || echo none; esyd reset || echo $?; esyd lock on x || echo $?'
    )
    assert done.stdout.split() == ["none", "1", "2"] and "nobody listens" in done.stderr


@pytest.mark.parametrize(
    ("lock", "readable"), [("off", 1), ("drop", 1), ("exec", 1), ("read", 1), ("on", 0), ("ipc", 0)]
)
def test_who_may_read_the_library(lock: str, readable: int, tmp_path: Path) -> None:
    """Who may speak or look; for others there is no such file.  Nobody can write to it."""
    ipc = [f"-mipc:{tmp_path}/socket"] if lock == "ipc" else []
    text = "for f in sh el; do while read -r l; do echo x; break; done </dev/syd.$f; done"
    done = run(str(SYD), "-poff", *ipc, f"-mlock:{lock}", "--", "sh", "-c", text)
    assert done.stdout.split() == ["x", "x"] * readable
    if readable:
        done = run(str(SYD), "-poff", *ipc, f"-mlock:{lock}", "--", "sh", "-c", "echo x >>/dev/syd.sh && echo written")
        assert "written" not in done.stdout and not Path("/dev/syd.sh").exists()


# --- the others ---------------------------------------------------------------------------------------


def test_the_options_print_what_the_paths_hold() -> None:
    """--sh and --el are the files; --api is what open("/dev/syd") has."""
    for option, name in (("--sh", "/dev/syd.sh"), ("--el", "/dev/syd.el")):
        text = "while IFS= read -r l; do printf '%s\\n' \"$l\"; done <" + name
        assert run(str(SYD), option).stdout == run(str(SYD), "-poff", "-mlock:off", "--", "sh", "-c", text).stdout
    assert json.loads(run(str(SYD), "--api").stdout) == interface.specification()


def arguments() -> dict[str, str]:
    """One value for each type of the specification."""
    found = {
        "$str": "x",
        "$uint": "7",
        "$byte": "7",
        "$octal": "077",
        "$duration": "9s",
        "$size": "7M",
        "$pattern": "/x",
    }
    for one in interface.specification()["types"]:
        if "enum" in one:
            found[one["name"]] = one["enum"][0]
    return found


METHODS = [m for m in interface.specification()["methods"] if "op" in m and m["name"] != "cmd_exec"]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: str(m["name"]))
def test_every_method_can_be_said(method: dict[str, str]) -> None:
    """The specification promises nothing that a running sandbox refuses."""
    values = arguments() | {"$state": "off", "$categories": "read"}
    base = f"/{values[method['base']]}" if "base" in method else ""
    line = f"{method['path']}{base}{method['op']}{values.get(method.get('argv', ''), '')}"
    rules = Ruleset()
    if method["op"] == "?":
        assert live.query(rules, line) in (True, False)
        return
    live.edit(rules, line)


@pytest.mark.parametrize(
    "category", [c for t in interface.specification()["types"] if t["name"] == "$switches" for c in t["enum"]]
)
def test_every_switch_can_be_switched(category: str) -> None:
    for state in ("on", "off"):
        live.edit(Ruleset(), f"sandbox/{category}:{state}")


def test_what_is_static_is_no_method() -> None:
    """The control: the parser does refuse what is left out."""
    names = {m["path"] for m in METHODS}
    for line in ("sandbox/lock:on", "trace/allow_unsafe_ptrace:1"):
        assert line.partition(":")[0] not in names
        with pytest.raises(BadRule):
            live.edit(Ruleset(), line)


def test_the_lisp_is_whole() -> None:
    """Balanced outside of strings and comments; every command it says is one that is understood."""
    depth, quoted = 0, False
    for line in interface.helper("syd.el").decode().splitlines():
        at = 0
        while at < len(line):
            c = line[at]
            if quoted or c == '"':
                at += c == "\\"
                quoted ^= c == '"'
            elif c == ";":
                break
            else:
                depth += (c == "(") - (c == ")")
                assert depth >= 0, line
            at += 1
    assert (depth, quoted) == (0, False)


@pytest.mark.skipif(shutil.which("emacs") is None, reason="Emacs is not installed")
def test_the_lisp_speaks(tmp_path: Path) -> None:
    program = '(progn (princ (list (syd-check) (syd-enabled-p "mkdir") (syd-enable "mkdir") (syd-enabled-p "mkdir"))))'
    done = run(
        str(SYD), "-poff", "-mlock:exec", "--", "emacs", "-Q", "--batch", "-l", "/dev/syd.el", "--eval", program
    )  # fmt: skip
    assert done.stdout == "(t nil t t)", done.stderr
