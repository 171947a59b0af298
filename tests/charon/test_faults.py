"""What goes wrong on the socket: each fault ends the session in bounded time, or is shrugged off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vici.protocol import Packet

from swanmesh.charon.client import Charon
from swanmesh.charon.errors import CharonError, CharonLost
from swanmesh.charon.session import Session
from tests.charon import wire
from tests.charon.conftest import FakeServer
from tests.charon.fake import Fault
from tests.charon.helpers import asynchronous, connected, connection, gone_events

LOSING = {
    Fault.HANG: "did not answer list-conns within",
    Fault.HALF_FRAME: "half a message",
    Fault.TRICKLE: "half a message",
    Fault.CLOSE: "clos|broke",
    Fault.GARBAGE: "reply to list-conns cannot be read",
    Fault.OVERSIZE: "announced a message of 524289 bytes",
    Fault.UNKNOWN_TYPE: "unknown type 99",
    Fault.WRONG_TYPE: "answered list-conns with a packet of type 5",
}


@pytest.mark.parametrize("fault", LOSING)
@asynchronous
async def test_a_fault_ends_the_session_with_its_reason(fake: FakeServer, fault: Fault) -> None:
    async with connected(fake, timeout=0.3) as charon:
        await charon.load_connections([connection("one")])
        fake.fake.fault, fake.fake.fault_on = fault, "list-conns"
        started = time.monotonic()
        outcomes = await asyncio.gather(
            charon.observe_connections(), charon.observe_sas(), return_exceptions=True
        )
        assert time.monotonic() - started < 3
        assert all(isinstance(outcome, CharonLost) for outcome in outcomes)
        (gone,) = gone_events(charon)
        with pytest.raises(CharonLost, match=LOSING[fault]):
            await charon.observe_sas()
        assert gone.reason == str(outcomes[0])


@contextlib.asynccontextmanager
async def _talking(fake: FakeServer) -> AsyncIterator[None]:
    """charon logs this and that, all the time."""

    async def talk() -> None:
        while True:
            fake.fake.log("sending DPD request")
            await asyncio.sleep(0.02)

    talking = asyncio.create_task(talk())
    try:
        yield
    finally:
        talking.cancel()


@asynchronous
async def test_a_charon_that_answers_late_and_shows_life_is_slow_and_not_lost(fake: FakeServer) -> None:
    async with connected(fake, timeout=0.3) as charon, _talking(fake):
        fake.fake.fault = Fault.HANG
        started = time.monotonic()
        waiting = asyncio.create_task(charon.observe_credentials())
        asyncio.get_running_loop().call_later(0.6, fake.fake.patience.set)
        await waiting
        assert time.monotonic() - started > 0.5
        assert gone_events(charon) == []


@asynchronous
async def test_a_request_that_charon_never_answers_is_found_though_it_shows_life(fake: FakeServer) -> None:
    async with connected(fake, timeout=0.3) as charon, _talking(fake):
        fake.fake.fault = Fault.HANG
        with pytest.raises(CharonLost, match=r"did not answer unload-conn within 0\.9 s"):
            await charon.unload_connection("one")
        assert len(gone_events(charon)) == 1


@asynchronous
async def test_an_answer_too_many_ends_the_session(fake: FakeServer) -> None:
    async with connected(fake) as charon:
        fake.fake.fault = Fault.TWICE
        await charon.observe_credentials()
        with pytest.raises(CharonLost, match="reply"):
            while True:
                await charon.observe_credentials()
        assert len(gone_events(charon)) == 1


@pytest.mark.parametrize("fault", [Fault.UNKNOWN_EVENT, Fault.FLOOD])
@asynchronous
async def test_unwanted_events_are_counted_and_do_no_harm(fake: FakeServer, fault: Fault) -> None:
    async with connected(fake) as charon:
        await charon.load_connections([connection("one")])
        fake.fake.fault, fake.fake.fault_on = fault, "list-conns"
        assert len(await charon.observe_connections()) == 1
        assert charon.skipped == (10_000 if fault is Fault.FLOOD else 1)


@asynchronous
async def test_the_loss_of_the_events_alone_ends_both_sessions_and_is_told_once(fake: FakeServer) -> None:
    async with connected(fake) as charon:
        fake.fake.drop_listeners("ike-updown")
        gone = await asyncio.wait_for(charon.events.get(), 5)
        assert "clos" in str(gone)
        with pytest.raises(CharonLost):
            await charon.observe_sas()
        assert charon.events.empty()


@asynchronous
async def test_a_session_lost_while_connecting_leaves_nothing_open(fake: FakeServer) -> None:
    await fake.up()
    for command in ("version", "stats"):
        fake.fake.fault, fake.fake.fault_on = Fault.CLOSE, command
        charon = Charon(fake.socket, timeout=1)
        with pytest.raises(CharonLost):
            await charon.connect()
        assert charon.events.empty()
    await fake.die()


@asynchronous
async def test_events_that_make_no_sense_are_counted(fake: FakeServer) -> None:
    async with connected(fake) as charon:
        broken = {"swanmesh-b": {"uniqueid": "-1", "state": "ESTABLISHED"}}
        fake.fake.emit("ike-updown", broken)
        fake.fake.emit("child-updown", {"swanmesh-b": {"uniqueid": "9" * 40, "state": "ESTABLISHED"}})
        fake.fake.emit("ike-rekey", {"swanmesh-b": {"old": "x", "new": ["y"]}})
        fake.fake.emit_raw("ike-updown", b"\x01\x03abc")
        fake.fake.log("giving up after 1 retransmits", connection="swanmesh-b", unique_id=4)
        event = await asyncio.wait_for(charon.events.get(), 5)
        assert "giving" not in str(event)
        assert charon.events.empty()
        assert charon.skipped == 4


# Where there is no charon.


@asynchronous
async def test_words_for_each_way_not_to_connect(tmp_path: Path) -> None:
    with pytest.raises(CharonLost, match=r"no socket at .*charon is not running"):
        await Charon(tmp_path / "none").connect()
    ordinary = tmp_path / "file"
    ordinary.write_text("")
    with pytest.raises(CharonLost, match="is not a socket"):
        await Charon(ordinary).connect()
    with pytest.raises(CharonLost, match="cannot connect"):
        await Charon(tmp_path / ("x" * 200)).connect()


@asynchronous
async def test_a_full_backlog_is_not_taken_for_a_connection(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "busy"))
        listener.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(tmp_path / "busy"))
        with pytest.raises(CharonLost, match=r"accepts no connection for 0\.2 s"):
            await Charon(tmp_path / "busy", timeout=0.2).connect()


def _connecting_as_nobody(path: Path) -> str:
    """The reason that a process without rights gets."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            asyncio.run(Charon(path).connect())
        except CharonLost as lost:
            os.write(write_end, lost.reason.encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with os.fdopen(read_end) as reader:
        return reader.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become nobody")
def test_permission_denied_says_who_may(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "charon.vici"))
        listener.listen()
        reason = _connecting_as_nobody(tmp_path / "charon.vici")
    assert reason.startswith(f"permission denied on {tmp_path}/charon.vici (")
    assert "root:root, mode 0700" in reason


# Whatever comes.

_frames = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(wire.frame),
    st.builds(
        lambda kind, rest: wire.frame(bytes([kind]) + rest),
        st.sampled_from(
            [
                Packet.CMD_RESPONSE,
                Packet.CMD_UNKNOWN,
                Packet.EVENT_CONFIRM,
                Packet.EVENT_UNKNOWN,
                Packet.EVENT,
            ]
        ),
        st.binary(max_size=30),
    ),
    st.just(wire.event("list-conn", {"one": {"children": {}}})),
    st.just(wire.response({"success": "yes"})),
)


@contextlib.asynccontextmanager
async def _says(path: Path, said: list[bytes], *, close: bool) -> AsyncIterator[None]:
    """A server that says this to whoever comes, whatever it is asked."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readexactly(1)
            for piece in said:
                writer.write(piece)
                await writer.drain()
            if not close:
                await reader.read()
        writer.transport.abort()

    server = await asyncio.start_unix_server(talk, path)
    try:
        yield
    finally:
        server.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(_frames, max_size=6), close=st.booleans())
def test_nothing_that_is_said_hangs_a_session_or_raises_the_unexpected(
    tmp_path: Path, said: list[bytes], close: bool
) -> None:
    async def ask() -> None:
        lost: list[str] = []
        async with _says(tmp_path / "liar", said, close=close):
            session = await Session.connect(
                tmp_path / "liar", timeout=0.05, on_event=lambda *_: None, on_lost=lost.append
            )
            asked = (
                session.register("list-conn"),
                session.stream("list-conns", "list-conn", lambda _: None),
                session.request("version"),
            )
            outcomes = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
            session.close()
        assert len(lost) <= 1
        for outcome in outcomes:
            assert not isinstance(outcome, BaseException) or isinstance(outcome, CharonError)

    asyncio.run(ask())
