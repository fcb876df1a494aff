"""The category ioctl: rules about request numbers of ioctl(2), by number or by name (syd(2)).

    allow/ioctl+TCGETS,FIO*,0x5401,KVM_RUN!     deny/ioctl+...     and -, ^

A name may be written in any case and with wildcards; `!` behind it lets it be unknown.  The names are a data file,
ioctls.txt, which scripts/make_ioctls.py writes; it is read at the first name.

The last rule about a number decides, else the default of the category; while the category is off everything is
allowed but for what a rule denies.  A pattern of allow leaves alone what is denied at the start: only its own name,
or its number, allows it.
"""

from __future__ import annotations

import os

from syd_pool.policy.actions import ALLOW, DENY
from syd_pool.policy.patterns import Wild

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Rules = list[tuple[int, int]]

# syd(2), allow/ioctl and deny/ioctl: what the lists hold at the start
ALLOWED = {
    "FIOCLEX": 0x5451, "FIONCLEX": 0x5450, "FIONBIO": 0x5421, "FIONREAD": 0x541B, "FIOASYNC": 0x5452,
    "FIOQSIZE": 0x5460, "FIFREEZE": 0xC0045877, "FITHAW": 0xC0045878, "FS_IOC_FIEMAP": 0xC020660B,
    "FIGETBSZ": 0x2, "FICLONE": 0x40049409, "FICLONERANGE": 0x4020940D, "FIDEDUPERANGE": 0xC0189436,
    "FS_IOC_GETFSUUID": 0x80111500, "FS_IOC_GETFSSYSFSPATH": 0x80811501, "PIDFD_GET_INFO": 0xC040FF0B,
    "RNDGETENTCNT": 0x80045200,
}  # fmt: skip
DENIED = {
    "FIBMAP": 0x1, "FS_IOC_FSGETXATTR": 0x801C581F, "FS_IOC_FSSETXATTR": 0x401C5820, "FS_IOC_SETFLAGS": 0x40086602,
    "KDSETKEYCODE": 0x4B4D, "KDSIGACCEPT": 0x4B4E, "RNDADDTOENTCNT": 0x40045201, "RNDGETPOOL": 0x80085202,
    "RNDADDENTROPY": 0x40085203, "RNDZAPENTCNT": 0x5204, "RNDCLEARPOOL": 0x5206, "TIOCCONS": 0x541D,
    "TIOCLINUX": 0x541C, "TIOCSETD": 0x5423, "TIOCSTI": 0x5412, "TIOCSSERIAL": 0x541F,
}  # fmt: skip
_LISTENER = ord("!")  # SECCOMP_IOC_MAGIC
_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ioctls.txt")
_LARGEST = 0xFFFFFFFF
_WILDCARDS = frozenset("*?[")
_NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_*?[]-^!")

_names: dict[str, int] = {}


class Unliftable(ValueError):
    """A rule about the requests of the sandbox's own listener, which are refused always."""


def at_start() -> Rules:
    """The rules that every run begins with."""
    return [*((ALLOW, number) for number in ALLOWED.values()), *((DENY, number) for number in DENIED.values())]


def names() -> dict[str, int]:
    """Every name that is known, with its number; read once.  Who has no files any more must have called it."""
    if not _names:
        with open(_FILE, encoding="ascii") as file:
            for line in file:
                name, _, number = line.partition(" ")
                _names[name] = int(number, 16)
        _names.update(ALLOWED)
        _names.update(DENIED)
    return _names


def name_of(number: int) -> str:
    """A name of a request if names were ever needed, else its number in hexadecimal."""
    return next((name for name, one in _names.items() if one == number), f"{number:#x}")


def read(text: str, action: int) -> list[int]:
    """The numbers of a comma list of elements.  Raises ValueError with the reason."""
    found: list[int] = []
    for element in text.split(","):
        numbers = _element(element)
        if any(number >> 8 & 0xFF == _LISTENER for number in numbers):
            if not _WILDCARDS.intersection(element):
                raise Unliftable(f"{element} is refused always")
            numbers = [number for number in numbers if number >> 8 & 0xFF != _LISTENER]
        if action == ALLOW and _WILDCARDS.intersection(element):
            numbers = [number for number in numbers if number not in DENIED.values()]
        found += numbers
    return list(dict.fromkeys(found))


def _element(element: str) -> list[int]:
    text, optional = element.removesuffix("!").upper(), element.endswith("!")
    number = _number(text)
    if number is not None:
        return [number]
    if not text or not _NAME.issuperset(text):
        raise ValueError(f"`{element}' is no ioctl request")
    if _WILDCARDS.intersection(text):
        wild = Wild(text.encode("ascii"))
        found = [number for name, number in names().items() if wild.match(name.encode("ascii"))]
    else:
        found = [names()[text]] if text in names() else []
    if not found and not optional:
        raise ValueError(f"no ioctl request is called `{element}'")
    return found


def _number(text: str) -> int | None:
    """A number in decimal, hexadecimal (0x) or octal (0o).  Raises ValueError for one that is too large."""
    if not text[:1].isdigit():
        return None
    try:
        number = int(text, {"0X": 16, "0O": 8}.get(text[:2], 10))
    except ValueError:
        raise ValueError(f"`{text}' is no number") from None
    if number > _LARGEST:
        raise ValueError(f"{text} is larger than a request can be")
    return number


class RequestVerdicts(dict[int, int]):
    """Number of a request -> action.  Only what rules say is kept; every other number has `default`."""

    __slots__ = ("default",)

    def __init__(self, rules: Rules, on: bool, default: int) -> None:
        super().__init__({number: action for action, number in rules})
        self.default = default if on else ALLOW

    def __missing__(self, _: int) -> int:
        return self.default

    def denied(self) -> Mapping[int, int]:
        """What a rule denies."""
        return {number: action for number, action in self.items() if action != ALLOW}
