"""Where charon goes on asking for long: what nobody answers is ended, what carries data stands."""

from __future__ import annotations

from dataclasses import replace

from swanmesh.core.actions import Action, Initiate, ObserveAll, ObserveSas, TerminateIke
from swanmesh.core.observed import IkeDown, IkeSa
from swanmesh.core.xfrm import KernelUnwatched
from tests.unit.core.build import association, holdings, ike_sa, with_tasks
from tests.unit.core.life import Life

LIFETIME = 10.2
"""Seconds until the charon of Debian 12 gives up by itself, with the shipped settings."""


def until(life: Life, end: float, *sas: IkeSa) -> list[tuple[float, Action]]:
    """What is done up to `end` or to the first action, looks apart; those show `sas`."""
    loaded = {life.name: life.pair.loaded or ""}
    done: list[tuple[float, Action]] = []
    while life.now < end:
        for action in life.step():
            if isinstance(action, ObserveSas):
                life.mesh.observed(sas, life.now)
            elif isinstance(action, ObserveAll):
                life.mesh.observed(holdings(life.host, *sas, loaded=loaded), life.now)
            else:
                done.append((life.now, action))
        if done:
            break
        due = life.mesh.due
        life.now = max(life.now + 0.001, due if due is not None else end)
    return done


def connecting(life: Life, *, heard: bool = False) -> IkeSa:
    return replace(ike_sa(life.name, 7, "CONNECTING"), spi_responder="ab" * 8 if heard else "0" * 16)


def test_an_initiation_that_nobody_answers_is_ended_and_tried_again_later() -> None:
    life = Life(version="6.0.1")
    life.initiate()
    began = life.now
    ((at, action),) = until(life, began + 60.0, connecting(life))
    assert isinstance(action, TerminateIke) and action.force and action.unique_ids == (7,)
    assert LIFETIME < at - began < 2 * LIFETIME
    life.do(action)
    ((_, again),) = until(life, life.now + 60.0)
    assert isinstance(again, Initiate) and "no answer" in again.reason.words


def test_a_peer_that_has_answered_is_given_the_time_that_charon_gives() -> None:
    life = Life(version="6.0.1")
    life.initiate()
    assert until(life, life.now + 60.0, connecting(life, heard=True)) == []


def test_what_charon_gave_up_by_itself_is_not_ended_as_well() -> None:
    life = Life(version="6.0.1")
    life.initiate()
    assert until(life, life.now + LIFETIME, connecting(life)) == []
    ((_, again),) = until(life, life.now + 60.0)
    assert isinstance(again, Initiate)


def test_a_delete_of_ours_that_nobody_answers_is_not_waited_for() -> None:
    life = Life(version="6.0.1")
    sa = life.up()
    life.mesh.update_peers([], [life.peer.source], life.now)
    ((_, unload),) = until(life, life.now + 10.0, sa)
    life.do(unload)
    ((_, end),) = until(life, life.now + 10.0, sa)
    assert isinstance(end, TerminateIke) and not end.force
    life.do(end)
    asked, ending = life.now, with_tasks(replace(sa, state="DELETING"), active=("IKE_DELETE",))
    ((at, again),) = until(life, asked + 60.0, ending)
    assert isinstance(again, TerminateIke) and again.force and again.unique_ids == (sa.unique_id,)
    assert LIFETIME < at - asked < 2 * LIFETIME
    life.do(again)
    life.event(IkeDown(ending))
    assert until(life, life.now + 60.0) == []


def test_what_others_end_is_left_to_charon() -> None:
    life = Life(version="6.0.1")
    sa = replace(life.up(), state="DELETING")
    assert not any(isinstance(done, TerminateIke) for _, done in until(life, life.now + 15.0, sa))


def test_an_association_that_waits_for_a_sign_of_life_stands() -> None:
    life = Life(version="6.0.1")
    life.up()
    life.mesh.kernel_event(KernelUnwatched("a test"), life.now)
    asked = with_tasks(association(life.name, 1), active=("IKE_DPD",))
    assert until(life, life.now + 120.0, asked) == []
    assert life.pair.up
