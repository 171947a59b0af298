"""Peers that would be removed, because their file is gone, or because charon knows them and no file does; and
those that are."""

from __future__ import annotations

from collections.abc import Iterable

from swanmesh.core.connections import met_under_block
from swanmesh.core.desired import desired, gates
from swanmesh.core.inputs.files import peers_changed
from swanmesh.core.inputs.guard import cover_peer
from swanmesh.core.model import Block, Problem
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.peers.registry import Entry, PeerRegistry
from swanmesh.core.peers.removals import WAYS_OUT, some, too_many
from swanmesh.core.reasons import FILE_GONE, NONE, Reason
from swanmesh.core.state import State


def take_files(
    state: State,
    put: Iterable[Entry],
    drop: Iterable[str],
    now: float,
    gone: Iterable[str] = (),
    broken: Iterable[str] = (),
) -> frozenset[str]:
    """What the files say now. Returns the names of the peers that changed."""
    removals = state.registry.removals
    was_held = removals.held
    names, leaving = state.registry.take(put, drop, gone, broken, now)
    state.leaving |= leaving
    if removals.held and not was_held:
        state.emit("removal-held", reason=_reason(_gone_problem(state.registry)))
    peers_changed(state, names, now)
    look_at_unknown(state)
    return names


def look_at_unknown(state: State, *, news: bool = False) -> None:
    """Leave alone what charon holds of peers that no file describes, where a file may describe them after all
    or they are too many. `news`: charon was looked at, so there may be more of them."""
    removals, doubt = state.registry.removals, state.registry.doubt
    if not (news or doubt or state.hold or removals.unknown or removals.let_go):
        return
    pairs = [pair for pair in state.pairs if pair.connection is None]
    names = frozenset(p.peer for p in pairs if p.peer and _is_unknown(state, p)) - set(state.leaving)
    removals.let_go &= names
    unknown = names - removals.let_go
    if removals.unknown or too_many(len(unknown), len(state.registry.peers) + len(unknown)):
        news = not removals.unknown
        removals.unknown = unknown
        if news:
            state.emit("removal-held", reason=_reason(_unknown_problem(unknown)))
    state.hold = doubt or (_reason(_unknown_problem(removals.unknown)) if removals.unknown else NONE)
    for pair in pairs:
        goes = pair.peer in removals.let_go or pair.peer in state.leaving
        left_alone = NONE if goes else state.hold
        if pair.left_alone != left_alone:
            pair.left_alone = left_alone
            state.pairs.mark(pair)


def _is_unknown(state: State, pair: Pair) -> bool:
    """Whether nothing says any more what charon holds there. A connection with a host of a block goes when
    nothing stands under it: the host is met again by the next packet."""
    if state.registry.entry(pair.peer) is not None or state.peer(pair.peer) is not None:
        return False
    address = met_under_block(pair.name)
    return address is None or state.registry.table.find(address) is None


def prefer_what_is_held(state: State, now: float) -> None:
    """Where files contradict each other at the start, charon tells which were in force before."""

    def held(entry: Entry) -> bool:
        names = (
            list(gates(state.settings, entry))
            if isinstance(entry, Block)
            else list(desired(state.settings, entry))
        )
        loaded = [state.pairs.get(name) for name in names]
        return bool(loaded) and all(pair is not None and pair.loaded for pair in loaded)

    peers_changed(state, state.registry.prefer(held), now)


def confirm(state: State, now: float) -> list[str]:
    """Let happen what is held. Returns the names of the peers that go."""
    names, removals = held(state), state.registry.removals
    if names:
        state.guard.let_go = True
        state.kernel.want(now, Reason("operator", "the operator confirmed what is held"))
    removals.unknown, removals.let_go = frozenset(), removals.unknown
    take_files(state, (), list(removals) if removals.held else (), now)
    return names


def held(state: State) -> list[str]:
    """Names of the peers that would be removed, were it not for the brake."""
    registry = state.registry
    held = {peer.name for peer in registry.held.values()} | registry.removals.unknown
    return sorted(held | state.guard.unaccounted)


def held_problems(state: State) -> list[Problem]:
    """What is held, in words."""
    registry = state.registry
    gone = [_gone_problem(registry)] if registry.held else []
    unknown = [_unknown_problem(registry.removals.unknown)] if registry.removals.unknown else []
    return [*gone, *unknown, *([_guard_problem(state.guard.unaccounted)] if state.guard.unaccounted else [])]


def forget(state: State, pair: Pair) -> None:
    """A pair that is neither wanted nor held by charon is over; with its last one its peer is."""
    if pair.connection is not None or pair.busy or pair.loaded is not None or pair.sas:
        return
    state.pairs.remove(pair)
    if pair.addresses is not None:
        state.guard.want((pair.addresses.local, pair.addresses.remote), None)
        cover_peer(state, pair.peer)
    if not state.pairs.of(pair.peer):
        _removed(state, pair.peer)


def forget_gone(state: State) -> None:
    """Peers that left without having had a pair, under the policy `off` for one."""
    for name in list(state.leaving):
        if not state.pairs.of(name):
            _removed(state, name)


def _removed(state: State, name: str) -> None:
    peer = state.leaving.pop(name, None)
    if peer is not None:
        state.emit("peer-removed", peer, FILE_GONE)


def _gone_problem(registry: PeerRegistry) -> Problem:
    gone = [peer.name for peer in registry.held.values()]
    folder = next(iter(registry.held)).rpartition("/")[0]
    message = (
        f"the files of {len(gone)} of {len(registry.peers)} peers are gone ({some(gone)}): "
        "nobody is removed, they stay in force"
    )
    return Problem(folder, "", "", message, WAYS_OUT)


def _unknown_problem(names: frozenset[str]) -> Problem:
    message = (
        f"holds connections with {len(names)} peers that no file describes ({some(names)}): "
        "nobody is removed, they stay as they are"
    )
    return Problem("charon", "", "", message, WAYS_OUT)


def _guard_problem(networks: frozenset[str]) -> Problem:
    message = (
        f"is closed to clear text with {len(networks)} addresses that no file describes ({some(networks)}): "
        "it stays so"
    )
    return Problem("the kernel's guard", "", "", message, WAYS_OUT)


def _reason(problem: Problem) -> Reason:
    return Reason("removal-held", str(problem))
