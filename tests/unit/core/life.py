"""One host with one peer, and its charon played by the test."""

from __future__ import annotations

from dataclasses import replace

from swanmesh.core.actions import Action, Initiate, LoadConnection
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import ConnectionSettings, InitiationSettings, Peer
from swanmesh.core.observed import ChildUp, Event, IkeSa, IkeUp
from swanmesh.core.pairs.initiation import initiates
from swanmesh.core.pairs.pair import Pair
from tests.unit.core.build import association, holdings, ike_sa, name_of, peer, settings

HOW = InitiationSettings()


def found(*, ours: bool, skip: int = 0) -> Peer:
    """A peer of whose pair this host is the initiator, or is not."""
    names = (f"web{n}.mesh.example" for n in range(2 + skip, 200))
    name = next(name for name in names if initiates("web1.mesh.example", name) == ours)
    return peer(name, f"203.0.113.{2 + skip}")


class Life:
    """A Mesh with one peer, and its charon played by the test."""

    def __init__(
        self,
        *,
        ours: bool = True,
        in_flight: int = 32,
        connect: bool = True,
        connection: ConnectionSettings | None = None,
        version: str = "5.9.8",
    ) -> None:
        self.host = settings(initiation=replace(HOW, in_flight=in_flight), connection=connection)
        self.peer = found(ours=ours)
        self.name = name_of(self.host, self.peer)
        self.mesh = Mesh(self.host, seed=1)
        self.mesh.update_peers([self.peer], (), 0.0)
        self.now = 0.0
        if connect:
            self.mesh.charon_back(version, holdings(self.host), 0.0)

    @property
    def pair(self) -> Pair:
        pair = self.mesh.state.pairs.get(self.name)
        assert pair is not None
        return pair

    def step(self, now: float | None = None) -> list[Action]:
        self.now = self.now if now is None else now
        return list(self.mesh.step(self.now).actions)

    def one(self, now: float | None = None) -> Action:
        (action,) = self.step(now)
        return action

    def do(self, action: Action, error: str | None = None) -> None:
        self.mesh.done(action, error, self.now)

    def load(self) -> None:
        """Brings it to where it is loaded and waits for its time to initiate."""
        action = self.one()
        assert isinstance(action, LoadConnection)
        self.do(action)
        assert self.step() == []

    def initiate(self) -> Initiate:
        """Brings it to where an initiation is under way."""
        self.load()
        action = self.one(self.pair.attempt.next_at)
        assert isinstance(action, Initiate)
        self.do(action)
        assert self.step() == []
        return action

    def event(self, event: Event) -> None:
        self.mesh.event(event, self.now)

    def up(self) -> IkeSa:
        """Brings it up."""
        self.initiate()
        self.event(IkeUp(ike_sa(self.name, 1, age=0.0)))
        sa = association(self.name, 1, age=0.0)
        self.event(ChildUp(sa))
        assert self.step() == [] and self.pair.up
        return sa

    def kinds(self) -> list[str]:
        return [event.kind for event in self.mesh.step(self.now).events]
