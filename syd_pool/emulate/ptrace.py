"""ptrace(2), of which only PTRACE_TRACEME comes here: the filter makes every other request a no-op that succeeds.

With trace/allow_unsafe_ptrace the other requests are native where Landlock keeps them inside the sandbox (Linux
6.12), and so is this one, but for children of ours: we must not become anybody's tracer without knowing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.emulate.call import Call


def traceme(call: Call) -> None:
    """ptrace(PTRACE_TRACEME): 0 the first time a thread asks and EPERM from then on, as without a tracer.

    syd(7), Enhanced Handling of PTRACE_TRACEME: whoever asks to find out whether he is traced learns nothing.
    """
    call.note_traceme()
