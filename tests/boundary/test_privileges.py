"""What the command may not do whatever its rules say, tried from inside; each with the option that lifts it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from syd_pool.boundary import privileges
from syd_pool.linux import caps
from syd_pool.policy import Ruleset
from syd_pool.policy.options import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
SYD = ROOT / "scripts" / "syd"
PYTHON = sys.executable
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs capabilities that can be lost")


def syd(*words: str, options: tuple[str, ...] = (), user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command with every category off."""
    lines = [f"-m{option}" for option in ("trace/allow_unsafe_exec_nopie:1", *options)]
    return subprocess.run(
        [SYD, "-poff", *lines, "--", *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        user=user,
        check=False,
    )


def python(code: str, *options: str, user: int | None = None) -> str:
    """What a Python program in the sandbox prints."""
    done = syd("/usr/bin/env", "-i", sys.executable, "-I", "-S", "-c", code, options=options, user=user)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def sets(*options: str) -> dict[str, int]:
    """The capability sets of the command."""
    done = syd("/bin/grep", "Cap", "/proc/self/status", options=options)
    return {line.split(":")[0]: int(line.split()[1], 16) for line in done.stdout.splitlines()}


# --- capabilities --------------------------------------------------------------------------------


@root
def test_the_command_has_no_capability() -> None:
    """syd(7), Managing Linux Capabilities: none in any set, and none comes back with an exec by root."""
    assert set(sets().values()) == {0}
    nested = syd("/bin/sh", "-c", "exec /bin/grep CapEff /proc/self/status")
    assert int(nested.stdout.split()[1], 16) == 0


@root
def test_the_control_they_can_be_kept() -> None:
    """trace/allow_unsafe_caps: everything that we have."""
    have = caps.current()[1]
    assert sets("trace/allow_unsafe_caps:1")["CapEff"] == have != 0


@root
@pytest.mark.parametrize("option", privileges.FOR_COMMAND)
def test_an_option_keeps_its_capability(option: str) -> None:
    """One bit, which an exec keeps, and no other."""
    bit = caps.bit(privileges.FOR_COMMAND[option])
    if not caps.current()[1] & bit:
        pytest.skip("this capability is missing here")
    found = sets(f"{option}:1")
    assert (found["CapPrm"], found["CapEff"], found["CapBnd"]) == (bit, bit, bit)


ATTACKS = {
    "chown": ("import os; open('{d}/f', 'w').close(); os.chown('{d}/f', 1, 1)", "trace/allow_unsafe_chown:1"),
    "low port": ("import socket; socket.socket().bind(('127.0.0.1', 999))", "trace/allow_unsafe_bind:1"),
    "device": ("import os; os.mknod('{d}/n', 0o20600, os.makedev(1, 3))", "trace/allow_unsafe_mkcdev:1"),
    "raw socket": ("import socket; socket.socket(2, 3, 1)", "trace/allow_unsafe_socket:1"),
    "another user": ("import os; os.setuid(65534)", "setuid+0:65534"),
    "other's file": ("open('{d}/secret').read()", "trace/allow_unsafe_caps:1"),
    "chroot": ("import os; os.chroot('/'); os.stat('/etc')", "trace/allow_unsafe_chroot:1"),
}


@root
@pytest.mark.parametrize("what", ATTACKS)
def test_what_needs_a_capability_fails(what: str, tmp_path: Path) -> None:
    """Root in the sandbox is an ordinary user; with the option the same attack succeeds."""
    code, option = ATTACKS[what]
    tmp_path.chmod(0o777)
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0)
    os.chown(secret, 1, 1)
    attack = "import sys\ntry:\n    " + "; ".join(code.format(d=tmp_path).split("; ")) + "\n    print('done')\n"
    attack += "except OSError as e:\n    print(e.errno)"
    assert python(attack) in ("1", "13"), what
    for left in ("f", "n"):
        (tmp_path / left).unlink(missing_ok=True)
    assert python(attack, option) == "done", f"control: {what}"


@root
def test_a_worker_has_what_the_command_has(tmp_path: Path) -> None:
    """A file that the command may not open is not opened for it by a worker (category read on)."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0)
    os.chown(secret, 1, 1)
    tmp_path.chmod(0o755)
    rules = ("sandbox/read,stat:on", "allow/read,stat+/***")
    done = syd("/bin/cat", str(secret), options=rules)
    assert (done.returncode, "Permission denied" in done.stderr) == (1, True)
    assert syd("/bin/cat", str(secret), options=(*rules, "trace/allow_unsafe_caps:1")).stdout == "secret"


# --- securebits, memory, speculation, priority ------------------------------------------------------

SECUREBITS = "import ctypes; print(ctypes.CDLL(None).prctl(27, 0, 0, 0, 0))"


@root
def test_securebits_are_set_and_locked() -> None:
    """Root has no power by its id, none is got back by a change of ids, none raised as ambient; all locked."""
    bits = int(python(SECUREBITS))
    wanted = (
        privileges.SECBIT_NOROOT,
        privileges.SECBIT_NO_SETUID_FIXUP,
        privileges.SECBIT_NO_CAP_AMBIENT_RAISE,
    )
    assert all(bits & bit and bits & bit << 1 for bit in wanted)
    assert not bits & privileges.SECBIT_KEEP_CAPS and bits & privileges.SECBIT_KEEP_CAPS << 1
    lifted = int(python(SECUREBITS, "trace/allow_unsafe_cap_fixup:1"))
    assert not lifted & (privileges.SECBIT_NO_SETUID_FIXUP | privileges.SECBIT_KEEP_CAPS << 1)
    assert not int(python(SECUREBITS, "trace/allow_unsafe_caps:1")) & privileges.SECBIT_NOROOT


def test_an_ordinary_user_starts_without_capabilities() -> None:
    """Where securebits need a capability they are left out, and the rest is done."""
    if os.geteuid() != 0:
        pytest.skip("changes the user")
    bits = int(python(SECUREBITS, user=1000))
    assert not bits & privileges.SECBIT_NOROOT
    if tuple(int(n) for n in os.uname().release.split(".")[:2]) >= (6, 14):
        assert bits & 0xF00 == 0xF00


GAIN = """
import mmap
try:
    m = mmap.mmap(-1, 4096, prot={first}); print("mapped", end=" ")
    import ctypes
    a = ctypes.addressof(ctypes.c_char.from_buffer(m)) if {first} & 2 else 0
    print("gained" if a and ctypes.CDLL(None).mprotect(ctypes.c_void_p(a), 4096, 5) == 0 else "kept")
except PermissionError:
    print("refused")
"""


@pytest.mark.parametrize(
    ("first", "guarded", "lifted"), [(7, "refused", "mapped gained"), (3, "mapped kept", "mapped gained")]
)
def test_memory_cannot_become_executable(first: int, guarded: str, lifted: str) -> None:
    """PR_SET_MDWE: no mapping that is writable and executable, none that becomes executable."""
    code = GAIN.format(first=first)
    assert python(code) == guarded
    assert python(code, "trace/allow_unsafe_exec_memory:1") == lifted


def test_memory_stays_guarded_over_fork_and_exec() -> None:
    """PR_GET_MDWE in a grandchild: 1."""
    code = "import ctypes; print(ctypes.CDLL(None).prctl(66, 0, 0, 0, 0))"
    shell = f'{sys.executable} -I -S -c "{code}"; true'
    assert syd("/bin/sh", "-c", shell).stdout.strip() == "1"
    assert syd("/bin/sh", "-c", shell, options=("trace/allow_unsafe_exec_memory:1",)).stdout.strip() == "0"


PRIORITY = "import os; n = os.nice(0); os.setpriority(0, 0, 5) if n < 19 else 0; print(n, os.getpriority(0, 0))"


def test_the_command_has_the_lowest_priority() -> None:
    """nice 19, disk idle; asking for another succeeds without effect.  The option leaves both alone."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert python("import os; os.setpriority(0, 0, 10); print(os.getpriority(0, 0))") == "19"
    if own <= 5:
        assert python(PRIORITY, "trace/allow_unsafe_nice:1") == f"{own} 5"
    assert syd("/usr/bin/ionice").stdout.strip() == "idle"
    outside = subprocess.run(["/usr/bin/ionice"], capture_output=True, text=True, check=True).stdout
    assert syd("/usr/bin/ionice", options=("trace/allow_unsafe_nice:1",)).stdout == outside


def test_speculation_is_asked_for() -> None:
    """What the processor lets a task switch off is off; elsewhere /proc shows what stays, and the start goes on."""
    native = subprocess.run(["grep", "Speculation_Store", "/proc/self/status"], capture_output=True, text=True).stdout
    inside = syd("/bin/grep", "Speculation_Store", "/proc/self/status").stdout
    if "thread vulnerable" in native:
        assert "thread force mitigated" in inside
    else:
        assert inside == native


# --- limits --------------------------------------------------------------------------------------

# option's value -> what getrlimit(2) shows
LIMITS = {
    "as": ("512M", 512 << 20), "core": ("0", 0), "cpu": ("90s", 90), "data": ("256M", 256 << 20),
    "fsize": ("1M", 1 << 20), "memlock": ("0", 0), "msgqueue": ("0", 0), "nice": ("20", 0), "nofile": ("64", 64),
    "nproc": ("4000", 4000), "rtprio": ("0", 0), "rttime": ("0", 0), "sigpending": ("77", 77), "stack": ("4M", 4 << 20),
}  # fmt: skip


def shown(number: int, *options: str) -> tuple[int, int]:
    """(soft, hard) of one limit in the sandbox."""
    soft, hard = json.loads(python(f"import resource; print(list(resource.getrlimit({number})))", *options))
    return soft, hard


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_set(name: str) -> None:
    """rlimit/NAME sets soft and hard limit of the command, and nothing of ours."""
    value, wanted = LIMITS[name]
    number = privileges.RLIMITS[name]
    assert shown(number, f"rlimit/{name}:{value}") == (wanted, wanted)
    inherited = resource.getrlimit(number)
    off = shown(number, f"rlimit/{name}:off", "trace/allow_unsafe_prlimit:1")
    assert off == inherited, "control: off leaves what was inherited"


def test_every_limit_is_tested() -> None:
    """The table above has every rlimit/ option."""
    names = {name.removeprefix("rlimit/") for name in OPTIONS if name.startswith("rlimit/")}
    assert set(LIMITS) == set(privileges.RLIMITS) == names


def test_limits_by_default() -> None:
    """syd(2): no core, no locked memory, no queues, no priority above the least; the rest is inherited."""
    found = {number: (soft, hard) for number, soft, hard in privileges.limits(Ruleset())}
    names = ("core", "memlock", "msgqueue", "nice", "rtprio", "rttime")
    assert found == {privileges.RLIMITS[name]: (0, 0) for name in names}


def test_a_low_limit_stops_the_command_and_not_us() -> None:
    """A command with 30 MB of address space cannot get 100; one descriptor too many fails; the sandbox lives."""
    code = "import mmap\ntry:\n    mmap.mmap(-1, 100 << 20)\n    print('got')\nexcept OSError as e:\n    print(e.errno)"
    assert python(code, "rlimit/as:64M") == "12"
    assert python(code) == "got"
    fds = "import os\ntry:\n    [os.open('/', 0) for _ in range(30)]\n    print('got')\n"
    fds += "except OSError as e:\n    print(e.errno)"
    assert python(fds, "rlimit/nofile:20") == "24"
    assert python(fds, "rlimit/nofile:20", "sandbox/read,readdir:on", "allow/read,readdir+/***") == "24"
    assert python(fds) == "got"


@root
def test_a_limit_that_cannot_be_had_ends_the_start() -> None:
    """Above the hard limit without CAP_SYS_RESOURCE: EPERM, and the command never runs."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if caps.current()[1] >> 24 & 1:
        pytest.skip("has CAP_SYS_RESOURCE")
    done = syd("/bin/echo", "ran", options=(f"rlimit/nofile:{hard + 1}",))
    assert (done.returncode, done.stdout) == (1, "")
    assert "resource limits" in done.stderr


# --- SafeSetID -----------------------------------------------------------------------------------

CHANGE = """
import os
for name, args in {calls!r}:
    try:
        getattr(os, name)(*args); print(0, end=" ")
    except OSError as e:
        print(e.errno, end=" ")
"""
UIDS = [("setuid", (65533,)), ("setresuid", (-1, 100, 100)), ("setreuid", (99, 99)), ("setgid", (65534,)),
        ("setgroups", ([1],)), ("setresuid", (65534, 65534, 65534)), ("setuid", (100,))]  # fmt: skip


@root
def test_only_the_change_of_a_rule_is_made() -> None:
    """setuid+0:65534 keeps CAP_SETUID for this and nothing else; without a rule root changes to nobody at all."""
    code = CHANGE.format(calls=UIDS)
    assert python(code, "setuid+0:65534").split() == ["1", "1", "1", "1", "1", "0", "1"]
    assert python(code).split() == ["1"] * 7
    free = python(code, "trace/allow_unsafe_caps:1").split()
    assert free[0] == "0", "control: with all capabilities the first change is made"


FORKED = """
import os
for calls in {calls!r}:
    pid = os.fork()
    if not pid:
        for name, args in calls:
            try:
                getattr(os, name)(*args); print(0, end=" ", flush=True)
            except OSError as e:
                print(e.errno, end=" ", flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""


@root
@pytest.mark.parametrize(("call", "kind"), [("setresuid", "setuid"), ("setresgid", "setgid")])
def test_a_run_changes_to_one_id_only(call: str, kind: str) -> None:
    """syd(7), SafeSetID: the first id that is changed to is the only one, for every process; it may be taken again."""
    first, other = (call, (65534,) * 3), (call, (1000,) * 3)
    calls = [[first, other], [first], [(call, (-1, 65534, -1)), (call, (-1, 1000, -1)), (call, (-1, 0, -1))]]
    rules = (f"{kind}+0:65534", f"{kind}+65534:1000")
    assert python(FORKED.format(calls=calls), *rules).split() == ["0", "1", "0", "0", "1", "0"]
    control = python(FORKED.format(calls=[[other]]), f"{kind}+0:1000")
    assert control.split() == ["0"], "control: by itself the other change is made"


@root
def test_groups_are_changed_by_rule() -> None:
    """setgid+0:65534; a list of groups may hold what the rule names, and nothing else."""
    calls = [("setgid", (99,)), ("setgroups", ([99],)), ("setgroups", ([65534],)), ("setgroups", ([],)),
             ("setresgid", (65534,) * 3)]  # fmt: skip
    assert python(CHANGE.format(calls=calls), "setgid+0:65534").split() == ["1", "1", "0", "0", "0"]
    assert python(CHANGE.format(calls=calls[:2]), "trace/allow_unsafe_caps:1").split() == ["0", "0"], "control"


@root
@pytest.mark.parametrize(
    ("call", "rule", "highest"), [("setuid", "setuid+0:65534", 11), ("setgid", "setgid+0:65534", 14)]
)
def test_who_becomes_a_system_account_is_killed(call: str, rule: str, highest: int) -> None:
    """syd(7), SafeSetID: ids up to operator and uucp end the caller with SIGSYS, whatever the rules."""
    for number in (1, 8, highest):
        done = syd(PYTHON, "-I", "-S", "-c", f"import os; os.{call}({number})", options=(rule,))
        assert done.returncode == 128 + 31, (number, done.stderr)
    done = syd(PYTHON, "-I", "-S", "-c", f"import os; os.{call}({highest + 1})", options=(rule,))
    assert "PermissionError" in done.stderr, "control: the next one is refused by the rules"


# --- umask ---------------------------------------------------------------------------------------

MODES = """
import os
os.umask(0)
def show(name): print(oct(os.stat(name).st_mode & 0o7777), end=" ")
os.close(os.open("new", os.O_CREAT | os.O_WRONLY, 0o4777)); show("new")
os.mknod("node", 0o100666); show("node")
os.chmod("new", 0o6755); show("new")
fd = os.open("new", os.O_RDONLY); os.fchmod(fd, 0o707); show("new")
os.mkdir("dir", 0o777); show("dir")
os.chmod("dir", 0o755); show("dir")
fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o777); show(f"/proc/self/fd/{{fd}}")
""".replace("{{fd}}", "{fd}")


def modes(place: Path, *options: str) -> list[str]:
    """What a program that asks for much gets."""
    place.mkdir()
    # "new" may be written by others, and is set-id
    options = (*options, "trace/allow_unsafe_create:1", "trace/allow_unsafe_open_suid:1")
    done = syd("/bin/sh", "-c", f"cd {place} && exec {PYTHON} -I -S -c '{MODES}'", options=options)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_umask_is_forced(tmp_path: Path) -> None:
    """trace/force_umask: regular files never get these bits, by open, mknod or chmod; directories are left alone."""
    free = modes(tmp_path / "free")
    assert free == ["0o4777", "0o666", "0o6755", "0o707", "0o777", "0o755", "0o777"], "control"
    forced = modes(tmp_path / "forced", "trace/force_umask:7077")
    assert forced == ["0o700", "0o600", "0o700", "0o700", "0o777", "0o755", "0o700"]
    judged = ("sandbox/create,chmod,stat:on", "allow/create,chmod,stat+/***", "trace/force_umask:7077")
    assert modes(tmp_path / "judged", *judged) == forced
