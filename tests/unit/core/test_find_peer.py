"""Which peer is meant by what people type."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from swanmesh.core.model import Peer
from swanmesh.core.peers.description import NoSuchPeer, find_peer, find_peers
from tests.unit.core.build import peer

PEERS = [
    peer("web1.mesh.example", "203.0.113.1", "2001:db8::1"),
    peer("web12.mesh.example", "203.0.113.12"),
    peer("db.mesh.example", "203.0.113.20"),
    peer("db.other.example", "203.0.113.21"),
    peer("web1", "203.0.113.30"),
]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("web12.mesh.example", "web12.mesh.example"),
        ("WEB12", "web12.mesh.example"),
        ("web12.mesh", "web12.mesh.example"),
        ("web12.mesh.example.", "web12.mesh.example"),
        ("203.0.113.12", "web12.mesh.example"),
        ("2001:DB8:0::1", "web1.mesh.example"),
        ("db.other", "db.other.example"),
        # A whole name comes before a part of one.
        ("web1", "web1"),
    ],
)
def test_found(asked: str, name: str) -> None:
    assert find_peer(asked, PEERS).name == name


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("db", "db may be any of db.mesh.example, db.other.example; give more of the name"),
        ("wbe12", "no such peer: wbe12; did you mean web12.mesh.example"),
        ("web12.mesh.exampel", "did you mean web12.mesh.example"),
        ("203.0.113.99", "no such peer: 203.0.113.99"),
        ("mail.mesh.example", "see `swanmesh status` for the names known"),
        ("mail", "see `swanmesh status` for the names known"),
        ("we", "no such peer: we"),
        ("\x1b[2J", r"no such peer: \\x1b[2J"),
    ],
)
def test_not_found_with_what_may_have_been_meant(asked: str, words: str) -> None:
    with pytest.raises(NoSuchPeer) as refused:
        find_peer(asked, PEERS)
    assert words.replace("\\\\", "\\") in str(refused.value)


def test_nobody_at_all() -> None:
    with pytest.raises(NoSuchPeer, match="no such peer: web1"):
        find_peer("web1", [])


def test_a_host_of_blocks_is_meant_at_all_its_addresses_by_its_name_and_at_one_by_that() -> None:
    met = [
        Peer(name=text, addresses=(ip_address(text),), block="b", proved="web9.mesh.example")
        for text in ("203.0.113.9", "2001:db8::9")
    ]
    for asked in ("web9.mesh.example", "web9"):
        assert find_peers(asked, met) == met
    assert find_peers("2001:db8::9", met) == met[1:]
