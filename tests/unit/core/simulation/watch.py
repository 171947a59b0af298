"""The invariants: what may never be done, checked at the moment that charon carries it out, against what
every charon of the network truly holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from swanmesh.core.actions import Action, Initiate, TerminateChild, TerminateIke, UnloadConnection
from swanmesh.core.connections import ours
from swanmesh.core.events import MeshEvent
from tests.unit.core.simulation.charon import SimCharon
from tests.unit.core.simulation.host import SimHost
from tests.unit.core.simulation.network import Network
from tests.unit.core.simulation.sas import Child, Ike

EVENT_ON_ITS_WAY = 0.1
"""Seconds that an event may take to reach the controller."""
LOOK_OF_JUST_NOW = 4.0
"""Seconds since which somebody may have begun to end the other one: no event tells so before it is gone."""


@dataclass(slots=True)
class Watch:
    network: Network
    breaches: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    events: list[tuple[float, str, MeshEvent]] = field(default_factory=list)
    keep_events: bool = False
    ended: dict[str, str] = field(default_factory=dict)
    """Which host ended the IKE_SA of an initiator's SPI as a duplicate."""

    def breach(self, host: SimHost, what: str) -> None:
        self.breaches.append(f"{host.clock.now:.3f} {host.name}: {what}")

    def told(self, host: SimHost, events: Iterable[MeshEvent]) -> None:
        for event in events:
            self.counts[event.kind] += 1
            if self.keep_events:
                self.events.append((host.clock.now, host.name, event))

    def before(self, host: SimHost, action: Action, *, needed: bool) -> None:
        """charon is about to carry this out. `needed`: whether files and operator called for the connection
        when it was decided."""
        self.counts[type(action).__name__] += 1
        match action:
            case UnloadConnection(name=name, peer=peer):
                if not ours(name):
                    self.breach(host, f"unloads {name}, which is not ours")
                if needed:
                    self.breach(host, f"unloads {name}, which is wanted: {peer}")
            case TerminateIke(unique_ids=unique_ids):
                for unique_id in unique_ids:
                    ike = host.charon.sas.get(unique_id)
                    if ike is not None:
                        self._ends(host, ike, action, needed=needed)
            case TerminateChild(unique_id=unique_id):
                found = host.charon.child(unique_id)
                if found is not None and not works_here(found[0], without=found[1]):
                    self._ends(host, found[0], action, needed=needed)
            case Initiate():
                self._initiates(host, action)
            case _:
                pass

    def _initiates(self, host: SimHost, action: Initiate) -> None:
        assert host.mesh is not None
        limit = host.settings.initiation.in_flight
        if host.mesh.state.admission.in_flight > limit:
            self.breach(host, "more initiations in flight than admitted")
        mine = [ike for ike in host.charon.of(action.connection) if ike.initiator]
        if any(ike.state == "CONNECTING" and ike.by_controller for ike in mine):
            self.counts["initiated while connecting"] += 1
        if any(works_here(ike) for ike in host.charon.of(action.connection)):
            self.counts["initiated while up"] += 1

    def _ends(self, host: SimHost, ike: Ike, action: TerminateIke | TerminateChild, *, needed: bool) -> None:
        if not ours(ike.conn):
            self.breach(host, f"ends #{ike.unique_id} of {ike.conn}, which is not ours")
        if not needed:
            return
        self.counts["duplicates ended"] += 1
        others = [other for other in host.charon.of(ike.conn) if other is not ike]
        standing = [other for other in others if works_here(other)]
        if works_here(ike) and not standing:
            now = host.clock.now
            just_went = now - host.charon.lost_at.get(ike.conn, 0.0) <= EVENT_ON_ITS_WAY
            just_doomed = any(now - other.doomed <= LOOK_OF_JUST_NOW for other in others)
            just_came = all(now - child.installed <= EVENT_ON_ITS_WAY for child in ike.children.values())
            if not just_went and not just_doomed and not just_came:
                self.breach(host, f"ends the only working association of {ike.conn}: {action.reason}")
            self.counts["ended as another one just went"] += 1
        elif self.works(ike) and not any(self.works(other) for other in others):
            if any(self.ended.get(other.spi_i, host.name) != host.name for other in standing):
                self.breach(host, f"both ends end another association of {ike.conn}")
            self.counts["ended beside one that the peer had lost"] += 1
        self.ended[ike.spi_i] = host.name

    def works(self, ike: Ike) -> bool:
        """Whether packets pass: both ends hold CHILD_SAs that match, under IKE_SAs that stand. While an
        IKE_SA is rekeyed these are not the same at both ends for the time of a packet."""
        owner = self.network.owners.get(ike.remote)
        if owner is None or not works_here(ike):
            return False
        mine = {child.spi_out for child in ike.children.values() if child.state != "DELETED"}
        other = owner.by_spi.get(ike.spi_i)
        if other is not None and matches(other, mine):
            return True
        return any(matches(other, mine) for other in owner.sas.values() if other.remote == ike.local)


def matches(ike: Ike, spis: set[str]) -> bool:
    """Whether it works and receives on one of the SPIs that the other end sends on."""
    return works_here(ike) and any(
        child.spi_in in spis for child in ike.children.values() if child.state != "DELETED"
    )


def works_here(ike: Ike, without: Child | None = None) -> bool:
    return ike.established_state and any(
        child.state in ("INSTALLED", "REKEYING") for child in ike.children.values() if child is not without
    )


def associations(charon: SimCharon) -> dict[tuple[str, str], list[Ike]]:
    """IKE_SAs of ours by address pair."""
    found: dict[tuple[str, str], list[Ike]] = {}
    for ike in charon.sas.values():
        if ours(ike.conn) or ike.conn == "(unnamed)":
            found.setdefault((ike.local, ike.remote), []).append(ike)
    return found
