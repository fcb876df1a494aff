"""Every built-in profile runs something real and stops something; a profile that is not built runs nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from errno import EOPNOTSUPP
from pathlib import Path

import pytest

from syd_pool.cli.option_list import profile_support
from syd_pool.policy import Ruleset, actions, files
from syd_pool.policy.options import NO

SYD = Path(__file__).resolve().parents[2] / "scripts" / "syd"
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
NOPIE = "-mtrace/allow_unsafe_exec_nopie:1"  # python3 of many distributions
ALL = "-mallow/all+/***"

# Programs as text for sh -c
GAIN = f"{PYTHON} -S -c 'import mmap; mmap.mmap(-1, 4096, prot=7)'"
PTY = f"{PYTHON} -S -c 'import os; os.openpty()'"
LOWEST = f"{PYTHON} -S -c 'import os; assert max(os.open(\"/\", 0) for _ in range(20)) < 90'"
TRACE = (
    f"{PYTHON} -S -c 'import ctypes, os; p = os.fork(); ask = ctypes.CDLL(None).ptrace; "
    "os._exit(0) if not p and (ask(0, 0, 0, 0), os.kill(os.getpid(), 19)) else 0; "
    "assert os.WIFSTOPPED(os.waitpid(p, 0)[1]); ask(7, p, 0, 0); os.waitpid(p, 0)'"
)
CORE = 'test "$(ulimit -c)" != 0'
MOUNT = "unshare -m true"
SHADOW = "cat /etc/shadow >/dev/null"
CONNECT = (
    f'{PYTHON} -S -c \'import socket as s; f=s.AF_INET{{0}}; a=("{{1}}",0); l=s.socket(f); l.bind(a); l.listen(); '
    "s.create_connection(l.getsockname()[:2])'"
)
FOUR, SIX = CONNECT.format("", "127.0.0.1"), CONNECT.format("6", "::1")
SYSTEM = (
    "set -e; ls -l /usr >/dev/null; id -u >/dev/null; sort /etc/passwd >/dev/null; cat /proc/self/stat >/dev/null; "
    "x=$(date)"
)
READ = ["-poff", "-msandbox/read:on", "-mallow/read+/usr/***", "-mallow/read+/etc/ld.so.cache"]
HIDE = ["-poff", "-phide", "-mallow/lpath+/***", "-mdeny/lpath+/etc/hosts"]
# 192.0.2.1 is nobody (RFC 5737)
FAR = (
    f"{PYTHON} -S -c \"import socket; s = socket.create_server(('127.0.0.1', 0)); "
    "socket.create_connection(('192.0.2.1', s.getsockname()[1]), 2)\""
)
TEMPORARY = "d=$(mktemp -d); echo x >$d/f; mv $d/f $d/g; ln -s g $d/h; rm -r $d"
C_BUILD = "set -e; echo 'int main(){return 0;}' >a.c; cc -o a a.c; ./a; rm a a.c"

# profile -> (options, what must work, what must not, options under which it works; None: outside)
TABLE: dict[str, tuple[list[str], str, str, list[str] | None]] = {
    "off": (["-poff"], SYSTEM, MOUNT, None),
    "lib": (["-plib"], SYSTEM, MOUNT, None),
    "fs": (["-pfs", ALL], SYSTEM, "exec 3</proc/self/ns/uts", ["-poff"]),
    "hide": (HIDE, "test -e /etc/passwd", "test -e /etc/hosts", ["-poff"]),
    "quiet": ([*READ, "-pquiet"], "true", "cat /etc/passwd", ["-poff"]),
    "enforce": ([*READ, "-ptrace", "-penforce"], "true", "cat /etc/passwd", [*READ, "-ptrace"]),
    "trace": (["-ptrace", NOPIE], SYSTEM, MOUNT, None),
    "core": (["-poff", "-pcore"], CORE, MOUNT, None),
    "debug": (["-poff", "-pdebug", NOPIE], TRACE, MOUNT, None),
    "nomem": (["-poff", "-pnomem", NOPIE], GAIN, MOUNT, None),
    "nopie": (["-plinux", "-pnopie", "-mallow/stat+/***"], f"{PYTHON} -S -c pass", SHADOW, None),
    "privileged": (["-poff", "-pprivileged"], "chown 1:1 . && chown 0:0 .", MOUNT, None),
    "local": (["-poff", "-plocal", NOPIE], FAR, MOUNT, None),
    "lang": (["-poff", "-plang"], 'test "$LANG" = C.UTF-8 -a "$TZ" = UTC', 'test -n "$A_TOKEN"', None),
    "xdg": (["-poff", "-pxdg"], 'test "$XDG_DATA_HOME" = /x', 'test -n "$DISPLAY"', ["-poff", "-pgui"]),
    "gui": (["-poff", "-pgui"], 'test "$DISPLAY" = :7', 'test -n "$A_TOKEN"', None),
    "ldd": (["-plinux", "-pldd"], "/usr/bin/ldd /usr/bin/env", SHADOW, None),
    "readonly": (["-poff", "-preadonly"], "ls -l /usr; cat /proc/self/stat; x=$(date)", "touch f", ["-poff"]),
    "nomagic": (["-poff", "-pnomagic"], SYSTEM, "ls /proc/self/cwd/", ["-poff"]),
    "noxdev": (["-poff", "-pnoxdev"], "sort /etc/passwd && ls /", "cat /proc/version", ["-poff"]),
    "rand": (["-poff", "-prand", NOPIE], SYSTEM, LOWEST, ["-poff", NOPIE]),
    "cwd": (["-plinux", "-pcwd"], "echo x >f; rm f; mkdir d; rmdir d", "touch ../f", ["-poff"]),
    "noipv4": (["-poff", "-pnoipv4", NOPIE], SIX, FOUR, ["-poff"]),
    "noipv6": (["-poff", "-pnoipv6", NOPIE], FOUR, SIX, ["-poff"]),
    "linux": (["-plinux"], SYSTEM, SHADOW, None),
    "landlock": (["-poff", "-plandlock"], f"{SYSTEM}; {TEMPORARY}; {C_BUILD}", "ls /root", ["-poff"]),
    "tty": (["-plinux", "-ptty", NOPIE], PTY, SHADOW, None),
    "tty_native": (["-plinux", "-ptty_native", NOPIE], PTY, SHADOW, None),
    "user": (["-puser"], f"{SYSTEM}; {TEMPORARY}", SHADOW, None),
    "paludis": (["-ppaludis", "-pcwd"], C_BUILD, "touch /usr/syd-pool-was-here", ["-poff"]),
    "ltp": (["-pltp", "-pcwd"], C_BUILD, "touch /usr/syd-pool-was-here", ["-poff"]),
    "firefox": (["-puser", "-pfirefox"], f'{GAIN} && test "$DISPLAY" = :7', SHADOW, None),
    "chrome": (["-puser", "-pchrome"], f'{GAIN} && test "$LANG" = C.UTF-8', SHADOW, None),
    "kvm": (["-plinux", "-pkvm"], SYSTEM, SHADOW, None),
    "kvm_native": (["-plinux", "-pkvm_native"], SYSTEM, SHADOW, None),
    "kcov": (["-plinux", "-pkcov"], SYSTEM, SHADOW, None),
    "nixstore": (["-plinux", "-pnixstore"], SYSTEM, SHADOW, None),
    "nix": (["-plinux", "-pnix"], SYSTEM, SHADOW, None),
}  # fmt: skip
# Without the profile this does not work, with it it does (rules about files that need not be there)
GRANTED = {
    "kvm": ("read", b"/dev/kvm"), "kvm_native": ("write", b"/dev/kvm"), "kcov": ("read", b"/sys/kernel/debug/kcov"),
    "nix": ("net/connect", b"/nix/var/nix/daemon-socket/socket"), "nixstore": ("exec", b"/nix/store/x/bin/y"),
}  # fmt: skip
# Options under which what the profile is for does not work
WITHOUT = {
    **{name: ["-poff"] for name in ("core", "privileged", "lang", "gui", "xdg")},
    **{name: ["-plinux"] for name in ("cwd", "paludis", "user", "ldd")},
    **{name: ["-plinux", NOPIE] for name in ("tty", "tty_native")},
    **{name: ["-poff", NOPIE] for name in ("nomem", "local")},
    "nopie": ["-plinux", "-mallow/stat+/***"],
}
UNBUILT = [name for name in files.available() if profile_support(name)[0] == NO]


def shell(text: str, options: list[str] | None, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run text by sh under options; None: without a sandbox."""
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", "LANG": "C.UTF-8", "TZ": "UTC"}
    env |= {"A_TOKEN": "secret", "DISPLAY": ":7", "XDG_DATA_HOME": "/x"}
    command = ["/bin/sh", "-c", text]
    if options is not None:
        command = [str(SYD), *options, "--", *command]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory of its own, two levels deep."""
    found = tmp_path / "a" / "b"
    found.mkdir(parents=True)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="the controls need root")
@pytest.mark.parametrize("name", TABLE)
def test_a_profile_runs_and_stops(name: str, place: Path) -> None:
    """What it is for works, what it must stop fails, and would not fail otherwise."""
    options, good, bad, control = TABLE[name]
    if "cc " in good and shutil.which("cc") is None:
        pytest.skip("no compiler")
    done = shell(good, options, place)
    assert done.returncode == 0, f"must work: {done.stderr}"
    done = shell(bad, options, place)
    assert done.returncode != 0, f"must be stopped: {done.stdout}"
    if name == "quiet":
        assert '"ctx"' not in done.stderr, "silently"
    if name == "enforce":
        assert '"act":"deny"' in done.stderr, "loudly"
    done = shell(bad, control, place)
    Path("/usr/syd-pool-was-here").unlink(missing_ok=True)
    assert done.returncode == 0, f"control: {done.stderr}"


@pytest.mark.skipif(os.geteuid() != 0, reason="the controls need root")
@pytest.mark.parametrize("name", WITHOUT)
def test_a_profile_is_needed(name: str, place: Path) -> None:
    """What a profile is for does not work without it (on a machine where it makes a difference)."""
    good = TABLE[name][1]
    if name == "nopie" and Path(PYTHON).resolve().read_bytes()[16:19] == b"\x03\x00>":
        pytest.skip("python3 is position-independent here")
    assert shell(good, WITHOUT[name], place).returncode != 0


@pytest.mark.parametrize("name", GRANTED)
def test_a_profile_grants(name: str) -> None:
    """Rules about files and sockets that need not exist here."""
    category, path = GRANTED[name]
    rules = Ruleset()
    rules.profile("linux")
    assert rules.verdicts[category][path] == actions.DENY
    rules.profile(name)
    assert rules.verdicts[category][path] == actions.ALLOW


HOME_SECRETS = (
    ("read", ".ssh/id_ed25519"), ("stat", ".gnupg/secring.gpg"), ("write", ".bashrc"), ("delete", ".profile"),
    ("rename", ".user.syd-3"), ("create", ".config/autostart/x.desktop"), ("read", ".aws/credentials"),
)  # fmt: skip


@pytest.mark.parametrize(("category", "name"), HOME_SECRETS)
def test_user_keeps_the_secrets_of_home(category: str, name: str) -> None:
    """Keys cannot be read, and what the next login obeys cannot be changed; an ordinary file can."""
    rules = Ruleset()
    rules.profile("user")
    home = os.path.expanduser("~").encode()
    assert rules.verdicts[category][home + b"/" + name.encode()] == actions.DENY
    assert rules.verdicts[category][home + b"/work/file"] == actions.ALLOW, "control"


@pytest.mark.parametrize("name", UNBUILT)
def test_a_profile_that_is_not_built_runs_nothing(name: str, place: Path) -> None:
    """It is refused by name with EOPNOTSUPP, and the command does not run."""
    done = shell("touch ran", ["-poff", f"-p{name}"], place)
    assert done.returncode == EOPNOTSUPP and name in done.stderr
    assert not (place / "ran").exists()


def test_every_profile_is_tested() -> None:
    """The tables above have all of them."""
    assert {*TABLE, *UNBUILT} == set(files.available())
