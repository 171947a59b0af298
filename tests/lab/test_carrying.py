"""Whether what stands carries packets: through rekeys, where ESP is dropped on the way, on a starved host."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import pytest

from lab import Mesh, mesh, wait_until
from lab.asking import Journal, view
from tests.lab.watching import all_spis

SHORT = {"child_rekey": "12s", "ike_rekey": "20s", "ike_reauth": "60s"}


@pytest.fixture(scope="module")
def lab() -> Iterator[Mesh]:
    with mesh(3, connection=SHORT, initiation={"resync": "5s"}) as lab:
        lab.start()
        yield lab


def test_rekeys_lose_nothing_and_nobody_is_called_down(lab: Mesh) -> None:
    """Nor is anything reauthenticated by the clock, which costs packets."""
    lab.wait_until_full()
    journals = [Journal(host) for host in lab]
    streams = [one.ping_stream(other.ipv4(), interval=0.02) for one, other in permutations(lab, 2)]

    def rekeyed() -> bool:
        """Each host's charon has replaced IKE_SAs, some of them several times."""
        return all(host.charon_log.read_text(errors="replace").count("rekeyed between") >= 6 for host in lab)

    wait_until(rekeyed, 300, "every host has rekeyed IKE_SAs several times", interval=1.0)
    assert [stream.stop().lost for stream in streams] == [0] * len(streams)
    assert [line for journal in journals for line in journal.lines("peer-down", "rekey")] == []


def test_esp_that_is_dropped_on_the_way_is_told(lab: Mesh) -> None:
    lab.wait_until_full()
    one, other = lab[0], lab[1]
    stream = one.ping_stream(other.ipv4(), interval=0.1)
    other.link.drop("esp", "in")
    try:
        wait_until(
            lambda: view(one, other).get("reason_code") == "no-data",
            240,
            "it is told that no data passes",
            interval=1.0,
        )
        assert view(one, other)["state"] == "down"
    finally:
        other.link.restore()
        stream.stop()
    one.ping(other, 3)
    wait_until(lambda: not view(one, other)["reason"], 120, "that is over", interval=1.0)


def test_a_starved_host_keeps_its_associations() -> None:
    with mesh(3) as lab:  # the last one here: it takes the place of the mesh that the others share
        lab.start()
        lab.wait_until_full()
        before, journals = all_spis(list(lab)), [Journal(host) for host in lab]
        streams = [one.ping_stream(other.ipv4(), interval=0.2) for one, other in permutations(lab, 2)]
        with lab[0].starved(0.1):
            # As long as it takes charon to ask for three signs of life, and to give up on one.
            lab[1].ping(lab[2], count=300, interval=0.1)
        assert all(stream.stop().received for stream in streams)
        assert all_spis(list(lab)) == before
        assert [line for journal in journals for line in journal.lines("peer-down")] == []
