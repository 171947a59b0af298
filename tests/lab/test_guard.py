"""Nothing in clear under `require`, whatever becomes of charon and of the service: a capture on the switch
sees what every cable brings in, while traffic is tried on every address pair."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

import pytest

from lab import Host, Mesh, mesh, wait_until


@pytest.fixture(scope="module")
def standing() -> Iterator[Mesh]:
    """Three hosts with two addresses of each family, and a fourth that nobody knows."""
    with mesh(3, ipv4=2, ipv6=2, spare=1) as made:
        made.start()
        made.wait_until_full(120)
        yield made


@pytest.fixture
def lab(standing: Mesh) -> Mesh:
    """The three, full."""
    standing.wait_until_full(120)
    return standing


def blocks(host: Host) -> list[str]:
    """The policies that block, as iproute2 shows them."""
    lines = host.exec("ip", "-o", "xfrm", "policy").stdout.splitlines()
    return [line for line in lines if "action block" in line]


@contextlib.contextmanager
def nothing_in_clear(lab: Mesh, *hosts: Host) -> Iterator[None]:
    """Every address pair of `hosts` has traffic for as long as this lasts, and none of it is in clear."""
    capture = lab.capture()
    streams = [
        one.ping_stream(address, interval=0.05)
        for one in hosts
        for other in hosts
        if one is not other
        for address in other.addresses
    ]
    try:
        yield
    finally:
        for stream in streams:
            stream.kill()
    counts = capture.counts()
    assert capture.clear == []
    assert counts.get("esp", 0) or counts.get("ike", 0), "the capture saw something"


def refused(host: Host, address: str) -> bool:
    """Whether the kernel refuses at once to send there."""
    done = host.exec("ping", "-c1", "-W20", address, check=False)
    return "Operation not permitted" in done.stdout + done.stderr


def reaches(host: Host, address: str) -> bool:
    return host.exec("ping", "-c3", "-i0.05", "-W1", address, check=False).returncode == 0


def restart(host: Host) -> None:
    host.stop_charon()
    host.start_charon()


def crash(host: Host) -> None:
    host.kill_charon()
    host.start_charon()


def unload(host: Host) -> None:
    """What Debian's unit does after each start of charon."""
    host.exec("swanctl", "--load-all", "--noprompt")


@pytest.mark.parametrize(
    "happens",
    [
        pytest.param(restart, id="charon restarted in order"),
        pytest.param(crash, id="charon killed"),
        pytest.param(unload, id="connections unloaded"),
    ],
)
def test_nothing_crosses_in_clear_while_charon(lab: Mesh, happens: Callable[[Host], object]) -> None:
    first, second, third = lab.hosts[:3]
    with nothing_in_clear(lab, first, second, third):
        happens(first)
        lab.wait_until_full(120)


def test_nothing_crosses_in_clear_while_neither_charon_nor_the_service_runs(lab: Mesh) -> None:
    first, second, third = lab.hosts[:3]
    with nothing_in_clear(lab, first, second, third):
        first.kill_swanmesh(signal.SIGTERM)
        first.stop_charon()
        assert all(refused(first, address) for address in (*second.addresses, *third.addresses))
        first.start_charon()
        first.start_swanmesh()
        lab.wait_until_full(120)


def test_what_others_take_from_the_guard_is_put_back(lab: Mesh) -> None:
    first, _, third = lab.hosts[:3]
    before = sorted(blocks(first))
    assert before
    address = third.ipv4()
    first.exec("ip", "xfrm", "policy", "flush")
    wait_until(lambda: sorted(blocks(first)) == before, 20, "the guard is whole after a flush")
    first.kill_swanmesh()
    first.exec("ip", "xfrm", "policy", "flush")
    first.start_swanmesh()
    wait_until(lambda: sorted(blocks(first)) == before, 20, "the guard is whole after a start")
    assert any(address in line for line in before)


def test_a_peer_comes_and_goes_under_traffic(lab: Mesh) -> None:
    hosts = lab.hosts[:3]
    fourth = lab[3]
    with nothing_in_clear(lab, *hosts):
        for host in hosts:
            host.swanmesh("add-peer", fourth.name, *fourth.addresses)
        wait_until(lambda: all(len(blocks(host)) == 3 * 4 * 3 for host in hosts), 30, "it is covered")
        assert not any(reaches(hosts[0], address) for address in fourth.addresses)
    for host in hosts:
        host.swanmesh("remove-peer", fourth.name)
    wait_until(lambda: all(len(blocks(host)) == 2 * 4 * 3 for host in hosts), 30, "it is let go")
    assert all(reaches(hosts[0], address) for address in fourth.addresses)
