"""From the peers in force to what each address pair should have loaded."""

from __future__ import annotations

from collections.abc import Iterable

from swanmesh.core.actions import Connection
from swanmesh.core.connections import desired, down, neighbour_discovery
from swanmesh.core.decide.initiation import initiates
from swanmesh.core.model import AddressPair, Peer
from swanmesh.core.pair import Pair
from swanmesh.core.state import State
from swanmesh.core.transitions import first_attempt, judge_peer


def peers_changed(state: State, names: Iterable[str], now: float, why: str = "") -> None:
    """The book has another word on these peers. `why` names a cause that lies elsewhere (settings)."""
    for name in sorted(names):  # the order of a set differs from run to run, and each takes random numbers
        _reconcile(state, name, state.book.named(name), now, why)


def host_changed(state: State, now: float) -> None:
    """What this host needs loaded whoever its peers are."""
    shunt = neighbour_discovery(state.settings)
    known = state.pairs.of("")
    if shunt is None:
        for pair in known:
            _unwant(state, pair, "this host has no IPv6 address any more")
        return
    pair = state.pairs.get(shunt.name) or state.pairs.add(Pair(name=shunt.name, peer="", since=now))
    if pair.connection != shunt:
        pair.connection, pair.reason = shunt, "IPv6 neighbour discovery must pass while traps stand"
        state.pairs.mark(pair)


def _reconcile(state: State, name: str, peer: Peer | None, now: float, why: str) -> None:
    wanted = desired(state.settings, peer) if peer is not None else {}
    known = {pair.name: pair for pair in state.pairs.of(name) if pair.connection is not None}
    added = not known and bool(wanted)
    for pair in known.values():
        if pair.name not in wanted:
            _unwant(
                state, pair, "peer removed" if peer is None else "address or policy removed from the peer"
            )
    for addresses, connection in wanted.values():
        assert peer is not None  # noqa: S101  (wanted is empty without it)
        _want(state, peer, addresses, connection, now, why)
    if peer is None:
        state.down.discard(name)
    else:
        state.leaving.pop(name, None)
        if added and state.observed_once:
            state.tell("peer-added", peer, why or "new peer")
    judge_peer(state, name)


def _want(
    state: State, peer: Peer, addresses: AddressPair, connection: Connection, now: float, why: str
) -> None:
    disabled = peer.name in state.down
    if disabled:
        connection = down(state.settings, peer, addresses)
    pair = state.pairs.get(connection.name)
    if pair is None:
        pair = state.pairs.add(Pair(name=connection.name, peer=peer.name, since=now))
    fresh = pair.connection is None
    if not fresh and pair.connection == connection and pair.disabled == disabled:
        return
    if fresh:
        pair.reason = "new peer"
    else:
        pair.reason = why or _difference(pair.connection, connection)
    pair.addresses, pair.connection, pair.disabled, pair.stays = addresses, connection, disabled, ""
    pair.ours = initiates(state.settings.host.name, peer.name)
    pair.error, pair.retry_at, pair.failures = "", 0.0, 0
    if not pair.up:
        first_attempt(state, pair, now)
    state.pairs.mark(pair)


def _unwant(state: State, pair: Pair, reason: str) -> None:
    pair.connection, pair.reason, pair.disabled = None, reason, False
    pair.error, pair.retry_at, pair.failures = "", 0.0, 0
    pair.in_flight = None
    state.admission.release(pair.name)
    state.pairs.mark(pair)


def _difference(old: Connection | None, new: Connection) -> str:
    """Which keys of the connection changed, for the reason."""
    before = _flat(old) if old is not None else {}
    after = _flat(new)
    changed = [key for key in before | after if before.get(key) != after.get(key)]
    return f"changed: {', '.join(changed)}" if changed else "changed"


def _flat(connection: Connection) -> dict[str, object]:
    body: dict[str, object] = dict(connection.body)
    children = body.pop("children", {})
    child = children[connection.child] if isinstance(children, dict) else {}
    return body | (child if isinstance(child, dict) else {})
