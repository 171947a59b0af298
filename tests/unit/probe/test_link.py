"""The service that answers probes, on this machine's loopback: whom it answers, and what it believes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swanmesh.core.actions import Probe
from swanmesh.core.model import AddressPair
from swanmesh.core.pairs.data_path import Heard
from swanmesh.core.reasons import DATA_PATH
from swanmesh.probe import link
from swanmesh.probe.datagram import ANSWER, ASK, SIZE, Datagram, decode
from swanmesh.probe.link import ProbeLink, ProbeReport, ProbesHeard, ProbesReady

HERE, THERE = ip_address("127.0.0.1"), ip_address("127.0.0.2")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(autouse=True)
def no_ipsec(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes through ESP on a loopback."""
    monkeypatch.setattr(link, "_admit_esp_alone", lambda *_: None)


class End:
    """A service at one address, and what it told."""

    def __init__(self, address: str, port: int, *, members: tuple[str, ...]) -> None:
        self.address, self.port = ip_address(address), port
        self.members = {AddressPair(self.address, ip_address(member)) for member in members}
        self.reports: list[ProbeReport] = []
        self.link = ProbeLink(self.reports.append, self.members.__contains__)
        self.link.configure(port, [self.address])

    @property
    def heard(self) -> list[Heard]:
        return [one for report in self.reports if isinstance(report, ProbesHeard) for one in report.heard]

    def ask(self, address: str, *, echoes: int = 0, silence: int = 0) -> None:
        addresses = AddressPair(self.address, ip_address(address))
        reason, name = DATA_PATH, "a-connection"
        self.link.submit(
            [Probe(connection=name, addresses=addresses, echoes=echoes, silence=silence, reason=reason)]
        )


@contextlib.asynccontextmanager
async def running(*ends: End) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(end.link.run()) for end in ends]
    try:
        await until(lambda: all(end.reports for end in ends))
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    """Looked at after each turn of the loop that something brings about."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - sockets tell the service, not us
            await asyncio.sleep(0.01)


def test_a_question_is_answered_and_both_ends_know() -> None:
    async def case() -> None:
        port = free_port()
        one = End("127.0.0.1", port, members=("127.0.0.2",))
        other = End("127.0.0.2", port, members=("127.0.0.1",))
        async with running(one, other):
            one.ask("127.0.0.2", silence=7)
            await until(lambda: one.heard and other.heard)
        assert one.heard == [Heard(AddressPair(HERE, THERE), "answer")]
        assert other.heard == [Heard(AddressPair(THERE, HERE), "ask", silence=7)]

    asyncio.run(case())


def test_the_kernel_answers_for_a_service_that_is_not_there() -> None:
    async def case() -> None:
        one = End("127.0.0.1", free_port(), members=("127.0.0.2",))
        async with running(one):
            one.ask("127.0.0.2", echoes=2)
            await until(lambda: one.heard)
        assert set(one.heard) == {Heard(AddressPair(HERE, THERE), "echo")}

    asyncio.run(case())


class Stranger:
    """A plain socket that says what it likes to a service."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((address, 0))
        self.sock.setblocking(False)

    def answers(self) -> list[bytes]:
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.sock.recv(4096))
        return found


async def answers(asked: End, *questions: bytes, sender: str = "127.0.0.2") -> list[bytes]:
    """What comes back for these, sent to a service that is then asked once more by a member: when that has
    its answer, the others have theirs."""
    stranger = Stranger(sender)
    member = Stranger("127.0.0.3")
    with stranger.sock, member.sock:
        for question in questions:
            stranger.sock.sendto(question, (str(asked.address), asked.port))
        member.sock.sendto(Datagram(ASK, b"lastlast").encode(), (str(asked.address), asked.port))
        await until(member.answers)
        return stranger.answers()


def test_who_is_no_peer_with_an_association_gets_no_answer() -> None:
    async def case() -> None:
        one = End("127.0.0.1", free_port(), members=("127.0.0.3",))
        async with running(one):
            assert await answers(one, Datagram(ASK, bytes(8)).encode()) == []

    asyncio.run(case())


def test_an_answer_is_never_longer_than_the_question_and_there_are_only_so_many() -> None:
    async def case() -> None:
        one = End("127.0.0.1", free_port(), members=("127.0.0.2", "127.0.0.3"))
        async with running(one):
            (answer,) = await answers(one, Datagram(ASK, b"12345678").encode(1400))
            assert decode(answer) == Datagram(ANSWER, b"12345678") and len(answer) == SIZE
            many = [Datagram(ASK, bytes([n]) * 8).encode() for n in range(60)]
            assert len(await answers(one, *many)) <= 20

    asyncio.run(case())


def test_what_is_no_question_gets_no_answer_and_a_forged_answer_is_no_news() -> None:
    async def case() -> None:
        one = End("127.0.0.1", free_port(), members=("127.0.0.2", "127.0.0.3"))
        async with running(one):
            junk = [b"", b"x" * 8, bytes(64), b"swp1" + bytes(12), Datagram(ANSWER, bytes(8)).encode()]
            assert await answers(one, *junk) == []
            await until(lambda: one.heard)
        assert [heard.addresses.remote for heard in one.heard] == [ip_address("127.0.0.3")]

    asyncio.run(case())


def test_a_port_that_another_has_is_said_and_one_that_is_off_is_not() -> None:
    async def case() -> None:
        port = free_port()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", port))
            taken, off = End("127.0.0.1", port, members=()), End("127.0.0.1", 0, members=())
            async with running(taken, off):
                (told,) = taken.reports
                assert isinstance(told, ProbesReady) and not told.ready and str(port) in told.reason
                assert off.reports == [ProbesReady(False)]

    asyncio.run(case())


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_passed_over(data: bytes) -> None:
    found = decode(data)
    assert found is None or decode(found.encode()) == found


@given(st.sampled_from([ASK, ANSWER]), st.binary(min_size=8, max_size=8), st.integers(0, 10**9))
def test_what_is_written_is_read(kind: int, nonce: bytes, silence: int) -> None:
    assert decode(Datagram(kind, nonce, silence).encode(900)) == Datagram(kind, nonce, min(silence, 65535))
