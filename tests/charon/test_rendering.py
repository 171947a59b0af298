"""What charon gets for a connection of the core's."""

from __future__ import annotations

import ipaddress
from dataclasses import fields, replace
from typing import Any

import pytest

from swanmesh.charon import rendering
from swanmesh.charon.rendering import render
from swanmesh.core.connections import FORMAT, Connection, Kind, Terms
from swanmesh.core.desired import desired, down, neighbour_discovery
from swanmesh.core.model import AddressPair
from tests.charon.certificates import Authority
from tests.charon.conftest import RealServer
from tests.charon.helpers import asynchronous, client, connected, connection
from tests.unit.core.build import pair_of, peer, settings

HOST = settings("web1.mesh.example", "203.0.113.1", "2001:db8::1")
PEER = peer("web2.mesh.example", "203.0.113.2", "2001:db8::2")


def connections() -> list[Connection]:
    return [connection for _, connection in desired(HOST, PEER).values()]


def child_of(connection: Connection) -> dict[str, Any]:
    children = render(connection)["children"]
    assert isinstance(children, dict) and list(children) == [connection.child]
    child = children[connection.child]
    assert isinstance(child, dict)
    return child


def test_nothing_is_loaded_that_lets_charon_act_on_its_own() -> None:
    for made in connections():
        child, body = child_of(made), render(made)
        assert child["mode"] == "transport" and child["start_action"] == "trap"
        assert child["close_action"] == "none" and child["dpd_action"] == "none"
        assert body["unique"] == "never" and body["mobike"] == "no" and body["dpd_delay"] != "0s"
        local, remote = body["local"], body["remote"]
        assert isinstance(local, dict) and isinstance(remote, dict)
        assert local["id"] == "fqdn:web1.mesh.example" and "certs" not in local
        assert remote["id"] == "fqdn:web2.mesh.example" and remote["cacerts"] == [b"the authority"]
        assert made.addresses is not None
        assert body["remote_addrs"] == [str(made.addresses.remote)]


def test_a_rekey_and_the_end_of_a_life_come_before_the_last_of_the_sequence_numbers_without_esn() -> None:
    for made in connections():
        child = child_of(made)
        assert int(child["rekey_packets"]) < int(child["life_packets"]) < 2**32
        assert int(child["rand_packets"]) < int(child["rekey_packets"]) / 2


@pytest.mark.parametrize(("policy", "mode"), [("require", "drop"), ("prefer", "pass")])
def test_a_shunt_takes_part_in_no_negotiation(policy: str, mode: str) -> None:
    other = peer(policy=policy)
    shunt = down(settings(), other, pair_of(settings(), other))
    assert child_of(shunt)["mode"] == mode and child_of(shunt)["remote_ts"] == ["203.0.113.2/32"]
    assert render(shunt)["remote_addrs"] == ["127.0.0.1"]


def every_kind() -> list[Connection]:
    pair = AddressPair(ipaddress.ip_address("2001:db8::1"), ipaddress.ip_address("2001:db8::2"))
    discovery = neighbour_discovery(HOST)
    assert discovery is not None
    kinds = [*connections(), down(HOST, PEER, pair), discovery]
    assert {connection.kind for connection in kinds} == {Kind.ASSOCIATION, Kind.DROP, Kind.PASS}
    return kinds


@asynchronous
async def test_charon_takes_every_kind_and_loads_none_anew_for_nothing(server: RealServer) -> None:
    # The authority of the other tests is no certificate.
    wanted = [
        replace(connection, terms=replace(connection.terms, authorities=()))
        if connection.terms is not None
        else connection
        for connection in {connection.name: connection for connection in every_kind()}.values()
    ]
    async with connected(server) as charon, client(server) as other:
        for loader in (charon, other):
            assert set((await loader.load_connections(wanted)).values()) == {None}
        held = {found.name: found.children for found in await charon.observe_connections()}
        assert held == {connection.name: (connection.child,) for connection in wanted}


CHANGED: dict[str, Any] = {
    "authorities": (Authority().der,),
    "ike_proposals": ("aes128gcm16-prfsha256-ecp256",),
    "esp_proposals": ("aes128gcm16-ecp256-esn",),
    "ike_rekey": 7200,
    "ike_reauth": 86400,
    "ike_over": 2000,
    "child_rekey": 1800,
    "child_over": 600,
    "dpd_delay": 60,
    "replay_window": 64,
    "revocation": "ifuri",
    "encap": True,
    "host": "z.mesh.example",
    "peer": "z.mesh.example",
    "trap": False,
    "addresses": AddressPair(ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("192.0.2.9")),
    "local_ts": ("192.0.2.8/32",),
    "remote_ts": ("192.0.2.9/32",),
}
"""Another value for everything that makes a connection another one."""


def changed(field: str) -> Connection:
    base = replace(connection("one"), child="esp-0000000000000000", trap=True)
    assert base.terms is not None
    if field in {each.name for each in fields(Terms)}:
        base = replace(base, terms=replace(base.terms, **{field: CHANGED[field]}))
    elif field:
        base = replace(base, **{field: CHANGED[field]})
    return replace(base, child=f"esp-{field.replace('_', '') or 'base'}")


def test_every_field_is_tried() -> None:
    either = {each.name for each in (*fields(Terms), *fields(Connection))}
    assert either - CHANGED.keys() == {"name", "child", "kind", "terms"}


@asynchronous
async def test_charon_sees_a_difference_wherever_the_digest_does(pair: tuple[RealServer, RealServer]) -> None:
    """What it took for the same would keep its trap under the old name, and nobody could take it away."""
    server, _ = pair
    async with connected(server) as charon:
        for field in CHANGED:
            for wanted in (changed(""), changed(field)):
                assert set((await charon.load_connections([wanted])).values()) == {None}
            await charon.unload_connection("one")
        # From 6.0 on with "vici" before it.
        lines = server.charon.said().splitlines()
        said = [line.partition("] ")[2].removeprefix("vici ") for line in lines]
        for field in CHANGED:
            assert (f"installing '{changed(field).child}'" in said) == (field != "trap")
        assert said.count("uninstalling 'esp-base'") == len(CHANGED)


@asynchronous
async def test_a_shunt_of_another_format_is_another_one_to_charon(
    pair: tuple[RealServer, RealServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = pair
    discovery = neighbour_discovery(HOST)
    assert discovery is not None
    async with connected(server) as charon:
        await charon.load_connections([discovery])
        monkeypatch.setattr(rendering, "FORMAT", FORMAT + 1)
        await charon.load_connections([replace(discovery, child="pass-another")])
        assert f"uninstalling '{discovery.child}'" in server.charon.said()
        assert "installing 'pass-another'" in server.charon.said()
