"""Hosts of blocks: who was met, who turned out to be no member, and who is still to be asked.

Nobody wrote these hosts down, so what is known of them is bounded here: a network of strangers, or an
attacker who speaks from many addresses, costs a few handshakes at a time and a table of fixed size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from swanmesh.core.model import Address, Peer
from swanmesh.core.reasons import Reason

ASKED_AT_ONCE = 16
"""Hosts that may be asked at one time whether they are members. One that does not answer takes 10 s."""
_LINE = 1024
"""Hosts that wait to be asked. Who comes when the line is full is heard of again: the kernel tells of packets
that wait for an association once in xfrm_acq_expires seconds for each host."""
_STRANGERS = 4096
"""Hosts that are remembered as no members; those asked longest ago are forgotten."""
_AGAIN = 15.0
"""Seconds until a stranger may be asked again, twice as long each time, up to the ceiling."""
_AGAIN_CEILING = 900.0
ADDRESSES = 16
"""At so many addresses one identity may stand under blocks. A host has a few; more are a certificate that was
copied."""


@dataclass(slots=True)
class Stranger:
    """A host of a block that is no member, as far as is known."""

    reason: Reason
    times: int
    """How often it was asked."""
    again_at: float
    """When it may be asked again, if a packet calls for it."""


class Members:
    """All of them. Times on the core's clock."""

    def __init__(self) -> None:
        self._met: dict[str, Peer] = {}
        self._addresses: dict[str, set[str]] = {}
        """Names by the identity that they proved."""
        self.strangers: OrderedDict[Address, Stranger] = OrderedDict()
        self._line: OrderedDict[Address, Address] = OrderedDict()
        """Who is to be asked, and at which of this host's addresses it was met."""
        self.ike_sas: dict[int, str] = {}
        """Unique ids of IKE_SAs under connections of blocks, with the pair that each belongs to."""
        self._review: dict[str, None] = {}
        self.asked = 0
        """Hosts that were asked, since the beginning."""
        self.spared = 0
        """Packets to strangers for which these were not asked again yet."""
        self.passed_over = 0
        """Hosts that found the line full."""

    def __contains__(self, name: str) -> bool:
        return name in self._met

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._met.values()))

    def __len__(self) -> int:
        return len(self._met)

    def get(self, name: str) -> Peer | None:
        return self._met.get(name)

    def put(self, peer: Peer) -> None:
        """One more, or one of which more is known."""
        self.forget(peer.name)
        self._met[peer.name] = peer
        if peer.proved:
            self._addresses.setdefault(peer.proved, set()).add(peer.name)
            self.strangers.pop(peer.addresses[0], None)
        self._line.pop(peer.addresses[0], None)

    def forget(self, name: str) -> None:
        peer = self._met.pop(name, None)
        if peer is not None and peer.proved:
            names = self._addresses[peer.proved]
            names.discard(name)
            if not names:
                del self._addresses[peer.proved]

    @property
    def proven(self) -> Iterator[Peer]:
        return (peer for peer in self._met.values() if peer.proved)

    @property
    def unproven(self) -> int:
        """How many are being asked."""
        return len(self._met) - sum(map(len, self._addresses.values()))

    def elsewhere(self, identity: str, name: str) -> int:
        """At how many other addresses the identity stands."""
        return len(self._addresses.get(identity, set()) - {name})

    # Who is to be asked.

    def wait(self, local: Address, remote: Address, now: float) -> None:
        """A packet calls for this host."""
        stranger = self.strangers.get(remote)
        if stranger is not None and now < stranger.again_at:
            self.spared += 1
        elif remote in self._line or len(self._line) < _LINE:
            self._line[remote] = local
        else:
            self.passed_over += 1

    @property
    def next_ready(self) -> bool:
        return bool(self._line) and self.unproven < ASKED_AT_ONCE

    def next(self) -> tuple[Address, Address]:
        """Local and remote address of the one whose turn it is."""
        remote, local = self._line.popitem(last=False)
        self.asked += 1
        return local, remote

    def note_stranger(self, address: Address, reason: Reason, now: float) -> None:
        before = self.strangers.pop(address, None)
        times = before.times + 1 if before is not None else 1
        wait = min(_AGAIN_CEILING, _AGAIN * 2.0 ** min(times - 1, 10))
        self.strangers[address] = Stranger(reason, times, now + wait)
        if len(self.strangers) > _STRANGERS:
            self.strangers.popitem(last=False)

    # What is to be looked at again.

    def review(self, name: str) -> None:
        """Something about this one changed that may end it."""
        if name in self._met:
            self._review[name] = None

    def review_all(self) -> None:
        self._review = dict.fromkeys(self._met)

    @property
    def restless(self) -> bool:
        return bool(self._review)

    def take_review(self) -> list[str]:
        names, self._review = list(self._review), {}
        return names


NOBODY = Reason("no-member", "no member of the mesh answered there")
