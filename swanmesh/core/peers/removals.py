"""The brake: what would take away many peers at once, and nobody asked for, is held until somebody confirms.

A file that is gone is a removal only after a while, and what went within the last minute counts as one: who
deletes files deletes one after the other. `remove-peer` says what it removes, and is not held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator

from swanmesh.core.reasons import NONE

SETTLE = 5.0
"""Seconds that a peer's file must be gone before the peer goes."""
WINDOW = 60.0
"""Seconds within which removals count as one."""
MOST = 3
SHARE = 0.25
"""More peers than `MOST`, and than this share of all, are held."""

WAYS_OUT = "put their files back, or let it happen: swanmesh confirm removal"


def too_many(removed: int, of: int) -> bool:
    return removed > MOST and removed > of * SHARE


def some(names: Iterable[str], limit: int = 5) -> str:
    """The names, as many as fit into one line."""
    ordered = sorted(names)
    return ", ".join(ordered[:limit]) + (", …" if len(ordered) > limit else "")


class Removals:
    """Peers whose files are gone, from then until they go or come back. Times on the core's clock."""

    def __init__(self) -> None:
        self.doubt = NONE
        """Why the files may not tell of everybody; while they may not, nobody goes for want of a file."""
        self.unknown: frozenset[str] = frozenset()
        """Names of the peers that charon holds and no file describes, where they are too many to go."""
        self.let_go: frozenset[str] = frozenset()
        """Those of them that somebody let go."""
        self.held = False
        """Until all files are back or somebody confirms: while they are put back one by one, the rest must
        not slip below the limit."""
        self._pending: dict[str, float] = {}
        self._taken: deque[float] = deque()

    def __contains__(self, source: str) -> bool:
        return source in self._pending

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._pending))

    def __len__(self) -> int:
        return len(self._pending)

    def gone(self, sources: Iterable[str], now: float) -> None:
        for source in sources:
            self._pending.setdefault(source, now)

    def over(self, sources: Iterable[str]) -> None:
        """These are back, or go on purpose."""
        for source in sources:
            self._pending.pop(source, None)
        self.held = self.held and bool(self._pending)

    def take(
        self, now: float, in_force: int, replaced: Collection[str], weigh: Callable[[str], int] = lambda _: 1
    ) -> list[str]:
        """Which go now: gone for long enough, or `replaced` by another file; none while too many would.

        `in_force`: all hosts, those whose files are gone among them. `weigh`: how many go with a file."""
        while self._taken and self._taken[0] <= now - WINDOW:
            self._taken.popleft()
        lately = len(self._taken)
        if too_many(sum(map(weigh, self._pending)) + lately, in_force + lately):
            self.held = True
        if self.held or self.doubt:
            return []
        ready = [s for s, since in self._pending.items() if since <= now - SETTLE or s in replaced]
        self._taken.extend(now for source in ready for _ in range(weigh(source)))
        self.over(ready)
        return ready

    @property
    def due(self) -> float | None:
        """When the next may go."""
        return None if self.held or self.doubt or not self._pending else min(self._pending.values()) + SETTLE
