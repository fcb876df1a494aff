"""Write syd_pool/policy/ioctls.txt: the names of ioctl(2) requests and their numbers on x86_64.

    scripts/make_ioctls.py [FOLDER] >syd_pool/policy/ioctls.txt

FOLDER holds more headers; those of DRM come with libdrm-dev (/usr/include/libdrm) where linux-libc-dev lacks them.
The names are the object-like macros of the kernel's headers for programs (/usr/include, package linux-libc-dev)
that are built of _IO, _IOR, _IOW, _IOWR or of macros of their own kind, and the older ones that are plain numbers,
which OLD names by header.  The compiler says what they are; what it cannot say is left out.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

INCLUDE = Path("/usr/include")
FOLDERS = ("asm-generic", "drm", "linux", "misc", "mtd", "rdma", "scsi", "sound", "video", "xen")
# Requests from before _IO: header -> what their names begin with
OLD = {
    "asm-generic/ioctls.h": "TC|TIO|FIO",
    "linux/atmioc.h": "ATM", "linux/cdrom.h": "CDROM|DVD_", "linux/fd.h": "FD",
    "linux/hdreg.h": "HDIO_", "linux/hdlcdrv.h": "HDLCDRV", "linux/kd.h": "GIO_|PIO_|KD|KIOC", "linux/lp.h": "LP",
    "linux/loop.h": "LOOP_", "linux/mtio.h": "MT", "linux/nvram.h": "NVRAM_", "linux/ppp_defs.h": "PPP",
    "linux/serial.h": "TIOC", "linux/sockios.h": "SIOC", "linux/vt.h": "VT_", "linux/wireless.h": "SIOC",
    "linux/tiocl.h": "TIOCL_", "scsi/scsi_ioctl.h": "SCSI_IOCTL_", "scsi/sg.h": "SG_",
}  # fmt: skip
LEAST = 0x200  # below are numbers that requests are made of
NO_REQUEST = re.compile(
    r"_(FIRST|LAST|BASE|MAX|MIN|NR|SIZE|TYPE|MAGIC|FLAGS?)$|^(_|TIOCPKT_|TIOCM_|TIOCSER_|SIOCPROTO)"
)
MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+([A-Z][A-Za-z0-9_]*)[ \t]+(\S.*)$", re.M)
PLAIN = re.compile(r"\(?(0x[0-9A-Fa-f]{3,}|SIOC\w+ *\+.*|\w+IOC?\w* *[+|].*)\)?\s*(/\*.*)?$")
BUILT = re.compile(r"\b[A-Z0-9_]*_S?IO(?:R|W|WR|C)?(?:_[A-Z]+)?[ \t]*\(")
# What a header forgets to include
FIRST = {"linux/fs.h": "linux/fiemap.h", "linux/kfd_ioctl.h": "drm.h"}
# Newer than many systems' headers, or built of structures that clash with libc's: <linux/fs.h>, <linux/pidfd.h>
# (size of the first version), <asm-generic/ioctls.h>
KNOWN = {
    "FS_IOC_GETFSUUID": 0x80111500, "FS_IOC_GETFSSYSFSPATH": 0x80811501, "PIDFD_GET_INFO": 0xC040FF0B,
    "TCGETS2": 0x802C542A, "TCSETS2": 0x402C542B, "TCSETSW2": 0x402C542C, "TCSETSF2": 0x402C542D,
}  # fmt: skip
INCLUDES = ("stddef.h", "stdio.h", "stdint.h", "sys/types.h", "sys/ioctl.h", "sys/socket.h", "linux/types.h")
SHOW = (
    "int main(void) { for (size_t i = 0; i < sizeof all / sizeof *all; i++)",
    'printf("%s %lu\\n", all[i].name, all[i].n); }',
)


def macros(header: Path, name: str) -> list[str]:
    """Names in a header that look like requests."""
    text = header.read_text("utf-8", "replace").replace("\\\n", " ")
    old = re.compile(OLD.get(name, "$^"))
    found = []
    for name, body in MACRO.findall(text):
        request = BUILT.search(body) or (old.match(name) and PLAIN.match(body))
        if request and not NO_REQUEST.search(name):
            found.append(name)
    return sorted(set(found))


def numbers(header: str, names: list[str], folder: Path, more: Path) -> dict[str, int]:
    """What the compiler says that the names are; without those it cannot say."""
    source, program = folder / "a.c", folder / "a"
    names = list(names)
    includes = [*INCLUDES, FIRST.get(header, header), header]
    while names:
        lines = [
            *(f"#include <{one}>" for one in includes),
            "static const struct { const char *name; unsigned long n; }",
        ]
        lines.append("all[] = {")
        first = len(lines) + 1
        lines += [f'{{"{name}", (unsigned int)({name})}},' for name in names]
        lines += ["};", *SHOW]
        source.write_text("\n".join(lines) + "\n")
        tried = subprocess.run(
            ["cc", "-w", f"-I{more}", "-fmax-errors=0", "-o", program, source], capture_output=True, text=True
        )
        if not tried.returncode:
            said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
            return {name: int(number) for name, number in (line.split() for line in said.splitlines())}
        bad = {int(line) - first for line in re.findall(rf"^{source}:(\d+):\d+: error", tried.stderr, re.M)}
        wrong = {names[i] for i in bad if 0 <= i < len(names)}
        if not wrong:
            print(f"left out: {header}: {tried.stderr.splitlines()[0]}", file=sys.stderr)
            return {}
        names = [name for name in names if name not in wrong]
    return {}


def main() -> None:
    """Print `NAME NUMBER` lines, sorted by name."""
    found = dict(KNOWN)
    more = Path(sys.argv[1]) if sys.argv[1:] else INCLUDE
    headers = {str(path.relative_to(INCLUDE)): path for name in FOLDERS for path in (INCLUDE / name).rglob("*.h")}
    headers |= {path.name: path for path in more.glob("*.h") if more != INCLUDE}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in sorted(headers.items()):
            names = macros(path, name)
            if names:
                found.update(numbers(name, names, Path(folder), more))
    for name, number in sorted(found.items()):
        if number >= LEAST:
            print(f"{name} {number:x}")


if __name__ == "__main__":
    main()
