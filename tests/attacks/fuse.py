"""A file system that does not answer: a FUSE server of a few files, <linux/fuse.h>, in a mount namespace of its own.

    python3 fuse.py DIRECTORY COMMAND...

mounts it on DIRECTORY, serves it from a child that ends with it, and runs COMMAND.  Whoever asks for a file whose name
begins with `stall-` waits: `stall-lookup` for its name, `stall-open` for a descriptor, `stall-read` for what is in it,
`stall-flush` when it is closed.  `fine` answers.  A FIFO DIRECTORY.let is made: once something is written to it
everything is answered.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import subprocess
import sys

LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 17, 18, 25, 26
OPENDIR, READDIR, RELEASEDIR, INTERRUPT, BATCH_FORGET = 27, 28, 29, 36, 42
NAMES = {2: b"fine", 3: b"stall-lookup", 4: b"stall-open", 5: b"stall-read", 6: b"stall-flush"}
STALLS = {LOOKUP: 3, OPEN: 4, READ: 5, FLUSH: 6}
TEXT = b"sandbox/mkdir:off\n"
SIZE = 65536
ENOENT, ENOSYS = 2, 38


def attributes(node: int) -> bytes:
    """struct fuse_attr"""
    mode, size = (0o40777, 0) if node == 1 else (0o100666, SIZE if node == 5 else len(TEXT))
    return struct.pack("QQQQQQIIIIIIIIII", node, size, 1, 0, 0, 0, 0, 0, 0, mode, 1, os.getuid(), 0, 0, 4096, 0)


def answer(opcode: int, node: int, body: bytes) -> tuple[int, bytes] | None:
    """(errno, what is answered); None: nothing is."""
    if opcode == INIT:
        _, minor, ahead, _ = struct.unpack_from("IIII", body)
        return 0, struct.pack("IIIIHHIIHHI28x", 7, min(minor, 31), ahead, 0, 12, 9, 65536, 1, 16, 0, 0)
    if opcode == LOOKUP:
        name = body.rstrip(b"\0")
        found = next((node for node, known in NAMES.items() if known == name), 0)
        if not found:
            return ENOENT, b""
        return 0, struct.pack("QQQQII", found, 0, 0, 0, 0, 0) + attributes(found)
    if opcode == GETATTR:
        return 0, struct.pack("QII", 0, 0, 0) + attributes(node)
    if opcode in (OPEN, OPENDIR):
        return 0, struct.pack("QII", 0, 2, 0)  # FOPEN_KEEP_CACHE: opening does not wait for a page that is being read
    if opcode == READ:
        _, offset, size = struct.unpack_from("QQI", body)
        return 0, (bytes(SIZE) if node == 5 else TEXT)[offset : offset + size]
    if opcode == STATFS:
        return 0, struct.pack("QQQQQIIII24x", 0, 0, 0, 0, 0, 4096, 255, 4096, 0)
    if opcode in (RELEASE, RELEASEDIR, FLUSH, READDIR):
        return 0, b""
    return ENOSYS, b""


def serve(device: int, let: int) -> None:
    """Until it is unmounted."""
    held: list[tuple[int, int, int, bytes]] = []
    stalling = True
    while True:
        ready = select.select([device, let], [], [])[0]
        if let in ready:
            os.read(let, 1)
            stalling = False
            for one in held:
                reply(device, *one)
            held.clear()
        if device not in ready:
            continue
        try:
            request = os.read(device, 1 << 20)
        except OSError:
            return
        _, opcode, unique, node = struct.unpack_from("IIQQ", request)
        body = request[40:]
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            continue
        asked = (opcode, unique, node, body)
        stalls = STALLS.get(opcode, 0)
        if stalling and stalls and (node == stalls or (opcode == LOOKUP and body.rstrip(b"\0") == NAMES[3])):
            held.append(asked)
        else:
            reply(device, *asked)


def reply(device: int, opcode: int, unique: int, node: int, body: bytes) -> None:
    """struct fuse_out_header and what follows; who asked may have gone."""
    said = answer(opcode, node, body)
    assert said is not None
    try:
        os.write(device, struct.pack("IiQ", 16 + len(said[1]), -said[0], unique) + said[1])
    except FileNotFoundError:
        pass


def main() -> None:
    directory, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000) or libc.mount(b"none", b"/", None, 0x44000, None):  # CLONE_NEWNS; MS_REC | MS_PRIVATE
        sys.exit("no mount namespace")
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = b"fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % device
    if libc.mount(b"none", directory.encode(), b"fuse", 0, options):
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    os.mkfifo(directory + ".let")
    let = os.open(directory + ".let", os.O_RDWR | os.O_CLOEXEC)
    server = os.fork()
    if not server:
        libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG
        serve(device, let)
        os._exit(0)
    os.close(device)
    status = subprocess.run(command, check=False).returncode
    os.kill(server, 9)  # whoever still waits gets ENOTCONN
    os.waitpid(server, 0)
    os._exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
