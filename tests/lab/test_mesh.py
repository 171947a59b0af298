"""The mesh grown, shrunk, restarted and readdressed; what is not swanmesh's is left alone."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Iterator
from functools import partial

import pytest

from lab import Host, Mesh, by_hand, mesh, wait_until
from lab.asking import Journal, everyone_up, full, names, pair_spis, status, view
from lab.cold_start import cold_start, last_line
from lab.measuring import Measurement
from lab.mesh import address_pairs


def load_foreign(host: Host, other: Host) -> dict[str, object]:
    """Loads a connection that is not swanmesh's, with a trap; returns what charon holds of it."""
    conn = by_hand.connection(host, host.addresses[0], other, "203.0.113.200", "trap")
    with host.vici() as session:
        session.load_conn({"by-hand": conn})
    return foreign(host)


def foreign(host: Host) -> dict[str, object]:
    return dict(host.connections()["by-hand"])


def test_two_addresses_of_each_family_are_eight_encrypted_pairs() -> None:
    with mesh(2, ipv4=2, ipv6=2) as lab:
        capture = lab.capture()
        full(lab)
        everyone_up(lab.hosts)
        for host, other in itertools.permutations(lab, 2):
            for local, remote in address_pairs(host, other):
                argv = ("ping", "-n", "-q", "-c", "3", "-i", "0.05", "-W", "2", "-I", local, remote)
                host.exec(*argv)
            assert len(host.xfrm_states()) == 16
            assert all(state.transport and "gcm" in state.algorithm for state in host.xfrm_states())
            assert len(view(host, other)["associations"]) == 8
        assert len(address_pairs(lab[0], lab[1])) == 8
        between = {(packet.source, packet.destination) for packet in capture.esp}
        assert {pair for pair in between if pair[0] in lab[0].addresses} == {*address_pairs(lab[0], lab[1])}
        assert {pair for pair in between if pair[0] in lab[1].addresses} == {*address_pairs(lab[1], lab[0])}
        assert capture.clear == []


def test_ten_hosts_that_start_at_once_get_one_association_a_pair() -> None:
    """`make cold-start` is the same with forty."""
    with mesh(10) as lab:
        lab.start_charons()
        done = cold_start(lab, 400)
        print(last_line(done))
        assert done.faults == ()
        assert done.pairs == 45
        assert done.downs == 0
        states = [state for host in lab for state in host.xfrm_states()]
        assert len(states) == 4 * done.pairs
        assert all(state.transport and "gcm" in state.algorithm for state in states)


@pytest.fixture(scope="module")
def standing() -> Iterator[Mesh]:
    """Three hosts in full mesh, one that stands by, and a connection that is not swanmesh's. Whoever needs a
    mesh of another kind comes before this one is made."""
    with mesh(3, spare=1) as lab:
        full(lab)
        load_foreign(lab[0], lab[1])
        yield lab


@pytest.fixture
def lab(standing: Mesh) -> Mesh:
    """The same, whole again after the test before."""
    standing.wait_until_full()
    everyone_up(standing.hosts[:3])
    return standing


def test_a_host_joins_and_leaves_under_traffic(lab: Mesh) -> None:
    members, newcomer = lab.hosts[:3], lab[3]
    kept = foreign(lab[0])
    measurement = Measurement(lab, members)
    for host in members:
        host.swanmesh("add-peer", newcomer.name, *newcomer.addresses)
        newcomer.swanmesh("add-peer", host.name, *host.addresses)
    lab.wait_until_full(hosts=lab.hosts)
    everyone_up(lab.hosts)
    measurement.join(newcomer)
    for host in members:
        assert newcomer.ping(host, 50, 0.01).lost == 0
        assert host.ping(newcomer, 50, 0.01).lost == 0
    result = measurement.finish()
    assert result.clean, result
    assert result.pings > 200

    measurement = Measurement(lab, members)
    for host in members:
        host.swanmesh("remove-peer", newcomer.name, "--wait")
        assert names(host, newcomer) == []
        assert not [sa for sa in host.sas() if sa["remote-host"] in newcomer.addresses]
        assert pair_spis(host, newcomer) == frozenset()
        assert newcomer.name not in {peer["name"] for peer in status(host)["peers"]}
    result = measurement.finish()
    assert (result.lost, result.changed) == (0, ()), result
    # What is left are the newcomer's own attempts, and nobody else's clear text.
    assert {packet.source for packet in result.clear} <= set(newcomer.addresses)
    assert foreign(lab[0]) == kept
    newcomer.kill_swanmesh(signal.SIGKILL)
    newcomer.kill_charon()


def test_controllers_killed_at_once_come_back_and_find_nothing_to_do(lab: Mesh) -> None:
    members, kept = lab.hosts[:3], foreign(lab[0])
    measurement = Measurement(lab, members)
    for host in members:
        host.kill_swanmesh(signal.SIGKILL)
    journals = [Journal(host) for host in members]
    for host in members:
        host.launch_swanmesh()
    for host in members:
        host.await_swanmesh()
    everyone_up(members)
    for host in members:
        assert json.loads(host.swanmesh("plan", "--json").stdout)["actions"] == []
    assert lab[0].ping(lab[1], 200, 0.01).lost == 0
    result = measurement.finish()
    assert result.clean, result
    for journal in journals:
        assert journal.lines("charon answers")
        assert journal.actions() == []
        assert journal.lines("peer-up", "peer-down") == []
    assert foreign(lab[0]) == kept


def test_a_peer_removed_while_the_controller_was_not_running_is_unloaded_at_its_start(lab: Mesh) -> None:
    kept, before = foreign(lab[0]), pair_spis(lab[0], lab[1])
    lab[0].kill_swanmesh(signal.SIGKILL)
    done = lab[0].swanmesh("remove-peer", lab[2].name)
    assert "not unloaded yet" in done.stdout
    assert names(lab[0], lab[2]) and pair_spis(lab[0], lab[2])
    lab[0].start_swanmesh()
    wait_until(lambda: not names(lab[0], lab[2]), 20, "the removed peer is unloaded")
    wait_until(lambda: not pair_spis(lab[0], lab[2]), 20, "its association is ended")
    assert pair_spis(lab[0], lab[1]) == before
    assert foreign(lab[0]) == kept
    lab[0].swanmesh("add-peer", lab[2].name, *lab[2].addresses)


def test_what_was_set_up_by_hand_is_never_touched(lab: Mesh) -> None:
    """An association with the same peer, on addresses that swanmesh does not know."""
    one, other = lab.hosts[:2]
    extra = {one: "203.0.113.1", other: "203.0.113.2"}
    for host, peer in ((one, other), (other, one)):
        host.namespace.ip(f"addr add {extra[host]}/24 dev eth0")
        conn = by_hand.connection(host, extra[host], peer, extra[peer], "none")
        with host.vici() as session:
            session.load_conn({"by-hand": conn})
    by_hand.initiate(one, "by-hand")

    def theirs() -> frozenset[tuple[str, str, str]]:
        return frozenset(spi for spi in one.spis() if spi[0] in extra.values())

    wait_until(lambda: len(theirs()) == 2, 20, "the association by hand is up")
    kept, loaded = theirs(), foreign(one)
    stream = one.ping_stream(extra[other])
    one.swanmesh("down", other.name, "--wait", timeout=90)
    wait_until(lambda: view(one, other)["state"] == "disabled", 20, "it is down")
    wait_until(lambda: not pair_spis(one, other), 20, "its association is ended")
    one.kill_swanmesh(signal.SIGKILL)
    one.start_swanmesh()
    one.swanmesh("up", other.name, "--wait", timeout=90)
    one.swanmesh("wait", "--timeout", "60", timeout=90)
    one.swanmesh("remove-peer", other.name, "--wait", "30", timeout=60)
    assert names(one, other) == []
    one.swanmesh("add-peer", other.name, *other.addresses, "--wait", "60", timeout=90)
    assert theirs() == kept
    assert foreign(one) == loaded
    assert stream.stop().lost == 0


def test_an_address_changed_in_a_peers_file(lab: Mesh) -> None:
    moving, others = lab[2], lab.hosts[:2]
    before = pair_spis(lab[0], lab[1])
    old, new = moving.addresses[0], "198.51.100.3"

    def left(host: Host) -> bool:
        return all(sa["remote-host"] != old for sa in host.sas())

    moving.namespace.ip(f"addr add {new}/24 dev eth0")
    for host in others:
        host.namespace.ip("route add 198.51.100.0/24 dev eth0")
        host.swanmesh("add-peer", moving.name, new)
    moving.namespace.ip("route replace 192.0.2.0/24 dev eth0 src 198.51.100.3")
    moving.addresses = (new,)
    moving.write_config()
    lab.wait_until_full()
    everyone_up(lab.hosts[:3])
    for host in others:
        assert moving.ping(host).lost == 0
        wait_until(partial(left, host), 20, f"{host.short} ended its association with the old address")
        assert len(names(host, moving)) == 1
    assert pair_spis(lab[0], lab[1]) == before
