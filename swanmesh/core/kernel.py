"""What is known of the kernel, and when to look at it again."""

from __future__ import annotations

from dataclasses import dataclass, field

from swanmesh.core.reasons import NONE, Reason


@dataclass(slots=True, kw_only=True)
class Mending:
    """An attempt to mend, and those before it that did not help."""

    pair: str
    at: float
    until: float
    """When it counts as failed, and may be tried again."""
    times: int
    holds_place: bool
    """Whether the pair has a place among the initiations for it."""


@dataclass(slots=True, kw_only=True)
class Kernel:
    """What is known of the kernel, and what of it is in doubt. All times on the core's clock."""

    watched: bool = False
    reason: str = ""
    """Why it cannot be watched; empty before that was tried."""
    look_at: float | None = None
    look_reason: Reason = NONE
    looking: float | None = None
    """When the look under way began."""
    earliest: float = 0.0
    flushed: frozenset[int] = frozenset()
    """CHILD_SAs that stood when the states were flushed: lacking states in the next look is proof."""
    deleted: set[str] = field(default_factory=set)
    """SPIs of states that went since, by anybody's hand."""
    deleted_due: float | None = None
    doubts: dict[str | int, float] = field(default_factory=dict)
    """When a look first lacked the policies of a pair (by name) or the states of a CHILD_SA (by its id)."""
    mendings: dict[str | int, Mending] = field(default_factory=dict)
    """What was done about the ones that were proven, by the same keys, until a look shows that it helped."""

    def want(self, at: float, reason: Reason) -> None:
        if self.look_at is None or at < self.look_at:
            self.look_at, self.look_reason = at, reason

    @property
    def due(self) -> float | None:
        if not self.watched:
            return None
        times = [self.deleted_due] if self.deleted_due is not None else []
        if self.look_at is not None and self.looking is None:
            times.append(max(self.look_at, self.earliest))
        return min(times, default=None)
