"""More to do than there is time for: peers that do not exist, and hosts whose processor is slow.

LOAD_SEEDS=5 tries so many seeds of each.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import combinations

import pytest

from swanmesh.core.actions import Initiate
from swanmesh.core.pairs.initiation import initiates
from tests.unit.core.simulation.host import SimHost
from tests.unit.core.simulation.world import World

SEEDS = range(int(os.environ.get("LOAD_SEEDS", "1")))


def seconds_until(world: World, condition: Callable[[], bool], *, within: float, step: float = 0.1) -> float:
    began = world.clock.now
    while not condition():
        assert world.clock.now - began < within, f"seed {world.seed}: not within {within} s"
        world.clock.run(step)
    return world.clock.now - began


def full(world: World) -> bool:
    return not world.down()


def initiated(host: SimHost) -> set[str]:
    return {action.peer for action in host.actions if isinstance(action, Initiate)}


# Peers that do not exist.


def with_newcomer(seed: int, dead: int) -> tuple[World, SimHost, SimHost]:
    """Two hosts, of which the first has so many dead peers for company and initiates to the second."""
    world = World(seed, 2)
    first, second = world.hosts.values()
    if not initiates(first.name, second.name):
        first, second = second, first
    world.bury(first.name, dead)
    return world, first, second


@pytest.mark.parametrize("seed", SEEDS)
def test_a_newcomer_does_not_wait_for_dead_peers(seed: int) -> None:
    def joining(dead: int) -> float:
        world, host, newcomer = with_newcomer(seed, dead)
        host.start()
        world.clock.run(300.0)
        newcomer.put(world.peer(host.name))
        newcomer.start()
        world.clock.run(2.0)
        host.put(world.peer(newcomer.name))
        took = seconds_until(world, lambda: full(world), within=60.0)
        assert newcomer.name in initiated(host), "the other end's takeover saved it"
        return took

    assert joining(400) < joining(0) + 2.0


@pytest.mark.parametrize("seed", range(5))
def test_a_pair_comes_up_between_two_hosts_with_dead_peers(seed: int) -> None:
    world = World(seed, 2)
    world.share_files()
    for host in world.hosts.values():
        world.bury(host.name, 400)
        host.start()
    seconds_until(world, lambda: full(world), within=5.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_dead_peers_are_tried_in_turn_and_cost_little(seed: int) -> None:
    world, host, _ = with_newcomer(seed, 400)
    host.start()
    seconds_until(world, lambda: len(initiated(host)) == 400, within=60.0)
    world.clock.run(300.0)
    host.actions.clear()
    looks = world.watch.counts["looks"]
    world.clock.run(300.0)
    assert len(initiated(host)) == 400
    assert len(host.actions) - (world.watch.counts["looks"] - looks) <= 2.5 * 300
    assert world.watch.counts["looks"] - looks <= 0.25 * 300


@pytest.mark.parametrize("seed", SEEDS)
def test_five_thousand_peers_of_which_most_are_dead(seed: int) -> None:
    """Those that live have names behind the dead ones: their files are read last."""

    def starting(dead: int) -> tuple[World, SimHost, float]:
        world = World(seed, 501)
        host, *others = world.hosts.values()
        for other in others:
            other.put(world.peer(host.name))
        host.put(*[world.peer(other.name) for other in others])
        world.bury(host.name, dead)
        for each in world.hosts.values():
            each.start()
        assert host.mesh is not None
        state = host.mesh.state
        took = seconds_until(world, lambda: len(state.up) == len(others), within=60.0, step=0.5)
        return world, host, took

    _, _, alone = starting(0)
    world, host, took = starting(4500)
    assert took < alone + 10.0
    seconds_until(world, lambda: len(initiated(host)) > 4500, within=180.0, step=5.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_halves_find_each_other_again(seed: int) -> None:
    """All have failed often by then, and one that comes up tells that the others may."""
    world = World(seed, 20)
    names = sorted(world.hosts)
    left, right = names[:10], names[10:]
    cut = {(one, other) for a, b in ((left, right), (right, left)) for one in a for other in b}
    world.network.cut |= cut
    world.start()
    world.clock.run(600.0)
    world.network.cut.clear()
    world.network.changed()
    seconds_until(world, lambda: full(world), within=75.0, step=1.0)


# A processor that is slow.


def start_of(hosts: int, seed: int, rate: float | None) -> tuple[World, float]:
    """All at once, each with a processor of its own, or together on one of this rate. Until it is full."""
    world = World(seed, hosts)
    if rate is None:
        world.own_cpus()
    else:
        world.shared_cpu(rate)
    world.start()
    return world, seconds_until(world, lambda: full(world), within=1200.0, step=1.0)


@pytest.mark.parametrize(("hosts", "rate"), [(20, 1.0), (20, 0.25), (40, 1.0)])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_mesh_on_a_slow_processor_comes_up_without_collapse(seed: int, hosts: int, rate: float) -> None:
    _, quick = start_of(hosts, seed, None)
    world, took = start_of(hosts, seed, rate)
    assert took < 20 * quick
    world.clock.run(120.0)
    assert full(world)
    pairs = len(list(combinations(world.hosts, 2)))
    counts = world.watch.counts
    assert counts["Initiate"] <= 1.4 * pairs, counts
    assert counts["peer-down"] == counts["charon lost"] == 0, counts


@pytest.mark.parametrize("seed", SEEDS)
def test_hosts_that_start_one_after_another_wait_for_each_other(seed: int) -> None:
    """Whoever is early finds charons that have no connection for it yet, and does not go on asking."""
    world = World(seed, 40)
    world.own_cpus()
    world.start(spread=12.0)
    world.clock.run(12.0)
    seconds_until(world, lambda: full(world), within=15.0)
    counts = world.watch.counts
    assert counts["Initiate"] <= 1.25 * 780, counts
    assert counts["peer-down"] == 0, counts


@pytest.mark.parametrize("seed", SEEDS)
def test_thirty_hosts_on_a_quarter_of_a_processor_arrive(seed: int) -> None:
    world, _ = start_of(30, seed, 0.25)
    assert world.watch.counts["Initiate"] <= 2 * 435, world.watch.counts


@pytest.mark.parametrize("seed", SEEDS)
def test_a_host_starved_to_a_tenth_keeps_what_stands(seed: int) -> None:
    world, _ = start_of(10, seed, None)
    world.clock.run(60.0)
    before = world.spis()
    starved = world.hosts["h3.mesh.example"]
    assert starved.charon.cpu is not None
    starved.charon.cpu.rate = 0.1
    starved.kill()
    starved.start()
    world.clock.run(300.0)
    assert world.spis() == before
    assert world.watch.counts["peer-down"] == 0
