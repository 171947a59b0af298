"""What two real charons make of revocation lists: fresh, past their date, older, and too large."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

import pytest
from cryptography import x509

from swanmesh.charon.client import Charon
from swanmesh.charon.errors import CommandFailed
from swanmesh.core.credentials.revocation import LARGEST
from swanmesh.core.observed import Diagnosis, Event, IkeUp
from swanmesh.pki.seen import Voucher
from tests.charon import real
from tests.charon.certificates import Authority
from tests.charon.conftest import RealServer
from tests.charon.helpers import asynchronous, client, connected, connection

MESH = Authority()
NAMES = ("a.mesh.example", "b.mesh.example")
PEER = MESH.issue(NAMES[1])
FRESH, STALE = MESH.revocation_list(number=5), MESH.revocation_list(number=5, stale=True)
REVOKED = MESH.revocation_list(PEER[0], number=6)
STALE_REVOKED = MESH.revocation_list(PEER[0], number=6, stale=True)
OLDER = MESH.revocation_list(number=4)
GOOD, REVOKED_CODE, REFUSED = "up", "certificate-revoked", "authentication-failed-here"


@contextlib.asynccontextmanager
async def initiated(
    pair: tuple[RealServer, RealServer], *lists: bytes, revocation: str
) -> AsyncIterator[Charon]:
    """The first holds the lists, and begins."""
    async with connected(pair[0]) as one, connected(pair[1]) as two:
        await one.load_credentials(*MESH.issue(NAMES[0]), [MESH.der])
        await two.load_credentials(*PEER, [MESH.der])
        await one.load_revocation_lists(lists)
        here = connection("one", authority=MESH.der, revocation=revocation)
        await real.load(pair[0].charon, one, here)
        there = connection(
            *("two",), local="192.0.2.2", remote="192.0.2.1", identities=NAMES[::-1], authority=MESH.der
        )
        await two.load_connections([there])
        await one.initiate("one", "one-child")
        yield one


async def outcome(charon: Charon) -> str:
    while True:
        event: Event | object = await charon.events.get()
        if isinstance(event, IkeUp):
            return GOOD
        if isinstance(event, Diagnosis):
            return event.cause.code


@pytest.mark.parametrize(
    ("lists", "warn", "refuse"),
    [
        ([], GOOD, GOOD),
        ([FRESH], GOOD, GOOD),
        ([REVOKED], REVOKED_CODE, REVOKED_CODE),
        ([STALE], GOOD, REFUSED),
        ([STALE_REVOKED], REVOKED_CODE, REVOKED_CODE),
        ([REVOKED, OLDER], REVOKED_CODE, REVOKED_CODE),
        ([STALE, FRESH], GOOD, REFUSED),
    ],
    ids=["none", "fresh", "revoked", "stale", "stale-and-revoked", "older-after", "same-number"],
)
@pytest.mark.parametrize("revocation", ["", "ifuri"])
@asynchronous
async def test_what_is_believed(
    pair: tuple[RealServer, RealServer], lists: list[bytes], warn: str, refuse: str, revocation: str
) -> None:
    async with initiated(pair, *lists, revocation=revocation) as charon:
        assert await outcome(charon) == (refuse if revocation else warn)


@asynchronous
async def test_what_it_holds_and_has_seen_is_told(pair: tuple[RealServer, RealServer]) -> None:
    async with initiated(pair, FRESH, revocation="") as charon:
        assert await outcome(charon) == GOOD
        async with client(pair[0]) as _:
            pass
        voucher = Charon(pair[0].socket, read=Voucher(lambda: (MESH.der,)))
        await voucher.connect()
        held = await voucher.observe_credentials()
        (seen,) = await voucher.certificates_of(NAMES[1])
        await voucher.close()
        assert len(held.revocation_lists) == 1
        assert seen.serial == x509.load_der_x509_certificate(PEER[0]).serial_number


@asynchronous
async def test_a_newer_one_counts_at_once_though_charon_remembers_the_older(
    pair: tuple[RealServer, RealServer],
) -> None:
    async with initiated(pair, FRESH, revocation="") as charon:
        assert await outcome(charon) == GOOD
        await charon.load_revocation_lists([REVOKED])
        for sa in await charon.observe_sas():
            await charon.terminate_ike(sa.unique_id, force=True)
        await charon.initiate("one", "one-child")
        while (code := await outcome(charon)) != REVOKED_CODE:
            assert code != GOOD  # in a kernel without ESP the one before has failures of its own


@asynchronous
async def test_a_new_certificate_is_shown_at_once_though_charon_remembers_the_older(
    pair: tuple[RealServer, RealServer],
) -> None:
    new = MESH.issue(NAMES[1])
    async with initiated(pair, revocation="") as charon, client(pair[1]) as other:
        assert await outcome(charon) == GOOD
        await other.load_credentials(*new, [MESH.der])
        await charon.load_revocation_lists([REVOKED])  # the older is on it
        for sa in await charon.observe_sas():
            await charon.terminate_ike(sa.unique_id, force=True)
        await charon.initiate("one", "one-child")
        while (code := await outcome(charon)) != GOOD:
            assert code != REVOKED_CODE


@asynchronous
async def test_one_that_is_too_large_never_gets_there(pair: tuple[RealServer, RealServer]) -> None:
    async with connected(pair[0]) as charon:
        with pytest.raises(CommandFailed, match="too large"):
            await charon.load_revocation_lists([os.urandom(LARGEST + 600)])
