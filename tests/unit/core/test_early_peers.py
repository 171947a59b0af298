"""A peer that was refused while no file knew it is not waited for once one does."""

from __future__ import annotations

import ipaddress

from swanmesh.core.mesh import Mesh
from swanmesh.core.model import AddressPair
from swanmesh.core.observed import InitiationRefused
from swanmesh.core.peers.description import parse_peer
from swanmesh.core.peers.early import EarlyPeers
from swanmesh.core.verdict import EMPTY
from tests.unit.core.build import settings

OWN, ITS = "192.0.2.1", "192.0.2.2"
PAIR = AddressPair(ipaddress.ip_address(OWN), ipaddress.ip_address(ITS))


def next_attempt(refused: bool, name: str) -> float:
    mesh = Mesh(settings("web1.mesh.example", OWN), seed=1)
    mesh.charon_back("5.9.8", EMPTY, 0.0)
    if refused:
        mesh.event(InitiationRefused(OWN, ITS), 1.0)
    mesh.update_peers([parse_peer(name, [ITS], source="a.yaml")], (), 2.0)
    (pair,) = mesh.state.pairs.of(name)
    return pair.attempt.next_at - 2.0


def test_the_end_that_would_wait_initiates_at_once_to_a_peer_that_was_refused() -> None:
    names = [f"h{number}.mesh.example" for number in range(16)]
    waiting = [name for name in names if next_attempt(False, name) >= 4.0]
    assert waiting
    assert all(next_attempt(True, name) <= 0.5 for name in waiting)


def test_each_refusal_is_answered_once_and_not_after_a_long_time() -> None:
    early = EarlyPeers()
    early.note(OWN, ITS, 0.0)
    assert early.take(PAIR, 1.0)
    assert not early.take(PAIR, 1.0)
    early.note(OWN, ITS, 2.0)
    assert not early.take(PAIR, 3600.0)


def test_a_flood_of_initiations_from_everywhere_is_bounded() -> None:
    early = EarlyPeers()
    for number in range(10_000):
        early.note(OWN, f"198.51.100.{number}", 0.0)
    early.note(OWN, ITS, 0.0)
    assert len(early._at) <= 4096
    assert early.take(PAIR, 0.0)
