"""Who connected: what workers say of the connections that they make, kept where every worker can read it.

The page (shm/peers.py) is of fixed size.  An entry whose socket is closed makes room; where a bucket is full of
open ones the oldest goes, and its peer is told pid 0 from then on.
"""

from __future__ import annotations

from syd_pool.linux.numbers import NR
from syd_pool.linux.unix_diag import look, open_diag
from syd_pool.shm import peers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.tracer.state import Run


def page(run: Run) -> int:
    """The page's memfd, for a worker that is being born; -1 where connect(2) is native."""
    if NR["getsockopt"] not in run.handlers:
        return -1
    if run.peers is None:
        run.peers = peers.create_peers()
    return run.peers.fd


def mark(run: Run, pid: int) -> None:
    """A worker has been forked: it connects for others, and its number is not to be told."""
    if run.peers is not None:
        peers.mark_ours(run.peers, pid)


def note(run: Run, tgid: int, cookie: int, identity: int, inode: int) -> None:
    """The socket with this cookie and inode is connected for thread group `tgid`."""
    if run.peers is None:
        return
    where = peers.entries(cookie)
    words = run.peers.q
    at = next((at for at in where if words[at + peers.COOKIE] in (0, cookie)), None)
    if at is None:
        at = next((at for at in where if not _open(run, at)), None)
    if at is None:  # the kernel counts cookies up, by processors
        at = min(where, key=lambda at: words[at + peers.COOKIE])
    peers.store(run.peers, at, cookie, tgid, identity, inode)


def _open(run: Run, at: int) -> bool:
    """Is the socket of this entry still there?"""
    assert run.peers is not None
    if run.diag < 0:
        try:
            run.diag = open_diag()
        except OSError:
            return True
    words = run.peers.q
    return look(run.diag, words[at + peers.INODE] & 0xFFFFFFFF, words[at + peers.COOKIE]) is not None
