"""A host of the simulated mesh: the real core, the files it reads, and the loop between it and its charon."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from swanmesh.core.actions import (
    Action,
    Initiate,
    LoadConnection,
    LoadCredentials,
    ObserveAll,
    ObserveSas,
    RekeyChild,
    RekeyIke,
    TerminateChild,
    TerminateIke,
    UnloadConnection,
)
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import Peer, Settings
from swanmesh.core.observed import Event, Holdings, IkeSa
from swanmesh.core.reasons import Reason
from tests.unit.core.simulation.charon import SimCharon
from tests.unit.core.simulation.clock import Clock
from tests.unit.core.simulation.cpu import ASK, INITIATE, OTHER, SHOW

if TYPE_CHECKING:
    from tests.unit.core.simulation.watch import Watch

T = TypeVar("T")

TIMEOUT = 10.0
"""Seconds without an answer after which charon counts as lost."""
BUSY_LOOP = 200
"""Steps at one moment that no honest loop needs."""


class SimHost:
    """`epoch` changes with each connection to charon and each controller: what belongs to an earlier one and
    is still on its way is nobody's any more."""

    def __init__(self, clock: Clock, charon: SimCharon, settings: Settings, watch: Watch) -> None:
        self.clock, self.charon, self.settings, self.watch = clock, charon, settings, watch
        self.name = settings.host.name
        self.files: dict[str, Peer] = {}
        self.down: set[str] = set()
        """Peers that the operator holds down."""
        self.mesh: Mesh | None = None
        self.hung = False
        """charon takes requests and answers none."""
        self.epoch = 0
        self.connected = False
        self.actions: list[Action] = []
        """What was done, for the tests; cleared by them."""
        self._early: list[Event] | None = None
        self._free = 0.0
        self._requests: deque[Callable[[], None]] = deque()
        self._looks: deque[Callable[[], None]] = deque()
        self._event_at = 0.0
        self._step_due = float("inf")
        self._stepped = (0.0, 0)
        charon.closed = self._closed

    # The controller's life.

    def start(self) -> None:
        """`swanmesh run`: files first, then charon, as soon as it answers."""
        self.mesh = Mesh(self.settings, seed=self.clock.rng.getrandbits(32))
        self.mesh.update_peers(self.files.values(), (), self.clock.now)
        self._connect()

    def kill(self) -> None:
        self.mesh = None
        self._disconnect()

    def _connect(self) -> None:
        """Register for events, look at all that charon holds, and only then tell the core."""
        epoch = self.epoch
        if self.mesh is None or not self.charon.running or self.hung:
            self._later(1.0, epoch, self._connect)
            return
        self._early = []
        self.charon.newcomer()
        self.charon.listener = lambda event: self._event(event, epoch)
        self._ask(epoch, self.charon.holdings, self._connected)

    def _connected(self, held: Holdings) -> None:
        assert self.mesh is not None
        self.connected = True
        self.mesh.charon_back("5.9.8", held, self.clock.now)
        early, self._early = self._early or [], None
        for event in early:
            self.mesh.event(event, self.clock.now)
        self._step()

    def _disconnect(self) -> None:
        self.epoch += 1
        self.connected = False
        self._early = None
        if self.charon.running:
            self.charon.listener = None
        self._free = 0.0
        self._requests, self._looks = deque(), deque()

    def _closed(self) -> None:
        """The socket closed: charon is gone."""
        self.lose("charon closed the connection")

    def lose(self, reason: str) -> None:
        self._disconnect()
        if self.mesh is not None:
            self.mesh.charon_lost(Reason("simulated", reason), self.clock.now)
            self._later(self.clock.rng.uniform(0.1, 1.0), self.epoch, self._connect)

    def hang(self, seconds: float) -> None:
        """charon answers nothing for a while; what it does with its peers goes on."""
        self.hung = True
        self.clock.after(self.clock.rng.uniform(0.0, 5.0), lambda: self.lose("charon does not answer"))
        self.clock.after(seconds, self._unhang)

    def _unhang(self) -> None:
        self.hung = False

    # Files and people.

    def put(self, *peers: Peer) -> None:
        self.files |= {peer.source: peer for peer in peers}
        if self.mesh is not None:
            self.mesh.update_peers(peers, (), self.clock.now)
            self._step()

    def drop(self, *sources: str) -> None:
        for source in sources:
            peer = self.files.pop(source, None)
            if peer is not None:
                self.down.discard(peer.name)
        if self.mesh is not None:
            self.mesh.update_peers((), sources, self.clock.now)
            self._step()

    def configure(self, settings: Settings) -> None:
        self.settings = settings
        if self.mesh is not None:
            self.mesh.configure(settings, self.clock.now)
            self._step()

    def command(self, command: str, name: str) -> None:
        if self.mesh is None or self.mesh.state.registry.named(name) is None:
            return
        if command != "rekey":
            (self.down.add if command == "down" else self.down.discard)(name)
        self.mesh.command(command, name, self.clock.now)
        self._step()

    def all_up(self) -> None:
        assert self.mesh is not None
        for name in sorted(self.down | self.mesh.state.down):
            self.command("up", name)

    # The loop.

    def _later(self, delay: float, epoch: int, call: Callable[[], None]) -> None:
        self.clock.after(delay, lambda: call() if epoch == self.epoch else None)

    def _event(self, event: Event, epoch: int) -> None:
        """charon raised it; it arrives a little later, after all that were raised before."""
        at = max(self._event_at, self.clock.now + self.clock.rng.uniform(0.0002, 0.03))
        self._event_at = at
        self._later(at - self.clock.now, epoch, lambda: self._heard(event, epoch))

    def _heard(self, event: Event, epoch: int) -> None:
        self.charon.work(OTHER, lambda: self._take(event) if epoch == self.epoch else None)

    def _take(self, event: Event) -> None:
        if self._early is not None:
            self._early.append(event)
            return
        assert self.mesh is not None
        self.mesh.event(event, self.clock.now)
        self._step()

    def _step(self) -> None:
        """Decide and act until nothing is due."""
        mesh, now = self.mesh, self.clock.now
        if mesh is None:
            return
        self._count(now)
        step = mesh.step(now)
        self.watch.told(self, step.events)
        for action in step.actions:
            self._act(action)
        due = mesh.due
        if due is not None:
            due = max(due, now)
            if due < self._step_due or self._step_due <= now:
                self._step_due = due
                self.clock.after(due - now, lambda: self._wake(due))

    def _wake(self, due: float) -> None:
        if due == self._step_due:
            self._step_due = float("inf")
            self._step()

    def _count(self, now: float) -> None:
        moment, count = self._stepped
        self._stepped = (now, count + 1 if moment == now else 0)
        assert count < BUSY_LOOP, f"{self.name} steps again and again at {now}"

    def _act(self, action: Action) -> None:
        epoch, mesh = self.epoch, self.mesh
        assert mesh is not None
        self.actions.append(action)
        self.watch.counts["looks"] += isinstance(action, ObserveAll | ObserveSas)
        if isinstance(action, ObserveAll):
            self._ask(epoch, self._look_at_all, self._observed, self._cost_of_look())
        elif isinstance(action, ObserveSas):
            self._ask(epoch, self._look_at_sas, self._observed, self._cost_of_look())
        else:
            needed = self._needed(action)
            cost = INITIATE if isinstance(action, Initiate) else ASK
            self._ask(
                epoch,
                lambda: self._carry_out(action, needed),
                lambda error: self._done(action, error),
                cost,
            )

    def _cost_of_look(self) -> float:
        return ASK + SHOW * len(self.charon.sas)

    def _ask(
        self, epoch: int, request: Callable[[], T], answer: Callable[[T], None], cost: float = ASK
    ) -> None:
        """One VICI request: charon carries out the requests of a connection in order."""
        if self.charon.cpu is not None:
            self._ask_slowly(epoch, request, answer, cost)
            return
        rng = self.clock.rng
        at = max(self._free, self.clock.now + rng.uniform(0.0002, 0.005)) + rng.expovariate(2000.0)
        self._free = at

        def carry_out() -> None:
            if self.hung or not self.charon.running:
                return  # no answer: the connection is given up
            result = request()
            back = rng.uniform(0.0002, 0.02) if rng.random() < 0.95 else rng.uniform(0.02, 0.5)
            self._later(back, epoch, lambda: answer(result))

        self._later(at - self.clock.now, epoch, carry_out)

    def _ask_slowly(
        self, epoch: int, request: Callable[[], T], answer: Callable[[T], None], cost: float
    ) -> None:
        """Where work takes time: one request is sent when the one before was answered, looks beside the rest;
        and charon counts as lost when it does not answer."""
        line = self._looks if answer == self._observed else self._requests
        waiting = True

        def send() -> None:
            self.clock.after(TIMEOUT, give_up)
            self.charon.work(cost, carry_out)

        def give_up() -> None:
            if waiting and epoch == self.epoch:
                self.watch.counts["charon lost"] += 1
                self.lose("charon did not answer")

        def carry_out() -> None:
            if self.hung or not self.charon.running:
                return
            result = request()
            self.charon.work(OTHER, lambda: take(result))

        def take(result: T) -> None:
            nonlocal waiting
            waiting = False
            if epoch != self.epoch:
                return
            line.popleft()
            if line:
                line[0]()
            answer(result)

        line.append(send)
        if len(line) == 1:
            send()

    def _needed(self, action: Action) -> bool:
        """Whether files and operator call for the connection that the action is about."""
        assert self.mesh is not None
        name = action.name if isinstance(action, UnloadConnection) else getattr(action, "connection", "")
        pair = self.mesh.state.pairs.get(name) if isinstance(name, str) else None
        return pair is not None and pair.connection is not None and not pair.held_down

    def _look_at_all(self) -> Holdings | None:
        return None if self._look_fails() else self.charon.holdings()

    def _look_at_sas(self) -> tuple[IkeSa, ...] | None:
        return None if self._look_fails() else self.charon.list_sas()

    def _look_fails(self) -> bool:
        return self.clock.rng.random() < self.charon.trouble.look

    def _observed(self, what: Holdings | tuple[IkeSa, ...] | None) -> None:
        assert self.mesh is not None
        self.mesh.observed(what, self.clock.now)
        self._step()

    def _done(self, action: Action, error: str | None) -> None:
        assert self.mesh is not None
        self.mesh.done(action, error, self.clock.now)
        self._step()

    def _carry_out(self, action: Action, needed: bool) -> str | None:  # noqa: PLR0911
        self.watch.before(self, action, needed=needed)
        charon = self.charon
        match action:
            case LoadCredentials():
                return charon.load_credentials(self.settings.credentials)
            case LoadConnection(connection=connection):
                return charon.load(connection)
            case UnloadConnection(name=name):
                return charon.unload(name)
            case Initiate(connection=name, child=child):
                return charon.initiate(name, child)
            case TerminateIke(unique_ids=unique_ids, force=force):
                errors = [charon.terminate_ike(unique_id, force=force) for unique_id in unique_ids]
                return next((error for error in errors if error is not None), None)
            case TerminateChild(unique_id=unique_id):
                return charon.terminate_child(unique_id)
            case RekeyChild(unique_id=unique_id):
                return charon.rekey_child(unique_id)
            case RekeyIke(unique_id=unique_id, reauth=reauth):
                return charon.rekey_ike(unique_id, reauth=reauth)
            case _:
                raise AssertionError(action)
