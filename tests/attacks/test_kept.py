"""mask and append (syd(2)): files that are shown as others, files that only grow; every way to change them."""

from __future__ import annotations

import os
import time
from errno import ENOENT, EOPNOTSUPP, EPERM
from pathlib import Path

import pytest
from arena import ALL, Arena, Runner, is_real_syd, switch_on

pytestmark = pytest.mark.attack

LONG_AGO = 1_000_000_000
# Everything that changes a file or takes its name away
CHANGES = (
    "write write_create read_write empty append_empty creat truncate ftruncate fallocate setfl setfl_async setfl_upper "
    "map map_later unlink unlinkat rename rename_over exchange link link_fd chmod fchmod fchmodat chown lchown fchown "
    "fchownat utime utimes futimesat utimensat futimens setxattr lsetxattr fsetxattr removexattr fremovexattr"
).split()
UNAPPENDED = ["pwritev2", "aio", "punch", "zero"]  # O_APPEND undone by a call that says nothing else
HARMLESS = ["read", "append", "append_rw", "setfl_kept", "setfl_spare", "map_spare"]
BY_PATH = [
    op
    for op in CHANGES
    if op.startswith(("trunc", "unlink", "rename", "exch", "link", "chmod", "chown", "lchown", "ut", "setx", "lsetx"))
] + ["fchmodat", "fchownat", "futimesat", "removexattr"]


def ground(runner: Runner, arena: Arena, ops: list[str]) -> None:
    """OP.log and OP.spare for each OP, which belong to who runs."""
    for name in (f"{op}.{end}" for op in ops for end in ("log", "spare")):
        file = arena.box / name
        file.unlink(missing_ok=True)
        file.write_text("grown\n")
        file.chmod(0o666)
        os.setxattr(file, "user.old", b"x")
        os.utime(file, (LONG_AGO, LONG_AGO))
        os.chown(file, runner.identity.uid or 0, -1)


def facts(path: Path) -> tuple[object, ...]:
    """What must not change."""
    status = path.stat()
    return path.read_text(), status.st_ino, status.st_mode, status.st_nlink, int(status.st_mtime), os.listxattr(path)


def rules(*more: str) -> list[str]:
    """Every category on and everything allowed: what is refused is refused by the lists."""
    return [*switch_on(), f"allow/{ALL}+/***", *more]


def said(out: str) -> dict[str, int]:
    return {name: int(number) for name, number in (line.split() for line in out.splitlines())}


@pytest.mark.parametrize("how", ["everything on", "everything off", "edited"])
def test_an_append_only_file_only_grows(runner: Runner, arena: Arena, how: str) -> None:
    """Whatever changes it is refused with every category on, with all off, and where the list came while it ran."""
    if how != "everything on" and is_real_syd():
        pytest.skip("syd does not enforce every call while its category is off")
    ops = [*CHANGES, *UNAPPENDED, *HARMLESS]
    ground(runner, arena, ops)
    before = {op: facts(arena.box / f"{op}.log") for op in ops}
    pattern = f"append+{arena.box}/*.log"
    command = [str(runner.payload("kept")), str(arena.box), *ops]
    given = rules(pattern) if how == "everything on" else [pattern]
    if how == "edited":
        command = ["/bin/sh", "-c", f"test -c '/dev/syd/{pattern}' && exec \"$@\"", "sh", *command]
        given = ["lock:off"]
    outcome = runner.boxed(command, given)
    want = dict.fromkeys(CHANGES, EPERM) | dict.fromkeys(UNAPPENDED, EOPNOTSUPP) | dict.fromkeys(HARMLESS, 0)
    assert said(outcome.out) == want, outcome.err[-1000:]
    assert {op: facts(arena.box / f"{op}.log") for op in ops} == before


def test_without_the_list_all_of_it_succeeds(runner: Runner, arena: Arena) -> None:
    """The control: the same calls change every file, natively and in a sandbox without the list."""
    ops = [*CHANGES, *UNAPPENDED, *HARMLESS]
    for run in (runner.native, lambda command: runner.boxed(command, ["lock:off"])):
        ground(runner, arena, ops)
        outcome = run([str(runner.payload("kept")), str(arena.box), *ops])
        assert said(outcome.out) == dict.fromkeys(ops, 0), outcome.err[-1000:]
        for file in arena.box.glob("*.new"):
            file.unlink()


def test_a_descriptor_exchanged_under_mmap(runner: Runner, arena: Arena) -> None:
    """What was exchanged after it was judged is mapped in no surviving program."""
    ground(runner, arena, ["race"])
    command = [str(runner.payload("kept")), str(arena.box), "race"]
    outcome = runner.boxed(command, [f"append+{arena.box}/*.log"])
    assert outcome.status == 137 or said(outcome.out) == {"race": 0}, outcome
    assert said(runner.native(command).out) == {"race": 1}, "control: natively the exchange is mapped"


def test_a_directory_with_something_kept_in_it_stays(runner: Runner, arena: Arena) -> None:
    """Renamed, the pattern would not match any more and the file could be emptied; without the list it is."""
    for name in ("deep", "other"):
        (arena.box / name).mkdir(mode=0o777)
        (arena.box / name).chmod(0o777)
    (arena.box / "deep/a.log").write_text("kept")
    script = f"cd {arena.box}; mv deep moved; mv -T other moved; : >moved/a.log; ls"
    for list_name in ("append", "mask"):
        outcome = runner.boxed(["/bin/sh", "-c", script], rules(f"{list_name}+{arena.box}/deep/*.log"))
        assert "deep" in outcome.out.split(), outcome
        assert (arena.box / "deep/a.log").read_text() == "kept"
        (arena.box / "moved/a.log").unlink(missing_ok=True)
        (arena.box / "moved").rename(arena.box / "other")
    runner.boxed(["/bin/sh", "-c", script], rules())
    assert not (arena.box / "deep").exists(), "control"


# --- mask ------------------------------------------------------------------------------------------

SHOW = "cat {0}; stat -c %t.%T {0}; stat -Lc %t.%T {0}; test -x {0} && echo may; {0}; readlink -f {0}"


def program(arena: Arena) -> Path:
    """A program with a secret in it."""
    file = arena.box / "program"
    file.write_bytes(Path("/bin/true").read_bytes() + b"SECRET")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("on", [True, False])
def test_a_masked_file_is_shown_as_another(runner: Runner, arena: Arena, on: bool) -> None:
    """open(2) and stat(2) give the target; the file can be executed, and readlink says its name (syd(2), mask)."""
    file = program(arena)
    given = rules(f"mask+{file}") if on else [f"mask+{file}"]
    outcome = runner.boxed(["/bin/sh", "-c", SHOW.format(file) + "; echo $?"], given)
    assert outcome.out.split() == ["1.3", "1.3", "may", str(file), "0"], outcome
    control = runner.boxed(["/bin/sh", "-c", SHOW.format(file)], given[:-1])
    assert "SECRET" in control.out and "1.3" not in control.out


def test_a_masked_name_leads_to_its_target_by_every_way(runner: Runner, arena: Arena) -> None:
    """By links, by its directory's descriptor, by /proc/self/fd and to a file that is not there yet."""
    box = arena.box
    (box / "secret").write_text("SECRET")
    (box / "shown").write_text("shown")
    (box / "link").symlink_to("secret")
    script = (
        f"cd {box}; cat secret ./secret link ../box/secret {box}/secret </dev/null; cat <secret; exec 5<secret; "
        "cat /proc/self/fd/5; stat -c %s secret link/ link 2>&1; stat -Lc %s link; echo x >secret; cat new; echo x >new"
    )
    given = rules(f"mask+{box}/secret:{box}/shown", f"mask+{box}/new:{box}/shown")
    outcome = runner.boxed(["/bin/sh", "-c", script], given)
    assert outcome.out.startswith("shown" * 7) and "SECRET" not in outcome.out, outcome
    assert "Operation not permitted" in outcome.err, "the target is shown, not changed"
    assert (box / "shown").read_text() == "shown" and not (box / "new").exists()
    assert "SECRET" in runner.boxed(["/bin/sh", "-c", script], rules()).out, "control"


def test_a_masked_directory(runner: Runner, arena: Arena) -> None:
    """The third part is for directories; a directory that is shown as a device is none."""
    for name in ("real", "empty"):
        (arena.box / name).mkdir()
    (arena.box / "real/secret").write_text("SECRET")
    script = f"cd {arena.box}; ls real; cat real/secret; ls /dev/null/ 2>&1 | wc -l"
    both = rules(f"mask+{arena.box}/real/***:/dev/null:{arena.box}/empty")
    outcome = runner.boxed(["/bin/sh", "-c", script], both)
    assert outcome.out.split() == ["1"], outcome
    outcome = runner.boxed(["/bin/ls", f"{arena.box}/real/"], rules(f"mask+{arena.box}/real"))
    assert "secret" not in outcome.out, outcome
    assert "SECRET" in runner.boxed(["/bin/sh", "-c", script], rules()).out, "control"


def test_a_masked_file_is_not_changed(runner: Runner, arena: Arena) -> None:
    """As an append-only one, whatever the categories say."""
    ground(runner, arena, BY_PATH)
    before = {op: facts(arena.box / f"{op}.log") for op in BY_PATH}
    command = [str(runner.payload("kept")), str(arena.box), *BY_PATH]
    for given in (rules(f"mask+{arena.box}/*.log"), [f"mask+{arena.box}/*.log"]):
        outcome = runner.boxed(command, given)
        assert {op: said(outcome.out)[op] for op in BY_PATH if op != "link_fd"} == dict.fromkeys(
            (op for op in BY_PATH if op != "link_fd"), EPERM
        ), outcome
        assert {op: facts(arena.box / f"{op}.log") for op in BY_PATH} == before


def test_masks_while_the_command_runs(runner: Runner, arena: Arena) -> None:
    """The last mask that matches counts; taking it away shows the one before, `^` takes all; every call at once."""
    for name in ("file", "one", "two"):
        (arena.box / name).write_text(name)
    f, api = f"{arena.box}/file", "test -c /dev/syd/mask"
    script = f"""
cat {f}; echo; {api}+{f}:{arena.box}/one; cat {f}; echo; {api}+{arena.box}/fil*:{arena.box}/two; cat {f}; echo
{api}-'{arena.box}/fil*'; cat {f}; echo; {api}+{f}; cat {f}; echo; test -c {f} && echo null; {api}^; cat {f}; echo
{api}+{f}:{arena.box}/gone; cat {f} 2>&1; {api}+relative || echo refused
{api}+{f}:x || echo refused; {api}^x || echo no
"""
    outcome = runner.boxed(["/bin/sh", "-c", script], ["lock:off"])
    words = outcome.out.replace(f"cat: {f}: {os.strerror(ENOENT)}", "ENOENT").split()
    assert words == ["file", "one", "two", "one", "null", "file", "ENOENT", "refused", "refused", "no"], outcome


def test_a_refusal_is_logged(runner: Runner, arena: Arena) -> None:
    """One line says the list, the path and the pattern."""
    file = arena.box / "a.log"
    file.write_text("x")
    command = runner.syd(["/bin/rm", "-f", str(file)], [f"append+{arena.box}/*.log"])
    command.remove("-q")
    with runner.start(command) as running:
        outcome = running.finish(30)
    assert '"cap":"append"' in outcome.err and f"append+{arena.box}/*.log" in outcome.err, outcome
    assert file.read_text() == "x" and time.time() > LONG_AGO
