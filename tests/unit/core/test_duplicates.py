"""Duplicates: proven before one is ended, the same survivor at both ends, nothing that a rekey leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swanmesh.core.actions import Action, ObserveSas, TerminateChild, TerminateIke
from swanmesh.core.decide.duplicates import end_extras, survivor
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import Peer, Settings
from swanmesh.core.observed import ChildSa, IkeSa
from swanmesh.core.pairs.associations import Times
from swanmesh.core.pairs.initiation import initiates
from swanmesh.core.pairs.pair import Pair
from tests.unit.core.build import association, child_sa, holdings, ike_sa, name_of, peer, settings

SETTLE = settings().initiation.duplicate_settle
TAKEOVER = settings().initiation.takeover


def a_host_and_a_peer(*, ours: bool) -> tuple[Settings, Peer]:
    """A pair of which the host is the initiator, or is not."""
    host = settings()
    names = (f"web{n}.mesh.example" for n in range(2, 100))
    return host, peer(next(name for name in names if initiates(host.host.name, name) == ours))


class Held:
    """A Mesh whose charon holds one connection and these IKE_SAs; looks are answered with them."""

    def __init__(self, *sas: IkeSa, ours: bool = True, latency: float = 0.1) -> None:
        self.host, self.peer = a_host_and_a_peer(ours=ours)
        self.name = name_of(self.host, self.peer)
        self.latency = latency
        self.mesh = Mesh(self.host, seed=1)
        self.mesh.update_peers([self.peer], (), 0.0)
        connection = self.mesh.state.pairs.of(self.peer.name)[0].connection
        assert connection is not None
        self.loaded = {self.name: connection.child}
        self.sas = tuple(replace(sa, connection=self.name) for sa in sas)
        self.mesh.charon_back("5.9.8", holdings(self.host, *self.sas, loaded=self.loaded), 0.0)

    def until(self, end: float) -> list[tuple[float, Action]]:
        """All that is done up to `end`, looks apart; an action is not carried out."""
        done: list[tuple[float, Action]] = []
        now = 0.0
        while now <= end and not done:
            for action in self.mesh.step(now).actions:
                if isinstance(action, ObserveSas):
                    self.mesh.observed(self.sas, now + self.latency)
                    now += self.latency
                elif isinstance(action, TerminateIke | TerminateChild):
                    done.append((now, action))
                else:
                    self.mesh.observed(holdings(self.host, *self.sas, loaded=self.loaded), now + self.latency)
            due = self.mesh.due
            now = max(now + 0.001, due if due is not None else end + 1)
        return done


def test_the_initiator_ends_the_older_one_after_a_while_and_a_look() -> None:
    held = Held(association("", 1, age=60.0), association("", 2, age=20.0))
    ((at, action),) = held.until(200.0)
    assert isinstance(action, TerminateIke) and action.unique_ids == (1,)
    assert action.reason.words == "duplicate of IKE_SA #2"
    assert SETTLE <= at < SETTLE + 5.0
    pair = held.mesh.state.pairs.get(held.name)
    assert pair is not None and pair.seen >= at - 3.5


def test_the_other_end_waits_for_the_initiator() -> None:
    held = Held(association("", 1, age=60.0), association("", 2, age=20.0), ours=False)
    ((at, action),) = held.until(200.0)
    assert isinstance(action, TerminateIke) and action.unique_ids == (1,)
    assert at >= SETTLE + TAKEOVER


def test_what_somebody_else_already_ends_is_no_reason_to_end_the_other() -> None:
    # #2 would stay; the operator ends it by hand, and no event tells so before its peer has answered.
    held = Held(association("", 1, age=60.0), association("", 2, age=20.0))
    held.mesh.step(1.0)
    held.sas = (held.sas[0], replace(held.sas[1], state="DELETING"))
    assert held.until(SETTLE + 20.0) == []


def test_looks_that_take_long_are_good_enough() -> None:
    held = Held(association("", 1, age=60.0), association("", 2, age=20.0), latency=7.0)
    assert len(held.until(400.0)) == 1


@pytest.mark.parametrize(
    "beside",
    [
        ike_sa("", 2, "REKEYED"),
        ike_sa("", 2, "DELETING", child_sa(2)),
        ike_sa("", 2, "CONNECTING"),
        ike_sa("", 2, "DESTROYING"),
    ],
    ids=lambda sa: str(sa.state),
)
def test_what_comes_or_goes_is_no_duplicate(beside: IkeSa) -> None:
    assert Held(association("", 1), beside).until(300.0) == []


@pytest.mark.parametrize("state", ["REKEYED", "REKEYING", "DELETING", "DELETED", "CREATED", "INSTALLING"])
def test_a_child_that_comes_or_goes_is_no_duplicate(state: str) -> None:
    sa = ike_sa("", 1, "ESTABLISHED", child_sa(1), child_sa(2, state))
    assert Held(sa).until(300.0) == []


def test_a_second_child_is_ended() -> None:
    sa = ike_sa("", 1, "ESTABLISHED", replace(child_sa(1), age=90.0), replace(child_sa(2), age=3.0))
    ((_, action),) = Held(sa).until(300.0)
    assert isinstance(action, TerminateChild) and action.unique_id == 1


def test_one_with_a_child_stays_and_one_without_goes() -> None:
    held = Held(association("", 1, age=60.0), ike_sa("", 2, age=1.0))
    ((_, action),) = held.until(300.0)
    assert isinstance(action, TerminateIke) and action.unique_ids == (2,)


spis = st.text("0123456789abcdef", min_size=16, max_size=16)
sides = st.lists(
    st.tuples(spis, st.booleans(), st.floats(0, 1000), st.floats(0, 0.4), st.floats(0, 0.4)),
    min_size=2,
    max_size=4,
    unique_by=lambda side: side[0],
)


@given(sides)
def test_both_ends_keep_the_same_one(shared: list[tuple[str, bool, float, float, float]]) -> None:
    """IKE_SAs that each end saw come up at about the same moment, and began at one of them."""
    low, high = sorted(born for _, _, born, _, _ in shared)[-2:]
    if abs(high - low - 5.0) < 0.5:
        return  # on the edge of what counts as equally old
    kept = []
    for ours in (True, False):
        pair = Pair(name="n", peer="p", initiator=ours)
        for number, (spi, began_here, born, lag, other_lag) in enumerate(shared):
            initiator = began_here if ours else not began_here
            pair.sas[number] = association("n", number, initiator=initiator)
            pair.sas[number] = replace(pair.sas[number], spi_initiator=spi, spi_responder=spi[::-1])
            at = born + (lag if ours else other_lag)
            pair.associations.times[number] = Times(at, at)
        keep = survivor(list(pair.sas.values()), pair)
        assert keep is not None
        kept.append(keep.spi_initiator)
        end = end_extras(pair)
        assert isinstance(end, TerminateIke)
        assert sorted([*end.unique_ids, keep.unique_id]) == sorted(pair.sas)
    # Three or more can chain, each within the tie of the next: the initiator decides first, and then alone.
    if len(shared) == 2:
        assert kept[0] == kept[1]


children = st.lists(
    st.tuples(spis, spis, st.sampled_from([1.0, 30.0, 300.0])),
    min_size=2,
    max_size=3,
    unique_by=lambda c: c[0],
)


@given(children)
def test_both_ends_keep_the_same_child(shared: list[tuple[str, str, float]]) -> None:
    kept = []
    for swap in (False, True):
        made: list[ChildSa] = []
        for number, (one, other, age) in enumerate(shared):
            spi_in, spi_out = (other, one) if swap else (one, other)
            made.append(replace(child_sa(number), spi_in=spi_in, spi_out=spi_out, age=age))
        pair = Pair(name="n", peer="p", initiator=not swap)
        pair.associations.observe([ike_sa("n", 1, "ESTABLISHED", *made)], 0.0)
        left = {child.unique_id: child for child in made}
        while isinstance(end := end_extras(pair), TerminateChild):
            del left[end.unique_id]
            pair.associations.observe([ike_sa("n", 1, "ESTABLISHED", *left.values())], 0.0)
        kept.append(set(left))
    assert kept[0] == kept[1] and len(kept[0]) == 1
