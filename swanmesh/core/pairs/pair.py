"""What is known of one address pair: desired, loaded and active, and how its bringing up stands."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from swanmesh.core.actions import Decision
from swanmesh.core.connections import Connection
from swanmesh.core.encapsulation import Encapsulation
from swanmesh.core.model import AddressPair, InitiationSettings
from swanmesh.core.observed import ChildSa, IkeSa
from swanmesh.core.pairs.associations import Associations
from swanmesh.core.pairs.data_path import DataPath
from swanmesh.core.pairs.initiation import backoff
from swanmesh.core.pairs.path_mtu import PathMtu
from swanmesh.core.reasons import NEW_PEER, NONE, ONE_WAY, Reason

_DIAGNOSES = 8
"""IKE_SAs of a pair whose diagnoses are kept."""
_FLOOD_CEILING = 4.0
"""Seconds between two times that what a peer piles up is ended, at most."""
_FLOOD_FORGOTTEN = 300.0
"""Seconds without more of them after which a flood is forgotten."""
_REMEMBERED = 3600.0
"""Seconds for which a peer's violation is shown."""
_TOLD_AGAIN = 60.0
_ONE_WAY = 20.0
"""Seconds in which packets went out and none came in before that is told."""
_ONE_WAY_PACKETS = 10


@dataclass(slots=True)
class Refusals:
    """charon refused to load, unload or end something: it is tried again after a while."""

    reason: Reason = NONE
    count: int = 0
    retry_at: float = 0.0

    def note(self, reason: Reason, now: float, how: InitiationSettings, rng: random.Random) -> None:
        self.count += 1
        self.reason, self.retry_at = reason, now + backoff(self.count, how, rng)


@dataclass(slots=True)
class Attempt:
    """How bringing it up stands."""

    failed: int = 0
    """Initiations in a row that came to nothing."""
    next_at: float = 0.0
    began: float | None = None
    """When the initiation under way began; None while none is."""
    look_at: float = 0.0
    """When charon is asked whether it still tries."""
    peer_ready: bool = False
    """The peer tried to reach this host before its file was here: it is not waited for."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """Whether IKE_SAs may stand on a certificate that a new list revokes."""

    since: float
    """When the list came."""
    ask_at: float
    """When the peer is asked to prove itself again."""


@dataclass(slots=True)
class Standing:
    """Whether the pair is up, since when, and why not."""

    up: bool = False
    since: float = 0.0
    """When it came up, or went down, or was held down."""
    noticed: float = 0.0
    """When it was noticed that it came up, which is later."""
    cause: Reason = NONE
    ended: int = 0
    """Unique id of the IKE_SA whose end brought it down: what charon's log says of it may come later."""
    missed: bool = False
    """The last look at charon did not show it, and it was not believed."""
    rekeying_since: float | None = None
    """Since when only a CHILD_SA shows that is being replaced."""
    lost: bool = False
    """charon came back without an association that stood before."""


@dataclass(slots=True)
class MissingInKernel:
    """What others took from the kernel, until something was done about it."""

    policies: Reason = NONE
    """Why the kernel lacks policies that charon believes there."""
    states: dict[int, Reason] = field(default_factory=dict)
    """Why CHILD_SAs, by unique id, lack states in the kernel."""

    def clear(self) -> None:
        self.policies = NONE
        self.states.clear()


@dataclass(slots=True)
class Flood:
    """IKE_SAs that a peer piles up beside the one that it should have: no accident, so it is named, and
    what it brings is ended at growing intervals."""

    reason: Reason = NONE
    until: float = 0.0
    """When the next of them are ended at the earliest."""
    times: int = 0

    def note(self, reason: Reason, now: float) -> None:
        """Many were ended at once."""
        if now > self.until + _FLOOD_FORGOTTEN:
            self.times = 0
        self.times += 1
        self.until = now + min(_FLOOD_CEILING, 2.0**self.times / 2)
        self.reason = reason

    def forget(self, now: float) -> None:
        if self.reason and now > self.until + _FLOOD_FORGOTTEN:
            self.reason, self.times = NONE, 0


@dataclass(slots=True)
class Violation:
    """What the peer brought about that the pair did not ask for. Kept for a while after it was ended: who did
    it once is to be known."""

    reason: Reason = NONE
    count: int = 0
    last: float = float("-inf")
    told: float = float("-inf")
    """When it was last told as an event."""

    def note(self, reason: Reason, now: float) -> bool:
        """One more. Returns whether it is to be told: not as often as the peer may do it."""
        self.count = self.count + 1 if self.recent(now) else 1
        self.reason, self.last = reason, now
        if now - self.told < _TOLD_AGAIN:
            return False
        self.told = now
        return True

    def recent(self, now: float) -> bool:
        return now - self.last < _REMEMBERED


@dataclass(slots=True)
class Traffic:
    """What has crossed, over all CHILD_SAs since this controller began, and whether it crosses both ways."""

    bytes_in: int = 0
    bytes_out: int = 0
    packets_in: int = 0
    packets_out: int = 0
    one_way: Reason = NONE
    _seen: tuple[ChildSa, ...] = ()
    _quiet: tuple[float, int, int] = (float("-inf"), 0, 0)
    """When packets last came in, or the count began, and how many had come in and gone out then."""

    def count(self, sas: Iterable[IkeSa], now: float) -> None:
        """Add what a look at the CHILD_SAs shows beyond the last one."""
        self._seen = self._add(child for sa in sas for child in sa.children)
        since, came, went = self._quiet
        if self.packets_in != came or since == float("-inf"):
            self._quiet, self.one_way = (now, self.packets_in, self.packets_out), NONE
        elif now - since >= _ONE_WAY and self.packets_out - went >= _ONE_WAY_PACKETS:
            words = (
                f"{self.packets_out - went} packets went out in {now - since:.0f} s and none came in: "
                "nothing answers there, or ESP is dropped on the way"
            )
            self.one_way = Reason(ONE_WAY, words)

    def last_of(self, children: Iterable[ChildSa]) -> None:
        """Add the last counts of CHILD_SAs that are replaced or gone: no look shows them any more."""
        last = self._add(children)
        spis = {child.spi_in for child in last}
        self._seen = (*(child for child in self._seen if child.spi_in not in spis), *last)

    def _add(self, children: Iterable[ChildSa]) -> tuple[ChildSa, ...]:
        """A CHILD_SA is known by its inbound SPI: unique ids begin anew with each charon."""
        before = {child.spi_in: child for child in self._seen}
        shown = {child.spi_in: child for child in children}
        for spi, child in shown.items():
            old = before.get(spi)
            self.bytes_in += max(0, child.bytes_in - (old.bytes_in if old else 0))
            self.bytes_out += max(0, child.bytes_out - (old.bytes_out if old else 0))
            self.packets_in += max(0, child.packets_in - (old.packets_in if old else 0))
            self.packets_out += max(0, child.packets_out - (old.packets_out if old else 0))
        return tuple(shown.values())


@dataclass(slots=True, kw_only=True)
class Pair:
    """Mutable state of one connection name. All times are on the clock that the caller passes in as `now`."""

    name: str
    peer: str
    addresses: AddressPair | None = None
    """None for what charon holds of a peer that no file knows."""
    initiator: bool = False
    """Whether this host is the one of the two that initiates."""
    connection: Connection | None = None
    """What should be loaded; None once the peer is gone."""
    reason: Reason = NEW_PEER
    """Why it should be loaded or unloaded, for as long as it is not."""
    left_alone: Reason = NONE
    """Why a connection that should not be loaded is left as it is nevertheless."""
    loaded: str | None = None
    """Name of the child that charon holds under this connection; None if it holds none."""

    associations: Associations = field(default_factory=Associations)
    extra_since: float | None = None
    """Since when IKE_SAs or CHILD_SAs stand beside the ones that should stay, or without a CHILD_SA."""
    standing: Standing = field(default_factory=Standing)
    attempt: Attempt = field(default_factory=Attempt)
    refusals: Refusals = field(default_factory=Refusals)
    doubt: Doubt | None = None
    """A revocation list came while it was not certain what its IKE_SAs stand on."""
    revoked_shown: tuple[float, Reason] = (float("-inf"), NONE)
    """When charon last refused the peer because it showed a certificate that is revoked, and its words."""
    reauthentication_asked: dict[int, float] = field(default_factory=dict)
    """When a reauthentication of each of its IKE_SAs was asked for."""
    missing_in_kernel: MissingInKernel = field(default_factory=MissingInKernel)
    flood: Flood = field(default_factory=Flood)
    traffic: Traffic = field(default_factory=Traffic)
    path: DataPath = field(default_factory=DataPath)
    udp: Encapsulation = field(default_factory=Encapsulation)
    mtu: PathMtu = field(default_factory=PathMtu)
    violation: Violation = field(default_factory=Violation)
    diagnoses: dict[int, Reason] = field(default_factory=dict)
    """What charon's log said of why each IKE_SA of the last attempts and associations failed or ended."""

    busy: bool = False
    """An action on it is being carried out; its outcome comes back before the next one starts."""
    decision: Decision | None = None
    """The last decision, which `status`, `plan` and `wait` show."""
    seen: float = float("-inf")
    """When charon was last looked at for what it does about this pair."""
    timer: float | None = None
    """When it is decided on again, if nothing happens before."""

    @property
    def sas(self) -> dict[int, IkeSa]:
        """Its IKE_SAs by unique id."""
        return self.associations.sas

    @property
    def up(self) -> bool:
        return self.standing.up

    @property
    def works(self) -> bool:
        """Whether there is an association through which data passes, as far as is known."""
        return not self.path.dead and self.associations.works

    @property
    def held_down(self) -> bool:
        """Whether the operator holds it down: a shunt is to stand in its place."""
        return self.connection is not None and bool(self.peer) and self.connection.shunt

    @property
    def under_way(self) -> bool:
        """Something is coming: an initiation of ours, or an exchange that charon shows."""
        return self.attempt.began is not None or self.associations.under_way

    def diagnose(self, unique_id: int, cause: Reason) -> None:
        """Keep what charon's log said of an IKE_SA."""
        self.diagnoses[unique_id] = cause
        if len(self.diagnoses) > _DIAGNOSES:
            del self.diagnoses[next(iter(self.diagnoses))]
