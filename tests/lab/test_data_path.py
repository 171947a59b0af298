"""What passes through associations whose IKE lives: ESP filtered on the way, and peers that cannot be probed.

What is measured is printed: `pytest -s` shows it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from lab import Host, Mesh, mesh, wait_until
from lab.asking import Journal, full, view, wait_until_idle
from swanmesh.core.model import ProbeSettings
from tests.lab.watching import INTERVAL, NOTICED, all_spis, moment, probed, tcp_ends, told_down, up_at

PORT = ProbeSettings().port


@pytest.fixture(scope="module")
def standing() -> Iterator[Mesh]:
    """Two hosts that have probed each other."""
    with mesh(2, probe={"interval": f"{INTERVAL}s"}) as lab:
        yield full(lab)


@pytest.fixture
def two(standing: Mesh) -> Iterator[Mesh]:
    yield standing
    for host in standing:
        host.link.restore()
    wait_until(lambda: up_at(standing[0], [standing[1]]), 60, "the pair is up")
    standing.wait_until_full(120)
    wait_until_idle(standing.hosts, 60)


@pytest.mark.parametrize("direction", ["both", "in"])
def test_esp_dropped_while_ike_lives_is_told_and_mended_when_it_passes(two: Mesh, direction: str) -> None:
    one, other = two
    probed(one, other)
    probed(other, one)
    journals = [Journal(host) for host in two]
    dropped = time.time()
    other.link.drop("esp", direction)  # type: ignore[arg-type]
    lines = [told_down(journals[0], other, 60), told_down(journals[1], one, 60)]
    took = [moment(line) - dropped for line in lines]
    print(f"ESP dropped ({direction}): told after {', '.join(f'{each:.1f}' for each in took)} s: {lines}")
    assert {line["code"] for line in lines} == {"no-data"}
    assert max(took) <= NOTICED
    shown = view(one, other)
    assert (shown["state"], shown["reason_code"]) == ("down", "no-data")
    assert not any("peer unreachable" in line["reason"] for line in lines)
    other.link.restore()
    wait_until(lambda: up_at(one, [other]), 60, "data passes again")
    assert one.ping(other).lost == 0


def outlasting(host: Host, other: Host, probes: int) -> None:
    """Waits until the service has sent so many datagrams to the peer."""
    before = packets_out(host, other)
    wait_until(
        lambda: packets_out(host, other) >= before + probes,
        300,
        f"{host.short} has sent {probes} packets",
        interval=1.0,
    )


def packets_out(host: Host, other: Host) -> int:
    return int(view(host, other, fresh=True)["traffic"]["packets_out"])


def test_a_peer_whose_service_hangs_or_is_restarted_is_not_down(two: Mesh) -> None:
    one, other = two
    before, journals = all_spis(two.hosts), [Journal(host) for host in two]
    os.kill(other.swanmesh_pid, signal.SIGSTOP)
    outlasting(one, other, 40)
    os.kill(other.swanmesh_pid, signal.SIGCONT)
    other.kill_swanmesh()
    outlasting(one, other, 40)
    other.start_swanmesh()
    wait_until(lambda: up_at(one, [other]), 60, "the pair is up")
    assert all_spis(two.hosts) == before
    assert [line for journal in journals for line in journal.lines("peer-down")] == []


def test_a_peer_whose_packet_filter_drops_probes_is_not_down(two: Mesh) -> None:
    one, other = two
    before, journals = all_spis(two.hosts), [Journal(host) for host in two]
    rules = [("INPUT", "--dport"), ("OUTPUT", "--dport")]
    for chain, which in rules:
        other.exec("iptables-legacy", "-A", chain, "-p", "udp", which, str(PORT), "-j", "DROP")
    outlasting(one, other, 40)
    for chain, which in rules:
        other.exec("iptables-legacy", "-D", chain, "-p", "udp", which, str(PORT), "-j", "DROP")
    assert view(one, other)["state"] == "up"
    assert all_spis(two.hosts) == before
    assert [line for journal in journals for line in journal.lines("peer-down")] == []


def test_a_tenth_of_the_cpu_is_no_dead_data_path(two: Mesh) -> None:
    one, other = two
    before, journals = all_spis(two.hosts), [Journal(host) for host in two]
    with other.starved(0.1):
        outlasting(one, other, 40)
    assert all_spis(two.hosts) == before
    assert [line for journal in journals for line in journal.lines("peer-down")] == []


def test_nobody_but_members_is_answered_and_they_only_through_esp(two: Mesh) -> None:
    one, other = two
    assert one.ping(other).lost == 0
    capture = two.capture()
    outlasting(one, other, 4)
    assert capture.clear == []


@pytest.fixture(scope="module")
def narrow() -> Iterator[Mesh]:
    """Two hosts with a cable between them that loses large packets, and tells nobody."""
    with mesh(2, ipv6=1, probe={"again": "30s", "interval": f"{INTERVAL}s"}) as lab:
        lab[1].link.narrow(1300)
        yield full(lab)


def all_narrow(host: Host, other: Host) -> bool:
    """Whether the host says of each address pair that large packets vanish."""
    return {each["reason_code"] for each in view(host, other)["pairs"]} == {"path-mtu"}


def transferred(one: Host, other: Host, address: str, size: int) -> int:
    """Bytes of so many that a TCP connection carries from one host to this address of the other's."""
    with tcp_ends(one, other, address) as (client, server):
        client.settimeout(60)
        server.settimeout(60)
        client.connect(server.getsockname()[:2])
        taker, _ = server.accept()
        with taker:
            taker.settimeout(60)
            sender = threading.Thread(target=_send_all, args=(client, size))
            sender.start()
            got = 0
            with contextlib.suppress(TimeoutError):
                while got < size and (data := taker.recv(1 << 16)):
                    got += len(data)
            client.close()
            sender.join(60)
            return got


def _send_all(client: socket.socket, size: int) -> None:
    with contextlib.suppress(OSError):
        client.sendall(bytes(size))


def test_a_path_that_drops_large_packets_carries_tcp_all_the_same(narrow: Mesh) -> None:
    one, other = narrow
    routes = ("ip", "route", "show", "table", "all", "proto", "156")
    for host, peer in ((one, other), (other, one)):
        wait_until(
            partial(all_narrow, host, peer),
            240,
            "it is found out that large packets vanish",
            interval=1.0,
        )
        print(view(host, peer)["pairs"][0]["reason"])
        assert view(host, peer)["state"] == "up"
    for address in other.addresses:
        assert transferred(one, other, address, 300_000) == 300_000
    before = one.exec(*routes).stdout
    assert other.addresses[0] in before
    other.link.restore()
    wait_until(
        lambda: view(one, other)["reason"] == "" and other.addresses[0] not in one.exec(*routes).stdout,
        240,
        "large packets pass again, and the route is gone",
        interval=1.0,
    )
    assert transferred(one, other, other.addresses[0], 300_000) == 300_000
