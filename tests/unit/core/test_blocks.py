"""Blocks of addresses: what a file may say, and whose an address is."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swanmesh.core.model import Block, InvalidInput
from swanmesh.core.peers.blocks import BlockTable, parse_block
from swanmesh.core.peers.registry import PeerRegistry
from swanmesh.core.settings.policy import Policy
from tests.unit.core.build import address, peer, settings


def block(name: str, cidr: str, *exceptions: str, policy: str | None = None) -> Block:
    return parse_block(name, cidr, policy, list(exceptions), source=f"{name}.yaml")


def test_a_block() -> None:
    made = block("servers", "203.0.113.0/24", "203.0.113.1", "203.0.113.128/25", policy="prefer")
    assert (made.name, str(made.cidr), made.policy) == ("servers", "203.0.113.0/24", Policy.PREFER)
    assert [str(network) for network in made.exceptions] == ["203.0.113.1/32", "203.0.113.128/25"]


@pytest.mark.parametrize(
    ("keys", "place", "words"),
    [
        ({"cidr": None}, "cidr", "must be a network"),
        ({"cidr": "203.0.113.7/24"}, "cidr", "the network is 203.0.113.0/24"),
        ({"cidr": "mesh.example"}, "cidr", "neither"),
        ({"cidr": "0.0.0.0/0"}, "cidr", "wider than a /8"),
        ({"cidr": "2001::/16"}, "cidr", "wider than a /32"),
        ({"cidr": "127.0.0.0/24"}, "cidr", "no hosts"),
        ({"cidr": "fe80::/64"}, "cidr", "no hosts"),
        ({"cidr": "224.0.0.0/8"}, "cidr", "no hosts"),
        ({"policy": "sometimes"}, "policy", "is no policy"),
        ({"exceptions": "203.0.113.1"}, "except", "must be a list"),
        ({"exceptions": ["198.51.100.1"]}, "except[0]", "is not in 203.0.113.0/24"),
        ({"exceptions": ["2001:db8::1"]}, "except[0]", "is not in 203.0.113.0/24"),
        ({"exceptions": ["203.0.113.0/24"]}, "except[0]", "all of the block"),
        ({"wide": "very"}, "wide", "true or false"),
        ({"name": "a b"}, "", "the block's name"),
    ],
)
def test_a_mistake_is_told_with_its_place(keys: dict[str, object], place: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_block(**({"name": "b", "cidr": "203.0.113.0/24", "source": "b.yaml"} | keys))  # type: ignore[arg-type]
    (problem,) = caught.value.problems
    assert (problem.file, problem.key) == ("b.yaml", place) and words in problem.message and problem.remedy


def test_a_wide_block_is_one_where_it_is_said_so() -> None:
    assert str(parse_block("all", "0.0.0.0/0", wide=True, source="all.yaml").cidr) == "0.0.0.0/0"


def test_the_longest_prefix_counts_exceptions_among_them() -> None:
    table = BlockTable(
        [
            block("wide", "203.0.113.0/24", "203.0.113.1", "203.0.113.64/26"),
            block("narrow", "203.0.113.64/28", "203.0.113.70"),
            block("six", "2001:db8::/64"),
        ]
    )
    found = {
        text: (found.name if (found := table.find(address(text))) else None)
        for text in (
            *("203.0.113.2", "203.0.113.1", "203.0.113.65", "203.0.113.70", "203.0.113.100"),
            *("198.51.100.1", "2001:db8::7", "2001:db8:0:1::7"),
        )
    }
    assert list(found.values()) == ["wide", None, "narrow", None, None, None, "six", None]


def test_what_is_no_hosts_is_in_no_block_however_wide() -> None:
    table = BlockTable([parse_block("all", "::/0", wide=True, source=""), block("v4", "203.0.113.0/24")])
    assert table.find(address("2001:db8::1")) is not None
    assert [table.find(address(text)) for text in ("fe80::1", "ff02::1", "::1")] == [None] * 3


NETWORKS = st.builds(
    lambda bits, length: ipaddress.ip_network((bits >> (32 - length) << (32 - length), length)),
    st.integers(0xCB007100, 0xCB0071FF),
    st.integers(24, 32),
)


@given(st.lists(NETWORKS, max_size=6, unique=True), st.integers(0xCB007100, 0xCB0071FF))
def test_the_table_finds_what_a_search_finds(networks: list[ipaddress.IPv4Network], number: int) -> None:
    blocks = [Block(name=str(network), cidr=network) for network in networks]
    wanted = ipaddress.IPv4Address(number)
    best = max((n for n in networks if wanted in n), key=lambda network: network.prefixlen, default=None)
    found = BlockTable(blocks).find(wanted)
    assert (found.cidr if found else None) == best


def test_two_files_with_one_block_or_one_name_contradict_each_other() -> None:
    registry = PeerRegistry(settings().host)
    registry.update([block("a", "203.0.113.0/24"), peer("web2.mesh.example", "203.0.113.2")])
    again = parse_block("b", "203.0.113.0/24", source="b.yaml")
    registry.update([again, parse_block("web2.mesh.example", "198.51.100.0/24", source="c.yaml")])
    assert {(problem.file, problem.key) for problem in registry.problems} == {
        ("b.yaml", "cidr"),
        ("c.yaml", "name"),
    }
    assert [each.name for each in registry.blocks] == ["a"] and len(registry.peers) == 1
