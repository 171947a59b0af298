"""Whose turn it is to be initiated."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from swanmesh.core.model import InitiationSettings
from swanmesh.core.pairs.pair import Attempt
from swanmesh.core.turns.admission import Admission, Rank, rank_of

HOW = InitiationSettings()
AT_ONCE = 0.001


class Line:
    """An Admission with as many places as it may have, on a clock of its own."""

    def __init__(self, places: int) -> None:
        self.admission = Admission(replace(HOW, in_flight=places))
        self.now = 1000.0
        for number in range(4 * places):
            name = f"before{number}"
            self.wait(Rank.KEEN, name)
            self.pass_time(AT_ONCE)
            assert self.turns() == [name]
            self.up(name)
        assert self.admission.pace.places == places

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, rank: Rank, *names: str) -> None:
        for name in names:
            self.admission.wait(name, rank, self.now)

    def turns(self, *, fresh: bool = True) -> list[str]:
        """Who gets a place now, in order."""
        found = []
        while (name := self.admission.next(self.now, fresh=fresh)) is not None:
            found.append(name)
        return found

    def taken(self, *names: str, after: float = AT_ONCE) -> None:
        """charon answers to the request to initiate."""
        for name in names:
            self.admission.asked(name, self.now)
        self.pass_time(after)
        for name in names:
            self.admission.answered(name, self.now)

    def up(self, name: str, after: float = 0.01, *, failed_before: bool = False) -> None:
        self.taken(name)
        self.pass_time(after)
        self.admission.came_up(name, self.now, failed_before=failed_before)


def test_first_come_first_served() -> None:
    line = Line(2)
    line.wait(Rank.KEEN, "a", "b", "c", "d")
    assert line.turns() == ["a", "b"] and line.turns() == []
    line.up("a")
    line.wait(Rank.KEEN, "b2")
    assert line.turns() == ["c"]
    line.up("b")
    assert line.turns() == ["d"]


def test_those_that_failed_wait_behind_those_that_did_not() -> None:
    line = Line(2)
    line.wait(Rank.DOUBTFUL, "late")
    line.wait(Rank.FAILING, "dead")
    line.wait(Rank.KEEN, "new", "newer")
    line.wait(Rank.MENDING, "mended")
    assert line.turns() == ["mended", "new"]
    line.up("new")
    assert line.turns() == ["newer"]
    line.up("newer")
    assert line.turns() == ["late"]
    line.up("late")
    assert line.turns() == ["dead"]


def test_those_that_fail_often_have_a_share_of_the_places_even_while_others_wait() -> None:
    line = Line(8)
    line.wait(Rank.FAILING, *[f"dead{n}" for n in range(20)])
    line.wait(Rank.KEEN, *[f"new{n}" for n in range(20)])
    turns = line.turns()
    assert len(turns) == 8
    assert sum(name.startswith("dead") for name in turns) == 2


def test_those_that_fail_often_take_their_time_and_all_have_their_turn() -> None:
    line = Line(8)
    dead = [f"dead{n}" for n in range(100)]
    line.wait(Rank.FAILING, *dead)
    tried: list[str] = []
    began = line.now
    while len(tried) < 100:
        turns = line.turns()
        line.taken(*turns)
        tried += turns
        for name in turns:
            line.admission.failed(name, line.now)
        line.pass_time(0.5)
    assert tried == dead
    assert 30.0 < line.now - began < 90.0


def test_one_that_comes_up_after_all_brings_the_turn_of_others_nearer() -> None:
    line = Line(8)
    line.wait(Rank.FAILING, *[f"dead{n}" for n in range(100)])
    tried: list[str] = []
    while turns := line.turns():  # one batch
        for name in turns:
            line.up(name)
            line.admission.release(name)
        tried += turns
    assert len(tried) < 100
    line.up(tried[-1], failed_before=True)
    assert len(line.turns()) == 2


def test_nobody_that_may_be_initiated_already_is_initiated_without_a_look() -> None:
    line = Line(4)
    line.wait(Rank.DOUBTFUL, "late")
    line.wait(Rank.KEEN, "new")
    assert line.turns(fresh=False) == ["new"]
    assert line.admission.look_at == line.now and line.admission.look_for == "late"
    assert line.turns(fresh=True) == ["late"]


def test_who_is_silent_gives_its_place_back_and_goes_on() -> None:
    line = Line(1)
    line.wait(Rank.KEEN, "dead", "new")
    assert line.turns() == ["dead"]
    line.taken("dead")
    assert line.turns() == [] and line.admission.due is not None
    line.now = line.admission.due
    assert line.turns() == ["new"]
    assert line.admission.has_place("dead") and line.admission.in_flight == 1


def test_a_charon_that_has_not_answered_yet_is_busy_and_not_silent() -> None:
    line = Line(1)
    line.wait(Rank.KEEN, "first", "second")
    assert line.turns() == ["first"]
    line.pass_time(30.0)
    assert line.turns() == []


def test_late_handshakes_take_places_away_and_timely_ones_bring_them_back() -> None:
    line = Line(16)
    line.wait(Rank.KEEN, *[f"slow{n}" for n in range(60)])
    begun = 0
    for _ in range(6):
        turns = line.turns()
        begun = len(turns)
        line.taken(*turns)
        line.pass_time(8.0)
        for name in turns:
            line.admission.came_up(name, line.now, failed_before=False)
    assert begun <= 4
    line.wait(Rank.KEEN, *[f"quick{n}" for n in range(300)])
    for _ in range(60):
        turns = line.turns()
        for name in turns:
            line.up(name)
        line.pass_time(1.0)
    line.wait(Rank.KEEN, *[f"more{n}" for n in range(20)])
    assert len(line.turns()) == 16


def test_a_takeover_waits_longer_where_everything_is_late() -> None:
    def waits(handshake: float) -> float:
        line = Line(4)
        for name in ("one", "two"):
            line.wait(Rank.KEEN, name)
            assert line.turns() == [name]
            line.up(name, handshake)
            line.pass_time(20.0)
        line.wait(Rank.DOUBTFUL, "late")
        began = line.now
        while not line.turns():
            line.pass_time(1.0)
        return line.now - began

    assert waits(0.1) == 0.0
    assert waits(6.0) > HOW.takeover


def test_a_lower_limit_lets_what_flies_end() -> None:
    line = Line(3)
    line.wait(Rank.KEEN, *"abcd")
    assert line.turns() == ["a", "b", "c"]
    line.admission.configure(replace(HOW, in_flight=1))
    for name in "ab":
        line.up(name)
        assert line.turns() == []
    line.up("c")
    assert line.turns() == ["d"]


def test_what_speaks_against_a_pair() -> None:
    assert rank_of(Attempt(), initiator=True, up=False) is Rank.KEEN
    assert rank_of(Attempt(), initiator=False, up=False) is Rank.DOUBTFUL
    assert rank_of(Attempt(peer_ready=True), initiator=False, up=False) is Rank.KEEN
    assert rank_of(Attempt(failed=1), initiator=True, up=False) is Rank.DOUBTFUL
    assert rank_of(Attempt(failed=2), initiator=True, up=False) is Rank.FAILING
    assert rank_of(Attempt(failed=2), initiator=True, up=True) is Rank.MENDING


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["wait", "up", "failed", "release", "time"]),
                  st.sampled_from(Rank)),
    ),
    st.integers(1, 4),
)  # fmt: skip
def test_never_more_than_the_limit_and_everybody_has_a_turn(
    moves: list[tuple[str, str, Rank]], limit: int
) -> None:
    admission = Admission(replace(HOW, in_flight=limit))
    now = 1000.0
    for name, move, rank in moves:
        match move:
            case "wait" if not admission.has_place(name):
                admission.wait(name, rank, now)
            case "up":
                admission.came_up(name, now, failed_before=True)
            case "failed":
                admission.failed(name, now)
            case "release":
                admission.release(name)
            case "time":
                now += 1.0
        got = admission.next(now, fresh=True)
        if got is not None:
            assert admission.has_place(got) and not admission.waits(got)
            admission.asked(got, now)
            admission.answered(got, now + 0.01)
        assert admission.in_flight <= limit
    for name in "abcdefgh":
        if admission.has_place(name):
            admission.release(name)
    for _ in range(3000):
        now += 1.0
        while (got := admission.next(now, fresh=True)) is not None:
            admission.release(got)
    assert admission.waiting == admission.in_flight == 0
