"""chroot(2): category `chroot`.

Never performed: workers resolve paths in their own root, which must stay the caller's.  As in syd an allowed
one closes the file system to the whole run instead, whatever the directory, because a daemon that does this
means to have no files any more: from then on every category that is on refuses every path, a second chroot
too, and only `chdir /` is left.  A category that is off refuses nothing, so the root then is what it was.
"""

from __future__ import annotations

import os
from errno import ENOTDIR
from stat import S_ISDIR

from syd_pool.emulate.call import AT_FDCWD, FOLLOW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call


def chroot(call: Call) -> None:
    """chroot(path)"""
    found = call.find(call, AT_FDCWD, call.string(call.args[0]), FOLLOW)
    if call.rules.verdicts["stat"][found.path]:
        call.judge("stat", found.path)
    if not S_ISDIR(os.fstat(found.fd).st_mode):
        raise OSError(ENOTDIR, os.strerror(ENOTDIR), found.path)
    call.judge("chroot", found.path)
    call.note_chroot()
