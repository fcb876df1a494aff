"""Configuration files and profiles: which may be read, and their lines carried out one by one.

A file's name ends in .syd-3, it is a regular file of UTF-8 text, and no part of its path is a symbolic link
or `..` (syd(5), SECURITY).  An included file is looked for in the directory of the including one, may not be
writable by group or others, and may not include itself.
"""

from __future__ import annotations

import os
from errno import EACCES, EBADFD, EILSEQ, EINVAL, ELOOP, EOPNOTSUPP, EPERM

from syd_pool.policy.errors import BadRule
from syd_pool.policy.parse import apply, check_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.policy.rules import Ruleset

SUFFIX = ".syd-3"
LARGEST = 64 << 20  # bytes of one file

PROFILES = os.path.join(os.path.dirname(__file__), "profiles")

# letter -> profile (syd(5), PROFILES)
LETTERS = {
    "c": "container", "i": "immutable", "p": "privileged", "l": "landlock", "L": "linux", "@": "local",
    "6": "noipv4", "4": "noipv6", "d": "cwd", "C": "core", "D": "debug", "M": "nomem", "P": "nopie",
    "S": "nomagic", "X": "noxdev", "q": "quiet", "h": "hide", "f": "fs", "g": "gui", "r": "rand", "t": "tty",
    "u": "user", "E": "enforce",
}  # fmt: skip
# other name -> name
SAME = {"pwd": "cwd", "ro": "readonly", "ff": "firefox", "ipv6": "noipv4", "ipv4": "noipv6"}
# syd's profiles that are not built
UNBUILT = frozenset(
    "chrome container core cwd debug enforce firefox gui immutable kcov kvm kvm_native landlock lang ldd "
    "linux local ltp nix nixstore noipv4 noipv6 nomagic noxdev oci paludis privileged quiet rand readonly "
    "trace tty tty_native user xdg".split()
)

Seen = tuple[tuple[int, int], ...]


class Place:
    """Where lines come from: the directory for relative includes, and the files that are open around them."""

    __slots__ = ("directory", "profiles", "seen")

    def __init__(self, directory: str, seen: Seen = (), profiles: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.seen = seen
        self.profiles = profiles


def load(rules: Ruleset, path: str) -> None:
    """Carry out the file that the user named.  Raises BadRule."""
    check_lock(rules, path)
    _file(rules, path, Place(""), included=False)


def profile(rules: Ruleset, name: str) -> None:
    """Carry out the profile `name`, or the profiles whose letters it joins.  Raises BadRule."""
    check_lock(rules, f"profile {name}")
    for one in _names(name):
        _profile(rules, one, ())


def available() -> list[str]:
    """The names of the profiles that are built."""
    return sorted(entry.removesuffix(SUFFIX) for entry in os.listdir(PROFILES) if entry.endswith(SUFFIX))


def _names(name: str) -> list[str]:
    name = SAME.get(name, name)
    if name in UNBUILT or name in available():
        return [name]
    if name and all(letter in LETTERS for letter in name):
        return [LETTERS[letter] for letter in name]
    raise BadRule(EINVAL, f"unknown profile `{name}'", f"profiles are {', '.join(available())}")


def _profile(rules: Ruleset, name: str, around: tuple[str, ...]) -> None:
    if name in UNBUILT:
        raise BadRule(EOPNOTSUPP, f"profile `{name}' is not built yet", f"profiles are {', '.join(available())}")
    if name in around:
        raise BadRule(ELOOP, f"profile `{name}' includes itself")
    with open(os.path.join(PROFILES, name + SUFFIX), encoding="utf-8") as file:
        text = file.read()
    _lines(rules, text, name + SUFFIX, Place("", (), (*around, name)))


def _file(rules: Ruleset, path: str, place: Place, included: bool) -> None:
    fd = _open(path)
    try:
        identity = _checked(fd, path, included)
        if identity in place.seen:
            raise BadRule(ELOOP, f"`{path}' includes itself", "take away one of the include lines")
        text = _read(fd, path)
    finally:
        os.close(fd)
    _lines(rules, text, path, Place(os.path.dirname(path), (*place.seen, identity)))


def _open(path: str) -> int:
    """A descriptor of a configuration file, never through a symbolic link.  Raises BadRule."""
    from syd_pool.linux.libc import RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

    if not path.endswith(SUFFIX):
        raise BadRule(EOPNOTSUPP, f"`{path}' is no configuration file", f"its name must end in {SUFFIX}")
    if ".." in path.split("/"):
        raise BadRule(EPERM, f"`{path}' has a `..'", "name the file by its canonical path")
    if "\0" in path:
        raise BadRule(EINVAL, "a file name holds a NUL byte")
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        return openat2(-100, os.fsencode(path), flags, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        tip = "name the file by its path without symbolic links" if error.errno == ELOOP else ""
        raise BadRule(error.errno or EINVAL, f"`{path}': {error.strerror}", tip) from None


def _checked(fd: int, path: str, included: bool) -> tuple[int, int]:
    """Device and inode of a file that may be read.  Raises BadRule."""
    status = os.fstat(fd)
    if status.st_mode & 0o170000 != 0o100000:
        raise BadRule(EBADFD, f"`{path}' is not a regular file")
    if included and status.st_mode & 0o022:
        raise BadRule(EACCES, f"`{path}' may be written by group or others", f"chmod go-w {path}")
    return status.st_dev, status.st_ino


def _read(fd: int, path: str) -> str:
    with os.fdopen(os.dup(fd), "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise BadRule(EINVAL, f"`{path}' is larger than {LARGEST >> 20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadRule(EILSEQ, "is not UTF-8", "configuration files are UTF-8 text", f"{path}:{line}") from None


def _lines(rules: Ruleset, text: str, path: str, place: Place) -> None:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line[0] == "#":
            continue
        source = f"{path}:{number}"
        try:
            if not _directive(rules, line, place):
                apply(rules, line)
        except BadRule as error:
            raise error.at(source) from None


def commands_in(text: bytes) -> list[str]:
    """The commands of a text, without comments and blank lines.  Raises BadRule EILSEQ."""
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError:
        raise BadRule(EILSEQ, "is not UTF-8", "configuration is UTF-8 text") from None
    return [line for line in lines if line.strip() and line[0] != "#"]


def profile_commands(rules: Ruleset, name: str, around: tuple[str, ...] = ()) -> list[str]:
    """The commands of a built-in profile, those it includes among them, with variables expanded.  Raises BadRule."""
    from syd_pool.policy.expand import expand

    found: list[str] = []
    for one in _names(name):
        if one in UNBUILT:
            raise BadRule(EOPNOTSUPP, f"profile `{one}' is not built yet", f"profiles are {', '.join(available())}")
        if one in around:
            raise BadRule(ELOOP, f"profile `{one}' includes itself")
        with open(os.path.join(PROFILES, one + SUFFIX), "rb") as file:
            lines = commands_in(file.read())
        for line in lines:
            word, _, argument = line.partition(" ")
            if word == "include_profile":
                found += profile_commands(rules, argument.strip(), (*around, one))
            else:
                found.append(expand(rules, line) if "$" in line else line)
    return found


def _directive(rules: Ruleset, line: str, place: Place) -> bool:
    """Carry out include and include_profile, which only files know."""
    word, space, argument = line.partition(" ")
    if word not in ("include", "include_profile") or not space:
        return False
    check_lock(rules, line)
    argument = argument.strip()
    if word == "include_profile":
        for name in _names(argument):
            _profile(rules, name, place.profiles)
        return True
    from syd_pool.policy.expand import expand

    target = expand(rules, argument)
    if target.endswith((".ipset", ".netset")):
        raise BadRule(EOPNOTSUPP, f"`{line}': IP block lists are not built yet", "take the line away")
    _file(rules, os.path.join(place.directory, target), place, included=True)
    return True
