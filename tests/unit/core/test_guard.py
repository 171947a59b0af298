"""The guard: which packets it lets pass, and that no order of changes leaves a moment without cover."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swanmesh.core.actions import Action, ChangeGuard, LoadConnection, ObserveKernel, UnloadConnection
from swanmesh.core.desired import desired
from swanmesh.core.guard.keeping import Change, Guard
from swanmesh.core.guard.policies import Cover, Exempt, Ground, Opening, Used, block_covers, last_used
from swanmesh.core.inputs.removal import held_problems
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import AddressPair
from swanmesh.core.observed import ChildUp, IkeDown
from swanmesh.core.peers.blocks import BlockTable, parse_block
from swanmesh.core.peers.description import parse_peer
from swanmesh.core.readiness import readiness
from swanmesh.core.reasons import Reason
from swanmesh.core.settings.exemptions import check_exemption
from swanmesh.core.settings.override import Override
from swanmesh.core.settings.policy import Policy
from swanmesh.core.xfrm import (
    Direction,
    KernelHoldings,
    KernelUnwatched,
    KernelWatched,
    PoliciesFlushed,
    PolicyDeleted,
    XfrmPolicy,
)
from tests.unit.core.build import address, association, holdings, name_of, peer, settings

LOCAL, PEER, OTHER = "203.0.113.1", "203.0.113.2", "203.0.113.3"
LOCAL6, PEER6 = "2001:db8::1", "2001:db8::2"
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58


class Packet(NamedTuple):
    direction: Direction
    source: str
    destination: str
    protocol: int = TCP
    source_port: int = 1024
    destination_port: int = 1024


class Kernel:
    """What takes changes, one policy at a time, and says what becomes of a packet."""

    def __init__(self, *others: XfrmPolicy) -> None:
        self.policies = {policy.selector: policy for policy in others}

    def steps(self, change: Change) -> Iterable[None]:
        for policy in change.put:
            self.policies[policy.selector] = policy
            yield
        for policy in change.drop:
            self.policies.pop(policy.selector, None)
            yield

    def take(self, change: Change | None) -> None:
        for _ in self.steps(change) if change is not None else ():
            pass

    def passes(self, packet: Packet) -> bool:
        found = [policy for policy in self.policies.values() if matches(policy, packet)]
        first = min(found, key=lambda policy: policy.priority, default=None)
        return first is None or (first.allow and (not first.reqid or first.optional))


def matches(policy: XfrmPolicy, packet: Packet) -> bool:
    """As xfrm_selector_match of include/net/xfrm.h."""
    source, destination = ip_address(packet.source), ip_address(packet.destination)
    return (
        policy.direction is packet.direction
        and policy.source.version == source.version
        and source in ip_network((policy.source, policy.source_bits))
        and destination in ip_network((policy.destination, policy.destination_bits))
        and policy.protocol in (0, packet.protocol)
        and not (policy.source_port ^ packet.source_port) & policy.source_mask
        and not (policy.destination_port ^ packet.destination_port) & policy.destination_mask
    )


def closed(text: str, bits: int | None = None, source: str = "web2.mesh.example") -> Cover:
    one = address(text)
    return Cover(one, one.max_prefixlen if bits is None else bits, closed=True, source=source)


def standing(*parts: Cover | Exempt | Opening) -> Kernel:
    """A kernel that holds a guard of these parts."""
    guard, kernel = Guard(expected=True), Kernel()
    guard.observed((), tidy=True)
    for part in parts:
        guard.want(part.key, part)
    kernel.take(guard.change(0.0))
    return kernel


def run_at(mesh: Mesh, kernel: Kernel, *times: float) -> None:
    """What the mesh decides at these times, on this kernel and a charon that does as it is told."""
    for at in times:
        for action in mesh.step(at).actions:
            match action:
                case ObserveKernel():
                    mesh.kernel_observed(KernelHoldings((), tuple(kernel.policies.values())), at)
                case ChangeGuard(change=change):
                    kernel.take(change)
                    mesh.done(action, None, at)
                case _ if action.pair:
                    mesh.done(action, None, at)


OUT = Packet(Direction.OUT, LOCAL, PEER)
IN = Packet(Direction.IN, PEER, LOCAL)
FORWARD = Packet(Direction.FORWARD, PEER, "198.51.100.1")


def test_nothing_to_or_from_a_closed_address_passes() -> None:
    kernel = standing(closed(PEER))
    assert not any(kernel.passes(packet) for packet in (OUT, IN, FORWARD))
    from_elsewhere = OUT._replace(source="198.51.100.1")
    assert not kernel.passes(from_elsewhere), "the host may have addresses that its file does not name"
    others = (OUT._replace(destination=OTHER), IN._replace(source=OTHER), FORWARD._replace(source=OTHER))
    assert all(kernel.passes(packet) for packet in others)


def test_what_a_network_needs_is_never_caught() -> None:
    kernel = standing(closed(PEER), closed(PEER6))
    solicitation = Packet(Direction.OUT, LOCAL6, PEER6, ICMPV6, 135, 0)
    advertisement = Packet(Direction.IN, PEER6, LOCAL6, ICMPV6, 136, 0)
    needed = (
        solicitation,
        advertisement,
        Packet(Direction.IN, PEER6, LOCAL6, ICMPV6, 2, 0),
        Packet(Direction.IN, PEER, LOCAL, ICMP, 3, 4),
        Packet(Direction.OUT, LOCAL, PEER, ICMP, 3, 4),
        Packet(Direction.IN, PEER6, "ff02::2", ICMPV6, 133, 0),
        Packet(Direction.IN, "fe80::1", LOCAL6, ICMPV6, 134, 0),
        Packet(Direction.IN, PEER, "224.0.0.18", 112),
        Packet(Direction.IN, PEER, "255.255.255.255", UDP, 67, 68),
    )
    assert [packet for packet in needed if not kernel.passes(packet)] == []
    refused = (
        solicitation._replace(source_port=128),
        Packet(Direction.IN, PEER, LOCAL, ICMP, 3, 1),
        Packet(Direction.IN, PEER, LOCAL, ICMP, 8, 0),
    )
    assert not any(kernel.passes(packet) for packet in refused)


def test_a_message_about_the_path_goes_out_by_charons_policy_if_there_is_one() -> None:
    """It quotes what came in, which may have been encrypted."""
    kernel = standing(closed(PEER))
    association = XfrmPolicy(Direction.OUT, address(LOCAL), 32, address(PEER), 32, 0, 0, True, 7, 367231, 1)
    ours = [policy for policy in kernel.policies.values() if matches(policy, OUT._replace(protocol=ICMP))]
    assert all(policy.priority > association.priority for policy in ours)


def test_the_longest_prefix_counts() -> None:
    inside = Cover(address(PEER), 32, closed=False, source="gateway")
    kernel = standing(closed("203.0.113.0", 24), inside)
    assert kernel.passes(OUT) and kernel.passes(IN)
    assert not kernel.passes(OUT._replace(destination=OTHER))


def test_an_opening_lets_one_pair_pass_and_closes_behind_itself() -> None:
    pair = AddressPair(address(LOCAL), address(PEER))
    kernel = standing(Opening(pair, out=True))
    blocked = [
        policy._replace(allow=False, priority=68_000, owner=0)
        for policy in kernel.policies.values()
        if policy.source_bits == 32
    ]
    charons = Kernel(*kernel.policies.values(), *blocked)
    assert charons.passes(OUT) and charons.passes(IN)
    later = Kernel(*standing(Opening(pair, out=False)).policies.values(), *blocked)
    assert later.passes(IN) and not later.passes(OUT)


def exempt(*words: str) -> Kernel:
    exemptions = tuple(map(check_exemption, words))
    parts = (
        (closed(text), Exempt(address(text), address(text).max_prefixlen, exemptions, "web2"))
        for text in (PEER, PEER6)
    )
    return standing(*(part for both in parts for part in both))


SSH_OUT = Packet(Direction.OUT, LOCAL, PEER, TCP, 40000, 22)
SSH_IN = Packet(Direction.IN, PEER, LOCAL, TCP, 40000, 22)


@pytest.mark.parametrize("sent", [SSH_OUT, SSH_IN])
def test_an_exempted_service_passes_both_ways_whichever_end_it_is_at(sent: Packet) -> None:
    kernel = exempt("tcp/22")
    back = Direction.IN if sent.direction is Direction.OUT else Direction.OUT
    answer = Packet(back, sent.destination, sent.source, TCP, sent.destination_port, sent.source_port)
    assert kernel.passes(sent) and kernel.passes(answer)
    refused = (
        sent._replace(destination_port=23),
        sent._replace(protocol=UDP),
        sent._replace(source_port=1024),
    )
    assert not any(kernel.passes(packet) for packet in refused)


def test_from_a_services_port_nothing_comes_in_but_answers() -> None:
    """Else whoever can send from port 22 could reach every service in clear."""
    kernel = exempt("tcp/22")
    assert not kernel.passes(Packet(Direction.IN, PEER, LOCAL, TCP, 22, 5432))
    assert not kernel.passes(Packet(Direction.OUT, LOCAL, PEER, TCP, 5432, 22))


def test_icmp_is_that_of_each_family() -> None:
    kernel = exempt("icmp")
    echoes = (
        OUT._replace(protocol=ICMP, source_port=8, destination_port=0),
        Packet(Direction.IN, PEER6, LOCAL6, ICMPV6, 128, 0),
    )
    assert all(kernel.passes(packet) for packet in echoes)
    assert not kernel.passes(OUT) and not kernel.passes(OUT._replace(protocol=ICMPV6))


def test_when_there_was_clear_text_last_is_told_of_each_network() -> None:
    out, into, forwarded = closed(PEER).policies()
    policies = [out._replace(used=7), into._replace(used=5), forwarded._replace(used=6)]
    policies += [policy._replace(used=9) for policy in Ground(4).policies()]
    policies += [policy._replace(used=9) for policy in exempt("tcp/22").policies.values() if policy.protocol]
    assert last_used(policies) == {closed(PEER).key: Used(out=7, into=6)}


# Orders of changes.

PEERS = (PEER, OTHER, PEER6)
WAYS = ("want", "leave", "step", "refuse", "delete", "flush", "look")


@given(st.lists(st.tuples(st.sampled_from(WAYS), st.sampled_from(PEERS), st.booleans()), max_size=40))
@example([(way, PEER, False) for way in ("want", "step", "leave", "refuse", "want", "want")])
def test_no_order_of_changes_uncovers_what_is_closed(does: list[tuple[str, str, bool]]) -> None:
    guard, kernel = Guard(expected=True), Kernel()
    guard.observed((), tidy=True)
    wanted: set[str] = set()
    taken: set[str] = set()
    """What others took; it may be open until the next change."""
    now = 0.0

    def check(before: set[str]) -> None:
        for one in before - taken:
            local = LOCAL6 if ":" in one else LOCAL
            assert not kernel.passes(Packet(Direction.OUT, local, one)), one
            assert not kernel.passes(Packet(Direction.IN, one, local)), one

    for way, one, flag in does:
        covered = {each for each in wanted if guard.stands(closed(each).key)}
        match way:
            case "want":
                wanted.add(one)
                guard.cover(one, [closed(one, source=one if flag else "another")])
            case "leave":
                wanted.discard(one)
                guard.cover(one, (), kept=[address(one)] if flag else ())
                guard.cover("another", ())
                wanted = {each for each in wanted if closed(each).key in guard.wanted}
            case "delete" if kernel.policies:
                selector = sorted(kernel.policies, key=str)[len(one) % len(kernel.policies)]
                taken |= wanted
                guard.deleted(kernel.policies.pop(selector))
            case "flush":
                taken |= wanted
                kernel.policies.clear()
                guard.flushed()
            case "look":
                guard.observed(kernel.policies.values(), tidy=flag)
            case _:
                now += 100.0
                change = guard.change(now)
                for number, _ in enumerate(kernel.steps(change) if change is not None else ()):
                    check(covered & wanted)
                    if way == "refuse" and number == len(one) % 4:
                        break
                if change is not None:
                    guard.done(change, "no" if way == "refuse" else None, now)
                taken = set() if way == "step" and guard.due is None else taken
        check(covered & wanted)
    for _ in range(3):
        guard.observed(kernel.policies.values(), tidy=True)
        while (change := guard.change(now := now + 100.0)) is not None:
            kernel.take(change)
            guard.done(change, None, now)
    expected = {s for part in guard.wanted.values() for s in (policy.selector for policy in part.policies())}
    assert kernel.policies.keys() == expected
    assert all(guard.stands(key) for key in guard.wanted)


def test_a_change_touches_what_changed_alone() -> None:
    guard, kernel = Guard(expected=True), Kernel()
    guard.observed((), tidy=True)
    for number in range(1, 200):
        guard.cover(f"web{number}", [closed(f"198.51.100.{number}", source=f"web{number}")])
    kernel.take(change := guard.change(0.0))
    assert change is not None
    guard.done(change, None, 0.0)
    guard.cover("web7", ())
    change = guard.change(0.0)
    assert change is not None and len(change.put) == 0
    assert {policy.source for policy in change.drop if policy.direction is Direction.IN} == {
        address("198.51.100.7")
    }


# The whole core.


def mesh_of(policy: Policy = Policy.REQUIRE) -> Mesh:
    host = settings(policy=policy)
    mesh = Mesh(host, seed=1, kernel=True)
    mesh.charon_back("5.9.8", holdings(host), 0.0)
    return mesh


def watch(mesh: Mesh, kernel: Kernel) -> None:
    mesh.kernel_event(KernelWatched(), 0.0)
    actions = mesh.step(0.0).actions
    assert any(isinstance(action, ObserveKernel) for action in actions)
    mesh.kernel_observed(KernelHoldings((), tuple(kernel.policies.values())), 0.0)


def test_a_peer_is_covered_before_its_connection_is_loaded_and_until_it_is_unloaded() -> None:
    mesh, kernel, one = mesh_of(), Kernel(), peer()
    mesh.update_peers([one], (), 0.0)
    assert not any(isinstance(action, LoadConnection) for action in mesh.step(0.0).actions)
    watch(mesh, kernel)
    (guard,) = mesh.step(1.0).actions
    assert isinstance(guard, ChangeGuard)
    kernel.take(guard.change)
    mesh.done(guard, None, 1.0)
    (load,) = (action for action in mesh.step(1.0).actions if isinstance(action, LoadConnection))
    mesh.done(load, None, 1.0)
    mesh.update_peers((), [one.source], 2.0)
    (unload,) = (action for action in mesh.step(2.0).actions if not isinstance(action, ObserveKernel))
    assert isinstance(unload, UnloadConnection), "the guard outlives the connection"
    mesh.done(unload, None, 2.0)
    gone = [action for at in (2.0, 2.1) for action in mesh.step(at).actions]
    (guard,) = (action for action in gone if isinstance(action, ChangeGuard))
    kernel.take(guard.change)
    assert kernel.policies == {}


def test_connections_wait_for_no_guard_that_cannot_come() -> None:
    mesh = mesh_of()
    mesh.update_peers([peer()], (), 0.0)
    mesh.kernel_event(KernelUnwatched("no such module"), 0.0)
    assert any(isinstance(action, LoadConnection) for action in mesh.step(0.0).actions)


def test_a_restart_finds_nothing_to_do() -> None:
    mesh, kernel = mesh_of(), standing(closed(PEER))
    mesh.update_peers([peer()], (), 0.0)
    watch(mesh, kernel)
    assert not any(isinstance(action, ChangeGuard) for action in mesh.step(0.0).actions)


def test_what_is_taken_from_the_guard_is_put_back_without_a_look_and_without_charon() -> None:
    mesh, kernel = mesh_of(), standing(closed(PEER))
    mesh.update_peers([peer()], (), 0.0)
    watch(mesh, kernel)
    mesh.step(0.0)
    mesh.charon_lost(mesh.state.charon.reason, 1.0)
    for event in (PoliciesFlushed(), PolicyDeleted(next(iter(closed(PEER).policies())))):
        mesh.kernel_event(event, 1.0)
        (guard,) = (action for action in mesh.step(1.0).actions if isinstance(action, ChangeGuard))
        assert guard.reason.code == "guard-taken"
        mesh.done(guard, None, 1.0)


def test_a_guard_of_peers_that_no_file_names_stays_until_charon_was_asked() -> None:
    host = settings()
    mesh, kernel = Mesh(host, seed=1, kernel=True), standing(closed(PEER), closed(OTHER))
    mesh.update_peers([peer()], (), 0.0)
    watch(mesh, kernel)
    assert not any(isinstance(action, ChangeGuard) for action in mesh.step(0.0).actions)
    mesh.charon_back("5.9.8", holdings(host), 1.0)
    run_at(mesh, kernel, 1.0, 2.0, 3.0)
    assert not kernel.passes(OUT) and kernel.passes(OUT._replace(destination=OTHER))


def standing_under(policy: Policy) -> tuple[Mesh, Kernel]:
    """A mesh with a peer that is up since long, and the kernel with its guard."""
    mesh, kernel = mesh_of(policy), Kernel()
    mesh.update_peers([peer()], (), 0.0)
    watch(mesh, kernel)
    host, other = settings(policy=policy), peer()
    loaded = {name: connection.child for name, (_, connection) in desired(host, other).items()}
    held = holdings(host, association(name_of(host, other)), loaded=loaded)
    mesh.charon_back("5.9.8", held, 0.0)
    for at in (0.0, 1.0, 60.0, 61.0):
        carry_out(mesh, kernel, at)
    return mesh, kernel


def carry_out(mesh: Mesh, kernel: Kernel, at: float) -> list[Action]:
    """What the mesh decides, done at once."""
    actions = [action for action in mesh.step(at).actions if isinstance(action, ChangeGuard) or action.pair]
    for action in actions:
        kernel.take(action.change if isinstance(action, ChangeGuard) else None)
        mesh.done(action, None, at)
    return actions


def test_under_prefer_clear_text_goes_out_until_the_pair_is_up_and_comes_in_always() -> None:
    mesh, one = mesh_of(Policy.PREFER), peer()
    host = mesh.state.settings
    charons = [
        XfrmPolicy(way, source, 32, destination, 32, 0, 0, False, 7, 367231, 1)
        for way, source, destination in (
            (Direction.OUT, address(LOCAL), address(PEER)),
            (Direction.IN, address(PEER), address(LOCAL)),
        )
    ]
    kernel = Kernel(*charons)
    mesh.update_peers([one], (), 0.0)
    watch(mesh, kernel)

    def at(now: float) -> tuple[bool, bool]:
        """Whether packets in clear pass past charon's policies, out and in."""
        for action in mesh.step(now).actions:
            if isinstance(action, ChangeGuard):
                kernel.take(action.change)
                mesh.done(action, None, now)
        return kernel.passes(OUT), kernel.passes(IN)

    assert at(1.0) == (True, True), "not up"
    due = mesh.due
    assert due is not None and due <= 60.0
    (renewed,) = (a for a in mesh.step(59.0).actions if isinstance(a, ChangeGuard))
    assert [(policy.allow, policy.lasts > 0) for policy in renewed.change.put] == [(True, True)] * 2
    mesh.done(renewed, None, 59.0)
    ((name, (_, connection)),) = desired(host, one).items()
    ours = association(name, age=0.0, initiator=True)
    mesh.charon_back("5.9.8", holdings(host, ours, loaded={name: connection.child}), 100.0)
    assert at(100.0) == at(101.0) == (True, True), "the other end may be about to begin another"
    theirs = association(name, 2, age=0.0, initiator=False)
    mesh.event(ChildUp(theirs), 101.5)
    assert at(103.0) == (True, True), "it did, and may not have it yet, on which the kernel sends"
    assert readiness(mesh.state, one, 103.0).up_since == 101.5, "from when `policy set` waits"
    assert at(104.0) == (False, True)
    mesh.event(IkeDown(ours), 110.0)
    mesh.event(ChildUp(association(name, 3, age=0.0, initiator=False)), 1000.0)
    assert at(1000.0) == (False, True), "an authentication anew is nothing to send in clear for"
    mesh.charon_back("5.9.8", holdings(host, loaded={name: connection.child}), 2000.0)
    assert at(2000.0) == (True, True), "down again"


def charon_policies() -> list[XfrmPolicy]:
    """What stands in the way of clear text while an association is up, as if it blocked."""
    made = closed(PEER, 31).policies()
    return [policy._replace(priority=100_000, owner=0) for policy in made]


def test_who_ceases_to_encrypt_opens_both_ways_before_anything_of_it_goes() -> None:
    mesh, kernel = standing_under(Policy.PREFER)
    mesh.configure(settings(policy=Policy.OFF), 70.0)
    first = carry_out(mesh, kernel, 70.0)
    assert [type(action) for action in first] == [ChangeGuard]
    others = Kernel(*kernel.policies.values(), *charon_policies())
    assert others.passes(OUT) and others.passes(IN)
    assert [type(action) for action in carry_out(mesh, kernel, 70.1)] == [UnloadConnection]


def test_disabled_all_passes_at_once_whatever_charon_does() -> None:
    mesh, kernel = standing_under(Policy.REQUIRE)
    mesh.charon_lost(Reason("charon-unreachable", "hangs"), 65.0)
    assert not kernel.passes(OUT) and not kernel.passes(IN)
    mesh.configure(replace(settings(), override=Override(disabled=True)), 70.0)
    carry_out(mesh, kernel, 70.0)
    others = Kernel(*kernel.policies.values(), *charon_policies())
    assert others.passes(OUT) and others.passes(IN)
    assert readiness(mesh.state, peer(), 71.0).settled


def test_a_block_has_the_kernel_ask_before_it_refuses_and_leaves_the_host_to_itself() -> None:
    host = settings("web1.mesh.example", "203.0.113.1", "2001:db8::1")
    table = BlockTable(
        [
            parse_block("wide", "203.0.113.0/24", source=""),
            parse_block("open", "203.0.113.64/26", "prefer", source=""),
            parse_block("left", "203.0.113.128/26", "off", source=""),
            parse_block("six", "2001:db8::/64", source=""),
        ]
    )
    policies = [policy for cover in block_covers(host, table) for policy in cover.policies()]

    def first(source: str, destination: str) -> tuple[bool, bool]:
        """Whether the kernel asks who is there, and whether a packet passes in clear meanwhile."""
        packet = Packet(Direction.OUT, source, destination)
        found = [policy for policy in policies if matches(policy, packet)]
        one = min(found, key=lambda policy: policy.priority)
        return bool(one.reqid), one.allow and (not one.reqid or one.optional)

    assert first("203.0.113.1", "203.0.113.2") == first("2001:db8::1", "2001:db8::2") == (True, False)
    assert first("203.0.113.1", "203.0.113.65") == (True, True)
    assert first("203.0.113.1", "203.0.113.129") == (False, True)
    assert first("203.0.113.99", "203.0.113.2") == (False, False), "from no address of the mesh"
    assert first("203.0.113.1", "203.0.113.1") == first("2001:db8::1", "2001:db8::1") == (False, True)


def test_a_block_is_closed_but_for_its_exceptions_and_the_peers_that_say_otherwise() -> None:
    mesh, kernel = mesh_of(), Kernel()
    block = parse_block("rack", "203.0.113.0/24", exceptions=["203.0.113.9"], source="rack.yaml")
    mesh.update_peers([peer(policy="prefer"), block], (), 0.0)
    watch(mesh, kernel)
    (guard,) = (action for action in mesh.step(0.0).actions if isinstance(action, ChangeGuard))
    kernel.take(guard.change)
    assert kernel.passes(OUT) and kernel.passes(IN), "a peer that says prefer"
    assert kernel.passes(OUT._replace(destination="203.0.113.9")), "an exception"
    assert not kernel.passes(OUT._replace(destination=OTHER)) and not kernel.passes(IN._replace(source=OTHER))
    mesh.done(guard, None, 0.0)
    mesh.update_peers((), ["rack.yaml"], 1.0)
    for at in (1.0, 2.0):
        for action in mesh.step(at).actions:
            mesh.done(action, None, at)
            kernel.take(action.change if isinstance(action, ChangeGuard) else None)
    assert kernel.passes(OUT._replace(destination=OTHER))


@pytest.mark.parametrize(
    ("policy", "covers", "connects"),
    [
        (Policy.REQUIRE, {False}, True),
        (Policy.PREFER, {True}, True),
        (Policy.MONITOR, {True}, False),
        (Policy.OFF, set(), False),
    ],
)
def test_each_policy_takes_its_own(policy: Policy, covers: set[bool], connects: bool) -> None:
    """`covers`: whether what bears the peer's address alone lets packets pass."""
    mesh, kernel = mesh_of(policy), Kernel()
    mesh.update_peers([peer()], (), 0.0)
    watch(mesh, kernel)
    loads = []
    for _ in range(2):
        for action in mesh.step(0.0).actions:
            if isinstance(action, ChangeGuard):
                kernel.take(action.change)
                mesh.done(action, None, 0.0)
            elif isinstance(action, LoadConnection):
                loads.append(action)
    alone = [p for p in kernel.policies.values() if p.priority >= 3_999_000]
    assert {p.allow for p in alone} == covers and bool(loads) == connects


def test_the_exemptions_of_a_peer_stand_instead_of_the_hosts() -> None:
    host = replace(settings(), exempt=(check_exemption("tcp/22"),))
    mesh, kernel = Mesh(host, seed=1, kernel=True), Kernel()
    other = parse_peer("web3.mesh.example", [OTHER], exempt=["udp/53"], source="web3.yaml")
    mesh.charon_back("5.9.8", holdings(host), 0.0)
    mesh.update_peers([peer(), other], (), 0.0)
    watch(mesh, kernel)
    (guard,) = (action for action in mesh.step(0.0).actions if isinstance(action, ChangeGuard))
    kernel.take(guard.change)
    assert kernel.passes(SSH_OUT) and not kernel.passes(SSH_OUT._replace(destination=OTHER))
    dns = Packet(Direction.OUT, LOCAL, OTHER, UDP, 40000, 53)
    assert kernel.passes(dns) and not kernel.passes(dns._replace(destination=PEER))


def test_many_addresses_that_no_file_describes_stay_closed_until_that_is_confirmed() -> None:
    host = settings()
    lost = [closed(f"198.51.100.{number}", source="lost") for number in range(1, 9)]
    mesh, kernel = Mesh(host, seed=1, kernel=True), standing(closed(PEER), *lost)
    mesh.update_peers([peer()], (), 0.0)
    mesh.charon_back("5.9.8", holdings(host), 0.0)
    gone = OUT._replace(destination="198.51.100.1")

    mesh.kernel_event(KernelWatched(), 0.0)
    run_at(mesh, kernel, 0.0, 100.0, 200.0)
    assert not kernel.passes(gone)
    assert any("8 addresses that no file describes" in str(each) for each in held_problems(mesh.state))
    assert "198.51.100.1/32" in mesh.confirm(300.0)
    run_at(mesh, kernel, 300.0, 400.0, 500.0)
    assert kernel.passes(gone) and not kernel.passes(OUT) and held_problems(mesh.state) == []
