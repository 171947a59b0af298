"""What growth of a mesh costs those who were in it: packets lost, associations changed, packets in clear."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

from lab.captures import Packet
from lab.host import Host
from lab.kernel import dropped_early
from lab.mesh import Mesh

_FAST = 0.01
_SLOW = 0.2
_FAST_STREAMS = 5

Spis = frozenset[tuple[str, str, str]]


@dataclass(frozen=True, kw_only=True)
class Result:
    """Three counts that should be zero, and what they were counted among."""

    lost: int
    changed: tuple[str, ...]
    """Pairs whose set of SPIs is not what it was."""
    clear: tuple[Packet, ...]
    pings: int
    esp: int
    early: int
    """Packets dropped since they came before the SA was installed that they were for: what an authentication
    anew costs (ARCHITECTURE.md)."""

    @property
    def clean(self) -> bool:
        return self.lost == 0 and not self.changed and not self.clear


class Measurement:
    """Runs from construction to `finish`: a capture of what all cables carry, pings between `members`.

    Nothing is lost before the captures stand and after the last ping is answered. Raises RuntimeError if
    there was nothing to see, for then zeros prove nothing.
    """

    def __init__(self, lab: Mesh, members: Sequence[Host]) -> None:
        self._capture = lab.capture()
        self._members = members
        self._before = pair_spis(members)
        self._dropped_early = self._count_early()
        self._streams = [
            one.ping_stream(other.addresses[0], interval=interval)
            for one, other, interval in _streams(members)
        ]

    @property
    def streams(self) -> int:
        return len(self._streams)

    def join(self, host: Host) -> None:
        """Pings from `host` to all members count from now on: it has joined."""
        self._streams += [host.ping_stream(other.addresses[0], interval=_SLOW) for other in self._members]

    def finish(self) -> Result:
        """Ends streams and captures, and counts."""
        now = time.time()
        pings = [stream.stop(now) for stream in self._streams]
        after = pair_spis(self._members)
        packets = self._capture.stop()
        seen = {packet.source for packet in packets if packet.kind != "local"}
        silent = [host.short for host in self._members if not seen.intersection(host.addresses)]
        if silent:
            raise RuntimeError(f"no packet from {', '.join(silent)} was captured: nothing is proved")
        return Result(
            lost=sum(ping.lost for ping in pings),
            changed=tuple(pair for pair, spis in self._before.items() if after[pair] != spis),
            clear=tuple(packet for packet in packets if packet.kind == "clear"),
            pings=sum(ping.sent for ping in pings),
            esp=sum(packet.kind == "esp" for packet in packets),
            early=self._count_early() - self._dropped_early,
        )

    def _count_early(self) -> int:
        return sum(dropped_early(host.namespace) for host in self._members)


def pair_spis(hosts: Sequence[Host]) -> dict[str, Spis]:
    """The SPIs of each pair of hosts, as both kernels hold them. Raises RuntimeError for a pair without."""
    states = {host.short: host.spis() for host in hosts}
    pairs: dict[str, Spis] = {}
    for one, other in itertools.combinations(hosts, 2):
        addresses = {*one.addresses}, {*other.addresses}
        for host in (one, other):
            spis = frozenset(
                (source, destination, spi)
                for source, destination, spi in states[host.short]
                if (source in addresses[0] and destination in addresses[1])
                or (source in addresses[1] and destination in addresses[0])
            )
            if not spis:
                raise RuntimeError(f"{host.short} holds no association between {one.short} and {other.short}")
            pairs[f"{one.short}-{other.short} at {host.short}"] = spis
    return pairs


def _streams(hosts: Sequence[Host]) -> list[tuple[Host, Host, float]]:
    """Every pair once: 100 pings a second between the first neighbours, 5 else: a small machine must keep up.

    The slow ones come first, for the others hold up whatever starts after them.
    """
    pairs = sorted(itertools.combinations(range(len(hosts)), 2), key=lambda pair: pair[1] - pair[0])
    streams = [
        (hosts[one], hosts[other], _FAST if number < _FAST_STREAMS else _SLOW)
        for number, (one, other) in enumerate(pairs)
    ]
    return streams[::-1]
