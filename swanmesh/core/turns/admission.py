"""Whose turn it is to be initiated, and when: the line, the places, and what the dead may cost.

An initiation has a place while it may keep processors busy here. One that has been silent for longer than
handshakes take keeps nobody busy: it gives its place back and goes on. So peers that do not answer hold up
nobody for long, and what is under way at living ones is bounded by what this host can do (`Pace`).

Nothing passes the line. Pairs that nothing speaks against go first; those that have failed often have a share
of the places and of the time, so that thousands of dead peers cost no more than a few.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from swanmesh.core.model import InitiationSettings
from swanmesh.core.turns.pace import Pace

if TYPE_CHECKING:
    from swanmesh.core.pairs.pair import Attempt

_SILENT = 1024
"""Silent attempts at once before those wait that something speaks against. Each is an IKE_SA in charon that
sends a packet now and then."""
_TOGETHER = 0.001
"""Seconds between answers that charon gave in one message, at most."""
_BATCH = 24
_BATCH_GAP = 12.0
"""Seconds. Pairs that have failed often are tried in batches, 2 a second on average: a look at charon before
and one after serve all of a batch."""
_HEALED = 2
"""So many more are tried for each of them that comes up: when a network heals, all of them do."""
_SHARE = 4
"""One place in so many is for them."""


class Rank(IntEnum):
    """What speaks against initiating a pair."""

    MENDING = 0
    """Nothing: there is an association, and what waits is a rekeying that mends it."""
    KEEN = 1
    """Nothing: it was never tried, or was up lately, or its peer called early."""
    DOUBTFUL = 2
    """The peer should have initiated and has not, or it failed once."""
    FAILING = 3
    """It failed more than once in a row."""


def rank_of(attempt: Attempt, *, initiator: bool, up: bool) -> Rank:
    if up:
        return Rank.MENDING
    if attempt.failed == 0 and (initiator or attempt.peer_ready):
        return Rank.KEEN
    return Rank.DOUBTFUL if attempt.failed < 2 else Rank.FAILING


@dataclass(slots=True)
class Place:
    rank: Rank
    began: float
    since: float
    """Since when nothing was heard of it."""


class Admission:
    """The line and the places. First come, first served among those of one rank."""

    def __init__(self, settings: InitiationSettings) -> None:
        self.pace = Pace(settings.in_flight)
        self._takeover = settings.takeover
        self._lines: dict[Rank, dict[str, float]] = {rank: {} for rank in Rank}
        """By name, since when it waits."""
        self._begun: dict[str, Place] = {}
        self._trying: dict[str, Place] = {}
        """What charon has taken, in the order of its answers."""
        self._silent: dict[str, Place] = {}
        self._asked: dict[str, float] = {}
        """When charon was asked for something about a pair."""
        self._answered = float("-inf")
        self._last = float("-inf")
        """When a place was last given."""
        self._failing = 0
        """How many of those that have a place have failed often."""
        self._batch = 0
        self._batch_at = float("-inf")
        self.due: float | None = None
        """When to ask for `next` again if nothing happens before."""
        self.look_at: float | None = None
        """When to look at charon, because it is the turn of a pair that is not tried without."""
        self.look_for = ""
        """The first of those that it is for."""

    def configure(self, settings: InitiationSettings) -> None:
        self.pace.limit, self._takeover = settings.in_flight, settings.takeover

    @property
    def in_flight(self) -> int:
        return len(self._begun) + len(self._trying)

    @property
    def waiting(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def waits(self, name: str) -> bool:
        return any(name in line for line in self._lines.values())

    def has_place(self, name: str) -> bool:
        return self._place(name) is not None

    def wait(self, name: str, rank: Rank, now: float) -> None:
        """The pair waits in line until `next` names it."""
        if name not in self._lines[rank]:
            self._leave_line(name)
            self._lines[rank][name] = now

    def next(self, now: float, *, fresh: bool) -> str | None:
        """Whose turn it is: it has a place now, and must use or `release` it. `fresh`: there was a look at
        charon just now, which shows who is being initiated already."""
        self._pass_over_silent(now)
        self.due = self.look_at = None
        if not any(self._lines.values()):
            return None
        if now < (at := self._last + self.pace.gap(now)):
            self._wake(at)
            return None
        rank = self._turn(now, fresh=fresh) if self.in_flight < self.pace.places else None
        if rank is None:
            if self._trying:
                self._wake(next(iter(self._trying.values())).since + self.pace.patience(now))
            return None
        name = next(iter(self._lines[rank]))
        del self._lines[rank][name]
        self._begun[name] = Place(rank, now, now)
        self._last = now
        if rank is Rank.FAILING:
            self._batch -= 1
            self._failing += 1
        return name

    def _turn(self, now: float, *, fresh: bool) -> Rank | None:
        mending, keen, doubtful, failing = self._lines.values()
        others = bool(mending or keen or doubtful)
        crowded = len(self._silent) >= _SILENT
        if failing and not crowded and self._failing < max(1, self.pace.places // _SHARE):
            if self._batch <= 0 and now >= self._batch_at:
                self._batch, self._batch_at = _BATCH, now + _BATCH_GAP
            if self._batch <= 0:
                self._wake(self._batch_at)
            elif not fresh:
                self._look(failing, now)
            elif self.pace.places >= _SHARE or not others:
                return Rank.FAILING
        if mending or keen:
            return Rank.MENDING if mending else Rank.KEEN
        if doubtful and not crowded:
            # A peer that is late, and an answer that did not come, say less where everything is late.
            at = next(iter(doubtful.values())) + self._takeover * (self.pace.stretch(now) - 1.0)
            if now < at:
                self._wake(at)
            elif not fresh:
                self._look(doubtful, now)
            else:
                return Rank.DOUBTFUL
        return None

    def _look(self, line: dict[str, float], now: float) -> None:
        self.look_at, self.look_for = now, next(iter(line))

    def _wake(self, at: float) -> None:
        self.due = at if self.due is None else min(self.due, at)

    def _pass_over_silent(self, now: float) -> None:
        patience = self.pace.patience(now)
        while self._trying:
            name, place = next(iter(self._trying.items()))
            if now < place.since + patience:
                return
            self._leave_place(name)
            self._silent[name] = place
            self.pace.went_silent(now)

    def asked(self, name: str, now: float) -> None:
        """charon is asked for something about the pair."""
        self._asked[name] = now

    def answered(self, name: str, now: float) -> None:
        """charon answered. It answers one request after the other, and to several in one message together."""
        asked = self._asked.pop(name, None)
        if asked is not None and now - self._answered > _TOGETHER:
            self.pace.answered(max(asked, self._answered), now)
        self._answered = now
        place = self._begun.get(name)
        if place is None:
            return
        if place.rank is Rank.MENDING:
            self.pace.went_silent(now)  # it keeps its place until the new CHILD_SA is there
        else:
            place.since = now
            self._trying[name] = self._begun.pop(name)

    def lost(self, now: float) -> None:
        """charon is gone, with its answers."""
        self._asked.clear()
        self.pace.lost(now)

    def came_up(self, name: str, now: float, *, failed_before: bool) -> None:
        place = self._place(name)
        if place is not None:
            self.pace.came_up(place.began, now)
        if failed_before:
            self._batch += _HEALED
        self.release(name)

    def failed(self, name: str, now: float) -> None:
        place = self._place(name)
        if place is not None:
            self.pace.failed(place.began, now)
        self.release(name)

    def release(self, name: str) -> None:
        """The pair's initiation is over, or it wants none any more."""
        self._leave_line(name)
        self._leave_place(name)
        self._silent.pop(name, None)

    def _leave_line(self, name: str) -> None:
        for line in self._lines.values():
            line.pop(name, None)

    def _place(self, name: str) -> Place | None:
        return self._begun.get(name) or self._trying.get(name) or self._silent.get(name)

    def _leave_place(self, name: str) -> None:
        place = self._begun.pop(name, None) or self._trying.pop(name, None)
        if place is not None and place.rank is Rank.FAILING:
            self._failing -= 1
