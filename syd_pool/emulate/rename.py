"""rename(2), renameat(2), renameat2(2).

What is judged (measured on syd 3.52.0, one category on at a time):

    source        rename, with RENAME_WHITEOUT also mkcdev (a whiteout is a character device)
    destination   create, and delete when it exists

RENAME_EXCHANGE judges rename, create and delete on *both* names: each is taken away and made anew.  syd
asks only `rename` of the first; that would put a file where creating one is denied (C8).
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT

from syd_pool.emulate.call import AT_FDCWD
from syd_pool.emulate.kept import protect, protect_name
from syd_pool.emulate.names import spot
from syd_pool.linux.libc import raw_renameat2
from syd_pool.policy.actions import WARN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call, Found

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

# flags without NOREPLACE -> categories of the source, of the destination
_CATEGORIES = {
    0: (("rename",), ("create", "delete")),
    RENAME_WHITEOUT: (("rename", "mkcdev"), ("create", "delete")),
    RENAME_EXCHANGE: (("rename", "create", "delete"), ("rename", "create", "delete")),
}


def rename(call: Call) -> int:
    """rename(old, new)"""
    return _rename(call, AT_FDCWD, call.args[0], AT_FDCWD, call.args[1], 0)


def renameat(call: Call) -> int:
    """renameat(olddirfd, old, newdirfd, new)"""
    return _rename(call, call.fd(0), call.args[1], call.fd(2), call.args[3], 0)


def renameat2(call: Call) -> int:
    """renameat2(olddirfd, old, newdirfd, new, flags)"""
    return _rename(call, call.fd(0), call.args[1], call.fd(2), call.args[3], call.int(4))


def _rename(call: Call, olddir: int, old_address: int, newdir: int, new_address: int, flags: int) -> int:
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT):
        return -EINVAL
    if flags & RENAME_EXCHANGE and flags != RENAME_EXCHANGE:
        return -EINVAL
    old = call.string(old_address)
    source = call.entry(call, olddir, old, 0)
    verdicts = call.rules.verdicts
    if verdicts["stat"][source.path]:
        call.judge("stat", source.path)
    new = call.string(new_address)
    dest = call.entry(call, newdir, new, 0)
    if verdicts["stat"][dest.path]:
        call.judge("stat", dest.path)
    refused = _judge(call, source, dest, flags) or (_protected(call, source, dest, flags) if call.rules.kept else 0)
    if refused:
        return refused
    before, old_name = spot(source, old)
    after, new_name = spot(dest, new)
    # A name that is not there may appear before the kernel looks; if the rules protect it, it must survive.
    spare = not flags & RENAME_EXCHANGE and dest.fd < 0 and verdicts["delete"][dest.path] > WARN
    call.valid()
    call.begin_effect()
    result = raw_renameat2(before, old_name, after, new_name, flags | RENAME_NOREPLACE if spare else flags)
    if result == -EEXIST and spare and not flags & RENAME_NOREPLACE:
        call.judge("delete", dest.path)
    return result


def _protected(call: Call, source: Found, dest: Found, flags: int) -> int:
    """0, or -errno as in _judge(), where masked and append-only names are involved.  Raises OSError EPERM."""
    if not source.name or not dest.name:
        return 0
    if source.fd < 0:
        return -ENOENT
    if flags & RENAME_NOREPLACE and dest.fd >= 0:
        return -EEXIST
    protect_name(call, source.path)
    if flags & RENAME_EXCHANGE:
        protect_name(call, dest.path)
    else:
        protect(call, dest.path)
    return 0


def _judge(call: Call, source: Found, dest: Found, flags: int) -> int:
    """0, or -errno for what would fail natively before the rules matter.  Raises OSError when they refuse."""
    of_source, of_dest = _CATEGORIES[flags & ~RENAME_NOREPLACE]
    verdicts = call.rules.verdicts
    if not any([verdicts[c][source.path] for c in of_source] + [verdicts[c][dest.path] for c in of_dest]):
        return 0
    if not source.name or not dest.name:
        return 0  # ".", ".." and "/" cannot be renamed: the kernel refuses
    if source.fd < 0:
        return -ENOENT
    if flags & RENAME_NOREPLACE and dest.fd >= 0:
        return -EEXIST
    if flags & RENAME_EXCHANGE and dest.fd < 0:
        return -ENOENT
    for category in of_source:
        call.judge(category, source.path)
    for category in of_dest:
        if category != "delete" or dest.fd >= 0:
            call.judge(category, dest.path)
    return 0
