"""What this machine cannot do without and that is often no member: its gateways and resolvers."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from swanmesh.core.model import Address
from swanmesh.machine.sessions import ssh_peers

_GATEWAY = "the default gateway"
_RESOLVER = "a resolver (/etc/resolv.conf)"
_LIMIT = 1 << 20
"""Bytes of each file that are looked at: a router has more routes, and its default ones first."""


def needed(root: Path = Path("/")) -> dict[Address, str]:
    """The addresses, each with what it is. What cannot be read tells of none."""
    found: dict[Address, str] = dict.fromkeys(_resolvers(_read(root / "etc/resolv.conf")), _RESOLVER)
    found |= dict.fromkeys(_gateways4(_read(root / "proc/net/route")), _GATEWAY)
    return found | dict.fromkeys(_gateways6(_read(root / "proc/net/ipv6_route")), _GATEWAY)


def needed_now() -> dict[Address, str]:
    """The same, and from where people are logged in."""
    return dict.fromkeys(ssh_peers(), "where somebody is logged in from over SSH") | needed()


def _read(path: Path) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(_LIMIT)
    except OSError:
        return ""


def _resolvers(text: str) -> Iterator[Address]:
    for given in re.findall(r"^nameserver\s+(\S+)", text, re.MULTILINE):
        with contextlib.suppress(ValueError):
            yield ipaddress.ip_address(given.partition("%")[0])


def _gateways4(text: str) -> Iterator[Address]:
    """Lines of interface, destination, gateway and so on, in hex of the host's byte order
    (net/ipv4/fib_trie.c, fib_route_seq_show)."""
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) > 7 and words[1] == words[7] == "00000000" and words[2] != "00000000":
            with contextlib.suppress(ValueError):
                yield ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(words[2]), sys.byteorder))


def _gateways6(text: str) -> Iterator[Address]:
    """Lines of destination, its prefix's length, source, its length, gateway and so on, in hex
    (net/ipv6/route.c, rt6_info_route)."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 4 and words[1] == "00" and words[4].strip("0"):
            with contextlib.suppress(ValueError):
                yield ipaddress.IPv6Address(bytes.fromhex(words[4]))
