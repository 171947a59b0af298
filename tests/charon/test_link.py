"""The link that the service holds to charon: every outcome once, and back after every loss."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from swanmesh.charon.link import Back, Happened, Link, Lost, Observed, Report, Unreachable
from swanmesh.core import actions
from swanmesh.core.actions import Outcome
from swanmesh.core.observed import ChildUp, Hint, Holdings
from swanmesh.core.reasons import Reason
from tests.charon.conftest import FakeServer
from tests.charon.fake import Fault
from tests.charon.helpers import Server, asynchronous, connection

Kind = TypeVar("Kind")


class Reports:
    """What a link told, in order."""

    def __init__(self, socket: Path, timeout: float) -> None:
        self._queue: asyncio.Queue[Report] = asyncio.Queue()
        self.link = Link(socket, self._queue.put_nowait, timeout=timeout)

    async def next(self, kind: type[Kind]) -> Kind:
        """The next report, which must be of this kind. 6.0 hints at each connection that is unloaded."""
        report = await asyncio.wait_for(self._queue.get(), 10)
        while isinstance(report, Happened) and isinstance(report.event, Hint):
            report = await asyncio.wait_for(self._queue.get(), 10)
        assert isinstance(report, kind), report
        return report

    async def skip_to(self, kind: type[Kind]) -> Kind:
        """The next report of this kind; others before it are dropped."""
        async with asyncio.timeout(15):
            while not isinstance(report := await self._queue.get(), kind):
                pass
        return report


@contextlib.asynccontextmanager
async def _linked(server: Server, *, timeout: float = 5.0) -> AsyncIterator[Reports]:
    reports = Reports(server.socket, timeout)
    running = asyncio.create_task(reports.link.run())
    try:
        yield reports
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _load(name: str, *, good: bool = True) -> actions.LoadConnection:
    made = connection(name) if good else connection(name, ike_proposals=("no-such-algorithm",))
    return actions.LoadConnection(connection=made, reason=Reason("test", "new peer"))


def _unload(name: str) -> actions.UnloadConnection:
    return actions.UnloadConnection(name=name, peer="b.mesh.example", reason=Reason("test", "peer removed"))


@asynchronous
async def test_the_wait_for_charon_has_words_and_an_end(server: Server) -> None:
    async with _linked(server) as reports:
        assert "no socket" in (await reports.next(Unreachable)).reason
        await server.up()
        back = await reports.skip_to(Back)
        assert back.version
        assert back.holdings.connections == ()
        assert back.holdings.sas == ()


@asynchronous
async def test_each_action_has_one_outcome_in_its_order(server: Server) -> None:
    await server.up()
    submitted: list[actions.Action] = [
        _load("one"),
        _load("bad", good=False),
        _load("two"),
        _unload("one"),
        _unload("one"),
    ]
    async with _linked(server) as reports:
        await reports.next(Back)
        reports.link.submit(submitted)
        outcomes = [await reports.next(Outcome) for _ in submitted]
        assert [outcome.action for outcome in outcomes] == submitted
        assert [outcome.error is None for outcome in outcomes] == [True, False, True, True, False]
        assert "invalid value for: proposals" in (outcomes[1].error or "")
        reports.link.submit([actions.ObserveAll(reason=Reason("test", "a test"))])
        seen = (await reports.next(Observed)).what
        assert isinstance(seen, Holdings)
        assert [held.name for held in seen.connections] == ["two"]


@asynchronous
async def test_a_charon_that_dies_is_lost_once_and_comes_back_empty(server: Server) -> None:
    await server.up()
    async with _linked(server) as reports:
        await reports.next(Back)
        reports.link.submit([_load("one")])
        await reports.next(Outcome)
        await server.die()
        await reports.next(Lost)
        assert "nobody listens" in (await reports.next(Unreachable)).reason
        await server.up()
        assert (await reports.skip_to(Back)).holdings.connections == ()
        reports.link.submit([_load("one")])
        assert (await reports.next(Outcome)).error is None


@asynchronous
async def test_a_new_link_finds_what_an_earlier_one_left(server: Server) -> None:
    await server.up()
    async with _linked(server) as reports:
        await reports.next(Back)
        reports.link.submit([_load("one")])
        await reports.next(Outcome)
    async with _linked(server) as reports:
        back = await reports.next(Back)
        assert [held.name for held in back.holdings.connections] == ["one"]


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.HALF_FRAME, Fault.GARBAGE, Fault.TWICE, Fault.CLOSE])
@asynchronous
async def test_after_each_fault_the_link_is_back_and_finds_everything(fake: FakeServer, fault: Fault) -> None:
    await fake.up()
    async with _linked(fake, timeout=0.3) as reports:
        await reports.next(Back)
        reports.link.submit([_load("one")])
        await reports.next(Outcome)
        fake.fake.establish("one")
        await reports.skip_to(Happened)
        fake.fake.fault = fault
        reports.link.submit([_unload("nothing")])
        await reports.skip_to(Lost)
        back = await reports.skip_to(Back)
        assert [held.name for held in back.holdings.connections] == ["one"]
        assert [sa.works for sa in back.holdings.sas] == [True]


@asynchronous
async def test_events_are_passed_on(fake: FakeServer) -> None:
    await fake.up()
    async with _linked(fake) as reports:
        await reports.next(Back)
        unique_id = fake.fake.establish("one").unique_id
        await reports.next(Happened)
        event = (await reports.next(Happened)).event
        assert isinstance(event, ChildUp)
        assert event.ike.unique_id == unique_id


@asynchronous
async def test_loads_are_told_of_while_charon_still_works_on_the_rest(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ones can be initiated meanwhile, and charon need not wait for what follows from them."""
    await fake.up()
    answer, messages = fake.fake.answer, 0

    def hang_at_the_third(command: str, *rest: Any) -> Any:
        nonlocal messages
        if command == "load-conn":
            messages += 1
            if messages == 3:
                fake.fake.fault = Fault.HANG
        return answer(command, *rest)

    monkeypatch.setattr(fake.fake, "answer", hang_at_the_third)
    async with _linked(fake) as reports:
        await reports.next(Back)
        names = [f"c{index}" for index in range(500)]
        reports.link.submit([_load(name) for name in names])
        outcomes = [await reports.next(Outcome) for _ in range(400)]
        assert [outcome.action.pair for outcome in outcomes] == names[:400]
        assert {outcome.error for outcome in outcomes} == {None}
        await reports.skip_to(Lost)


@asynchronous
async def test_loads_of_one_name_come_one_after_the_other(server: Server) -> None:
    await server.up()
    async with _linked(server) as reports:
        await reports.next(Back)
        loads = [_load("one"), _load("two"), _load("one"), _load("three")]
        reports.link.submit(loads)
        assert [(await reports.next(Outcome)).action for _ in loads] == loads
