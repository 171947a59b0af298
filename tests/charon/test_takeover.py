"""Which of its certificates charon shows while one authority takes over from another."""

from __future__ import annotations

import pytest

from swanmesh.charon.client import Charon
from swanmesh.pki.seen import Voucher
from tests.charon import real
from tests.charon.certificates import Authority
from tests.charon.conftest import RealServer
from tests.charon.helpers import asynchronous, connected, connection
from tests.charon.test_revocation import GOOD, NAMES, outcome

OLD, NEW = Authority("Old CA"), Authority("New CA")
BOTH = (OLD.der, NEW.der)


@pytest.mark.parametrize("dropped", [False, True], ids=["both-believed", "old-dropped"])
@asynchronous
async def test_the_new_certificate_is_shown_whatever_authority_the_peer_names_first(
    pair: tuple[RealServer, RealServer], dropped: bool
) -> None:
    """charon holds on to authorities that it was ever given, and asks for certificates of all of them."""
    async with connected(pair[0]) as one, connected(pair[1]):
        two = Charon(pair[1].socket, read=Voucher(lambda: BOTH))
        await two.connect()
        await one.load_credentials(*OLD.issue(NAMES[0]), BOTH)
        await two.load_credentials(*OLD.issue(NAMES[1]), BOTH, name=NAMES[1])
        newer = await two.load_credentials(*NEW.issue(NAMES[1]), BOTH, name=NAMES[1])
        assert (await two.observe_credentials()).key_ids == {newer}
        here = connection("one", authority=NEW.der if dropped else OLD.der)
        await real.load(pair[0].charon, one, here)
        there = connection(
            "two", local="192.0.2.2", remote="192.0.2.1", identities=NAMES[::-1], authority=OLD.der
        )
        await two.load_connections([there])
        await one.initiate("one", "one-child")
        assert await outcome(one) == (GOOD if dropped else "authority-unknown")
        await two.close()
