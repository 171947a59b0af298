"""Hosts that are met under blocks: who they are, what becomes of them, and what strangers cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest

from swanmesh.core.actions import (
    Action,
    Initiate,
    LoadConnection,
    ObserveAll,
    ObserveKernel,
    ObserveSas,
    TerminateIke,
)
from swanmesh.core.connections import Kind, kind_of, met_under_block, peer_of
from swanmesh.core.inputs.removal import held
from swanmesh.core.mesh import Mesh
from swanmesh.core.observed import ChildUp, IkeDown, IkeMoved, IkeRekeyed, IkeSa, IkeUp
from swanmesh.core.peers.members import ADDRESSES, ASKED_AT_ONCE
from swanmesh.core.reasons import NOT_AS_AGREED
from swanmesh.core.settings.policy import Policy
from swanmesh.core.verdict import peer_verdict
from swanmesh.core.xfrm import Direction, KernelHoldings, KernelWatched, PacketCalls, XfrmPolicy
from tests.unit.core.build import address, association, peer, settings
from tests.unit.core.ideal import IdealCharon
from tests.unit.core.test_blocks import block

OWN = ("203.0.113.1", "2001:db8::1")


class World:
    """One core with blocks, and a charon that does what it is told; what others do is told to it."""

    def __init__(self, *entries: object, charon: IdealCharon | None = None, policy: Policy = Policy.REQUIRE):
        self.settings = settings("web1.mesh.example", *OWN, policy=policy)
        self.mesh = Mesh(self.settings, seed=1)
        self.charon = charon or IdealCharon(self.settings)
        self.now = 100.0
        self.done: list[Action] = []
        self.events: list[tuple[str, str]] = []
        self.mesh.update_peers(entries, (), self.now)  # type: ignore[arg-type]
        self.mesh.charon_back("5.9.8", self.charon.holdings(), self.now)
        self.settle()

    def settle(self, until: float | None = None) -> list[Action]:
        """Carry out what is decided: initiations stay without an answer. Returns what was done."""
        before = len(self.done)
        while True:
            step = self.mesh.step(self.now)
            self.events += [(event.kind, event.peer) for event in step.events]
            for action in step.actions:
                self._carry_out(action)
            due = self.mesh.due
            if step.actions or due == 0.0:
                continue
            if until is None or due is None or due > until:
                self.now = max(self.now, until or 0.0)
                return self.done[before:]
            self.now = max(self.now, due)

    def _carry_out(self, action: Action) -> None:
        if isinstance(action, ObserveAll):
            self.mesh.observed(self.charon.holdings(), self.now)
        elif isinstance(action, ObserveSas):
            self.mesh.observed(self.charon.holdings().sas, self.now)
        elif isinstance(action, ObserveKernel):
            self.mesh.kernel_observed(None, self.now)
        elif action.edge == "kernel":
            self.mesh.done(action, None, self.now)
        else:
            self.done.append(action)
            error = None if isinstance(action, Initiate) else self.charon.carry_out(action)
            self.mesh.done(action, error, self.now)
            events, self.charon.events = self.charon.events, []
            for event in events:
                self.mesh.event(event, self.now)

    def gate(self, remote: str) -> str:
        """Name of the gate's connection that an IKE_SA from there comes in by."""
        version = address(remote).version
        for pair in self.mesh.state.pairs:
            if pair.connection is not None and pair.connection.kind is Kind.GATE and pair.loaded:
                assert pair.connection.addresses is not None
                if pair.connection.addresses.local.version == version:
                    return pair.name
        raise AssertionError("no gate")

    def comes(
        self, remote: str, identity: str, unique_id: int, *, by: str = "", initiator: bool = False
    ) -> IkeSa:
        """An association comes up with the host at this address."""
        local = OWN[0] if ":" not in remote else OWN[1]
        made = association(by or self.gate(remote), unique_id, initiator=initiator)
        sa = replace(
            made, local_host=local, remote_host=remote, local_id="web1.mesh.example", remote_id=identity
        )
        self.charon.sas[unique_id] = sa
        self.mesh.event(IkeUp(replace(sa, children=())), self.now)
        self.mesh.event(ChildUp(sa), self.now)
        self.settle()
        return sa

    def packet(self, remote: str) -> list[Action]:
        """A packet goes there. Returns what was done."""
        local = OWN[0] if ":" not in remote else OWN[1]
        self.mesh.kernel_event(PacketCalls(address(local), address(remote)), self.now)
        return self.settle()

    def up(self) -> dict[str, str]:
        """Who is up, by name, and where."""
        state = self.mesh.state
        return {
            str(peer.addresses[0]): peer.title
            for peer in state.peers()
            if peer_verdict(state, peer, self.now).state == "up"
        }


def kinds(actions: Iterable[Action]) -> list[str]:
    return [action.verb for action in actions]


def initiated(actions: Iterable[Action]) -> list[str]:
    return [action.peer for action in actions if isinstance(action, Initiate)]


def test_a_block_loads_a_gate_for_each_address_of_its_family_and_asks_nobody() -> None:
    world = World(block("four", "203.0.113.0/24"), block("six", "2001:db8::/64"))
    loads = [action for action in world.done if isinstance(action, LoadConnection)]
    gates = [action.connection for action in loads if action.connection.kind is Kind.GATE]
    assert [(str(gate.addresses), gate.trap, gate.remote_ts) for gate in gates if gate.addresses] == [
        (str(gate.addresses), False, ("dynamic",)) for gate in gates
    ]
    assert {(peer_of(gate.name), kind_of(gate.child)) for gate in gates} == {
        ("four", Kind.GATE),
        ("six", Kind.GATE),
    }
    assert initiated(world.settle(world.now + 600.0)) == []


@pytest.mark.parametrize("remote", ["203.0.113.7", "2001:db8::7"])
def test_who_comes_with_a_certificate_is_a_member_by_the_identity_it_proved(remote: str) -> None:
    world = World(block("four", "203.0.113.0/24"), block("six", "2001:db8::/64"))
    world.comes(remote, "web7.mesh.example", 7)
    assert world.up() == {remote: "web7.mesh.example"}
    assert ("peer-up", "web7.mesh.example") in world.events
    assert initiated(world.settle(world.now + 600.0)) == []


def test_several_members_stand_under_one_gate_and_are_no_duplicates_of_each_other() -> None:
    world = World(block("four", "203.0.113.0/24"))
    for last in range(10, 60):
        world.comes(f"203.0.113.{last}", f"web{last}.mesh.example", last)
    assert len(world.up()) == 50
    done = world.settle(world.now + 300.0)
    assert not [action for action in done if isinstance(action, TerminateIke)]
    gone = world.charon.sas.pop(20)
    world.mesh.event(IkeDown(replace(gone, state="DELETING", children=())), world.now)
    world.settle()
    assert len(world.up()) == 49 and "203.0.113.20" not in world.up()
    assert [event for event in world.events if event[0] == "peer-down"] == [
        ("peer-down", "web20.mesh.example")
    ]


@pytest.mark.parametrize("remote", ["203.0.113.7", "2001:db8::7"])
def test_a_packet_asks_the_host_that_it_is_for(remote: str) -> None:
    world = World(block("four", "203.0.113.0/24"), block("six", "2001:db8::/64"))
    done = world.packet(remote)
    assert kinds(done) == ["load", "initiate"] and initiated(done) == [remote]
    load = done[0]
    assert isinstance(load, LoadConnection) and load.connection.peer == "%any"
    assert met_under_block(load.connection.name) and peer_of(load.connection.name) == remote
    assert world.packet(remote) == [], "it is being asked"
    world.comes(remote, "web7.mesh.example", 7, by=load.connection.name, initiator=True)
    assert world.up() == {remote: "web7.mesh.example"}


def test_a_stranger_is_forgotten_but_for_when_it_may_be_asked_again() -> None:
    world = World(block("four", "203.0.113.0/24"))
    asked = []
    while world.now < 6000.0:
        if initiated([*world.packet("203.0.113.7"), *world.settle(world.now + 1.0)]):
            asked.append(world.now)
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert gaps == sorted(gaps) and gaps[0] < 60.0 and 900.0 <= gaps[-1] < 1000.0
    assert not any(met_under_block(name) for name in world.charon.loaded), "nothing of it is left in charon"


def test_an_explicit_peer_inside_a_block_wins() -> None:
    explicit = peer("web2.mesh.example", "203.0.113.2")
    world = World(block("four", "203.0.113.0/24"), explicit)
    world.settle(world.now + 60.0)
    assert world.packet("203.0.113.2") == []
    sa = world.comes("203.0.113.2", "web9.mesh.example", 9)
    assert world.up() == {} and sa.unique_id not in world.charon.sas, "another identity at a peer's address"


def test_the_name_of_an_explicit_peer_counts_at_its_own_address_alone() -> None:
    world = World(block("four", "203.0.113.0/24"), peer("web2.mesh.example", "203.0.113.2"))
    sa = world.comes("203.0.113.66", "web2.mesh.example", 9)
    assert world.up() == {} and sa.unique_id not in world.charon.sas
    ended = [action for action in world.done if isinstance(action, TerminateIke)]
    assert [action.reason.code for action in ended] == [NOT_AS_AGREED]
    assert "add it there" in ended[0].reason.words
    assert "peer-violation" in dict(world.events)


@pytest.mark.parametrize(
    ("remote", "identity"),
    [
        ("203.0.113.9", "web9.mesh.example"),  # excepted
        ("198.51.100.9", "web9.mesh.example"),  # in no block
        ("203.0.113.10", "web1.mesh.example"),  # this host's own name
        ("203.0.113.10", "CN=web9"),
        ("203.0.113.10", "203.0.113.10"),
    ],
)
def test_who_is_not_let_in_is_ended_at_once(remote: str, identity: str) -> None:
    world = World(block("four", "203.0.113.0/24", "203.0.113.9"))
    sa = world.comes(remote, identity, 9)
    assert world.up() == {} and sa.unique_id not in world.charon.sas
    ended = [action for action in world.done if isinstance(action, TerminateIke)]
    assert [(action.force, action.reason.code) for action in ended] == [(True, NOT_AS_AGREED)]


def test_a_certificate_that_was_copied_gets_no_further_than_some_addresses() -> None:
    world = World(block("four", "203.0.113.0/24"))
    for last in range(10, 10 + 2 * ADDRESSES):
        world.comes(f"203.0.113.{last}", "web7.mesh.example", last)
    assert len(world.up()) == ADDRESSES
    world.comes("203.0.113.100", "web8.mesh.example", 100)
    assert "203.0.113.100" in world.up()


def test_a_restart_of_the_service_finds_nothing_to_do_with_members() -> None:
    entries = block("four", "203.0.113.0/24"), block("six", "2001:db8::/64")
    world = World(*entries)
    for last in (7, 8):
        world.comes(f"203.0.113.{last}", f"web{last}.mesh.example", last)
    by = next(a for a in world.packet("2001:db8::9") if isinstance(a, LoadConnection)).connection.name
    world.comes("2001:db8::9", "web9.mesh.example", 9, by=by, initiator=True)
    assert len(world.up()) == 3
    again = World(*entries, charon=world.charon)
    assert again.up() == world.up() and again.done == []
    assert again.settle(again.now + 300.0) == []


def test_a_restart_forgets_members_that_are_down_and_is_no_slip() -> None:
    entry = block("four", "203.0.113.0/24")
    world = World(entry)
    for last in range(10, 30):
        world.comes(f"203.0.113.{last}", f"web{last}.mesh.example", last)
    world.charon.sas.clear()
    again = World(entry, charon=world.charon)
    assert held(again.mesh.state) == []
    assert not any(met_under_block(name) for name in again.charon.loaded)


def test_what_only_looks_like_a_hosts_connection_is_one_of_an_unknown_peer() -> None:
    world = World(block("four", "203.0.113.0/24"))
    world.charon.loaded |= {
        f"swanmesh--{name}-01234567": ("esp-0123456789abcdef",) for name in ("junk", "999.1.1.1", "1--2--3")
    }
    again = World(block("four", "203.0.113.0/24"), charon=world.charon)
    assert {kind for kind, _ in again.events} <= {"charon-back"}
    assert not any(name.startswith("swanmesh--") for name in again.charon.loaded)


def test_a_change_of_the_blocks_touches_what_changed_alone() -> None:
    four, six = block("four", "203.0.113.0/24"), block("six", "2001:db8::/64")
    world = World(four, six)
    world.comes("203.0.113.7", "web7.mesh.example", 7)
    world.comes("203.0.113.200", "web8.mesh.example", 8)
    world.comes("2001:db8::9", "web9.mesh.example", 9)
    world.mesh.update_peers([block("inner", "203.0.113.128/25", policy="require")], (), world.now)
    done = world.settle(world.now + 30.0)
    assert kinds(done) == ["load"] and len(world.up()) == 3, "the gate of the new block"
    world.mesh.update_peers([], ["four.yaml"], world.now)
    done = world.settle(world.now + 30.0)
    assert set(world.up().values()) == {"web8.mesh.example", "web9.mesh.example"}
    assert {action.peer for action in done} == {"four", "203.0.113.7"}
    assert world.events[-1] == ("peer-removed", "web7.mesh.example")
    world.mesh.update_peers([replace(six, policy=Policy.OFF)], (), world.now)
    world.settle(world.now + 30.0)
    assert set(world.up().values()) == {"web8.mesh.example"}


def test_a_file_for_a_member_takes_over_what_stands() -> None:
    world = World(block("four", "203.0.113.0/24"))
    world.comes("203.0.113.7", "web7.mesh.example", 7)
    world.mesh.update_peers([peer("web7.mesh.example", "203.0.113.7")], (), world.now)
    done = world.settle(world.now + 60.0)
    assert world.up() == {"203.0.113.7": "web7.mesh.example"} and 7 in world.charon.sas
    assert kinds(done) == ["load", "unload"]
    assert ("peer-down", "web7.mesh.example") not in world.events
    sa = world.charon.sas[7]
    new = replace(sa, unique_id=8, spi_initiator="8", spi_responder="8", children=())
    del world.charon.sas[7]
    world.charon.sas[8] = replace(new, children=sa.children)
    world.mesh.event(IkeRekeyed(7, new), world.now)
    world.settle(world.now + 60.0)
    assert world.up() == {"203.0.113.7": "web7.mesh.example"} and 8 in world.charon.sas


def test_the_file_of_a_block_that_is_gone_takes_no_crowd_along() -> None:
    world = World(block("four", "203.0.113.0/24"), block("six", "2001:db8::/64"))
    for last in range(10, 30):
        world.comes(f"203.0.113.{last}", f"web{last}.mesh.example", last)
    world.mesh.update_peers((), (), world.now, gone=["four.yaml"])
    world.settle(world.now + 120.0)
    assert len(world.up()) == 20 and held(world.mesh.state) == ["four"]
    world.mesh.confirm(world.now)
    world.settle(world.now + 30.0)
    assert world.up() == {}


def test_whoever_left_policies_in_the_kernel_with_a_charon_that_was_killed_is_asked_again() -> None:
    world = World(block("four", "203.0.113.0/24"), peer("web2.mesh.example", "203.0.113.2"))
    known = world.comes("203.0.113.9", "web9.mesh.example", 9)
    left = [
        XfrmPolicy(Direction.OUT, address(OWN[0]), 32, address(f"203.0.113.{last}"), 32, 0, 0, True, 7, 1, 0)
        for last in (2, 7, 9)
    ]
    world.mesh.kernel_event(KernelWatched(), world.now)
    world.mesh.kernel_observed(KernelHoldings((), tuple(left)), world.now)
    done = world.settle(world.now + 1.0)
    assert set(initiated(done)) - {"web2.mesh.example"} == {"203.0.113.7"}
    assert known.unique_id in world.charon.sas


def test_a_member_can_be_held_down_and_called_up() -> None:
    world = World(block("four", "203.0.113.0/24"))
    world.comes("203.0.113.7", "web7.mesh.example", 7)
    world.mesh.command("down", "203.0.113.7", world.now)
    world.settle(world.now + 60.0)
    assert world.up() == {} and not world.charon.sas
    assert any(kind_of(kids[0]) is Kind.DROP for kids in world.charon.loaded.values())
    world.mesh.command("up", "203.0.113.7", world.now)
    assert initiated(world.settle(world.now + 1.0)) == ["203.0.113.7"]


def test_a_member_that_is_held_down_stays_so_through_a_restart() -> None:
    entries = block("four", "203.0.113.0/24"), block("six", "2001:db8::/64")
    for remote in ("203.0.113.7", "2001:db8::7"):
        world = World(*entries)
        world.comes(remote, "web7.mesh.example", 7)
        world.mesh.command("down", remote, world.now)
        world.settle(world.now + 60.0)
        again = World(*entries, charon=world.charon)
        assert again.done == [] and again.settle(again.now + 600.0) == []
        assert [peer.name for peer in again.mesh.state.peers()] == [remote]
        again.mesh.command("up", remote, again.now)
        assert initiated(again.settle(again.now + 1.0)) == [remote]


def test_a_member_that_moves_its_association_to_another_address_loses_it() -> None:
    world = World(block("four", "203.0.113.0/24"))
    sa = world.comes("203.0.113.7", "web7.mesh.example", 7)
    for claimed in ("203.0.113.8", "198.51.100.8"):
        world.mesh.event(IkeMoved(replace(sa, remote_host=claimed, children=())), world.now)
        done = world.settle()
        assert [action.reason.code for action in done if isinstance(action, TerminateIke)] == [NOT_AS_AGREED]
        assert world.up() == {}
        sa = world.comes("203.0.113.7", "web7.mesh.example", 70)
    assert world.up() == {"203.0.113.7": "web7.mesh.example"}


def test_another_host_at_a_members_address_is_known_by_its_own_name() -> None:
    world = World(block("four", "203.0.113.0/24"))
    sa = world.comes("203.0.113.7", "web7.mesh.example", 7)
    world.settle(world.now + 300.0)
    del world.charon.sas[7]
    world.mesh.event(IkeDown(replace(sa, children=())), world.now)
    world.comes("203.0.113.7", "web8.mesh.example", 8)
    assert world.up() == {"203.0.113.7": "web8.mesh.example"}
    assert world.mesh.state.members.elsewhere("web7.mesh.example", "") == 0


def test_a_stricter_policy_closes_what_was_open_to_a_host_that_is_asked() -> None:
    loose = block("four", "203.0.113.0/24", policy="prefer")
    world = World(loose)
    world.packet("203.0.113.7")
    opened = (address(OWN[0]), address("203.0.113.7"))
    assert opened in world.mesh.state.guard.wanted
    world.mesh.update_peers([replace(loose, policy=Policy.REQUIRE)], (), world.now)
    world.settle()
    assert opened not in world.mesh.state.guard.wanted


def test_a_member_that_is_gone_is_tried_for_a_while_and_then_forgotten() -> None:
    world = World(block("four", "203.0.113.0/24"))
    sa = world.comes("203.0.113.7", "web7.mesh.example", 7)
    world.settle(world.now + 300.0)
    del world.charon.sas[7]
    world.mesh.event(IkeDown(replace(sa, children=())), world.now)
    tries = initiated(world.settle(world.now + 1800.0))
    assert len(tries) > 10
    world.settle(world.now + 3600.0)
    assert world.events[-1] == ("peer-removed", "web7.mesh.example")
    assert not any(met_under_block(name) for name in world.charon.loaded)
    assert initiated(world.packet("203.0.113.7")) == ["203.0.113.7"], "and met again"


def test_a_network_of_strangers_costs_a_few_initiations_at_a_time_and_little_memory() -> None:
    """Somebody scans, or sends from 20,000 addresses and is answered: each is a packet to a stranger."""
    world = World(block("ten", "10.0.0.0/8"), peer("web2.mesh.example", "203.0.113.2"))
    world.comes("10.250.0.1", "web7.mesh.example", 7)
    under_way, most = 0, 0
    began = world.now
    for number in range(20_000):
        remote = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        world.mesh.kernel_event(PacketCalls(address(OWN[0]), address(remote)), world.now)
        if number % 100 == 0:
            world.settle(world.now + 0.1)
        under_way = world.mesh.state.members.unproven
        most = max(most, under_way, len(world.charon.loaded) - 5)
    asked = len([action for action in world.done if isinstance(action, Initiate)])
    assert most <= ASKED_AT_ONCE + 1
    assert asked <= ASKED_AT_ONCE * (1 + (world.now - began) / 5.0)
    members = world.mesh.state.members
    assert len(members.strangers) <= 4096 and members.passed_over > 10_000
    assert "10.250.0.1" in world.up()
    world.settle(world.now + 3600.0)
    assert not [name for name in world.charon.loaded if met_under_block(name) and "10.250.0.1" not in name]
    assert len(world.mesh.state.pairs) < 12
