"""Desired connections: what charon should hold for a peer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import lru_cache

from swanmesh.core.abilities import UNKNOWN, Abilities, dpd_delay, proposals
from swanmesh.core.connections import ANYBODY, Connection, Kind, Terms, connection_name, make_connection, text
from swanmesh.core.encapsulation import Mode
from swanmesh.core.model import REAUTH, Address, AddressBlock, AddressPair, Block, Peer, Settings

_OVER = 90
_NEIGHBOUR_DISCOVERY = (135, 136)
"""ICMPv6 types of solicitation and advertisement (RFC 4861 §4.3, §4.4)."""


def address_pairs(settings: Settings, peer: Peer) -> Iterator[AddressPair]:
    """Every local address with every address of the peer's of its family."""
    for local in settings.host.addresses:
        if peer.met_at and local not in peer.met_at:
            continue
        for remote in peer.addresses:
            if local.version == remote.version:
                yield AddressPair(local, remote)


def _plain(_: str) -> Mode:
    return Mode.PLAIN


def desired(
    settings: Settings, peer: Peer, charon: Abilities = UNKNOWN, modes: Callable[[str], Mode] = _plain
) -> dict[str, tuple[AddressPair, Connection]]:
    """The connections that should be loaded into this charon for the peer, by name."""
    policy = settings.policy_of(peer).meaning
    if not policy.connects:
        return {}
    found = {}
    for pair in address_pairs(settings, peer):
        name = connection_name(peer.name, pair)
        connection = make_connection(
            name=name,
            peer=ANYBODY if peer.block else peer.name,
            host=settings.host.name,
            kind=Kind.ASSOCIATION,
            # What a block closes is closed in the kernel, without charon.
            trap=policy.trap and not peer.block,
            addresses=pair,
            local_ts=_selectors(pair.local),
            remote_ts=_selectors(pair.remote),
            agreed=terms(settings, charon, modes(name)),
        )
        found[name] = (pair, connection)
    return found


def gates(
    settings: Settings, block: Block, charon: Abilities = UNKNOWN
) -> dict[str, tuple[AddressBlock, Connection]]:
    """The connections by which hosts of the block may begin associations with this one, by name.

    `dynamic` is the one address that asks. With a network in its place charon, as responder, would fall back
    to tunnel mode (ikev2/tasks/child_create.c)."""
    if not settings.policy_of(block).meaning.connects:
        return {}
    found = {}
    for local in settings.host.addresses:
        if local.version != block.cidr.version:
            continue
        place = AddressBlock(local, block.cidr)
        name = connection_name(block.name, place)
        connection = make_connection(
            name=name,
            peer=ANYBODY,
            host=settings.host.name,
            kind=Kind.GATE,
            trap=False,
            addresses=place,
            local_ts=_selectors(local),
            remote_ts=("dynamic",),
            agreed=terms(settings, charon),
        )
        found[name] = (place, connection)
    return found


def down(settings: Settings, peer: Peer, pair: AddressPair) -> Connection:
    """What stands in a connection's place while the operator holds the peer down: no negotiation, and a shunt
    that drops the pair's packets, or lets them pass where the policy allows clear text."""
    closed = settings.policy_of(peer).meaning.closed
    return make_connection(
        name=connection_name(peer.name, pair),
        peer=peer.name,
        host=settings.host.name,
        kind=Kind.DROP if closed else Kind.PASS,
        local_ts=_selectors(pair.local),
        remote_ts=_selectors(pair.remote),
    )


def neighbour_discovery(settings: Settings) -> Connection | None:
    """A shunt that lets IPv6 neighbour discovery pass in clear; None on a host without IPv6.

    The answers go from host address to host address, so traps would hold them back, IKE would have no link
    address to send to, and no association could ever come up. Pass policies outrank traps and associations
    (libcharon plugins/kernel_netlink/kernel_netlink_ipsec.c, get_priority)."""
    if all(address.version == 4 for address in settings.host.addresses):
        return None
    return make_connection(
        name=f"swanmesh-neighbour-discovery-{hashlib.sha256(b'shunt').hexdigest()[:8]}",
        peer="",
        host="",
        kind=Kind.PASS,
        local_ts=tuple(f"::/0[ipv6-icmp/{kind << 8}]" for kind in _NEIGHBOUR_DISCOVERY),
        remote_ts=("::/0[ipv6-icmp]",),
    )


def terms(settings: Settings, charon: Abilities, mode: Mode = Mode.PLAIN) -> Terms:
    """What this host negotiates by: one value, which thousands of connections share.

    To charon, a connection that accepts encapsulation differs from a plain one by a second of `dpd_delay`."""
    agreed = _terms(settings, charon)
    if mode is Mode.FORCED:
        return replace(agreed, encap=True)
    return replace(agreed, dpd_delay=agreed.dpd_delay + 1) if mode is Mode.ACCEPTED else agreed


@lru_cache(maxsize=2)
def _terms(settings: Settings, charon: Abilities) -> Terms:
    how = settings.connection
    ike, esp = proposals(how, charon)
    kept = {field.name: getattr(how, field.name) for field in fields(how)} | {
        "ike_proposals": ike,
        "esp_proposals": esp,
        "ike_reauth": REAUTH,  # ours is no affair of charon's (`decide/reauthentication.py`)
        "dpd_delay": dpd_delay(how, charon),
    }
    return Terms(
        **kept,
        # charon compares authorities as a set (libstrongswan credentials/auth_cfg.c, equals).
        authorities=tuple(sorted(set(settings.credentials.authorities))),
        ike_over=_over(how.ike_rekey),
        child_over=_over(how.child_rekey),
        # Despite its name `ifuri` accepts where there is no list at all, and not where one is past its date
        # (libstrongswan plugins/revocation/revocation_validator.c).
        revocation="ifuri" if settings.crl_expired == "refuse" else "",
    )


def _over(life: int) -> int:
    """What charon gives by itself, a tenth, but never less than lost packets and exchanges that meet take: it
    puts off a reauthentication that meets a rekey, and ends what is late (seen in the lab with 2.5 s: 16 of
    101 reauthentications ended an association that worked)."""
    return max(_OVER, life // 10)


@lru_cache(maxsize=64)
def _selectors(address: Address) -> tuple[str, ...]:
    """This address alone, as charon prints it."""
    return (f"{text(address)}/{address.max_prefixlen}",)
