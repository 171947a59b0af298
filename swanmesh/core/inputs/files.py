"""From the peers in force to what each address pair should have loaded."""

from __future__ import annotations

from collections.abc import Iterable

from swanmesh.core import reasons
from swanmesh.core.connections import ANYBODY, SHORTER, Connection, Kind, differences, text
from swanmesh.core.decide.encapsulation import may_use_udp
from swanmesh.core.desired import desired, down, gates, neighbour_discovery
from swanmesh.core.encapsulation import Mode
from swanmesh.core.inputs.guard import cover_blocks, cover_peer
from swanmesh.core.inputs.membership import not_let_in, refusal
from swanmesh.core.inputs.transitions import first_attempt, judge, judge_peer
from swanmesh.core.model import AddressPair, Block, Peer
from swanmesh.core.pairs.agreement import Agreement
from swanmesh.core.pairs.initiation import initiates
from swanmesh.core.pairs.pair import Pair, Refusals, Standing
from swanmesh.core.reasons import NONE, Reason
from swanmesh.core.state import State


def peers_changed(state: State, names: Iterable[str], now: float, why: Reason = NONE) -> None:
    """The registry has another word on these peers. `why` names a cause that lies elsewhere (settings)."""
    for name in sorted(names):  # the order of a set differs from run to run, and each takes random numbers
        entry = state.registry.entry(name)
        if isinstance(entry, Block) or _is_block(state, name):
            _reconcile_block(state, name, entry if isinstance(entry, Block) else None, now, why)
        if not isinstance(entry, Block):
            reconcile(state, name, state.peer(name), now, why)


def _is_block(state: State, name: str) -> bool:
    pairs = state.pairs.of(name)
    return any(pair.connection is not None and pair.connection.kind is Kind.GATE for pair in pairs)


def _reconcile_block(state: State, name: str, block: Block | None, now: float, why: Reason) -> None:
    """What lets the hosts of a block in. The hosts themselves are looked at in the next step."""
    wanted = gates(state.settings, block, state.charon.abilities) if block is not None else {}
    cover_blocks(state)
    for pair in state.pairs.of(name):
        if pair.connection is not None and pair.name not in wanted:
            unwant(state, pair, reasons.BLOCK_REMOVED)
    for _, connection in wanted.values():
        pair = state.pairs.get(connection.name) or state.pairs.add(
            Pair(name=connection.name, peer=name, standing=Standing(since=now))
        )
        if pair.connection == connection:
            continue
        pair.reason = reasons.NEW_BLOCK
        if pair.connection is not None:
            pair.reason = why or _difference(pair.connection, connection)
        pair.connection, pair.left_alone, pair.refusals = connection, NONE, Refusals()
        pair.associations.agreement = Agreement(
            local="",
            remote="",
            local_ts=(),
            remote_ts=(),
            local_name=state.settings.host.name,
            remote_name=ANYBODY,
            encapsulated=state.settings.connection.encap,
            admits=not_let_in,
        )
        state.pairs.mark(pair)


def everybody(state: State) -> set[str]:
    """Names of all peers, blocks and hosts met under these."""
    return {
        *(entry.name for entry in state.registry.in_force.values()),
        *(peer.name for peer in state.members),
    }


def host_changed(state: State, now: float) -> None:
    """What this host needs loaded whoever its peers are."""
    shunt = neighbour_discovery(state.settings)
    known = state.pairs.of("")
    if shunt is None:
        for pair in known:
            unwant(state, pair, reasons.NO_IPV6)
        return
    pair = state.pairs.get(shunt.name) or state.pairs.add(
        Pair(name=shunt.name, peer="", standing=Standing(since=now))
    )
    if pair.connection != shunt:
        pair.connection, pair.reason = shunt, reasons.DISCOVERY
        state.pairs.mark(pair)


def reconcile(state: State, name: str, peer: Peer | None, now: float, why: Reason) -> None:
    """What this peer, or host of a block, should have loaded; None if it is gone."""
    wanted = wanted_connections(state, peer)
    known = {pair.name: pair for pair in state.pairs.of(name) if pair.connection is not None}
    added = not known and bool(wanted)
    for pair in known.values():
        if pair.name not in wanted:
            reason = reasons.PEER_REMOVED if peer is None else reasons.ADDRESS_REMOVED
            unwant(state, pair, reasons.DISABLED if state.settings.override.disabled else reason)
    for addresses, connection in wanted.values():
        assert peer is not None  # noqa: S101  (wanted is empty without it)
        _want(state, peer, addresses, connection, now, why)
    if peer is None:
        state.down.discard(name)
    else:
        state.leaving.pop(name, None)
        for address in peer.addresses:
            state.members.review(text(address))
        if added and state.observed_once and not peer.block:
            state.emit("peer-added", peer, why or reasons.NEW_PEER)
    cover_peer(state, name)
    judge_peer(state, name)


def wanted_connections(
    state: State, peer: Peer | None, mode: Mode | None = None
) -> dict[str, tuple[AddressPair, Connection]]:
    """What charon should hold for the peer, each as its pair's encapsulation stands, or all in one mode."""

    def modes(name: str) -> Mode:
        pair = state.pairs.get(name)
        known = pair.udp.mode if pair is not None else Mode.PLAIN
        return (mode or known) if state.settings.automatic_encapsulation else Mode.PLAIN

    return desired(state.settings, peer, state.charon.abilities, modes) if peer is not None else {}


def _want(
    state: State, peer: Peer, addresses: AddressPair, connection: Connection, now: float, why: Reason
) -> None:
    if peer.name in state.down:
        connection = down(state.settings, peer, addresses)
    pair = state.pairs.get(connection.name)
    if pair is None:
        pair = state.pairs.add(Pair(name=connection.name, peer=peer.name, standing=Standing(since=now)))
    before, was_down = pair.connection, pair.held_down
    if before == connection:
        if peer.block:
            state.pairs.mark(pair)  # its policy is in the guard alone
        return
    if before is None:
        pair.reason = why if peer.block and why else reasons.NEW_PEER
    else:
        pair.reason = why or _difference(before, connection)
    pair.addresses, pair.connection, pair.left_alone = addresses, connection, NONE
    # A host of a block is initiated by who has a packet for it, until it has proved who it is.
    unproven = bool(peer.block) and not peer.proved
    pair.initiator = unproven or initiates(state.settings.host.name, peer.title)
    pair.associations.agreement = Agreement(
        local=text(addresses.local),
        remote=text(addresses.remote),
        local_ts=connection.local_ts,
        remote_ts=connection.remote_ts,
        local_name=state.settings.host.name,
        remote_name=ANYBODY if peer.block else peer.name,
        encapsulated=may_use_udp(state, pair),
        automatic=state.settings.automatic_encapsulation,
        admits=(lambda sa: refusal(state, sa, peer.name)) if peer.block else None,
        slack=connection.terms.ike_rekey / SHORTER if connection.terms is not None else 0.0,
    )
    pair.associations.addresses_match = state.settings.addresses == "match"
    pair.refusals = Refusals()
    if pair.held_down != was_down:
        pair.standing.since = now
    if not pair.up:
        pair.standing.cause = NONE
        # A peer that is new to a mesh that runs may have called before its file came here, and been refused.
        first_attempt(state, pair, now, shortly=before is None and state.observed_once)
    judge(state, pair, now)


def unwant(state: State, pair: Pair, reason: Reason) -> None:
    """Nothing of it should be loaded any more."""
    pair.connection, pair.reason = None, reason
    pair.refusals = Refusals()
    pair.attempt.began = None
    state.admission.release(pair.name)
    state.pairs.mark(pair)


def _difference(old: Connection, new: Connection) -> Reason:
    """What of the connection changed, for the reason."""
    changed = differences(old, new)
    return Reason("changed", f"changed: {', '.join(changed)}" if changed else "changed")
