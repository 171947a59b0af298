"""What is said of certificates as their ends come near."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swanmesh.core.credentials.expiry import ExpiryNews, expiring, of_peer
from swanmesh.core.model import Validity
from swanmesh.core.observed import SeenCertificate
from tests.unit.core.build import peer

DAY = 86400.0
END = 2e9
OURS = Validity(
    file="web1.pem",
    key="credentials.certificate",
    subject="CN=web1",
    not_before=END - 90 * DAY,
    not_after=END,
)
THEIRS = Validity(
    file="ca.pem", key="credentials.authorities[0]", subject="CN=ca", not_before=0.0, not_after=4e9
)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (END - 31 * DAY, []),
        (END - 30 * DAY, ["ends in 30 days"]),
        (END - 2.5 * DAY, ["ends in 2 days"]),
        (END - 0.5 * DAY, ["ends in 12 hours"]),
        (END + DAY, ["has ended on 2033-05-18 03:33 UTC: no peer accepts it any more"]),
        (
            END - 91 * DAY,
            ["is not valid before 2033-02-17 03:33 UTC; this machine's clock says 2033-02-16 03:33 UTC"],
        ),
    ],
)
def test_a_problem_names_file_subject_and_remedy(at: float, said: list[str]) -> None:
    problems = expiring([OURS, THEIRS], at)
    assert [problem.message for problem in problems] == said
    assert all(
        (problem.file, problem.value) == ("web1.pem", "CN=web1") and problem.remedy for problem in problems
    )


def test_each_stage_is_news_once_and_a_new_certificate_ends_it() -> None:
    news = ExpiryNews()
    told = [at for at in range(-40, 5) for _ in news.take([OURS, THEIRS], END + at * DAY)]
    assert told == [-30, -7, -1, 0]
    assert ExpiryNews().take([OURS], END - 0.5 * DAY)[0].code == "certificate-expiring", (
        "also for one just begun"
    )
    renewed = Validity(
        file="web1.pem", key=OURS.key, subject="CN=web1", not_before=END, not_after=END + 90 * DAY
    )
    assert news.take([renewed], END + DAY) == []


@pytest.mark.parametrize("life", [90 * DAY, 7 * DAY, DAY, 600.0])
def test_where_a_program_renews_nothing_is_said_before_a_third_of_the_life_is_left(life: float) -> None:
    one = replace(OURS, not_before=END - life)
    news = ExpiryNews()
    times = [END - life + life * step / 1000 for step in range(1010)]
    told = [at for at in times for _ in news.take([one], at, automatic=True)]
    assert END - told[0] <= life / 3
    assert told[-1] >= END and len(told) == 4
    assert not expiring([one], END - life * 0.34, automatic=True)
    assert expiring([one], END - life * 0.32 if life < 90 * DAY else END - 29 * DAY, automatic=True)


def test_a_peers_end_is_told_with_its_name_and_where_to_renew_it() -> None:
    seen = SeenCertificate(
        fingerprint="f", names=("web2.mesh.example",), not_before=END - 90 * DAY, not_after=END, serial=255
    )
    news = ExpiryNews()
    theirs = of_peer(peer("web2.mesh.example"), seen)
    assert news.entered([theirs], END - 31 * DAY, automatic=True) == []
    ((one, reason),) = news.entered([theirs], END - 6.9 * DAY, automatic=True)
    assert one == theirs and "the certificate of web2.mesh.example (serial ff) ends in 7 days" in reason.words
    assert "have it renewed there" in reason.words
