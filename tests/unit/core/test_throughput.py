"""What a link can carry at most, and what is said to hold a transfer back."""

from __future__ import annotations

import pytest

from swanmesh.core.throughput import Load, Path, ceiling, largest_segment, limit, share


@pytest.mark.parametrize(
    ("family", "mtu", "encap", "megabits"),
    [
        (4, 1500, False, 919),
        (6, 1500, False, 906),
        (4, 1500, True, 914),
        (4, 9000, False, 986),
        (6, 9000, False, 984),
    ],
)
def test_tcp_can_have_so_much_of_a_gigabit(family: int, mtu: int, encap: bool, megabits: int) -> None:
    assert round(1000 * ceiling(family, mtu, encap=encap)) == megabits


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("encap", [False, True])
def test_no_packet_is_longer_than_the_mtu_and_the_next_segment_would_not_fit(
    family: int, encap: bool
) -> None:
    for mtu in range(1280, 9001):
        segment = largest_segment(family, mtu, encap=encap)
        assert [_length(segment + more, family, encap) <= mtu for more in (0, 1)] == [True, False]
        assert share(segment, family, encap=encap) < ceiling(family, mtu + 4, encap=encap)


def _length(segment: int, family: int, encap: bool) -> int:
    within = segment + 32 + 2  # TCP with time stamps; ESP's trailer
    padded = within + -within % 4
    return (20 if family == 4 else 40) + (8 if encap else 0) + 8 + 8 + padded + 16


GIGABIT = Path(family=4, mtu=1500, segment=1414, speed=1e9)


def _loads(here: tuple[float, ...] = (0.2, 0.1), there: tuple[float, ...] = (0.2, 0.1)) -> list[Load]:
    return [Load(host="web1", busy=here, before=0.0), Load(host="web2", busy=there, before=0.0)]


def test_a_full_link_is_the_limit_whatever_else_is_busy() -> None:
    reason = limit(GIGABIT, 0.915e9, 0, 5, _loads((1.0, 1.0)))
    assert reason.code == "link"
    assert reason.words == "the link's 1,000 Mbit/s are full of packets of 1500 bytes, its MTU"


def test_a_link_full_of_short_packets_is_the_paths_mtu() -> None:
    path = Path(family=4, mtu=9000, segment=1414, speed=1e9)
    assert limit(path, 0.915e9, 0, 5, _loads()).code == "mtu"
    assert limit(GIGABIT, 0.86e9, 0, 5, _loads()).code == "unknown"


@pytest.mark.parametrize(
    ("here", "there", "code", "words"),
    [
        ((0.99,), (0.2, 0.2), "cpu", "web1: its processor is busy"),
        ((0.2, 0.2), (0.95, 0.93), "cpu", "web2: all 2 processors are busy"),
        ((0.2, 0.2), (0.1, 0.97), "core", "web2: one of 2 processors is busy"),
        ((0.97, 0.2, 0.1), (0.95, 0.93), "cpu", "web2: all 2 processors are busy"),
        ((0.5, 0.5), (0.5, 0.5), "unknown", "no processor was busy"),
    ],
)
def test_below_the_links_ceiling_a_busy_processor_is_the_limit(
    here: tuple[float, ...], there: tuple[float, ...], code: str, words: str
) -> None:
    reason = limit(GIGABIT, 0.4e9, 0, 5, _loads(here, there))
    assert reason.code == code
    assert reason.words.startswith(words)


def test_a_processor_that_was_busy_before_is_busy_with_other_things() -> None:
    load = Load(host="web2", busy=(1.0, 0.9), before=1.8)
    words = limit(GIGABIT, 0.4e9, 0, 5, [load]).words
    assert words == "web2: all 2 processors are busy, mostly with other things"


def test_what_is_sent_again_tells_of_losses() -> None:
    segments = 0.4e9 * 5 / 8 / 1414
    assert limit(GIGABIT, 0.4e9, int(segments / 100), 5, _loads()).code == "loss"
    assert limit(GIGABIT, 0.4e9, int(segments / 10_000), 5, _loads()).code == "unknown"


def test_without_a_speed_there_is_no_ceiling_and_it_says_so() -> None:
    path = Path(family=4, mtu=1500, segment=1414)
    assert path.ceiling is None
    assert "--speed" in limit(path, 5e9, 0, 5, _loads()).words


def test_cpu_is_counted_without_what_was_busy_before() -> None:
    load = Load(host="web1", busy=(0.5, 0.25), before=0.25)
    assert load.each_gigabyte(4e9) == pytest.approx(1.0)
    assert Load(host="web1", busy=(0.1,), before=0.3).each_gigabyte(4e9) == 0
