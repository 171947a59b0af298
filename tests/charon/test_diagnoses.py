"""Two real charons that cannot or can come together, and the words for it at each end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest

from swanmesh.charon.client import Charon
from swanmesh.charon.errors import CommandFailed
from swanmesh.core.connections import Connection
from swanmesh.core.observed import Diagnosis, Event, IkeDown, IkeMoved, IkeUp
from swanmesh.core.reasons import Reason
from swanmesh.core.settings.proposals import unsupported
from swanmesh.kernel.packet_filter import Filter
from tests.charon import real
from tests.charon.certificates import Authority
from tests.charon.conftest import RealServer
from tests.charon.helpers import asynchronous, connected, connection, next_event, wait_until

Pair = tuple[RealServer, RealServer]
MESH = Authority()
NAMES = ("a.mesh.example", "b.mesh.example")
ELSEWHERE = "192.0.2.66"


@dataclass
class End:
    """One of the two: what it is loaded with, and then what it says."""

    connection: Connection | None
    credentials: tuple[bytes, bytes]
    charon: Charon = field(init=False)

    async def cause(self) -> str:
        """The code of the last cause told within a moment of the first."""
        diagnosis = await next_event(self.charon, Diagnosis)
        with contextlib.suppress(TimeoutError):
            while True:
                diagnosis = await next_event(self.charon, Diagnosis, timeout=0.3)
        return diagnosis.cause.code

    async def next(self, kind: type[Event]) -> Event:
        return await next_event(self.charon, kind)


def _ends(
    *,
    authority: Authority = MESH,
    trusted: tuple[Authority, Authority] = (MESH, MESH),
    names: tuple[str, str] = NAMES,
    expired: bool = False,
    **terms: Any,
) -> tuple[End, End]:
    """Two ends that fit; `authority`, `names`, `expired` and `terms` make the second one not fit."""
    first = connection("one", authority=trusted[0].der)
    second = connection(
        "two",
        local="192.0.2.2",
        remote="192.0.2.1",
        identities=(names[1], names[0]),
        authority=trusted[1].der,
        **terms,
    )
    return (
        End(first, MESH.issue(NAMES[0])),
        End(second, authority.issue(names[1], expired=expired)),
    )


@contextlib.asynccontextmanager
async def _initiated(pair: Pair, ends: tuple[End, End], *, together: bool = False) -> AsyncIterator[None]:
    """Both charons up and loaded, and the first has been told to initiate."""
    async with contextlib.AsyncExitStack() as stack:
        for server, end in zip(pair, ends, strict=True):
            end.charon = await stack.enter_async_context(connected(server))
            await end.charon.load_credentials(*end.credentials)
            if end.connection is not None:
                await real.load(server.charon, end.charon, end.connection, together=together)
        await ends[0].charon.initiate("one", "one-child")
        yield


@asynchronous
async def test_a_dead_address(pair: Pair) -> None:
    ends = _ends()
    ends[0].connection = connection("one", remote="192.0.2.77")
    async with _initiated(pair, ends):
        assert await ends[0].cause() == "peer-unreachable"

        async def given_up() -> bool:
            return await ends[0].charon.observe_sas() == ()

        await wait_until(given_up)


@asynchronous
async def test_no_common_proposal(pair: Pair) -> None:
    ends = _ends(ike_proposals=("aes256-sha512-ecp521",))
    async with _initiated(pair, ends):
        assert await ends[0].cause() == "no-connection-at-peer"


@asynchronous
async def test_a_key_exchange_that_charon_has_no_plugin_for(pair: Pair) -> None:
    async with connected(pair[0]) as charon:
        # Each release reads the name of one that no Debian package can do; neither reads the other's.
        word, name = ("newhope128", "NEWHOPE_128") if charon.version < "6" else ("mlkem768", "ML_KEM_768")
        proposals = (f"aes128gcm16-prfsha256-{word}",)
        loading = await charon.load_connections([connection("one", ike_proposals=proposals)])
        assert set(loading.values()) == {None}
        with pytest.raises(CommandFailed, match="failed"):
            await charon.initiate("one", "one-child")
        assert (await next_event(charon, Diagnosis)).cause.code == "unsupported-algorithm"
        assert charon.algorithms is not None
        assert unsupported(proposals[0], charon.algorithms, ike=True) == [name]


@asynchronous
async def test_no_connection_at_the_peer(pair: Pair) -> None:
    ends = _ends()
    ends[1].connection = None
    async with _initiated(pair, ends):
        assert await ends[0].cause() == "no-connection-at-peer"


@asynchronous
async def test_a_certificate_of_another_authority(pair: Pair) -> None:
    ends = _ends(authority=Authority("Other CA"))
    async with _initiated(pair, ends):
        assert await ends[0].cause() == "authority-unknown"
        assert await ends[1].cause() == "authentication-failed-at-peer"


@asynchronous
async def test_an_authority_that_the_responder_does_not_trust(pair: Pair) -> None:
    ends = _ends(trusted=(MESH, Authority("Other CA")))
    async with _initiated(pair, ends):
        assert await ends[0].cause() == "authentication-failed-at-peer"
        assert await ends[1].cause() == "authority-unknown"


@asynchronous
async def test_a_peer_of_another_name(pair: Pair) -> None:
    ends = _ends(names=(NAMES[0], "c.mesh.example"))
    async with _initiated(pair, ends):
        # charon asks for the identity by name, so the responder is the one that says no.
        assert await ends[0].cause() in {"authentication-failed-at-peer", "identity-mismatch"}


@asynchronous
async def test_an_expired_certificate(pair: Pair) -> None:
    ends = _ends(expired=True)
    async with _initiated(pair, ends):
        assert await ends[0].cause() == "certificate-dates"
        assert await ends[1].cause() == "authentication-failed-at-peer"


@asynchronous
async def test_no_key_of_our_own(pair: Pair) -> None:
    ends = _ends()
    ends[0].credentials = MESH.issue("elsewhere.mesh.example")
    async with _initiated(pair, ends):
        assert await ends[0].cause() == "missing-key"


@asynchronous
async def test_two_that_fit_come_up_and_the_peers_delete_is_told(pair: Pair) -> None:
    ends = _ends()
    async with _initiated(pair, ends):
        ups = await asyncio.gather(*(end.next(IkeUp) for end in ends))
        first, second = (up.ike for up in ups if isinstance(up, IkeUp))
        assert (first.initiator, second.initiator) == (True, False)
        assert (first.spi_initiator, first.spi_responder) == (second.spi_initiator, second.spi_responder)
        assert (first.local_id, first.remote_id) == NAMES
        assert first.algorithm == "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519"
        (held,) = await ends[0].charon.observe_sas()
        assert held.unique_id == first.unique_id
        await ends[1].charon.terminate_ike(second.unique_id)
        # charon queues its log: the line comes before or after the event.
        seen = [await ends[0].charon.events.get()]
        deleted = Diagnosis("one", first.unique_id, Reason("peer-deleted", "peer deleted it"))
        while deleted not in seen or not any(isinstance(event, IkeDown) for event in seen):
            seen.append(await ends[0].charon.events.get())
        down = next(event for event in seen if isinstance(event, IkeDown))
        assert down.ike.unique_id == first.unique_id
        assert "IKE_DELETE" in down.ike.tasks_passive


@asynchronous
async def test_a_kernel_that_refuses(pair: Pair) -> None:
    if real.has_esp(pair[1].charon.namespace):
        pytest.skip("this kernel has ESP")
    ends = _ends()
    async with _initiated(pair, ends, together=True):
        assert await ends[0].cause() in {"no-proposal", "peer-refused"}  # 5.9.8, 6.0
        assert await ends[1].cause() == "kernel-refused"


@pytest.mark.parametrize("reauth", [False, True])
@asynchronous
async def test_a_rekeyed_ike_sa_has_a_new_id(pair: Pair, reauth: bool) -> None:
    ends = _ends()
    async with _initiated(pair, ends):
        up = await ends[0].next(IkeUp)
        assert isinstance(up, IkeUp)
        held = await ends[0].charon.observe_sas()
        if reauth and not any(sa.children for sa in held):
            pytest.skip("no ESP in this kernel: charon reauthenticates no IKE_SA without a CHILD_SA")
        await ends[0].charon.rekey_ike(up.ike.unique_id, reauth=reauth)

        async def renewed() -> bool:
            new = [sa.unique_id for sa in await ends[0].charon.observe_sas() if sa.established]
            return len(new) == 1 and new[0] > up.ike.unique_id

        await wait_until(renewed)


@asynchronous
async def test_a_peer_that_claims_nat_moves_to_any_address_it_speaks_from(pair: Pair) -> None:
    ends = _ends(encap=True)
    async with _initiated(pair, ends):
        ups = await asyncio.gather(*(end.next(IkeUp) for end in ends))
        stood, peers = (up.ike for up in ups if isinstance(up, IkeUp))
        assert (stood.nat_remote, peers.nat_remote) == (True, False)
        assert stood.remote_host == "192.0.2.2"
        await _speak_from_elsewhere(pair[1], ends[1], peers.unique_id)
        moved = await ends[0].next(IkeMoved)
        assert isinstance(moved, IkeMoved)
        assert (moved.ike.unique_id, moved.ike.remote_host) == (stood.unique_id, ELSEWHERE)

        async def followed() -> bool:
            return all(sa.remote_host == ELSEWHERE for sa in await ends[0].charon.observe_sas())

        await wait_until(followed)


async def _speak_from_elsewhere(server: RealServer, end: End, unique_id: int) -> None:
    """Its next request, and whatever follows, comes from another address."""
    real.ip("-n", server.charon.namespace, "address", "add", f"{ELSEWHERE}/24", "dev", "v0")
    real.translate(server.charon.namespace, "192.0.2.1", ELSEWHERE)
    await end.charon.rekey_ike(unique_id)


@asynchronous
async def test_a_peer_that_claims_nat_stays_out_where_udp_4500_is_kept_out(pair: Pair) -> None:
    ends = _ends(encap=True)
    real.put_filter(pair[0].charon.namespace, Filter(frozenset({ip_address("192.0.2.2")})))
    async with _initiated(pair, ends):
        assert await ends[0].cause() == "peer-unreachable"
        assert not any(sa.established for sa in await ends[0].charon.observe_sas())


@asynchronous
async def test_one_that_may_use_udp_4500_takes_no_address_that_is_another_peers(pair: Pair) -> None:
    ends = _ends(encap=True)
    its, others = ip_address("192.0.2.2"), ip_address(ELSEWHERE)
    real.put_filter(pair[0].charon.namespace, Filter(frozenset({its, others}), frozenset({its})))
    async with _initiated(pair, ends):
        ups = await asyncio.gather(*(end.next(IkeUp) for end in ends))
        stood, peers = (up.ike for up in ups if isinstance(up, IkeUp))
        await _speak_from_elsewhere(pair[1], ends[1], peers.unique_id)
        await ends[1].next(IkeDown)  # what it sent was not answered
        (held,) = await ends[0].charon.observe_sas()
        assert (held.unique_id, held.remote_host) == (stood.unique_id, "192.0.2.2")
