"""Who initiates, when, and how long to wait after a failure."""

from __future__ import annotations

import hashlib
import random

from swanmesh.core.model import InitiationSettings


def initiates(host: str, peer: str) -> bool:
    """Whether `host` is the pair's initiator. Both ends reach the same answer without talking, and each of
    many hosts initiates to about half of its peers: a hash of both names tosses the coin."""
    low, high = sorted((host, peer))
    heads = hashlib.sha256(f"{low} {high}".encode()).digest()[0] & 1 == 0
    return (host == low) is heads


def backoff(attempts: int, settings: InitiationSettings, rng: random.Random) -> float:
    """Seconds to wait after so many failed attempts in a row: exponential with full jitter, at least the base
    so that a failure at once is no busy loop."""
    if attempts <= 0:
        return 0.0
    top = min(settings.backoff_ceiling, settings.backoff_base * 2.0 ** min(attempts, 30))
    return settings.backoff_base + rng.random() * max(0.0, top - settings.backoff_base)


def takeover_delay(settings: InitiationSettings, rng: random.Random, *, shortly: bool) -> float:
    """Seconds that the side which is not the initiator leaves to the other.

    `shortly`: this end knows something that the other may not. One is an association that charon here lost,
    and which the other end believes in for as long as ESP arrives, or until DPD gives up."""
    full = settings.takeover * (1.0 + rng.random() / 4)
    return full / 5 if shortly else full
