"""What two real charons make of a block's gate, and of a connection whose identity is not known yet."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from swanmesh.charon.client import Charon
from swanmesh.core.connections import ANYBODY, Connection, Kind
from swanmesh.core.model import AddressBlock
from swanmesh.core.observed import Diagnosis, Event, IkeUp
from tests.charon import real
from tests.charon.certificates import Authority
from tests.charon.conftest import RealServer
from tests.charon.helpers import asynchronous, connected, connection, wait_until

MESH, OTHERS = Authority(), Authority("Others' CA")
NAMES = ("a.mesh.example", "b.mesh.example")


def gate(cidr: str = "192.0.2.0/24") -> Connection:
    """Of the host 192.0.2.2."""
    place = AddressBlock(ipaddress.ip_address("192.0.2.2"), ipaddress.ip_network(cidr))
    like = connection("gate", local="192.0.2.2", remote="192.0.2.1", authority=MESH.der)
    return replace(like, peer=ANYBODY, host=NAMES[1], kind=Kind.GATE, addresses=place, remote_ts=("dynamic",))


async def outcome(charon: Charon) -> str:
    while True:
        event: Event | object = await charon.events.get()
        if isinstance(event, IkeUp):
            return "up"
        if isinstance(event, Diagnosis):
            return event.cause.code


async def stands(charon: Charon) -> list[tuple[str, str]]:
    """Of each IKE_SA that is established, connection and identity. What becomes of the CHILD_SA is the lab's
    to tell: not every kernel has ESP."""
    return [(sa.connection, sa.remote_id) for sa in await charon.observe_sas() if sa.established]


@pytest.mark.parametrize(
    ("authority", "cidr", "wanted"),
    [
        (MESH, "192.0.2.0/24", "up"),
        (OTHERS, "192.0.2.0/24", "authentication-failed-at-peer"),
        (MESH, "192.0.2.128/25", "no-connection-at-peer"),
    ],
    ids=["member", "stranger", "outside"],
)
@asynchronous
async def test_who_comes_in_by_a_gate(
    pair: tuple[RealServer, RealServer], authority: Authority, cidr: str, wanted: str
) -> None:
    async with connected(pair[0]) as one, connected(pair[1]) as two:
        await one.load_credentials(*authority.issue(NAMES[0]), [MESH.der])
        await two.load_credentials(*MESH.issue(NAMES[1]), [MESH.der])
        assert await two.load_connections([gate(cidr)]) == {"gate": None}
        anybody = replace(connection("one", authority=MESH.der), peer=ANYBODY)
        await real.load(pair[0].charon, one, anybody)
        await one.initiate("one", "one-child")
        assert await outcome(one) == wanted
        if wanted == "up":
            assert await wait_until(lambda: stands(two)) == [("gate", NAMES[0])]
            assert await stands(one) == [("one", NAMES[1])]


@asynchronous
async def test_a_connection_for_the_peer_itself_is_preferred_to_a_gate(
    pair: tuple[RealServer, RealServer],
) -> None:
    async with connected(pair[0]) as one, connected(pair[1]) as two:
        await one.load_credentials(*MESH.issue(NAMES[0]), [MESH.der])
        await two.load_credentials(*MESH.issue(NAMES[1]), [MESH.der])
        explicit = connection(
            *("two",), local="192.0.2.2", remote="192.0.2.1", identities=NAMES[::-1], authority=MESH.der
        )
        await two.load_connections([gate(), explicit])
        await real.load(pair[0].charon, one, connection("one", authority=MESH.der))
        await one.initiate("one", "one-child")

        assert await wait_until(lambda: stands(two)) == [("two", NAMES[0])]
