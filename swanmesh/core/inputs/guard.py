"""What the guard is made of: the peers in force, and how their address pairs stand. And what becomes of
it."""

from __future__ import annotations

from ipaddress import ip_network

from swanmesh.core.actions import ChangeGuard
from swanmesh.core.guard.policies import BLOCKS, OUT_OPEN, Cover, block_covers, opening, peer_covers
from swanmesh.core.model import Address, Network
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.state import State


def cover_peer(state: State, name: str) -> None:
    """A peer's file, or what is left of a peer in charon, changed. An address that is the peer's no more
    stays covered until charon has nothing of it left; another policy is in force at once."""
    peer = state.registry.named(name)
    covers = peer_covers(state.settings, peer, state.registry.table) if peer is not None else ()
    left = {pair.addresses.remote for pair in state.pairs.of(name) if pair.addresses is not None}
    state.guard.cover(name, covers, left.difference(peer.addresses if peer is not None else ()))


def cover_blocks(state: State) -> None:
    """Blocks changed, and with them the peers whose addresses lie in them."""
    state.guard.cover(BLOCKS, block_covers(state.settings, state.registry.table))
    for peer in state.registry.peers.values():
        cover_peer(state, peer.name)


def open_pair(state: State, pair: Pair, now: float) -> float | None:
    """How a pair is open between clear and encrypted. Returns when that changes if nothing happens before."""
    if pair.addresses is None or not pair.peer:
        return None
    peer, key = state.peer(pair.peer), (pair.addresses.local, pair.addresses.remote)
    policy = state.settings.policy_of(peer).meaning if peer is not None else None
    if policy is None or policy.closed:
        state.guard.want(key, None)
        return None
    if pair.connection is None or pair.connection.shunt:
        # What charon still has of it is ended, and must hold nothing back meanwhile, however long that takes.
        part, due = opening(pair.addresses, None, now)
        state.guard.want(key, part)
        return due
    if not state.charon.reachable:
        return None  # what stands in the kernel goes on as it is
    part, due = opening(pair.addresses, up_since(pair), now)
    state.guard.want(key, part)
    return due


def up_since(pair: Pair) -> float | None:
    """When the pair came up; or when another association showed beside the first, as long as it was open
    outwards: the kernel sends on the newest, whoever began it. A later one is an authentication anew."""
    noticed, crossed = pair.standing.noticed, pair.extra_since
    if not pair.up:
        return None
    return crossed if crossed is not None and noticed < crossed < noticed + OUT_OPEN else noticed


def change_guard(state: State, now: float) -> ChangeGuard | None:
    """The next change to the kernel's policies that is due."""
    reason = state.guard.reason
    change = state.guard.change(now)
    return None if change is None else ChangeGuard(change=change, reason=reason)


def guard_changed(state: State, action: ChangeGuard, error: str | None, now: float) -> None:
    """The outcome: connections that waited for it go on."""
    state.guard.done(action.change, error, now)
    waiting, state.guard.waiting = state.guard.waiting, set()
    for name in waiting:
        if (pair := state.pairs.get(name)) is not None:
            state.pairs.mark(pair)


def watch_guard(state: State, *, watched: bool) -> None:
    """The kernel can be looked at from now on, or cannot."""
    state.guard.watched(watched)
    for name in state.guard.waiting:
        if (pair := state.pairs.get(name)) is not None:
            state.pairs.mark(pair)


def tidy(state: State) -> bool:
    """Whether the guard may let go what no file accounts for: charon was asked what it holds of unknown
    peers, and nothing of them is left, nor left alone in doubt."""
    gone = not any(pair.connection is None and pair.peer for pair in state.pairs)
    return state.observed_once and not state.hold and not state.registry.doubt and gone


def members_addresses(state: State) -> frozenset[Address | Network]:
    """Where members are that connections stand with."""
    settings, registry = state.settings, state.registry
    peers = (peer for peer in registry.peers.values() if settings.policy_of(peer).meaning.connects)
    blocks = (block for block in registry.blocks if settings.policy_of(block).meaning.connects)
    return frozenset((*(a for peer in peers for a in peer.addresses), *(block.cidr for block in blocks)))


def clear_watched(state: State) -> frozenset[Address | Network]:
    """Peers' addresses and blocks whose clear text the guard refuses or watches."""
    own = state.settings.host.addresses
    covers = (part for part in state.guard.wanted.values() if isinstance(part, Cover))
    return frozenset(
        cover.network
        if cover.bits == cover.network.max_prefixlen
        else ip_network((cover.network, cover.bits))
        for cover in covers
        if cover.network not in own
    )


def encapsulating(state: State) -> frozenset[Address]:
    """Addresses whose pairs use UDP encapsulation."""
    found = ((pair.addresses, pair.associations.agreement) for pair in state.pairs)
    return frozenset(
        addresses.remote
        for addresses, agreement in found
        if addresses is not None and agreement is not None and agreement.encapsulated
    )
