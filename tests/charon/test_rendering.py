"""What charon gets for a connection of the core's."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest

from swanmesh.charon.rendering import render
from swanmesh.core.actions import Connection, Kind
from swanmesh.core.connections import desired, down, neighbour_discovery
from swanmesh.core.model import AddressPair
from tests.charon.conftest import RealServer
from tests.charon.helpers import asynchronous, client, connected
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
    for connection in connections():
        child, body = child_of(connection), render(connection)
        assert child["mode"] == "transport" and child["start_action"] == "trap"
        assert child["close_action"] == "none" and child["dpd_action"] == "none"
        assert body["unique"] == "never" and body["mobike"] == "no" and body["dpd_delay"] != "0s"
        local, remote = body["local"], body["remote"]
        assert isinstance(local, dict) and isinstance(remote, dict)
        assert local["id"] == "fqdn:web1.mesh.example" and "certs" not in local
        assert remote["id"] == "fqdn:web2.mesh.example" and remote["cacerts"] == [b"the authority"]
        assert connection.addresses is not None
        assert body["remote_addrs"] == [str(connection.addresses.remote)]


def test_without_a_clock_charon_never_authenticates_anew_by_itself() -> None:
    connection = connections()[0]
    assert connection.terms is not None
    never = replace(connection, terms=replace(connection.terms, ike_reauth=None))
    assert render(never)["reauth_time"] == "0s"


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
