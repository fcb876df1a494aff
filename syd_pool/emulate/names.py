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
        if at.fd >= 0:
            return -EEXIST
        call.judge(category, path)
    return 0


def may_remove(call: Call, at: Found, category: str) -> int:
    """May the name at `at` be removed?  0, or -ENOENT.  Raises OSError when the rules refuse."""
    verdicts = call.rules.verdicts
    path = at.path
    if verdicts["stat"][path]:
        call.judge("stat", path)
    if verdicts[category][path]:
        if at.fd < 0:
            return -ENOENT
        call.judge(category, path)
    return 0


def spot(at: Found, path: bytes) -> tuple[int, bytes]:
    """(directory, last component) for the *at calls; `path` is what the caller wrote.

    A path without a last component ("/", ".", "..") becomes "." of the directory it names, which the
    kernel refuses to make, remove or move just as it refuses the original: it never has an effect.
    """
    if not at.name:
        return at.fd, b"."
    return at.parent, at.name + b"/" if path.endswith(b"/") else at.name
