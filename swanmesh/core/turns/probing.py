"""When pairs are probed: quiet ones seldom, those in doubt each second, all within what it may cost."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from swanmesh.core.actions import LimitPath
from swanmesh.core.model import AddressPair

TICK = 0.25
"""Seconds between two rounds: probes go out and are judged together, since each round has its price."""
QUIET_RATE = 24
"""Probes of quiet pairs in a second at most. More than interval x rate pairs are asked more seldom; then the
counters tell of those that carry anything."""
DOUBT_RATE = 240
"""Of pairs in doubt."""
AGAIN = 1.0 - TICK / 2
"""Seconds between two probes of a pair in doubt: the fourth round after the one before."""
PATIENT = 20
"""Probes without an answer after which a pair is asked as seldom as a quiet one."""
_SHARE, _SHARE_IN_DOUBT = 200, 20
"""A look at the counters comes at most once in so many times its own duration."""
_LOOK, _LOOK_IN_DOUBT = 2.0, 1.0
"""... and in so many seconds."""


@dataclass(slots=True)
class Probing:
    """What is to be probed, and how the looks at the kernel's counters are spread."""

    ready: bool = False
    """Whether probes can be sent."""
    quiet: list[tuple[float, str]] = field(default_factory=list)
    doubtful: list[tuple[float, str]] = field(default_factory=list)
    """Heaps of due times and names; entries that are no longer true are passed over."""
    pairs: dict[AddressPair, str] = field(default_factory=dict)
    """Names of the pairs that are watched, by their addresses."""
    doubted: dict[str, None] = field(default_factory=dict)
    """Names of those that are to be judged."""
    limits: dict[str, LimitPath] = field(default_factory=dict)
    """What the kernel is to be told of pairs, by their names: how large packets may be."""
    next_round: float = 0.0
    next_quiet: float = 0.0
    """When quiet pairs are asked again, after as many as may be asked in a second."""
    looking: float | None = None
    """When the look under way began."""
    looked: float = float("-inf")
    ended: float = float("-inf")
    took: float = 0.0
    """When the last look ended, and how long it took."""

    def push(self, due: float, name: str, *, doubtful: bool) -> None:
        heapq.heappush(self.doubtful if doubtful else self.quiet, (due, name))

    @property
    def due(self) -> float | None:
        if self.limits:
            return 0.0
        if not self.ready:
            return None
        times = [self.doubtful[0][0]] if self.doubtful else []
        if self.quiet:
            times.append(max(self.quiet[0][0], self.next_quiet))
        if self.doubted:
            times.append(self.next_round)
        return max(min(times), self.next_round) if times else None

    def look_wanted(self, now: float, within: float) -> bool:
        """Whether the counters are to be looked at anew; to be carried out at once if so."""
        share, least = (_SHARE_IN_DOUBT, _LOOK_IN_DOUBT) if self.doubted else (_SHARE, _LOOK)
        rested = now >= self.ended + max(least, self.took * share)
        return self.looking is None and rested and now - self.looked >= within

    def looks(self, now: float) -> bool:
        """Whether what a look shows is worth waiting for."""
        return self.looking is not None and now - self.looking < _LOOK

    def finished(self, now: float) -> float:
        """A look is over. Returns when it began: what it shows is as old as that."""
        began = self.looking if self.looking is not None else now
        self.looking, self.looked = None, began
        self.ended, self.took = now, now - began
        return began
