"""What is said of a pair and a peer is what was decided, with its reason and since when."""

from __future__ import annotations

from dataclasses import replace

from swanmesh.core.actions import Initiate, TerminateIke
from swanmesh.core.observed import ChildUp, IkeDown, IkeSa
from swanmesh.core.reasons import Reason
from swanmesh.core.verdict import Verdict, pair_verdict, peer_verdict, planned, violations
from tests.unit.core.build import association, holdings
from tests.unit.core.life import Life, found


def verdict(life: Life) -> Verdict:
    return peer_verdict(life.mesh.state, life.peer, life.now)


def look(life: Life, now: float, *sas: IkeSa) -> None:
    """A look at everything that shows these."""
    life.now = now
    life.step()
    life.mesh.observed(holdings(life.host, *sas, loaded={life.name: str(life.pair.loaded)}), now)
    life.step()


def counted(sa: IkeSa, *, came: int, went: int) -> IkeSa:
    (child,) = sa.children
    return replace(sa, children=(replace(child, packets_in=came, packets_out=went),))


def test_a_pair_that_waits_for_a_place_is_not_connecting_and_has_no_time() -> None:
    life = Life(in_flight=1)
    other = found(ours=True, skip=50)
    life.mesh.update_peers([other], (), 0.0)
    for action in life.step():
        life.do(action)
    assert [type(action) for action in life.step(5.0)] == [Initiate]
    waiting = [
        pair_verdict(life.mesh.state, pair) for pair in life.mesh.state.pairs if pair.attempt.began is None
    ]
    assert [(one.state, one.reason.code, one.next_attempt) for one in waiting] == [
        ("down", "waiting-for-place", None)
    ]
    assert [item.blocked.code for item in planned(life.mesh.state)] == ["waiting-for-place"]


def test_the_plan_shows_what_was_decided_and_when() -> None:
    life = Life(ours=False)
    life.load()
    (item,) = planned(life.mesh.state)
    assert isinstance(item.action, Initiate) and item.blocked.code == "waiting-for-peer"
    assert item.due == life.pair.attempt.next_at
    life.mesh.charon_lost(Reason("charon-unreachable", "the socket closed"), life.now)
    life.step()
    assert {item.blocked.code for item in planned(life.mesh.state)} == {"charon-unreachable"}


def test_since_when_charon_is_gone_counts_from_then() -> None:
    life = Life()
    life.up()
    life.mesh.charon_lost(Reason("charon-unreachable", "the socket closed"), life.now + 230.0)
    life.now += 233.0
    life.step()
    assert (verdict(life).state, verdict(life).since) == ("down", life.now - 3.0)
    assert verdict(life).reason.code == "charon-unreachable"


def test_down_is_said_when_it_is_so() -> None:
    life = Life()
    sa = life.up()
    life.mesh.command("down", life.peer.name, life.now)
    assert (verdict(life).state, verdict(life).reason.code) == ("up", "held-down")
    life.do(life.one())
    (end,) = life.step()
    assert isinstance(end, TerminateIke)
    life.now += 1.0
    life.do(end)
    life.event(IkeDown(replace(sa, state="DELETING", children=())))
    life.step()
    assert verdict(life).state == "disabled"
    life.mesh.command("up", life.peer.name, life.now)
    life.do(life.one())
    life.step()
    assert verdict(life).state == "connecting" and verdict(life).reason.code != "held-down"
    assert "held down" not in verdict(life).reason.words


def test_packets_that_only_go_out_are_told_and_forgotten_when_one_comes_in() -> None:
    life = Life()
    sa = life.up()
    look(life, 100.0, counted(sa, came=50, went=50))
    look(life, 170.0, counted(sa, came=60, went=60))
    assert verdict(life) == replace(verdict(life), state="up", reason=Reason())
    look(life, 240.0, counted(sa, came=60, went=200))
    assert (verdict(life).state, verdict(life).reason.code) == ("up", "one-way")
    assert "140 packets went out in 70 s" in verdict(life).reason.words
    look(life, 310.0, counted(sa, came=61, went=300))
    assert verdict(life).reason == Reason()


def test_what_crossed_counts_on_over_rekeys() -> None:
    life = Life()
    sa = life.up()
    look(life, 100.0, counted(sa, came=50, went=70))
    other = counted(association(life.name, 9), came=5, went=7)
    look(life, 170.0, other)
    look(life, 240.0, counted(other, came=6, went=7))
    assert (life.pair.traffic.packets_in, life.pair.traffic.packets_out) == (56, 77)


def test_a_pile_is_ended_in_one_go_and_its_peer_named() -> None:
    life = Life()
    sa = life.up()
    pile = [replace(association(life.name, number), age=None) for number in range(2, 60)]
    for one in pile:
        life.event(ChildUp(one))
    life.step(life.now + 0.1)
    look(life, life.now + 5.0, sa, *pile)
    ended = [action for action in life.step(life.now + 0.1) if isinstance(action, TerminateIke)]
    if not ended:  # it was decided with the look itself
        assert life.pair.busy
    life.mesh.step(life.now)
    ((name, violation),) = violations(life.mesh.state, life.now)
    assert (name, violation.reason.code) == (life.peer.name, "flooding")
    assert life.pair.up
