"""The two charons that the cases run against."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.charon import real
from tests.charon.fake import FakeCharon, Fault
from tests.charon.helpers import Server
from tests.charon.real import RealCharon


class FakeServer:
    def __init__(self, path: Path) -> None:
        self.socket = path
        self.fake = FakeCharon(path)

    async def up(self) -> None:
        await self.fake.start()

    async def die(self) -> None:
        await self.fake.stop()

    async def hang(self) -> None:
        self.fake.fault = Fault.HANG


class RealServer:
    def __init__(self, directory: Path) -> None:
        self.charon = RealCharon(directory)
        self.socket = self.charon.socket

    async def up(self) -> None:
        self.charon.start()
        await self.charon.answering()

    async def die(self) -> None:
        self.charon.end(signal.SIGKILL)

    async def hang(self) -> None:
        self.charon.stop()


def _require_charon() -> None:
    if not real.available():
        pytest.skip(f"needs root, iproute2 and {real.CHARON}")


@pytest.fixture(scope="session")
def clean_machine() -> None:
    """Nothing left of an earlier run that crashed."""
    _require_charon()
    real.remove_leftovers()


@pytest.fixture(params=["fake", "real"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A charon of each kind, not yet up. The real one's log is shown if the test fails."""
    if request.param == "fake":
        yield FakeServer(tmp_path / "charon.vici")
        return
    request.getfixturevalue("clean_machine")
    running = RealServer(tmp_path)
    try:
        yield running
    finally:
        running.charon.remove()
        print(running.charon.said())


@pytest.fixture
def fake(tmp_path: Path) -> FakeServer:
    return FakeServer(tmp_path / "charon.vici")


@pytest.fixture
def pair(tmp_path: Path, clean_machine: None) -> Iterator[tuple[RealServer, RealServer]]:
    """Two real charons with a cable between 192.0.2.1 and 192.0.2.2."""
    servers = (RealServer(tmp_path / "a"), RealServer(tmp_path / "b"))
    try:
        real.join(servers[0].charon, servers[1].charon, ("192.0.2.1", "192.0.2.2"))
        yield servers
    finally:
        for running in servers:
            running.charon.remove()
            print(running.charon.said())
