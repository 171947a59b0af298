"""What the figures are shown as; needs no guest."""

from __future__ import annotations

from typing import Any

import pytest

from bench.data.tables import area_of, ceiling, table

VERSION = "6.1.0-56-cloud-amd64"


@pytest.mark.parametrize(
    ("path", "family", "mtu", "share"),
    [
        ("plain", 4, 1500, 0.9415),
        ("esp+offload", 4, 1500, 0.9194),
        ("esp+offload", 6, 1500, 0.9064),
        ("wireguard", 4, 1500, 0.9012),
        ("plain", 4, 9000, 0.9900),
        ("esp+offload", 4, 9000, 0.9863),
    ],
)
def test_tcp_can_have_this_share_of_a_link(path: str, family: int, mtu: int, share: float) -> None:
    assert round(ceiling(path, family, mtu), 4) == share


@pytest.mark.parametrize(
    ("function", "area"),
    [
        ("_encrypt_by_8_new9944 [aesni_intel]", "cipher"),
        ("ghash_update [ghash_generic]", "cipher"),
        ("memset_erms", "copying and clearing"),
        ("csum_partial", "checksums"),
        ("xfrm_input", "ESP and policies"),
        ("esp_xmit [esp4_offload]", "ESP and policies"),
        ("kmem_cache_free", "memory of packets"),
        ("inet_gro_receive", "TCP, IP and the device"),
        ("finish_task_switch.isra.0", "rest"),
    ],
)
def test_a_function_belongs_to_an_area(function: str, area: str) -> None:
    assert area_of(function) == area


def test_what_swanmesh_costs_is_counted_with_the_modules_that_it_uses() -> None:
    costs = {("esp", 4): 48.7, ("esp", 6): 49.8, ("esp+offload", 4): 19.5, ("esp+offload", 6): 19.6}
    figures: list[dict[str, Any]] = [
        {"what": "cost", "card": "gso", "path": path, "family": family, "kind": "tcp", "instructions": value}
        for (path, family), value in costs.items()
    ]
    lines = table([{"kernel": VERSION, **one} for one in figures]).splitlines()
    assert ["swanmesh", "19.5", "49.8"] in [line.split() for line in lines]


def test_what_else_costs_and_where_it_goes() -> None:
    figures: list[dict[str, Any]] = [
        {"what": "cipher", "driver": "rfc4106-gcm-aesni"},
        {"what": "variant", "variant": "as it is", "kind": "tcp", "instructions": 20.0, "cipher": "x-aesni"},
        {
            "what": "variant",
            "variant": "as it is",
            "kind": "small",
            "instructions": 27410.8,
            "cipher": "x-aesni",
        },
        {"what": "variant", "variant": "5,000 peers", "failed": "no memory"},
        {
            "what": "profile",
            "variant": "as it is",
            "samples": 100,
            "functions": {"memset_erms": 50, "cpu_idle": 5},
        },
    ]
    lines = table([{"kernel": VERSION, **one} for one in figures]).splitlines()
    assert "  as it is              20.0            27,411" in lines
    assert "  5,000 peers              -                 -  no memory" in lines
    cells = {line.strip().rpartition(" ")[0].strip(): line.split()[-1] for line in lines if line}
    assert (cells["copying and clearing"], cells["cipher"], cells["rest"]) == ("10.0", "0.0", "10.0")
