"""Two hosts whose IKE lives, and the data path between them: loss, filters, services that hang and stop."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from swanmesh.core.actions import (
    Action,
    Initiate,
    LoadConnection,
    ObserveAll,
    ObserveKernel,
    ObserveSas,
    ObserveTraffic,
    Probe,
    TerminateIke,
)
from swanmesh.core.connections import Connection
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import Peer, Settings
from swanmesh.core.observed import ChildRekeyed, ChildUp, Event, Holdings, IkeDown, IkeSa, IkeUp
from swanmesh.core.pairs.data_path import Heard, Kind
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.settings.policy import Policy
from swanmesh.core.verdict import pair_verdict
from tests.unit.core.build import association, child_sa, holdings, name_of, peer, settings


@dataclass(eq=False)
class Sa:
    """One association, and the packets that each end has counted."""

    number: int
    encap: bool
    born: float
    began_by: str
    child: int
    came: Counter[str] = field(default_factory=Counter)
    went: Counter[str] = field(default_factory=Counter)


class Channel:
    """What happens, in order of time, and the packets between the two."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.loss = 0.0
        self.latency = 0.01
        self.cut: set[str] = set()
        """Names of the ends whose ESP does not arrive."""
        self.cut_udp: set[str] = set()
        """... not even inside UDP."""
        self.sas = [Sa(1, False, 0.0, "one", 1)]
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, delay: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + delay, next(self._order), call))

    def send(self, sender: End, arrive: Callable[[], None]) -> None:
        """One packet through the youngest association: counted where it goes out, and where it comes in."""
        sa = self.sas[-1]
        sa.went[sender.name] += 1
        cut = self.cut_udp if sa.encap else self.cut
        if sender.name in cut or self.rng.random() < self.loss:
            return

        def counted() -> None:
            sa.came[sender.other.name] += 1
            arrive()

        self.after(self.latency * self.rng.uniform(0.5, 2.0), counted)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now, _, call = heapq.heappop(self._due)
            call()
        self.now = end


@dataclass(eq=False)
class End:
    """One of the two: kernel, charon, and a controller with the service that answers probes."""

    name: str
    host: Settings
    peer: Peer
    channel: Channel
    old: bool = False
    """Its service answers no probes, and sends none."""
    mute: bool = False
    """Its packet filter keeps its kernel from answering."""
    filtered: bool = False
    """Its packet filter drops what comes for the port of the service."""
    hangs: bool = False
    slowness: float = 0.05
    """Seconds that its controller takes for each turn, about."""
    mesh: Mesh | None = None
    downs: list[tuple[float, str]] = field(default_factory=list)
    _life: int = 0
    _waiting: list[Callable[[], None]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    loaded: Connection | None = None
    """What its charon holds."""

    other: End = field(init=False, repr=False)

    @property
    def pair(self) -> Pair | None:
        return None if self.mesh is None else self.mesh.state.pairs.get(name_of(self.host, self.peer))

    def down(self) -> bool:
        """Whether the controller says that no data passes."""
        if self.mesh is None or self.pair is None:
            return False
        return pair_verdict(self.mesh.state, self.pair).reason.code == "no-data"

    def view(self, sa: Sa) -> IkeSa:
        """As this end's charon shows it."""
        name = name_of(self.host, self.peer)
        mine = self.name == sa.began_by
        child = replace(child_sa(sa.child), encap=sa.encap)
        shown = association(name, sa.number, initiator=mine, age=float(int(self.channel.now - sa.born)))
        return replace(shown, children=(child,), nat_local=sa.encap, nat_remote=sa.encap)

    def views(self) -> tuple[IkeSa, ...]:
        return tuple(self.view(sa) for sa in self.channel.sas)

    def tell(self, event: Event) -> None:
        if self.mesh is not None:
            self.mesh.event(event, self.channel.now)

    def rekey(self) -> None:
        """All CHILD_SAs, by one of the two."""
        for sa in self.channel.sas:
            old, sa.child = sa.child, sa.child + 1000
            sa.came, sa.went = Counter(), Counter()
            for end in (self, self.other):
                shown = end.view(sa)
                end.tell(ChildRekeyed(shown, old, shown.children[0]))

    def _initiate(self) -> None:
        """charon makes an association beside what there is, in UDP if either end wants that."""
        wants = [end.loaded.terms.encap for end in (self, self.other) if end.loaded and end.loaded.terms]
        number = max(sa.number for sa in self.channel.sas) + 1
        sa = Sa(number, any(wants), self.channel.now, self.name, number)
        self.channel.sas.append(sa)
        for end in (self, self.other):
            end.tell(IkeUp(replace(end.view(sa), children=())))
            end.tell(ChildUp(end.view(sa)))

    def _terminate(self, numbers: tuple[int, ...]) -> None:
        for sa in [sa for sa in self.channel.sas if sa.number in numbers]:
            self.channel.sas.remove(sa)
            for end in (self, self.other):
                end.tell(IkeDown(end.view(sa)))

    # The controller.

    def start(self) -> None:
        if self.mesh is not None:
            return
        self.mesh, self._life = Mesh(self.host, seed=self.channel.rng.getrandbits(30)), self._life + 1
        self.hangs = False
        now = self.channel.now
        self.mesh.update_peers([self.peer], (), now)
        self.mesh.charon_back("5.9.8", self._holdings(), now)
        # Its counters are shown, and nothing else: what it holds is no subject here, nor what guards it.
        self.mesh.state.kernel.watched = True
        self.mesh.probes_ready(not self.old, now)
        self._turn(self._life)

    def _holdings(self) -> Holdings:
        loaded = {self.loaded.name: self.loaded.child} if self.loaded else {}
        return holdings(self.host, *self.views(), loaded=loaded)

    def stop(self) -> None:
        self.mesh, self._waiting = None, []

    def hang(self, watchdog: float = 30.0) -> None:
        """Until it is woken, or systemd ends it."""
        if self.mesh is not None:
            self.hangs, life = True, self._life
            self.channel.after(watchdog, lambda: self._bark(life))

    def _bark(self, life: int) -> None:
        if self.hangs and life == self._life and self.mesh is not None:
            self.stop()
            self.channel.after(5.0, self.start)

    def wake(self) -> None:
        self.hangs = False
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def _turn(self, life: int) -> None:
        if self.mesh is None or life != self._life:
            return
        channel = self.channel
        if not self.hangs:
            step = self.mesh.step(channel.now)
            self.events += [event.kind for event in step.events]
            for action in step.actions:
                self._carry_out(self.mesh, action)
            if self.down():
                self.downs.append((channel.now, "no-data"))
        channel.after(self.slowness * channel.rng.uniform(0.5, 2.0), lambda: self._turn(life))

    def _carry_out(self, mesh: Mesh, action: Action) -> None:
        channel, life = self.channel, self._life

        def later(call: Callable[[], None]) -> None:
            channel.after(
                0.02 * channel.rng.random(), lambda: call() if life == self._life and self.mesh else None
            )

        match action:
            case Probe(echoes=echoes, silence=silence):
                channel.send(self, lambda: self.other.asked(silence))
                for _ in range(echoes):
                    channel.send(self, lambda: self.other.echo(nobody=True))
            case ObserveTraffic():
                packets: dict[str, int] = {}
                for sa in channel.sas:
                    child = child_sa(sa.child)
                    packets |= {child.spi_in: sa.came[self.name], child.spi_out: sa.went[self.name]}
                later(lambda: mesh.traffic_observed(packets, channel.now))
            case ObserveSas():
                shown = self.views()
                later(lambda: mesh.observed(shown, channel.now))
            case ObserveKernel():
                later(lambda: mesh.kernel_observed(None, channel.now))
            case ObserveAll():
                held = self._holdings()
                later(lambda: mesh.observed(held, channel.now))
            case _:
                self._ask_charon(action)
                later(lambda: mesh.done(action, None, channel.now))

    def _ask_charon(self, action: Action) -> None:
        match action:
            case LoadConnection(connection=connection):
                self.loaded = connection
            case Initiate():
                self.channel.after(0.2, self._initiate)
            case TerminateIke(unique_ids=numbers):
                self.channel.after(0.05, lambda: self._terminate(numbers))
            case _:
                pass

    # The kernel and the service.

    def asked(self, silence: int) -> None:
        """A question came in."""
        if self.filtered:
            return
        if self.mesh is None or self.old:
            self.echo()
        elif self.hangs:
            self._waiting.append(lambda: self._answer(silence))
        else:
            self._answer(silence)

    def _answer(self, silence: int) -> None:
        self._hear("ask", silence)
        self.channel.send(self, lambda: self.other._hear("answer"))

    def echo(self, *, nobody: bool = False) -> None:
        """The kernel says that nobody listens at the service's port, or where nobody ever does."""
        if not (self.mute and nobody):
            self.channel.send(self, self.other._refused if nobody else _nothing)

    def _hear(self, kind: Kind, silence: int = 0) -> None:
        if self.mesh is None or self.old or self.pair is None or self.pair.addresses is None:
            return
        if kind != "echo" and self.filtered:
            return
        heard = [Heard(self.pair.addresses, kind, silence=silence)]
        if self.hangs:
            self._waiting.append(lambda: self._tell(heard))
        else:
            self._tell(heard)

    def _refused(self) -> None:
        self._hear("echo")

    def _tell(self, heard: list[Heard]) -> None:
        if self.mesh is not None:
            self.mesh.heard(heard, self.channel.now)


def _nothing() -> None:
    """What arrives is of no concern to anybody."""


def two_ends(seed: int, *, automatic: bool = False) -> tuple[Channel, End, End]:
    """`automatic`: with `encapsulation: auto`."""
    channel = Channel(seed)
    first, second = (
        replace(
            settings(f"web{n}.mesh.example", f"203.0.113.{n}", policy=Policy.PREFER),
            automatic_encapsulation=automatic,
            path_mtu=False,
        )
        for n in (1, 2)
    )
    one = End("one", first, peer("web2.mesh.example", "203.0.113.2"), channel)
    other = End("other", second, peer("web1.mesh.example", "203.0.113.1"), channel)
    one.other, other.other = other, one
    return channel, one, other
