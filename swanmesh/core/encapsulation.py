"""In which way a pair's ESP is carried where that is decided by itself (`encapsulation: auto`)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from swanmesh.core.reasons import NONE, Reason

_CEILING = 86400.0
"""Seconds until something is tried again, at most."""


class Mode(enum.StrEnum):
    """What charon is loaded with. Each is another connection to it, so that it also remembers which."""

    PLAIN = "plain"
    """ESP by itself, and no peer that looks NATed."""
    FORCED = "forced"
    """This host makes both ends use UDP."""
    ACCEPTED = "accepted"
    """This host does not, and lets the peer do so."""


@dataclass(slots=True)
class Encapsulation:
    """How it stands with one pair. Times on the core's clock."""

    mode: Mode = Mode.PLAIN
    begin: Reason = NONE
    """Why another association is to be made, as the mode has it; empty if none is."""
    changed: float = float("-inf")
    """When the mode changed."""
    asked: float | None = None
    """When that association was asked for; None once it is known what came of it."""
    trial: Mode | None = None
    """In which mode the pair was before ESP was tried beside an association in UDP that works."""
    give_up: bool = False
    """Whether what was tried is to be ended."""
    tried_at: float = float("-inf")
    """When an association without UDP was last seen on trial, by whichever end."""
    retry_at: float = float("-inf")
    """When UDP may be tried."""
    plain_at: float = float("inf")
    """When ESP is tried again."""
    failures: int = 0
    """Times that UDP was no better, or ESP was not heard, in a row."""

    @property
    def active(self) -> bool:
        """Whether something is being tried."""
        return bool(self.begin) or self.asked is not None or self.trial is not None or self.give_up

    def turn(self, mode: Mode, begin: Reason, now: float) -> None:
        self.mode, self.begin, self.changed, self.asked = mode, begin, now, None

    def later(self, now: float, again: float) -> None:
        """What was tried came to nothing: it is tried again after longer."""
        self.retry_at = self.plain_at = now + min(_CEILING, again * 2.0 ** min(self.failures, 30))
        self.failures += 1

    def confirmed(self, now: float, again: float) -> None:
        """UDP carries what ESP did not."""
        self.asked = None
        self.plain_at = now + min(_CEILING, again * 2.0 ** min(self.failures, 30))
