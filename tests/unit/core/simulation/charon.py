"""A charon, simulated: what VICI offers, traps, life and death.

It behaves as charon 5.9.8 does where a controller can tell: `initiate` returns at once and uses an IKE_SA of
the same configuration if one stands, an IKE_SA_INIT or IKE_AUTH without answer ends without an event, giving
up on an established IKE_SA raises ike-updown and then child-updown, `unique=never` keeps duplicates, a trap
with traffic initiates by itself, nothing of an IKE_SA survives a crash.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from swanmesh.core.connections import Connection
from swanmesh.core.model import Credentials
from swanmesh.core.observed import Holdings, IkeSa, LoadedConnection, LoadedCredentials
from tests.unit.core.simulation.clock import Clock
from tests.unit.core.simulation.exchanges import Exchanges
from tests.unit.core.simulation.holder import FOREIGN, Lifetimes, Loaded
from tests.unit.core.simulation.network import Network
from tests.unit.core.simulation.sas import Ike

ACQUIRE_EXPIRES = 165.0
"""Linux' xfrm_acq_expires: how long the kernel asks no second time for the same pair."""


class SimCharon(Exchanges):
    def __init__(
        self, name: str, clock: Clock, network: Network, lifetimes: Lifetimes, traffic: float = 0.0
    ) -> None:
        self.traffic = traffic
        """Packets a second towards each peer, for traps; 0 for a silent host."""
        self.closed: Callable[[], None] | None = None
        """Called when the control socket closes."""
        self._acquired: dict[str, float] = {}
        self._packet_due: set[str] = set()
        self._shown: WeakKeyDictionary[Ike, tuple[object, IkeSa]] = WeakKeyDictionary()
        super().__init__(name, clock, network, lifetimes)

    # What VICI offers. Each returns charon's error, or None.

    def load_credentials(self, mine: Credentials) -> str | None:
        self.certificates |= {mine.certificate_id, *mine.authority_ids}
        self.keys.add(mine.key_id)
        return None

    def clear_credentials(self) -> None:
        self.certificates.clear()
        self.keys.clear()

    def load(self, connection: Connection) -> str | None:
        if self.clock.rng.random() < self.trouble.load:
            return "loading connection failed"
        between = connection.addresses
        local, remote = (str(between.local), str(between.remote)) if between else ("127.0.0.1", "127.0.0.1")
        trap = connection.trap and not connection.shunt
        self.put(Loaded(connection.name, connection.child, local, remote, trap))
        self._traffic_soon(connection.name)
        return None

    def unload(self, name: str) -> str | None:
        return None if self.drop(name) else f"unload: connection '{name}' not found"

    def initiate(self, name: str, child: str, *, by_controller: bool = True) -> str | None:
        conn = self.conns.get(name)
        if conn is None or conn.child != child:
            return f"CHILD_SA config '{child}' not found"
        if self.clock.rng.random() < self.trouble.initiate:
            return "initiating failed"
        for ike in self.of(name):
            if ike.config == child and ike.state not in ("DELETING", "REKEYED"):
                self._create_under(ike)
                return None
        self.connect(conn.name, conn.child, conn.local, conn.remote, by_controller=by_controller)
        return None

    def _create_under(self, ike: Ike) -> None:
        self.enqueue(ike, lambda: self.create_child(ike))

    def terminate_ike(self, unique_id: int, *, force: bool = False) -> str | None:
        ike = self.sas.get(unique_id)
        if ike is None:
            return "no matching SAs to terminate found"
        if ike.state == "CONNECTING":
            self.destroy(ike, tell=True)
        elif force:
            # The DELETE is sent, unless another exchange is under way, and nobody waits for the answer.
            if not ike.active:
                self.delete(ike)
            self.destroy(ike, tell=True)
        else:
            self.enqueue(ike, lambda: self.delete(ike))
        return None

    def terminate_child(self, unique_id: int) -> str | None:
        found = self.child(unique_id)
        if found is None:
            return "no matching SAs to terminate found"
        ike, child = found
        self.enqueue(ike, lambda: self.delete_child(ike, child, quietly=False))
        return None

    def rekey_child(self, unique_id: int) -> str | None:
        found = self.child(unique_id)
        if found is None:
            return "no matching SAs to rekey found"
        ike, child = found
        self.enqueue(ike, lambda: self.replace_child(ike, child))
        return None

    def rekey_ike(self, unique_id: int, *, reauth: bool = False) -> str | None:
        ike = self.sas.get(unique_id)
        if ike is None:
            return "no matching SAs to rekey found"
        self.enqueue(ike, lambda: self.reauthenticate(ike) if reauth else self.replace_ike(ike))
        return None

    def list_sas(self) -> tuple[IkeSa, ...]:
        return tuple([self._shown_now(ike) for ike in self.sas.values()])

    def _shown_now(self, ike: Ike) -> IkeSa:
        """What does not change is shown as before: ages matter to those that see it for the first time only,
        and to duplicates."""
        if len(ike.children) != 1:
            return ike.snapshot(self.clock.now)
        (child,) = ike.children.values()
        key = (ike.state, ike.exchange, child, child.state)
        before = self._shown.get(ike)
        if before is not None and before[0] == key:
            return before[1]
        sa = ike.snapshot(self.clock.now)
        self._shown[ike] = (key, sa)
        return sa

    def newcomer(self) -> None:
        """A controller connects: what it is shown has its true age."""
        self._shown.clear()

    def holdings(self) -> Holdings:
        conns = tuple([LoadedConnection(name=c.name, children=(c.child,)) for c in self.conns.values()])
        held = LoadedCredentials(key_ids=frozenset(self.keys), certificates=frozenset(self.certificates))
        return Holdings(connections=conns, sas=self.list_sas(), credentials=held)

    # Life and death.

    def crash(self) -> None:
        self.running = False
        self.listener = None
        gone, self.sas = list(self.sas.values()), {}
        self.by_spi.clear()
        for ike in gone:
            ike.gone = True
            self.other_end_looks(ike)
        if self.closed is not None:
            self.closed()

    def restart(self) -> None:
        self.reset()
        self._acquired.clear()
        self.running = True

    def unload_all(self) -> None:
        """`swanctl --load-all` with a swanctl.conf that knows nothing of the mesh."""
        for name in list(self.conns):
            if name != FOREIGN:
                self.drop(name)

    # Traps.

    def ended(self, ike: Ike) -> None:
        super().ended(ike)
        self._acquired.pop(ike.conn, None)
        self._traffic_soon(ike.conn)

    def child_ended(self, ike: Ike) -> None:
        self._traffic_soon(ike.conn)

    def _traffic_soon(self, name: str) -> None:
        conn = self.conns.get(name)
        if self.traffic and conn is not None and conn.trap:
            self._packet_after(self.clock.rng.expovariate(self.traffic), name)

    def _packet_after(self, wait: float, name: str) -> None:
        if name not in self._packet_due:
            self._packet_due.add(name)
            self.clock.after(wait, lambda: self._packet(name))

    def _packet(self, name: str) -> None:
        """A packet for the pair: with a trap and no CHILD_SA charon is asked for one."""
        self._packet_due.discard(name)
        conn, now = self.conns.get(name), self.clock.now
        if not self.running or conn is None or not conn.trap:
            return
        if any(ike.children for ike in self.of(name)):
            return
        if now < self._acquired.get(name, 0.0):
            self._packet_after(self._acquired[name] - now, name)
            return
        self._acquired[name] = now + ACQUIRE_EXPIRES
        self.initiate(name, conn.child, by_controller=False)
        self._packet_after(ACQUIRE_EXPIRES, name)
