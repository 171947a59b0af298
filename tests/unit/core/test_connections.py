"""What charon gets for a peer: names, digests, and which connections are ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from swanmesh.core.connections import (
    Connection,
    Kind,
    connection_name,
    differences,
    kind_of,
    ours,
    ours_loaded,
    peer_of,
)
from swanmesh.core.desired import address_pairs, desired, down
from swanmesh.core.model import ConnectionSettings, Peer, Settings
from swanmesh.core.observed import LoadedConnection
from swanmesh.core.settings.policy import Policy
from tests.unit.core.build import name_of, pair_of, peer, settings

HOST = settings("web1.mesh.example", "203.0.113.1", "198.51.100.1", "2001:db8::1")
PEER = peer("web2.mesh.example", "203.0.113.2", "2001:db8::2")


def only(host: Settings, other: Peer) -> Connection:
    ((_, connection),) = desired(host, other).values()
    return connection


def test_every_address_pair_of_a_family_has_its_connection() -> None:
    pairs = [str(pair) for pair in address_pairs(HOST, PEER)]
    assert pairs == [
        "203.0.113.1 to 203.0.113.2",
        "198.51.100.1 to 203.0.113.2",
        "2001:db8::1 to 2001:db8::2",
    ]
    wanted = desired(HOST, PEER)
    assert [str(pair) for pair, _ in wanted.values()] == pairs
    assert all(name == connection.name and ours(name) for name, (_, connection) in wanted.items())


def test_the_name_does_not_change_with_what_is_loaded_under_it() -> None:
    other = replace(HOST, connection=ConnectionSettings(dpd_delay=7), policy=Policy.PREFER)
    assert desired(HOST, PEER).keys() == desired(other, PEER).keys()


def test_the_longest_names_fit_and_stay_distinct() -> None:
    label = "a" * 61
    long_names = [".".join([label] * 4) + f".b{n}" for n in range(2)]
    host = settings()
    made = [name_of(host, peer(name)) for name in long_names]
    assert all(len(name.encode()) <= 255 for name in made)
    assert made[0] != made[1] and all(ours(name) for name in made)


def test_the_digest_is_the_same_every_time() -> None:
    # What charon holds from before a restart or an upgrade must be recognised: the digest may change with the
    # connection alone. When a release changes what is loaded, this line changes with it.
    host = settings()
    assert only(host, peer()) == only(host, peer())
    assert only(host, peer()).child.startswith("esp-")
    assert name_of(host, peer()) == connection_name("web2.mesh.example", pair_of(host, peer()))


@pytest.mark.parametrize(
    "change",
    [
        {"ike_proposals": ("aes128gcm16-prfsha256-ecp256",)},
        {"esp_proposals": ("aes128gcm16-ecp256-esn",)},
        {"dpd_delay": 6},
        {"ike_rekey": 7200},
        {"child_rekey": 1800},
        {"replay_window": 64},
        {"encap": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_changes_with_every_key(change: dict[str, Any]) -> None:
    host = settings()
    other = replace(host, connection=replace(host.connection, **change))
    assert only(host, peer()).child != only(other, peer()).child
    assert only(host, peer()).name == only(other, peer()).name


def test_the_digest_changes_with_policy_authority_and_host_name_but_not_with_a_renewed_certificate() -> None:
    host = settings()
    child = only(host, peer()).child
    assert only(host, peer(policy="prefer")).child != child
    mine = host.credentials
    other_authority = replace(host, credentials=replace(mine, authorities=(b"another authority",)))
    assert only(other_authority, peer()).child != child
    assert only(replace(host, host=replace(host.host, name="x.mesh.example")), peer()).child != child
    renewed = replace(mine, certificate=b"renewed", private_key=b"new key", key_id="ff", not_after=3e9)
    assert only(replace(host, credentials=renewed), peer()).child == child


def test_policies_decide_on_the_trap() -> None:
    host = settings()
    assert only(host, peer()).trap
    assert not only(host, peer(policy="prefer")).trap
    assert desired(host, peer(policy="off")) == {}
    assert only(replace(host, policy=Policy.PREFER), peer(policy="require")).trap


@pytest.mark.parametrize(("policy", "kind"), [("require", Kind.DROP), ("prefer", Kind.PASS)])
def test_down_leaves_a_shunt_and_no_way_to_negotiate(policy: str, kind: Kind) -> None:
    host, other = settings(), peer(policy=policy)
    shunt = down(host, other, pair_of(host, other))
    assert shunt.name == only(host, other).name and shunt.child != only(host, other).child
    assert shunt.shunt and not only(host, other).shunt
    assert kind_of(shunt.child) == shunt.kind == kind
    assert shunt.remote_ts == ("203.0.113.2/32",) and shunt.addresses is None
    assert ours_loaded(LoadedConnection(name=shunt.name, children=(shunt.child,)))


@pytest.mark.parametrize(
    "name",
    [
        "swanmesh",
        "swanmesh-web2",
        "swanmesh-web2-0123456",
        "swanmesh-web2-0123456g",
        "swanmesh--01234567",
        "Swanmesh-web2-01234567",
        "my-swanmesh-web2-01234567",
        "swanmesh-web2-01234567x",
        "swanmesh-web2-01234567\n",
        "home",
        "",
    ],
)
def test_not_ours(name: str) -> None:
    assert not ours(name)


def test_ours_loaded_looks_at_the_children_too() -> None:
    name = name_of(settings(), peer())
    assert ours_loaded(LoadedConnection(name=name, children=("esp-0123456789abcdef",)))
    assert not ours_loaded(LoadedConnection(name=name, children=("esp",)))
    assert not ours_loaded(LoadedConnection(name=name, children=("esp-0123456789abcdef", "mine")))


def test_the_peer_can_be_read_from_the_name() -> None:
    assert peer_of(name_of(settings(), peer("db-1.mesh.example"))) == "db-1.mesh.example"
    assert peer_of("something else") == "something else"


def test_what_charon_reads_as_the_same_has_the_same_digest() -> None:
    # It would keep the trap of the old child under the old name.
    host = settings()
    mine = host.credentials

    def trusting(*authorities: bytes) -> str:
        return only(replace(host, credentials=replace(mine, authorities=authorities)), peer()).child

    assert trusting(b"one", b"two") == trusting(b"two", b"one") == trusting(b"two", b"one", b"two")


def test_a_short_life_leaves_time_for_what_comes_late() -> None:
    host = settings()
    short = replace(host, connection=replace(host.connection, ike_rekey=25, ike_reauth=60, child_rekey=15))
    agreed = only(short, peer()).terms
    assert agreed is not None and agreed.ike_over >= 90 and agreed.child_over >= 90


def test_the_reason_names_what_changed() -> None:
    host = settings()
    other = replace(host, connection=replace(host.connection, dpd_delay=6, encap=True))
    old = only(host, peer())
    assert differences(old, only(other, peer())) == ["dpd_delay", "encap"]
    assert differences(old, only(host, peer(policy="prefer"))) == ["trap"]
