"""(a) git, (c) tar, xz, cp and rm: trees come out as natively."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from arena import syd_differs
from workshop import Workshop, assert_same, assert_same_tree

GIT = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_AUTHOR_DATE": "2020-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "c", "GIT_COMMITTER_EMAIL": "c@example.org", "GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z",
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_PAGER": "cat",
}  # fmt: skip

GIT_SCRIPT = """set -e
commits=$1 files=$2
git -c init.defaultBranch=main init -q repo
cd repo
git config pack.threads 1; git config gc.auto 0; git config core.fsync none
i=0
while [ $i -lt $files ]; do mkdir -p d$((i % 20)); echo "file $i" > d$((i % 20))/f$i; i=$((i+1)); done
git add .; git commit -q -m files
i=0
while [ $i -lt $commits ]; do echo "line $i" >> log; git add log; git commit -q -m "commit $i"; i=$((i+1)); done
git checkout -q -b side; echo side > side; git add side; git commit -q -m side
git checkout -q main; echo main > only-main; git add only-main; git commit -q -m main
git merge -q --no-edit side
git mv log journal; git rm -q d0/f0; git commit -q -m move
git log --format='%H %s' | tail -3; git rev-parse HEAD; git rev-list --count HEAD
git repack -q -a -d
cd ..
git clone -q --no-hardlinks repo copy
cd copy; git fsck --strict; git status --short; git diff HEAD~2 --stat; git ls-files | wc -l; git rev-parse HEAD
"""


def git_tree(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Without what holds times and inode numbers."""
    return {name: entry for name, entry in found.items() if not name.endswith(".git/index")}


def git(workshop: Workshop, commits: int, files: int) -> None:
    """The same history, the same clone, the same files, natively and in the sandbox."""
    if not shutil.which("git"):
        pytest.skip("no git")
    command = ["/bin/sh", "-c", GIT_SCRIPT, "sh", str(commits), str(files)]
    native, expected = workshop.native(command, 240, env=GIT)
    boxed, found = workshop.boxed(command, 900, env=GIT)
    assert_same(native, boxed)
    assert_same_tree(git_tree(expected), git_tree(found))


def test_git(workshop: Workshop) -> None:
    """(a) git: init, commits, branch, merge, clone, fsck; small."""
    git(workshop, 3, 20)


@pytest.mark.slow
def test_git_large(workshop: Workshop) -> None:
    """(a) git: 200 commits and a clone of 1,000 files."""
    git(workshop, 200, 1000)


def lay_files(count: int) -> Callable[[Path], None]:
    """COUNT files of many shapes, with links, modes and odd names."""

    def lay(work: Path) -> None:
        source = work / "source"
        for i in range(count):
            directory = source / f"d{i % 17}" / f"e{i % 5}"
            directory.mkdir(parents=True, exist_ok=True)
            path = directory / f"f{i}"
            path.write_bytes(bytes([i % 251]) * (i * 37 % 5000))
            path.chmod((0o644, 0o600, 0o755, 0o444)[i % 4])
            if i % 10 == 0:
                (directory / f"link{i}").symlink_to(f"f{i}" if i % 20 else "nowhere/at all")
            if i % 25 == 0:
                (directory / f"hard{i}").hardlink_to(path)
        (source / "name with \u00fc and\nnewline").write_text("odd")
        (source / ("n" * 200)).write_text("long")
        (source / "empty").mkdir()

    return lay


TREE_SCRIPT = """set -e
cp -a source copy
tar -cf one.tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner source
xz -0 -k -T1 one.tar; xz -t one.tar.xz; xz -dc one.tar.xz | cmp - one.tar
mkdir out; tar -xf one.tar.xz -C out --no-same-owner
diff -r --no-dereference source out/source
diff -r --no-dereference source copy
find out copy -name 'f*[13]' | sort | head -5
find source | wc -l; find source -type l | wc -l; find copy -type f -links +1 | wc -l
mv out/source moved; ln -s moved pointer; ls pointer/ | wc -l
rm -r copy; rm -rf moved/d1; du -a --apparent-size moved | wc -l; ls
"""


def trees(workshop: Workshop, count: int) -> None:
    """The same archive to the byte, the same trees."""
    command = ["/bin/sh", "-c", TREE_SCRIPT]
    native, expected = workshop.native(command, 240, lay=lay_files(count))
    boxed, found = workshop.boxed(command, 900, lay=lay_files(count))
    with syd_differs("as root its capabilities are dropped, and cp and tar may not restore owners"):
        assert_same(native, boxed)
    assert_same_tree(expected, found)


def test_trees(workshop: Workshop) -> None:
    """(c) tar, xz, cp -a, mv, rm -r, find, diff, du of a small tree."""
    trees(workshop, 120)


@pytest.mark.slow
def test_trees_large(workshop: Workshop) -> None:
    """(c) the same of 5,000 files."""
    trees(workshop, 5000)
