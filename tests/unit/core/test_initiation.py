"""Who initiates, and how long to wait."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from swanmesh.core.model import InitiationSettings
from swanmesh.core.pairs.initiation import backoff, initiates, takeover_delay

HOW = InitiationSettings()
names = st.from_regex(r"[a-z0-9]{1,12}(\.mesh\.example)?", fullmatch=True)


@given(names, names)
def test_exactly_one_end_of_a_pair_initiates(one: str, other: str) -> None:
    if one != other:
        assert initiates(one, other) is not initiates(other, one)


def test_each_of_a_hundred_hosts_initiates_about_half_of_its_pairs() -> None:
    hosts = [f"web{n}.mesh.example" for n in range(100)]
    counts = dict.fromkeys(hosts, 0)
    for one, other in itertools.combinations(hosts, 2):
        counts[one if initiates(one, other) else other] += 1
    shares = [count / 99 for count in counts.values()]
    assert all(0.35 <= share <= 0.65 for share in shares), (min(shares), max(shares))
    # Neither the low nor the high names do more of it.
    low = sum(counts[host] for host in sorted(hosts)[:50]) / sum(counts.values())
    assert 0.45 <= low <= 0.55


@given(st.integers(1, 1000), st.integers(0, 2**32))
def test_backoff_keeps_between_base_and_ceiling(attempts: int, seed: int) -> None:
    wait = backoff(attempts, HOW, random.Random(seed))
    assert HOW.backoff_base <= wait <= min(HOW.backoff_ceiling, HOW.backoff_base * 2.0 ** min(attempts, 30))


def test_backoff_grows_and_spreads() -> None:
    rng = random.Random(1)
    means = [sum(backoff(n, HOW, rng) for _ in range(300)) / 300 for n in range(1, 9)]
    assert means == sorted(means) and means[-1] > 25.0
    late = [backoff(9, HOW, rng) for _ in range(300)]
    assert min(late) < 10.0 and max(late) > 50.0  # full jitter: all of the range is used
    assert backoff(0, HOW, rng) == 0.0


def test_the_other_end_leaves_time_and_less_if_it_knows_better() -> None:
    rng = random.Random(1)
    full = [takeover_delay(HOW, rng, shortly=False) for _ in range(100)]
    short = [takeover_delay(HOW, rng, shortly=True) for _ in range(100)]
    assert HOW.takeover <= min(full) and max(full) <= 1.25 * HOW.takeover
    assert HOW.takeover / 5 <= min(short) and max(short) <= HOW.takeover / 4
