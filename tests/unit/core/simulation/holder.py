"""What one simulated charon holds: loaded connections, IKE_SAs, CHILD_SAs; and the events of these."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from swanmesh.core.observed import ChildDown, ChildUp, Diagnosis, Event, IkeDown, IkeUp
from swanmesh.core.reasons import Cause, Reason
from tests.unit.core.simulation.clock import Clock
from tests.unit.core.simulation.cpu import Cpu
from tests.unit.core.simulation.network import Network
from tests.unit.core.simulation.sas import Child, Exchange, Ike

FOREIGN = "home"
"""A connection and an IKE_SA of somebody else's that every charon holds."""


@dataclass(slots=True)
class Loaded:
    name: str
    child: str
    local: str
    remote: str
    trap: bool


@dataclass(slots=True)
class Lifetimes:
    """Seconds; how charon's own timers are set."""

    child_rekey: float = 3600.0
    ike_rekey: float = 4 * 3600.0
    reauth: float = 24 * 3600.0


@dataclass(slots=True, kw_only=True)
class Trouble:
    """How often, out of one, something goes wrong inside charon."""

    load: float = 0.0
    initiate: float = 0.0
    child: float = 0.0
    """The CHILD_SA of an exchange cannot be installed; the IKE_SA stays."""
    look: float = 0.0


class Holder(ABC):
    def __init__(self, name: str, clock: Clock, network: Network, lifetimes: Lifetimes) -> None:
        self.name, self.clock, self.network, self.lifetimes = name, clock, network, lifetimes
        self.trouble = Trouble()
        self.running = True
        self.cpu: Cpu | None = None
        """None: work takes no time."""
        self.listener: Callable[[Event], None] | None = None
        self._number = 0
        self.reset()

    def reset(self) -> None:
        """As charon starts: with what somebody else's swanctl.conf gives it and nothing of ours."""
        self.conns: dict[str, Loaded] = {}
        self.by_addresses: dict[tuple[str, str], str] = {}
        self.sas: dict[int, Ike] = {}
        self.by_spi: dict[str, Ike] = {}
        self.by_conn: dict[str, dict[int, Ike]] = {}
        self.lost_at: dict[str, float] = {}
        """When the last IKE_SA of a connection went."""
        self.certificates: set[str] = set()
        self.keys: set[str] = set()
        self.put(Loaded(FOREIGN, "lan", "192.0.2.254", "192.0.2.253", False))
        foreign = Ike(self.next_number(), FOREIGN, "lan", "192.0.2.254", "192.0.2.253", True, self.spi())
        foreign.state, foreign.established = "ESTABLISHED", self.clock.now
        self.sas[foreign.unique_id] = foreign

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def spi(self) -> str:
        return f"{self.clock.rng.getrandbits(64):016x}"

    def work(self, cost: float, call: Callable[[], None]) -> None:
        """`call` when the processor has found the time for it."""
        if self.cpu is None:
            call()
        else:
            self.cpu.run(cost, call)

    def emit(self, event: Event) -> None:
        if self.listener is not None:
            self.listener(event)

    def diagnose(self, ike: Ike, code: Cause) -> None:
        self.emit(Diagnosis(ike.conn, ike.unique_id, Reason(code, "simulated")))

    # Connections.

    def put(self, conn: Loaded) -> None:
        self.drop(conn.name)
        self.conns[conn.name] = conn
        self.by_addresses[conn.local, conn.remote] = conn.name

    def drop(self, name: str) -> bool:
        conn = self.conns.pop(name, None)
        if conn is None:
            return False
        self.by_addresses.pop((conn.local, conn.remote), None)
        return True

    def match(self, local: str, remote: str) -> Loaded | None:
        """The connection for a request that came from `remote` to `local`."""
        name = self.by_addresses.get((local, remote))
        return self.conns.get(name) if name is not None else None

    # IKE_SAs and CHILD_SAs.

    def of(self, name: str) -> list[Ike]:
        return list(self.by_conn.get(name, {}).values())

    def keep(self, ike: Ike) -> None:
        self.sas[ike.unique_id] = ike
        self.by_spi[ike.spi_i] = ike
        self.by_conn.setdefault(ike.conn, {})[ike.unique_id] = ike

    def child(self, unique_id: int) -> tuple[Ike, Child] | None:
        for ike in self.sas.values():
            if unique_id in ike.children:
                return ike, ike.children[unique_id]
        return None

    def adopt(self, ike: Ike, conn: Loaded) -> None:
        """A responder learns with IKE_AUTH which connection an IKE_SA belongs to."""
        del self.by_conn[ike.conn][ike.unique_id]
        ike.conn, ike.config = conn.name, conn.child
        self.keep(ike)

    def establish(self, ike: Ike) -> None:
        ike.state, ike.established = "ESTABLISHED", self.clock.now
        self.emit(IkeUp(ike.snapshot(self.clock.now, ())))
        self.began(ike)

    def install(self, ike: Ike, spi_in: str, spi_out: str, *, tell: bool = True) -> Child:
        child = Child(self.next_number(), ike.config, spi_in, spi_out, self.clock.now)
        ike.children[child.unique_id] = child
        if tell:
            self.emit(ChildUp(ike.snapshot(self.clock.now, (child,))))
        self.child_began(ike, child)
        return child

    def destroy(self, ike: Ike, *, tell: bool) -> None:
        """It is gone from charon and kernel. ike-updown comes before the child-updown of its children."""
        if ike.gone:
            return
        ike.gone = True
        self.lost_at[ike.conn] = self.clock.now
        del self.sas[ike.unique_id]
        del self.by_conn[ike.conn][ike.unique_id]
        if self.by_spi.get(ike.spi_i) is ike:
            del self.by_spi[ike.spi_i]
        if tell:
            self.emit(IkeDown(ike.snapshot(self.clock.now, ())))
            for child in ike.children.values():
                if child.state not in ("DELETED", "REKEYED"):
                    self.emit(ChildDown(ike.snapshot(self.clock.now, (child,))))
        self.ended(ike)

    # What follows, for those that build on this.

    @abstractmethod
    def began(self, ike: Ike) -> None:
        """An IKE_SA was established."""

    @abstractmethod
    def child_began(self, ike: Ike, child: Child) -> None:
        """A CHILD_SA was installed."""

    @abstractmethod
    def ended(self, ike: Ike) -> None:
        """An IKE_SA is gone."""

    @abstractmethod
    def child_ended(self, ike: Ike) -> None:
        """A CHILD_SA is gone while its IKE_SA stays."""

    @abstractmethod
    def receive(self, request: Exchange) -> None:
        """A request arrived, for the first time or again."""

    @abstractmethod
    def check(self, ike: Ike) -> None:
        """Look for a sign of life of the other end."""

    @abstractmethod
    def check_all(self) -> None: ...
