"""When a certificate is renewed, and when that is tried again."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from swanmesh.core.credentials.renewal import Attempts, due, next_attempt, overdue
from swanmesh.core.model import Credentials, Validity
from tests.unit.core.build import credentials

DAY = 86400.0
END = 2e9


def certificate(number: int = 0, lifetime: float = 90 * DAY) -> Credentials:
    own = Validity(
        file="web1.pem",
        key="credentials.certificate",
        subject="CN=web1",
        not_before=END - lifetime,
        not_after=END,
    )
    made = credentials(lifetime=lifetime)
    return replace(made, certificate=f"certificate {number}".encode(), validities=(own,))


def tried(mine: Credentials, until: float) -> list[float]:
    """When renewals are tried, of which each fails at once, from the certificate's beginning on."""
    attempts = Attempts()
    times: list[float] = []
    while (at := next_attempt(mine, attempts, times[-1] if times else mine.not_before)) is not None:
        if at > until:
            break
        times.append(at)
        attempts = attempts.failure(mine, at, "the authority does not answer")
        assert len(times) < 2000, "a tight loop"
    return times


@pytest.mark.parametrize("lifetime", [90 * DAY, 365 * DAY, DAY, 600.0])
def test_hosts_that_were_issued_together_are_due_over_a_tenth_of_a_life_before_two_thirds_of_it(
    lifetime: float,
) -> None:
    shares = [1 - (END - due(certificate(n, lifetime))) / lifetime for n in range(200)]
    assert all(0.56 < share < 0.66 for share in shares)
    assert max(shares) - min(shares) > 0.08
    assert due(certificate(7, lifetime)) == due(certificate(7, lifetime)), "restarts draw no other lot"


def test_it_is_tried_when_due_and_ever_less_often_but_before_the_end_again_and_again() -> None:
    mine = certificate()
    times = tried(mine, END)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert times[0] == due(mine)
    assert 48 <= gaps[0] <= 72 and gaps[1] == pytest.approx(2 * gaps[0])
    assert max(gaps) <= 1.2 * 6 * 3600
    assert min(gaps) >= 4.0
    assert 100 < len(times) < 300
    assert END - times[-1] < 60


@pytest.mark.parametrize("lifetime", [600.0, 3600.0, DAY])
def test_a_short_life_is_tried_several_times_before_its_end(lifetime: float) -> None:
    times = tried(certificate(lifetime=lifetime), END)
    assert len(times) >= 8


def test_after_the_end_it_goes_on_by_the_ceiling() -> None:
    mine = certificate()
    assert 20 < len([at for at in tried(mine, END + 10 * DAY) if at > END]) < 60


def test_another_certificate_begins_without_the_failures_of_the_last() -> None:
    old, new = certificate(1), replace(certificate(2), not_after=END + 60 * DAY, not_before=END - 30 * DAY)
    attempts = Attempts().failure(old, END - 30 * DAY, "no answer")
    assert next_attempt(new, attempts, END - 29 * DAY) == due(new)
    assert overdue(new, attempts, END - 29 * DAY, automatic=True) is None


@pytest.mark.parametrize("wrong_by", [-100 * DAY, -3 * 3600.0, 3 * 3600.0, 4000 * DAY])
def test_a_clock_that_was_wrong_meanwhile_holds_up_nothing(wrong_by: float) -> None:
    """An attempt that failed while the clock was wrong, and then the clock is set right."""
    mine = certificate()
    now = END - 20 * DAY
    attempts = Attempts().failure(mine, now + wrong_by, "not valid before tomorrow")
    at = next_attempt(mine, attempts, now)
    assert at is not None and at <= now + 72


def test_before_the_certificates_beginning_the_clock_is_wrong_and_nothing_is_asked_for() -> None:
    mine = certificate()
    assert next_attempt(mine, Attempts(), mine.not_before - 1) is None
    assert overdue(mine, Attempts(), mine.not_before - 1, automatic=False) is None


def test_without_a_command_it_is_told_that_it_is_due() -> None:
    mine = certificate()
    assert overdue(mine, Attempts(), due(mine) - 1, automatic=False) is None
    problem = overdue(mine, Attempts(), due(mine), automatic=False)
    assert problem is not None
    assert (problem.file, problem.value) == ("web1.pem", "CN=web1")
    assert overdue(mine, Attempts(), END - 10 * DAY, automatic=False) is None, (
        "the end itself is told of then"
    )
    assert "is due for renewal since" in problem.message and "renewal.command" in problem.remedy


def test_with_one_only_failures_are_told_with_the_last_ones_words() -> None:
    mine = certificate()
    at = due(mine)
    assert overdue(mine, Attempts(), at, automatic=True) is None
    once = Attempts().failure(mine, at, "exit status 255")
    twice = once.failure(mine, at + 60, "not done after 60 s")
    for attempts, words in ((once, "failed once, at"), (twice, "failed 2 times, the last at")):
        problem = overdue(mine, attempts, at + 100, automatic=True)
        assert problem is not None
        assert words in problem.message and attempts.why in problem.message
        assert "swanmesh cert renew --now" in problem.remedy
