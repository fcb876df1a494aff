"""Trusted path execution: what is executed or mapped, by whom, and what each option adds."""

from __future__ import annotations

import os
import shutil
import subprocess
from errno import EACCES
from pathlib import Path

import pytest

SYD = Path(__file__).resolve().parents[2] / "scripts" / "syd"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="files of several owners need root")
ON = ["-poff", "-msandbox/tpe:on"]
GROUP, OTHERS, OWNER = 0o775, 0o757, 1000
SCRIPT = "#!/bin/sh\necho script\n"
LIBRARY = "int f(void) { return 0; }\n"
LOADER = """#include <dlfcn.h>
int main(int c, char **v) { return c > 1 && dlopen(v[1], RTLD_NOW) ? 0 : 7; }
"""


def program(path: Path, mode: int = 0o755, owner: int = 0) -> Path:
    """A copy of true(1)."""
    shutil.copy("/bin/true", path)
    os.chown(path, owner, owner)
    path.chmod(mode)
    return path


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories and files that may be trusted, or not."""
    top = tmp_path_factory.mktemp("tpe")
    for name, mode, owner in (("good", 0o755, 0), ("gw", GROUP, 0), ("ow", 0o1777, 0), ("own", 0o755, OWNER)):
        (top / name).mkdir()
        program(top / name / "t")
        (top / name / "s").write_text(SCRIPT)
        (top / name / "s").chmod(0o755)
        (top / name).chmod(mode)
        os.chown(top / name, owner, owner)
    program(top / "good/tg", GROUP)
    program(top / "good/to", OTHERS)
    program(top / "good/theirs", 0o755, OWNER)
    for name, interpreter in (("via", top / "gw/t"), ("viagood", top / "good/t")):
        (top / "good" / name).write_text(f"#!{interpreter}\n")
        (top / "good" / name).chmod(0o755)
    (top / "good/link").symlink_to("../gw/t")
    (top / "lib.c").write_text(LIBRARY)
    (top / "dl.c").write_text(LOADER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", top / "good/lib.so", top / "lib.c"], check=True)
    subprocess.run(["cc", "-pie", "-fPIE", "-o", top / "good/dl", top / "dl.c"], check=True)
    for name, mode in (("gw/lib.so", 0o644), ("good/libg.so", GROUP)):
        shutil.copy(top / "good/lib.so", top / name)
        (top / name).chmod(mode)
    return top


def run(ground: Path, words: str, *rules: str, options: list[str] | None = None) -> int:
    """Exit status of sh -c words."""
    command = [str(SYD), *(ON if options is None else options), *(f"-m{rule}" for rule in rules)]
    done = subprocess.run(
        [*command, "--", "/bin/sh", "-c", words], cwd=ground, capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode


REFUSED, KILLED, NOT_LOADED = 126, 137, 7
CASES = {
    "good/t": 0, "good/s": 0, "own/t": 0, "good/theirs": 0, "good/viagood": 0, "gw/t": REFUSED, "ow/t": REFUSED,
    "gw/s": REFUSED, "good/tg": REFUSED, "good/to": REFUSED, "good/link": REFUSED, "good/via": KILLED,
    "good/dl good/lib.so": 0, "good/dl gw/lib.so": NOT_LOADED, "good/dl good/libg.so": NOT_LOADED,
}  # fmt: skip


@pytest.mark.parametrize("words", CASES)
def test_what_others_may_write_is_not_executed(ground: Path, words: str) -> None:
    """Program, script, interpreter and library, by the file and by its directory (syd 3.52.0)."""
    words, expected = words.replace(" ", f" {ground}/"), CASES[words]
    assert run(ground, f"{words}; exit $?") == expected
    assert run(ground, f"{words}; exit $?", options=["-poff"]) == 0, "control"


def test_it_is_on_unless_a_profile_turns_it_off(ground: Path) -> None:
    """syd(2): sandbox/tpe is on by default; profile off turns it off."""
    rules = ["allow/all+/***", "sandbox/fs:off"]
    assert run(ground, "gw/t; exit $?", *rules, options=[]) == REFUSED
    assert run(ground, "good/t; exit $?", *rules, options=[]) == 0
    assert run(ground, "gw/t; exit $?", *rules, "sandbox/tpe:off", options=[]) == 0


@pytest.mark.parametrize(
    ("rule", "words", "expected"),
    [
        ("tpe/root_owned:1", "good/theirs", REFUSED), ("tpe/root_owned:1", "own/t", REFUSED),
        ("tpe/root_owned:1", "good/t", 0), ("tpe/user_owned:1", "good/theirs", REFUSED),
        ("tpe/user_owned:1", "own/t", REFUSED), ("tpe/user_owned:1", "good/t", 0), ("tpe/root_mount:1", "good/t", 0),
        ("tpe/root_mount:1", "/dev/shm/syd-pool-tpe/t", REFUSED), ("tpe/gid:0", "gw/t", REFUSED),
        ("tpe/gid:54321", "gw/t", 0), ("tpe/gid:none", "gw/t", REFUSED), ("tpe/negate:1", "gw/t", REFUSED),
        ("default/tpe:warn", "gw/t", 0), ("default/tpe:kill", "gw/t", KILLED), ("default/tpe:filter", "gw/t", REFUSED),
        ("default/tpe:kill", "good/via", KILLED),
    ],
)  # fmt: skip
def test_options(ground: Path, rule: str, words: str, expected: int) -> None:
    """Each option alone."""
    place = Path("/dev/shm/syd-pool-tpe")
    place.mkdir(mode=0o755, exist_ok=True)
    try:
        program(place / "t")
        assert run(ground, f"{words}; exit $?", rule) == expected
        if "root_mount" in rule and expected:
            assert run(ground, f"{words}; exit $?") == 0, "control"
    finally:
        shutil.rmtree(place)


def test_groups(ground: Path) -> None:
    """tpe/gid is the group that has to be careful; with tpe/negate the only one that has not."""
    assert run(ground, "gw/t; exit $?", "tpe/gid:0", "tpe/negate:1") == 0
    assert run(ground, "gw/t; exit $?", "tpe/gid:54321", "tpe/negate:1") == REFUSED


def test_it_can_be_changed_while_the_command_runs(ground: Path) -> None:
    """On, off, and a default action."""
    words = (
        "test -c /dev/syd/sandbox/tpe:on; gw/t; a=$?; test -c /dev/syd/tpe/gid:54321; gw/t; b=$?; "
        "test -c /dev/syd/tpe/gid:none; gw/t; c=$?; test -c /dev/syd/sandbox/tpe:off; gw/t; echo $a $b $c $?; "
        'test "$a $b $c $?" = "126 0 126 0"'
    )
    assert run(ground, words, "lock:off", options=["-poff"]) == 0


def test_the_command_itself(ground: Path) -> None:
    """Is refused before it runs, and the log says why."""
    done = subprocess.run([SYD, *ON, "--", ground / "gw/t"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == EACCES
    assert "its directory can be written by its group" in done.stderr
    assert "no rule allows" not in done.stderr


def test_a_file_without_its_name_is_not_trusted(ground: Path) -> None:
    """Nothing is known of the directory of a file that was removed."""
    copy = program(ground / "good/gone")
    words = f"exec 5<{copy}; rm {copy}; /proc/self/fd/5; exit $?"
    assert run(ground, words) == REFUSED
    copy = program(ground / "good/gone")
    assert run(ground, words, options=["-poff"]) == 0, "control"
