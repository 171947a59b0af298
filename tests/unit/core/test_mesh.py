"""One pair through its life: what follows from each fact, outcome and event, with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from swanmesh.core.actions import Action, Initiate, LoadConnection, ObserveAll, ObserveSas, TerminateIke
from swanmesh.core.model import ConnectionSettings
from swanmesh.core.observed import ChildDown, ChildUp, Diagnosis, IkeDown, IkeMoved, IkeRekeyed, IkeSa, IkeUp
from swanmesh.core.reasons import NONE, OURS_TO_INITIATE, Cause, Reason
from swanmesh.core.verdict import pair_verdict, peer_verdict
from tests.unit.core.build import association, child_sa, holdings, ike_sa, with_tasks
from tests.unit.core.life import HOW, Life, found


def test_from_file_to_association() -> None:
    life = Life()
    load = life.one()
    assert isinstance(load, LoadConnection)
    assert (load.reason.words, load.peer) == ("new peer", life.peer.name)
    assert life.step() == [], "one action at a time"
    life.do(load)
    assert life.step() == [] and 0.0 <= life.pair.attempt.next_at <= HOW.start_jitter
    start = life.one(life.pair.attempt.next_at)
    assert start == Initiate(
        connection=life.name,
        child=load.connection.child,
        peer=life.peer.name,
        reason=OURS_TO_INITIATE,
    )
    life.do(start)
    life.event(IkeUp(ike_sa(life.name, 1)))
    assert not life.pair.up and life.mesh.state.admission.in_flight == 1
    life.event(ChildUp(association(life.name, 1)))
    assert life.pair.up and life.mesh.state.admission.in_flight == 0
    assert life.kinds() == ["peer-up"]
    assert life.step(life.now + 30.0) == []


def looked(life: Life, *shown: IkeSa) -> None:
    """The next look at charon comes, and shows these."""
    life.now = max(life.now, life.mesh.due or 0.0)
    (look,) = life.step()
    if isinstance(look, ObserveAll):
        life.mesh.observed(holdings(life.host, *shown, loaded={life.name: str(life.pair.loaded)}), life.now)
    else:
        assert isinstance(look, ObserveSas)
        life.mesh.observed(shown, life.now)


def test_what_a_look_does_not_show_is_looked_for_once_more() -> None:
    life = Life()
    life.up()
    life.kinds()
    looked(life)
    assert life.kinds() == [] and life.pair.up
    looked(life)
    assert life.kinds() == ["peer-down"]


@pytest.mark.parametrize("old", [True, False], ids=["the old one is shown", "neither is shown"])
def test_a_look_that_a_rekey_overtook_ends_nothing(old: bool) -> None:
    life = Life()
    before = life.up()
    life.kinds()
    looked(life, *([replace(before, state="REKEYED", children=())] if old else []))
    life.event(IkeRekeyed(before.unique_id, ike_sa(life.name, 2)))
    assert life.kinds() == [] and life.pair.up
    for _ in range(4):
        looked(life, replace(before, unique_id=2))
        assert life.kinds() == [] and life.pair.associations.works


def test_nothing_is_done_before_charon_answers() -> None:
    life = Life(connect=False)
    assert life.step(100.0) == [] and life.mesh.due is None
    life.mesh.charon_back("5.9.8", holdings(life.host), 100.0)
    assert life.mesh.due == 0.0
    assert isinstance(life.one(100.0), LoadConnection)


def test_the_other_end_waits_and_then_takes_over_after_a_look() -> None:
    life = Life(ours=False)
    life.load()
    assert HOW.takeover <= life.pair.attempt.next_at <= 1.25 * HOW.takeover
    look = life.one(life.pair.attempt.next_at)
    assert isinstance(look, ObserveSas) and life.peer.name in look.reason.words
    life.mesh.observed((), life.now + 0.1)
    action = life.one(life.now + 0.1)
    assert isinstance(action, Initiate) and action.reason.words == "the peer did not initiate"


def test_the_look_before_taking_over_finds_the_peer_at_it() -> None:
    life = Life(ours=False)
    life.load()
    life.one(life.pair.attempt.next_at)
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
    assert life.pair.refusals.reason.words == "no memory"
    look = life.step(1.0)
    assert [type(action) for action in look] == [ObserveAll, Initiate] or len(look) == 2
    assert HOW.backoff_base <= life.pair.refusals.retry_at <= 2 * HOW.backoff_base
    again = [
        action for action in life.step(life.pair.refusals.retry_at) if isinstance(action, LoadConnection)
    ]
    assert [action.peer for action in again] == [life.peer.name]
    life.do(again[0])
    assert life.pair.refusals.reason.words == ""


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
    assert life.pair.up
    life.event(IkeDown(replace(both[0], state="DELETING", children=())))
    life.step(life.now + 70.0)
    verdict = pair_verdict(life.mesh.state, life.pair)
    assert (verdict.state, verdict.reason) == ("up", NONE)


def test_a_refused_initiation_backs_off() -> None:
    life = Life()
    life.load()
    action = life.one(life.pair.attempt.next_at)
    life.do(action, "no such child")
    assert life.pair.standing.cause.words == "no such child" and life.pair.attempt.failed == 1
    assert life.mesh.state.admission.in_flight == 0
    assert life.now + HOW.backoff_base <= life.pair.attempt.next_at <= life.now + 2 * HOW.backoff_base


def test_an_attempt_that_charon_forgets_is_noticed() -> None:
    life = Life()
    life.initiate()
    assert life.mesh.due == life.pair.attempt.look_at == life.now + HOW.attempt_look
    assert isinstance(life.one(life.pair.attempt.look_at), ObserveSas)
    life.mesh.observed((), life.now + 0.1)
    assert life.pair.attempt.began is None and life.pair.attempt.failed == 1
    assert life.pair.standing.cause.words == "peer unreachable: no answer"
    assert life.mesh.state.admission.in_flight == 0


def test_an_attempt_that_charon_still_makes_is_given_time() -> None:
    life = Life()
    life.initiate()
    life.one(life.pair.attempt.look_at)
    life.mesh.observed((ike_sa(life.name, 1, "CONNECTING"),), life.now + 0.1)
    assert life.pair.attempt.began is not None and life.pair.attempt.look_at > life.now + 5.0
    assert life.step() == []


def test_a_diagnosis_brings_the_look_forward_and_becomes_the_cause() -> None:
    life = Life()
    life.initiate()
    life.event(Diagnosis(life.name, 1, Reason("peer-refused", "peer refused the IKE_SA")))
    life.step()
    assert life.mesh.due is not None and life.mesh.due <= life.now + 1.0
    assert any(isinstance(action, ObserveSas) for action in life.step(life.now + 3.0))
    life.mesh.observed((), life.now + 0.1)
    assert life.pair.standing.cause.words == "peer refused the IKE_SA" and life.pair.attempt.began is None


def test_a_failed_attempt_told_by_an_event() -> None:
    life = Life()
    life.initiate()
    life.event(IkeDown(ike_sa(life.name, 1, "CONNECTING")))
    assert (
        life.pair.attempt.failed == 1
        and life.pair.standing.cause.words == "authentication or negotiation failed"
    )


@pytest.mark.parametrize("first", ["event", "words"])
def test_a_peer_without_a_connection_for_us_is_left_time_to_call_by_itself(first: str) -> None:
    """charon's log, which says so, comes before the event or after it."""
    life = Life()
    life.initiate()
    down = IkeDown(ike_sa(life.name, 1, "CONNECTING"))
    said = Diagnosis(life.name, 1, Reason(Cause.NO_CONNECTION_AT_PEER, "no matching connection at the peer"))
    for told in (down, said) if first == "event" else (said, down):
        life.event(told)
    asked = life.now
    actions: list[Action] = []
    while not any(isinstance(action, Initiate) for action in actions):
        assert life.now < asked + 30.0
        actions = life.step(life.now + 0.5)
        if any(isinstance(action, ObserveSas) for action in actions):
            life.mesh.observed((), life.now)
    assert life.now >= asked + 5.0


def test_an_ike_sa_without_child_is_ended_by_force_and_never_initiated_upon() -> None:
    """charon 5.9.8 dies of a double free of what is queued on such a one while a DPD is unanswered."""
    life = Life()
    life.initiate()
    life.event(IkeUp(ike_sa(life.name, 1)))
    actions: list[Action] = []
    while not any(isinstance(action, TerminateIke) for action in actions):
        assert not any(isinstance(action, Initiate) for action in actions) and life.now < 60.0
        actions = life.step(life.now + 0.5)
        if any(isinstance(action, ObserveSas) for action in actions):
            life.mesh.observed((ike_sa(life.name, 1),), life.now)
    (end,) = actions
    assert isinstance(end, TerminateIke) and end.force and end.reason.code == "no-child-sa"
    life.do(end)
    assert not any(isinstance(action, Initiate) for action in life.step())
    life.event(IkeDown(ike_sa(life.name, 1, "DELETING")))
    assert pair_verdict(life.mesh.state, life.pair).reason.code == "no-child-sa"
    again = life.step(life.pair.attempt.next_at)
    if not any(isinstance(action, Initiate) for action in again):
        life.mesh.observed((), life.now + 0.1)
        again = life.step(life.now + 0.1)
    assert [action.reason.words for action in again if isinstance(action, Initiate)] == [
        "ours to initiate: its IKE_SA has no CHILD_SA"
    ]


def test_a_child_sa_that_charon_still_makes_is_waited_for() -> None:
    """The kernel may take seconds for its first state, until its modules are there."""
    life = Life(ours=False)
    life.load()
    making = with_tasks(ike_sa(life.name, 1, initiator=False), passive=("IKE_ESTABLISH", "CHILD_CREATE"))
    life.event(IkeUp(making))
    for _ in range(20):
        for action in life.step(life.now + 0.5):
            assert isinstance(action, ObserveSas), action
            life.mesh.observed((making,), life.now)
    life.event(ChildUp(association(life.name, 1, initiator=False)))
    assert life.step() == [] and life.pair.up


def test_a_child_sa_that_came_to_nothing_is_not_waited_for() -> None:
    life = Life(ours=False)
    life.load()
    there = ike_sa(life.name, 1, initiator=False)
    life.event(IkeUp(with_tasks(there, passive=("IKE_ESTABLISH", "CHILD_CREATE"))))
    ended: list[Action] = []
    while not ended and life.now < 10.0:
        for action in life.step(life.now + 0.5):
            if isinstance(action, ObserveSas):
                life.mesh.observed((there,), life.now)
            else:
                ended.append(action)
    assert [action.reason.code for action in ended] == ["no-child-sa"]


def test_a_rekey_that_a_look_meets_half_way_ends_nothing() -> None:
    """Where both ends rekey at once, a look may find the replaced CHILD_SA alone."""
    life = Life()
    sa = life.up()
    half = with_child(sa, state="REKEYED")
    life.now += 61.0
    for _ in range(20):
        life.now += 0.4
        for action in life.step():
            assert isinstance(action, ObserveSas | ObserveAll), action
            held = holdings(life.host, half, loaded={life.name: str(life.pair.loaded)})
            life.mesh.observed(held if isinstance(action, ObserveAll) else held.sas, life.now)
    assert life.kinds() == [] and life.pair.up
    new = replace(sa, children=(child_sa(9),))
    life.mesh.observed((new,), life.now)
    assert life.step() == [] and life.kinds() == []


def test_what_stays_half_way_is_ended_in_the_end() -> None:
    life = Life()
    sa = with_child(life.up(), state="REKEYED")
    ended: list[Action] = []
    while not ended and life.now < 200.0:
        life.now += 1.0
        for action in life.step():
            if isinstance(action, TerminateIke):
                ended.append(action)
            elif not isinstance(action, Initiate):
                held = holdings(life.host, sa, loaded={life.name: str(life.pair.loaded)})
                life.mesh.observed(held if isinstance(action, ObserveAll) else held.sas, life.now)
            else:
                raise AssertionError("initiated upon an IKE_SA without a CHILD_SA that works")
    assert [action.reason.code for action in ended] == ["no-child-sa"]


def as_agreed(life: Life) -> IkeSa:
    """An association that tells all there is to tell, and is as its pair asked for."""
    child = replace(child_sa(1), local_ts=("203.0.113.1/32",), remote_ts=("203.0.113.2/32",))
    sa = ike_sa(life.name, 1, "ESTABLISHED", child)
    return replace(sa, local_host="203.0.113.1", remote_host="203.0.113.2", remote_id=life.peer.name)


def with_child(sa: IkeSa, **changes: Any) -> IkeSa:
    return replace(sa, children=(replace(sa.children[0], **changes),))


BREACHES = {
    "another address": lambda sa: replace(sa, remote_host="203.0.113.3"),
    "another address of ours": lambda sa: replace(sa, local_host="203.0.113.9"),
    "another family": lambda sa: replace(sa, remote_host="2001:db8::2"),
    "another name": lambda sa: replace(sa, remote_id="web9.mesh.example"),
    "a peer behind NAT": lambda sa: replace(sa, nat_remote=True),
    "this host behind NAT": lambda sa: replace(sa, nat_local=True),
    "tunnel mode": lambda sa: with_child(sa, mode="TUNNEL"),
    "one port": lambda sa: with_child(sa, remote_ts=("203.0.113.2/32[tcp/22]",)),
    "two selectors": lambda sa: with_child(sa, remote_ts=("203.0.113.2/32[tcp]", "203.0.113.2/32[udp]")),
    "a network": lambda sa: with_child(sa, local_ts=("203.0.113.0/24",)),
    "another host's traffic": lambda sa: with_child(sa, remote_ts=("203.0.113.3/32",)),
    "UDP encapsulation": lambda sa: with_child(sa, encap=True),
    "AH": lambda sa: with_child(sa, protocol="AH"),
    "a tunnel beside it": lambda sa: replace(sa, children=(*sa.children, child_sa(2, mode="TUNNEL"))),
}


@pytest.mark.parametrize("change", BREACHES.values(), ids=BREACHES)
@pytest.mark.parametrize("told_by", ["event", "look"])
def test_what_its_pair_did_not_ask_for_is_ended_at_once_by_force_and_told(
    change: Callable[[IkeSa], IkeSa], told_by: str
) -> None:
    life = Life()
    life.initiate()
    good = as_agreed(life)
    life.event(ChildUp(good))
    assert life.kinds() == ["peer-up"]
    bad = change(good)
    if told_by == "event":
        life.event(IkeMoved(bad))
        life.event(ChildUp(bad))
    else:
        (_, look) = [0, *life.step(life.now + 61.0)]
        assert isinstance(look, ObserveAll)
        life.mesh.observed(holdings(life.host, bad, loaded={life.name: str(life.pair.loaded)}), life.now)
    step = life.mesh.step(life.now)
    (end,) = step.actions
    assert isinstance(end, TerminateIke) and end.force and end.unique_ids == (1,)
    assert end.reason.code == "not-as-agreed"
    assert [event.kind for event in step.events] == ["peer-down", "peer-violation"]
    verdict = peer_verdict(life.mesh.state, life.peer, life.now)
    assert verdict.state != "up" and verdict.reason.code == "not-as-agreed"
    life.do(end)
    assert life.mesh.state.kernel.look_at is not None, "what it displaced is looked for in the kernel"
    life.event(IkeDown(replace(bad, state="DELETING", children=())))
    assert peer_verdict(life.mesh.state, life.peer, life.now).reason.code == "not-as-agreed"


def test_an_association_as_agreed_beside_one_that_is_not_stays_up() -> None:
    life = Life()
    life.initiate()
    good = as_agreed(life)
    life.event(ChildUp(good))
    moved = replace(as_agreed(life), unique_id=2, remote_host="203.0.113.3")
    life.event(ChildUp(moved))
    step = life.mesh.step(life.now)
    assert [
        (type(action), action.unique_ids) for action in step.actions if isinstance(action, TerminateIke)
    ] == [(TerminateIke, (2,))]
    assert [event.kind for event in step.events] == ["peer-up", "peer-violation"] and life.pair.up


def test_encapsulation_that_was_asked_for_is_no_breach() -> None:
    life = Life(connection=ConnectionSettings(encap=True))
    life.initiate()
    sa = with_child(replace(as_agreed(life), nat_remote=True), encap=True)
    life.event(ChildUp(sa))
    assert life.pair.up and life.step() == []


def test_a_look_tells_nothing_of_what_events_told_since_it_began() -> None:
    life = Life()
    life.initiate()
    assert isinstance(life.one(life.pair.attempt.look_at), ObserveSas)
    life.event(IkeUp(ike_sa(life.name, 1)))
    life.event(ChildUp(association(life.name, 1)))
    life.mesh.observed((), life.now + 0.2)  # as charon was before
    assert life.pair.up and life.pair.attempt.failed == 0
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
        assert life.pair.attempt.failed == 0 and life.pair.attempt.next_at <= life.now + HOW.start_jitter
    else:
        assert life.pair.attempt.failed == 1 and life.pair.attempt.next_at >= life.now + HOW.backoff_base


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


@pytest.mark.parametrize("said_first", [True, False])
def test_what_charon_cannot_do_is_told_in_place_of_its_refusal(said_first: bool) -> None:
    # The two come over two connections, in either order.
    life = Life()
    life.load()
    initiate = life.one(life.pair.attempt.next_at)
    unable = Diagnosis(life.name, 1, Reason(Cause.UNSUPPORTED_ALGORITHM, "charon here cannot do ML_KEM_768"))
    if said_first:
        life.event(unable)
    life.do(initiate, "establishing CHILD_SA 'esp' failed")
    if not said_first:
        life.event(unable)
    life.step()
    verdict = peer_verdict(life.mesh.state, life.peer, life.now)
    assert "cannot do ML_KEM_768" in verdict.reason.words
