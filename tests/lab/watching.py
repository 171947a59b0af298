"""What the lab's tests watch for on several hosts at once."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime

from lab import Host, wait_until
from lab.asking import Journal, Spis, pair_spis, status, view
from swanmesh.core.pairs.data_path import ASKED

INTERVAL = 1
"""Seconds without a packet after which a pair is asked, in tests of that: less than the default."""
NOTICED = 2 * (INTERVAL + ASKED)
"""Seconds within which it is told that no data passes: the service's own, with room for a slow machine."""


def all_spis(hosts: list[Host]) -> dict[str, Spis]:
    """The SPIs of each pair of hosts, as each of its ends holds them."""
    return {
        f"{host.short}-{other.short}": pair_spis(host, other)
        for host, other in itertools.permutations(hosts, 2)
    }


def changed_over(host: Host) -> bool:
    """Whether all are up and nothing is sent in clear any more: `prefer` allows that for a moment after."""
    return all(peer["state"] == "up" for peer in status(host)["peers"]) and not _opened(host)


def closed_behind(host: Host, other: Host) -> bool:
    """Whether it sends nothing in clear to the other any more."""
    return _opened(host).isdisjoint(other.addresses)


def _opened(host: Host) -> set[str]:
    """Addresses to which its kernel lets pass in clear what charon's policies would encrypt: openings have a
    priority of 1,000 less the bits (core/guard/policies)."""
    lines = host.exec("ip", "-o", "xfrm", "policy").stdout.splitlines()
    return set(re.findall(r" dst (\S+)/\d+ .*dir out priority (?:968|872) ", "\n".join(lines)))


def up_at(host: Host, others: list[Host]) -> bool:
    """Whether both ends say that `host` and each of `others` have an association."""
    return all(
        view(one, two)["state"] == "up" for other in others for one, two in ((host, other), (other, host))
    )


def seconds(call: Callable[[], object]) -> float:
    """How long the call took."""
    began = time.monotonic()
    call()
    return time.monotonic() - began


def told_down(journal: Journal, peer: Host, timeout: float) -> dict[str, str]:
    """The line that tells of a peer's going down."""
    why = f"{peer.short} is told to be down"
    return wait_until(lambda: journal.lines("peer-down", peer=peer), timeout, why)[0]


def moment(line: dict[str, str]) -> float:
    """When a line was written, in seconds since the epoch."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def probed(host: Host, other: Host) -> None:
    """Waits until what is known of the pair is enough to say that no data passes."""
    why = f"{host.short} knows what {other.short} answers"
    wait_until(lambda: "kernel" in view(host, other)["pairs"][0]["answered_by"], 60, why)


@contextlib.contextmanager
def tcp_ends(
    one: Host, other: Host, address: str, port: int = 0
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client of one host's, not connected yet, and a server at this address of the other's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with other.namespace.entered():
        server = socket.create_server((address, port), family=family)
    with one.namespace.entered():
        client = socket.socket(family)
    with server, client:
        yield client, server
