"""A measurement between two hosts, and what a member that is an intruder gets of it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator

import pytest

from swanmesh.core.model import AddressPair
from swanmesh.machine.devices import Device
from swanmesh.throughput.asking import Refused
from swanmesh.throughput.iperf import Failed
from swanmesh.throughput.messages import Ask
from swanmesh.throughput.offering import Turns
from tests.charon.helpers import asynchronous
from tests.unit.throughput.iperf import (
    ELSEWHERE,
    HERE,
    MBIT,
    THERE,
    FakeIperf,
    Other,
    fake_iperf,
    free_port,
    other,
    until_none_runs,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes root's ports")


@pytest.fixture(autouse=True)
def iperf(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIperf]:
    monkeypatch.setattr("swanmesh.throughput.offering._SAMPLE", 0.05)
    with fake_iperf(monkeypatch) as fake:
        yield fake


def ask(*, send: bool = True, streams: int = 1) -> Ask:
    return Ask(port=free_port(), seconds=1, streams=streams, send=send)


@asynchronous
async def test_the_other_host_connects_to_who_asks_and_both_ends_tell(iperf: FakeIperf) -> None:
    rates: list[float] = []
    async with other() as web2, web2.asked() as session:
        for send in (True, False):
            transfer = await session.transfer(ask(send=send), rates.append)
            assert (transfer.carried.bits, transfer.carried.resent) == (MBIT, 3)
            assert len(transfer.carried.busy) == len(transfer.here) == os.cpu_count()
    assert set(rates) == {912.0}
    assert web2.told == [("measures throughput", {"peer": f"web-{HERE}"})]
    first, second = iperf.ran("client")
    assert first[first.index("--client") + 1] == HERE and first[first.index("--bind") + 1] == THERE
    assert "--reverse" not in first and "--reverse" in second
    assert {words[1] for side in ("client", "server") for words in iperf.ran(side)} == {"65534"}
    await until_none_runs(iperf)


@asynchronous
async def test_what_runs_is_ended_at_both_ends_when_who_asks_breaks_off(iperf: FakeIperf) -> None:
    iperf.mode = "hang"
    began = asyncio.Event()
    async with other() as web2:

        async def measure() -> None:
            async with web2.asked() as session:
                await session.transfer(ask(), lambda rate: began.set())

        task = asyncio.create_task(measure())
        await asyncio.wait_for(began.wait(), 10)
        assert len(iperf.running()) == 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until_none_runs(iperf)


@asynchronous
async def test_what_runs_is_ended_when_it_is_no_longer_allowed(iperf: FakeIperf) -> None:
    iperf.mode = "hang"
    async with other() as web2, web2.asked() as session:
        with pytest.raises(Refused, match="ended the measurement"):
            await session.transfer(ask(), lambda rate: web2.allow(False))
        await until_none_runs(iperf)


@asynchronous
async def test_one_host_at_a_time_and_then_a_pause() -> None:
    async with other() as web2:
        async with web2.asked() as session:
            with pytest.raises(Refused, match="measures with another host"):
                async with web2.asked(ELSEWHERE):
                    pass
            with pytest.raises(Refused, match="measures with another host"):
                async with web2.asked():
                    pass
            await session.transfer(ask(), lambda rate: None)
        with pytest.raises(Refused, match=r"pauses as long; try again in \d+ s"):
            async with web2.asked(ELSEWHERE):
                pass


def test_at_most_half_of_the_time_is_measured() -> None:
    turns, now, measured = Turns(), 0.0, 0.0
    while now < 3600:
        if not turns.take("web2", now):
            turns.end(now + 40)
            now, measured = now + 40, measured + 40
        now += 0.5
    assert measured <= 3600 / 2 + 40


@asynchronous
async def test_without_an_association_that_is_up_nothing_is_measured(iperf: FakeIperf) -> None:
    async with other(ELSEWHERE) as web2:
        with pytest.raises(Refused, match=r"no association with 127\.0\.0\.1 that is up"):
            async with web2.asked():
                pass
    assert not web2.told


@asynchronous
async def test_where_it_is_not_allowed_nobody_listens() -> None:
    async with other() as web2:
        web2.allow(False)
        await asyncio.sleep(0)  # its socket closes in its own turn
        with pytest.raises(Refused, match=r"bench: \{allow: true\}"):
            async with web2.asked():
                pass


@asynchronous
async def test_only_root_may_ask() -> None:
    async with other() as web2:
        reader, writer = await asyncio.open_connection(THERE, web2.port, local_addr=(HERE, 0))
        assert b"only root may ask" in await reader.readline()
        writer.close()


@pytest.mark.parametrize(
    "said",
    [
        b"\n",
        b"GET / HTTP/1.1\r\n",
        b"x" * 100_000,
        b'{"port": 22, "seconds": 5, "streams": 1, "send": true}\n',
        b'{"port": 5201, "seconds": 3600, "streams": 1, "send": true}\n',
        b'{"port": 5201, "seconds": 5, "streams": 100, "send": true}\n',
        b'{"port": 5201, "seconds": 5, "streams": 1, "send": "--client 203.0.113.9"}\n',
    ],
)
def test_what_makes_no_sense_ends_the_session_and_starts_nothing(iperf: FakeIperf, said: bytes) -> None:
    @asynchronous
    async def run() -> None:
        async with other() as web2:
            reader, writer = await asyncio.open_connection(THERE, web2.port, local_addr=(HERE, 1000))
            assert b'"mtu":65536' in await reader.readline()
            writer.write(said)
            assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()

    run()
    assert iperf.ran("client") == []


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("garbage", "iperf3 did not report: no JSON at all"),
        ("error", "iperf3: the server is busy"),
        ("flood", "iperf3 did not report"),
        ("stranger", "203.0.113.9 connected to iperf3 in place of 127.0.0.2"),
    ],
)
def test_what_goes_wrong_is_said_and_nothing_left(iperf: FakeIperf, mode: str, words: str) -> None:
    iperf.mode = mode

    @asynchronous
    async def run() -> None:
        async with other() as web2, web2.asked() as session:
            with pytest.raises(Failed, match=words):
                await session.transfer(ask(), lambda rate: None)
        await until_none_runs(iperf)

    run()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "closed the connection"),
        (b"\n", "another language"),
        (b"x" * 200_000, "another language"),
        (b'{"mtu": -1}\n', "another language"),
        (b'{"mtu": 1500, "before": 1e300}\n', "another language"),
        (b'{"mtu": 1500, "speed": 0}\n', "another language"),
        (b'{"refused": "%s"}\n' % (b"x" * 501), "another language"),
    ],
)
def test_what_the_other_end_says_is_not_believed(said: bytes, words: str) -> None:
    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    @asynchronous
    async def run() -> None:
        web2 = Other()
        async with await asyncio.start_server(tell, THERE, web2.port):
            with pytest.raises(Refused, match=words):
                async with web2.asked():
                    pass

    run()


@asynchronous
async def test_a_port_that_is_taken_here_is_said() -> None:
    async with other() as web2, web2.asked() as session:
        wanted = ask()
        taken = await asyncio.start_server(lambda reader, writer: None, HERE, wanted.port)
        with pytest.raises(Failed, match=f"does not listen at 127.0.0.1 port {wanted.port}.*in use"):
            await session.transfer(wanted, lambda rate: None)
        taken.close()


@asynchronous
async def test_a_fault_of_ours_is_told_and_the_next_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [ValueError("a mistake")]

    def faulty(addresses: AddressPair) -> Device:
        if faults:
            raise faults.pop()
        return Device(1500, None)

    monkeypatch.setattr("swanmesh.throughput.offering.device", faulty)
    monkeypatch.setattr("swanmesh.throughput.offering._PAUSE", 0.0)
    async with other() as web2:
        with pytest.raises(Refused, match="closed the connection"):
            async with web2.asked():
                pass
        fault = {"error": "ValueError('a mistake')"}
        assert web2.told[1:] == [("a fault of swanmesh; please report it", fault)]
        async with asyncio.timeout(10):
            while not await _welcome(web2):
                pass


async def _welcome(web2: Other) -> bool:
    try:
        async with web2.asked():
            return True
    except Refused as refused:
        assert "pauses as long" in str(refused)
        return False


@asynchronous
async def test_a_kernel_that_cannot_require_esp_yet_is_asked_again() -> None:
    """Where nothing has loaded xfrm_user so far, it answers EINVAL."""
    refusals = [OSError(errno.EINVAL, "Invalid argument")]

    def protect(sock: socket.socket) -> None:
        if refusals:
            raise refusals.pop()

    web2 = Other(protect=protect)
    web2.allow()
    assert web2.offering.problem.endswith(f"{THERE} port {web2.port}: Invalid argument")
    web2.allow()
    assert web2.offering.problem == ""
    async with web2.asked():
        pass
    await web2.offering.close()


@asynchronous
async def test_a_host_that_cannot_take_part_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    async with other() as web2:
        assert web2.offering.problem == "bench.allow: iperf3 is not installed: apt-get install iperf3"
