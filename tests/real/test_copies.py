"""Files of which a program gets a copy in memory: tools must not notice."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

SYD = Path(__file__).resolve().parents[2] / "scripts" / "syd"
LOOKED_AT = ["-poff", "-msandbox/all:on", "-mallow/all+/***"]
IDENTITY = "0123456789abcdef" * 8


def sh(script: str, *options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """sh -ec script in a run with a known id."""
    return subprocess.run(
        [str(SYD), *options, "--", "/bin/sh", "-ec", script],
        cwd=cwd, env={"PATH": "/usr/bin:/bin", "SYD_ID": IDENTITY},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("options", [["-poff"], LOOKED_AT], ids=["native-stat", "our-stat"])
def test_status_hides_the_sandbox(tmp_path: Path, options: list[str]) -> None:
    """By default nothing of it is seen; with the option all is."""
    script = "grep -E '^(TracerPid|NoNewPrivs|Seccomp|Seccomp_filters):' /proc/self/status"
    shown = dict(re.findall(r"^(\w+):\s*(\d+)$", sh(script, *options, cwd=tmp_path).stdout, re.M))
    assert shown == {"TracerPid": "0", "NoNewPrivs": "0", "Seccomp": "0", "Seccomp_filters": "0"}
    lifted = sh(script, *options, "-mtrace/allow_unsafe_proc_pid_status:1", cwd=tmp_path).stdout
    assert "0" not in dict(re.findall(r"^(\w+):\s*(\d+)$", lifted, re.M)).values(), "control"


def test_cp_and_readlink(tmp_path: Path) -> None:
    """cp(1) compares what it looked at with what it opened; the name of what is open is the file's."""
    script = "cp /proc/self/status s; grep -q ^Name: s; exec 9</proc/self/status; readlink /proc/self/fd/9; echo $$"
    done = sh(script, *LOOKED_AT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    name, pid = done.stdout.split()
    assert name == f"/proc/{pid}/status"


@pytest.mark.skipif(not Path("/etc/machine-id").exists(), reason="no machine id here")
def test_machine_id(tmp_path: Path) -> None:
    """The first 32 digits of SYD_ID, also for cp(1) and readlink(1)."""
    script = "cat /etc/machine-id; cp /etc/machine-id m; cat m; exec 9</etc/machine-id; readlink /proc/self/fd/9"
    done = sh(script, *LOOKED_AT, cwd=tmp_path)
    assert done.stdout.split() == [IDENTITY[:32], IDENTITY[:32], "/etc/machine-id"], done.stderr
    done = sh("cat /etc/machine-id", "-poff", "-mtrace/allow_unsafe_machine_id:1", cwd=tmp_path)
    assert done.stdout == Path("/etc/machine-id").read_text(), "control"
