"""What of the events that wait for one peer's turn is still worth telling.

Hooks need to arrive at what is true, not to see every step: of peer-up and peer-down in a row the latest says
all. peer-added and peer-removed are kept: a hook that keeps a firewall's set of addresses must hear of the
removal, with the addresses that it put there, also when the peer is back with others.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from swanmesh.hooks.process import HookEvent

MOST = 16
"""Events that wait for one peer, at most; beyond, what hooks never heard of is left out as a whole."""

_LATEST_COUNTS = ({"peer-up", "peer-down"}, {"charon-lost", "charon-back"})
_ADDED, _REMOVED = "peer-added", "peer-removed"


def enqueue(waiting: deque[HookEvent], event: HookEvent) -> None:
    """Add an event to those that wait, the latest last, and leave out what it makes needless."""
    if waiting and any({waiting[-1].event, event.event} <= kinds for kinds in _LATEST_COUNTS):
        overtaken = waiting.pop()
        event = replace(event, skipped=overtaken.skipped + 1)
    waiting.append(event)
    if len(waiting) > MOST:
        _compact(waiting)


def _compact(waiting: deque[HookEvent]) -> None:
    """Leave out lives of the peer that began and ended while waiting: what is true after the rest is the
    same. The first removal stays, since it ends the life that hooks know of."""
    lives = [place for place, event in enumerate(waiting) if event.event in (_ADDED, _REMOVED)]
    if not lives:
        return
    events = list(waiting)
    first, last = events[lives[0]], events[lives[-1]]
    kept = [first] if first.event == _REMOVED else []
    if last.event == _ADDED:
        kept += events[lives[-1] :]
    kept = kept or [last]
    left_out = sum(1 + event.skipped for event in events) - sum(1 + event.skipped for event in kept)
    kept[-1] = replace(kept[-1], skipped=kept[-1].skipped + left_out)
    waiting.clear()
    waiting.extend(kept)
