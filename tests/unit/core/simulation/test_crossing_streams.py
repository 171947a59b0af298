"""Crossing streams: two sides that each do something to their association at about the same moment.

Each case is one interleaving, named after what the two sides do and how far the second's first packet comes
behind the first's. A packet takes 10 ms, so that the exchanges overlap, meet half-way, or follow one another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.unit.core.simulation.holder import Lifetimes
from tests.unit.core.simulation.host import SimHost
from tests.unit.core.simulation.sas import Ike
from tests.unit.core.simulation.watch import associations
from tests.unit.core.simulation.world import World

NEVER = Lifetimes(child_rekey=1e9, ike_rekey=1e9, reauth=1e9)
LAGS = {"at once": 0.0, "5 ms later": 0.005, "15 ms later": 0.015, "25 ms later": 0.025, "45 ms later": 0.045}


def ike_of(host: SimHost) -> Ike | None:
    """The IKE_SA of the one peer, the youngest if there are several."""
    held = [sa for sas in associations(host.charon).values() for sa in sas if sa.established_state]
    return held[-1] if held else None


def initiates(host: SimHost) -> None:
    """A new IKE_SA beside the one that stands: a trap's acquire that lost a race, another controller."""
    (conn,) = [conn for conn in host.charon.conns.values() if conn.name.startswith("swanmesh-h")]
    host.charon.connect(conn.name, conn.child, conn.local, conn.remote, by_controller=False)


def deletes(host: SimHost) -> None:
    """`swanctl --terminate --ike-id`."""
    if (ike := ike_of(host)) is not None:
        host.charon.terminate_ike(ike.unique_id)


def deletes_child(host: SimHost) -> None:
    if (ike := ike_of(host)) is not None:
        for child in list(ike.children):
            host.charon.terminate_child(child)


def rekeys_ike(host: SimHost) -> None:
    if (ike := ike_of(host)) is not None:
        host.charon.rekey_ike(ike.unique_id)


def rekeys_child(host: SimHost) -> None:
    if (ike := ike_of(host)) is not None:
        for child in list(ike.children):
            host.charon.rekey_child(child)


def reauthenticates(host: SimHost) -> None:
    if (ike := ike_of(host)) is not None:
        host.charon.rekey_ike(ike.unique_id, reauth=True)


def restarts_its_controller(host: SimHost) -> None:
    host.kill()
    host.clock.after(0.01, host.start)


def crashes(host: SimHost) -> None:
    host.charon.crash()
    host.clock.after(2.0, host.charon.restart)


Deed = Callable[[SimHost], None]

KEEPING: tuple[Deed, ...] = (
    initiates,
    rekeys_ike,
    rekeys_child,
    reauthenticates,
    restarts_its_controller,
)
"""After these the pair is never without an association."""
ENDING: tuple[Deed, ...] = (deletes, deletes_child, crashes)
"""After these it is back soon."""


def words(deed: Deed) -> str:
    return deed.__name__.replace("_", " ")


def cases(deeds: tuple[Deed, ...], others: tuple[Deed, ...]) -> list[object]:
    return [
        pytest.param(one, other, lag, id=f"one {words(one)}, the other {words(other)} {name}")
        for one, other in itertools.product(deeds, others)
        for name, lag in LAGS.items()
    ]


def two_hosts(seed: int = 1) -> World:
    world = World(seed, 2, lifetimes=NEVER)
    world.network.latency = (0.01, 0.01)
    return world


def up() -> tuple[World, SimHost, SimHost]:
    """A quiet pair. The first of the two is its initiator's end."""
    world = two_hosts()
    world.start()
    world.clock.run(30.0)
    assert not world.faults()
    one, other = sorted(world.hosts.values(), key=lambda host: not host_initiates(host))
    return world, one, other


def host_initiates(host: SimHost) -> bool:
    assert host.mesh is not None
    (pair,) = host.mesh.state.pairs
    return pair.initiator


def assert_settled(world: World) -> None:
    """One association, the same at both ends; nobody ended what worked, nothing was deleted twice."""
    world.clock.run(90.0)
    assert not world.faults()
    assert world.actions_at_rest(130.0) == []
    ends = [
        sorted(sa.spi_i for sas in associations(h.charon).values() for sa in sas)
        for h in world.hosts.values()
    ]
    assert ends[0] == ends[1] and len(ends[0]) == 1
    assert world.watch.counts["ended beside one that the peer had lost"] == 0


@pytest.mark.parametrize("turned", [False, True], ids=["initiator first", "responder first"])
@pytest.mark.parametrize(("first", "second", "lag"), cases(KEEPING, KEEPING))
def test_never_without(first: Deed, second: Deed, lag: float, turned: bool) -> None:
    world, one, other = up()
    if turned:
        one, other = other, one
    first(one)
    world.clock.after(lag, lambda: second(other))
    for _ in range(400):
        world.clock.run(0.002)
        assert not world.down()
    for _ in range(80):
        world.clock.run(1.0)
        assert not world.down()
    assert_settled(world)


@pytest.mark.parametrize("turned", [False, True], ids=["initiator first", "responder first"])
@pytest.mark.parametrize(
    ("first", "second", "lag"), [*cases(ENDING, KEEPING + ENDING), *cases(KEEPING, ENDING)]
)
def test_back_soon(first: Deed, second: Deed, lag: float, turned: bool) -> None:
    world, one, other = up()
    if turned:
        one, other = other, one
    first(one)
    world.clock.after(lag, lambda: second(other))
    world.clock.run(25.0)
    assert not world.down()
    assert_settled(world)


@pytest.mark.parametrize("lag", LAGS.values(), ids=LAGS.keys())
def test_both_initiate_from_nothing(lag: float) -> None:
    """Two IKE_SAs come up; after a while one stands, the same at both ends, and the pair was never down."""
    world = two_hosts()
    world.share_files()
    for host in world.hosts.values():
        host.start()
    world.clock.run(0.1)
    one, other = world.hosts.values()
    initiates(one)
    world.clock.after(lag, lambda: initiates(other))
    world.clock.run(2.0)
    for _ in range(60):
        world.clock.run(1.0)
        assert not world.down()
    assert_settled(world)
    assert 1 <= world.watch.counts["duplicates ended"] <= 2


def test_the_initiators_delete_is_lost_and_the_other_end_acts_much_later() -> None:
    """A duplicate stands; the initiator's controller is dead, so the other end removes it after its delay."""
    world, one, other = up()
    initiates(one)
    world.clock.run(1.0)
    one.kill()
    began = world.clock.now
    while len(associations(other.charon)) and len(next(iter(associations(other.charon).values()))) == 2:
        world.clock.run(1.0)
        assert not world.down()
        assert world.clock.now - began < 120.0
    assert world.clock.now - began > other.settings.initiation.takeover
    one.start()
    assert_settled(world)


def test_the_other_end_takes_over_from_an_initiator_without_controller() -> None:
    world = two_hosts()
    world.share_files()
    one, other = sorted(world.hosts.values(), key=lambda host: host.name)
    one.start()
    other.start()
    world.clock.run(0.05)
    first = one if host_initiates(one) else other
    second = other if first is one else one
    # It loads what the peer needs to answer, and dies before it initiates.
    first.kill()
    began = world.clock.now
    takeover = second.settings.initiation.takeover
    world.clock.run(takeover - 1.0)
    assert world.down()
    world.clock.run(takeover / 4 + 3.0)
    assert not world.down() and world.clock.now - began < 1.5 * takeover
    first.start()
    assert_settled(world)
    assert world.watch.counts["duplicates ended"] == 0
