"""Blocks of addresses in the whole service: their files, and hosts that come and are asked."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml

from swanmesh.control.client import RequestRefused
from swanmesh.core.connections import Kind, kind_of
from swanmesh.core.xfrm import PacketCalls
from swanmesh.kernel.link import KernelChanged
from swanmesh.service.daemon import Daemon
from tests.charon.daemon import Initiation
from tests.charon.helpers import asynchronous
from tests.service.commanding import swanmesh
from tests.service.running import Listener, Place, asked, service, status, until


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    (tmp_path / "blocks.d").mkdir()
    write_block(place, "rack", "192.0.2.0/24")
    return place


def write_block(place: Place, name: str, cidr: str, **keys: object) -> Path:
    path = place.folder / "blocks.d" / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"cidr": cidr, **keys}))
    return path


def gates(place: Place) -> list[str]:
    return [
        name
        for name, body in place.charon.connections.items()
        if any(kind_of(child) is Kind.GATE for child in body["children"])
    ]


def comes(place: Place, remote: str, identity: str) -> int:
    """A host begins an association, by the gate. Returns its IKE_SA's unique id."""
    (gate,) = gates(place)
    return place.charon.establish(gate, initiator=False, remote=(remote, identity)).unique_id


def calls(daemon: Daemon, remote: str) -> None:
    """The kernel has a packet for this host."""
    daemon.loop.put(KernelChanged(PacketCalls(ip_address("192.0.2.1"), ip_address(remote))))


@asynchronous
async def test_a_host_that_comes_is_shown_by_its_name_and_a_restart_changes_nothing(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await until(daemon, lambda: len(gates(place)) == 1)
        listener = Listener(daemon)
        for last in (7, 8):
            comes(place, f"192.0.2.{last}", f"web{last}.mesh.example")
        await until(daemon, lambda: len(daemon.mesh.state.up) == 2)
        reply = await status(place)
        shown = [(peer.name, peer.state, peer.block, peer.addresses) for peer in reply.peers]
        assert shown == [(f"web{n}.mesh.example", "up", "rack", [f"192.0.2.{n}"]) for n in (7, 8)]
        assert [(block.name, block.members, block.up) for block in reply.blocks] == [("rack", 2, 2)]
        one = await asked(lambda: place.client.status(["web7"]))
        assert [peer.addresses for peer in one.peers] == [["192.0.2.7"]] and one.blocks == []
        assert b'swanmesh_block_hosts{block="rack",state="up"} 2.0' in await asked(place.client.metrics)
        await until(daemon, lambda: listener.kinds().count("peer-up") == 2)
        await until(daemon, lambda: len(place.charon.connections) == 3)
    held = dict(place.charon.sas)
    place.charon.requests.clear()
    async with service(place) as daemon:
        await until(daemon, lambda: len(daemon.mesh.state.up) == 2)
        assert (await asked(place.client.plan)).actions == []
    assert place.charon.sas == held and place.loads() == 0
    await place.charon.stop()


@asynchronous
async def test_a_packet_has_a_host_asked_and_a_stranger_is_told(place: Place) -> None:
    place.charon.on_initiate = Initiation.HOLD
    await place.charon.start()
    async with service(place) as daemon:
        await until(daemon, lambda: len(gates(place)) == 1)
        calls(daemon, "192.0.2.9")
        await until(daemon, lambda: len(place.charon.sas) == 1)
        assert (await status(place)).blocks[0].asked == 1
        place.charon.log(
            "no private key found",
            connection=next(iter(place.charon.sas.values())).connection,
            unique_id=next(iter(place.charon.sas)),
        )
        place.charon.give_up()
        await until(daemon, lambda: len(daemon.mesh.state.members.strangers) == 1, 30)
        (block,) = json.loads(await asked(lambda: place.client.status_json(["192.0.2.9"])))["blocks"]
        assert [each["address"] for each in block["listed"]] == ["192.0.2.9"] and block["strangers"] == 1
        await until(daemon, lambda: gates(place) == list(place.charon.connections))
        with pytest.raises(RequestRefused):
            await asked(lambda: place.client.status(["192.0.2.10"]))
    await place.charon.stop()


@asynchronous
async def test_a_file_with_a_mistake_changes_nothing_and_one_that_goes_ends_its_own(place: Place) -> None:
    other = write_block(place, "other", "198.51.100.0/24")
    await place.charon.start()
    async with service(place) as daemon:
        await until(daemon, lambda: len(gates(place)) == 2)
        rack = next(name for name in gates(place) if "rack" in name)
        place.charon.establish(rack, initiator=False, remote=("192.0.2.7", "web7.mesh.example"))
        await until(daemon, lambda: len(daemon.mesh.state.up) == 1)
        other.write_text("cidr: everything\n")
        await until(daemon, lambda: any("other.yaml: cidr" in problem for problem in daemon.problems()))
        assert len(gates(place)) == 2
        reply = await asked(lambda: place.client.reload([other], removed=False))
        assert reply.changed == []
        other.unlink()
        await asked(lambda: place.client.reload([other], removed=True))
        await until(daemon, lambda: gates(place) == [rack])
        assert len(place.charon.sas) == 1
        await asked(lambda: place.client.reload(None))
        (place.folder / "blocks.d" / "rack.yaml").unlink()
        await asked(lambda: place.client.reload([place.folder / "blocks.d" / "rack.yaml"], removed=True))
        await until(daemon, lambda: place.charon.connections == {} and place.charon.sas == {})
    await place.charon.stop()


@asynchronous
async def test_a_stricter_policy_is_refused_where_it_cuts_strangers_off(place: Place) -> None:
    place.document["policy"] = "prefer"
    place.write_config()
    place.charon.on_initiate = Initiation.HOLD
    await place.charon.start()
    async with service(place) as daemon:
        await until(daemon, lambda: len(gates(place)) == 1)
        calls(daemon, "192.0.2.9")
        await until(daemon, lambda: len(place.charon.sas) == 1)
        place.charon.give_up()
        await until(daemon, lambda: len(daemon.mesh.state.members.strangers) == 1, 30)
        refused = await swanmesh(place, "policy", "set", "require")
        assert refused.status == 1 and "rack: 1 host in 192.0.2.0/24 met lately, no members" in refused.err
        assert "block rack: 192.0.2.0/24" in (await swanmesh(place, "policy", "report")).out
        accepted = await swanmesh(place, "policy", "set", "require", "--accept-risk=cut-peers")
        assert accepted.status == 0
        assert [block.policy for block in (await status(place)).blocks] == ["require"]
    await place.charon.stop()
