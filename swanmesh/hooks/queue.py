"""What of the events that wait for one peer's turn is still worth telling.

Hooks need to arrive at what is true, not to see every step: of peer-up and peer-down in a row the latest says
all. peer-added and peer-removed are kept: a hook that keeps a firewall's set of addresses must hear of the
removal, with the addresses that it put there, also when the peer is back with others.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from swanmesh.core.events import MeshEvent

MOST = 16
"""Events that wait for one peer, at most; beyond, what hooks never heard of is left out as a whole."""

_LATEST_COUNTS = ({"peer-up", "peer-down"}, {"charon-lost", "charon-back"})
_ADDED, _REMOVED = "peer-added", "peer-removed"


@dataclass(frozen=True, slots=True)
class Turn:
    """An event that waits to be told."""

    event: MeshEvent
    skipped: int = 0
    """Events before it that are not told because this one overtook them."""


def enqueue(waiting: deque[Turn], event: MeshEvent) -> None:
    """Add an event to those that wait, the latest last, and leave out what it makes needless."""
    skipped = 0
    if waiting and any({waiting[-1].event.kind, event.kind} <= kinds for kinds in _LATEST_COUNTS):
        skipped = waiting.pop().skipped + 1
    waiting.append(Turn(event, skipped))
    if len(waiting) > MOST:
        _compact(waiting)


def _compact(waiting: deque[Turn]) -> None:
    """Leave out lives of the peer that began and ended while waiting: what is true after the rest is the
    same. The first removal stays, since it ends the life that hooks know of."""
    turns = list(waiting)
    lives = [place for place, turn in enumerate(turns) if turn.event.kind in (_ADDED, _REMOVED)]
    if not lives:
        return
    first, last = turns[lives[0]], turns[lives[-1]]
    kept = [first] if first.event.kind == _REMOVED else []
    if last.event.kind == _ADDED:
        kept += turns[lives[-1] :]
    kept = kept or [last]
    left_out = sum(1 + turn.skipped for turn in turns) - sum(1 + turn.skipped for turn in kept)
    kept[-1] = replace(kept[-1], skipped=kept[-1].skipped + left_out)
    waiting.clear()
    waiting.extend(kept)
