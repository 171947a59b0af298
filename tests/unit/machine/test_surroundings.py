"""Gateways and resolvers, as the system tells them."""

from __future__ import annotations

import sys
from pathlib import Path

from swanmesh.machine.surroundings import needed
from tests.unit.core.build import address

_GATEWAY = bytes((203, 0, 113, 1) if sys.byteorder == "big" else (1, 113, 0, 203)).hex().upper()
_ROUTES = f"""\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t{_GATEWAY}\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t007100CB\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
_NONE = "0" * 32
_ROUTES6 = f"""\
{_NONE} 00 {_NONE} 00 20010db8000000000000000000000001 00000400 00000001 00000000 00000003     eth0
20010db8000000000000000000000000 40 {_NONE} 00 {_NONE} 00000100 00000001 00000000 00000001     eth0
{_NONE} 00 {_NONE} 00 {_NONE} ffffffff 00000001 00000000 00200200       lo
"""


def test_gateways_and_resolvers_are_found(tmp_path: Path) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc/net/route").write_text(_ROUTES)
    (tmp_path / "proc/net/ipv6_route").write_text(_ROUTES6)
    (tmp_path / "etc/resolv.conf").write_text(
        "# by hand\nnameserver 203.0.113.53\nsearch mesh.example\nnameserver fe80::1%eth0\nnameserver x\n"
    )
    found = needed(tmp_path)
    assert set(found) == {address(text) for text in ("203.0.113.1", "2001:db8::1", "203.0.113.53", "fe80::1")}
    assert found[address("203.0.113.1")] == "the default gateway"


def test_a_machine_that_tells_nothing_needs_nothing(tmp_path: Path) -> None:
    assert needed(tmp_path) == {}
