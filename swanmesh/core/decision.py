"""What was decided on one address pair."""

from __future__ import annotations

from dataclasses import dataclass

from swanmesh.core.actions import Action
from swanmesh.core.reasons import NONE, Reason


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a pair, what holds that up, and why the pair is not up."""

    action: Action | None = None
    blocked: Reason = NONE
    """Why the action is not carried out yet; empty if it is."""
    due: float | None = None
    """When to decide again if nothing happens before; for a blocked action that waits for its time, when."""
    reason: Reason = NONE
    """Why the pair is not up, or what is wrong with it although it is; empty if all is well."""
    look: Reason = NONE
    """Why charon is to be looked at, at `look_at`."""
    look_at: float = 0.0

    @property
    def ready(self) -> bool:
        """Whether there is an action to carry out now."""
        return self.action is not None and not self.blocked
