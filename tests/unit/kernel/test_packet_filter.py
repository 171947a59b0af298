"""UDP 4500 is let in from those who use encapsulation, kept out from other peers, and nobody else's
affair."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network

import pytest

from swanmesh.kernel import packet_filter
from swanmesh.kernel.packet_filter import Filter, PacketFilter, script

PEERS = frozenset({ip_address("203.0.113.2"), ip_address("2001:db8::2"), ip_network("198.51.100.0/24")})


def test_peers_are_refused_but_for_those_that_use_encapsulation() -> None:
    lines = script(Filter(PEERS, frozenset({ip_address("203.0.113.2")}))).splitlines()
    assert [line for line in lines if "elements" in line] == [
        f"set {name} {{ type {kind}; flags interval; auto-merge; elements = {{ {found} }}; }}"
        for name, kind, found in (
            ("refused4", "ipv4_addr", "198.51.100.0/24, 203.0.113.2"),
            ("refused6", "ipv6_addr", "2001:db8::2"),
            ("let_in4", "ipv4_addr", "203.0.113.2"),
        )
    ]
    rules = [line for line in lines if "dport 4500" in line]
    assert rules == [
        "udp dport 4500 ip saddr @let_in4 accept",
        "udp dport 4500 ip saddr @refused4 counter drop",
        "udp dport 4500 ip6 saddr @let_in6 accept",
        "udp dport 4500 ip6 saddr @refused6 counter drop",
    ]


def test_without_peers_there_is_no_table() -> None:
    assert script(Filter()).splitlines() == ["table inet swanmesh { }", "delete table inet swanmesh"]


@pytest.mark.parametrize("problem", ["", "Operation not supported"])
def test_what_nft_says_is_told_once(problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts: list[str] = []
    told: list[str] = []

    def nft(*arguments: str, stdin: str = "") -> str:
        scripts.append(stdin)
        return problem

    monkeypatch.setattr(packet_filter, "nft", nft)
    monkeypatch.setattr(packet_filter, "_PACE", 0.0)
    monkeypatch.setattr(packet_filter, "_RETRY", 0.0)
    wanted = [Filter(PEERS), Filter(PEERS), Filter(PEERS, frozenset({ip_address("2001:db8::2")}))]

    async def run() -> None:
        kept = PacketFilter(lambda: wanted.pop(0) if wanted[1:] else wanted[0], told.append)
        running = asyncio.create_task(kept.run())
        async with asyncio.timeout(10):
            while wanted[1:] or len(scripts) < (3 if problem else 2):
                kept.look()
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())
    assert problem or len(scripts) == 2, "what stands is not made again"
    assert told == ([problem] if problem else [])
