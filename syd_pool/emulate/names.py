"""What the calls that make, remove or move a name have in common.

A name is always handled as (held directory, last component): the directory is the one the judged path
led to, and a last component holds no slash, so nothing can be put under the call between the judgement
and the effect.  The kernel sees the last component as the caller spelled it, trailing slash included,
and so gives the errno it would have given the caller.

The order of the checks is that of syd 3 (measured on syd 3.52.0, one denied directory, all categories):
  1. `stat` on the name: hidden is ENOENT, whether the name exists or not (C7)
  2. what exists already or is missing: EEXIST, ENOENT, as natively
  3. the call's own category: EACCES
Only a denied name pays for step 2: where the rules allow, the kernel tells.
"""

from __future__ import annotations

from errno import EEXIST, ENOENT

from syd_pool.emulate.kept import is_kept, protect
from syd_pool.emulate.paths import HOW_LINK
from syd_pool.linux.libc import raw_openat2_how

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call, Found


def may_make(call: Call, at: Found, category: str) -> int:
    """May a name be made at `at`?  0, or -EEXIST.  Raises OSError when the rules refuse."""
    verdicts = call.rules.verdicts
    path = at.path
    if verdicts["stat"][path]:
        call.judge("stat", path)
    if verdicts[category][path]:
        if exists(call, at):
            return -EEXIST
        call.judge(category, path)
    if call.rules.kept and category == "create" and is_kept(call, path):  # a link or a node, not by open(2)
        if exists(call, at):
            return -EEXIST
        protect(call, path)
    return 0


def may_remove(call: Call, at: Found, category: str) -> int:
    """May the name at `at` be removed?  0, or -ENOENT.  Raises OSError when the rules refuse."""
    verdicts = call.rules.verdicts
    path = at.path
    if verdicts["stat"][path]:
        call.judge("stat", path)
    if verdicts[category][path]:
        if not exists(call, at):
            return -ENOENT
        call.judge(category, path)
    if call.rules.kept and is_kept(call, path) and category == "delete":
        if not exists(call, at):
            return -ENOENT
        protect(call, path)
    return 0


def exists(call: Call, at: Found) -> bool:
    """Is there anything at `at`?  Looked up now if entry() did not."""
    if at.fd < 0 and at.parent >= 0:
        fd = raw_openat2_how(at.parent, at.name, HOW_LINK)
        if fd >= 0:
            at.fd = call.keep(fd)
    return at.fd >= 0


def spot(at: Found, path: bytes) -> tuple[int, bytes]:
    """(directory, last component) for the *at calls; `path` is what the caller wrote.

    A path without a last component ("/", ".", "..") becomes "." of the directory it names, which the
    kernel refuses to make, remove or move just as it refuses the original: it never has an effect.
    """
    if not at.name:
        return at.fd, b"."
    return at.parent, at.name + b"/" if path.endswith(b"/") else at.name
