"""What is known of one address pair: desired, loaded and active, and how its bringing up stands."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from swanmesh.core.actions import Connection
from swanmesh.core.model import AddressPair
from swanmesh.core.observed import (
    INSTALLED,
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
)

SaEvent: TypeAlias = IkeUp | IkeDown | ChildUp | ChildDown | IkeRekeyed | ChildRekeyed | IkeMoved


@dataclass(slots=True, kw_only=True)
class Pair:
    """Mutable state of one connection name. All times are on the clock that the caller passes in as `now`."""

    name: str
    peer: str
    addresses: AddressPair | None = None
    """None for what charon holds of a peer that no file knows."""
    ours: bool = False
    """Whether this host is the pair's initiator."""
    connection: Connection | None = None
    """What should be loaded; None once the peer is gone."""
    reason: str = "new peer"
    """Why it should be loaded or unloaded, for as long as it is not."""
    stays: str = ""
    """Why a connection that should not be loaded is left alone nevertheless."""
    disabled: bool = False
    """Held down by the operator."""

    loaded: str | None = None
    """Name of the child that charon holds under this connection; None if it holds none."""
    sas: dict[int, IkeSa] = field(default_factory=dict)
    born: dict[int, float] = field(default_factory=dict)
    """When each of `sas` was established; one that took over by a rekey inherits."""

    busy: bool = False
    """An action on it is being carried out; its outcome comes back before the next one starts."""
    error: str = ""
    """Why the last load, unload or termination failed, in charon's words."""
    failures: int = 0
    retry_at: float = 0.0

    up: bool = False
    since: float = 0.0
    """When it came up, or went down."""
    cause: str = ""
    """Why it is down, in words."""
    attempts: int = 0
    """Initiations in a row that came to nothing."""
    next_attempt: float = 0.0
    in_flight: float | None = None
    """When the initiation under way began."""
    look_at: float = 0.0
    """When charon is asked whether it still tries."""
    seen: float = float("-inf")
    """When charon was last looked at for what it does about this pair."""
    diagnoses: dict[int, str] = field(default_factory=dict)
    """What charon's log said of why each IKE_SA of the last attempts and associations failed or ended."""
    ended: int = 0
    """Unique id of the IKE_SA whose end brought it down: what the log says of it may come later."""
    extra_since: float | None = None
    """Since when IKE_SAs or CHILD_SAs stand beside the ones that should stay."""
    exposed: str = ""
    """Why the kernel lacks policies that charon believes there, until they are put back."""
    stateless: dict[int, str] = field(default_factory=dict)
    """Why CHILD_SAs, by unique id, lack states in the kernel, until charon was asked to rekey them."""
    lost_state: bool = False
    """charon came back without an association that stood before."""
    timer: float | None = None
    """When it is decided on again, if nothing happens before."""

    @property
    def works(self) -> bool:
        return any(sa.works for sa in self.sas.values())

    @property
    def under_way(self) -> bool:
        """Something is coming: an exchange of ours, one that charon shows, or a CHILD_SA being made."""
        return self.in_flight is not None or any(sa.state in UNDER_WAY for sa in self.sas.values())

    @property
    def misshapen(self) -> str:
        """The mode of an installed CHILD_SA that is not in transport mode; empty if there is none.

        charon falls back to tunnel mode silently where the peer insists (ikev2/tasks/child_create.c)."""
        modes = (child.mode for sa in self.sas.values() for child in sa.children if child.state in INSTALLED)
        return next((mode for mode in modes if mode != "TRANSPORT"), "")

    def observe(self, sas: Iterable[IkeSa], now: float) -> None:
        """Replace what was known by what a look at charon showed."""
        self.sas = {sa.unique_id: sa for sa in sas}
        for sa in self.sas.values():
            self._note_birth(sa, now)
        self.born = {unique_id: at for unique_id, at in self.born.items() if unique_id in self.sas}

    def recount(self, sas: Iterable[IkeSa]) -> None:
        """The same IKE_SAs with newer counters and ages."""
        self.sas = {sa.unique_id: sa for sa in sas}

    def apply(self, event: SaEvent, now: float) -> None:
        """Bring `sas` up to what the event says. Everything hangs on unique ids: a `down` of an old SA says
        nothing about a new one of the same name."""
        match event:
            case IkeUp(ike) | IkeMoved(ike):
                known = self.sas.get(ike.unique_id)
                self._put(replace(ike, children=known.children if known else ()), now)
            case IkeDown(ike):
                self.sas.pop(ike.unique_id, None)
                self.born.pop(ike.unique_id, None)
            case ChildUp(ike):
                self._set_children(ike, now, add=ike.children)
            case ChildDown(ike):
                # ike-updown comes before the child-updown of its children (bus/bus.c, ike_updown): what is
                # gone must not come back with them.
                if ike.unique_id in self.sas:
                    self._set_children(ike, now, drop=[child.unique_id for child in ike.children])
            case IkeRekeyed(old_id, new):
                old = self.sas.pop(old_id, None)
                if old_id in self.born:
                    self.born[new.unique_id] = self.born.pop(old_id)
                # A look may have shown the new one with its CHILD_SAs before the event came.
                known = self.sas.get(new.unique_id) or old or new
                self._put(replace(new, children=known.children), now)
            case ChildRekeyed(ike, old_id, new_child):
                self._set_children(ike, now, add=(new_child,), drop=(old_id,))

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
        if sa.established and sa.unique_id not in self.born:
            self.born[sa.unique_id] = now - (sa.age or 0.0)
