"""An ideal charon: it does at once what it is told, its peers answer at once, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from swanmesh.core.actions import (
    Action,
    Initiate,
    LoadConnection,
    LoadCredentials,
    ObserveAll,
    ObserveSas,
    TerminateChild,
    TerminateIke,
    UnloadConnection,
)
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import Settings
from swanmesh.core.observed import (
    ChildUp,
    Event,
    Holdings,
    IkeDown,
    IkeSa,
    IkeUp,
    LoadedConnection,
    LoadedCredentials,
)
from tests.unit.core.build import child_sa, ike_sa


@dataclass(slots=True)
class IdealCharon:
    settings: Settings
    loaded: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the children by name of the connection."""
    sas: dict[int, IkeSa] = field(default_factory=dict)
    credentials: bool = False
    touched: list[Action] = field(default_factory=list)
    """All that was carried out, looks apart."""
    events: list[Event] = field(default_factory=list)
    """What it raised and nobody has heard yet."""
    check: Callable[[Action], None] | None = None
    """Called after each action."""
    _next: int = 1000

    def holdings(self) -> Holdings:
        mine = self.settings.credentials
        held = LoadedCredentials(
            key_ids=frozenset({mine.key_id} if self.credentials else ()),
            certificates=frozenset({mine.certificate_id, *mine.authority_ids} if self.credentials else ()),
        )
        conns = tuple(LoadedConnection(name=name, children=kids) for name, kids in self.loaded.items())
        return Holdings(connections=conns, sas=tuple(self.sas.values()), credentials=held)

    def age(self, seconds: float) -> None:
        """What is on its way when nobody does anything: exchanges end, SAs being deleted go."""
        for unique_id, sa in list(self.sas.items()):
            if sa.state in ("CONNECTING", "CREATED", "DELETING", "REKEYED"):
                del self.sas[unique_id]
            else:
                children = tuple(
                    child for child in sa.children if child.state in ("INSTALLED", "REKEYING", "UPDATING")
                )
                self.sas[unique_id] = replace(sa, children=children, age=(sa.age or 0.0) + seconds)

    def carry_out(self, action: Action) -> str | None:
        """Returns charon's error, or None."""
        self.touched.append(action)
        error = self._carry_out(action)
        if self.check is not None:
            self.check(action)
        return error

    def _carry_out(self, action: Action) -> str | None:
        match action:
            case LoadCredentials():
                self.credentials = True
            case LoadConnection(connection=connection):
                self.loaded[connection.name] = (connection.child,)
            case UnloadConnection(name=name):
                del self.loaded[name]
            case TerminateIke(unique_ids=unique_ids):
                gone = [sa for unique_id in unique_ids if (sa := self.sas.pop(unique_id, None)) is not None]
                self.events += [IkeDown(replace(sa, state="DELETING", children=())) for sa in gone]
                if len(gone) < len(unique_ids):
                    return "no matching SAs to terminate found"
            case TerminateChild(unique_id=unique_id):
                self._end_child(unique_id)
            case Initiate(connection=name, child=child):
                assert self.loaded[name] == (child,)
                self._initiate(name)
            case _:
                raise AssertionError(action)
        return None

    def _end_child(self, unique_id: int) -> None:
        for sa in list(self.sas.values()):
            rest = tuple(child for child in sa.children if child.unique_id != unique_id)
            self.sas[sa.unique_id] = replace(sa, children=rest)

    def _initiate(self, name: str) -> None:
        self._next += 1
        under = next((sa for sa in self.sas.values() if sa.connection == name and sa.established), None)
        if under is None:
            under = ike_sa(name, self._next, age=0.0)
            self.events.append(IkeUp(under))
        child = replace(child_sa(self._next), age=0.0)
        self.sas[under.unique_id] = replace(under, children=(*under.children, child))
        self.events.append(ChildUp(replace(under, children=(child,))))


def run(mesh: Mesh, charon: IdealCharon, start: float, *, most: int, actions: int | None = None) -> int:
    """Carry out what the mesh decides until nothing but looks is left, or after so many actions. Returns how
    many steps it took; `most` is the bound that it must keep."""
    now, last, steps = start, start, 0
    done = 0
    while True:
        steps += 1
        assert steps <= most, f"no end after {steps} steps: {charon.touched[-5:]}"
        decided = mesh.step(now).actions
        for action in decided:
            if isinstance(action, ObserveAll):
                mesh.observed(charon.holdings(), now)
            elif isinstance(action, ObserveSas):
                mesh.observed(charon.holdings().sas, now)
            else:
                if done == actions:
                    return steps
                done, last = done + 1, now
                mesh.done(action, charon.carry_out(action), now)
                events, charon.events = charon.events, []
                for event in events:
                    mesh.event(event, now)
        if decided:
            continue  # what came of them is decided on at once, as the service does
        due = mesh.due
        if due is None or due > last + 200.0:
            return steps
        charon.age(max(0.0, due - now))
        now = max(now, due)
