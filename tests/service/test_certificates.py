"""The service and its own certificate: renewed in time, taken up without a connection touched, told of."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from swanmesh.pki.authority import Authority
from tests.charon.helpers import asynchronous
from tests.service.running import NAME, Listener, Place, all_up, asked, service, status, until
from tests.unit.hooks.hooking import write_hook

DAY = 86400.0


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """With a certificate that has ten of its ninety days left."""
    place = Place(tmp_path)
    place.write_peer("web2.mesh.example", "192.0.2.2")
    authority = Authority.load(tmp_path / "pki")
    authority.issue(NAME, [], now=time.time() - 80 * DAY).write(tmp_path / "pki", replace=True)
    return place


def renews_by(place: Place, text: str) -> None:
    program = place.folder / "renew"
    write_hook(program, text)
    place.document["renewal"] = {"command": [str(program)]}
    place.write_config()


def signs(place: Place) -> str:
    sign = f"{sys.executable} -m swanmesh ca sign - --yes --replace --directory {place.folder}/pki"
    return f"cd {Path(__file__).parents[2]}; exec {sign}"


@asynchronous
async def test_it_is_renewed_and_taken_up_and_no_connection_is_touched(place: Place) -> None:
    renews_by(place, signs(place))
    await place.charon.start()
    async with service(place) as daemon:
        listener = Listener(daemon)
        old = daemon.sources.settings.credentials
        await all_up(place, daemon)
        held, loads = dict(place.charon.sas), place.loads()
        await until(daemon, lambda: "certificate-renewed" in listener.kinds(), 30)
        new = daemon.sources.settings.credentials
        assert new.not_after > old.not_after + 70 * DAY and new.key_id != old.key_id
        await until(daemon, lambda: new.key_id in place.charon.keys)
        assert (dict(place.charon.sas), place.loads()) == (held, loads)
        reply = await status(place)
        assert reply.problems == []
        assert reply.certificates[0].not_after == new.not_after
        assert reply.next_renewal is not None and reply.next_renewal > time.time() + 40 * DAY
    await place.charon.stop()


@asynchronous
async def test_what_fails_is_told_and_not_tried_again_by_a_restart(place: Place) -> None:
    renews_by(place, f"echo >> {place.folder}/runs; echo no route >&2; exit 4")
    for _ in range(3):
        async with service(place) as daemon:
            await until(daemon, lambda: daemon.certificates.failed > 0, 20)
            reply = await status(place)
            assert "its renewal failed once" in reply.problems[-1]
            assert "exit status 4: no route" in reply.problems[-1]
            assert reply.next_renewal is not None and reply.next_renewal > time.time()
    assert (place.folder / "runs").read_text() == "\n"


@asynchronous
async def test_without_a_program_it_is_told_once_that_it_is_due(place: Place) -> None:
    authority = Authority.load(place.folder / "pki")
    authority.issue(NAME, [], now=time.time() - 59.9 * DAY).write(place.folder / "pki", replace=True)
    (place.folder / "hooks.d").mkdir()
    told = place.folder / "told"
    write_hook(place.folder / "hooks.d/tell", f"echo $SWANMESH_EVENT >> {told}")
    async with service(place) as daemon:
        await until(daemon, lambda: told.exists() and "certificate-due" in told.read_text(), 20)
        assert "is due for renewal since" in (await status(place)).problems[-1]
        daemon.certificates.look()
    assert told.read_text().split().count("certificate-due") == 1


@asynchronous
async def test_an_end_that_comes_near_is_told_once_over_restarts(place: Place) -> None:
    (place.folder / "hooks.d").mkdir()
    told = place.folder / "told"
    write_hook(place.folder / "hooks.d/tell", f"echo $SWANMESH_EVENT >> {told}")
    for _ in range(2):
        async with service(place) as daemon:
            await until(daemon, lambda: told.exists() and "started" in told.read_text(), 20)
            daemon.certificates.look()
    assert told.read_text().split().count("certificate-expiring") == 1


@asynchronous
async def test_renewed_by_hand(place: Place) -> None:
    """Through the service: at once, and then not without being asked for."""
    renews_by(place, f"test -e {place.folder}/open || {{ echo closed >&2; exit 1; }}; {signs(place)}")
    async with service(place) as daemon:
        await until(daemon, lambda: daemon.certificates.failed == 1, 20)
        failed = await asked(lambda: place.client.renew(now=True, wait=20))
        assert (failed.outcome, failed.why.rpartition(": ")[2]) == ("failed", "closed")
        (place.folder / "open").touch()
        assert (await asked(lambda: place.client.renew(now=True, wait=20))).outcome == "renewed"
        assert (await asked(lambda: place.client.renew(now=False, wait=20))).outcome == "not-due"
        assert (await status(place)).problems == []


@asynchronous
async def test_a_renewal_that_runs_when_the_service_stops_is_ended(place: Place) -> None:
    renews_by(place, f"echo $$ > {place.folder}/pid; exec sleep 600")
    async with service(place) as daemon:
        pid = place.folder / "pid"
        await until(daemon, lambda: pid.exists() and bool(pid.read_text()), 20)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def issue(place: Place, *, days_ago: float) -> None:
    """A certificate of ninety days that was issued then."""
    authority = Authority.load(place.folder / "pki")
    authority.issue(NAME, [], now=time.time() - days_ago * DAY).write(place.folder / "pki", replace=True)


@asynchronous
async def test_a_host_that_comes_back_after_its_certificates_end_says_so_and_renews(place: Place) -> None:
    issue(place, days_ago=100)
    renews_by(place, f"test -e {place.folder}/open || exit 1; {signs(place)}")
    async with service(place) as daemon:
        await until(daemon, lambda: daemon.certificates.failed > 0, 20)
        assert "has ended on" in "".join((await status(place)).problems)
        (place.folder / "open").touch()
        assert (await asked(lambda: place.client.renew(now=False, wait=20))).outcome == "renewed"
        assert (await status(place)).problems == []


@asynchronous
@pytest.mark.parametrize("days_ago", [100, -1], ids=["ended", "not-begun"])
async def test_a_certificate_that_does_not_hold_never_takes_the_place_of_one_that_does(
    place: Place, days_ago: float
) -> None:
    issue(place, days_ago=1)
    async with service(place) as daemon:
        held = daemon.sources.settings.credentials
        issue(place, days_ago=days_ago)
        await asked(place.client.reload)
        assert daemon.sources.settings.credentials == held
        assert "expired on" in str((await status(place)).problems) or days_ago < 0
        issue(place, days_ago=0)
        await asked(place.client.reload)
        assert daemon.sources.settings.credentials.not_after > held.not_after
        assert (await status(place)).problems == []
