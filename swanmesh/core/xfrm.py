"""What a kernel holds for IPsec and tells of it, as plain values: states, policies, events (linux/xfrm.h)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from swanmesh.core.model import Address


class Direction(enum.IntEnum):
    """Which packets a policy is for. The policies of single sockets have directions of their own."""

    IN = 0
    OUT = 1
    FORWARD = 2


class XfrmState(NamedTuple):
    """One state of the kernel's, one way of a CHILD_SA; a tuple, since there are thousands in each look."""

    destination: Address
    spi: str
    """Eight hex digits, as charon shows them."""
    protocol: int
    """IP protocol number: 50 is ESP."""
    transport: bool
    reqid: int
    made: int = 0
    """In seconds since the epoch; 0 while it is but a reserved SPI."""


class XfrmPolicy(NamedTuple):
    """One policy of the kernel's."""

    direction: Direction
    source: Address
    source_bits: int
    destination: Address
    destination_bits: int
    protocol: int
    """IP protocol number; 0 is any."""
    source_port: int
    """For ICMP and ICMPv6 the type; 0 is any."""
    allow: bool
    """Whether it lets packets pass, through a template if it has one; else it blocks them."""
    reqid: int
    """Of its ESP template in transport mode; 0 if it has none: packets pass in clear then, or not at all."""
    priority: int
    """Lower is stronger."""
    number: int
    """The kernel's own number of it (`index`)."""
    destination_port: int = 0
    """For ICMP and ICMPv6 the code."""
    source_mask: int = 0
    """Which bits of the port count; 0 for any port."""
    destination_mask: int = 0
    owner: int = 0
    """The selector's `user`, which no lookup heeds: with another one the same packets may have two policies
    (net/xfrm/xfrm_policy.c: selector_cmp compares it, xfrm_selector_match does not)."""
    optional: bool = False
    """Whether packets pass in clear where there is no association for its template: the kernel tells of the
    first of them all the same."""
    lasts: int = 0
    """Seconds after which the kernel deletes it by itself; 0: never."""
    used: int = 0
    """When a packet met it last, in seconds since the epoch; 0 if none did."""

    @property
    def selector(self) -> tuple[object, ...]:
        """What two policies never have in common: the second would replace the first."""
        return (*self[:7], *self[11:15])

    @property
    def does(self) -> tuple[object, ...]:
        """What becomes of a packet that it matches, and which others it comes before."""
        return (self.allow, self.reqid, self.priority, self.optional)

    @property
    def single_hosts(self) -> bool:
        """Whether it is for all that one address sends to one other."""
        length = self.source.max_prefixlen
        return self.source_bits == self.destination_bits == length and self.protocol == 0


class Module(enum.StrEnum):
    """How the kernel has a module."""

    LOADED = "loaded"
    BUILT_IN = "built in"
    NOT_LOADED = "not loaded"
    ABSENT = "not part of this kernel"
    UNKNOWN = "not loaded or built in"
    """Which of the two cannot be seen from within the service's sandbox."""


class Segmenting(NamedTuple):
    """Segmentation through ESP of one family (`core/segmentation.py`)."""

    family: int
    """4 or 6."""
    module: Module
    states: int = 0
    """ESP states of this network namespace."""
    without: int = 0
    """At least so many of them do without the module, though it is there."""
    until: int = 0
    """When the newest of these was made."""

    @property
    def name(self) -> str:
        return f"esp{self.family}_offload"


class KernelHoldings(NamedTuple):
    """Everything that the kernel holds, seen in one look."""

    states: tuple[XfrmState, ...]
    policies: tuple[XfrmPolicy, ...]
    segmenting: tuple[Segmenting, ...] = ()


# Events.


@dataclass(frozen=True, slots=True)
class KernelWatched:
    """The kernel shows what it holds and tells of changes from now on."""


@dataclass(frozen=True, slots=True)
class KernelUnwatched:
    """It does neither, and why; nothing is compared or mended then."""

    reason: str


@dataclass(frozen=True, slots=True)
class StatesFlushed:
    """Somebody deleted all states at once. charon never does."""


@dataclass(frozen=True, slots=True)
class PoliciesFlushed:
    """Somebody deleted all policies at once. charon never does."""


@dataclass(frozen=True, slots=True)
class StateDeleted:
    """One state is gone, by charon's hand or another's."""

    spi: str


@dataclass(frozen=True, slots=True)
class PolicyDeleted:
    """One policy is gone, by charon's hand or another's."""

    policy: XfrmPolicy | None = None
    """Which, if it bears a mark (`owner`): its selector is right, and no more of it is known."""


@dataclass(frozen=True, slots=True)
class EventsLost:
    """The kernel had more to tell than there was room for."""


@dataclass(frozen=True, slots=True)
class PacketCalls:
    """A packet met a policy that wants an association, such as the trap of a block, and there is none."""

    local: Address
    remote: Address


KernelEvent: TypeAlias = (
    KernelWatched
    | KernelUnwatched
    | StatesFlushed
    | PoliciesFlushed
    | StateDeleted
    | PolicyDeleted
    | EventsLost
    | PacketCalls
)
