"""Make the environment of this work tree: .venv, with what pyproject.toml asks for.  Called by scripts/venv.

Two starts at the same time do not race: the work is done under a lock on the root folder, and the stamp
that the launchers look for (.venv/ready, .venv/ready-dev) is written last.
"""

import compileall
import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"


def fresh(stamp: Path) -> bool:
    """Is the environment complete, and not older than what it was made from?"""
    if not stamp.exists() or not os.access(VENV / "bin/python", os.X_OK):
        return False
    return stamp.stat().st_mtime >= (ROOT / "pyproject.toml").stat().st_mtime


def usable() -> bool:
    """Can an environment that we may not bring up to date still be used?"""
    return (VENV / "ready").exists() and os.access(VENV / "bin/python", os.X_OK)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold flock(2) on the root folder: no file to leave behind, and it ends with the process."""
    fd = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def step(*command: str) -> None:
    """Run one step quietly; if it fails, show what it said and end."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\nsyd-pool: this failed: {' '.join(command)}\n{hint(done.stdout)}")


def hint(output: str) -> str:
    """What to do about the failures that users meet."""
    if "ensurepip" in output:
        return "Python lacks its venv module; on Debian and Ubuntu: apt install python3-venv"
    return "Is there a network (pip reaches PyPI) and room on the disk?"


def make(extra: str) -> None:
    """Environment, packages, byte code (so that users who may not write here start fast, too)."""
    if not os.access(VENV / "bin/python", os.X_OK):
        step(sys.executable, "-m", "venv", "--clear", str(VENV))
    wanted = f"{ROOT}[{extra}]" if extra else str(ROOT)
    step(str(VENV / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-e", wanted)
    for package in ("syd_pool", "monitor"):
        compileall.compile_dir(ROOT / package, quiet=2)


def main() -> None:
    extra = sys.argv[1] if len(sys.argv) > 1 else ""
    stamp = VENV / f"ready-{extra}" if extra else VENV / "ready"
    if fresh(stamp):
        return
    if not os.access(ROOT, os.W_OK) or (VENV.exists() and not os.access(VENV, os.W_OK)):
        if usable() and not extra:
            return
        sys.exit(f"syd-pool: {VENV} is missing or out of date, and you may not write there")
    with locked():
        if fresh(stamp):
            return
        print("syd-pool: making its environment in .venv (once, less than a minute)", file=sys.stderr)
        made_from = (ROOT / "pyproject.toml").stat().st_mtime_ns
        os.umask(0o022)  # other users' sandboxes read it
        make(extra)
        for done in {stamp, VENV / "ready"}:
            done.touch()
            os.utime(done, ns=(made_from, made_from))


if __name__ == "__main__":
    main()
