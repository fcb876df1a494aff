"""Real work done twice at the same place, natively and in the sandbox, and compared."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arena import Outcome, Runner, open_directory, switch_on, tree

HERE = Path(__file__).resolve().parent
# What lays the place of work out; what came of it: the outcome and the tree.
Lay = Callable[[Path], None] | None
Made = tuple[Outcome, dict[str, tuple[object, ...]]]
LOOK = "walk,stat,read,readdir,exec,chdir"
EVERYTHING = "walk,stat,read,write,readdir,exec,create,delete,rename,symlink,truncate,chdir,mkdir,rmdir,mktemp"


def allow_all() -> list[str]:
    """Everything on and everything allowed."""
    return [line for line in (HERE / "allow.syd-3").read_text().splitlines() if line and not line.startswith("#")]


def tight(work: Path, tools: Sequence[str] = ()) -> list[str]:
    """Deny by default: the system may be looked at, /dev/null written, the place of work used."""
    system = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", *tools]
    rules = [
        *switch_on(),
        "allow/walk,stat+/",
        "allow/walk,stat+/proc/***",
        "allow/read,readdir+/proc/***",
        "allow/write+/proc/self/fd/*",
    ]
    rules += [f"allow/{LOOK}+{path}{tail}" for path in system for tail in ("", "/***")]
    for path in ("/dev/null", "/dev/tty", "/dev/zero", "/dev/urandom"):
        rules += [f"allow/walk,stat,read,write,truncate+{path}"]
    for path in ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/localtime", "/etc/gitconfig", "/etc/inputrc"):
        rules += [f"allow/walk,stat,read+{path}"]
    for parent in (
        "/etc",
        "/dev",
        *map(str, work.parents),
        *(str(parent) for tool in tools for parent in Path(tool).parents),
    ):
        rules += [f"allow/walk,stat+{parent}"]
    return [*rules, f"allow/{EVERYTHING}+{work}", f"allow/{EVERYTHING}+{work}/***"]


@dataclass
class Workshop:
    """A place of work, and the two policies."""

    root: Path
    runner: Runner
    policy: str

    @classmethod
    def make(cls, runner: Runner, policy: str) -> Workshop:
        """A fresh one in a directory that every user can reach."""
        root = Path(tempfile.mkdtemp(prefix="real-"))
        root.chmod(0o777)
        return cls(root.resolve(), runner, policy)

    @property
    def work(self) -> Path:
        """Where the work is done, both times."""
        return self.root / "work"

    def rules(self, tools: Sequence[str] = ()) -> list[str]:
        """The policy under test."""
        chosen = allow_all() if self.policy == "everything" else tight(self.work, tools)
        return ["passenv+TMPDIR", *chosen]

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Home and temporary files stay within the place of work."""
        return {"HOME": str(self.work), "TMPDIR": str(self.work / "tmp"), **(extra or {})}

    def prepare(self, lay: Lay) -> None:
        """An empty place of work with what the work needs."""
        open_directory(self.work)
        open_directory(self.work / "tmp")
        if lay:
            lay(self.work)
        uid = self.runner.identity.uid
        if uid is None:
            return
        for path in [self.work, *self.work.rglob("*")]:
            os.chown(path, uid, uid, follow_symlinks=False)

    def native(self, command: Sequence[str], deadline: float = 120, lay: Lay = None, **how: Any) -> Made:
        """Do the work with the protection off, look at what came out, clear the place."""
        self.prepare(lay)
        env = self.environment(how.pop("env", None))
        outcome = self.runner.native(command, deadline, cwd=self.work, env=env, **how)
        found = tree(self.work)
        self.work.rename(self.root / "native")
        return outcome, found

    def boxed(
        self,
        command: Sequence[str],
        deadline: float = 240,
        lay: Lay = None,
        tools: Sequence[str] = (),
        **how: Any,
    ) -> Made:
        """The same work in the sandbox."""
        self.prepare(lay)
        env = self.environment(how.pop("env", None))
        outcome = self.runner.boxed(command, self.rules(tools), deadline, cwd=self.work, env=env, **how)
        return outcome, tree(self.work)

    def remove(self) -> None:
        """Clear everything away."""
        shutil.rmtree(self.root, ignore_errors=True)


def assert_same(native: Outcome, boxed: Outcome) -> None:
    """Status and both outputs."""
    assert native.status == 0, (native.status, native.out[-2000:], native.err[-2000:])
    assert (boxed.status, boxed.out, boxed.err) == (native.status, native.out, native.err), boxed.err[-3000:]


def assert_same_tree(native: dict[str, tuple[object, ...]], boxed: dict[str, tuple[object, ...]]) -> None:
    """Names, kinds, modes, sizes, contents."""
    assert native, "the native run left nothing: nothing was compared"
    different = {
        k: (native.get(k), boxed.get(k)) for k in native.keys() | boxed.keys() if native.get(k) != boxed.get(k)
    }
    assert not different, dict(list(different.items())[:20])
