"""The IKE_SAs and CHILD_SAs that charon holds for one pair, from looks and events.

Everything hangs on unique ids: duplicates and zombies of one connection live side by side, and the end of an
old one says nothing about a new one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from swanmesh.core.model import REAUTH
from swanmesh.core.observed import (
    UNDER_WAY,
    ChildDown,
    ChildRekeyed,
    ChildSa,
    ChildUp,
    IkeDown,
    IkeMoved,
    IkeRekeyed,
    IkeSa,
    IkeUp,
    SeenCertificate,
)
from swanmesh.core.pairs.agreement import Agreement
from swanmesh.core.reasons import NONE, Reason

SaEvent: TypeAlias = IkeUp | IkeDown | IkeMoved | ChildUp | ChildDown | IkeRekeyed | ChildRekeyed


class Times(NamedTuple):
    """When an IKE_SA came about; one that took over by a rekey inherits."""

    born: float
    """When it was established."""
    authenticated: float
    """When the peer proved who it is: a rekey does not ask for that again."""
    certificate: SeenCertificate | None = None
    """What the peer proved it with, as far as that is known."""
    certain: bool = False
    """Whether it was seen as the IKE_SA came up, and no other that it could be."""
    asked: bool = False
    """Whether charon was asked then, whatever it showed."""


@dataclass(slots=True)
class Associations:
    """What stands, and when each of it was established."""

    sas: dict[int, IkeSa] = field(default_factory=dict)
    times: dict[int, Times] = field(default_factory=dict)
    """Of each of `sas` that was ever established."""
    unanswered: dict[int, float] = field(default_factory=dict)
    """Since when IKE_SAs wait for the peer's answer to their first message, or to a DELETE of ours."""
    agreement: Agreement | None = None
    """What they must be; None for a pair that no file knows."""
    addresses_match: bool = True
    """Whether a certificate that lists addresses must list the peer's."""
    distrusted: bool = False
    """The peer last proved itself with a certificate that will not do: another IKE_SA counts only once it is
    known what that stands on, so that nobody is called up and down each time."""

    def breach(self, sa: IkeSa) -> Reason:
        """In what this IKE_SA is not what the pair asked for; empty if it is."""
        if self.agreement is None:
            return NONE
        breach, times = self.agreement.breach(sa), self.times.get(sa.unique_id)
        if breach or times is None or not times.certain or times.certificate is None:
            return breach
        return self.unfit(times.certificate)

    def unfit(self, certificate: SeenCertificate) -> Reason:
        """Why a certificate is not for the pair's peer at its address; empty if it is."""
        if self.agreement is None or not self.addresses_match:
            return NONE
        return self.agreement.certified_elsewhere(certificate)

    def _shown(self, sa: IkeSa) -> bool:
        """Whether charon was asked what the IKE_SA stands on, or need not be."""
        times = self.times.get(sa.unique_id)
        return not self.distrusted or (times is not None and times.asked)

    @property
    def breaches(self) -> Iterator[tuple[IkeSa, Reason]]:
        for sa in self.sas.values():
            if not sa.ending and (breach := self.breach(sa)):
                yield sa, breach

    def counts(self, sa: IkeSa) -> bool:
        """Whether this IKE_SA is an association, and the one that was asked for."""
        return sa.works and not self.breach(sa) and self._shown(sa)

    @property
    def counting(self) -> Iterator[IkeSa]:
        """The IKE_SAs that are."""
        return (sa for sa in self.sas.values() if self.counts(sa))

    @property
    def works(self) -> bool:
        return any(True for _ in self.counting)

    @property
    def rekeying(self) -> bool:
        """Whether CHILD_SAs show that are being replaced, and still take packets in. A look may find them
        alone where both ends rekey at once."""
        return any(
            sa.established and any(child.state == "REKEYED" for child in sa.children) and not self.breach(sa)
            for sa in self.sas.values()
        )

    @property
    def under_way(self) -> bool:
        return any(sa.state in UNDER_WAY or (sa.established and sa.makes_child) for sa in self.sas.values())

    def observe(self, sas: Iterable[IkeSa], now: float) -> None:
        """Replace what was known by what a look at charon showed."""
        self.sas = {sa.unique_id: sa for sa in sas}
        for sa in self.sas.values():
            self._note_birth(sa, now)
            if sa.unheard:
                self.unanswered.setdefault(sa.unique_id, now)
        for unique_id in self.times.keys() - self.sas.keys():
            del self.times[unique_id]
        self._forget_answered()

    def recount(self, sas: Iterable[IkeSa]) -> None:
        """The same IKE_SAs with newer counters and ages."""
        self.sas = {sa.unique_id: sa for sa in sas}

    def apply(self, event: SaEvent, now: float) -> None:
        """Bring `sas` up to what the event says."""
        match event:
            case IkeUp(ike) | IkeMoved(ike):
                known = self.sas.get(ike.unique_id)
                self._put(replace(ike, children=known.children if known else ()), now)
            case IkeDown(ike):
                self.sas.pop(ike.unique_id, None)
                self.times.pop(ike.unique_id, None)
            case ChildUp(ike):
                self._set_children(ike, now, add=ike.children)
            case ChildDown(ike):
                # ike-updown comes before the child-updown of its children (bus/bus.c, ike_updown): what is
                # gone must not come back with them.
                if ike.unique_id in self.sas:
                    self._set_children(ike, now, drop=[child.unique_id for child in ike.children])
            case IkeRekeyed(old_id, new):
                old = self.sas.pop(old_id, None)
                if old_id in self.times:
                    self.times[new.unique_id] = self.times.pop(old_id)
                # A look may have shown the new one with its CHILD_SAs before the event came.
                known = self.sas.get(new.unique_id) or old or new
                self._put(replace(new, children=known.children), now)
            case ChildRekeyed(ike, old_id, new_child):
                self._set_children(ike, now, add=(new_child,), drop=(old_id,))
        self._forget_answered()

    def note_certificate(self, unique_id: int, certificate: SeenCertificate, *, certain: bool) -> None:
        """What an IKE_SA most likely stands on, or certainly."""
        times = self.times.get(unique_id)
        if times is not None and (certain or not times.certain):
            self.times[unique_id] = times._replace(certificate=certificate, certain=certain)

    def note_asked(self, unique_id: int) -> None:
        if (times := self.times.get(unique_id)) is not None:
            self.times[unique_id] = times._replace(asked=True)

    def note_ending(self, ikes: Collection[int], child: int | None, now: float) -> None:
        """charon was asked to end these IKE_SAs, or this CHILD_SA. The event that they are gone comes when
        the peer has answered, for an IKE_SA that was never established not at all; until then, and until a
        look says otherwise, they count as ending."""
        for unique_id, sa in self.sas.items():
            if unique_id in ikes:
                self.sas[unique_id] = replace(sa, state="DELETING")
                self.unanswered[unique_id] = now
            elif any(known.unique_id == child for known in sa.children):
                children = tuple(
                    replace(known, state="DELETING") if known.unique_id == child else known
                    for known in sa.children
                )
                self.sas[unique_id] = replace(sa, children=children)

    def _forget_answered(self) -> None:
        for unique_id in list(self.unanswered):
            sa = self.sas.get(unique_id)
            if sa is None or not (sa.unheard or sa.ending):
                del self.unanswered[unique_id]

    def _set_children(
        self, ike: IkeSa, now: float, add: Collection[ChildSa] = (), drop: Collection[int] = ()
    ) -> None:
        known = self.sas.get(ike.unique_id)
        children = {child.unique_id: child for child in (known.children if known else ())}
        children |= {child.unique_id: child for child in add}
        for unique_id in drop:
            children.pop(unique_id, None)
        self._put(replace(ike, children=tuple(children.values())), now)

    def _put(self, sa: IkeSa, now: float) -> None:
        self.sas[sa.unique_id] = sa
        self._note_birth(sa, now)

    def _note_birth(self, sa: IkeSa, now: float) -> None:
        if sa.established and sa.unique_id not in self.times:
            age = sa.age or 0.0
            # The age counts from the last rekey; what is left until charon would reauthenticate does not, but
            # is short by a random part of rand_time (libcharon config/peer_cfg.c).
            longer = REAUTH - sa.reauth_in if sa.reauth_in is not None else 0.0
            slack = self.agreement.slack if self.agreement is not None else 0.0
            # One that was made with other settings tells nothing by it.
            told = slack < longer - age and longer < REAUTH / 2
            self.times[sa.unique_id] = Times(now - age, now - (longer if told else age))
