"""`swanmesh disable` and `enable` between real files, the real service and a charon of ours."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.charon.fake import Fault
from tests.charon.helpers import asynchronous
from tests.service.commanding import swanmesh
from tests.service.running import Place, all_up, asked, service, status, until

PEERS = ["web2.mesh.example", "web3.mesh.example"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    for number in (2, 3):
        place.write_peer(f"web{number}.mesh.example", f"192.0.2.{number}")
    return place


def nothing_left(place: Place) -> bool:
    return not place.charon.connections and not place.charon.sas


@asynchronous
async def test_all_goes_at_once_and_comes_back(place: Place) -> None:
    await place.charon.start()
    files = {path: path.read_bytes() for path in (place.config, *place.peers.iterdir())}
    async with service(place) as daemon:
        await all_up(place, daemon)
        ended = await swanmesh(place, "disable", "--yes")
        assert (ended.status, ended.err) == (0, "")
        assert "2 peers (web2.mesh.example, web3.mesh.example)" in ended.out
        assert nothing_left(place)
        shown = await swanmesh(place, "status")
        assert re.search(r"DISABLED for \w+: everything is in clear until `swanmesh enable`", shown.out)
        assert (await swanmesh(place, "status", "--check")).out.startswith("NOT OK: DISABLED")
        assert (await asked(place.client.plan)).actions == []
        assert (await swanmesh(place, "disable", "--json")).json["changed"] is False
        back = await swanmesh(place, "enable", "--yes")
        assert (back.status, back.err) == (0, "")
        assert "enabled: 2 of 2 peers up" in back.out
        assert [p.state for p in (await status(place)).peers] == ["up", "up"]
        assert (await swanmesh(place, "status", "--check")).status == 0
        assert "enabled already" in (await swanmesh(place, "enable")).out
    assert {path: path.read_bytes() for path in files} == files
    await place.charon.stop()


@asynchronous
async def test_it_is_remembered_over_restarts_of_service_and_charon(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        await swanmesh(place, "disable", "--yes")
        loads = place.loads()
        await place.charon.stop()
        place.charon.forget_everything()
        await place.charon.start()
        await until(daemon, lambda: daemon.mesh.state.charon.reachable)
        assert nothing_left(place)
    async with service(place) as daemon:
        await until(daemon, lambda: daemon.mesh.state.charon.reachable)
        assert [p.reason_code for p in (await status(place)).peers] == ["disabled", "disabled"]
        place.write_peer("web4.mesh.example", "192.0.2.4")
        await until(daemon, lambda: len(daemon.mesh.state.registry.peers) == 3)
        assert nothing_left(place)
        assert place.loads() == loads
    await place.charon.stop()


@asynchronous
async def test_it_is_done_without_a_service_too(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
    assert not nothing_left(place)
    ended = await swanmesh(place, "disable", "--yes")
    assert ended.status == 0 and "without the service" in ended.err
    assert nothing_left(place)
    async with service(place) as daemon:
        await until(daemon, lambda: daemon.mesh.state.charon.reachable)
        assert nothing_left(place)
    assert (await swanmesh(place, "enable", "--yes")).status == 3
    async with service(place) as daemon:
        await all_up(place, daemon)
    await place.charon.stop()


@asynchronous
async def test_it_is_done_while_the_configuration_is_broken(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        good = place.config.read_text()
        place.config.write_text(good + "policy: perhaps\n")
        await until(daemon, lambda: bool(daemon.sources.problems))
        assert (await swanmesh(place, "disable", "--yes")).status == 0
        assert nothing_left(place)
        place.config.write_text(good)
    await place.charon.stop()


@asynchronous
async def test_where_charon_hangs_it_is_done_as_soon_as_that_is_over(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        place.charon.fault = Fault.HANG
        assert (await swanmesh(place, "disable", "--yes")).status == 0
        assert nothing_left(place)
    await place.charon.stop()


@asynchronous
async def test_where_charon_is_gone_it_is_said_what_is_not_done_yet(place: Place) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        await place.charon.stop()
        ended = await swanmesh(place, "disable", "--yes")
        assert ended.status == 1
        assert [line.split(": ")[1] for line in ended.err.splitlines()] == PEERS
        await place.charon.start()
        await until(daemon, lambda: nothing_left(place), 30)
    await place.charon.stop()


@pytest.mark.parametrize(("answer", "done"), [(b"n\n", False), (b"y\n", True)])
@asynchronous
async def test_at_a_terminal_it_asks(place: Place, answer: bytes, done: bool) -> None:
    await place.charon.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        assert await asked(lambda: _at_a_terminal(place, answer)) == (0 if done else 1)
        assert nothing_left(place) == done
    await place.charon.stop()


def _at_a_terminal(place: Place, answer: bytes) -> int:
    """Exit status of `disable` at a terminal at which somebody answers so."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "swanmesh", "--config", str(place.config), "disable"]
    # A session of its own, with the terminal as the one that /dev/tty names.
    script = 'exec 3<>"$0"; exec "$@"'
    process = subprocess.Popen(
        ["/bin/sh", "-c", script, os.ttyname(theirs), *argv],
        stdin=theirs,
        stdout=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while not shown.rstrip().endswith(b"[y/N]"):
            shown += os.read(ours, 4096)
        assert b"web2.mesh.example, web3.mesh.example" in shown
        os.write(ours, answer)
        while os.read(ours, 4096):
            pass
    os.close(ours)
    return process.wait(30)
