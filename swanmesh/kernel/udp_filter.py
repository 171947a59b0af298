"""UDP 4500 kept out where no pair uses encapsulation, by a table of our own in nftables.

A member that pretends to be behind NAT may send from any address, and charon moves its association there
(libcharon sa/ike_sa.c, update_hosts). It needs UDP 4500 for that, where charon's sockets pass XFRM policies
by, so the guard cannot help. What no peer has an address in is left alone: others may use charon as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Udp4500:
    """From where it comes in, and from where it does not."""

    refused: frozenset[Address | Network] = frozenset()
    """Addresses and networks of peers."""
    let_in: frozenset[Address] = frozenset()
    """Those of them that use encapsulation."""


def script(wanted: Udp4500) -> str:
    """What `nft -f` makes the table of, in one step; nothing of it stands if nothing is refused."""
    lines = [f"table {_TABLE} {{ }}", f"delete table {_TABLE}"]
    if wanted.refused:
        lines += [f"table {_TABLE} {{", *_sets(wanted)]
        lines.append("chain input { type filter hook input priority -300; policy accept;")
        for version, name in ((4, "ip"), (6, "ip6")):
            lines.append(f"udp dport 4500 {name} saddr @let_in{version} accept")
            lines.append(f"udp dport 4500 {name} saddr @refused{version} counter drop")
        lines += ["}", "}"]
    return "\n".join(lines) + "\n"


def _sets(wanted: Udp4500) -> Iterator[str]:
    sets: tuple[tuple[str, Iterable[Address | Network]], ...] = (
        ("refused", wanted.refused),
        ("let_in", wanted.let_in),
    )
    for name, members in sets:
        for version in (4, 6):
            found = ", ".join(sorted(str(one) for one in members if one.version == version))
            elements = f" elements = {{ {found} }};" if found else ""
            yield f"set {name}{version} {{ type ipv{version}_addr; flags interval; auto-merge;{elements} }}"


def nft(*arguments: str, stdin: str = "") -> str:
    """What it says that is wrong; empty if it did what was asked."""
    program = shutil.which("nft", path=_PATH)
    if program is None:
        return "nft is missing: apt-get install nftables"
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
        return f"nft did not run: {error}"
    if done.returncode == 0:
        return ""
    return done.stderr.strip().partition("\n")[0] or f"nft ended with {done.returncode}"


def stands() -> bool:
    """Whether the table is there. Needs CAP_NET_ADMIN."""
    return not nft("list", "chain", *_TABLE.split(), "input")


def remove() -> None:
    """Let UDP 4500 in from everywhere."""
    if stands():
        nft("delete", "table", *_TABLE.split())


class UdpFilter:
    """Keeps the table as it is wanted, and puts it back when somebody takes it away."""

    def __init__(self, wanted: Callable[[], Udp4500], tell: Callable[[str], None]) -> None:
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
        applied: Udp4500 | None = None
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # then what others do is not noticed
                self._watch(stack)
            while True:
                self._wake.clear()
                wanted = self._wanted()
                if self._disturbed and wanted.refused and not await asyncio.to_thread(stands):
                    applied = None
                self._disturbed = False
                if wanted != applied:
                    applied = wanted if await self._apply(wanted) else None
                await asyncio.sleep(_RETRY if self.problem else _PACE)
                await self._wake.wait()

    async def _apply(self, wanted: Udp4500) -> bool:
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
