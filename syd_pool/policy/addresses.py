"""Addresses of network rules: `CIDR!port[-port][,...]`, or an alias for the CIDR (syd(2), ADDRESS MATCHING).

They are checked here when they are read, and kept as text; network.py compiles them at the first question.
"""

from __future__ import annotations

ALIASES = frozenset(
    name + version for name in ("any", "loopback", "linklocal", "local", "multicast") for version in ("", "4", "6")
)

# <linux/netlink.h>, the families as syd names them
NETLINK = (
    "all", "route", "usersock", "firewall", "sock_diag", "nflog", "xfrm", "selinux", "iscsi", "audit",
    "fib_lookup", "connector", "netfilter", "ip6_fw", "dnrtmsg", "kobject_uevent", "generic", "scsitransport",
    "ecryptfs", "rdma", "crypto", "smc",
)  # fmt: skip


def check(text: str) -> None:
    """Raise ValueError unless `text` is an address with ports."""
    address, bang, port = text.partition("!")
    if not bang:
        raise ValueError("an address needs a port: ADDRESS!PORT")
    ports(port)
    if address not in ALIASES:
        _network(address)


def ports(text: str) -> None:
    """Raise ValueError unless `text` is a list of ports and ranges."""
    for item in text.split(","):
        low, dash, high = item.partition("-")
        if not _port(low) or (dash and not _port(high)):
            raise ValueError(f"`{item}' is no port from 0 to 65535")
        if dash and int(low) > int(high):
            raise ValueError(f"`{item}' is an empty range of ports")


def _port(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) < 65536


def _network(text: str) -> None:
    from _socket import AF_INET, AF_INET6, inet_pton

    host, slash, prefix = text.partition("/")
    family, bits = (AF_INET6, 128) if ":" in host else (AF_INET, 32)
    try:
        inet_pton(family, host)
    except OSError:
        raise ValueError(f"`{host}' is no IP address") from None
    if slash and not (prefix.isascii() and prefix.isdigit() and int(prefix) <= bits):
        raise ValueError(f"`{prefix}' is no prefix length from 0 to {bits}")
