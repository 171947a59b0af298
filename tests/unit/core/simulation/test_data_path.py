"""What can happen to two hosts, by the seed: no pair with a working path is ever called down, and one without
is, in time. `SIM_SEEDS` runs so many."""

from __future__ import annotations

import os
import random

import pytest

from swanmesh.core.model import ProbeSettings
from tests.unit.core.simulation.data_path import Channel, End, two_ends

SEEDS = int(os.environ.get("SIM_SEEDS", "40"))
INTERVAL = ProbeSettings().interval
BOUND = 20.0
"""Seconds within which it is told: simulated ones."""


def trouble(rng: random.Random, channel: Channel, end: End) -> None:
    """Something that no data path has a part in."""

    def filter_probes() -> None:
        end.filtered = not end.filtered and not end.mute

    def slow_down() -> None:
        end.slowness = rng.choice((0.05, 0.5, 3.0))

    def lose() -> None:
        channel.loss = rng.choice((0.0, 0.0, 0.05, 0.2))

    def be_late() -> None:
        channel.latency = rng.choice((0.001, 0.1, 0.6))

    def talk() -> None:
        for _ in range(rng.choice((1, 30))):
            channel.after(rng.uniform(0, 20), lambda: channel.send(end, lambda: None))

    def rekey() -> None:
        end.rekey()
        end.other.rekey()

    faults = (end.hang, end.wake, end.stop, end.start, filter_probes, slow_down, lose, be_late, talk, rekey)
    rng.choice(faults)()


@pytest.mark.parametrize("block", range(10))
def test_a_path_that_works_is_never_called_dead(block: int) -> None:
    for seed in range(block * SEEDS // 10, (block + 1) * SEEDS // 10):
        channel, one, other = two_ends(seed)
        rng = random.Random(seed)
        for end in (one, other):
            end.old, end.mute = rng.random() < 0.2, rng.random() < 0.3
            channel.after(rng.uniform(0, 5), end.start)
        for _ in range(60):
            channel.run(rng.choice((1.0, 5.0, 20.0)))
            trouble(rng, channel, rng.choice((one, other)))
        assert (one.downs, other.downs) == ([], []), f"seed {seed}"


@pytest.mark.parametrize("block", range(10))
def test_a_path_that_does_not_is_told_at_both_ends_and_taken_back(block: int) -> None:
    for seed in range(block * SEEDS // 10, (block + 1) * SEEDS // 10):
        channel, one, other = two_ends(seed)
        rng = random.Random(seed)
        channel.latency = rng.choice((0.001, 0.1))
        for end in (one, other):
            end.start()
        channel.run(rng.uniform(40, 60))
        channel.cut = set(rng.choice((["one"], ["other"], ["one", "other"])))
        channel.run(BOUND)
        assert one.down() and other.down(), f"seed {seed}, cut {channel.cut}"
        channel.cut = set()
        channel.run(4 * INTERVAL)
        assert not one.down() and not other.down(), f"seed {seed}"


@pytest.mark.parametrize("block", range(10))
def test_where_esp_is_dropped_it_goes_inside_udp_and_back_without_a_flap(block: int) -> None:
    for seed in range(block * SEEDS // 10, (block + 1) * SEEDS // 10):
        channel, one, other = two_ends(seed, automatic=True)
        rng = random.Random(seed)
        channel.latency = rng.choice((0.001, 0.1))
        for end in (one, other):
            end.mute = rng.random() < 0.2
            end.start()
        channel.run(rng.uniform(40, 60))
        channel.cut = set(rng.choice((["one"], ["other"], ["one", "other"])))
        told = f"seed {seed}, cut {channel.cut}"
        channel.run(BOUND)
        assert channel.sas[-1].encap, told
        channel.run(60)
        assert [sa.encap for sa in channel.sas] == [True], told
        struck = rng.choice((one, other))
        struck.stop()
        channel.run(rng.uniform(1, 20))
        struck.start()
        channel.run(rng.choice((60, 1500)))
        assert channel.sas[0].encap, told
        channel.cut = set()
        channel.run(4000)
        assert [sa.encap for sa in channel.sas] == [False], told
        assert (one.downs, other.downs) == ([], []), told
        assert {"peer-down", "peer-violation"}.isdisjoint((*one.events, *other.events)), told


@pytest.mark.parametrize("block", range(10))
def test_where_udp_does_not_pass_either_it_is_told_and_comes_back(block: int) -> None:
    for seed in range(block * SEEDS // 10, (block + 1) * SEEDS // 10):
        channel, one, other = two_ends(seed, automatic=True)
        rng = random.Random(seed)
        for end in (one, other):
            end.start()
        channel.run(rng.uniform(40, 60))
        channel.cut = set(rng.choice((["one"], ["other"], ["one", "other"])))
        channel.cut_udp = set(channel.cut)
        channel.run(1.3 * BOUND)
        assert one.down() and other.down(), f"seed {seed}, cut {channel.cut}"
        channel.run(rng.uniform(0, 200))
        channel.cut, channel.cut_udp = set(), set()
        channel.run(4000)
        assert not one.down() and not other.down(), f"seed {seed}"
        assert [sa.encap for sa in channel.sas] == [False], f"seed {seed}"
