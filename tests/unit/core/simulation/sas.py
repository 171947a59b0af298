"""What a simulated charon holds, and the one exchange that an IKE_SA has under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from swanmesh.core.observed import ChildSa, IkeSa
from tests.unit.core.simulation.cpu import AGAIN, OTHER, REQUEST, RESPONSE

if TYPE_CHECKING:
    from tests.unit.core.simulation.holder import Holder

WAITS = (1.2, 1.8, 2.8, 4.4)
"""Seconds between retransmissions; 10.2 s until charon gives up, as with the shipped settings."""


@dataclass(slots=True, eq=False)
class Child:
    unique_id: int
    name: str
    spi_in: str
    spi_out: str
    installed: float
    state: str = "INSTALLED"

    def snapshot(self, now: float) -> ChildSa:
        return ChildSa(
            unique_id=self.unique_id,
            name=self.name,
            state=self.state,
            mode="TRANSPORT",
            spi_in=self.spi_in,
            spi_out=self.spi_out,
            age=float(int(now - self.installed)),
        )


@dataclass(slots=True, eq=False, weakref_slot=True)
class Ike:
    unique_id: int
    conn: str
    config: str
    """Name of the child of the connection that it was made from: another one is another configuration."""
    local: str
    remote: str
    initiator: bool
    spi_i: str
    spi_r: str = ""
    state: str = "CONNECTING"
    established: float | None = None
    original: bool = False
    """Whether this end began the first IKE_SA of the chain of rekeys: that one reauthenticates."""
    by_controller: bool = False
    children: dict[int, Child] = field(default_factory=dict)
    exchange: Exchange | None = None
    queue: deque[Callable[[], None]] = field(default_factory=deque)
    answers: dict[int, Any] = field(default_factory=dict)
    replaces: Ike | None = None
    successor: Ike | None = None
    passive: tuple[str, ...] = ()
    active: tuple[str, ...] = ()
    """The task that ended it, for the event."""
    gone: bool = False
    doomed: float = float("-inf")
    """When this end began to delete it or its CHILD_SA."""
    dpd_due: bool = False
    heard: float = float("-inf")
    """When the other end last gave a sign of life."""

    @property
    def established_state(self) -> bool:
        return self.state in ("ESTABLISHED", "REKEYING")

    def snapshot(self, now: float, children: tuple[Child, ...] | None = None) -> IkeSa:
        """As list-sas or an event shows it; `children`: those that an event is about."""
        shown = tuple(self.children.values()) if children is None else children
        age = None if self.established is None else float(int(now - self.established))
        return IkeSa(
            unique_id=self.unique_id,
            connection=self.conn,
            state=self.state,
            initiator=self.initiator,
            spi_initiator=self.spi_i,
            spi_responder=self.spi_r,
            children=tuple([child.snapshot(now) for child in shown]),
            tasks_active=(self.exchange.kind,) if self.exchange else self.active,
            tasks_passive=self.passive,
            age=age if self.established_state else None,
        )


class Exchange:
    """One request, sent again until its response comes or charon gives up."""

    def __init__(
        self,
        charon: Holder,
        ike: Ike,
        kind: str,
        payload: Any,
        answered: Callable[[Any], None],
        failed: Callable[[], None],
    ) -> None:
        self.charon, self.ike, self.kind, self.payload = charon, ike, kind, payload
        self._answered, self._failed = answered, failed
        self.number = charon.next_number()
        self.nonce = charon.clock.rng.random()
        self.over = False
        ike.exchange = self

    def send(self, attempt: int = 0) -> None:
        if self.over or self.ike.gone:
            return
        if attempt == len(WAITS):
            self.over = True
            self._failed()
            return
        charon, ike = self.charon, self.ike
        cost = AGAIN if attempt else REQUEST.get(self.kind, OTHER)
        charon.network.send(charon, ike.remote, lambda peer: peer.work(cost, lambda: peer.receive(self)))
        charon.clock.after(WAITS[attempt], lambda: self.send(attempt + 1))

    def arrived(self, at: Holder, reply: Any) -> None:
        """The response arrived at whoever has the address now."""
        at.work(RESPONSE.get(self.kind, OTHER), lambda: self._take(at, reply))

    def _take(self, at: Holder, reply: Any) -> None:
        if self.over or self.ike.gone or at is not self.charon:
            return
        self.over = True
        self.ike.exchange = None
        self.ike.heard = at.clock.now
        self._answered(reply)
