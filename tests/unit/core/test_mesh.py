"""One pair through its life: what follows from each fact, outcome and event, with its reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swanmesh.core.actions import (
    Action,
    Initiate,
    LoadConnection,
    LoadCredentials,
    ObserveAll,
    ObserveSas,
    RekeyChild,
    RekeyIke,
    TerminateIke,
    UnloadConnection,
)
from swanmesh.core.initiation import initiates
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import InitiationSettings, Peer
from swanmesh.core.observed import ChildDown, ChildUp, Diagnosis, IkeDown, IkeSa, IkeUp
from swanmesh.core.pair import Pair
from swanmesh.core.plan import decide

from .build import association, child_sa, holdings, ike_sa, name_of, peer, settings, with_tasks

HOW = InitiationSettings()


def found(*, ours: bool, skip: int = 0) -> Peer:
    """A peer of whose pair this host is the initiator, or is not."""
    names = (f"web{n}.mesh.example" for n in range(2 + skip, 200))
    name = next(name for name in names if initiates("web1.mesh.example", name) == ours)
    return peer(name, f"203.0.113.{2 + skip}")


class Life:
    """A Mesh with one peer, and its charon played by the test."""

    def __init__(self, *, ours: bool = True, in_flight: int = 32, connect: bool = True) -> None:
        self.host = settings(initiation=replace(HOW, in_flight=in_flight))
        self.peer = found(ours=ours)
        self.name = name_of(self.host, self.peer)
        self.mesh = Mesh(self.host, seed=1)
        self.mesh.update_peers([self.peer], (), 0.0)
        self.now = 0.0
        if connect:
            self.mesh.charon_back("5.9.8", holdings(self.host), 0.0)

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
        action = self.one(self.pair.next_attempt)
        assert isinstance(action, Initiate)
        self.do(action)
        assert self.step() == []
        return action

    def event(self, event: IkeUp | IkeDown | ChildUp | ChildDown | Diagnosis) -> None:
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
    assert pair is not None and pair.up and pair.since == 100.0


def test_a_changed_connection_is_loaded_with_what_changed_as_its_reason() -> None:
    life = Life()
    life.up()
    how = replace(life.host.connection, dpd_delay=9)
    life.mesh.configure(replace(life.host, connection=how), [life.peer], life.now)
    action = life.one()
    assert isinstance(action, LoadConnection) and action.reason == "settings changed"
    life.do(action)
    assert life.step() == [] and life.pair.up
    life.mesh.update_peers([replace(life.peer, policy=settings().policy)], (), life.now)
    assert life.step() == [], "the same policy, said by the peer's file"


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


def test_what_was_in_flight_when_charon_went_gives_its_place_back() -> None:
    life = Life(in_flight=1)
    life.initiate()
    assert life.mesh.state.admission.in_flight == 1
    life.mesh.charon_lost("the socket closed", life.now)
    assert life.mesh.state.admission.in_flight == life.mesh.state.admission.waiting == 0


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


def test_no_initiation_before_the_credentials_are_loaded() -> None:
    life = Life(connect=False)
    life.mesh.charon_back("5.9.8", holdings(life.host, credentials_too=False), 0.0)
    keys, load = life.step()
    assert isinstance(keys, LoadCredentials) and "key of" not in repr(keys)
    life.do(load)
    assert life.step(1.0) == []
    life.do(keys, "parsing failed")
    assert life.step(1.0) == [] and life.mesh.state.charon.credentials_error == "parsing failed"
    again = life.one(1.0 + 2 * HOW.backoff_base)
    assert isinstance(again, LoadCredentials) and again.reason == "parsing failed"
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
    assert "held down" in life.mesh.command("down", life.peer.name, life.now)
    shunt = life.one()
    assert isinstance(shunt, LoadConnection) and shunt.connection.child.startswith("drop-")
    life.do(shunt)
    end = life.one()
    assert isinstance(end, TerminateIke) and end.reason == "held down by the operator"
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
    assert life.mesh.command("rekey", life.peer.name, life.now) == "rekeying 1 association"
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
    assert isinstance(load, LoadConnection) and load.reason == "somebody unloaded it from charon"
    life.do(load)
    assert life.step() == [] and life.pair.up and life.kinds() == []


def test_peers_unknown_to_the_files_are_unloaded_but_not_while_a_file_is_unreadable() -> None:
    host = settings()
    stray = name_of(host, peer("old.mesh.example", "203.0.113.77"))
    held = holdings(host, association(stray, 5), loaded={stray: "esp-0123456789abcdef"})
    mesh = Mesh(host, seed=1)
    mesh.hold("peers.d/x.yaml cannot be read")
    mesh.charon_back("5.9.8", held, 0.0)
    assert mesh.step(0.0).actions == ()
    mesh.hold("")
    (unload,) = mesh.step(1.0).actions
    assert isinstance(unload, UnloadConnection) and unload.peer == "old.mesh.example"
    mesh.done(unload, None, 1.0)
    (end,) = mesh.step(1.0).actions
    assert isinstance(end, TerminateIke) and end.unique_id == 5


def test_charon_lost_and_back() -> None:
    life = Life()
    life.up()
    life.kinds()
    life.mesh.charon_lost("the socket closed", 100.0)
    assert life.kinds() == ["charon-lost"] and life.pair.up, "the kernel may go on: nobody is told of a down"
    assert life.mesh.due is None
    life.mesh.charon_back("5.9.8", holdings(life.host), 130.0)
    life.now = 130.0
    step = life.mesh.step(130.0)
    assert [event.kind for event in step.events] == ["peer-down", "charon-back"]
    assert [type(action) for action in step.actions] == [LoadConnection]
    assert life.pair.cause == "charon lost the association when it restarted"


def test_a_peer_gone_by_a_reload_is_told_as_removed() -> None:
    life = Life()
    load = life.one()
    life.do(load)
    life.mesh.configure(life.host, [], 1.0)
    (unload,) = life.step(1.0)
    life.do(unload)
    step = life.mesh.step(1.0)
    assert [(event.kind, event.peer) for event in step.events] == [("peer-removed", life.peer)]


def test_a_step_at_rest_does_nothing_until_the_slow_look() -> None:
    life = Life()
    life.up()
    assert life.mesh.due is not None and life.mesh.due > life.now + 30.0
    for second in range(1, 50):
        assert life.step(life.now + 0.5) == [], second
