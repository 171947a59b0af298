"""What the operator asks of one peer."""

from __future__ import annotations

from swanmesh.core.actions import RekeyChild, RekeyIke
from swanmesh.core.inputs.files import peers_changed
from swanmesh.core.inputs.transitions import first_attempt
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.reasons import ASKED, NONE, Reason
from swanmesh.core.state import State


def hold_up_or_down(state: State, name: str, now: float, *, down: bool) -> None:
    """`down` ends the peer's associations until `up`. Raises KeyError for a peer that is not known."""
    pairs = _pairs(state, name)
    (state.down.add if down else state.down.discard)(name)
    (state.called_up.discard if down else state.called_up.add)(name)
    word = "down" if down else "up"
    peers_changed(state, [name], now, Reason("operator", f"the operator asked for {word}"))
    for pair in pairs:
        if not down and not pair.up:
            first_attempt(state, pair, now)
            pair.attempt.next_at, pair.standing.cause = now, NONE


def rekey(state: State, name: str) -> list[RekeyChild | RekeyIke]:
    """New keys for all that works with the peer. Raises KeyError for a peer that is not known."""
    asked: list[RekeyChild | RekeyIke] = []
    for pair in _pairs(state, name):
        for sa in pair.associations.counting:
            asked += [
                RekeyChild(unique_id=child.unique_id, connection=pair.name, peer=name, reason=ASKED)
                for child in sa.children
                if child.works
            ]
            asked.append(RekeyIke(unique_id=sa.unique_id, connection=pair.name, peer=name, reason=ASKED))
    return asked


def _pairs(state: State, name: str) -> list[Pair]:
    if state.peer(name) is None:
        raise KeyError(name)
    return [pair for pair in state.pairs.of(name) if pair.connection is not None]
