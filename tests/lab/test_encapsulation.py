"""ESP filtered on the way, and the way inside UDP: `encapsulation: auto`.

What is measured is printed: `pytest -s` shows it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from lab import Host, Mesh, mesh, wait_until
from lab.asking import Journal, full, view
from tests.lab.watching import INTERVAL, NOTICED, moment, probed, told_down, up_at


@pytest.fixture(scope="module")
def automatic() -> Iterator[Mesh]:
    """Two hosts that use UDP where ESP does not pass."""
    connection, probe = {"encapsulation": "auto"}, {"again": "30s", "interval": f"{INTERVAL}s"}
    with mesh(2, connection=connection, probe=probe) as lab:
        yield full(lab)


def all_carried(host: Host, other: Host, in_udp: bool) -> bool:
    """Whether every association is inside UDP, or none is."""
    return {each["encap"] for each in view(host, other)["associations"] if each["works"]} == {in_udp}


@pytest.mark.parametrize("direction", ["both", "in"])
def test_where_esp_is_dropped_it_goes_inside_udp_without_a_flap_and_back(
    automatic: Mesh, direction: str
) -> None:
    one, other = automatic
    probed(one, other)
    probed(other, one)
    journals = [Journal(host) for host in automatic]
    capture = automatic.capture()
    dropped = time.time()
    other.link.drop("esp", direction)  # type: ignore[arg-type]
    wait_until(lambda: one.ping(other, 1).lost == 0, 60, "data passes inside UDP", interval=0.5)
    print(f"ESP dropped ({direction}): data passed inside UDP after {time.time() - dropped:.1f} s")
    for host, peer in ((one, other), (other, one)):
        wait_until(partial(all_carried, host, peer, True), 60, "only what is inside UDP is left")
    assert one.ping(other, 100, 0.05).lost == 0
    other.kill_swanmesh()
    one.kill_swanmesh()
    automatic.start_controllers()
    assert one.ping(other, 40, 0.05).lost == 0
    other.link.restore()
    for host, peer in ((one, other), (other, one)):
        wait_until(partial(all_carried, host, peer, False), 240, "ESP goes by itself again")
    assert one.ping(other, 40, 0.05).lost == 0
    assert [line for journal in journals for line in journal.lines("peer-down", "peer-violation")] == []
    assert capture.clear == []


def test_where_udp_is_dropped_too_it_is_told_that_no_data_passes(automatic: Mesh) -> None:
    one, other = automatic
    wait_until(lambda: up_at(one, [other]) and all_carried(one, other, False), 240, "ESP goes by itself")
    probed(one, other)
    probed(other, one)
    journals = [Journal(host) for host in automatic]
    dropped = time.time()
    other.link.drop("esp")
    other.link.drop("udp")
    lines = [told_down(journals[0], other, 60), told_down(journals[1], one, 60)]
    took = [moment(line) - dropped for line in lines]
    print(f"ESP and UDP dropped: told after {', '.join(f'{each:.1f}' for each in took)} s")
    assert {line["code"] for line in lines} == {"no-data"}
    # The way inside UDP is tried first.
    assert max(took) <= 1.5 * NOTICED
    other.link.restore()
    wait_until(lambda: up_at(one, [other]), 120, "data passes again")
