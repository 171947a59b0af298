"""The guard: kernel policies of our own that hold clear text back, whatever becomes of charon.

What the guard is to do is told in parts: a `Cover` for each network that has a policy, an `Opening` for an
address pair on its way between clear and encrypted, and the `Ground` that any of them stands on. A part says
which kernel policies it takes, so that a new source of networks needs no more than to give its covers.

Of the policies that match a packet the kernel takes the one with the lowest priority value, and among ours:

    100           what must never be caught: neighbour discovery, path MTU messages that come in
    1,000 - bits  an opening
    2,000 - bits  exemptions
    from 68,000   charon's: shunts, associations, traps
    3,000,000     what a closed network is to let pass nevertheless
    from 3,999,743    covers: the longest prefix counts, and at each of them the trap before the cover

IKE passes all of them: charon's sockets carry policies of their own. So does ESP: what comes in is looked at
when it is decrypted, and what goes out before it is encrypted (net/ipv4/esp4.c: no_policy).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from swanmesh.core.model import Address, AddressPair, Block, Peer, Settings
from swanmesh.core.peers.blocks import BlockTable
from swanmesh.core.settings.exemptions import Exemption
from swanmesh.core.xfrm import Direction, XfrmPolicy

BLOCKS = ""
"""The source of all covers of blocks: a peer has a name."""
OWNER = 0x73776D
"""Marks our policies: the `user` of their selectors, which is 0 in everybody else's."""
_NEVER_CAUGHT, _OPENING, _EXEMPT, _LET_PASS, _COVER = 100, 1_000, 2_000, 3_000_000, 4_000_000
_ANYWHERE: dict[int, Address] = {4: ipaddress.IPv4Address(0), 6: ipaddress.IPv6Address(0)}
_MULTICAST: dict[int, tuple[tuple[Address, int], ...]] = {
    4: ((ipaddress.IPv4Address("224.0.0.0"), 4), (ipaddress.IPv4Address("255.255.255.255"), 32)),
    6: ((ipaddress.IPv6Address("ff00::"), 8),),
}
_ICMP, _ICMPV6 = 1, 58
_FRAGMENTATION_NEEDED = (3, 4)
"""Type and code (RFC 1191 §4)."""
_PACKET_TOO_BIG = (2, 0)
"""RFC 4443 §3.2."""
_NEIGHBOUR_DISCOVERY = ((135, 0), (136, 0))
"""Solicitation and advertisement (RFC 4861 §4.3, §4.4). Those of routers come from link-local addresses or go
to multicast ones."""
_ALL = 0xFFFF
_CLIENTS = 0x8000
"""As port and as mask: all ports from 32768 on."""
EXEMPT = "exempt"
OUT_OPEN = 2.0
"""Seconds that packets still go out in clear after a pair came up. What the other end began it has by then, a
message later; and where this end began it, the other may have begun one at the same time."""
_OPENING_LASTS, _RENEWED = 60, 40.0
"""Seconds for which the kernel keeps an opening by itself, and after which it is renewed."""

Key: TypeAlias = tuple[object, ...]


class Ground(NamedTuple):
    """What passes whatever else is closed in this family: without it no network works."""

    version: int

    @property
    def key(self) -> Key:
        return (self.version,)

    def policies(self) -> Iterator[XfrmPolicy]:
        any_, protocol = _ANYWHERE[self.version], _ICMP if self.version == 4 else _ICMPV6
        too_big = _FRAGMENTATION_NEEDED if self.version == 4 else _PACKET_TOO_BIG

        def icmp(way: Direction, kind: tuple[int, int], priority: int) -> XfrmPolicy:
            ports = (protocol, kind[0]), (kind[1], _ALL, _ALL)
            return _policy(way, (any_, 0), (any_, 0), True, priority, *ports)

        if self.version == 6:
            for way in (Direction.IN, Direction.OUT):
                for kind in _NEIGHBOUR_DISCOVERY:
                    yield icmp(way, kind, _NEVER_CAUGHT)
        yield icmp(Direction.IN, too_big, _NEVER_CAUGHT)
        # Out it quotes a packet that came in, perhaps encrypted: it goes through charon's policies first.
        yield icmp(Direction.OUT, too_big, _LET_PASS)
        for group in _MULTICAST[self.version]:
            yield _policy(Direction.IN, (any_, 0), group, True, _LET_PASS)


class Cover(NamedTuple):
    """One network of peers, whole: no packet to or from it passes in clear if `closed`, each does if not."""

    network: Address
    bits: int
    closed: bool
    source: str
    """Who brought it: a peer's name, for one."""
    trapped: tuple[Address, ...] = ()
    """Addresses of this host from which a packet there has the kernel ask for an association: who is there
    is not known."""
    past: bool = False
    """Whether packets in clear pass charon's policies by as well, whatever it still holds."""

    @property
    def key(self) -> Key:
        return (self.network, self.bits)

    def policies(self) -> Iterator[XfrmPolicy]:
        them, anybody = (self.network, self.bits), (_ANYWHERE[self.network.version], 0)
        allow, priority = not self.closed, (_OPENING if self.past else _COVER) - 2 * self.bits
        for local in self.trapped:
            trap = _policy(Direction.OUT, (local, local.max_prefixlen), them, True, priority - 1)
            yield trap._replace(reqid=OWNER, optional=allow)
        yield _policy(Direction.OUT, anybody, them, allow, priority)
        yield _policy(Direction.IN, them, anybody, allow, priority)
        yield _policy(Direction.FORWARD, them, anybody, allow, priority)


class Exempt(NamedTuple):
    """What with a network stays in clear by choice, whatever charon does with the rest."""

    network: Address
    bits: int
    exemptions: tuple[Exemption, ...]
    source: str

    @property
    def key(self) -> Key:
        return (self.network, self.bits, EXEMPT)

    def policies(self) -> Iterator[XfrmPolicy]:
        them, anybody = (self.network, self.bits), (_ANYWHERE[self.network.version], 0)
        priority = _EXEMPT - self.bits
        for exemption in self.exemptions:
            protocol, port = exemption.protocol(self.network.version), exemption.port
            if not port:
                yield _policy(Direction.IN, them, anybody, True, priority, (protocol, 0))
                yield _policy(Direction.OUT, anybody, them, True, priority, (protocol, 0))
                continue
            # A packet from the service's port to a port below belongs to no connection to that service, but
            # could be one to any other: it is not let in.
            to_service = (protocol, _CLIENTS), (port, _CLIENTS, _ALL)
            from_service = (protocol, port), (_CLIENTS, _ALL, _CLIENTS)
            # connect() looks for a way before a port is chosen.
            unchosen = (protocol, 0), (port, _ALL, _ALL)
            yield _policy(Direction.OUT, anybody, them, True, priority, *unchosen)
            for ports in (to_service, from_service):
                yield _policy(Direction.IN, them, anybody, True, priority, *ports)
                yield _policy(Direction.OUT, anybody, them, True, priority, *ports)


class Opening(NamedTuple):
    """An address pair under a policy that allows clear text: packets in clear pass charon's policies by, so
    that none is lost that one end sends in clear and the other expects encrypted, or the other way round.
    They are taken in clear for as long as the policy holds, since the other end may cease to encrypt at any
    time; what is encrypted passes as well."""

    pair: AddressPair
    out: bool
    """Whether this host still sends in clear."""
    renewed: int = 0
    """Grows each time that it is to last anew: the kernel closes the way out by itself where no service is
    left to."""

    @property
    def key(self) -> Key:
        return (self.pair.local, self.pair.remote)

    def policies(self) -> Iterator[XfrmPolicy]:
        bits = self.pair.local.max_prefixlen
        local, remote = (self.pair.local, bits), (self.pair.remote, bits)
        ways = [(Direction.IN, remote, local), *([(Direction.OUT, local, remote)] if self.out else [])]
        for way, source, destination in ways:
            policy = _policy(way, source, destination, True, _OPENING - bits)
            yield policy._replace(lasts=_OPENING_LASTS if self.out else 0)


class Used(NamedTuple):
    """When packets in clear came to a network's policies last, in seconds since the epoch; 0 if none did.
    They were refused where it is closed, and passed where it is not."""

    out: int = 0
    into: int = 0


class Crossed(NamedTuple):
    """Packets that crossed in clear with an address, as the packet filter counted them."""

    out: int = 0
    into: int = 0


Part: TypeAlias = Ground | Cover | Exempt | Opening


def _policy(
    direction: Direction,
    source: tuple[Address, int],
    destination: tuple[Address, int],
    allow: bool,
    priority: int,
    source_port: tuple[int, int] = (0, 0),
    rest: tuple[int, int, int] = (0, 0, 0),
) -> XfrmPolicy:
    """`source_port` is protocol and port, `rest` the destination's port and the two masks."""
    return XfrmPolicy(*(direction, *source, *destination, *source_port, allow, 0, priority, 0, *rest, OWNER))


def peers_end(policy: XfrmPolicy) -> tuple[Address, int]:
    """Address and bits of the network that one of our policies is about: the key of its cover."""
    if policy.direction is Direction.OUT:
        return policy.destination, policy.destination_bits
    return policy.source, policy.source_bits


def closed(policies: Iterable[XfrmPolicy]) -> dict[str, Key]:
    """The networks that are closed whole, in words, with their keys."""
    ways: dict[Key, set[Direction]] = {}
    for policy in policies:
        if policy.owner == OWNER and not policy.allow:
            ways.setdefault(peers_end(policy), set()).add(policy.direction)
    return {f"{key[0]}/{key[1]}": key for key, found in ways.items() if found == set(Direction)}


def last_used(policies: Iterable[XfrmPolicy]) -> dict[Key, Used]:
    """When there was clear text with each network last, by its cover's key; what was exempted aside. How
    much, the kernel does not count for a policy (the packet filter does)."""
    found: dict[Key, Used] = {}
    for policy in policies:
        if policy.owner != OWNER or not policy.used:
            continue
        key = peers_end(policy)
        if policy.protocol or not key[1]:
            continue
        before = found.get(key, Used())
        if policy.direction is Direction.OUT:
            found[key] = before._replace(out=max(before.out, policy.used))
        else:
            found[key] = before._replace(into=max(before.into, policy.used))
    return found


def policies_of(part: Part | None) -> dict[Key, XfrmPolicy]:
    """Its kernel policies by selector."""
    return {} if part is None else {policy.selector: policy for policy in part.policies()}


def peer_covers(settings: Settings, peer: Peer, blocks: BlockTable) -> Iterator[Cover | Exempt]:
    """What the peer's own addresses take. One that passes in clear takes a cover where that is watched, a
    block around it is closed, or all is to pass whatever charon holds."""
    past = settings.override.disabled
    meaning, exemptions = settings.policy_of(peer).meaning, _exemptions(settings, peer)
    for address in peer.addresses:
        bits = address.max_prefixlen
        if meaning.closed or meaning.watched or past or _closed(settings, blocks.find(address)):
            yield Cover(address, bits, closed=meaning.closed, source=peer.name, past=past)
        if exemptions:
            yield Exempt(address, bits, exemptions, peer.name)


def block_covers(settings: Settings, blocks: BlockTable) -> Iterator[Cover | Exempt]:
    """What blocks and their exceptions take."""
    past = settings.override.disabled
    for rule in blocks.rules:
        network, closed = rule.network, _closed(settings, rule.block)
        asks = rule.block is not None and settings.policy_of(rule.block).meaning.connects
        trapped = [local for local in settings.host.addresses if asks and local.version == network.version]
        yield Cover(network.network_address, network.prefixlen, closed, BLOCKS, tuple(trapped), past)
        if rule.block is not None and (exemptions := _exemptions(settings, rule.block)):
            yield Exempt(network.network_address, network.prefixlen, exemptions, BLOCKS)
    for own in settings.host.addresses:
        if _closed(settings, blocks.find(own)):  # what a host sends to itself meets policies, over IPv6
            yield Cover(own, own.max_prefixlen, closed=False, source=BLOCKS)


def _closed(settings: Settings, block: Block | None) -> bool:
    return block is not None and settings.policy_of(block).meaning.closed


def _exemptions(settings: Settings, entry: Peer | Block) -> tuple[Exemption, ...]:
    return settings.exemptions_of(entry) if settings.policy_of(entry).meaning.connects else ()


def opening(pair: AddressPair, up_since: float | None, now: float) -> tuple[Opening, float | None]:
    """How an address pair under a policy that allows clear text is open, and until when. `up_since`: when its
    association was noticed to have come up, and any other that crossed it; None while none is."""
    if up_since is None:
        renewed = int(now // _RENEWED)
        return Opening(pair, True, renewed), (renewed + 1) * _RENEWED
    if now < up_since + OUT_OPEN:
        return Opening(pair, out=True), up_since + OUT_OPEN
    return Opening(pair, out=False), None
