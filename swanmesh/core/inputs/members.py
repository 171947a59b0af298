"""Hosts that nobody wrote down and that a block lets in: met by a packet of ours or by an association of
theirs, known by the identity that they prove, and forgotten again.

A host of a block is a peer whose name is its address. It has the usual connection for its address pair, only
that any identity of the mesh may stand behind it; what it begins itself comes in by the block's gate. Either
way its IKE_SAs belong to its own pair, and are judged by its address and its identity.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace

from swanmesh.core import reasons
from swanmesh.core.connections import Kind, connection_name, kind_of, met_under_block, text
from swanmesh.core.inputs.files import reconcile, unwant
from swanmesh.core.inputs.membership import refusal
from swanmesh.core.inputs.transitions import judge
from swanmesh.core.model import Address, AddressPair, Block, Peer
from swanmesh.core.observed import Holdings, IkeSa, LoadedConnection
from swanmesh.core.pairs.initiation import initiates
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.peers.members import NOBODY
from swanmesh.core.reasons import Reason
from swanmesh.core.state import State
from swanmesh.core.xfrm import Direction, XfrmPolicy

_KEPT = 3600.0
"""Seconds for which a member that is down is tried again; after that it is met anew, by the next packet."""
_MET = Reason("met-under-block", "a host of a block was met")
_CALLED = Reason("packet-for-block", "a packet to a host of a block that is not known yet")
_LONG_DOWN = Reason("peer-removed", "it has not answered for an hour; the next packet asks it again")
_LEFT_BLOCK = Reason("peer-removed", "no block lets it in any more")


def take_packet(state: State, local: Address, remote: Address, now: float) -> None:
    """The kernel holds, or would rather encrypt, a packet to a host of a block."""
    name = text(remote)
    if name in state.members:
        for pair in state.pairs.of(name):
            if pair.connection is not None and not pair.up and not pair.under_way:
                pair.attempt.next_at = min(pair.attempt.next_at, now)
                state.pairs.mark(pair)
        peer = state.members.get(name)
        if peer is None or local in peer.met_at:
            return
    if local in state.settings.host.addresses and block_of(state, remote) is not None:
        if name in state.members:
            _meet(state, local, remote, now, _CALLED)
        else:
            state.members.wait(local, remote, now)


def take_left_over(state: State, policies: Iterable[XfrmPolicy], now: float) -> None:
    """Policies of associations with hosts of blocks that nobody knows: a charon that was killed left them and
    this service began afterwards. Whoever was met before is asked again."""
    if not state.registry.table:
        return
    for policy in policies:
        theirs = policy.direction is Direction.OUT and policy.single_hosts and policy.reqid
        if theirs and not policy.owner and text(policy.destination) not in state.members:
            take_packet(state, policy.source, policy.destination, now)


def step_members(state: State, now: float) -> None:
    """Look again at what changed, and ask the next hosts."""
    if state.members_of is not state.registry.table:
        state.members_of = state.registry.table
        state.members.review_all()
    for name in state.members.take_review():
        _review(state, name, now)
    while state.charon.reachable and state.members.next_ready:
        local, remote = state.members.next()
        if block_of(state, remote) is not None and local in state.settings.host.addresses:
            _meet(state, local, remote, now, _CALLED)
            for pair in state.pairs.of(text(remote)):
                pair.attempt.next_at = now


def members_due(state: State) -> bool:
    """Whether `step_members` has something to do."""
    stale = state.members_of is not state.registry.table
    return stale or state.members.restless or (state.charon.reachable and state.members.next_ready)


def block_of(state: State, address: Address) -> Block | None:
    """The block that lets in the host with this address; None if none does, or a file says otherwise."""
    if address in state.settings.host.addresses or state.registry.at(address) is not None:
        return None
    block = state.registry.table.find(address)
    if block is None or not state.settings.policy_of(block).meaning.connects:
        return None
    return block


def recall(state: State, holdings: Holdings, now: float) -> None:
    """What stands under blocks when charon answers: whoever it is with was met before this service began."""
    state.members.ike_sas.clear()
    for sa in holdings.sas:
        pair_of(state, sa, now)
    for connection in holdings.connections:
        remote = met_under_block(connection.name)
        if remote is not None and _is_shunt(connection):
            _recall_held_down(state, connection.name, remote, now)


def _is_shunt(connection: LoadedConnection) -> bool:
    return any(kind_of(child) in (Kind.DROP, Kind.PASS) for child in connection.children)


def _recall_held_down(state: State, name: str, remote: Address, now: float) -> None:
    """What the operator's `down` left of a host of a block: its connection's name tells its address alone."""
    for local in state.settings.host.addresses:
        here = connection_name(text(remote), AddressPair(local, remote)) == name
        if here and block_of(state, remote) is not None:
            _meet(state, local, remote, now, _MET)


def pair_of(state: State, sa: IkeSa, now: float) -> Pair | None:
    """The pair that an IKE_SA belongs to: its connection's, but for those that stand under blocks. None if
    there is none."""
    members, pair = state.members, state.pairs.get(sa.connection)
    if sa.unique_id in members.ike_sas and (known := state.pairs.get(members.ike_sas[sa.unique_id])):
        _note_identity(state, known, sa)
        return known
    if pair is None:
        under_block = met_under_block(sa.connection) is not None
    else:
        under_block = _is_gate(pair) or pair.peer in members
    if not under_block or not sa.established:
        return pair
    addresses = _addresses(sa)
    owner = _of_file(state, sa, addresses) or _of_member(state, addresses, now) if addresses else None
    if owner is None:
        return pair
    members.ike_sas[sa.unique_id] = owner.name
    _note_identity(state, owner, sa)
    return owner


def forget_ike_sas(state: State, shown: Iterable[int]) -> None:
    """Those that charon no longer shows."""
    known = state.members.ike_sas
    for unique_id in known.keys() - set(shown):
        del known[unique_id]


def _is_gate(pair: Pair) -> bool:
    return pair.connection is not None and pair.connection.kind is Kind.GATE


def _addresses(sa: IkeSa) -> AddressPair | None:
    try:
        return AddressPair(ipaddress.ip_address(sa.local_host), ipaddress.ip_address(sa.remote_host))
    except ValueError:
        return None


def _of_file(state: State, sa: IkeSa, addresses: AddressPair) -> Pair | None:
    """The pair of a peer that has both this identity and this address by its file, which came later."""
    peer = state.registry.at(addresses.remote)
    if peer is None or peer.name != sa.remote_id.lower():
        return None
    return state.pairs.get(connection_name(peer.name, addresses))


def _of_member(state: State, addresses: AddressPair, now: float) -> Pair | None:
    if addresses.local not in state.settings.host.addresses or block_of(state, addresses.remote) is None:
        return None
    _meet(state, addresses.local, addresses.remote, now, _MET)
    return state.pairs.get(connection_name(text(addresses.remote), addresses))


def _meet(state: State, local: Address, remote: Address, now: float, why: Reason) -> None:
    name, block = text(remote), block_of(state, remote)
    assert block is not None  # noqa: S101 - the caller asked
    known = state.members.get(name)
    if known is not None and local in known.met_at:
        return
    if known is None:
        known = Peer(
            name=name, addresses=(remote,), policy=block.policy, source=block.source, block=block.name
        )
    peer = replace(known, met_at=(*known.met_at, local))
    state.members.put(peer)
    reconcile(state, name, peer, now, why)


def _note_identity(state: State, pair: Pair, sa: IkeSa) -> None:
    """A host of a block proved who it is. Both ends then know who initiates."""
    peer, identity = state.members.get(pair.peer), sa.remote_id.lower()
    if peer is None or not sa.established or not identity or identity == peer.proved:
        return
    if refusal(state, sa, peer.name):
        return
    state.members.put(replace(peer, proved=identity))
    for other in state.pairs.of(peer.name):
        other.initiator = initiates(state.settings.host.name, identity)


def _review(state: State, name: str, now: float) -> None:
    """Whether a host of a block is still one, and worth to be tried."""
    peer = state.members.get(name)
    if peer is None:
        return
    block = block_of(state, peer.addresses[0])
    pairs = [pair for pair in state.pairs.of(name) if pair.connection is not None]
    if block is None or not pairs:
        _hand_over(state, pairs, now)
        _leave(state, peer, _LEFT_BLOCK)
        return
    if (block.name, block.policy, block.source) != (peer.block, peer.policy, peer.source):
        peer = replace(peer, block=block.name, policy=block.policy, source=block.source)
        state.members.put(peer)
        reconcile(state, name, peer, now, reasons.SETTINGS_CHANGED)
    if name in state.down or any(pair.up or pair.under_way or not pair.attempt.failed for pair in pairs):
        return
    if not peer.proved:
        cause = next((pair.standing.cause for pair in pairs if pair.standing.cause), NOBODY)
        state.members.note_stranger(peer.addresses[0], cause, now)
        _leave(state, peer, NOBODY)
    elif all(now - pair.standing.since >= _KEPT for pair in pairs):
        _leave(state, peer, _LONG_DOWN)


def _hand_over(state: State, pairs: Iterable[Pair], now: float) -> None:
    """What stands with a host that has a file now goes on as that peer's, if it is as agreed with it."""
    for pair in pairs:
        if pair.addresses is None or (peer := state.registry.at(pair.addresses.remote)) is None:
            continue
        heir = state.pairs.get(connection_name(peer.name, pair.addresses))
        if heir is None or heir.associations.agreement is None:
            continue
        for unique_id, sa in list(pair.sas.items()):
            if sa.works and sa.remote_id and not heir.associations.breach(sa):
                heir.sas[unique_id] = pair.sas.pop(unique_id)
                if unique_id in pair.associations.times:
                    heir.associations.times[unique_id] = pair.associations.times.pop(unique_id)
                state.members.ike_sas[unique_id] = heir.name
        judge(state, heir, now)


def _leave(state: State, peer: Peer, reason: Reason) -> None:
    state.members.forget(peer.name)
    state.down.discard(peer.name)
    if peer.proved:
        state.leaving[peer.name] = peer
    for pair in state.pairs.of(peer.name):
        if pair.connection is not None:
            unwant(state, pair, reason)
