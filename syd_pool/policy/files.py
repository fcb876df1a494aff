"""Configuration files and profiles: which may be read, and their lines carried out one by one.

Profiles are files of ours in profiles/.  Three directives are theirs alone: `if_built LINE` is carried out if it is
built and noted if not; `if_exists LINE` at the start, if the path in it exists (lock rules: the kernel wants what it
confines to be there, and takes nothing later); `unbuilt REASON` refuses the profile.

A file's name ends in .syd-3, it is a regular file of UTF-8 text, and no part of its path is a symbolic link
or `..` (syd(5), SECURITY).  An included file is looked for in the directory of the including one, may not be
writable by group or others, and may not include itself.
"""

from __future__ import annotations

import os
from errno import EACCES, EBADFD, EILSEQ, EINVAL, ELOOP, EOPNOTSUPP, EPERM

from syd_pool.policy.errors import BadRule
from syd_pool.policy.lock import CLOSED
from syd_pool.policy.parse import apply, check_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.policy.rules import Ruleset

SUFFIX = ".syd-3"
NETWORKS = (".ipset", ".netset")  # IP networks for block, one a line
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
Seen = tuple[tuple[int, int], ...]


class Place:
    """Where lines come from: the directory for relative includes, and the files that are open around them.

    left_out  collects the if_built lines that could not be carried out, (source, reason) each
    """

    __slots__ = ("directory", "left_out", "profiles", "seen")

    def __init__(
        self,
        directory: str,
        seen: Seen = (),
        profiles: tuple[str, ...] = (),
        left_out: list[tuple[str, str]] | None = None,
    ) -> None:
        self.directory = directory
        self.seen = seen
        self.profiles = profiles
        self.left_out = [] if left_out is None else left_out


def load(rules: Ruleset, path: str) -> None:
    """Carry out the file that the user named, whole or not at all.  Raises BadRule."""
    check_lock(rules, path)
    saved = rules.save()
    try:
        _file(rules, path, Place(""), included=False)
    except BadRule:
        rules.restore(saved)
        raise


def profile(rules: Ruleset, name: str) -> None:
    """Carry out the profile `name`, or the profiles whose letters it joins: all or nothing.  Raises BadRule."""
    check_lock(rules, f"profile {name}")
    chosen, saved = names(name), rules.save()
    try:
        for one in chosen:
            _profile(rules, one, Place(""))
    except BadRule:
        rules.restore(saved)
        raise


def available() -> list[str]:
    """The names of all profiles."""
    return sorted(entry.removesuffix(SUFFIX) for entry in os.listdir(PROFILES) if entry.endswith(SUFFIX))


def text_of(name: str) -> str:
    """The lines of a profile.  Raises OSError."""
    with open(os.path.join(PROFILES, name + SUFFIX), encoding="utf-8") as file:
        return file.read()


def left_out(rules: Ruleset, name: str) -> list[tuple[str, str]]:
    """Carry out the profile `name`; what of it is not in force, because it is not built.  Raises BadRule."""
    place = Place("")
    _profile(rules, name, place)
    return place.left_out


def names(name: str) -> list[str]:
    """The profiles that a name stands for: itself, another name, or letters.  Raises BadRule."""
    name = SAME.get(name, name)
    if "/" not in name and os.path.exists(os.path.join(PROFILES, name + SUFFIX)):
        return [name]
    if name and all(letter in LETTERS for letter in name):
        return [LETTERS[letter] for letter in name]
    raise BadRule(EINVAL, f"unknown profile `{name}'", f"profiles are {', '.join(available())}")


def _profile(rules: Ruleset, name: str, place: Place) -> None:
    if name in place.profiles:
        raise BadRule(ELOOP, f"profile `{name}' includes itself")
    try:
        _lines(rules, text_of(name), name + SUFFIX, Place("", (), (*place.profiles, name), place.left_out))
        if name == "user":
            for path in _user_files(rules):
                if rules.lock not in CLOSED and os.path.lexists(path):
                    _file(rules, path, Place(""), included=True)
    except BadRule as error:  # named by both places: the profile's line, and whoever asked for the profile
        raise BadRule(error.errno, f"profile `{name}': {error.source}: {error.reason}", error.remedy) from None


def _user_files(rules: Ruleset) -> list[str]:
    """What profile user reads in the end: the site's rules, then the user's own."""
    from syd_pool.policy.expand import lookup

    home = lookup(rules, "SYD_HOME")
    return ["/etc/user.syd-3", *([f"{home}/.user.syd-3"] if home else [])]


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


def _open(path: str, ends: str | tuple[str, ...] = SUFFIX) -> int:
    """A descriptor of a configuration file, never through a symbolic link.  Raises BadRule."""
    from syd_pool.linux.libc import RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

    if not path.endswith(ends):
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
            if not _directive(rules, line, place, source):
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
    found: list[str] = []
    for one in names(name):
        if one in around:
            raise BadRule(ELOOP, f"profile `{one}' includes itself")
        for line in commands_in(text_of(one).encode()):
            if line.startswith("if_exists "):
                continue
            try:
                found += _profile_line(rules, line.removeprefix("if_built "), (*around, one))
            except BadRule as error:
                if error.errno != EOPNOTSUPP or not line.startswith("if_built "):
                    raise
    return found


def _profile_line(rules: Ruleset, line: str, around: tuple[str, ...]) -> list[str]:
    """The commands that a profile's line stands for.  Raises BadRule where it is not built."""
    from syd_pool.policy.expand import expand
    from syd_pool.policy.rules import Ruleset

    word, _, argument = line.partition(" ")
    if word == "include_profile":
        return profile_commands(rules, argument.strip(), around)
    if word == "unbuilt":
        raise BadRule(EOPNOTSUPP, argument)
    line = expand(rules, line) if "$" in line else line
    apply(Ruleset(), line)
    return [line]


def _directive(rules: Ruleset, line: str, place: Place, source: str) -> bool:
    """Carry out include and include_profile, which only files know, and what only profiles of ours may say."""
    word, space, argument = line.partition(" ")
    if not space:
        return False
    if word == "if_built" and place.profiles:
        _if_built(rules, argument, place, source)
    elif word == "if_exists" and place.profiles:
        if _exists(rules, argument):
            apply(rules, argument)
    elif word == "unbuilt" and place.profiles:
        raise BadRule(EOPNOTSUPP, argument)
    elif word == "include_profile":
        check_lock(rules, line)
        for name in names(argument.strip()):
            _profile(rules, name, place)
    elif word == "include":
        check_lock(rules, line)
        _include(rules, line, argument.strip(), place)
    else:
        return False
    return True


def _exists(rules: Ruleset, line: str) -> bool:
    """Is the path that a command names there?  Not every system has every directory."""
    from syd_pool.policy.expand import expand
    from syd_pool.policy.parse import split

    return os.path.exists(expand(rules, split(line)[2]))


def _if_built(rules: Ruleset, line: str, place: Place, source: str) -> None:
    """Carry out a line of ours if it can be; if not, note it (syd-pool profile check shows it)."""
    try:
        if not _directive(rules, line, place, source):
            apply(rules, line)
    except BadRule as error:
        if error.errno != EOPNOTSUPP:
            raise
        place.left_out.append((f"{source}: {line}", error.reason))


def _include(rules: Ruleset, line: str, argument: str, place: Place) -> None:
    from syd_pool.policy.expand import expand

    target = os.path.join(place.directory, expand(rules, argument))
    if target.endswith(NETWORKS):
        _networks(rules, target)
    else:
        _file(rules, target, place, included=True)


def _networks(rules: Ruleset, path: str) -> None:
    """Block the networks of a file, all of them or none.  Raises BadRule."""
    from syd_pool.policy import blocks

    fd = _open(path, NETWORKS)
    try:
        _checked(fd, path, included=True)
        text = _read(fd, path)
    finally:
        os.close(fd)
    try:
        rules.blocks += blocks.read_file(text)
    except ValueError as error:
        raise BadRule(EINVAL, f"`{path}': {error}", "one network a line") from None
    rules.refresh("block")
