"""Revocation lists on their way: from a file or a URL into force, over restarts, and past their date."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from swanmesh.pki.authority import DAY, Authority
from swanmesh.service.daemon import Daemon
from tests.charon.helpers import asynchronous
from tests.service.running import Listener, Place, all_up, asked, peer, service, status, until

PEERS = [f"web{number}.mesh.example" for number in range(2, 7)]


class Mesh(Place):
    """A host with peers whose certificates charon remembers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.authority = Authority.load(folder / "pki")
        self.shown: dict[str, x509.Certificate] = {}
        self.stood: dict[int, str] = {}
        """Connections by the unique ids of their IKE_SAs, at some moment."""
        for number, name in enumerate(PEERS, 2):
            self.write_peer(name, f"192.0.2.{number}")
            issued = self.authority.issue(name, [], now=time.time())
            self.shown[name] = x509.load_pem_x509_certificate(issued.certificate)
        self.list = folder / "pki" / "crl.pem"
        self.document["credentials"]["crls"] = ["pki/crl.pem"]  # type: ignore[index]
        self.revoke(number=1)
        self.write_config()

    async def start(self) -> None:
        """charon is up, and has seen every peer's certificate."""
        await self.charon.start()
        self.charon.remembered += [
            one.public_bytes(serialization.Encoding.DER) for one in self.shown.values()
        ]

    def asked_to_prove(self) -> set[str]:
        """Peers that charon was told to authenticate anew."""
        asked = {int(message["ike-id"]) for command, message in self.charon.requests if command == "rekey"}
        return {name for name in PEERS for each in asked if name in self.stood[each]}

    def signed(self, *names: str, number: int, lifetime: float = 30 * DAY) -> bytes:
        revoked = [
            x509.RevokedCertificateBuilder()
            .serial_number(self.shown[name].serial_number)
            .revocation_date(self.shown[name].not_valid_before_utc)
            .build()
            for name in names
        ]
        signed = self.authority.revocation_list(revoked, number=number, now=time.time(), lifetime=lifetime)
        return signed.public_bytes(serialization.Encoding.PEM)

    def revoke(self, *names: str, number: int, lifetime: float = 30 * DAY) -> None:
        """The authority's list comes to the file."""
        new = self.list.with_name("crl.new")
        new.write_bytes(self.signed(*names, number=number, lifetime=lifetime))
        new.replace(self.list)


@pytest.fixture
def place(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


async def known(daemon: Daemon) -> None:
    """Until it is known of every association what it stands on."""
    pairs = [pair for pair in daemon.mesh.state.pairs if pair.peer]
    await until(daemon, lambda: all(times.certain for p in pairs for times in p.associations.times.values()))


def _der(data: bytes) -> bytes:
    return x509.load_pem_x509_crl(data).public_bytes(serialization.Encoding.DER)


async def reason(place: Mesh, name: str) -> str:
    return peer(await status(place), name).reason_code


def spis(place: Mesh) -> dict[str, set[str]]:
    held: dict[str, set[str]] = {}
    for sa in place.charon.sas.values():
        held.setdefault(sa.connection, set()).update(child.spi_in for child in sa.children.values())
    return held


@asynchronous
async def test_a_list_ends_the_associations_of_who_is_on_it_and_no_others(place: Mesh) -> None:
    await place.start()
    async with service(place) as daemon:
        events = Listener(daemon)
        await all_up(place, daemon)
        await known(daemon)
        before = spis(place)
        place.revoke(PEERS[0], number=2)
        await until(daemon, lambda: "certificate-revoked" in events.kinds())
        await until(daemon, lambda: PEERS[0] not in daemon.mesh.state.up)
        assert set(daemon.mesh.state.up) == set(PEERS[1:])
        assert await reason(place, PEERS[0]) == "certificate-revoked"
        after = spis(place)
        assert all(after[name] == held for name, held in before.items() if PEERS[0] not in name)
        assert place.charon.lists and place.charon.lists[-1] == _der(place.list.read_bytes())
    await place.charon.stop()


@asynchronous
async def test_the_certificate_that_a_peer_has_shown_is_told(place: Mesh) -> None:
    await place.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        await known(daemon)
        serial = place.shown[PEERS[0]].serial_number
        told = peer(await asked(lambda: place.client.status([PEERS[0]])), PEERS[0])
        (one,) = told.certificates
        assert x509.load_der_x509_certificate(one.der).serial_number == serial
        assert one.certain and one.ike_ids == [each.ike_id for each in told.associations]
        assert [each.certificate for each in told.associations] == [f"{serial:x}"]
        place.revoke(PEERS[0], number=2)
        await until(daemon, lambda: PEERS[0] not in daemon.mesh.state.up)
        (one,) = peer(await asked(lambda: place.client.status([PEERS[0]])), PEERS[0]).certificates
        assert "says list 2" in one.revoked
    await place.charon.stop()


@asynchronous
async def test_the_newest_outlives_the_service_and_its_file(place: Mesh) -> None:
    place.revoke(PEERS[0], number=7)
    newest = _der(place.list.read_bytes())
    await place.start()
    async with service(place) as daemon:
        await until(daemon, lambda: newest in place.charon.lists)
    place.revoke(number=6)
    place.charon.forget_everything()
    async with service(place) as daemon:
        await until(daemon, lambda: bool(place.charon.lists))
        assert place.charon.lists == [newest]
        assert any("older than what is in force" in one for one in (await status(place)).problems)
    place.list.unlink()
    place.charon.forget_everything()
    async with service(place) as daemon:
        await until(daemon, lambda: bool(place.charon.lists))
        assert place.charon.lists == [newest]
    await place.charon.stop()


@asynchronous
async def test_what_would_end_many_is_held_over_a_restart_until_it_is_confirmed(place: Mesh) -> None:
    await place.start()
    async with service(place) as daemon:
        events = Listener(daemon)
        await all_up(place, daemon)
        await known(daemon)
        place.revoke(*PEERS[:4], number=2)
        await until(daemon, lambda: "revocation-held" in events.kinds())
        assert any("confirm revocation" in one for one in (await status(place)).problems)
        assert len(daemon.mesh.state.up) == len(PEERS)
    async with service(place) as daemon:
        await all_up(place, daemon)
        assert any("confirm revocation" in one for one in (await asked(place.client.held)).problems)
        assert len(place.charon.lists) == 1
        await asked(lambda: place.client.confirm("revocation"))
        await until(daemon, lambda: len(place.charon.lists) == 2)
    async with service(place) as daemon:
        assert (await asked(place.client.held)).problems == []
    await place.charon.stop()


@asynchronous
async def test_what_peers_have_shown_is_known_after_a_restart(place: Mesh) -> None:
    await place.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        await known(daemon)
    place.charon.remembered.clear()
    async with service(place) as daemon:
        await all_up(place, daemon)
        place.charon.requests.clear()
        place.stood = {sa.unique_id: sa.connection for sa in place.charon.sas.values()}
        place.revoke(*PEERS[:4], number=2)
        await until(daemon, lambda: bool(daemon.mesh.state.revocations.held))
        place.revoke(PEERS[0], number=3)
        rekeyed = place.asked_to_prove
        await until(daemon, lambda: bool(rekeyed()))
        # charon, which has the list, now refuses it.
        assert rekeyed() == {PEERS[0]}
    await place.charon.stop()


@asynchronous
async def test_a_list_past_its_date_is_said_and_ends_nobody(place: Mesh) -> None:
    place.revoke(number=2, lifetime=-60.0)
    await place.start()
    async with service(place) as daemon:
        await all_up(place, daemon)
        reply = await status(place)
        assert any("was to be replaced by" in one for one in reply.problems)
        (one,) = reply.revocation_lists
        assert (one.number, one.entries, one.held) == (2, 0, False) and one.expires < time.time()
        metrics = (await asked(place.client.metrics)).decode()
        assert f'swanmesh_crl_number{{authority="{one.authority}",held="no"}} 2.0' in metrics
    await place.charon.stop()


class Web:
    """A web server that says what it is told to."""

    def __init__(self) -> None:
        self.body: bytes | None = None
        self.asked: list[web.Request] = []
        self.statuses: list[int] = []
        self.url = ""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        if self.body is None:
            response: web.StreamResponse = web.Response(status=503)
        else:
            tag = f'"{hash(self.body)}"'
            same = request.headers.get("If-None-Match") == tag
            response = (
                web.Response(status=304) if same else web.Response(body=self.body, headers={"ETag": tag})
            )
        self.statuses.append(response.status)
        return response

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Web]:
        app = web.Application()
        app.router.add_get("/crl.pem", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/crl.pem"
        try:
            yield self
        finally:
            await runner.cleanup()


@asynchronous
async def test_a_url_is_asked_again_and_one_that_is_down_is_no_outage(place: Mesh) -> None:
    async with Web().serving() as site:
        place.document["credentials"] |= {"crls": [site.url], "crl_refresh": "1s"}  # type: ignore[operator]
        place.write_config()
        place.list.unlink()
        await place.start()
        async with service(place) as daemon:
            await all_up(place, daemon)
            await known(daemon)
            await until(daemon, lambda: 503 in site.statuses)
            await until(daemon, lambda: any("cannot be fetched" in one for one in daemon.problems()))
            site.body = place.signed(number=1)
            await until(daemon, lambda: bool(place.charon.lists))
            assert not any("cannot be fetched" in one for one in daemon.problems())
            await until(daemon, lambda: 304 in site.statuses)
            site.body = place.signed(PEERS[0], number=2)
            await until(daemon, lambda: PEERS[0] not in daemon.mesh.state.up)
            assert set(daemon.mesh.state.up) == set(PEERS[1:])
            site.body = None
            await until(daemon, lambda: any("cannot be fetched" in one for one in daemon.problems()))
            assert set(daemon.mesh.state.up) == set(PEERS[1:])
        await place.charon.stop()
