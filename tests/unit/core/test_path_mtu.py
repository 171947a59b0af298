"""How large packets may be, found out on a path that loses what is larger and tells nobody."""

from __future__ import annotations

import random

import pytest

from swanmesh.core.pairs.path_mtu import BELIEVED, PathMtu

AGAIN = 300.0


class Path:
    """A path that carries packets up to a size, and a kernel that believes in another one."""

    def __init__(self, carries: int, believed: int = 1466, *, loss: float = 0.0) -> None:
        self.carries, self.believed, self.loss = carries, believed, loss
        self.answers = True
        """Whether small packets are answered."""
        self.mtu = PathMtu()
        self.mtu.begin(0.0)
        self.now, self.answered, self.sent = 0.0, 0.0, 0
        self.rng = random.Random(1)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 1.0 if self.mtu.busy else 5.0
            if self.answers:
                self.answered = self.now
            size = self.mtu.next(self.now, self.answered, AGAIN)
            if size is None:
                continue
            self.sent += 1
            if size == BELIEVED:
                size = self.believed
                self.mtu.sent(size)
            if size <= self.carries and self.answers and self.rng.random() >= self.loss:
                self.mtu.take(size, self.now)


def test_a_path_that_carries_all_is_asked_once_an_hour() -> None:
    path = Path(1500)
    path.run(3500)
    assert (path.mtu.limit, path.mtu.changed, path.sent) == (0, False, 1)


@pytest.mark.parametrize("carries", [600, 1000, 1280, 1400, 1460])
def test_the_largest_that_passes_is_found_within_a_minute(carries: int) -> None:
    path = Path(carries)
    path.run(60)
    assert carries - 8 <= path.mtu.limit <= carries
    assert path.mtu.changed and path.mtu.reason.code == "path-mtu"
    assert path.sent <= 40


def test_it_is_taken_back_when_all_passes_again_and_not_before() -> None:
    path = Path(1280)
    path.run(60)
    path.mtu.changed = False
    path.run(4 * AGAIN)
    assert path.mtu.limit and not path.mtu.changed
    path.carries = 1500
    path.run(3600)
    assert (path.mtu.limit, path.mtu.changed) == (0, True)
    assert not path.mtu.reason


def test_where_nothing_is_answered_it_is_no_matter_of_size() -> None:
    path = Path(1280)
    path.answers = False
    path.run(3600)
    assert (path.mtu.limit, path.mtu.changed) == (0, False)


def test_a_path_smaller_than_any_is_left_alone() -> None:
    path = Path(100)
    path.run(600)
    assert path.mtu.limit == 0


def test_what_the_kernel_refuses_is_said() -> None:
    path = Path(1280)
    path.run(60)
    path.mtu.error = "somebody else has a route to this one host"
    assert "somebody else" in path.mtu.reason.words


@pytest.mark.parametrize("carries", [1280, 1400])
def test_loss_costs_some_size_and_no_more(carries: int) -> None:
    path = Path(carries, loss=0.2)
    path.run(120)
    assert 0 < path.mtu.limit <= carries
