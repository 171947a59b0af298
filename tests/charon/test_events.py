"""What happens in charon, as it comes through the client's queue."""

from __future__ import annotations

from swanmesh.charon.client import Charon
from swanmesh.core.observed import (
    ChildDown,
    ChildRekeyed,
    ChildUp,
    Diagnosis,
    IkeDown,
    IkeMoved,
    IkeRekeyed,
    IkeUp,
)
from swanmesh.core.reasons import Reason
from tests.charon.conftest import FakeServer
from tests.charon.daemon import Initiation
from tests.charon.fake import FakeCharon, Threaded
from tests.charon.helpers import asynchronous, connected, connection, drained, next_event


@asynchronous
async def test_coming_up_is_told_of_the_ike_sa_first(fake: FakeServer) -> None:
    async with connected(fake) as charon:
        await charon.load_connections([connection("one", remote="198.51.100.9")])
        await charon.initiate("one", "one-child")
        ike_up = await next_event(charon, IkeUp)
        child_up = await next_event(charon, ChildUp)
        assert ike_up.ike.connection == child_up.ike.connection == "one"
        assert ike_up.ike.unique_id == child_up.ike.unique_id
        assert ike_up.ike.children == ()
        assert not ike_up.ike.works
        assert child_up.ike.works
        (held,) = await charon.observe_sas()
        assert held == child_up.ike
        assert held.remote_host == "198.51.100.9"
        assert held.algorithm == "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519"
        assert held.children[0].algorithm == "AES_GCM_16-128/ESN"


@asynchronous
async def test_going_down_is_told_of_the_ike_sa_first(fake: FakeServer) -> None:
    async with connected(fake) as charon:
        ike = fake.fake.establish("one")
        fake.fake.drop(ike.unique_id)
        kinds = []
        while IkeDown not in kinds or ChildDown not in kinds:
            kinds.append(type(await charon.events.get()))
        assert kinds == [IkeUp, ChildUp, IkeDown, ChildDown]
        assert await charon.observe_sas() == ()


@asynchronous
async def test_the_peers_delete_shows_in_the_tasks(fake: FakeServer) -> None:
    async with connected(fake) as charon:
        fake.fake.drop(fake.fake.establish("one").unique_id)
        down = await next_event(charon, IkeDown)
        assert down.ike.state == "DELETING"
        assert down.ike.tasks_passive == ("IKE_DELETE",)


@asynchronous
async def test_rekeying_is_neither_up_nor_down(fake: FakeServer) -> None:
    async with connected(fake) as charon:
        ike = fake.fake.establish("one")
        (old_child,) = ike.children
        await next_event(charon, ChildUp)
        await charon.rekey_child(old_child)
        child = await next_event(charon, ChildRekeyed)
        assert (child.old_id, child.ike.unique_id) == (old_child, ike.unique_id)
        assert child.new.unique_id != old_child
        await charon.rekey_ike(ike.unique_id)
        rekeyed = await next_event(charon, IkeRekeyed)
        assert rekeyed.old_id == ike.unique_id
        (held,) = await charon.observe_sas()
        assert held.unique_id == rekeyed.new.unique_id
        assert held.children[0].unique_id == child.new.unique_id
        assert drained(charon) == []


@asynchronous
async def test_reauthentication_is_down_and_up(fake: FakeServer) -> None:
    async with connected(fake) as charon:
        await charon.load_connections([connection("one")])
        ike = fake.fake.establish("one")
        await next_event(charon, ChildUp)
        await charon.rekey_ike(ike.unique_id, reauth=True)
        assert (await next_event(charon, IkeDown)).ike.unique_id == ike.unique_id
        assert (await next_event(charon, IkeUp)).ike.unique_id != ike.unique_id


@asynchronous
async def test_a_peer_that_moves_is_told_of_with_its_new_address(fake: FakeServer) -> None:
    async with connected(fake) as charon:
        ike = fake.fake.establish("one")
        assert (await next_event(charon, ChildUp)).ike.remote_host == "192.0.2.2"
        ike.nat_remote = True
        fake.fake.move(ike.unique_id, "192.0.2.66", 4500)
        moved = (await next_event(charon, IkeMoved)).ike
        assert (moved.unique_id, moved.nat_remote) == (ike.unique_id, True)
        assert moved.remote_host == "192.0.2.66"
        (held,) = await charon.observe_sas()
        assert held.remote_host == moved.remote_host


@asynchronous
async def test_duplicates_live_side_by_side_and_end_one_by_one(fake: FakeServer) -> None:
    async with connected(fake) as charon:
        first, second = fake.fake.establish("one"), fake.fake.establish("one", initiator=False)
        seen = {sa.unique_id: sa.initiator for sa in await charon.observe_sas()}
        assert seen == {first.unique_id: True, second.unique_id: False}
        await charon.terminate_ike(first.unique_id)
        assert (await next_event(charon, IkeDown)).ike.unique_id == first.unique_id
        assert [sa.unique_id for sa in await charon.observe_sas()] == [second.unique_id]


@asynchronous
async def test_a_child_ends_alone(fake: FakeServer) -> None:
    async with connected(fake) as charon:
        ike = fake.fake.establish("one")
        (child,) = ike.children
        await charon.terminate_child(child)
        assert (await next_event(charon, ChildDown)).ike.children[0].unique_id == child
        (held,) = await charon.observe_sas()
        assert held.established
        assert not held.works


@asynchronous
async def test_tunnel_mode_is_no_association(fake: FakeServer) -> None:
    async with connected(fake) as charon:
        fake.fake.establish("one", mode="TUNNEL")
        assert not (await next_event(charon, ChildUp)).ike.works


@asynchronous
async def test_an_initiation_that_times_out_vanishes_without_an_event(fake: FakeServer) -> None:
    fake.fake.on_initiate = Initiation.HOLD
    async with connected(fake) as charon:
        await charon.load_connections([connection("one")])
        await charon.initiate("one", "one-child")
        assert [sa.state for sa in await charon.observe_sas()] == ["CONNECTING"]
        fake.fake.give_up()
        assert await charon.observe_sas() == ()
        assert drained(charon) == []
        await charon.initiate("one", "one-child")
        fake.fake.establish_held()
        assert (await next_event(charon, ChildUp)).ike.works


@asynchronous
async def test_causes_come_from_the_log_and_other_lines_tell_nothing(fake: FakeServer) -> None:
    async with connected(fake) as charon:
        for line in (
            "sending packet: from 192.0.2.1[500]",
            "giving up after 3 retransmits",
            "IKE_SA deleted",
        ):
            fake.fake.log(line, connection="one", unique_id=7)
        diagnosis = await next_event(charon, Diagnosis)
        assert diagnosis == Diagnosis(
            "one", 7, Reason("peer-unreachable", "peer unreachable: no answer to 3 retransmission(s)")
        )
        assert drained(charon) == []


@asynchronous
async def test_causes_come_from_alerts_where_charon_has_them(fake: FakeServer) -> None:
    fake.fake = FakeCharon(fake.socket, version="6.0.6")
    async with connected(fake) as charon:
        ike = {"one": {"uniqueid": "7", "state": "CONNECTING"}}
        fake.fake.emit("alert", {"type": "shutdown-signal"})
        fake.fake.emit("alert", {"type": "retransmit-send", "ike-sa": ike})
        fake.fake.emit("alert", {"type": "peer-init-unreachable", "ike-sa": ike})
        assert await next_event(charon, Diagnosis) == Diagnosis(
            "one", 7, Reason("peer-unreachable", "peer unreachable: it does not answer")
        )


@asynchronous
async def test_an_event_comes_through_a_flood_of_log_lines(fake: FakeServer) -> None:
    async with connected(fake) as charon:
        for _ in range(5):
            for _ in range(2000):
                fake.fake.log("sending packet: from 192.0.2.1[500] to 192.0.2.2[500] (57 bytes)")
            ike = fake.fake.establish("one")
            assert (await next_event(charon, ChildUp, timeout=2)).ike.unique_id == ike.unique_id
        assert charon.skipped == 0


@asynchronous
async def test_the_fake_serves_from_a_thread_of_its_own(fake: FakeServer) -> None:
    with Threaded(fake.socket) as threaded:
        charon = Charon(fake.socket, timeout=5)
        await charon.connect()
        unique_id = threaded.call(lambda server: server.establish("one").unique_id)
        assert (await next_event(charon, ChildUp)).ike.unique_id == unique_id
        assert threaded.call(lambda server: [name for name, _ in server.requests]) == [
            "version",
            "stats",
            "get-algorithms",
        ]
        await charon.close()
