"""The figures as tables for people, and what a link could carry at most by arithmetic."""

from __future__ import annotations

import re
from typing import Any

from swanmesh.core import throughput

NAMES = {
    "plain": "no encryption",
    "ours": "swanmesh",
    "esp": "ESP without the modules",
    "esp+offload": "ESP with both modules",
    "wireguard": "WireGuard",
    "tinc": "tinc 1.0",
    "nebula": "Nebula",
}
OURS = {4: "esp+offload", 6: "esp"}
"""What swanmesh has of each family: it leaves esp6_offload alone (core/segmentation)."""
CARDS = {
    "gso": "packets of the MTU on the wire, cut and put together in software (GSO, GRO)",
    "tso": "a card that cuts packets itself (TSO), and GRO",
    "none": "nothing cut or put together",
}
_ETHERNET = 14 + 24
"""Header; and preamble, checksum and gap."""
_TCP = 32
"""With time stamps."""
_WIREGUARD = 16 + 16 + 8
"""Header, tag, UDP."""


AREAS = {
    "cipher": r"aesni|aes_|gcm|skcipher|crypto|ghash|gf128|crypt|scatterwalk|kernel_fpu|sg_",
    "copying and clearing": r"mem(set|cpy|move)|copy_|_copy|clear_page|rep_movs|rep_stos",
    "checksums": r"csum",
    "ESP and policies": r"xfrm|\besp|flow_hash|rhashtable|jhash",
    "memory of packets": r"kmem|slab|skb|kmalloc|kfree|page|napi_.*(alloc|frag)",
    "TCP, IP and the device": r"tcp|udp|ip_|ip6|ipv|inet|sock|net|veth|gro|dev_|qdisc|nf_|neigh|fib|softirq",
}
"""Of a function with its module, by its name; the first that fits counts."""


def ceiling(path: str, family: int, mtu: int) -> float:
    """The share of a link's bits that TCP's payload can be, if every packet is as long as may be."""
    ip = 20 if family == 4 else 40
    if path == "wireguard":
        inner = mtu - 80
        return (inner - ip - _TCP) / (inner + _WIREGUARD + ip + _ETHERNET)
    if path == "plain":
        return (mtu - ip - _TCP) / (mtu + _ETHERNET)
    return throughput.ceiling(family, mtu)


def table(figures: list[dict[str, Any]]) -> str:
    parts = []
    for kernel in dict.fromkeys(one["kernel"] for one in figures):
        mine = [one for one in figures if one["kernel"] == kernel]
        driver = next((one["driver"] for one in mine if one["what"] == "cipher"), "?")
        parts.append(f"Linux {kernel}, {driver}")
        for card, words in CARDS.items():
            cost = [one for one in mine if one["what"] == "cost" and one["card"] == card]
            if cost:
                parts.append(f"Instructions, both ends: {words}\n" + _costs(cost))
        variants = [one for one in mine if one["what"] == "variant"]
        if variants:
            parts.append(f"What else costs: our connections, one thing changed, v4\n{_variants(variants)}")
        profiles = [one for one in mine if one["what"] == "profile"]
        if profiles:
            bytewise = {one["variant"]: one for one in variants if one.get("kind") == "tcp"}
            parts.append(f"Where they go: instructions a byte of TCP, v4\n{_profiles(profiles, bytewise)}")
        goodput = [one for one in mine if one["what"] == "goodput"]
        if goodput:
            parts.append(f"TCP on a link held to {goodput[0]['rate']} Mbit/s\n" + _goodputs(goodput))
    return "\n\n".join(parts)


def _costs(figures: list[dict[str, Any]]) -> str:
    kinds = [("tcp", "a byte of TCP"), ("udp", "a datagram of 1400"), ("small", "a datagram of 64")]
    kinds = [kind for kind in kinds if any(one["kind"] == kind[0] for one in figures)]
    families = sorted({one["family"] for one in figures})
    rows = [["", *(f"{unit}, v{family}" for _, unit in kinds for family in families), ""]]
    ours = [{**one, "path": "ours"} for one in figures if one["path"] == OURS[one["family"]]]
    for path, words in NAMES.items():
        mine = [one for one in (*figures, *ours) if one["path"] == path]
        if not mine:
            continue
        found = {(one["kind"], one["family"]): one for one in mine}
        cells = [_cell(found.get((kind, family))) for kind, _ in kinds for family in families]
        rows.append([words, *cells, "; ".join(one["failed"] for one in mine if "failed" in one)])
    lost = sum(one.get("lost", 0) for one in figures)
    return _columns(rows) + (
        f"\n  datagrams lost on the way, whose cost is in the others': {lost}" if lost else ""
    )


def _variants(figures: list[dict[str, Any]]) -> str:
    rows = [["", "a byte of TCP", "a datagram of 64", ""]]
    for name in dict.fromkeys(one["variant"] for one in figures):
        mine = [one for one in figures if one["variant"] == name]
        found = {one["kind"]: one for one in mine if "kind" in one}
        cipher = next((one["cipher"] for one in found.values() if "generic" in one["cipher"]), "")
        why = "; ".join(filter(None, [cipher, *(one.get("failed", "") for one in mine)]))
        rows.append([name, *(_cell(found.get(kind)) for kind in ("tcp", "small")), why])
    return _columns(rows)


def _profiles(profiles: list[dict[str, Any]], costs: dict[str, dict[str, Any]]) -> str:
    """The cost that was counted, by the shares of the samples. `rest`: what no area has."""
    rows = [["", *(one["variant"] for one in profiles)]]
    for area in [*AREAS, "rest"]:
        cells = [_share_of(one, area, costs.get(one["variant"])) for one in profiles]
        rows.append([area, *cells])
    return _columns(rows)


def _share_of(profile: dict[str, Any], area: str, cost: dict[str, Any] | None) -> str:
    if cost is None:
        return "-"
    count = sum(n for name, n in profile["functions"].items() if area_of(name) == area)
    if area == "rest":
        count += profile["samples"] - sum(profile["functions"].values())
    return f"{cost['instructions'] * count / profile['samples']:.1f}"


def area_of(function: str) -> str:
    """Which of AREAS a function of the kernel's is counted to."""
    return next((area for area, names in AREAS.items() if re.search(names, function)), "rest")


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    value = found["instructions"]
    return f"{value:.1f}" if found["kind"] == "tcp" else f"{value:,.0f}"


def _goodputs(figures: list[dict[str, Any]]) -> str:
    rows = [["", "MTU", "", "of the link", "ceiling", "of the ceiling", ""]]
    for one in figures:
        path = "ours" if one["path"] == OURS[one["family"]] else one["path"]
        head = [NAMES[path], str(one["mtu"]), f"v{one['family']}"]
        if "failed" in one:
            rows.append([*head, "-", "-", "-", one["failed"]])
            continue
        share = one["bits"] / one["rate"] / 1e6
        most = ceiling(one["path"], one["family"], one["mtu"])
        rows.append([*head, f"{share:.1%}", f"{most:.1%}", f"{share / most:.1%}", ""])
    return _columns(rows)


def _columns(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  "
        + "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)
