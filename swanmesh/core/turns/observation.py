"""When to look at charon as a whole: on request, seldom, and never for more than a small part of the time."""

from __future__ import annotations

from swanmesh.core.actions import ObserveAll, ObserveSas
from swanmesh.core.reasons import NONE, SAFETY_NET, Reason

_SHARE = 100
"""A full look comes at most once in so many times its own duration: one percent of charon's and our time."""
_LONGEST = 5
"""... and at least once in so many resyncs, however long one takes."""
_GAP = 10
"""The same as _SHARE for looks at IKE_SAs that something waits for."""
_LONGEST_GAP = 5.0
"""Seconds that these wait at most. A look takes long when charon is busy with one IKE_SA, or loads thousands
of connections before it; that must not keep failed attempts from being noticed for minutes. One that takes
longer than this is followed by as long a pause: a charon that is short of time is not asked all of it."""


class ObservationSchedule:
    """One look is under way at a time. A look tells of a moment in the past: connections that events touched
    since it began are left as the events have them."""

    def __init__(self, resync: float) -> None:
        self.resync = resync
        self.took = 0.0
        """How long the last look took, in seconds."""
        self.seen = float("-inf")
        """What the last look shows is as old as this."""
        self.reset()

    def reset(self) -> None:
        """charon is gone: there is nothing to look at, and what was under way will not come back."""
        self._began: float | None = None
        self._touched: set[str] = set()
        self._earliest = 0.0
        self._wanted: float | None = None
        self._reason: Reason = NONE
        self._full_at: float | None = None
        self._full_reason: Reason = NONE

    def pace(self, resync: float, now: float) -> None:
        """From now on, look at everything each so many seconds. A shorter time does not wait for the longer
        one to end."""
        self.resync = resync
        if self._full_at is not None:
            self.want_all(now + resync, SAFETY_NET)

    @property
    def began(self) -> float:
        """When the look under way began: what it shows may be as old as that."""
        return self._began if self._began is not None else float("-inf")

    def fresh(self, now: float, within: float) -> bool:
        """Whether a look of just now has come; one that takes long is as fresh as looks get."""
        return self.seen >= now - within - self.took

    @property
    def due(self) -> float | None:
        if self._began is not None:
            return None
        times = [at for at in (self._wanted, self._full_at) if at is not None]
        return max(min(times), self._earliest) if times else None

    def want(self, at: float, reason: Reason) -> None:
        """Look at the IKE_SAs at `at`, or as soon after as the pace allows."""
        if self._wanted is None or at < self._wanted:
            self._wanted, self._reason = at, reason

    def want_all(self, at: float, reason: Reason) -> None:
        if self._full_at is None or at < self._full_at:
            self._full_at, self._full_reason = at, reason

    def full_wanted(self, at: float) -> bool:
        """Whether a look at everything will begin by `at` if the pace allows."""
        return self._full_at is not None and self._full_at <= at

    def touch(self, connection: str) -> None:
        """An event told of this connection."""
        if self._began is not None:
            self._touched.add(connection)

    def step(self, now: float) -> ObserveSas | ObserveAll | None:
        due = self.due
        if due is None or now < due:
            return None
        self._began = now
        self._touched.clear()
        if self._full_at is not None and now >= self._full_at:
            self._wanted = self._full_at = None
            return ObserveAll(reason=self._full_reason)
        self._wanted = None
        return ObserveSas(reason=self._reason)

    def finished(self, now: float, *, full: bool) -> frozenset[str]:
        """The look is over. Returns the connections that events touched meanwhile."""
        self.took = took = now - self._began if self._began is not None else 0.0
        self.seen = self.began
        touched = frozenset(self._touched)
        self._began = None
        self._touched.clear()
        self._earliest = now + max(1.0, min(took * _GAP, _LONGEST_GAP), took)
        if full or self._full_at is None:
            wait = min(max(self.resync, took * _SHARE), self.resync * _LONGEST)
            self.want_all(now + wait, SAFETY_NET)
        return touched
