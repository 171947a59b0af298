"""What the service counts over its life. `metrics` shows it; apart from that, because what writes metrics is
imported when somebody first asks for them."""

from __future__ import annotations

from dataclasses import dataclass, field

UNCODED = "other"
"""The code of a reason that has none."""


@dataclass(slots=True, kw_only=True)
class Counters:
    """What the status does not tell."""

    actions: dict[tuple[str, str, bool], int] = field(default_factory=dict)
    """By kind of action, code of its reason and whether charon accepted it."""
    charon_lost: int = 0
    faults: int = 0
    """Mistakes of swanmesh's own that its loop survived."""
    reloads: int = 0
    vici_requests: int = 0
    """Packets sent to charon: commands and event registrations."""
    events_lost: int = 0
    """Events of charon's that were not understood or came too fast."""
    removals_held: int = 0
    """Peers that would be removed, were they not too many at once."""
    last_resync: float | None = None
    """When charon was last looked at, in seconds since the epoch."""

    def count_action(self, kind: str, code: str, *, accepted: bool = True) -> None:
        """One action carried out, or refused by charon, for a reason of this code."""
        key = (kind, code or UNCODED, accepted)
        self.actions[key] = self.actions.get(key, 0) + 1
