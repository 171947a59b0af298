"""The demo shows what it says, and each of its three counts can come out other than zero."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from lab import Mesh, by_hand, mesh
from lab.demo import Demo, last_line
from lab.measuring import Measurement


@pytest.fixture
def pair() -> Iterator[Mesh]:
    """Two hosts with an association, and a third without any."""
    with mesh(2, spare=1) as lab:
        lab.start_charons()
        by_hand.load_connections(lab[0], [lab[1]], "none")
        by_hand.load_connections(lab[1], [lab[0]], "none")
        by_hand.initiate(lab[0], "h2-0")
        lab.wait_until_full(30)
        yield lab


def test_a_quiet_mesh_measures_as_clean(pair: Mesh) -> None:
    measurement = Measurement(pair, pair.hosts[:2])
    assert pair[0].ping(pair[1], 20).lost == 0
    result = measurement.finish()
    assert result.clean, result
    assert result.pings >= 20
    assert result.esp >= 80


def test_clear_text_of_any_host_counts(pair: Mesh) -> None:
    measurement = Measurement(pair, pair.hosts[:2])
    assert pair[2].ping(pair[0], 5).lost == 0
    result = measurement.finish()
    assert len(result.clear) == 10
    assert not result.clean
    assert (result.lost, result.changed) == (0, ())


def test_a_lost_packet_counts(pair: Mesh) -> None:
    measurement = Measurement(pair, pair.hosts[:2])
    pair[1].link.drop("esp")
    assert pair[0].ping(pair[1], 3).received == 0
    pair[1].link.restore()
    assert pair[0].ping(pair[1], 3).lost == 0
    result = measurement.finish()
    assert 0 < result.lost < result.pings
    assert not result.clean
    assert (result.clear, result.changed) == ((), ())


def test_a_changed_association_counts(pair: Mesh) -> None:
    measurement = Measurement(pair, pair.hosts[:2])
    before = pair[0].spis()
    with pair[0].vici() as session:
        list(session.rekey({"child": "esp"}))
    pair.wait_until_full(20)
    assert pair[0].spis() != before
    result = measurement.finish()
    assert result.changed
    assert not result.clean


def test_nothing_seen_is_no_success() -> None:
    with mesh(2) as lab, pytest.raises(RuntimeError, match="holds no association between h1 and h2"):
        Measurement(lab, lab.hosts)


def test_the_demo_with_three_hosts(capsys: pytest.CaptureFixture[str]) -> None:
    result = Demo(3).run()
    assert result.clean, result
    assert last_line(3, result) == (
        "3 hosts, 3 pairs: 0 packets lost, 0 associations changed, 0 packets in clear"
    )
    shown = capsys.readouterr().out
    assert re.search(r"h2\.mesh\.example +up", shown)
    assert "h1: h3.mesh.example: added" in shown
