"""What somebody took from the kernel is put back; what charon is changing itself is never taken for that."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace

import pytest

from swanmesh.core.actions import (
    Action,
    ChangeGuard,
    Initiate,
    InstallPolicies,
    ObserveAll,
    ObserveKernel,
    ObserveSas,
    RekeyChild,
    RestorePolicies,
)
from swanmesh.core.desired import desired, neighbour_discovery
from swanmesh.core.inputs.kernel import AGAIN
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import AddressPair, InitiationSettings, Peer, Settings
from swanmesh.core.observed import ChildRekeyed, ChildSa, Holdings, IkeSa
from swanmesh.core.reasons import Reason
from swanmesh.core.settings.policy import Policy
from swanmesh.core.xfrm import (
    Direction,
    EventsLost,
    KernelHoldings,
    KernelUnwatched,
    KernelWatched,
    PoliciesFlushed,
    PolicyDeleted,
    StateDeleted,
    StatesFlushed,
    XfrmPolicy,
    XfrmState,
)
from tests.unit.core.build import child_sa, holdings, ike_sa, name_of, peer, settings

REQID = 7
MENDING = (RestorePolicies, InstallPolicies, RekeyChild)


def child(unique_id: int = 1, state: str = "INSTALLED") -> ChildSa:
    return replace(child_sa(unique_id, state), reqid=REQID)


def states(*children: ChildSa) -> tuple[XfrmState, ...]:
    end = ipaddress.ip_address("203.0.113.2")
    return tuple(XfrmState(end, spi, 50, True, REQID) for c in children for spi in (c.spi_in, c.spi_out))


def policies(addresses: AddressPair, *, allow: bool = True, reqid: int = REQID) -> tuple[XfrmPolicy, ...]:
    local, remote = addresses.local, addresses.remote
    bits = local.max_prefixlen
    ways = ((Direction.OUT, local, remote), (Direction.IN, remote, local))
    return tuple(
        XfrmPolicy(way, source, bits, destination, bits, 0, 0, allow, reqid, 367231, 1)
        for way, source, destination in ways
    )


class World:
    """One host with peers, its charon and its kernel, on a clock of its own."""

    def __init__(self, host: Settings, *peers: Peer, sas: Iterable[IkeSa] = (), up: bool = True) -> None:
        self.host, self.now = host, 100.0
        self.guard: dict[object, XfrmPolicy] = {}
        """The guard's policies in the kernel, by selector."""
        self.mesh = Mesh(host, seed=1)
        self.mesh.update_peers(peers, (), self.now)
        self.addresses = {name: pair for peer in peers for name, (pair, _) in desired(host, peer).items()}
        self.loaded = {
            name: connection.child for p in peers for name, (_, connection) in desired(host, p).items()
        }
        shunt = neighbour_discovery(host)
        if shunt is not None:
            self.loaded[shunt.name] = shunt.child
        self.sas = list(sas) or [
            ike_sa(name, number, "ESTABLISHED", child(number))
            for number, name in enumerate(self.addresses, 1)
        ]
        if not up:
            self.sas = []
        self.kernel = KernelHoldings(
            states(*(c for sa in self.sas for c in sa.children)),
            tuple(policy for pair in self.addresses.values() for policy in policies(pair)),
        )
        self.mesh.charon_back("5.9.8", self.held, self.now)
        self.mesh.kernel_event(KernelWatched(), self.now)

    @property
    def held(self) -> Holdings:
        return holdings(self.host, *self.sas, loaded=self.loaded)

    def run(self, seconds: float, *, answer: bool = True) -> list[Action]:
        """Lets time pass, answers looks, carries out the rest at once; returns the rest. Unless `answer`, it
        has no outcome yet."""
        done: list[Action] = []
        end = self.now + seconds
        while True:
            for action in self.mesh.step(self.now).actions:
                match action:
                    case ObserveKernel():
                        policies = (*self.kernel.policies, *self.guard.values())
                        self.mesh.kernel_observed(self.kernel._replace(policies=policies), self.now)
                    case ChangeGuard(change=change):
                        self.guard |= {policy.selector: policy for policy in change.put}
                        for policy in change.drop:
                            del self.guard[policy.selector]
                        self.mesh.done(action, None, self.now)
                    case ObserveAll():
                        self.mesh.observed(self.held, self.now)
                    case ObserveSas():
                        self.mesh.observed(tuple(self.sas), self.now)
                    case _:
                        done.append(action)
                        if answer:
                            self.mesh.done(action, None, self.now)
            due = self.mesh.due
            if due is None or due >= end:
                self.now = end
                return done
            self.now = max(self.now + 0.001, due)

    def without(self, *, policies: bool = False, states: bool = False) -> None:
        if policies:
            self.guard.clear()
        self.kernel = KernelHoldings(
            () if states else self.kernel.states, () if policies else self.kernel.policies
        )


def mending(actions: list[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, MENDING)]


@pytest.fixture
def world() -> World:
    made = World(settings(), peer(), peer("web3.mesh.example", "203.0.113.3"))
    assert made.run(200.0) == []
    return made


def test_flushed_policies_are_put_back_in_the_very_next_step(world: World) -> None:
    world.mesh.kernel_event(PoliciesFlushed(), world.now)
    actions = world.mesh.step(world.now).actions
    assert sorted(str(a.addresses) for a in actions if isinstance(a, RestorePolicies)) == [
        "203.0.113.1 to 203.0.113.2",
        "203.0.113.1 to 203.0.113.3",
    ]
    guard, *others = actions
    assert isinstance(guard, ChangeGuard), "what closes comes before what opens"
    assert all(isinstance(a, RestorePolicies) and a.reqid == REQID and not a.replace for a in others)
    assert all(a.reason.words == "somebody flushed the kernel's IPsec policies" for a in others)


def test_flushed_states_are_rekeyed_after_one_look(world: World) -> None:
    world.without(states=True)
    world.mesh.kernel_event(StatesFlushed(), world.now)
    actions = world.run(0.1)
    assert sorted(a.unique_id for a in actions if isinstance(a, RekeyChild)) == [1, 2]
    assert len(actions) == 2


def test_a_flush_that_left_the_states_of_charon_alone_is_no_fault(world: World) -> None:
    world.mesh.kernel_event(StatesFlushed(), world.now)
    assert world.run(30.0) == []


@pytest.mark.parametrize("watched", [False, True])
def test_missing_states_are_proven_by_two_looks_with_charons_word_between(
    world: World, watched: bool
) -> None:
    gone = world.kernel.states[0]
    world.kernel = KernelHoldings(world.kernel.states[1:], world.kernel.policies)
    if watched:
        world.mesh.kernel_event(StateDeleted(gone.spi), world.now)
    began = world.now
    while not (actions := mending(world.run(0.25))):
        assert world.now < began + 120.0
    assert [a.unique_id for a in actions if isinstance(a, RekeyChild)] == [1]
    assert world.now - began > AGAIN
    if watched:
        assert world.now - began < 5.0


@pytest.mark.parametrize("watched", [False, True])
def test_a_missing_policy_is_proven_and_put_back(world: World, watched: bool) -> None:
    world.kernel = KernelHoldings(world.kernel.states, world.kernel.policies[1:])
    if watched:
        world.mesh.kernel_event(PolicyDeleted(), world.now)
    began = world.now
    while not (actions := mending(world.run(0.25))):
        assert world.now < began + 120.0
    assert [type(action) for action in actions] == [RestorePolicies]
    assert world.now - began > AGAIN
    if watched:
        assert world.now - began < 5.0


def test_a_policy_that_lets_packets_pass_in_clear_is_replaced(world: World) -> None:
    first, *rest = world.kernel.policies
    world.kernel = KernelHoldings(world.kernel.states, (first._replace(reqid=0), *rest))
    actions = mending(world.run(120.0, answer=False))
    assert [isinstance(a, RestorePolicies) and a.replace for a in actions] == [True]


def test_what_comes_back_by_itself_before_the_second_look_is_left_alone(world: World) -> None:
    whole = world.kernel
    world.without(states=True, policies=True)
    world.mesh.kernel_event(PolicyDeleted(), world.now)
    assert mending(world.run(1.2)) == []
    world.kernel = whole
    assert mending(world.run(300.0)) == []


def test_what_charon_has_ended_meanwhile_is_not_missing() -> None:
    world = World(settings(policy=Policy.PREFER), peer())
    assert world.run(100.0) == []
    world.without(states=True, policies=True)
    world.sas = []
    world.mesh.kernel_event(PolicyDeleted(), world.now)
    actions = world.run(100.0)
    assert mending(actions) == []
    assert any(isinstance(action, Initiate) for action in actions)


@pytest.mark.parametrize("state", ["REKEYED", "REKEYING", "DELETING", "DELETED"])
def test_a_rekeying_under_way_is_never_a_fault(state: str) -> None:
    host, other = settings(), peer()
    sa = ike_sa(name_of(host, other), 1, "ESTABLISHED", child(1, state), child(2))
    world = World(host, other, sas=[sa])
    world.kernel = KernelHoldings(states(child(1)), world.kernel.policies)
    world.mesh.kernel_event(StateDeleted(child(2).spi_out), world.now)
    world.mesh.kernel_event(StatesFlushed(), world.now)
    assert mending(world.run(200.0)) == []


def test_a_deletion_that_charon_tells_of_itself_costs_no_look(world: World) -> None:
    sa = world.sas[0]
    old, new = sa.children[0], child(30)
    world.mesh.kernel_event(StateDeleted(old.spi_in), world.now)
    world.mesh.event(ChildRekeyed(sa, old.unique_id, new), world.now)
    looks = [a for a in (world.mesh.step(world.now + 1.1).actions) if isinstance(a, ObserveKernel)]
    assert looks == []


def test_a_rekeying_that_mends_is_not_asked_for_twice_while_it_may_still_come(world: World) -> None:
    world.without(states=True)
    world.mesh.kernel_event(StatesFlushed(), world.now)
    assert len(mending(world.run(9.0))) == 2
    assert len(mending(world.run(6.0))) == 2  # and once more when it has not helped


def test_what_never_helps_is_tried_less_and_less_often(world: World) -> None:
    world.without(policies=True)
    world.mesh.kernel_event(PolicyDeleted(), world.now)
    first, later = len(mending(world.run(600.0))), len(mending(world.run(6000.0)))
    assert 2 * 4 <= first <= 2 * 10
    assert 2 * 10 <= later <= 2 * 25


def test_rekeyings_that_mend_are_admitted_like_initiations() -> None:
    host = settings(initiation=InitiationSettings(in_flight=4))
    peers = [peer(f"h{n}.mesh.example", f"203.0.113.{n}") for n in range(10, 30)]
    world = World(host, *peers)
    world.run(100.0)
    world.without(states=True)
    world.mesh.kernel_event(StatesFlushed(), world.now)
    asked = [a for a in mending(world.run(1.0)) if isinstance(a, RekeyChild)]
    assert len(asked) == 4
    for action in asked:
        sa = next(sa for sa in world.sas if sa.connection == action.connection)
        fresh = child(action.unique_id + 1000)
        world.sas[world.sas.index(sa)] = replace(sa, children=(fresh,))
        world.kernel = KernelHoldings((*world.kernel.states, *states(fresh)), world.kernel.policies)
        world.mesh.event(ChildRekeyed(sa, action.unique_id, fresh), world.now)
    again = [a for a in mending(world.run(1.0)) if isinstance(a, RekeyChild)]
    assert len(again) == 4
    assert not {a.unique_id for a in asked} & {a.unique_id for a in again}


def test_a_refused_rekeying_gives_its_place_back(world: World) -> None:
    world.without(states=True)
    world.mesh.kernel_event(StatesFlushed(), world.now)
    asked = mending(world.run(0.1, answer=False))
    for action in asked:
        world.mesh.done(action, "no matching CHILD_SA", world.now)
    assert world.mesh.state.admission.in_flight == 0


def test_policies_of_a_trap_are_charons_to_install() -> None:
    world = World(settings(), peer(), up=False)
    world.run(0.0, answer=False)
    world.mesh.kernel_event(PoliciesFlushed(), world.now)
    actions = mending(world.run(0.1))
    assert [type(action) for action in actions] == [InstallPolicies]


def test_without_trap_and_association_nothing_is_missing() -> None:
    world = World(settings(policy=Policy.PREFER), peer(), up=False)
    world.without(policies=True)
    world.mesh.kernel_event(PoliciesFlushed(), world.now)
    assert mending(world.run(100.0)) == []


def test_a_shunt_of_a_peer_held_down_is_installed_again(world: World) -> None:
    world.mesh.command("down", "web2.mesh.example", world.now)
    world.run(1.0)
    name = next(name for name in world.addresses if "web2" in name)
    (pair,) = world.mesh.state.pairs.of("web2.mesh.example")
    assert pair.connection is not None
    world.loaded[name] = pair.connection.child
    world.sas = [sa for sa in world.sas if sa.connection != name]
    (other,) = (pair for key, pair in world.addresses.items() if key != name)
    drops = policies(world.addresses[name], allow=False, reqid=0)
    world.kernel = KernelHoldings(world.kernel.states, (*policies(other), *drops))
    world.mesh.observed(world.held, world.now)
    assert mending(world.run(200.0)) == []
    world.kernel = KernelHoldings(world.kernel.states, policies(other))
    actions = mending(world.run(120.0, answer=False))
    assert [isinstance(a, InstallPolicies) and a.child.startswith("drop-") for a in actions] == [True]


def test_neighbour_discovery_is_let_pass_again() -> None:
    world = World(settings("web1.mesh.example", "2001:db8::1"), peer("web2.mesh.example", "2001:db8::2"))
    any6 = ipaddress.ip_address("::")
    shunts = tuple(
        XfrmPolicy(way, any6, 0, any6, 0, 58, kind, True, 0, 199487, 1)
        for way in Direction
        for kind in (135, 136)
    )
    world.kernel = KernelHoldings(world.kernel.states, world.kernel.policies + shunts)
    assert world.run(200.0) == []
    world.kernel = KernelHoldings(world.kernel.states, world.kernel.policies[:-1] + shunts[1:])
    world.kernel = KernelHoldings(
        world.kernel.states, tuple(p for p in world.kernel.policies if p != shunts[2])
    )
    actions = mending(world.run(120.0, answer=False))
    assert [isinstance(a, InstallPolicies) and a.child.startswith("pass-") for a in actions] == [True]


def test_lost_events_cost_one_look_at_once(world: World) -> None:
    world.mesh.kernel_event(EventsLost(), world.now)
    assert [type(action) for action in world.mesh.step(world.now).actions] == [ObserveKernel]


def test_nothing_is_mended_while_charon_does_not_answer(world: World) -> None:
    world.mesh.kernel_event(PoliciesFlushed(), world.now)
    world.mesh.charon_lost(Reason("test", "gone"), world.now)
    world.mesh.kernel_event(PoliciesFlushed(), world.now)
    world.mesh.kernel_event(StateDeleted("00000001"), world.now)
    assert world.run(100.0) == []
    world.mesh.charon_back("5.9.8", world.held, world.now)
    assert mending(world.run(100.0)) == []


def test_a_kernel_that_cannot_be_watched_is_not_looked_at(world: World) -> None:
    world.mesh.kernel_event(KernelUnwatched("not permitted"), world.now)
    assert world.mesh.state.kernel.reason == "not permitted"
    world.without(states=True, policies=True)
    assert world.run(500.0) == []


def test_a_look_that_fails_is_made_again_soon_and_proves_nothing(world: World) -> None:
    world.mesh.kernel_event(EventsLost(), world.now)
    world.mesh.step(world.now)
    world.mesh.kernel_observed(None, world.now)
    due = world.mesh.state.kernel.due
    assert due is not None and 0 < due - world.now <= 5.0
    assert mending(world.run(1.0)) == []
