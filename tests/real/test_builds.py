"""(b) C extensions built with make and setuptools; (d) npm, go, cargo."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from arena import Outcome, syd_differs
from workshop import Workshop, assert_same

PYTHON = "/usr/bin/python3"
SDIST = "markupsafe==2.1.5"

MODULE = """#include <Python.h>
int part%d(int);
%s
static PyObject *run(PyObject *self, PyObject *args) { int x = 0; %s return PyLong_FromLong(x); }
static PyMethodDef methods[] = {{"run", run, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "parts", "", -1, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_parts(void) { return PyModule_Create(&module); }
"""
PARTS = 4
MAKEFILE = """CFLAGS = -O1 -fPIC -I/usr/include/python3.11
OBJECTS = main.o %s
parts.so: $(OBJECTS)
\t@$(CC) -shared -o $@ $(OBJECTS)
%%.o: %%.c
\t@$(CC) $(CFLAGS) -c -o $@ $<
"""


def lay_extension(work: Path) -> None:
    """A C extension of several files, a Makefile and a setup.py."""
    names = [f"part{i}" for i in range(PARTS)]
    for i, name in enumerate(names):
        (work / f"{name}.c").write_text(f"int part{i}(int x) {{ return x + {i + 1}; }}\n")
    declared = "".join(f"int {name}(int);" for name in names)
    called = "".join(f"x = {name}(x);" for name in names)
    (work / "main.c").write_text(MODULE % (0, declared, called))
    (work / "Makefile").write_text(MAKEFILE % " ".join(f"{name}.o" for name in names))
    sources = [f"{name}.c" for name in ("main", *names)]
    (work / "setup.py").write_text(
        f"from setuptools import setup, Extension\nsetup(name='parts', ext_modules=[Extension('parts', {sources!r})])\n"
    )


def headers() -> None:
    """Skip without a system Python that can build extensions."""
    if not os.path.exists("/usr/include/python3.11/Python.h"):
        pytest.skip("no headers of the system's Python")
    if not shutil.which("make"):
        pytest.skip("no make")


IMPORT = f"{PYTHON} -I -c 'import sys; sys.path.insert(0, \".\"); import parts; print(parts.run())'"


def build(workshop: Workshop, script: str, lay: Callable[[Path], None], deadline: float = 300) -> Outcome:
    """Both times; the status and the last line."""
    command = ["/bin/sh", "-ec", script]
    native, _ = workshop.native(command, deadline, lay=lay)
    boxed, _ = workshop.boxed(command, 3 * deadline, lay=lay)
    assert native.status == 0, native.err[-2000:]
    with syd_differs("kills make's set-id calls as root"):
        assert boxed.status == 0, (boxed.out[-2000:], boxed.err[-2000:])
    assert boxed.out.splitlines()[-1:] == native.out.splitlines()[-1:]
    return boxed


def test_extension_with_make(workshop: Workshop) -> None:
    """(b) a C extension built by make -j4, then imported."""
    headers()
    outcome = build(workshop, f"make -s -j4; {IMPORT}", lay_extension)
    assert outcome.out.splitlines()[-1] == str(sum(range(1, PARTS + 1)))


@pytest.mark.slow
def test_extension_with_setuptools(workshop: Workshop) -> None:
    """(b) the same by setuptools -j."""
    headers()
    if subprocess.run([PYTHON, "-c", "import setuptools"], capture_output=True).returncode:
        pytest.skip("the system's Python has no setuptools")
    build(workshop, f"{PYTHON} setup.py -q build_ext -j2 --inplace; {IMPORT}", lay_extension)


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution with a C extension from PyPI, fetched once, outside the sandbox."""
    where = tmp_path_factory.mktemp("sdist")
    command = [
        "pip",
        "download",
        "-q",
        "--no-binary",
        ":all:",
        "--no-deps",
        "-d",
        str(where),
        SDIST,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"no sdist: {error}")
    files = list(where.glob("*.tar.gz"))
    if done.returncode or not files:
        pytest.skip(f"no sdist: {done.stderr[-200:]}")
    return files[0]


@pytest.mark.slow
def test_sdist(workshop: Workshop, sdist: Path) -> None:
    """(b) an sdist from PyPI built with gcc under setuptools -j, then imported."""
    headers()

    def lay(work: Path) -> None:
        subprocess.run(["tar", "--no-same-owner", "-xf", str(sdist), "-C", str(work)], check=True)
        next(work.glob("[mM]arkup*")).rename(work / "source")

    check = "from markupsafe import _speedups; print(_speedups.escape('<a&b>'))"
    script = f'cd source; {PYTHON} setup.py -q build_ext -j2 --inplace >log 2>&1; cd src; {PYTHON} -c "{check}"'
    outcome = build(workshop, script, lay)
    assert outcome.out.splitlines()[-1] == "&lt;a&amp;b&gt;"


def tool(name: str, extra: str, workshop: Workshop) -> str:
    """A tool, if the identity can run it."""
    path = shutil.which(name) or extra
    if not os.path.exists(path):
        pytest.skip(f"no {name}")
    real = os.path.realpath(path)
    if workshop.runner.identity.uid is not None and real.startswith("/root/"):
        pytest.skip(f"{name} lies in root's home, where uid {workshop.runner.identity.uid} cannot go")
    return path


LIMITED = {
    "GOMAXPROCS": "2",
    "GOTOOLCHAIN": "local",
    "GOFLAGS": "-mod=mod",
    "GOPROXY": "off",
    "CARGO_NET_OFFLINE": "true",
}


@pytest.mark.slow
def test_go(workshop: Workshop) -> None:
    """(d) go prints its version and builds a hello-world offline, which runs."""
    go = tool("go", "/usr/local/go/bin/go", workshop)
    home = str(Path(go).resolve().parents[1])

    def lay(work: Path) -> None:
        (work / "main.go").write_text('package main\n\nfunc main() { println("hello from go") }\n')
        (work / "go.mod").write_text("module hello\n\ngo 1.20\n")

    env = {**LIMITED, "GOCACHE": str(workshop.work / "cache"), "GOPATH": str(workshop.work / "go"), "GOROOT": home}
    command = ["/bin/sh", "-ec", f"{go} version; {go} build -o hello .; ./hello 2>&1"]
    native, _ = workshop.native(command, 300, lay=lay, env=env)
    boxed, _ = workshop.boxed(command, 600, lay=lay, env=env, tools=[home, "/sys"])
    assert_same(native, boxed)
    assert "hello from go" in boxed.out


@pytest.mark.slow
def test_cargo(workshop: Workshop) -> None:
    """(d) cargo prints its version and builds a hello-world offline, which runs."""
    cargo = tool("cargo", "/root/.cargo/bin/cargo", workshop)
    sysroot = subprocess.run([Path(cargo).with_name("rustc"), "--print", "sysroot"], capture_output=True, text=True)
    if sysroot.returncode:
        pytest.skip("no rust toolchain behind cargo")
    bin_ = f"{sysroot.stdout.strip()}/bin"

    def lay(work: Path) -> None:
        (work / "src").mkdir()
        (work / "src" / "main.rs").write_text('fn main() { println!("hello from rust"); }\n')
        (work / "Cargo.toml").write_text('[package]\nname = "hello"\nversion = "0.1.0"\nedition = "2021"\n')

    env = {**LIMITED, "CARGO_HOME": str(workshop.work / "cargo"), "RUSTC": f"{bin_}/rustc", "CARGO_BUILD_JOBS": "2"}
    command = ["/bin/sh", "-ec", f"{bin_}/cargo --version; {bin_}/cargo build -q --offline; target/debug/hello"]
    native, _ = workshop.native(command, 300, lay=lay, env=env)
    tools = [sysroot.stdout.strip(), *map(str, Path(sysroot.stdout.strip()).parents), "/sys"][:-1]
    boxed, _ = workshop.boxed(command, 600, lay=lay, env=env, tools=[t for t in tools if t != "/"])
    assert_same(native, boxed)
    assert "hello from rust" in boxed.out


@pytest.mark.slow
def test_npm(workshop: Workshop) -> None:
    """(d) npm prints its version and installs and runs a local package offline."""
    npm = tool("npm", "/usr/bin/npm", workshop)

    def lay(work: Path) -> None:
        (work / "hello").mkdir()
        (work / "hello" / "package.json").write_text('{"name": "hello", "version": "1.0.0", "main": "index.js"}')
        (work / "hello" / "index.js").write_text('module.exports = "hello from npm";')
        (work / "package.json").write_text(
            '{"name": "top", "version": "1.0.0", "dependencies": {"hello": "file:./hello"},'
            ' "scripts": {"start": "node -p \\"require(\'hello\')\\""}}'
        )

    env = {
        "npm_config_cache": str(workshop.work / "cache"),
        "npm_config_offline": "true",
        "npm_config_update_notifier": "false",
    }
    script = f"{npm} --version; {npm} install --silent --no-audit --no-fund; {npm} run --silent start"
    command = ["/bin/sh", "-ec", script]
    native, _ = workshop.native(command, 120, lay=lay, env=env)
    # a compiler at run time (MDWE)
    lifted = ["-mtrace/allow_unsafe_exec_memory:1"]
    boxed, _ = workshop.boxed(command, 300, lay=lay, env=env, tools=["/sys"], options=lifted)
    with syd_differs("node needs writable and executable memory"):
        assert_same(native, boxed)
    assert "hello from npm" in boxed.out
