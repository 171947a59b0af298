"""The policies, one row each: what may cross between this host and a peer while no association is up.

Nothing else asks which policy it is.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """Consequences of a policy for one peer."""

    connects: bool = True
    """Whether connections are loaded and associations kept up at all."""
    trap: bool = False
    """Whether a trap stands, which holds back clear text while no association is up. Never `start`: undoing
    that ends associations (plugins/vici/vici_config.c, clear_start_action)."""
    closed: bool = False
    """Whether packets in clear are dropped: by the guard (`core/guard/policies`), always, and by a shunt of
    charon's while the operator holds the peer down."""
    watched: bool = False
    """Whether it is seen when packets cross in clear."""
    opens: bool = False
    """Whether packets in clear are let through past charon's policies: out while no association is up, and in
    always."""


class Policy(enum.StrEnum):
    """What may cross between this host and a peer while no association is up."""

    meaning: Meaning

    def __new__(cls, word: str, meaning: Meaning) -> Policy:
        policy = str.__new__(cls, word)
        policy._value_, policy.meaning = word, meaning
        return policy

    REQUIRE = "require", Meaning(trap=True, closed=True)
    """Associations are kept up; a trap stands, so that no packet crosses in clear while none is."""
    PREFER = "prefer", Meaning(watched=True, opens=True)
    """Associations are kept up; while none is, packets cross in clear."""
    MONITOR = "monitor", Meaning(connects=False, watched=True)
    """No association; what crosses in clear is seen."""
    OFF = "off", Meaning(connects=False)
    """Nothing at all is loaded for it: the peer is known."""


OFFERED = tuple(policy.value for policy in Policy)
"""What people may write."""
CHOICE = f"{', '.join(OFFERED[:-1])} or {OFFERED[-1]}"
"""The same in one line."""


def check_policy(value: object) -> Policy:
    """The policy of this name. Raises ValueError with what is wrong with it."""
    if value is False:
        return Policy.OFF  # YAML 1.1 reads a bare `off` as false
    policy = next((policy for policy in Policy if policy == value), None)
    if policy is None:
        raise ValueError(f"is no policy: {CHOICE}")
    return policy
