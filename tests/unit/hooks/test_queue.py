"""Which of the events that wait for a peer's turn are told."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from swanmesh.hooks.queue import MOST, enqueue
from swanmesh.hooks.runner import HookEvent


def told(*kinds: str) -> list[tuple[str, int]]:
    waiting: deque[HookEvent] = deque()
    for number, kind in enumerate(kinds):
        enqueue(waiting, HookEvent(event=kind, reason=str(number)))
    return [(event.event, event.skipped) for event in waiting]


def test_of_ups_and_downs_in_a_row_the_latest_is_told() -> None:
    assert told("peer-up", "peer-down", "peer-up") == [("peer-up", 2)]
    assert told(*["peer-down", "peer-up"] * 50) == [("peer-up", 99)]
    assert told("charon-lost", "charon-back", "charon-lost") == [("charon-lost", 2)]


def test_it_is_told_with_its_own_reason() -> None:
    waiting: deque[HookEvent] = deque()
    enqueue(waiting, HookEvent(event="peer-up"))
    enqueue(waiting, HookEvent(event="peer-down", reason="peer unreachable"))
    assert [event.reason for event in waiting] == ["peer unreachable"]


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

    def hear(self, event: HookEvent) -> None:
        if event.event == "peer-added":
            self.addresses |= set(event.addresses)
        elif event.event == "peer-removed":
            self.addresses -= set(event.addresses)
            self.up = False
        else:
            self.up = event.event == "peer-up"


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[HookEvent], int]:
    """One peer's events as they can follow each other, and how many of them hooks have heard already."""
    events: list[HookEvent] = []
    addresses: tuple[str, ...] = ()
    for number in range(draw(st.integers(1, 60))):
        kind = draw(st.sampled_from(["peer-up", "peer-down", "peer-removed"])) if addresses else "peer-added"
        if kind == "peer-added":
            addresses = (f"192.0.2.{number}",)
        events.append(HookEvent(event=kind, addresses=addresses))
        if kind == "peer-removed":
            addresses = ()
    return events, draw(st.integers(0, len(events)))


@given(histories())
def test_a_hook_that_keeps_a_set_arrives_at_what_is_true(history: tuple[list[HookEvent], int]) -> None:
    events, heard = history
    hears_all, hears_the_rest = Follower(), Follower()
    waiting: deque[HookEvent] = deque()
    for number, event in enumerate(events):
        hears_all.hear(event)
        if number < heard:
            hears_the_rest.hear(event)
        else:
            enqueue(waiting, event)
    assert len(waiting) <= MOST
    assert sum(1 + event.skipped for event in waiting) == len(events) - heard
    for event in waiting:
        hears_the_rest.hear(event)
    assert (hears_the_rest.addresses, hears_the_rest.up) == (hears_all.addresses, hears_all.up)
