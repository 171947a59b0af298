"""A mesh of three in bad nights: cables cut, lossy, filtered; others that meddle.

What is measured is printed: `pytest -s` shows it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from lab import Host, Mesh, mesh, wait_until
from lab.asking import Journal, full, pair_spis, view, wait_until_idle
from lab.files import patient
from lab.measuring import Measurement
from tests.lab.watching import all_spis, moment, seconds, told_down, up_at

NOTICED = 180.0 if patient() else 60.0
"""Seconds within which a dead peer is noticed, with room for a slow machine."""


@pytest.fixture(scope="module")
def standing() -> Iterator[Mesh]:
    """Three hosts in full mesh."""
    with mesh(3) as lab:
        yield full(lab)


@pytest.fixture
def trio(standing: Mesh) -> Iterator[Mesh]:
    """The same three for every test; each must leave them as whole as it found them."""
    yield standing
    for host in standing:
        host.link.restore()
    standing.wait_until_full(120)
    wait_until_idle(standing.hosts, 60)


def given_up(host: Host, since: float) -> list[float]:
    """When charon gave up on a peer after all retransmissions, in seconds since the epoch; see its log."""
    lines = [line for line in host.charon_log.read_text().splitlines() if "giving up after" in line]
    moments = [datetime.fromisoformat(line.split()[0]).timestamp() for line in lines]
    return [moment for moment in moments if moment >= since]


def test_charon_stopped_and_started_again(trio: Mesh) -> None:
    stopped, *others = trio
    before = all_spis(others)
    journals = {host: Journal(host) for host in trio}
    stopped.stop_charon()
    for host in others:
        assert told_down(journals[host], stopped, 30)["reason"] == "peer deleted it"
    wait_until(
        lambda: "charon is not reachable" in view(stopped, others[0])["reason"],
        30,
        "it is said that charon is gone",
    )
    stopped.start_charon()
    took = seconds(lambda: stopped.swanmesh("wait", "--timeout", "60", timeout=90))
    print(f"charon stopped and started: up again {took:.1f} s after its return")
    trio.wait_until_full()
    assert [line["event"] for line in journals[stopped].lines("charon-lost", "charon-back")] == [
        "charon-lost",
        "charon-back",
    ]
    assert all_spis(others) == before


@pytest.mark.parametrize("direction", ["both", "in"])
def test_a_dead_cable_is_noticed_in_time_and_a_mended_one_used(trio: Mesh, direction: str) -> None:
    dead, *others = trio
    before = all_spis(others)
    journals = {host: Journal(host) for host in trio}
    cut = time.time()
    dead.link.cut(direction)  # type: ignore[arg-type]
    lines = [told_down(journals[host], dead, NOTICED) for host in others]
    lines += [told_down(journals[dead], other, NOTICED) for other in others]
    took = [moment(line) - cut for line in lines]
    print(f"cable cut ({direction}): noticed after {', '.join(f'{each:.1f}' for each in took)} s")
    # charon gives up by its own clock, which dpd_delay and the shipped retransmission set; the controller
    # says so as soon as charon does, whatever else the machine has to do.
    for host in trio:
        gave_up = [at - cut for at in given_up(host, since=cut)]
        for line in journals[host].lines("peer-down"):
            told = moment(line) - cut
            if line["code"] == "peer-unreachable":
                assert told <= 1.1 * max(at for at in gave_up if at <= told)
    # Probes may find out before IKE gives up, and a peer that hears nothing may say so.
    assert {line["code"] for line in lines} <= {"peer-unreachable", "no-data"}, lines
    shown = view(others[0], dead)
    assert shown["state"] in ("down", "connecting") and shown["reason"]

    dead.link.restore()
    back = seconds(lambda: wait_until(lambda: up_at(dead, others), 90, "the pairs are back", interval=0.5))
    print(f"cable mended: up again after {back:.1f} s")
    trio.wait_until_full()
    assert dead.ping(others[0]).lost == 0
    assert all_spis(others) == before


def test_ike_dropped_while_data_flows_loses_none_of_it(trio: Mesh) -> None:
    one, other, third = trio
    before = pair_spis(one, other)
    streams = [one.ping_stream(other.addresses[0]), other.ping_stream(one.addresses[0])]
    journal, silent = Journal(one), Journal(third)
    other.link.drop("ike")
    if not patient():
        told_down(silent, other, NOTICED)  # the silent pair on the same cable notices
    assert one.ping(other, 800, 0.05).lost == 0
    if patient():
        assert silent.lines("peer-down") == []
    print(f"IKE dropped, data flowing: {view(one, other)['state']} {view(one, other)['reason']!r}")
    assert pair_spis(one, other) == before
    assert journal.lines("peer-down", peer=other) == []
    other.link.restore()
    trio.wait_until_full(120)
    assert [stream.stop().lost for stream in streams] == [0, 0]


def test_esp_dropped_touches_no_association(trio: Mesh) -> None:
    one, other, _ = trio
    before = all_spis(trio.hosts)
    journals = [Journal(host) for host in trio]
    other.link.drop("esp")
    assert one.ping(other, 40, 0.2).received == 0
    shown = view(one, other)
    print(f"ESP dropped: {shown['state']} {shown['reason']!r}")
    other.link.restore()
    assert one.ping(other).lost == 0
    assert all_spis(trio.hosts) == before
    for journal in journals:
        assert journal.lines("terminate") == []
        assert {line["code"] for line in journal.lines("peer-down")} <= {"no-data"}


def test_load_all_of_an_empty_configuration(trio: Mesh) -> None:
    one = trio[0]
    measurement = Measurement(trio, trio.hosts)
    journal = Journal(one)
    loaded = one.connections()
    one.exec("swanctl", "--load-all")  # when it returns, all is unloaded, and perhaps loaded again
    took = seconds(lambda: wait_until(lambda: one.connections() == loaded, 150, "all is loaded again"))
    print(f"swanctl --load-all: loaded again after {took:.1f} s")
    loads = wait_until(lambda: journal.lines("load"), 10, "the loads are written down")
    assert {line["code"] for line in loads} == {"unloaded-by-others"}
    result = measurement.finish()
    assert result.clean, result
    trio.wait_until_full()


def test_an_association_terminated_by_hand_comes_back(trio: Mesh) -> None:
    one, other, third = trio
    before, untouched = pair_spis(one, other), all_spis([one, third]) | all_spis([other, third])
    journals = [Journal(host) for host in trio]
    name = next(sa["name"] for sa in one.sas() if sa["remote-host"] in other.addresses)
    capture = trio.capture()
    streams = [one.ping_stream(other.addresses[0])]
    one.exec("swanctl", "--terminate", "--ike", name)
    wait_until(lambda: journals[1].lines("peer-down"), 20, "the peer is told to be down")
    wait_until(lambda: up_at(one, [other]), 60, "it is up again")
    trio.wait_until_full()
    print(f"--terminate: {journals[0].lines('peer-down')[0]['reason']!r} here, ", end="")
    print(f"{journals[1].lines('peer-down')[0]['reason']!r} there; {streams[0].stop().lost} pings lost")
    assert journals[0].lines("peer-down")[0]["reason"] == "ended at this end"
    assert journals[1].lines("peer-down")[0]["reason"] == "peer deleted it"
    assert not before & pair_spis(one, other)
    assert all_spis([one, third]) | all_spis([other, third]) == untouched
    assert capture.clear == []


def test_another_network_of_the_host_comes_and_goes(trio: Mesh) -> None:
    measurement = Measurement(trio, trio.hosts)
    journals = [Journal(host) for host in trio]
    space = trio[0].namespace
    space.ip(
        "link add other0 type veth peer name other1",
        "addr add 198.51.100.77/24 dev other0",
        "link set other0 up",
        "link set other1 up",
    )
    assert trio[0].ping(trio[1], 100, 0.02).lost == 0
    space.ip("link del other0")
    assert trio[0].ping(trio[1], 100, 0.02).lost == 0
    result = measurement.finish()
    assert result.clean, result
    assert [line for journal in journals for line in journal.actions()] == []


@pytest.mark.parametrize(
    ("gone", "back"),
    [
        ("addr del 192.0.2.1/24 dev eth0", "addr add 192.0.2.1/24 dev eth0"),
        ("link set eth0 down", "link set eth0 up"),
    ],
    ids=["address", "link"],
)
def test_the_hosts_own_address_or_link_gone_and_back(trio: Mesh, gone: str, back: str) -> None:
    struck, *others = trio
    before = all_spis(others)
    journals = [Journal(host) for host in others]
    struck.namespace.ip(gone)
    lines = [told_down(journal, struck, NOTICED) for journal in journals]
    print(f"{gone}: {lines[0]['reason']!r} at the peers")
    struck.namespace.ip(back)
    took = seconds(lambda: wait_until(lambda: up_at(struck, others), 120, "the pairs are back", interval=0.5))
    print(f"{back}: up again after {took:.1f} s")
    trio.wait_until_full(120)
    assert struck.ping(others[0]).lost == 0
    assert all_spis(others) == before
