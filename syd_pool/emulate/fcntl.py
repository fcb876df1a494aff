"""fcntl(2) F_SETFL that leaves O_APPEND away: EPERM on an append-only file (syd(2), append).

Only this is notified.  It is performed on a duplicate, which shares its flags with the caller's descriptor, so
nothing can be put under it (I5).  While nothing is append-only it is continued: there is nothing to judge.
With O_ASYNC the si_fd of a SIGIO may be another number than natively.
"""

from __future__ import annotations

import os
from errno import EBADF
from fcntl import F_GETFL, F_SETFL, fcntl

from syd_pool.emulate.kept import protect_growth
from syd_pool.emulate.paths import shown, text_of
from syd_pool.linux.libc import O_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call


def setfl(call: Call) -> int | None:
    """fcntl(fd, F_SETFL, flags) without O_APPEND in the flags"""
    if call.rules.appended is None:
        call.valid()
        call.resume()
        return None
    own = call.own_fd(call.fd(0))
    before = fcntl(own, F_GETFL)
    if before & O_PATH:
        return -EBADF
    if before & os.O_APPEND and before & os.O_ACCMODE:
        text = shown(text_of(own), call.tgid)
        if text[:1] == b"/":
            protect_growth(call, text)
    call.valid()
    call.begin_effect()
    fcntl(own, F_SETFL, call.fd(2))
    return 0
