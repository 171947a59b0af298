"""charon's contents taken away by others: noticed by its log, or by the first authentication that fails."""

from __future__ import annotations

import pytest

from swanmesh.core.actions import LoadConnection, LoadCredentials, ObserveAll
from swanmesh.core.mesh import Mesh
from swanmesh.core.observed import Diagnosis, Hint, IkeDown
from swanmesh.core.reasons import Cause, Reason
from swanmesh.core.verdict import EMPTY
from tests.unit.core.build import association, holdings, name_of, peer, settings

HOST, PEER = settings(), peer()
NAME = name_of(HOST, PEER)


def running() -> Mesh:
    """A host with one peer that is up, at 10 s."""
    mesh = Mesh(HOST, seed=1)
    mesh.update_peers([PEER], (), 0.0)
    mesh.charon_back("5.9.8", holdings(HOST, association(NAME), loaded={NAME: child(mesh)}), 0.0)
    assert mesh.step(10.0).actions == ()
    return mesh


def child(mesh: Mesh) -> str:
    pair = mesh.state.pairs.get(NAME)
    assert pair is not None and pair.connection is not None
    return pair.connection.child


def looks(mesh: Mesh, now: float) -> list[str]:
    return [action.reason.words for action in mesh.step(now).actions if isinstance(action, ObserveAll)]


@pytest.mark.parametrize("about", ["the trap", "a key"])
def test_a_hint_brings_one_look_at_everything_soon(about: str) -> None:
    mesh = running()
    for _ in range(50):
        mesh.event(
            Hint(child=child(mesh) if about == "the trap" else "", reason=Reason("test", "somebody did it")),
            10.0,
        )
    assert looks(mesh, 10.1) == []
    assert mesh.due is not None and mesh.due <= 10.2
    assert looks(mesh, 10.3) == ["somebody did it"]


def test_what_is_lost_while_the_look_is_under_way_brings_another() -> None:
    mesh = running()
    mesh.event(Hint(child="", reason=Reason("test", "one")), 10.0)
    assert looks(mesh, 10.3) == ["one"]
    mesh.event(Hint(child=child(mesh), reason=Reason("test", "two")), 10.4)
    mesh.observed(holdings(HOST, association(NAME), loaded={NAME: child(mesh)}), 10.5)
    assert looks(mesh, 13.0) == ["two"]


def test_a_trap_that_we_take_ourselves_is_no_hint() -> None:
    mesh = running()
    gone = child(mesh)
    mesh.update_peers([], [PEER.source], 10.0)
    (unload, *_) = mesh.step(10.0).actions
    mesh.event(Hint(child=gone, reason=Reason("test", "somebody did it")), 10.1)
    mesh.done(unload, None, 10.2)
    mesh.event(Hint(child=gone, reason=Reason("test", "somebody did it")), 10.3)
    assert "somebody did it" not in looks(mesh, 11.0)


def test_a_hint_about_a_child_of_somebody_elses_is_none() -> None:
    mesh = running()
    mesh.event(Hint(child="home", reason=Reason("test", "somebody did it")), 10.0)
    assert looks(mesh, 11.0) == []


def test_what_was_unloaded_is_loaded_again() -> None:
    mesh = running()
    mesh.event(Hint(child=child(mesh), reason=Reason("test", "somebody did it")), 10.0)
    mesh.step(10.3)
    mesh.observed(holdings(HOST, association(NAME), loaded={}), 10.4)
    actions = mesh.step(10.4).actions
    assert [(type(action), action.reason.words) for action in actions] == [
        (LoadConnection, "somebody unloaded it from charon")
    ]


@pytest.mark.parametrize("missing", ["all", "the authority"])
def test_cleared_credentials_are_loaded_again_whole(missing: str) -> None:
    mesh = running()
    held = holdings(HOST, association(NAME), loaded={NAME: child(mesh)}, credentials_too=missing != "all")
    if missing == "the authority":
        certificates = held.credentials.certificates - set(HOST.credentials.authority_ids)
        object.__setattr__(held.credentials, "certificates", certificates)
    mesh.observed(held, 20.0)
    (load,) = mesh.step(20.0).actions
    assert isinstance(load, LoadCredentials)
    assert load.authorities == HOST.credentials.authorities
    assert b"key of" not in repr(load).encode()


def test_what_charon_says_was_unloaded_is_loaded_at_once_and_not_initiated_before() -> None:
    mesh = running()
    mesh.event(Hint(child="", reason=Reason("test", "gone"), unloaded=child(mesh)), 100.0)
    (load,) = [action for action in mesh.step(100.0).actions if action.pair == NAME]
    assert load.verb == "load" and "somebody unloaded it" in load.reason.words
    mesh.event(IkeDown(association(NAME)), 100.1)
    assert [action.verb for action in mesh.step(160.0).actions if action.pair == NAME] == []
    mesh.done(load, None, 160.1)
    assert "initiate" in [action.verb for action in mesh.step(220.0).actions]


def test_what_the_unit_unloads_after_charons_start_is_told_as_that() -> None:
    mesh = Mesh(HOST, seed=1)
    mesh.update_peers([PEER], [], 0.0)
    mesh.charon_back("5.9.8", EMPTY, 0.0)
    loads = [action for action in mesh.step(0.0).actions if action.verb == "load"]
    for action in loads:
        mesh.done(action, None, 0.1)
    mesh.event(Hint(child="", reason=Reason("test", "gone"), unloaded=NAME), 3.0)
    (again,) = [action for action in mesh.step(3.0).actions if action.verb == "load"]
    assert "swanctl --load-all" in again.reason.words


def test_a_newer_charon_gets_what_suits_it_from_the_first_load_on() -> None:
    mesh = Mesh(HOST, seed=1)
    mesh.update_peers([PEER], [], 0.0)
    mesh.charon_back("6.0.1", EMPTY, 0.0)
    loads = [action for action in mesh.step(0.0).actions if isinstance(action, LoadConnection)]
    (terms,) = {load.connection.terms for load in loads if load.connection.terms is not None}
    assert terms.dpd_delay == 60
    assert {load.reason.words for load in loads} == {"new peer"}


def test_a_charon_that_was_upgraded_gets_what_suits_it_now() -> None:
    mesh = running()
    held = holdings(HOST, association(NAME), loaded={NAME: child(mesh)})
    mesh.charon_lost(Reason("test", "upgraded"), 10.0)
    mesh.charon_back("6.0.1", held, 20.0)
    (load,) = [action for action in mesh.step(20.0).actions if isinstance(action, LoadConnection)]
    assert load.connection.terms is not None and load.connection.terms.dpd_delay == 60


@pytest.mark.parametrize(
    ("cause", "doubted"),
    [
        (Cause.MISSING_KEY, True),
        (Cause.AUTHORITY_UNKNOWN, True),
        (Cause.PEER_UNREACHABLE, False),
    ],
)
def test_an_authentication_that_fails_for_want_of_credentials_brings_a_look(
    cause: Cause, doubted: bool
) -> None:
    mesh = running()
    mesh.event(Diagnosis(NAME, 5, Reason(cause, "in words")), 10.0)
    assert looks(mesh, 10.0) == (["authentication failed: in words"] if doubted else [])


def test_a_stranger_who_fails_as_often_as_he_likes_brings_few_looks() -> None:
    mesh = running()
    seen = 0
    for number in range(200):
        now = 10.0 + number / 10
        mesh.event(
            Diagnosis(NAME, 5 + number, Reason(Cause.AUTHORITY_UNKNOWN, "no trusted key for mallory")), now
        )
        for _ in looks(mesh, now):
            seen += 1
            mesh.observed(holdings(HOST, association(NAME), loaded={NAME: child(mesh)}), now)
    assert 1 <= seen <= 3
