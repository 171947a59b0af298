"""Which of the events that wait for a peer's turn are told."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from swanmesh.core.events import MeshEvent
from swanmesh.hooks.queue import MOST, Turn, enqueue
from tests.unit.hooks.hooking import event


def told(*kinds: str) -> list[tuple[str, int]]:
    waiting: deque[Turn] = deque()
    for number, kind in enumerate(kinds):
        enqueue(waiting, event(kind, reason=str(number)))
    return [(turn.event.kind, turn.skipped) for turn in waiting]


def test_of_ups_and_downs_in_a_row_the_latest_is_told() -> None:
    assert told("peer-up", "peer-down", "peer-up") == [("peer-up", 2)]
    assert told(*["peer-down", "peer-up"] * 50) == [("peer-up", 99)]
    assert told("charon-lost", "charon-back", "charon-lost") == [("charon-lost", 2)]


def test_it_is_told_with_its_own_reason() -> None:
    waiting: deque[Turn] = deque()
    enqueue(waiting, event("peer-up"))
    enqueue(waiting, event("peer-down", reason="peer unreachable"))
    assert [turn.event.reason for turn in waiting] == ["peer unreachable"]


def test_no_life_of_a_peer_is_lost() -> None:
    kinds = ("peer-removed", "peer-added", "peer-up", "peer-removed", "peer-added", "peer-up")
    assert told(*kinds) == [(kind, 0) for kind in kinds]


def test_what_follows_the_start_does_not_overtake_it() -> None:
    kinds = ("started", "charon-lost", "stopping")
    assert told(*kinds) == [(kind, 0) for kind in kinds]


LIFE = ["peer-added", "peer-up", "peer-removed"]


def test_lives_beyond_the_bound_are_left_out_as_a_whole() -> None:
    assert told(*LIFE * 6) == [("peer-added", 0), ("peer-up", 15), ("peer-removed", 0)]
    # The first removal ends the life that hooks know of: it stays, with the addresses that they know.
    known = told("peer-removed", *LIFE * 6, "peer-added", "peer-up")
    kinds = [kind for kind, _ in known]
    assert (kinds[0], kinds[-2:]) == ("peer-removed", ["peer-added", "peer-up"])


class Follower:
    """What a hook that keeps the set of known peers' addresses, and who is up, believes of one peer."""

    def __init__(self) -> None:
        self.addresses: set[str] = set()
        self.up = False

    def hear(self, event: MeshEvent) -> None:
        if event.kind == "peer-added":
            self.addresses |= set(event.addresses)
        elif event.kind == "peer-removed":
            self.addresses -= set(event.addresses)
            self.up = False
        else:
            self.up = event.kind == "peer-up"


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[MeshEvent], int]:
    """One peer's events as they can follow each other, and how many of them hooks have heard already."""
    events: list[MeshEvent] = []
    addresses: tuple[str, ...] = ()
    for number in range(draw(st.integers(1, 60))):
        kind = draw(st.sampled_from(["peer-up", "peer-down", "peer-removed"])) if addresses else "peer-added"
        if kind == "peer-added":
            addresses = (f"192.0.2.{number}",)
        events.append(event(kind, "", "", *addresses))
        if kind == "peer-removed":
            addresses = ()
    return events, draw(st.integers(0, len(events)))


@given(histories())
def test_a_hook_that_keeps_a_set_arrives_at_what_is_true(history: tuple[list[MeshEvent], int]) -> None:
    events, heard = history
    hears_all, hears_the_rest = Follower(), Follower()
    waiting: deque[Turn] = deque()
    for number, happened in enumerate(events):
        hears_all.hear(happened)
        if number < heard:
            hears_the_rest.hear(happened)
        else:
            enqueue(waiting, happened)
    assert len(waiting) <= MOST
    assert sum(1 + turn.skipped for turn in waiting) == len(events) - heard
    for turn in waiting:
        hears_the_rest.hear(turn.event)
    assert (hears_the_rest.addresses, hears_the_rest.up) == (hears_all.addresses, hears_all.up)
