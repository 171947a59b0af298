"""Hosts that know each other by a block of addresses alone."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import yaml

from lab import Host, Mesh, by_hand, mesh, wait_until
from lab.asking import Journal, pair_spis, status
from lab.credentials import Authority
from swanmesh.control.client import Client

FOUR, SIX = "192.0.2.0/24", "2001:db8:1::/64"


def write_block(host: Host, name: str, cidr: str, **keys: object) -> None:
    folder = host.folder / "blocks.d"
    folder.mkdir(exist_ok=True)
    (folder / f".{name}").write_text(yaml.safe_dump({"cidr": cidr, **keys}))
    (folder / f".{name}").replace(folder / f"{name}.yaml")


def members(host: Host) -> dict[str, dict[str, Any]]:
    """The peers of `host`'s status, by address."""
    return {peer["addresses"][0]: peer for peer in status(host)["peers"]}


def up(host: Host) -> dict[str, str]:
    """Who is up, by address, with the identity that it proved."""
    return {where: peer["name"] for where, peer in members(host).items() if peer["state"] == "up"}


def block(host: Host, name: str) -> dict[str, Any]:
    """What `host` says of a block, its strangers too."""
    return dict(json.loads(Client(host.control_socket).status_json([name]))["blocks"][0])


def meets(host: Host, other: Host, remote: str) -> bool:
    """Whether a packet gets an answer, and the association that it takes is up at both ends."""
    local = other_end(host, remote)
    return (
        host.ping(remote, count=2).received > 0
        and up(host).get(remote) == other.name
        and up(other).get(local) == host.name
    )


def other_end(host: Host, remote: str) -> str:
    return host.ipv6() if ":" in remote else host.ipv4()


CROWD = range(10, 250)
"""Last numbers of the addresses of a crowd that one charon plays, each with a certificate of its own."""


def play_crowd(lab: Mesh, host: Host, victim: Host) -> None:
    """Loads the crowd into `host`'s charon, and has each of it begin an association with `victim`."""
    # Of all answers to probes a kernel sends the prober one a second, and this one stands for many hosts'.
    host.exec("sh", "-c", "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit")
    host.namespace.ip(*(f"addr add 198.51.100.{last}/24 dev eth0" for last in CROWD))
    by_hand.load_credentials(host)
    with host.vici() as session:
        for last in CROWD:
            address, name = f"198.51.100.{last}", f"m{last}.mesh.example"
            certificate, key = host.folder / f"{last}.pem", host.folder / f"{last}.key"
            lab.authority.issue(name, [address], certificate=certificate, private_key=key)
            session.load_cert({"type": "X509", "flag": "NONE", "data": certificate.read_bytes()})
            session.load_key({"type": "any", "data": key.read_bytes()})
            conn = by_hand.connection(host, address, victim, victim.ipv4(1), "none")
            conn["local"]["id"] = f"fqdn:{name}"
            conn["children"]["esp"]["esp_proposals"] = ["aes128gcm16-x25519-esn"]
            session.load_conn({name: conn})
            list(session.initiate({"ike": name, "child": "esp", "timeout": "-1"}))


def test_a_block_of_two_hundred_and_forty_members_and_strangers() -> None:
    with mesh(1, spare=2, ipv4=2) as lab:
        h1, crowd, silent = lab
        write_block(h1, "rack", "198.51.100.0/24")
        for host in (h1, crowd):
            host.start_charon()
        h1.start_swanmesh()
        wait_until(partial(closed, h1, "198.51.100.0/24"), 60, "the block is closed")
        capture = silent.capture()
        play_crowd(lab, crowd, h1)
        names = {f"198.51.100.{last}": f"m{last}.mesh.example" for last in CROWD}
        wait_until(lambda: up(h1) == names, 240, "all members are up", interval=2)
        spis = h1.spis()
        assert len(spis) == 2 * len(names) and all(state.transport for state in h1.xfrm_states())
        strangers = [silent.ipv4(1), *(f"198.51.100.{last}" for last in (4, 5, 6, 7, 250, 251, 252, 253))]
        for address in strangers:
            assert h1.ping(address, count=1).received == 0
        wait_until(
            lambda: block(h1, "rack")["strangers"] == len(strangers), 120, "strangers are told", interval=2
        )
        for last in (CROWD[0], CROWD[-1]):
            assert h1.ping(f"198.51.100.{last}").lost == 0
        assert up(h1) == names and h1.spis() == spis, "nobody is a duplicate of anybody"
        h1.kill_swanmesh()
        h1.start_swanmesh()
        wait_until(lambda: up(h1) == names, 120, "all members are up again", interval=2)
        assert h1.spis() == spis
        assert [packet for packet in capture.clear if packet.source in h1.addresses] == []


@pytest.fixture(scope="module")
def standing() -> Iterator[Mesh]:
    """h1 to h3 know each other by blocks; h4 has no charon, h5 one and a certificate of another authority."""
    with mesh(1, spare=4, ipv6=1) as lab:
        foreign = Authority(lab[4].folder / "authority")
        lab[4].folder.joinpath("host.pem").unlink()
        lab[4].folder.joinpath("host.key").unlink()
        foreign.write(lab[4].folder / "ca.pem")
        foreign.issue(
            lab[4].name,
            lab[4].addresses,
            certificate=lab[4].folder / "host.pem",
            private_key=lab[4].folder / "host.key",
        )
        for host in (*lab.hosts[:3], lab[4]):
            write_block(host, "four", FOUR, **{"except": ["192.0.2.99"]})
            write_block(host, "six", SIX)
            host.launch_charon()
        for host in (*lab.hosts[:3], lab[4]):
            host.await_charon(120)
            host.start_swanmesh()
        yield lab


def test_a_host_meets_another_by_its_first_packet_and_nothing_crosses_in_clear(standing: Mesh) -> None:
    h1, h2, h3 = standing.hosts[:3]
    wait_until(partial(closed, h1, FOUR, SIX), 30, "the blocks are closed")
    capture = standing.capture()
    for one, other in ((h1, h2), (h3, h1), (h3, h2)):
        for remote in (other.ipv4(), other.ipv6()):
            wait_until(partial(meets, one, other, remote), 60, f"{one.short} meets {other.short} at {remote}")
    for host, other in itertools.permutations((h1, h2, h3), 2):
        for remote in (other.ipv4(), other.ipv6()):
            assert up(host)[remote] == other.name
            assert host.ping(remote).lost == 0
    assert all(state.transport for host in (h1, h2, h3) for state in host.xfrm_states())
    assert [len(pair_spis(host, other)) for host, other in itertools.combinations((h1, h2, h3), 2)] == [4] * 3
    assert capture.clear == []
    assert h1.ping(h1.ipv4()).lost == h1.ping(h1.ipv6()).lost == 0, "its own addresses"


def closed(host: Host, *cidrs: str) -> bool:
    policies = host.exec("ip", "xfrm", "policy").stdout
    return all(f"dst {cidr} " in policies for cidr in cidrs)


def test_who_is_no_member_is_told_and_gets_and_sends_nothing_in_clear(standing: Mesh) -> None:
    h1, _, _, silent, foreign = standing.hosts
    capture = silent.capture()
    other = foreign.capture()
    assert h1.ping(silent.ipv4(), count=2).received == h1.ping(silent.ipv6(), count=2).received == 0
    assert silent.ping(h1.ipv4(), count=2).received == 0
    assert foreign.ping(h1.ipv4(), count=2).received == 0
    wanted = {silent.ipv4(), foreign.ipv4()}

    def told() -> bool:
        h1.ping(foreign.ipv4(), count=1)
        return wanted <= {each["address"] for each in block(h1, "four")["listed"]}

    wait_until(told, 90, "both are told as strangers")
    reasons = {each["address"]: each["reason"] for each in block(h1, "four")["listed"]}
    assert "no answer" in reasons[silent.ipv4()]
    assert silent.ipv4() not in up(h1) and foreign.ipv4() not in up(h1)
    assert [p for p in capture.clear if p.source in h1.addresses] == []
    assert [p for p in other.clear if p.source in h1.addresses] == []
    before = block(h1, "four")["listed"]
    assert f"block four: {FOUR}" in h1.swanmesh("status").stdout
    assert silent.ipv4() in h1.swanmesh("status", silent.ipv4()).stdout
    assert before


def test_a_restart_of_the_service_keeps_every_association(standing: Mesh) -> None:
    h1, h2, h3 = standing.hosts[:3]
    spis, known = h1.spis(), up(h1)
    assert len(known) == 4
    h1.kill_swanmesh()
    h1.start_swanmesh()
    wait_until(lambda: up(h1) == known, 60, "all members are up again")
    time.sleep(2)
    assert h1.spis() == spis
    assert [line for line in Journal(h1).lines() if line["event"] in ("terminate", "initiate")] == []
    assert h2.ping(h1.ipv4()).lost == h3.ping(h1.ipv6()).lost == 0


def test_two_that_meet_each_other_at_once_have_one_association(standing: Mesh) -> None:
    _, h2, h3 = standing.hosts[:3]
    for host in (h2, h3):
        host.kill_swanmesh()
        host.kill_charon()
        host.namespace.ip("xfrm state flush")
        host.start_charon()
    for host in (h2, h3):
        host.start_swanmesh()
        wait_until(partial(closed, host, FOUR, SIX), 30, "the blocks are closed")
    streams = [h2.ping_stream(h3.ipv4(), interval=0.05), h3.ping_stream(h2.ipv4(), interval=0.05)]
    wait_until(lambda: h3.ipv4() in up(h2) and h2.ipv4() in up(h3), 60, "both met")

    def one_each() -> bool:
        between = ((h2, h3.ipv4()), (h3, h2.ipv4()))
        return all(
            len([sa for sa in host.sas() if sa["remote-host"] == other]) == 1 for host, other in between
        )

    wait_until(one_each, 60, "one association stands")
    for stream in streams:
        stream.stop()


def test_a_block_that_is_removed_ends_its_own_associations_alone(standing: Mesh) -> None:
    h1, h2, h3 = standing.hosts[:3]
    # Both ends may have begun at once; what came twice is ended by and by.
    wait_until(lambda: len(h1.spis()) == 8, 90, "one association with each, by each family")
    six = {spi for spi in h1.spis() if ":" in spi[0]}
    h1.swanmesh("remove-block", "four")
    wait_until(lambda: set(h1.spis()) == six, 60, "the IPv6 associations alone are left")
    assert set(up(h1)) == {h2.ipv6(), h3.ipv6()}
    wait_until(lambda: h1.ping(standing[3].ipv4()).lost == 0, 30, "strangers are reached in clear")
    h1.swanmesh("add-block", FOUR, "--name", "four", "--policy", "prefer")
    wait_until(partial(closed, h1, FOUR, SIX), 30, "the block is back")
    assert h1.ping(standing[3].ipv4()).lost == 0, "under `prefer` a first packet to a stranger passes"
    wait_until(partial(meets, h1, h2, h2.ipv4()), 60, "h1 meets h2")
    assert {spi for spi in h1.spis() if ":" in spi[0]} == six
