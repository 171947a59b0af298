"""`swanmesh purge`: what is ours goes, what is anybody else's stays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from swanmesh.charon.client import Charon
from swanmesh.cli.main import main
from tests.charon.fake import Threaded
from tests.charon.helpers import asynchronous, connection
from tests.service.running import Place, all_up, asked, service

OURS, OTHERS = "swanmesh-b.mesh.example-0123abcd", "swanmesh-of-somebody-else"
"""The second only looks like ours."""
CHILD = "esp-0123456789abcdef"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def charon(place: Place) -> Iterator[Threaded]:
    with Threaded(place.charon.path) as charon:
        yield charon


def _hold(place: Place, charon: Threaded) -> None:
    """A connection of ours with two associations, and one of somebody else's with one."""

    async def load() -> None:
        client = Charon(place.charon.path)
        await client.connect()
        ours = replace(connection(OURS), child=CHILD)
        await client.load_connections([ours, connection(OTHERS)])
        await client.close()

    asyncio.run(load())
    for name in (OURS, OURS, OTHERS):
        charon.call(lambda fake, name=name: fake.establish(name))  # type: ignore[misc]
    charon.call(lambda fake: fake.certificates.append(b"\x30somebody's"))


def _purge(place: Place, *more: str) -> int:
    return main(["--config", str(place.config), "purge", *more])


def test_what_is_ours_goes_and_what_is_not_stays(
    place: Place, charon: Threaded, capsys: pytest.CaptureFixture[str]
) -> None:
    _hold(place, charon)
    assert _purge(place) == 0
    assert capsys.readouterr().out == "unloaded 1 connection, ended 2 IKE_SAs\n"
    assert charon.call(lambda fake: list(fake.connections)) == [OTHERS]
    assert charon.call(lambda fake: [sa.connection for sa in fake.sas.values()]) == [OTHERS]
    assert charon.call(lambda fake: len(fake.certificates)) == 1
    # Ended first, a trap would have brought it up again.
    changing = charon.call(lambda fake: [command for command, _ in fake.requests])
    assert changing.index("unload-conn") < changing.index("terminate")


def test_a_peer_that_does_not_answer_holds_it_up_for_a_while(place: Place, charon: Threaded) -> None:
    _hold(place, charon)
    charon.call(lambda fake: setattr(fake, "peers_answer", False))
    assert _purge(place) == 0
    assert charon.call(lambda fake: [sa.connection for sa in fake.sas.values()]) == [OTHERS]


def test_with_nothing_of_ours_there_is_nothing_to_do(
    place: Place, charon: Threaded, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _purge(place, "--json") == 0
    assert '"connections": []' in capsys.readouterr().out


def test_without_charon_it_says_so(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert _purge(place) == 1
    assert "charon is not running" in capsys.readouterr().err


@asynchronous
async def test_not_while_the_service_runs(place: Place) -> None:
    """It would load everything again."""
    place.write_peer("web2.mesh.example", "192.0.2.2")
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        held = dict(place.charon.connections)
        assert await asked(lambda: _purge(place)) == 1
        assert place.charon.connections == held
    assert await asked(lambda: _purge(place)) == 0
    assert not any(name.startswith("swanmesh-web2") for name in place.charon.connections)
    assert place.charon.sas == {}
    await place.charon.stop()
