"""What the operator asked for, and whether it is so: charon may hang, and a peer may not answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from swanmesh.core.model import Peer
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.state import State
from swanmesh.core.verdict import peer_verdict

_DONE = {"up": "up", "down": "held down until `up`", "rekey": "has new keys"}


@dataclass(frozen=True, slots=True)
class PeerCommand:
    """`up`, `down` or `rekey` of one peer."""

    command: str
    peer: Peer
    replaced: frozenset[str] = frozenset()
    """Unique ids and SPIs of what works and is to be rekeyed."""

    @property
    def done(self) -> str:
        """What is so once it is done, in words."""
        return _DONE[self.command]


def peer_command(state: State, command: str, peer: Peer) -> PeerCommand:
    """To be made before the command is given: it notes what a rekey has to replace."""
    return PeerCommand(command, peer, frozenset(_keys(state, peer)) if command == "rekey" else frozenset())


def unfinished(state: State, command: PeerCommand, now: float) -> str:
    """Why what was asked for is not so yet, in words; empty once it is."""
    charon, pairs = state.charon, _pairs(state, command.peer)
    if not charon.reachable:
        return f"charon is not reachable ({charon.reason.words})"
    if command.command == "down":
        if any(pair.sas for pair in pairs):
            return "its associations are being ended"
        return "" if all(_loaded(pair) for pair in pairs) else "charon has not taken it yet"
    verdict = peer_verdict(state, command.peer, now)
    if verdict.state != "up":
        return verdict.reason.words or verdict.state
    if command.replaced & set(_keys(state, command.peer)):
        return "the old keys are still in use"
    return ""


def _pairs(state: State, peer: Peer) -> list[Pair]:
    return [pair for pair in state.pairs.of(peer.name) if pair.connection is not None]


def _loaded(pair: Pair) -> bool:
    return pair.connection is not None and pair.loaded == pair.connection.child


def _keys(state: State, peer: Peer) -> Iterator[str]:
    """Names of the keys that are in use: the IKE_SA's SPIs, and each CHILD_SA's."""
    for pair in _pairs(state, peer):
        for sa in pair.associations.counting:
            yield f"{sa.spi_initiator} {sa.spi_responder}"
            yield from (child.spi_in for child in sa.children if child.works)
