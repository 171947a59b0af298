"""From files to what is desired: peers that come, go and come back."""

from __future__ import annotations

from swanmesh.core.actions import TerminateIke, UnloadConnection
from swanmesh.core.mesh import Mesh
from swanmesh.core.reasons import PEER_REMOVED
from tests.unit.core.build import association, holdings, name_of, peer, settings

HOST = settings()
OTHER = peer()
NAME = name_of(HOST, OTHER)


def kinds(mesh: Mesh, now: float) -> list[str]:
    return [event.kind for event in mesh.step(now).events]


def test_a_peer_back_before_charon_was_reached_is_not_leaving() -> None:
    mesh = Mesh(HOST, seed=1)
    mesh.update_peers([OTHER], (), 0.0)
    mesh.update_peers((), [OTHER.source], 1.0)
    assert mesh.state.leaving.keys() == {OTHER.name}
    mesh.update_peers([OTHER], (), 2.0)
    assert not mesh.state.leaving
    mesh.charon_back("5.9.8", holdings(HOST), 3.0)
    assert kinds(mesh, 3.0) == []


def test_a_peer_that_comes_back_as_off_is_not_told_as_removed() -> None:
    mesh = Mesh(HOST, seed=1)
    mesh.charon_back("5.9.8", holdings(HOST), 0.0)
    mesh.update_peers([peer(policy="off")], (), 1.0)
    mesh.update_peers((), [OTHER.source], 2.0)
    assert kinds(mesh, 2.0) == ["peer-removed"]
    mesh.update_peers([OTHER], (), 3.0)
    assert kinds(mesh, 3.0) == ["peer-added"]
    mesh.update_peers([peer(policy="off")], (), 4.0)
    assert kinds(mesh, 4.0) == []


def test_a_peer_that_leaves_is_unloaded_then_ended_then_told() -> None:
    mesh = Mesh(HOST, seed=1)
    mesh.update_peers([OTHER], (), 0.0)
    child = mesh.state.pairs.of(OTHER.name)[0].connection
    assert child is not None
    mesh.charon_back("5.9.8", holdings(HOST, association(NAME, 7), loaded={NAME: child.child}), 0.0)
    assert [type(action).__name__ for action in mesh.step(0.0).actions] == []
    mesh.update_peers((), [OTHER.source], 1.0)
    (unload,) = mesh.step(1.0).actions
    assert unload == UnloadConnection(name=NAME, peer=OTHER.name, reason=PEER_REMOVED)
    mesh.done(unload, None, 1.1)
    (end,) = mesh.step(1.1).actions
    assert isinstance(end, TerminateIke) and end.unique_ids == (7,)
    mesh.done(end, None, 1.2)
    assert kinds(mesh, 1.2) == []
    look = mesh.step(3.3).actions
    assert [type(action).__name__ for action in look] == ["ObserveSas"]
    mesh.observed((), 3.4)
    assert kinds(mesh, 3.4) == ["peer-removed"]
    assert not mesh.state.leaving and not len(mesh.state.pairs)
