"""What events and looks make of a pair's IKE_SAs: everything hangs on unique ids."""

from __future__ import annotations

from dataclasses import replace

from swanmesh.core.model import REAUTH
from swanmesh.core.observed import (
    ChildDown,
    ChildRekeyed,
    ChildUp,
    IkeDown,
    IkeMoved,
    IkeRekeyed,
    IkeSa,
    IkeUp,
)
from swanmesh.core.pairs.agreement import Agreement
from swanmesh.core.pairs.associations import Associations
from tests.unit.core.build import association, child_sa, ike_sa

AGREED = Agreement(
    local="203.0.113.1",
    remote="203.0.113.2",
    local_ts=("203.0.113.1/32",),
    remote_ts=("203.0.113.2/32",),
    local_name="web1.mesh.example",
    remote_name="web2.mesh.example",
    encapsulated=False,
    slack=90.0,
)
NAME = "swanmesh-web2.mesh.example-01234567"


def pair(*sas: IkeSa, now: float = 100.0) -> Associations:
    made = Associations()
    made.observe(sas, now)
    return made


def bare(sa: IkeSa) -> IkeSa:
    """As ike-updown and ike-rekey show it: without CHILD_SAs."""
    return replace(sa, children=())


def test_up_is_an_installed_child_not_an_ike_sa() -> None:
    it = pair()
    it.apply(IkeUp(ike_sa(NAME, 1)), 100.0)
    assert not it.works
    it.apply(ChildUp(association(NAME, 1)), 100.1)
    assert it.works


def test_a_tunnel_is_no_association() -> None:
    it = pair(ike_sa(NAME, 1, "ESTABLISHED", child_sa(mode="TUNNEL")))
    assert not it.works


def test_the_down_of_an_old_ike_sa_says_nothing_of_the_new_one() -> None:
    it = pair(association(NAME, 1), association(NAME, 2))
    it.apply(IkeDown(bare(association(NAME, 1))), 101.0)
    it.apply(ChildDown(association(NAME, 1)), 101.0)
    assert it.works and it.sas.keys() == {2} == it.times.keys()


def test_the_child_down_after_its_ike_down_brings_nothing_back() -> None:
    it = pair(association(NAME, 1))
    it.apply(IkeDown(bare(association(NAME, 1))), 101.0)
    it.apply(ChildDown(association(NAME, 1)), 101.0)
    assert not it.sas


def test_a_rekeyed_ike_sa_keeps_children_and_birth() -> None:
    it = pair(association(NAME, 1, age=50.0))
    it.apply(IkeRekeyed(1, ike_sa(NAME, 2)), 101.0)
    assert it.works and it.sas.keys() == {2} == it.times.keys() and it.times[2].born == 50.0


def test_a_moved_ike_sa_keeps_its_children_and_shows_where_it_went() -> None:
    it = pair(association(NAME, 1))
    it.apply(IkeMoved(replace(ike_sa(NAME, 1), remote_host="192.0.2.66")), 101.0)
    assert it.works and it.sas[1].remote_host == "192.0.2.66"


def test_the_event_of_a_rekey_that_a_look_overtook_takes_no_children_away() -> None:
    # Look and event come over two connections: the look may show what the event tells later.
    it = pair(ike_sa(NAME, 1, "REKEYED"), association(NAME, 2))
    it.apply(IkeRekeyed(1, ike_sa(NAME, 2)), 101.0)
    assert it.works and it.sas.keys() == {2}
    it = pair(association(NAME, 2))
    it.apply(IkeRekeyed(1, ike_sa(NAME, 2)), 101.0)
    assert it.works
    it.apply(IkeUp(ike_sa(NAME, 2)), 101.0)
    assert it.works


def test_a_rekeyed_child_replaces_the_old_one() -> None:
    it = pair(association(NAME, 1))
    it.apply(ChildRekeyed(ike_sa(NAME, 1), 1, child_sa(9)), 101.0)
    assert [child.unique_id for child in it.sas[1].children] == [9]


def test_the_replaced_child_counts_no_more_while_charon_still_shows_it() -> None:
    for state in ("REKEYED", "DELETING", "DELETED"):
        it = pair(ike_sa(NAME, 1, "ESTABLISHED", child_sa(1, state)))
        assert not it.works, state
        it = pair(ike_sa(NAME, 1, "ESTABLISHED", child_sa(1, state), child_sa(2)))
        assert it.works, state


def test_a_look_in_the_middle_of_a_rekey_is_no_end() -> None:
    assert pair(ike_sa(NAME, 1, "ESTABLISHED", child_sa(1, "REKEYED"))).rekeying


def test_a_rekey_does_not_make_an_authentication_younger_even_for_a_controller_that_did_not_see_it() -> None:
    seen = replace(association(NAME, 1, age=30.0), reauth_in=REAUTH - 7200.0)
    assert pair(seen, now=10_000.0).times[1].authenticated == 2800.0
    it = Associations()
    it.apply(IkeUp(ike_sa(NAME, 1, age=0.0)), 100.0)
    it.apply(IkeRekeyed(1, ike_sa(NAME, 2, age=0.0)), 5000.0)
    assert it.times[2].authenticated == 100.0


def test_charons_random_shortening_makes_nothing_older() -> None:
    it = Associations(agreement=AGREED)
    it.observe([replace(association(NAME, 1, age=30.0), reauth_in=REAUTH - 90.0)], 1000.0)
    assert it.times[1].authenticated == 970.0


def test_birth_comes_from_charons_age() -> None:
    it = pair(association(NAME, 1, age=30.0), now=100.0)
    assert it.times[1].born == 70.0
    it.observe([association(NAME, 1, age=60.0)], 130.2)  # rounded to seconds there: the first word stands
    assert it.times[1].born == 70.0
