"""Names of file system types for the category `fs`: <linux/magic.h>, and statfs(2) for the older ones.

One name may stand for several numbers, and one number for several names (ext2, ext3, ext4).
"""

from __future__ import annotations

_TABLE = (
    "aafs 5a3c69f0|adfs adf5|affs adff|afs 5346414f,6b414653|anon_inodefs 9041934|aufs 61756673|autofs 187|"
    "bcachefs ca451a4e|bdevfs 62646576|binderfs 6c6f6f70|binfmt_misc 42494e4d|bpf_fs cafe4a11|"
    "btrfs 9123683e,73727279|ceph c36400|cgroup 27e0eb|cgroup2 63677270|cifs ff534d42|coda 73757245|"
    "configfs 62656570|cramfs 28cd3d45,453dcd28|daxfs 64646178|debugfs 64626720|devfs 1373|devmem 454d444d|"
    "devpts 1cd1|dma_buf 444d4142|ecryptfs f15f|efivarfs de5e81e4|efs 414a53|erofs e0f5e1e2|exfat 2011bab0|"
    "ext 137d,ef51,ef53|ext2 ef51,ef53|ext3 ef53|ext4 ef53|f2fs f2f52010|fat 4006,4d44|fuse 65735546|"
    "fuseblk 65735546|fusectl 65735543|futexfs bad1dea|gfs 1161970|gfs2 1161970|gpfs 47504653|hfs 4244|"
    "hfsplus 482b|hostfs c0ffee|hpfs f995e849|hugetlbfs 958458f6|inodefs 11307854|inotifyfs 2bad1dea|"
    "isofs 9660,4000,4004|jffs 7c0|jffs2 72b6|jfs 3153464a|kafs 6b414653|lustre bd00bd0|minix 137f,138f|"
    "minix2 2468,2478|minix3 4d5a|mqueue 19800202|msdos 4d44|ncp 564c|nfs 6969|nfsd 6e667364|nilfs 3434|"
    "nsfs 6e736673|ntfs 5346544e|ntfs3 7366746e|ocfs2 7461636f|openprom 9fa1|orangefs 20030528|"
    "overlayfs 794c7630|panfs aad7aaea|pid_fd 50494446|pipefs 50495045|proc 9fa0|pstorefs 6165676c|qnx4 2f|"
    "qnx6 68191122|ramfs 858458f6|rdtgroup 7655821|reiserfs 52654973|romfs 7275|rpc_pipefs 67596969|"
    "secretmem 5345434d|securityfs 73636673|selinux f97cff8c|smack 43415d53|smb 517b|smb2 fe534d42|"
    "sockfs 534f434b|squashfs 73717368|sysfs 62656572|sysv2 12ff7b6|sysv4 12ff7b5|tmpfs 1021994|"
    "tracefs 74726163|ubifs 24051905|udf 15013346|ufs 11954,54190100|usbdevfs 9fa2|v9fs 1021997|"
    "vboxsf 786f4256|vfat 4d44|vxfs a501fcf5|xenfs abba1974|xenix 12ff7b4|xfs 58465342|zfs 2fc12fc1|"
    "zonefs 5a4f4653"
)


def _magics() -> dict[str, tuple[int, ...]]:
    found = {}
    for entry in _TABLE.split("|"):
        name, numbers = entry.split(" ")
        found[name] = tuple(int(n, 16) for n in numbers.split(","))
    return found


# name -> numbers of f_type; this module is only loaded by a run that has rules about file systems
MAGICS = _magics()
_EVERY = tuple({number for numbers in MAGICS.values() for number in numbers})


def lookup(element: str) -> tuple[int, ...]:
    """The numbers that an element of `allow/fs+` stands for: a name, `all`, a number.  Raises ValueError."""
    if element in MAGICS:
        return MAGICS[element]
    if element == "all":
        return _EVERY
    base = 16 if element[:2] == "0x" else 8 if element[:2] == "0o" else 10
    try:
        number = int(element if base == 10 else element[2:], base)
    except ValueError:
        number = -1
    if not 0 <= number < 2**64 or not element.isascii() or "_" in element or element[:1] in "+-":
        raise ValueError(f"`{element}' is no type of file system")
    return (number,)
