"""Nothing in clear under `require`, whatever becomes of charon and of the service: a capture on the switch
sees what every cable brings in, while traffic is tried on every address pair."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from lab import Host, Mesh, mesh, wait_until
from lab.asking import view
from tests.lab.watching import closed_behind, tcp_ends

pytestmark = pytest.mark.long


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
        lab.wait_until_full(240)


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


def test_what_the_next_boot_begins_with_is_what_stands_and_people_may_take_it_away(lab: Mesh) -> None:
    first = lab.hosts[0]
    before = sorted(blocks(first))
    assert first.swanmesh("guard", "clear", "--yes", check=False).returncode == 1, "the service runs"
    first.kill_swanmesh(signal.SIGTERM)
    assert first.swanmesh("guard", "status").returncode == 0
    first.exec("ip", "xfrm", "policy", "flush")
    assert first.swanmesh("guard", "status", check=False).returncode == 1
    first.swanmesh("guard", "apply")
    assert sorted(blocks(first)) == before, "as swanmesh-guard.service does at boot"
    first.swanmesh("guard", "clear", "--yes")
    assert blocks(first) == [] and first.swanmesh("guard", "apply", check=False).returncode == 1
    first.start_swanmesh()
    wait_until(lambda: sorted(blocks(first)) == before, 20, "the service puts it back")


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


# What passes in clear by choice.


def tcp(host: Host, other: Host, port: int) -> bool:
    """Whether a connection from `host` to a port of `other` brings an answer, over both families."""
    done = {answered(host, other, address, port) for address in (other.ipv4(), other.ipv6())}
    assert len(done) == 1
    return done.pop()


def answered(host: Host, other: Host, address: str, port: int) -> bool:
    with tcp_ends(host, other, address, port) as (client, server):
        client.settimeout(2)
        try:
            client.connect((address, port))
            with server.accept()[0] as accepted:
                accepted.sendall(b"x")
                return client.recv(1) == b"x"
        except OSError:
            return False


def test_an_exempted_service_is_in_clear_only_if_both_ends_exempt_it(lab: Mesh) -> None:
    first, second = lab.hosts[:2]
    capture = lab.capture()
    assert tcp(first, second, 2222)
    assert capture.clear == [], "exempted nowhere, it is encrypted"
    for host in (first, second):
        host.write_config(exempt=["tcp/2222"])
        other = second if host is first else first
        wait_until(partial(exempt, host, other), 20, "it is exempt")
    capture = lab.capture()
    assert tcp(first, second, 2222) and tcp(second, first, 2222)
    assert {packet.detail.split()[0] for packet in capture.clear} == {"tcp"}, "and nothing else is in clear"
    first.write_config()
    wait_until(lambda: not exempt(first, second), 20, "it is exempt at one end alone")
    assert not tcp(first, second, 2222) and not tcp(second, first, 2222)
    second.write_config()
    wait_until(lambda: not exempt(second, first), 20, "it is exempt nowhere")
    assert tcp(first, second, 2222)


def passed(host: Host, other: Host) -> bool:
    """Whether the host says that something passed in clear to the other."""
    clear = view(host, other, fresh=True)["clear"]
    return clear is not None and clear["out"] is not None and not clear["refused"]


def exempt(host: Host, other: Host) -> list[str]:
    """What the host says stays in clear with the other."""
    return list(view(host, other)["exempt"])


def test_neighbours_are_found_again_under_the_guard(lab: Mesh) -> None:
    first, second, third = lab.hosts[:3]
    with nothing_in_clear(lab, first, second, third):
        for host in (first, second, third):
            host.exec("ip", "neigh", "flush", "all")
        assert all(reaches(first, address) for address in (*second.addresses, *third.addresses))
        restart(second)
        for host in (first, second, third):
            host.exec("ip", "neigh", "flush", "all")
        lab.wait_until_full(120)
    assert all(reaches(first, address) for address in (*second.addresses, *third.addresses))


def test_from_clear_to_encrypted_loses_nothing() -> None:
    with mesh(2, ipv6=1, policy="prefer") as pair:
        first, second = pair
        streams = [
            one.ping_stream(address)
            for one, other in ((first, second), (second, first))
            for address in other.addresses
        ]
        pair.start_charons()
        capture = pair.capture()
        pair.start_controllers()
        pair.wait_until_full(120)
        for one, other in ((first, second), (second, first)):
            wait_until(partial(closed_behind, one, other), 60, "it is closed behind")
            assert one.ping(other).lost == 0
        results = [stream.stop() for stream in streams]
        print(results, capture.counts())
        assert [result.lost for result in results] == [0] * len(results)
        assert pair.capture().clear == []


def test_what_passes_in_clear_is_seen_under_monitor() -> None:
    with mesh(2, ipv6=1, policy="monitor") as pair:
        first, second = pair
        pair.start()
        assert first.ping(second).lost == 0
        assert second.ping(first.ipv6()).lost == 0
        for one, other in ((first, second), (second, first)):
            wait_until(partial(passed, one, other), 30, "it is seen")
        assert not any(host.sas() for host in pair)


def test_each_policy_against_each_other_keeps_what_each_says() -> None:
    """Only where both allow it does anything pass in clear: nothing of a host under `require` ever does."""
    with mesh(4, ipv6=1) as four:
        require, prefer = four.hosts[:2]
        for host, policy in zip(four, ("require", "prefer", "monitor", "off"), strict=True):
            host.write_config(policy=policy)
        four.start()
        four.wait_until_full(120, hosts=[require, prefer])
        wait_until(partial(closed_behind, prefer, require), 60, "what goes there is encrypted")
        capture = four.capture()
        for one in four:
            for other in four:
                lets = require not in (one, other) or {one, other} == {require, prefer}
                for address in other.addresses if one is not other else ():
                    assert reaches(one, address) == lets, (one, address)
        assert [packet for packet in capture.clear if packet.source in require.addresses] == []
        encrypted = {packet.source for packet in capture.esp}
        assert encrypted == {*require.addresses, *prefer.addresses}
