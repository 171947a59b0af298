"""Throughput through ESP: what a link can carry at most, by arithmetic, and what held a transfer back.

Lengths are bytes, rates bits a second. ESP is AES-GCM in transport mode (RFC 4303, RFC 4106), and TCP has
time stamps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swanmesh.core.reasons import Reason

_ETHERNET = 14 + 24
"""Header; and preamble, checksum and gap."""
_ESP = 8 + 8 + 16
"""SPI and sequence number, IV, tag."""
_TRAILER = 2
"""Length of the padding, next header."""
_UDP = 8
_TCP = 20 + 12
"""With time stamps."""

_FULL = 0.95
"""Share of a ceiling from which on it counts as reached: starting and other traffic take some."""
_BUSY = 0.9
"""Share of a processor's time from which on it counts as busy: the start of a transfer has less."""
_LOSSY = 0.001
"""Share of segments sent again from which on losses hold TCP back."""


def _ip(family: int) -> int:
    return 20 if family == 4 else 40


def largest_segment(family: int, mtu: int, *, encap: bool = False) -> int:
    """TCP's payload in the largest packet that the MTU lets pass; padded to four bytes within ESP."""
    within = (mtu - _ip(family) - (_UDP if encap else 0) - _ESP) // 4 * 4
    return within - _TRAILER - _TCP


def share(segment: int, family: int, *, encap: bool = False) -> float:
    """Of a link's bits, Ethernet's own included, the share that is payload in segments of this length."""
    within = -(-(segment + _TCP + _TRAILER) // 4) * 4
    return segment / (_ETHERNET + _ip(family) + (_UDP if encap else 0) + _ESP + within)


def ceiling(family: int, mtu: int, *, encap: bool = False) -> float:
    """The share of a link's bits that TCP's payload can be, if every packet is as long as may be."""
    return share(largest_segment(family, mtu, encap=encap), family, encap=encap)


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """What a transfer has to pass."""

    family: int
    mtu: int
    """The smaller one of both ends' links."""
    segment: int
    """TCP's payload of a packet, as the kernel cuts it."""
    encap: bool = False
    speed: float | None = None
    """Of the slower link; None if nobody knows."""

    @property
    def ceiling(self) -> float | None:
        """What TCP could carry over these links with packets of their MTU."""
        return None if self.speed is None else self.speed * ceiling(self.family, self.mtu, encap=self.encap)

    @property
    def shortened(self) -> bool:
        """Whether packets are shorter than the links would take them."""
        return self.segment < largest_segment(self.family, self.mtu, encap=self.encap) - 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one end's processors did in a transfer."""

    host: str
    busy: tuple[float, ...]
    """Share of the time that each processor was busy, whatever with."""
    before: float
    """Processors that were busy just before, with other things."""

    @property
    def which(self) -> str:
        return "its processor is" if len(self.busy) == 1 else f"all {len(self.busy)} processors are"

    @property
    def otherwise(self) -> str:
        return ", mostly with other things" if self.before > sum(self.busy) / 2 else ""

    def each_gigabyte(self, bits: float) -> float:
        """Seconds of a processor for 10**9 bytes at this rate, less what was busy before."""
        return max(0.0, sum(self.busy) - self.before) / (bits / 8e9)


def limit(path: Path, bits: float, resent: int, seconds: float, loads: Sequence[Load]) -> Reason:
    """What held a transfer back, as far as both ends show it; of several, what would have to change first.

    `resent`: segments that TCP sent again."""
    if path.speed is not None and bits >= _FULL * path.speed * share(
        path.segment, path.family, encap=path.encap
    ):
        full = f"the link's {path.speed / 1e6:,.0f} Mbit/s are full"
        if path.shortened:
            words = f"{full} of packets that are shorter than its MTU of {path.mtu}: look at the path's MTU"
            return Reason("mtu", words)
        return Reason("link", f"{full} of packets of {path.mtu} bytes, its MTU")
    for load in loads:
        if load.busy and sum(load.busy) >= _BUSY * len(load.busy):
            return Reason("cpu", f"{load.host}: {load.which} busy{load.otherwise}")
    for load in loads:
        if load.busy and max(load.busy) >= _BUSY:
            words = f"one of {len(load.busy)} processors is busy, and one association has only one"
            return Reason("core", f"{load.host}: {words}{load.otherwise}")
    if resent > _LOSSY * bits * seconds / 8 / path.segment:
        return Reason("loss", f"TCP sent {resent} segments again: packets are lost on the way")
    words = "no processor was busy: the way's delay and TCP's windows, or a rate that is limited on the way"
    if path.speed is None:
        words = f"{words}, or the link, whose speed is not known here (--speed)"
    return Reason("unknown", words)
