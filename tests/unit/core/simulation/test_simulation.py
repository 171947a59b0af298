"""Many hosts, the real core, simulated charons and everything at once."""

from __future__ import annotations

import os

import pytest

from .chaos import Chaos
from .holder import Lifetimes
from .world import World

QUIET = 420.0
"""Seconds after the last fault until everything must be in order."""

SEEDS = (
    [int(os.environ["SIM_SEED"])]
    if "SIM_SEED" in os.environ
    else list(range(int(os.environ.get("SIM_SEEDS", "40"))))
)


def again(seed: int, name: str) -> str:
    return f"again alike: SIM_SEED={seed} python -m pytest tests/unit/core/simulation -k {name}"


def storm(
    seed: int, hosts: int, *, seconds: float, gap: float, traffic: float = 0.0, v6: bool = False
) -> World:
    lifetimes = Lifetimes(child_rekey=120.0, ike_rekey=300.0, reauth=380.0)
    world = World(seed, hosts, traffic=traffic, v6=v6, lifetimes=lifetimes)
    world.start()
    Chaos(world, gap=gap, seconds=seconds)
    world.clock.run(seconds)
    world.make_peace()
    world.clock.run(QUIET)
    return world


def assert_at_rest(world: World, name: str) -> None:
    faults = world.faults()
    assert not faults, "\n".join([again(world.seed, name), *faults[:20]])
    assert world.actions_at_rest(150.0) == [], again(world.seed, name)


@pytest.mark.parametrize("seed", SEEDS)
def test_storm(seed: int) -> None:
    hosts = 3 + seed % 6
    world = storm(seed, hosts, seconds=300.0, gap=4.0, traffic=(0.0, 1.0)[seed % 2], v6=seed % 3 == 0)
    assert_at_rest(world, "test_storm")
