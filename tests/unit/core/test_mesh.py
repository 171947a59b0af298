"""One pair through its life: what follows from each fact, outcome and event, with its reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swanmesh.core.actions import Action, Initiate, LoadConnection, ObserveAll, ObserveSas, TerminateIke
from swanmesh.core.decide.rules import decide
from swanmesh.core.observed import ChildDown, ChildUp, Diagnosis, IkeDown, IkeUp
from tests.unit.core.build import association, child_sa, holdings, ike_sa, with_tasks
from tests.unit.core.life import HOW, Life, found


def test_from_file_to_association() -> None:
    life = Life()
    load = life.one()
    assert isinstance(load, LoadConnection)
    assert (load.reason, load.peer) == ("new peer", life.peer.name)
    assert life.step() == [], "one action at a time"
    life.do(load)
    assert life.step() == [] and 0.0 <= life.pair.next_attempt <= HOW.start_jitter
    start = life.one(life.pair.next_attempt)
    assert start == Initiate(
        connection=life.name, child=load.connection.child, peer=life.peer.name, reason="ours to initiate"
    )
    life.do(start)
    life.event(IkeUp(ike_sa(life.name, 1)))
    assert not life.pair.up and life.mesh.state.admission.in_flight == 1
    life.event(ChildUp(association(life.name, 1)))
    assert life.pair.up and life.mesh.state.admission.in_flight == 0
    assert life.kinds() == ["peer-up"]
    assert life.step(life.now + 30.0) == []


def test_nothing_is_done_before_charon_answers() -> None:
    life = Life(connect=False)
    assert life.step(100.0) == [] and life.mesh.due is None
    life.mesh.charon_back("5.9.8", holdings(life.host), 100.0)
    assert life.mesh.due == 0.0
    assert isinstance(life.one(100.0), LoadConnection)


def test_the_other_end_waits_and_then_takes_over_after_a_look() -> None:
    life = Life(ours=False)
    life.load()
    assert HOW.takeover <= life.pair.next_attempt <= 1.25 * HOW.takeover
    look = life.one(life.pair.next_attempt)
    assert isinstance(look, ObserveSas) and life.peer.name in look.reason
    life.mesh.observed((), life.now + 0.1)
    action = life.one(life.now + 0.1)
    assert isinstance(action, Initiate) and action.reason == "the peer did not initiate"


def test_the_look_before_taking_over_finds_the_peer_at_it() -> None:
    life = Life(ours=False)
    life.load()
    life.one(life.pair.next_attempt)
    life.mesh.observed((ike_sa(life.name, 1, "CONNECTING", initiator=False),), life.now + 0.1)
    assert life.step(life.now + 0.1) == []


def test_a_refused_load_is_tried_again_later_and_holds_up_nobody() -> None:
    life = Life()
    other = found(ours=True, skip=50)
    life.mesh.update_peers([other], (), 0.0)
    first, second = life.step()
    life.do(first, "no memory")
    life.do(second)
    assert isinstance(first, LoadConnection) and first.peer == life.peer.name
    assert life.pair.error == "no memory"
    look = life.step(1.0)
    assert [type(action) for action in look] == [ObserveAll, Initiate] or len(look) == 2
    assert HOW.backoff_base <= life.pair.retry_at <= 2 * HOW.backoff_base
    again = [action for action in life.step(life.pair.retry_at) if isinstance(action, LoadConnection)]
    assert [action.peer for action in again] == [life.peer.name]
    life.do(again[0])
    assert life.pair.error == ""


def test_a_refusal_is_forgotten_once_nothing_is_left_to_do() -> None:
    life = Life()
    sa = life.up()
    both = (sa, association(life.name, 2, age=50.0))
    life.one(61.0)
    life.mesh.observed(holdings(life.host, *both, loaded={life.name: str(life.pair.loaded)}), 61.0)
    end: list[Action] = []
    while not end:
        life.now += 1.0
        for action in life.step():
            if isinstance(action, TerminateIke):
                end.append(action)
            else:
                life.mesh.observed(both, life.now)
    life.do(end[0], "no matching SAs to terminate found")
    assert life.pair.error and life.pair.extra_since is not None
    life.event(IkeDown(replace(both[1], state="DELETING", children=())))
    life.step(life.pair.retry_at + 0.1)
    assert life.pair.up and life.pair.error == "" and life.pair.failures == 0


def test_a_refused_initiation_backs_off() -> None:
    life = Life()
    life.load()
    action = life.one(life.pair.next_attempt)
    life.do(action, "no such child")
    assert life.pair.cause == "no such child" and life.pair.attempts == 1
    assert life.mesh.state.admission.in_flight == 0
    assert life.now + HOW.backoff_base <= life.pair.next_attempt <= life.now + 2 * HOW.backoff_base


def test_an_attempt_that_charon_forgets_is_noticed() -> None:
    life = Life()
    life.initiate()
    assert life.mesh.due == life.pair.look_at == life.now + HOW.attempt_look
    assert isinstance(life.one(life.pair.look_at), ObserveSas)
    life.mesh.observed((), life.now + 0.1)
    assert life.pair.in_flight is None and life.pair.attempts == 1
    assert life.pair.cause == "peer unreachable: no answer"
    assert life.mesh.state.admission.in_flight == 0


def test_an_attempt_that_charon_still_makes_is_given_time() -> None:
    life = Life()
    life.initiate()
    life.one(life.pair.look_at)
    life.mesh.observed((ike_sa(life.name, 1, "CONNECTING"),), life.now + 0.1)
    assert life.pair.in_flight is not None and life.pair.look_at > life.now + 5.0
    assert life.step() == []


def test_a_diagnosis_brings_the_look_forward_and_becomes_the_cause() -> None:
    life = Life()
    life.initiate()
    life.event(Diagnosis(life.name, 1, "no private key found for 'web1'"))
    life.step()
    assert life.mesh.due is not None and life.mesh.due <= life.now + 1.0
    assert any(isinstance(action, ObserveSas) for action in life.step(life.now + 3.0))
    life.mesh.observed((), life.now + 0.1)
    assert life.pair.cause == "no private key found for 'web1'" and life.pair.in_flight is None


def test_a_failed_attempt_told_by_an_event() -> None:
    life = Life()
    life.initiate()
    life.event(IkeDown(ike_sa(life.name, 1, "CONNECTING")))
    assert life.pair.attempts == 1 and life.pair.cause == "authentication or negotiation failed"


def test_an_ike_sa_without_child_gets_its_child() -> None:
    life = Life()
    life.initiate()
    life.event(IkeUp(ike_sa(life.name, 1)))
    life.one(life.pair.look_at)
    life.mesh.observed((ike_sa(life.name, 1),), life.now + 0.1)
    assert "without its CHILD_SA" in life.pair.cause
    actions = life.step(life.pair.next_attempt)
    if not any(isinstance(action, Initiate) for action in actions):
        life.mesh.observed((ike_sa(life.name, 1),), life.now + 0.1)
        actions = life.step(life.now + 0.1)
    assert [action.reason for action in actions if isinstance(action, Initiate)] == [
        "ours to initiate: its IKE_SA has no CHILD_SA"
    ]


def test_tunnel_mode_is_a_fault_and_no_association() -> None:
    """Initiating again would bring one tunnel more: the peer insists, and people must know."""
    life = Life()
    life.initiate()
    tunnel = ike_sa(life.name, 1, "ESTABLISHED", child_sa(mode="TUNNEL"))
    life.event(ChildUp(tunnel))
    assert not life.pair.up and life.pair.misshapen == "TUNNEL"
    for second in range(1, 200):
        for action in life.step(life.now + 1.0):
            assert isinstance(action, ObserveSas | ObserveAll), second
            held = holdings(life.host, tunnel, loaded={life.name: str(life.pair.loaded)})
            life.mesh.observed(held if isinstance(action, ObserveAll) else held.sas, life.now)
    assert (
        decide(life.pair, life.now, HOW).reason
        == "the CHILD_SA came up in tunnel mode, not in transport mode"
    )
    assert life.mesh.state.admission.in_flight == 0


def test_a_look_tells_nothing_of_what_events_told_since_it_began() -> None:
    life = Life()
    life.initiate()
    assert isinstance(life.one(life.pair.look_at), ObserveSas)
    life.event(IkeUp(ike_sa(life.name, 1)))
    life.event(ChildUp(association(life.name, 1)))
    life.mesh.observed((), life.now + 0.2)  # as charon was before
    assert life.pair.up and life.pair.attempts == 0
    life.event(IkeDown(ike_sa(life.name, 1)))
    assert not life.pair.up


def test_timers_do_not_pile_up() -> None:
    life = Life()
    pairs = life.mesh.state.pairs
    for n in range(5000):
        pairs.schedule(life.pair, 1000.0 + n)
    assert len(pairs._timers) <= 64 + 4 * len(pairs)
    assert pairs.due == 5999.0
    pairs.schedule(life.pair, None)
    assert pairs.due is None


@pytest.mark.parametrize("lived", [1.0, 1000.0])
def test_down_is_told_with_its_cause_and_initiated_again(lived: float) -> None:
    life = Life()
    sa = life.up()
    life.now += lived
    gone = with_tasks(replace(sa, children=()), active=("IKE_DPD",))
    life.event(IkeDown(gone))
    life.event(ChildDown(with_tasks(sa, active=("IKE_DPD",))))
    (told,) = [event for event in life.mesh.step(life.now).events if event.kind == "peer-down"]
    assert told.reason == "peer unreachable: no answer to IKE_DPD"
    if lived >= HOW.stable:
        assert life.pair.attempts == 0 and life.pair.next_attempt <= life.now + HOW.start_jitter
    else:
        assert life.pair.attempts == 1 and life.pair.next_attempt >= life.now + HOW.backoff_base


def test_no_more_in_flight_than_admitted() -> None:
    life = Life(in_flight=2)
    others = [found(ours=True, skip=10 * n) for n in range(1, 9)]
    life.mesh.update_peers(others, (), 0.0)
    for action in life.step():
        life.do(action)
    flying = [action for action in life.step(5.0) if isinstance(action, Initiate)]
    assert len(flying) == 2 and life.mesh.state.admission.waiting >= 6
    life.do(flying[0], "refused")
    more = [action for action in life.step() if isinstance(action, Initiate)]
    assert len(more) == 1 and life.mesh.state.admission.in_flight == 2
    # The peers that wait leave: nothing is left behind.
    life.mesh.update_peers((), [other.source for other in [life.peer, *others]], life.now)
    assert life.mesh.state.admission.in_flight == life.mesh.state.admission.waiting == 0


def test_a_step_at_rest_does_nothing_until_the_slow_look() -> None:
    life = Life()
    life.up()
    assert life.mesh.due is not None and life.mesh.due > life.now + 30.0
    for second in range(1, 50):
        assert life.step(life.now + 0.5) == [], second
