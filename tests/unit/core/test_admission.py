"""A bounded number of initiations at once, the rest in line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swanmesh.core.decide.admission import Admission


def taken(admission: Admission, name: str) -> bool:
    """A place if there is one; else it waits."""
    if not admission.free_for(name):
        admission.wait(name)
        return False
    admission.take(name)
    return True


def test_first_come_first_served() -> None:
    admission = Admission(2)
    assert [taken(admission, name) for name in "abcd"] == [True, True, False, False]
    assert (admission.in_flight, admission.waiting) == (2, 2)
    assert admission.next_in_line() is None
    admission.release("a")
    assert admission.next_in_line() == "c" and taken(admission, "c")
    assert admission.next_in_line() is None
    admission.release("b")
    assert admission.next_in_line() == "d"
    assert admission.waiting == 0


def test_what_flies_needs_no_second_place() -> None:
    admission = Admission(1)
    assert taken(admission, "a") and taken(admission, "a")
    assert admission.in_flight == 1
    admission.release("a")
    admission.release("a")
    assert admission.in_flight == 0


def test_who_waits_and_wants_no_more_leaves_the_line() -> None:
    admission = Admission(1)
    assert taken(admission, "a") and not taken(admission, "b") and not taken(admission, "c")
    admission.release("b")
    admission.release("a")
    assert admission.next_in_line() == "c"


def test_a_lower_limit_lets_what_flies_end() -> None:
    admission = Admission(3)
    assert all(taken(admission, name) for name in "abc")
    admission.limit = 1
    assert not taken(admission, "d")
    admission.release("a")
    admission.release("b")
    assert admission.next_in_line() is None
    admission.release("c")
    assert admission.next_in_line() == "d"


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans())), st.integers(1, 4))
def test_never_more_than_the_limit(moves: list[tuple[str, bool]], limit: int) -> None:
    admission = Admission(limit)
    flying: set[str] = set()
    for name, take in moves:
        if not take:
            admission.release(name)
            flying.discard(name)
        elif taken(admission, name):
            flying.add(name)
        assert admission.in_flight == len(flying) <= limit
    for name in sorted(flying):
        admission.release(name)
    line = []
    while (first := admission.next_in_line()) is not None:
        line.append(first)
    assert len(line) == len(set(line)) and not set(line) & flying
