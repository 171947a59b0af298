"""Two hosts whose IKE lives, and the data path between them: loss, filters, services that hang and stop."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from swanmesh.core.actions import Action, ObserveAll, ObserveSas, ObserveTraffic, Probe
from swanmesh.core.data_path import Heard, Kind
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import Peer, Settings
from swanmesh.core.observed import ChildRekeyed, IkeSa
from swanmesh.core.pair import Pair
from swanmesh.core.verdict import pair_verdict
from swanmesh.core.xfrm import KernelWatched
from tests.unit.core.build import association, child_sa, holdings, name_of, peer, settings


class Channel:
    """What happens, in order of time, and the packets between the two."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.loss = 0.0
        self.latency = 0.01
        self.cut: set[str] = set()
        """Names of the ends whose ESP does not arrive."""
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, delay: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + delay, next(self._order), call))

    def send(self, sender: End, arrive: Callable[[], None]) -> None:
        """One packet through the association: counted where it goes out, and where it comes in."""
        sender.went += 1
        if sender.name in self.cut or self.rng.random() < self.loss:
            return

        def counted() -> None:
            sender.other.came += 1
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
    came: int = 0
    went: int = 0
    mesh: Mesh | None = None
    downs: list[tuple[float, str]] = field(default_factory=list)
    _life: int = 0
    _waiting: list[Callable[[], None]] = field(default_factory=list)
    _sas: int = 1

    other: End = field(init=False, repr=False)

    @property
    def pair(self) -> Pair | None:
        return None if self.mesh is None else self.mesh.state.pairs.get(name_of(self.host, self.peer))

    def down(self) -> bool:
        """Whether the controller says that no data passes."""
        if self.mesh is None or self.pair is None:
            return False
        return pair_verdict(self.mesh.state, self.pair).reason.code == "no-data"

    def sa(self) -> IkeSa:
        name = name_of(self.host, self.peer)
        return replace(association(name, 1, age=self.channel.now), children=(child_sa(self._sas),))

    def rekey(self) -> None:
        old, self._sas = self._sas, self._sas + 1
        self.came = self.went = 0
        if self.mesh is not None:
            self.mesh.event(ChildRekeyed(self.sa(), old, child_sa(self._sas)), self.channel.now)

    # The controller.

    def start(self) -> None:
        if self.mesh is not None:
            return
        self.mesh, self._life = Mesh(self.host, seed=self.channel.rng.getrandbits(30)), self._life + 1
        self.hangs = False
        now = self.channel.now
        self.mesh.update_peers([self.peer], (), now)
        self.mesh.charon_back("5.9.8", holdings(self.host, self.sa()), now)
        self.mesh.kernel_event(KernelWatched(), now)
        self.mesh.probes_ready(not self.old, now)
        self._turn(self._life)

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
            for action in self.mesh.step(channel.now).actions:
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
                child = child_sa(self._sas)
                packets = {child.spi_in: self.came, child.spi_out: self.went}
                later(lambda: mesh.traffic_observed(packets, channel.now))
            case ObserveSas():
                later(lambda: mesh.observed((self.sa(),), channel.now))
            case ObserveAll():
                held = holdings(self.host, self.sa())
                later(lambda: mesh.observed(held, channel.now))
            case _ if action.pair:
                later(lambda: mesh.done(action, None, channel.now))
            case _:
                later(lambda: mesh.done(action, None, channel.now))

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
        heard = [Heard(self.pair.addresses, kind, silence)]
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


def two_ends(seed: int) -> tuple[Channel, End, End]:
    channel = Channel(seed)
    first = settings("web1.mesh.example", "203.0.113.1")
    second = settings("web2.mesh.example", "203.0.113.2")
    one = End("one", first, peer("web2.mesh.example", "203.0.113.2"), channel)
    other = End("other", second, peer("web1.mesh.example", "203.0.113.1"), channel)
    one.other, other.other = other, one
    return channel, one, other
