"""The shape of the house: what may import what, and what the start of a command may cost in imports."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "syd_pool"

# design.md section 6: arrows of import point left only
MAY_IMPORT = {
    "linux": set(),
    "shm": {"linux"},
    "policy": {"linux"},
    "emulate": {"linux", "shm", "policy"},
    "worker": {"linux", "shm", "policy", "emulate"},
    "boundary": {"linux", "policy", "emulate"},
    "tracer": {"linux", "shm", "policy", "emulate", "worker", "boundary", "monitor"},
    "monitor": {"linux", "shm"},
    "cli": {"linux", "shm", "policy", "emulate", "boundary", "tracer", "monitor"},
}

# Modules whose import costs milliseconds: not in front of a command (style.md, "Costs to know")
SLOW = {
    "argparse", "asyncio", "dataclasses", "enum", "inspect", "json", "logging", "pathlib", "psutil", "orjson",
    "ptrace", "pyseccomp", "re", "seccomp", "signal", "socket", "subprocess", "tempfile", "threading", "typing",
}  # fmt: skip


def imports(path: Path) -> list[tuple[str, int]]:
    """(module, line) of every import that runs; those under TYPE_CHECKING do not."""
    found: list[tuple[str, int]] = []

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                found.append((child.module, child.lineno))
            walk(child)

    walk(ast.parse(path.read_text()))
    return found


def room(module: str) -> str | None:
    """The package of ours that `module` belongs to."""
    parts = module.split(".")
    if parts[0] == "monitor":
        return "monitor"
    return parts[1] if parts[0] == "syd_pool" and len(parts) > 1 else None


def sources() -> list[Path]:
    return sorted([*PACKAGE.rglob("*.py"), *(ROOT / "monitor").rglob("*.py")])


def test_imports_point_left() -> None:
    """No package imports from its right; one that is not in the plan has no room."""
    wrong = []
    for path in sources():
        relative = path.relative_to(ROOT)
        own = "monitor" if relative.parts[0] == "monitor" else relative.parts[1]
        if own == "__init__.py":
            continue
        assert own in MAY_IMPORT, f"{relative}: a room that the plan does not know"
        for module, line in imports(path):
            other = room(module)
            if other and other != own and other not in MAY_IMPORT[own]:
                wrong.append(f"{relative}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_import_direction_can_fail(tmp_path: Path) -> None:
    """The control: an import to the right is seen."""
    bad = tmp_path / "x.py"
    bad.write_text("from syd_pool.tracer import run\n")
    assert [(room(m), line) for m, line in imports(bad)] == [("tracer", 1)]


def loaded(code: str) -> set[str]:
    """Top-level modules that are loaded after `code` under `python -I -S`, as a command is started."""
    program = (
        f"import sys; before=set(sys.modules); sys.path[:0]=[{str(ROOT)!r}]; {code}; print(*(set(sys.modules)-before))"
    )
    out = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in out.stdout.split()}


@pytest.mark.parametrize(
    "code",
    ["import syd_pool.cli.main, syd_pool.cli.run, syd_pool.tracer.run", "import syd_pool.worker.main"],
    ids=["start path", "worker"],
)
def test_start_path_is_light(code: str) -> None:
    """In front of every command nothing slow is imported."""
    assert not loaded(code) & SLOW


def test_start_path_control() -> None:
    """The control: an import of something slow is noticed."""
    assert "json" in loaded("import json")


def test_python_ptrace_has_one_door() -> None:
    """python-ptrace is GPL-2.0-only: one module of the tracer imports it, and late."""
    users = [p.relative_to(ROOT) for p in sources() if any(m.split(".")[0] == "ptrace" for m, _ in imports(p))]
    assert users == [Path("syd_pool/tracer/diagnose.py")]


def test_continue_is_built_once() -> None:
    """I5, A2: the flag of CONTINUE appears in one function; its list gives a reason for every call."""
    from syd_pool.emulate.table import CONTINUE

    users = [
        p.name for p in sources() if "SECCOMP_USER_NOTIF_FLAG_CONTINUE" in p.read_text() and p.parent.name != "linux"
    ]
    assert users == ["resume.py"]
    assert all(reason for reason in CONTINUE.values())


def test_the_core_does_not_sleep() -> None:
    """No time.sleep() on the way of a call but the one that waits for the tracer's own time."""
    sleepers = [str(path.relative_to(ROOT)) for path in sources() if re.search(r"\b\w*sleep\(", path.read_text())]
    assert sleepers == ["syd_pool/worker/caller.py"]


def test_house_runs_from_anywhere(tmp_path: Path) -> None:
    """The package does not depend on the working directory."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run([ROOT / "scripts" / "syd", "-V"], cwd=tmp_path, env=env, capture_output=True, timeout=60)
    assert done.returncode == 0
