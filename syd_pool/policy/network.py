"""Which address rule decides: `CIDR!ports` of syd(2), ADDRESS MATCHING, compiled.

What is judged is text, so that one dictionary of decisions and one log serve every kind of address:

    127.0.0.1!80   ::1!80       an IP address and its port; a v4-mapped one is written as the v4 it is
    /path   @name   !unnamed    a Unix socket: the path rules decide (rules.py)

Guarantee: the last rule that matches decides.  No text of one kind can match a rule of the other, so path
and address rules need no common order.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Block = tuple[int, int, int]  # bits of an address, first address, last address
    Ports = tuple[int, int]  # first, last

V4, V6 = 32, 128
MAPPED = 0xFFFF << 32  # ::ffff:0:0/96

_NAMED4 = {
    "any": ("0.0.0.0/0",),
    "loopback": ("127.0.0.0/8",),
    "linklocal": ("169.254.0.0/16",),
    "local": ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    "multicast": ("224.0.0.0/4",),
}
_NAMED6 = {
    "any": ("::/0",),
    "loopback": ("::1/128",),
    "linklocal": ("fe80::/10",),
    "local": ("::1/128", "fe80::/7", "fc00::/7", "fec0::/7"),
    "multicast": ("ff00::/8",),
}


def expand(name: str) -> tuple[str, ...]:
    """The CIDRs that an alias stands for; anything else stands for itself."""
    if name in _NAMED4:
        return _NAMED4[name] + _NAMED6[name]
    if name[-1:] == "4" and name[:-1] in _NAMED4:
        return _NAMED4[name[:-1]]
    if name[-1:] == "6" and name[:-1] in _NAMED6:
        return _NAMED6[name[:-1]]
    return (name,)


def number(host: str) -> tuple[int, int]:
    """(bits, value) of an IP address; a v4-mapped one is v4.  Raises OSError."""
    if ":" not in host:
        return V4, int.from_bytes(inet_pton(AF_INET, host), "big")
    value = int.from_bytes(inet_pton(AF_INET6, host), "big")
    if value >> 32 == MAPPED >> 32:
        return V4, value & 0xFFFFFFFF
    return V6, value


def block(cidr: str) -> Block:
    """The addresses of a CIDR or of one address.  Raises OSError, ValueError."""
    host, slash, prefix = cidr.partition("/")
    bits, value = number(host)
    length = int(prefix) if slash else bits
    if bits == V4 and slash and ":" in host:  # ::ffff:a.b.c.d/n
        length -= V6 - V4
        if length < 0:  # wider than the mapped addresses: v6 after all
            bits, value, length = V6, value | MAPPED, length + V6 - V4
    free = (1 << bits - length) - 1
    return bits, value & ~free, value | free


def ports(text: str) -> list[Ports]:
    """The ranges of a checked list of ports."""
    found = []
    for item in text.split(","):
        low, dash, high = item.partition("-")
        found.append((int(low), int(high if dash else low)))
    return found


class AddressRules:
    """The address rules of one category; `rules` are (action, text) in order, texts checked by addresses.py."""

    __slots__ = ("_compiled", "rules")

    def __init__(self, rules: Iterable[tuple[int, str]]) -> None:
        self.rules = list(rules)
        self._compiled: list[tuple[int, list[Block], list[Ports]]] | None = None

    def _compile(self) -> list[tuple[int, list[Block], list[Ports]]]:
        compiled = []
        for index in range(len(self.rules) - 1, -1, -1):
            host, _, text = self.rules[index][1].partition("!")
            compiled.append((index, [block(cidr) for cidr in expand(host)], ports(text)))
        return compiled

    def find(self, text: bytes) -> int:
        """The index of the rule that decides about `ADDRESS!PORT`, -1 if none does."""
        if self._compiled is None:
            self._compiled = self._compile()
        host, _, port_text = text.decode("ascii").partition("!")
        bits, value = number(host)
        port = int(port_text)
        for index, blocks, ranges in self._compiled:
            if not any(low <= port <= high for low, high in ranges):
                continue
            if any(bits == wide and first <= value <= last for wide, first, last in blocks):
                return index
        return -1
