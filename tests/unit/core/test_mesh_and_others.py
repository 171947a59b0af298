"""What people and others do to a mesh that runs: operator, files, credentials, charon itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swanmesh.core.actions import (
    Initiate,
    LoadConnection,
    LoadCredentials,
    ObserveAll,
    RekeyChild,
    RekeyIke,
    TerminateIke,
    UnloadConnection,
)
from swanmesh.core.mesh import Mesh
from swanmesh.core.observed import IkeDown
from swanmesh.core.peers.removals import SETTLE
from swanmesh.core.reasons import NONE, SAFETY_NET, Reason
from swanmesh.core.verdict import pair_verdict
from tests.unit.core.build import association, holdings, ike_sa, name_of, peer, settings
from tests.unit.core.life import HOW, Life


def test_what_stands_is_left_alone_after_a_restart() -> None:
    first = Life()
    first.up()
    again = Mesh(first.host, seed=2)
    again.update_peers([first.peer], (), 500.0)
    child = first.pair.connection
    assert child is not None
    held = holdings(first.host, association(first.name, 1, age=400.0), loaded={first.name: child.child})
    again.charon_back("5.9.8", held, 500.0)
    step = again.step(500.0)
    assert step.actions == () and step.events == ()
    pair = again.state.pairs.get(first.name)
    assert pair is not None and pair.up and pair.standing.since == 100.0


def test_a_changed_connection_is_loaded_with_what_changed_as_its_reason() -> None:
    life = Life()
    life.up()
    how = replace(life.host.connection, dpd_delay=9)
    life.mesh.configure(replace(life.host, connection=how), life.now)
    action = life.one()
    assert isinstance(action, LoadConnection) and action.reason.words == "settings changed"
    life.do(action)
    assert life.step() == [] and life.pair.up
    life.mesh.update_peers([replace(life.peer, policy=settings().policy)], (), life.now)
    assert life.step() == [], "the same policy, said by the peer's file"


def test_a_shorter_time_between_looks_does_not_wait_for_the_longer_one_to_end() -> None:
    life = Life()
    life.up()
    life.mesh.configure(replace(life.host, initiation=replace(life.host.initiation, resync=2.0)), life.now)
    assert ObserveAll(reason=SAFETY_NET) in life.step(life.now + 2.0)


def test_what_charon_no_longer_tries_when_it_is_back_gives_its_place_back() -> None:
    life = Life(in_flight=1)
    life.initiate()
    loaded = {life.name: life.pair.loaded or ""}
    life.mesh.charon_lost(Reason("test", "the socket closed"), life.now)
    life.mesh.charon_back("5.9.8", holdings(life.host, loaded=loaded), life.now)
    assert life.mesh.state.admission.in_flight == 0
    assert isinstance(life.one(life.pair.attempt.next_at), Initiate)


def test_what_charon_still_tries_when_it_is_back_is_not_asked_for_again() -> None:
    """A charon with too much to do is slow to answer, and lost; it has forgotten nothing."""
    life = Life(in_flight=1)
    life.initiate()
    loaded = {life.name: life.pair.loaded or ""}
    life.mesh.charon_lost(Reason("test", "charon did not answer"), life.now)
    trying = ike_sa(life.name, 1, "CONNECTING")
    life.mesh.charon_back("5.9.8", holdings(life.host, trying, loaded=loaded), life.now)
    assert life.mesh.state.admission.in_flight == 1
    for _ in range(8):
        assert not any(isinstance(action, Initiate) for action in life.step(life.now + 1.0))


def test_no_initiation_before_the_credentials_are_loaded() -> None:
    life = Life(connect=False)
    life.mesh.charon_back("5.9.8", holdings(life.host, credentials_too=False), 0.0)
    keys, load = life.step()
    assert isinstance(keys, LoadCredentials) and "key of" not in repr(keys)
    life.do(load)
    assert life.step(1.0) == []
    life.do(keys, "parsing failed")
    assert (
        life.step(1.0) == []
        and pair_verdict(life.mesh.state, life.pair).reason.words
        == "charon refused the credentials: parsing failed"
    )
    again = life.one(1.0 + 2 * HOW.backoff_base)
    assert isinstance(again, LoadCredentials) and again.reason.words == "parsing failed"
    life.do(again)
    assert [type(action) for action in life.step()] == [Initiate]


def test_cleared_credentials_are_loaded_again() -> None:
    life = Life()
    life.up()
    child = life.pair.loaded
    assert child is not None
    assert isinstance(life.one(61.0), ObserveAll)
    held = holdings(life.host, association(life.name, 1), loaded={life.name: child}, credentials_too=False)
    life.mesh.observed(held, 61.1)
    assert [type(action) for action in life.step(61.1)] == [LoadCredentials]


def test_down_and_up_by_the_operator() -> None:
    life = Life()
    sa = life.up()
    life.kinds()
    life.mesh.command("down", life.peer.name, life.now)
    shunt = life.one()
    assert isinstance(shunt, LoadConnection) and shunt.connection.child.startswith("drop-")
    life.do(shunt)
    end = life.one()
    assert isinstance(end, TerminateIke) and end.reason.words == "held down by the operator"
    life.do(end)
    life.event(IkeDown(replace(sa, state="DELETING", children=())))
    assert not any(isinstance(action, Initiate) for action in life.step(life.now + 100.0))
    life.mesh.command("up", life.peer.name, life.now)
    life.mesh.observed(holdings(life.host, loaded={life.name: shunt.connection.child}), life.now)
    load = next(action for action in life.step() if isinstance(action, LoadConnection))
    assert load.connection.child.startswith("esp-")
    life.do(load)
    assert any(isinstance(action, Initiate) for action in life.step(life.now + 0.01))
    with pytest.raises(KeyError):
        life.mesh.command("up", "nobody.mesh.example", life.now)


def test_down_outlives_the_controller_and_up_is_heard_before_charon_is_reached() -> None:
    life = Life()
    life.up()
    life.mesh.command("down", life.peer.name, life.now)
    shunt = life.one()
    assert isinstance(shunt, LoadConnection)
    held = holdings(life.host, loaded={life.name: shunt.connection.child})
    for commanded, kinds in ((False, []), (True, [LoadConnection])):
        again = Mesh(life.host, seed=2)
        again.update_peers([life.peer], (), 0.0)
        if commanded:
            again.command("up", life.peer.name, 0.0)
        again.charon_back("5.9.8", held, 1.0)
        assert [type(action) for action in again.step(1.0).actions] == kinds
        assert (life.peer.name in again.state.down) is not commanded


def test_rekey_asks_for_both_and_changes_no_state() -> None:
    life = Life()
    life.up()
    life.mesh.command("rekey", life.peer.name, life.now)
    child, ike = life.step()
    assert isinstance(child, RekeyChild) and isinstance(ike, RekeyIke) and not ike.reauth
    for action in (child, ike):
        life.do(action)
    assert life.step() == [] and life.pair.up


def test_unloaded_by_somebody_else_is_loaded_again_and_the_association_stays() -> None:
    life = Life()
    sa = life.up()
    assert isinstance(life.one(61.0), ObserveAll)
    life.mesh.observed(holdings(life.host, sa), 61.1)
    load = life.one(61.1)
    assert isinstance(load, LoadConnection) and load.reason.words == "somebody unloaded it from charon"
    life.do(load)
    assert life.step() == [] and life.pair.up and life.kinds() == []


@pytest.mark.parametrize("later", [False, True], ids=["at-first", "at-a-look"])
def test_peers_unknown_to_the_files_are_unloaded_but_not_while_a_file_is_unreadable(later: bool) -> None:
    host = settings()
    stray = name_of(host, peer("old.mesh.example", "203.0.113.77"))
    held = holdings(host, association(stray, 5), loaded={stray: "esp-0123456789abcdef"})
    mesh = Mesh(host, seed=1)
    mesh.hold(Reason("test", "peers.d/x.yaml cannot be read"))
    mesh.charon_back("5.9.8", holdings(host) if later else held, 0.0)
    mesh.observed(held, 0.0)
    assert mesh.step(0.0).actions == ()
    mesh.hold(NONE)
    (unload,) = mesh.step(1.0).actions
    assert isinstance(unload, UnloadConnection) and unload.peer == "old.mesh.example"
    mesh.done(unload, None, 1.0)
    (end,) = mesh.step(1.0).actions
    assert isinstance(end, TerminateIke) and end.unique_ids == (5,)


def test_charon_lost_and_back() -> None:
    life = Life()
    life.up()
    life.kinds()
    life.mesh.charon_lost(Reason("test", "the socket closed"), 100.0)
    assert life.kinds() == ["charon-lost"] and life.pair.up, "the kernel may go on: nobody is told of a down"
    assert life.mesh.due is None
    life.mesh.charon_back("5.9.8", holdings(life.host), 130.0)
    life.now = 130.0
    step = life.mesh.step(130.0)
    assert [event.kind for event in step.events] == ["peer-down", "charon-back"]
    assert [type(action) for action in step.actions] == [LoadConnection]
    assert life.pair.standing.cause.words == "charon no longer had it when it answered again"


def test_a_peer_gone_by_a_reload_is_told_as_removed() -> None:
    life = Life()
    life.initiate()
    life.mesh.update_peers((), (), 1.0, gone=[life.peer.source])
    assert life.step(1.0) == [], "it may come back"
    unload = life.one(1.0 + SETTLE)
    assert isinstance(unload, UnloadConnection)
    life.do(unload)
    step = life.mesh.step(1.0 + SETTLE)
    assert [(event.kind, event.peer) for event in step.events] == [("peer-removed", life.peer.name)]
