"""How much this host and its charon can do at once, from what they took for the last things asked of them.

Nobody tells how busy a host is. But charon's answers and handshakes come later when there is more to do than
time for it, and a handshake that comes too late is done again: work that makes more work. So what is under
way is cut where they are late, and grows by one at a time where they are not (additive increase,
multiplicative decrease), between a few and the limit of the settings.
"""

from __future__ import annotations

from dataclasses import dataclass

_FIRST = 2.0
"""Initiations at once before anything is known. Each that goes well adds one: 32 are a few round trips on."""
_FLOOR = 2
"""Places there are at least; below that there are pauses before one is taken."""
_LEAST = 0.25
_GROWTH = 1.5
"""By how much each that goes well shortens the pauses."""
_HANDSHAKE = 2.0
"""Seconds that a handshake may take before it counts as late: charon sends a request again after 0.8 s with
the shipped settings, and a handshake has two."""
_ANSWER = 0.25
"""Seconds that charon may take to answer a request before it counts as late."""
_FAR = 4.0
"""... or so many times the least that was ever seen: on the far side of the world everything takes longer."""
_SILENCE = 0.05
"""Seconds of silence that say nothing yet, while no handshake was ever seen."""
_BUSY = 10.0
"""So many answers of charon's take about as long as a handshake, before one was seen."""
_PAUSE = 20.0
"""Seconds between initiations at most."""
_HESITATION = 1.0
"""Seconds from one initiation to the next once a peer was not ready: twice as many with each, up to..."""
_HESITATION_MOST = 4.0
_HESITATES = 10.0
"""Seconds after which it says nothing more."""
_STALE = 60.0
"""Seconds after which what was measured says nothing about now."""
_MOST = 10.0
"""By how much other waits are stretched at most."""


@dataclass(slots=True)
class Estimate:
    """What something takes, in seconds: mean and deviation as TCP has them for its round trips (RFC 6298)."""

    target: float
    """What counts as in time, however little it was before."""
    mean: float = 0.0
    deviation: float = 0.0
    recent: float = 0.0
    """The shorter of the last two: one alone may be late by chance."""
    least: float = float("inf")
    at: float = float("-inf")
    """When it was last measured."""
    _last: float = 0.0

    def add(self, took: float, now: float) -> None:
        if self.at == float("-inf"):
            self.mean, self.deviation, self._last = took, took / 2, took
        else:
            self.deviation += (abs(took - self.mean) - self.deviation) / 4
            self.mean += (took - self.mean) / 8
        self.recent, self._last = min(self._last, took), took
        self.least = min(self.least, took)
        self.at = now

    def lateness(self, took: float) -> float:
        """Above 1 if it is late, and by how much."""
        return took / max(self.target, _FAR * self.least)

    def fresh(self, now: float) -> bool:
        return now - self.at < _STALE


class Pace:
    """The number of places, and how long an attempt may be silent."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.handshake = Estimate(_HANDSHAKE)
        self.answer = Estimate(_ANSWER)
        self._places = _FIRST
        """Below `_FLOOR` it says by how much what is begun is less than that many places would do."""
        self._enough = float("inf")
        """From so many places on they grow by one for a whole round of them, not for each."""
        self._hesitation = 0.0
        self._not_ready = float("-inf")
        """When a peer was last found not ready."""
        self._slowed = float("-inf")
        """When places were last taken away: what was begun before says nothing about what that did."""

    @property
    def places(self) -> int:
        return min(self.limit, max(_FLOOR, int(self._places)))

    def gap(self, now: float) -> float:
        """Seconds from one initiation to the next, at least."""
        took = self.handshake.recent or _BUSY * self.answer.recent
        hesitation = self._hesitation if now - self._not_ready < _HESITATES else 0.0
        return max(hesitation, min(_PAUSE, took * max(0.0, 1.0 / self._places - 1.0 / _FLOOR)))

    def not_ready(self, now: float) -> None:
        """A peer has no connection for us yet. Where many start at once it is not the only one, and whoever
        was too early for it is called back or must try once more."""
        fresh = now - self._not_ready < _HESITATES
        self._hesitation = min(_HESITATION_MOST, max(_HESITATION, 2 * self._hesitation * fresh))
        self._not_ready = now

    def came_up(self, began: float, now: float) -> None:
        """An association is up whose initiation began at `began`."""
        self._hesitation /= 2
        self._measured(self.handshake, began, now)
        if self.handshake.lateness(now - began) <= 1.0:
            self._grow()

    def answered(self, asked: float, now: float) -> None:
        """charon answered what it could begin with at `asked`."""
        self._measured(self.answer, asked, now)

    def went_silent(self, now: float) -> None:
        """An initiation waits for its peer and costs nobody anything."""
        if self.stretch(now) <= 1.0:
            self._grow()

    def failed(self, began: float, now: float) -> None:
        """An initiation came to nothing. Its peer may be dead; where everything is late it may be us."""
        if self.stretch(now) > 1.0 and began >= self._slowed:
            self._slow_down(now, 0.5)

    def lost(self, now: float) -> None:
        """charon is gone, perhaps because it had too much to do."""
        self._slow_down(now, 0.5)

    def patience(self, now: float) -> float:
        """Seconds of silence after which an attempt is no longer taken for a handshake under way here."""
        usual = self.handshake.mean + 2 * self.handshake.deviation
        busy = _BUSY * self.answer.recent if self.answer.fresh(now) else 0.0
        return max(usual or _SILENCE, busy)

    def stretch(self, now: float) -> float:
        """By how much everything takes longer than it should, from 1 on: whoever waits for something that
        would be in time on an idle host waits so many times longer."""
        late = [e.lateness(e.recent) for e in (self.handshake, self.answer) if e.fresh(now)]
        return min(_MOST, max([1.0, *late]))

    def _grow(self) -> None:
        if self._places < _FLOOR:
            self._places *= _GROWTH
        else:
            self._places += 1.0 if self._places < self._enough else 1.0 / self._places
        self._places = min(self._places, float(max(_FLOOR, self.limit)))

    def _measured(self, estimate: Estimate, began: float, now: float) -> None:
        estimate.add(now - began, now)
        lateness = estimate.lateness(estimate.recent)
        if lateness > 1.0 and began >= self._slowed:
            self._slow_down(now, 1.0 / lateness)

    def _slow_down(self, now: float, factor: float) -> None:
        self._places = self._enough = max(_LEAST, self._places * max(0.5, factor))
        self._slowed = now
