"""What is true of charon, the fake and the real one alike."""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

from swanmesh.charon.client import Charon, CharonGone
from swanmesh.charon.errors import (
    CharonLost,
    CommandFailed,
    MessageTooLarge,
    UnknownEvent,
    UnsupportedCommand,
)
from swanmesh.charon.session import Session
from swanmesh.core import actions
from swanmesh.core.abilities import Abilities, problems
from swanmesh.core.model import ConnectionSettings
from swanmesh.core.observed import LoadedConnection
from swanmesh.core.reasons import Reason
from tests.charon.certificates import Authority
from tests.charon.conftest import FakeServer
from tests.charon.daemon import Initiation
from tests.charon.helpers import (
    Server,
    asynchronous,
    connected,
    connection,
    gone_events,
    next_event,
    wait_until,
)


@asynchronous
async def test_connecting_tells_who_answers(server: Server) -> None:
    before = time.time()
    async with connected(server) as charon:
        assert charon.version.split(".")[0] in {"5", "6"}
        assert charon.since is not None
        assert before - 2 <= charon.since <= time.time() + 1


@asynchronous
async def test_what_charon_can_do_covers_the_proposals_as_they_come(server: Server) -> None:
    async with connected(server) as charon:
        abilities = Abilities(charon.version, charon.algorithms)
        assert list(problems(ConnectionSettings(), abilities, "swanmesh.yaml")) == []
        assert charon.algorithms is not None and "ML_KEM_768" not in charon.algorithms


@asynchronous
async def test_a_loaded_connection_is_listed_with_its_child(server: Server) -> None:
    async with connected(server) as charon:
        assert await charon.load_connections([connection("one"), connection("two")]) == {
            "one": None,
            "two": None,
        }
        held = await charon.observe_connections()
        assert set(held) == {
            LoadedConnection(name="one", children=("one-child",)),
            LoadedConnection(name="two", children=("two-child",)),
        }


@asynchronous
async def test_loading_again_changes_nothing(server: Server) -> None:
    async with connected(server) as charon:
        await charon.load_connections([connection("one")])
        assert await charon.load_connections([connection("one")]) == {"one": None}
        assert len(await charon.observe_connections()) == 1


@asynchronous
async def test_unloading_forgets_and_is_refused_the_second_time(server: Server) -> None:
    async with connected(server) as charon:
        await charon.load_connections([connection("one")])
        await charon.unload_connection("one")
        assert await charon.observe_connections() == ()
        with pytest.raises(CommandFailed, match="connection 'one' not found"):
            await charon.unload_connection("one")


@pytest.mark.parametrize("bad", [{0}, {449}, {17, 18, 300}, {199, 200}])
@asynchronous
async def test_a_bad_connection_holds_up_no_other(server: Server, bad: set[int]) -> None:
    wrong: dict[str, Any] = {"ike_proposals": ("no-such-algorithm",)}
    wanted = [connection(f"c{index}", **(wrong if index in bad else {})) for index in range(450)]
    async with connected(server) as charon:
        outcome = await charon.load_connections(wanted)
        refused = {name: words for name, words in outcome.items() if words is not None}
        assert set(refused) == {f"c{index}" for index in bad}
        assert all("invalid value for: proposals" in words for words in refused.values())
        assert len(await charon.observe_connections()) == 450 - len(bad)


@asynchronous
async def test_many_connections_take_few_messages(server: Server) -> None:
    async with connected(server) as charon:
        before = charon.requests
        await charon.load_connections([connection(f"c{index}") for index in range(1000)])
        assert charon.requests - before == 5


@asynchronous
async def test_one_more_peer_takes_two_requests(server: Server) -> None:
    async with connected(server) as charon:
        before = charon.requests
        await charon.perform(
            actions.LoadConnection(connection=connection("one"), reason=Reason("test", "new peer"))
        )
        await charon.perform(
            actions.Initiate(
                connection="one", child="one-child", peer="b.mesh.example", reason=Reason("test", "ours")
            )
        )
        assert charon.requests - before == 2


@asynchronous
async def test_a_connection_too_large_to_send_holds_up_no_other(server: Server) -> None:
    long_value = connection("long", ike_proposals=("x" * 70_000,))
    large = connection("large", ike_proposals=("aes128gcm16-prfsha256-x25519",) * 20_000)
    async with connected(server) as charon:
        outcome = await charon.load_connections([connection("one"), long_value, large, connection("two")])
        assert [name for name, words in outcome.items() if words is None] == ["one", "two"]
        assert all("too large" in (outcome[name] or "") for name in ("long", "large"))
        assert len(await charon.observe_connections()) == 2


@asynchronous
async def test_credentials_are_found_again_by_their_names(server: Server) -> None:
    certificate, key = Authority().issue("a.mesh.example")
    async with connected(server) as charon:
        key_id = await charon.load_credentials(certificate, key)
        for _ in range(2):
            held = await charon.observe_credentials()
            assert held.key_ids == {key_id}
            assert held.certificates == {hashlib.sha256(certificate).hexdigest()}
            await charon.perform(
                actions.LoadCredentials(
                    certificate=certificate, private_key=key, reason=Reason("test", "again")
                )
            )


@asynchronous
async def test_a_broken_key_or_certificate_is_refused(server: Server) -> None:
    certificate, key = Authority().issue("a.mesh.example")
    async with connected(server) as charon:
        with pytest.raises(CommandFailed, match="private key failed"):
            await charon.load_credentials(certificate, b"no key at all")
        with pytest.raises(CommandFailed, match="certificate failed"):
            await charon.load_credentials(b"no certificate", key)


@asynchronous
async def test_initiating_returns_at_once_and_shows_as_under_way(server: Server) -> None:
    if isinstance(server, FakeServer):
        server.fake.on_initiate = Initiation.HOLD
    async with connected(server) as charon:
        await charon.load_connections([connection("one")])
        await charon.initiate("one", "one-child")
        (ike,) = await charon.observe_sas()
        assert (ike.connection, ike.state, ike.initiator) == ("one", "CONNECTING", True)
        assert (ike.local_host, ike.remote_host) == ("192.0.2.1", "192.0.2.2")
        assert not ike.works
        await charon.terminate_ike(ike.unique_id, force=True)

        async def nothing_left() -> bool:
            return await charon.observe_sas() == ()

        await wait_until(nothing_left)


@asynchronous
async def test_what_does_not_exist_cannot_be_acted_upon(server: Server) -> None:
    async with connected(server) as charon:
        with pytest.raises(CommandFailed, match="not found"):
            await charon.initiate("one", "one-child")
        why = Reason("test", "a test")
        for action in (
            actions.TerminateIke(unique_ids=(77, 78), connection="one", reason=why),
            actions.TerminateChild(unique_id=77, connection="one", reason=why),
        ):
            with pytest.raises(CommandFailed, match="no matching SAs to terminate"):
                await charon.perform(action)
        for reauth in (False, True):
            with pytest.raises(CommandFailed, match="no matching SAs to rekey"):
                await charon.rekey_ike(77, reauth=reauth)
        with pytest.raises(CommandFailed, match="no matching SAs to rekey"):
            await charon.rekey_child(77)
        assert await charon.observe_sas() == ()


@asynchronous
async def test_requests_under_way_together_each_get_their_own_answer(server: Server) -> None:
    async with connected(server) as charon:
        await charon.load_connections([connection(f"c{index}") for index in range(20)])
        asked = []
        for index in range(10):
            asked += [
                charon.observe_connections(),
                charon.unload_connection(f"nothing-{index}"),
                charon.observe_sas(),
                charon.observe_connections(),
            ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for index in range(10):
            first, refused, sas, second = answers[4 * index : 4 * index + 4]
            assert isinstance(first, tuple)
            assert isinstance(second, tuple)
            assert len(first) == len(second) == 20
            assert sas == ()
            assert isinstance(refused, CommandFailed)
            assert f"nothing-{index}" in str(refused)


@asynchronous
async def test_a_request_given_up_leaves_the_others_in_step(server: Server) -> None:
    async with connected(server) as charon:
        await charon.load_connections([connection("one")])
        given_up = asyncio.create_task(charon.observe_connections())
        kept = asyncio.create_task(charon.observe_credentials())
        await asyncio.sleep(0)
        given_up.cancel()
        assert (await kept).key_ids == frozenset()
        assert len(await charon.observe_connections()) == 1


@asynchronous
async def test_unknown_commands_and_events_do_not_end_the_session(server: Server) -> None:
    await server.up()
    session = await Session.connect(server.socket, timeout=5)
    try:
        with pytest.raises(UnsupportedCommand, match="no-such-command"):
            await session.request("no-such-command")
        with pytest.raises(UnknownEvent, match="no-such-event"):
            await session.register("no-such-event")
        with pytest.raises(MessageTooLarge, match="too large"):
            await session.request("load-conn", b"x" * (512 * 1024))
        assert (await session.request("version"))["daemon"] == b"charon-systemd"
    finally:
        session.close()


@asynchronous
async def test_a_charon_that_dies_is_reported_once_and_can_come_back(server: Server) -> None:
    async with connected(server) as charon:
        await charon.load_connections([connection("one")])
        await server.die()
        gone = await next_event(charon, CharonGone)
        assert "clos" in gone.reason or "broke" in gone.reason
        for _ in range(2):
            with pytest.raises(CharonLost):
                await charon.observe_sas()
        assert gone_events(charon) == []
    async with connected(server) as charon:
        assert await charon.observe_connections() == ()


@asynchronous
async def test_a_charon_that_hangs_is_given_up_in_time(server: Server) -> None:
    async with connected(server, timeout=0.3) as charon:
        await server.hang()
        started = time.monotonic()
        outcomes = await asyncio.gather(
            charon.unload_connection("one"), charon.observe_sas(), return_exceptions=True
        )
        assert time.monotonic() - started < 3
        assert all(isinstance(outcome, CharonLost) for outcome in outcomes)
        assert "did not answer unload-conn within 0.3 s" in str(outcomes[0])
        assert len(gone_events(charon)) == 1


@asynchronous
async def test_closing_ends_what_waits_and_is_no_loss(server: Server) -> None:
    async with connected(server) as charon:
        await server.hang()
        waiting = asyncio.create_task(charon.observe_sas())
        await asyncio.sleep(0)
        await charon.close()
        with pytest.raises(CharonLost, match="closed at this end"):
            await waiting
        assert gone_events(charon) == []
        await charon.close()


@asynchronous
async def test_nothing_listens_where_charon_has_crashed(server: Server) -> None:
    async with connected(server):
        await server.die()
    assert server.socket.exists()
    with pytest.raises(CharonLost, match="nobody listens"):
        await Charon(server.socket).connect()


@asynchronous
async def test_a_command_of_a_client_is_not_seen_by_another(server: Server, tmp_path: Path) -> None:
    """charon streams lists to the asking connection alone, so that a registration may stand."""
    async with connected(server) as charon:
        await charon.load_connections([connection("one")])
        other = Charon(server.socket, timeout=5)
        await other.connect()
        try:
            looks = await asyncio.gather(*(c.observe_connections() for c in (charon, other) * 10))
            assert all(len(look) == 1 for look in looks)
            assert charon.skipped == other.skipped == 0
        finally:
            await other.close()
