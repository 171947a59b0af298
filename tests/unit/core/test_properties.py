"""From any observed state to any desired one: the plan arrives, however it is interrupted."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st

from swanmesh.core.actions import Action, LoadConnection, TerminateChild, TerminateIke, UnloadConnection
from swanmesh.core.connections import ours
from swanmesh.core.desired import desired
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import Peer
from swanmesh.core.observed import ChildSa, IkeSa
from swanmesh.core.reasons import NONE, Reason
from tests.unit.core.build import child_sa, ike_sa, name_of, peer, settings
from tests.unit.core.ideal import IdealCharon, run

HOST = settings("web1.mesh.example", "203.0.113.1", "2001:db8::1")
PEERS = [
    peer("a.mesh.example", "203.0.113.2"),
    peer("b.mesh.example", "203.0.113.3", "2001:db8::3"),
    peer("c.mesh.example", "203.0.113.4", policy="prefer"),
    peer("d.mesh.example", "203.0.113.5", policy="off"),
    peer("e.mesh.example", "2001:db8::6", "203.0.113.6"),
]
GONE = peer("gone.mesh.example", "203.0.113.99")
NAMES = [name for one in PEERS for name in desired(HOST, one)] + [name_of(HOST, GONE)]
FOREIGN = ["home", "swanmesh", "swanmesh-x", "swanmesh-gone.mesh.example-0123456"]
MOST = 600
"""Steps: some for each pair, with the looks that they wait for; far less than a loop without end."""

wanted = st.lists(st.sampled_from(PEERS), unique_by=lambda one: one.name)


@st.composite
def charons(draw: st.DrawFn) -> IdealCharon:
    """Whatever a charon may hold when a controller first sees it."""
    charon = IdealCharon(HOST, credentials=draw(st.booleans()))
    current = {name: made.child for one in PEERS for name, (_, made) in desired(HOST, one).items()}
    for name in draw(st.lists(st.sampled_from(NAMES + FOREIGN), unique=True)):
        stale = draw(st.booleans()) or name not in current
        charon.loaded[name] = ("esp-00000000deadbeef" if stale else current[name],)
    for name in draw(st.lists(st.sampled_from(NAMES + FOREIGN), max_size=6)):
        number = len(charon.sas) + 1
        charon.sas[number] = draw(ike_sas(name, number))
    return charon


STATES = ["ESTABLISHED", "ESTABLISHED", "ESTABLISHED", "REKEYING", "REKEYED", "CONNECTING", "DELETING"]


@st.composite
def ike_sas(draw: st.DrawFn, name: str, number: int) -> IkeSa:
    state = draw(st.sampled_from(STATES))
    children: list[ChildSa] = []
    for index in range(draw(st.integers(0, 2)) if state != "CONNECTING" else 0):
        made = child_sa(
            number * 10 + index, draw(st.sampled_from(["INSTALLED", "INSTALLED", "REKEYED", "DELETED"]))
        )
        children.append(replace(made, age=draw(st.sampled_from([0.0, 3.0, 500.0]))))
    age = draw(st.sampled_from([0.0, 4.0, 1000.0]))
    return ike_sa(name, number, state, *children, initiator=draw(st.booleans()), age=age)


def controller(charon: IdealCharon, peers: list[Peer], now: float, *, files_first: bool = True) -> Mesh:
    """A new one, which knows its files and what charon holds, and nothing else."""
    mesh = Mesh(HOST, seed=1)
    mesh.hold(NONE if files_first else Reason("test", "the files are not read yet"))
    if files_first:
        mesh.update_peers(peers, (), now)
    mesh.charon_back("5.9.8", charon.holdings(), now)
    if not files_first:
        mesh.update_peers(peers, (), now)
        mesh.hold(NONE)
    mesh.confirm(now)  # what charon holds too much of, whatever it is, goes: the brake has tests of its own
    return mesh


def arrived(charon: IdealCharon, peers: list[Peer]) -> None:
    """charon holds exactly what the files say, one association a pair, and all that is not ours."""
    want = {name: (made.child,) for one in peers for name, (_, made) in desired(HOST, one).items()}
    shunts = {n: kids for n, kids in charon.loaded.items() if n.startswith("swanmesh-neighbour-discovery-")}
    assert len(shunts) == 1
    foreign = {name: kids for name, kids in charon.loaded.items() if not ours(name)}
    assert charon.loaded == want | shunts | foreign
    held: dict[str, list[IkeSa]] = {}
    for sa in charon.sas.values():
        if ours(sa.connection):
            held.setdefault(sa.connection, []).append(sa)
    assert held.keys() == want.keys()
    for sas in held.values():
        assert len(sas) == 1 and [child.works for child in sas[0].children] == [True]
    assert charon.credentials


def foreign_of(charon: IdealCharon) -> tuple[Any, ...]:
    names = {name for name in charon.loaded if not ours(name)}
    return names, {n for n, sa in charon.sas.items() if not ours(sa.connection) and sa.established}


def touches_ours_alone(charon: IdealCharon, names: dict[int, str]) -> None:
    """`names`: connections of the IKE_SAs as they were in the beginning, by unique id."""
    for action in charon.touched:
        if isinstance(action, UnloadConnection):
            assert ours(action.name)
        elif isinstance(action, LoadConnection):
            assert ours(action.connection.name)
        elif isinstance(action, TerminateIke):
            assert ours(action.connection)
            assert all(ours(names.get(number, action.connection)) for number in action.unique_ids)
        elif isinstance(action, TerminateChild):
            assert ours(names.get(action.unique_id // 10, action.connection))


def keep(charon: IdealCharon, peers: list[Peer]) -> set[str]:
    """The wanted pairs whose association works and must go on doing so."""
    want = {name for one in peers for name in desired(HOST, one)}
    return {sa.connection for sa in charon.sas.values() if sa.works and sa.connection in want}


EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "60"))

quick = how(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(charons(), wanted)
def test_any_state_to_any_other(charon: IdealCharon, peers: list[Peer]) -> None:
    foreign, names = foreign_of(charon), {n: sa.connection for n, sa in charon.sas.items()}
    standing = keep(charon, peers)
    mesh = controller(charon, peers, 100.0)
    never_without(charon, standing)
    run(mesh, charon, 100.0, most=MOST)
    arrived(charon, peers)
    touches_ours_alone(charon, names)
    assert foreign_of(charon) == foreign
    before = len(charon.touched)
    run(controller(charon, peers, 5000.0), charon, 5000.0, most=MOST)
    assert charon.touched[before:] == []  # a restart at rest does nothing


def never_without(charon: IdealCharon, standing: set[str]) -> None:
    """From here on each of `standing` keeps an association that works, whatever is carried out."""

    def check(action: Action) -> None:
        works = {sa.connection for sa in charon.sas.values() if sa.works}
        assert standing <= works, f"{action} left {standing - works} without"

    charon.check = check


@quick
@given(charons(), wanted, wanted, st.integers(0, 12), st.integers(0, 12))
def test_a_plan_stopped_anywhere_is_made_anew_and_arrives(
    charon: IdealCharon, before: list[Peer], peers: list[Peer], first: int, second: int
) -> None:
    """Killed after so many actions, the files change, killed again: only what charon holds is known."""
    run(controller(charon, before, 100.0), charon, 100.0, most=MOST, actions=first)
    charon.events.clear()
    run(controller(charon, peers, 1000.0), charon, 1000.0, most=MOST, actions=second)
    charon.events.clear()
    run(controller(charon, peers, 2000.0), charon, 2000.0, most=MOST)
    arrived(charon, peers)


@quick
@given(charons(), wanted, st.permutations(PEERS))
def test_the_order_of_files_and_charon_changes_nothing(
    charon: IdealCharon, peers: list[Peer], order: list[Peer]
) -> None:
    ends = []
    for files_first in (True, False):
        for arrangement in (peers, [one for one in order if one in peers]):
            mine = IdealCharon(HOST, dict(charon.loaded), dict(charon.sas), charon.credentials)
            mesh = controller(mine, arrangement, 100.0, files_first=files_first)
            run(mesh, mine, 100.0, most=MOST)
            arrived(mine, peers)
            kept = {number for number in mine.sas if number < 1000}
            ends.append((dict(mine.loaded), kept))
    assert all(end == ends[0] for end in ends)


@quick
@given(charons(), st.lists(wanted, min_size=1, max_size=4))
def test_any_way_through_the_files_ends_alike(charon: IdealCharon, path: list[list[Peer]]) -> None:
    """Peers come and go while it works; no restart in between."""
    mesh = controller(charon, [], 100.0)
    held: list[Peer] = []
    now = 100.0
    for peers in path:
        gone = [one.source for one in held if one not in peers]
        mesh.update_peers(peers, gone, now)
        run(mesh, charon, now, most=MOST, actions=3)
        held, now = peers, now + 2000.0
    lost = charon.holdings()
    mesh.charon_lost(Reason("test", "a hang"), now)
    mesh.charon_back("5.9.8", lost, now)
    run(mesh, charon, now, most=MOST)
    arrived(charon, path[-1])
