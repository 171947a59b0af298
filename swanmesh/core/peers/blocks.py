"""Blocks of addresses: what describes one, checked, and which of several an address belongs to."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from swanmesh.core.model import Address, Block, InvalidInput, Network, Problem, shown
from swanmesh.core.peers.description import check_name, parse_policy

_WIDE = {4: 8, 6: 32}
"""Bits of a prefix below which a block is more than anybody's own network: a slip, unless it is said so."""
NEVER_IN_A_BLOCK: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"),
        *("::/127", "fe80::/10", "ff00::/8", "::ffff:0:0/96"),
    )
)
"""Addresses that are no host's (RFC 6890)."""


def parse_block(
    name: object,
    cidr: object,
    policy: object = None,
    exceptions: object = None,
    wide: object = None,
    *,
    source: str,
) -> Block:
    """The block that a file or a command line describes. Raises InvalidInput with every problem found."""
    problems: list[Problem] = []
    good_name = ""
    try:
        good_name = check_name(name)
    except ValueError as error:
        remedy = "name the file NAME.yaml, with letters, digits and hyphens"
        problems.append(Problem(source, "", shown(name), f"the block's name {error}", remedy))
    good_policy = parse_policy(policy, source, problems)
    if wide not in (None, True, False):
        problems.append(Problem(source, "wide", shown(wide), "must be true or false", "leave it out"))
    network = _cidr(cidr, source, problems, wide=wide is True)
    outside = _exceptions(exceptions, network, source, problems)
    if problems or network is None:
        raise InvalidInput(*problems)
    return Block(name=good_name, cidr=network, policy=good_policy, exceptions=outside, source=source)


def default_name(cidr: str) -> str:
    """What a block is called that nobody gives a name."""
    return "block-" + re.sub(r"[^0-9a-f]+", "-", cidr.lower()).strip("-")


def _network(value: object) -> Network:
    """Raises ValueError with what is wrong with it."""
    if not isinstance(value, str):
        raise ValueError("must be a network in quotes")
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError("is neither an IPv4 nor an IPv6 network") from None
    if str(network.network_address) != str(ipaddress.ip_address(value.partition("/")[0])):
        raise ValueError(f"has bits behind its prefix: the network is {network}")
    return network


def _cidr(value: object, source: str, problems: list[Problem], *, wide: bool) -> Network | None:
    example = "give one such as 203.0.113.0/24"
    try:
        network = _network(value)
    except ValueError as error:
        problems.append(Problem(source, "cidr", "" if value is None else shown(value), str(error), example))
        return None
    never = next((one for one in NEVER_IN_A_BLOCK if contains(one, network)), None)
    if never is not None:
        message = f"lies in {never}, where no hosts are"
        problems.append(Problem(source, "cidr", str(network), message, example))
    elif network.prefixlen < _WIDE[network.version] and not wide:
        message = f"is wider than a /{_WIDE[network.version]}, and catches most of what this host talks to"
        problems.append(
            Problem(source, "cidr", str(network), message, "say so with `wide: true` if it is meant")
        )
    return network


def _exceptions(
    value: object, cidr: Network | None, source: str, problems: list[Problem]
) -> tuple[Network, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        remedy = "give a list, such as [203.0.113.1]"
        problems.append(Problem(source, "except", shown(value), "must be a list", remedy))
        return ()
    good: dict[Network, None] = {}
    for index, item in enumerate(value):
        try:
            network = _network(item)
            if cidr is not None and not contains(cidr, network):
                raise ValueError(f"is not in {cidr}")
            if network == cidr:
                raise ValueError("is all of the block")
        except ValueError as error:
            remedy = "give addresses and networks of the block"
            problems.append(Problem(source, f"except[{index}]", shown(item), str(error), remedy))
            continue
        good[network] = None
    return tuple(good)


def contains(outer: Network, inner: Network) -> bool:
    """Whether all of `inner` lies in `outer`."""
    if isinstance(outer, ipaddress.IPv4Network):
        return isinstance(inner, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, ipaddress.IPv6Network) and inner.subnet_of(outer)


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for all addresses of a network that no longer prefix says otherwise of."""

    network: Network
    block: Block | None
    """None for an exception: they belong to no block."""


def rules(blocks: Iterable[Block]) -> Iterator[Rule]:
    """What blocks say together, one rule for each network. Where one block has for its own what another one
    excepts, the former counts."""
    blocks = list(blocks)
    found: dict[Network, Rule] = {}
    for block in blocks:
        for network in (*block.exceptions, *NEVER_IN_A_BLOCK):
            if contains(block.cidr, network):
                found[network] = Rule(network, None)
    for block in blocks:
        found[block.cidr] = Rule(block.cidr, block)
    yield from found.values()


class BlockTable:
    """Which block an address belongs to: the longest prefix counts, exceptions among them."""

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self.rules: tuple[Rule, ...] = tuple(rules(blocks))
        self._by_length: dict[tuple[int, int], dict[int, Block | None]] = {}
        for rule in self.rules:
            place = (rule.network.version, rule.network.prefixlen)
            self._by_length.setdefault(place, {})[int(rule.network.network_address)] = rule.block
        self._lengths = sorted(self._by_length, reverse=True)

    def __bool__(self) -> bool:
        return bool(self.rules)

    def caught(self, needed: Mapping[Address, str], closed: Callable[[Block], bool]) -> Iterator[Problem]:
        """Which of the addresses that this host needs, each with what it is, are shut off by a block that is
        `closed` to clear text."""
        for address, what in needed.items():
            block = self.find(address)
            if block is not None and closed(block):
                message = f"catches {what}: nothing crosses in clear with it"
                remedy = f"add it to `except:` of {block.source} if it is no member of the mesh"
                yield Problem(block.source, "cidr", str(address), message, remedy)

    def find(self, address: Address) -> Block | None:
        """The block of an address; None if it belongs to none."""
        for version, length in self._lengths:
            if version != address.version:
                continue
            prefix = int(address) >> (address.max_prefixlen - length) << (address.max_prefixlen - length)
            found: Mapping[int, Block | None] = self._by_length[version, length]
            if prefix in found:
                return found[prefix]
        return None
