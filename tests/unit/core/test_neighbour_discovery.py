"""IPv6 neighbour discovery passes while traps stand: without it no IPv6 pair came up (seen in the lab)."""

from __future__ import annotations

import ipaddress

from swanmesh.core.actions import LoadConnection
from swanmesh.core.connections import ours
from swanmesh.core.desired import neighbour_discovery
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import Credentials, Host, Settings
from swanmesh.core.observed import Holdings, LoadedConnection
from swanmesh.core.verdict import EMPTY, planned


def settings(*addresses: str) -> Settings:
    host = Host(name="web1.mesh.example", addresses=tuple(map(ipaddress.ip_address, addresses)))
    own = Credentials(
        certificate=b"c", private_key=b"k", key_id="1", authorities=(b"a",), not_before=1e9, not_after=2e9
    )
    return Settings(host=host, credentials=own)


def test_a_host_without_ipv6_needs_no_shunt() -> None:
    assert neighbour_discovery(settings("192.0.2.1")) is None


def test_the_shunt_is_loaded_once_and_never_initiated() -> None:
    mesh = Mesh(settings("192.0.2.1", "2001:db8::1"), seed=1)
    mesh.charon_back("5.9.8", EMPTY, 0.0)
    step = mesh.step(0.0)
    loads = [action for action in step.actions if isinstance(action, LoadConnection)]
    assert [ours(load.connection.name) for load in loads] == [True]
    for action in step.actions:
        mesh.done(action, None, 0.1)
    assert mesh.step(0.2).actions == ()
    assert planned(mesh.state) == []


def test_another_version_of_it_in_charon_is_replaced_and_no_peer_is_held_down() -> None:
    own = settings("2001:db8::1")
    shunt = neighbour_discovery(own)
    assert shunt is not None
    old = LoadedConnection(name=shunt.name, children=("pass-0000000000000000",))
    mesh = Mesh(own, seed=1)
    mesh.charon_back("5.9.8", Holdings(connections=(old,), sas=(), credentials=EMPTY.credentials), 0.0)
    verbs = [action.verb for action in mesh.step(0.0).actions]
    assert verbs == ["load-credentials", "load"]
    assert mesh.state.down == set()


def test_it_goes_when_the_host_has_no_ipv6_address_any_more() -> None:
    mesh = Mesh(settings("192.0.2.1", "2001:db8::1"), seed=1)
    mesh.charon_back("5.9.8", EMPTY, 0.0)
    for action in mesh.step(0.0).actions:
        mesh.done(action, None, 0.1)
    mesh.configure(settings("192.0.2.1"), 1.0)
    assert [action.verb for action in mesh.step(1.0).actions] == ["unload"]
