"""What a policy means for what charon gets: the one place where the four words turn into start actions.

Monitoring and the kernel guard will add their own columns here; nothing else asks which policy it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from swanmesh.core.model import Peer, Policy, Settings


@dataclass(frozen=True, slots=True)
class Meaning:
    """Consequences of a policy for one peer."""

    connects: bool
    """Whether connections are loaded and associations kept up at all."""
    trap: bool
    """Whether a trap stands, which holds back clear text while no association is up. Never `start`: undoing
    that ends associations (plugins/vici/vici_config.c, clear_start_action)."""
    closed_while_down: bool
    """Whether packets are dropped, not let through in clear, while the operator holds the peer down."""


_MEANING = {
    Policy.OFF: Meaning(connects=False, trap=False, closed_while_down=False),
    Policy.MONITOR: Meaning(connects=True, trap=False, closed_while_down=False),
    Policy.PREFER: Meaning(connects=True, trap=False, closed_while_down=False),
    Policy.REQUIRE: Meaning(connects=True, trap=True, closed_while_down=True),
}


def policy_of(peer: Peer, settings: Settings) -> Policy:
    """The peer's own policy, else the host's."""
    return peer.policy or settings.policy


def meaning(policy: Policy) -> Meaning:
    return _MEANING[policy]
