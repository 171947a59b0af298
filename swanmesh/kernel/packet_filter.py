"""Our own table of nftables: UDP 4500 kept out where no pair uses encapsulation, and clear text counted.

A member that pretends to be behind NAT may send from any address, and charon moves its association there
(libcharon sa/ike_sa.c, update_hosts). It needs UDP 4500 for that, where charon's sockets pass XFRM policies
by, so the guard cannot help. What no peer has an address in is left alone: others may use charon as well.

What crosses in clear with one peer is counted here because XFRM policies count nothing. What comes in is
counted before policies see it, so where the guard is closed the count is of what was refused. What it refuses
on the way out ends before a packet filter is reached, so that nobody counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from swanmesh.core.guard.policies import Crossed
from swanmesh.core.model import Address, Network

_TABLE = "inet swanmesh"
_NETLINK_NETFILTER, _TABLES_CHANGE = 12, 1 << 6
"""linux/netfilter/nfnetlink.h: NFNLGRP_NFTABLES is 7."""
_PACE = 2.0
"""Seconds between two looks at what is wanted and what stands."""
_RETRY = 60.0
"""Seconds until what nft refused is tried again."""
_PATIENCE = 20.0
"""Seconds that nft has."""
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_SETS = ("refused", "let_in", "peers", "blocks")
_COUNTS = {
    "peers": ("flags dynamic; size 65535;", ""),
    # Whoever writes many source addresses is not to fill the kernel's memory.
    "blocks": ("flags dynamic,timeout; size 4096;", " timeout 1h"),
}
"""Of what is counted by address: what the sets are like, and for how long an address stays in one."""
_WAYS = {"out": ("output", "rt ipsec", "daddr"), "into": ("input", "meta ipsec", "saddr")}
"""By the fields of `Crossed`: the chain, what tells that a packet is encrypted, and which end is the peer."""
_FAMILIES = ((4, "ip"), (6, "ip6"))


@dataclass(frozen=True, slots=True)
class Filter:
    """What the table does."""

    refused: frozenset[Address | Network] = frozenset()
    """Addresses and networks from which UDP 4500 does not come in."""
    let_in: frozenset[Address] = frozenset()
    """Those of them that use encapsulation."""
    counted: frozenset[Address | Network] = frozenset()
    """Where packets in clear to and from are counted, for each address."""

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.refused or self.counted)


def script(wanted: Filter) -> str:
    """What `nft -f` makes the table of, in one step, and what was counted stays; nothing of it stands if
    nothing is wanted."""
    if not wanted:
        return f"table {_TABLE} {{ }}\ndelete table {_TABLE}\n"
    first, empty, then = [*_sets(Filter())], [], [*_sets(wanted)]
    for name, way, version in _counts():
        first.append(f"set {name}_{way}{version} {{ type ipv{version}_addr; {_COUNTS[name][0]} }}")
    for way, (chain, _, _) in _WAYS.items():
        first.append(f"chain {chain} {{ type filter hook {chain} priority -300; policy accept; }}")
        empty.append(f"flush chain {_TABLE} {chain}")
        rules = [*(_refusing() if way == "into" else ()), *_counting(way)]
        then += [f"chain {chain} {{", *rules, "}"]
    empty += [f"flush set {_TABLE} {name}{version}" for name in _SETS for version, _ in _FAMILIES]
    return "\n".join([f"table {_TABLE} {{", *first, "}", *empty, f"table {_TABLE} {{", *then, "}"]) + "\n"


def _sets(wanted: Filter) -> Iterator[str]:
    peers = [each for each in wanted.counted if isinstance(each, Address)]
    members = (wanted.refused, wanted.let_in, peers, wanted.counted.difference(peers))
    for name, addresses in zip(_SETS, members, strict=True):
        for version, _ in _FAMILIES:
            found = ", ".join(sorted(str(one) for one in addresses if one.version == version))
            elements = f" elements = {{ {found} }};" if found else ""
            yield f"set {name}{version} {{ type ipv{version}_addr; flags interval; auto-merge;{elements} }}"


def _counts() -> Iterator[tuple[str, str, int]]:
    """What each set of counts is of: one of `_COUNTS`, of `_WAYS` and of the families."""
    return itertools.product(_COUNTS, _WAYS, (version for version, _ in _FAMILIES))


def _refusing() -> Iterator[str]:
    for version, ip in _FAMILIES:
        yield f"udp dport 4500 {ip} saddr @let_in{version} accept"
        yield f"udp dport 4500 {ip} saddr @refused{version} counter drop"


def _counting(way: str) -> Iterator[str]:
    """Rules for what is not encrypted, and has to be: IKE and neighbour discovery are always in clear."""
    _, ipsec, end = _WAYS[way]
    yield "meta l4proto esp accept"
    yield "udp dport { 500, 4500 } accept"
    yield "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
    yield f"{ipsec} exists accept"
    for version, ip in _FAMILIES:
        for name, (_, lasting) in _COUNTS.items():
            counted = f"update @{name}_{way}{version} {{ {ip} {end}{lasting} counter }} accept"
            yield f"{ip} {end} @{name}{version} {counted}"


def counts() -> dict[Address, Crossed]:
    """Packets that crossed in clear with each address that any did with; those of blocks within an hour.
    Needs CAP_NET_ADMIN. Raises NftFailed."""
    found: dict[Address, Crossed] = {}
    for name, way, version in _counts():
        for address, packets in _listed(f"{name}_{way}{version}"):
            found[address] = found.get(address, Crossed())._replace(**{way: packets})
    return found


def _listed(name: str) -> Iterator[tuple[Address, int]]:
    done = _run("-j", "list", "set", *_TABLE.split(), name)
    try:
        for each in json.loads(done)["nftables"][1]["set"].get("elem", ()):
            yield ipaddress.ip_address(each["elem"]["val"]), each["elem"]["counter"]["packets"]
    except (LookupError, TypeError, ValueError) as error:
        raise NftFailed(f"nft says what nobody understands: {error!r}") from error


class NftFailed(Exception):
    """nft did not do what was asked, with its words."""


def _run(*arguments: str, stdin: str = "") -> str:
    """What it answers. Raises NftFailed."""
    program = shutil.which("nft", path=_PATH)
    if program is None:
        raise NftFailed("nft is missing: apt-get install nftables")
    try:
        done = subprocess.run(
            (program, *arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
            env={"PATH": _PATH, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NftFailed(f"nft did not run: {error}") from error
    if done.returncode:
        raise NftFailed(done.stderr.strip().partition("\n")[0] or f"nft ended with {done.returncode}")
    return done.stdout


def nft(*arguments: str, stdin: str = "") -> str:
    """What it says that is wrong; empty if it did what was asked."""
    try:
        _run(*arguments, stdin=stdin)
    except NftFailed as error:
        return str(error)
    return ""


def stands() -> bool:
    """Whether the table is there. Needs CAP_NET_ADMIN."""
    return not nft("list", "chain", *_TABLE.split(), "input")


def remove() -> None:
    """Let UDP 4500 in from everywhere."""
    if stands():
        nft("delete", "table", *_TABLE.split())


class PacketFilter:
    """Keeps the table as it is wanted, and puts it back when somebody takes it away."""

    def __init__(self, wanted: Callable[[], Filter], tell: Callable[[str], None]) -> None:
        """`tell` hears what is wrong with it, and that nothing is any more; each once."""
        self.problem = ""
        self._wanted = wanted
        self._tell = tell
        self._wake = asyncio.Event()
        self._disturbed = False

    def look(self) -> None:
        """What is wanted may be another one."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        applied: Filter | None = None
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # then what others do is not noticed
                self._watch(stack)
            while True:
                self._wake.clear()
                wanted = self._wanted()
                if self._disturbed and wanted and not await asyncio.to_thread(stands):
                    applied = None
                self._disturbed = False
                if wanted != applied:
                    applied = wanted if await self._apply(wanted) else None
                await asyncio.sleep(_RETRY if self.problem else _PACE)
                await self._wake.wait()

    async def _apply(self, wanted: Filter) -> bool:
        problem = await asyncio.to_thread(nft, "-f", "-", stdin=script(wanted))
        if problem != self.problem:
            self.problem = problem
            self._tell(problem)
        return not problem

    def _watch(self, stack: contextlib.ExitStack) -> None:
        events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        stack.enter_context(events)
        events.setblocking(False)
        events.bind((0, _TABLES_CHANGE))
        loop = asyncio.get_running_loop()

        def take() -> None:
            with contextlib.suppress(OSError):  # too many at once is news as well
                events.recv(1 << 16)
            self._disturbed = True
            self._wake.set()

        loop.add_reader(events, take)
        stack.callback(loop.remove_reader, events)
