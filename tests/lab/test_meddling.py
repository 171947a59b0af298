"""Others take away what charon believes is there: noticed, mended, and no other association touched."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lab import Host, Mesh, mesh, wait_until
from swanmesh.control.client import Client
from tests.lab.watching import seconds

_PERIOD = 0.01
"""Seconds between the pings of a stream."""
RARELY = {"resync": "1h"}
"""Whatever waits for the next look at charon or the kernel comes too late for every test here."""
OFTEN = {"resync": "2s"}
"""For what nobody tells of, so that nothing but a look finds it."""


class Standing(NamedTuple):
    mesh: Mesh
    came_up: float
    """Seconds from the start of the controllers until all was up, on this machine as busy as it is."""


@pytest.fixture(scope="module")
def standing() -> Iterator[Standing]:
    """Three hosts of both families, up, with the controllers watching their kernels."""
    with mesh(3, ipv6=1, initiation=RARELY) as lab:
        lab.start_charons()
        came_up = seconds(lab.start_controllers) + seconds(lambda: lab.wait_until_full(90))
        for host in lab:
            wait_until(partial(said, host, 0, "watching the kernel's IPsec"), 20, "the kernel is watched")
        yield Standing(lab, came_up)


@pytest.fixture
def most_lost(standing: Standing) -> float:
    """Seconds of a pair's traffic that mending it may cost: what it would take to bring up the whole mesh."""
    return standing.came_up


@pytest.fixture
def lab(standing: Standing) -> Mesh:
    """The same three, full and able to talk: whatever the test before did."""
    trio = standing.mesh
    trio.wait_until_full(60)
    for one in trio:
        for other in trio:
            if one is not other:
                wait_until(partial(reaches, one, other), 20, f"{one} reaches {other}")
    return trio


def reaches(one: Host, other: Host) -> bool:
    return all(one.ping(address, 2).lost == 0 for address in other.addresses)


def policies(host: Host) -> set[str]:
    """Selector and direction of each policy in the kernel that is no socket's."""
    lines = host.exec("ip", "-o", "xfrm", "policy").stdout.splitlines()
    found = (line.split("\\") for line in lines if "dir " in line)
    return {f"{parts[0].strip()} {parts[1].split()[1]}" for parts in found}


def said(host: Host, since: int, *words: str) -> bool:
    """Whether one line of the controller's log after `since` bytes has all of `words`."""
    text = host.swanmesh_log.read_text()[since:]
    return any(all(word in line for word in words) for line in text.splitlines())


def logged(host: Host) -> int:
    return len(host.swanmesh_log.read_text())


def between(lab: Mesh, *hosts: Host) -> frozenset[tuple[str, str, str]]:
    """Kernel SPIs of the associations among `hosts`."""
    mine = {address for host in hosts for address in host.addresses}
    return frozenset(spi for host in hosts for spi in host.spis() if {spi[0], spi[1]} <= mine)


def test_flushed_states_come_back_and_other_pairs_keep_theirs(lab: Mesh, most_lost: float) -> None:
    victim, second, third = lab
    others, before = between(lab, second, third), victim.spis()
    capture = victim.capture()
    streams = [victim.ping_stream(second.ipv4()), third.ping_stream(victim.ipv6())]
    victim.exec("ip", "xfrm", "state", "flush")
    wait_until(lambda: len(victim.spis()) == len(before), 20, "every state is back")
    assert not victim.spis() & before
    lost = [stream.stop() for stream in streams]
    assert all(result.lost * _PERIOD < most_lost for result in lost), (lost, most_lost)
    assert capture.clear == []
    assert between(lab, second, third) == others
    lab.wait_until_full(60)


def test_states_flushed_at_both_ends_at_once_come_back(lab: Mesh, most_lost: float) -> None:
    first, second, third = lab
    streams = [first.ping_stream(second.ipv4()), second.ping_stream(first.ipv6())]
    for host in (first, second):
        host.exec("ip", "xfrm", "state", "flush")
    wait_until(lambda: reaches(first, second) and reaches(third, first), 30, "they talk again", interval=0.2)
    results = [stream.stop() for stream in streams]
    assert all(result.lost * _PERIOD < most_lost for result in results), (results, most_lost)
    lab.wait_until_full(60)


def test_flushed_policies_are_put_back_and_associations_stay(lab: Mesh) -> None:
    victim, second, third = lab
    spis, wanted = lab.spis(), policies(victim)
    capture = victim.capture()
    streams = [victim.ping_stream(second.ipv4(), interval=0.002), third.ping_stream(victim.ipv6())]
    for _ in range(5):
        victim.exec("ip", "xfrm", "policy", "flush")
        wait_until(lambda: policies(victim) == wanted, 20, "every policy is back")
    results = [stream.stop() for stream in streams]
    clear = [packet for packet in capture.clear if packet.protocol in (1, 58)]
    print(f"{len(clear)} packets in clear after five flushes of the policies, {results}")
    assert len(clear) < sum(result.received for result in results)
    assert lab.spis() == spis
    assert reaches(victim, second) and reaches(victim, third)


def test_what_was_flushed_while_no_controller_ran_is_mended_at_its_start(lab: Mesh) -> None:
    victim, second, third = lab
    wanted, others, before = policies(victim), between(lab, second, third), victim.spis()
    victim.kill_swanmesh()
    victim.exec("ip", "xfrm", "state", "flush")
    victim.exec("ip", "xfrm", "policy", "flush")
    victim.start_swanmesh()
    wait_until(lambda: policies(victim) == wanted, 30, "every policy is back", interval=0.2)
    wait_until(lambda: len(victim.spis()) >= len(before), 30, "every state is back", interval=0.2)
    wait_until(
        lambda: reaches(victim, second) and reaches(victim, third), 20, "they talk again", interval=0.2
    )
    assert between(lab, second, third) == others


def test_flushed_policies_of_a_trap_are_installed_again(lab: Mesh) -> None:
    victim, second, third = lab
    wanted, spis = policies(victim), between(lab, victim, third)
    second.kill_swanmesh()
    second.stop_charon()
    gone = set(second.addresses)
    try:
        wait_until(lambda: not any({s[0], s[1]} & gone for s in victim.spis()), 40, "the peer counts as dead")
        victim.exec("ip", "xfrm", "policy", "flush")
        wait_until(lambda: policies(victim) == wanted, 20, "every policy is back, the traps' too")
        capture = victim.capture()
        assert victim.ping(second, 3).received == 0
        assert capture.clear == []
        assert between(lab, victim, third) == spis
    finally:
        second.exec("ip", "xfrm", "state", "flush")
        second.exec("ip", "xfrm", "policy", "flush")
        second.start_charon()
        second.start_swanmesh()


def test_one_state_deleted_by_hand_comes_back(lab: Mesh) -> None:
    victim, second, third = lab
    kept = between(lab, victim, third) | between(lab, second, third)
    inbound = next(state for state in victim.xfrm_states() if state.source == second.ipv4())
    address = ("src", inbound.source, "dst", inbound.destination, "proto", "esp", "spi", "0x" + inbound.spi)
    victim.exec("ip", "xfrm", "state", "delete", *address)
    wait_until(lambda: victim.ping(second, 3).lost == 0, 20, "the pair talks again", interval=0.2)
    assert kept <= victim.spis() | second.spis() | third.spis()


def test_one_policy_deleted_by_hand_comes_back(lab: Mesh) -> None:
    victim, second, _ = lab
    spis, wanted = lab.spis(), policies(victim)
    ends = ("src", f"{victim.ipv4()}/32", "dst", f"{second.ipv4()}/32")
    victim.exec("ip", "xfrm", "policy", "delete", *ends, "dir", "out")
    wait_until(lambda: policies(victim) == wanted, 20, "the policy is back")
    assert lab.spis() == spis


def test_a_policy_that_lets_all_pass_in_place_of_ours_is_replaced(lab: Mesh) -> None:
    victim, second, _ = lab
    spis, since = lab.spis(), logged(victim)
    ends = ("src", f"{victim.ipv4()}/32", "dst", f"{second.ipv4()}/32")
    victim.exec("ip", "xfrm", "policy", "delete", *ends, "dir", "out")
    victim.exec("ip", "xfrm", "policy", "add", *ends, "dir", "out", "action", "allow")
    wait_until(lambda: said(victim, since, "restore-policies", "lacks"), 20, "it was replaced")
    capture = victim.capture()
    assert victim.ping(second, 3).lost == 0
    assert [packet for packet in capture.clear if packet.protocol == 1] == []
    assert lab.spis() == spis


def empty_swanctl(host: Host, *command: str) -> None:
    """Runs swanctl with a configuration that holds nothing."""
    folder = host.folder / "swanctl"
    folder.mkdir(exist_ok=True)
    (folder / "swanctl.conf").write_text("")
    uri = f"unix://{host.vici_socket}"
    host.exec("env", f"SWANCTL_DIR={folder}", "swanctl", *command, "--uri", uri)


@pytest.mark.parametrize("command", ["--load-conns", "--load-all"])
def test_an_empty_swanctl_configuration_unloads_us_for_moments(lab: Mesh, command: str) -> None:
    victim, second, third = lab
    spis, connections = lab.spis(), set(victim.connections())
    streams = [victim.ping_stream(second.ipv4()), third.ping_stream(victim.ipv6())]
    capture = victim.capture()
    empty_swanctl(victim, command)
    wait_until(lambda: set(victim.connections()) == connections, 15, "every connection is loaded again")
    assert [stream.stop().lost for stream in streams] == [0, 0]
    assert [packet for packet in capture.clear if packet.protocol in (1, 58)] == []
    assert lab.spis() == spis


def has_credentials(host: Host) -> bool:
    """Whether charon holds a private key, the host's certificate and the mesh's authority."""
    wanted = {der(host, "host.pem"), der(host, "ca.pem")}
    with host.vici() as session:
        held = {found["data"] for found in session.list_certs()}
        return wanted <= held and len(session.get_keys().get("keys", [])) == 1


def der(host: Host, name: str) -> bytes:
    certificate = x509.load_pem_x509_certificate((host.folder / name).read_bytes())
    return certificate.public_bytes(serialization.Encoding.DER)


@pytest.fixture
def looks_often(lab: Mesh) -> Iterator[None]:
    """The first host looks at its charon every other second: of some things nobody tells it."""
    look(lab[0], OFTEN)
    yield
    look(lab[0], RARELY)


def look(host: Host, how: dict[str, str]) -> None:
    host.write_config(initiation=how)
    Client(host.control_socket).reload()


@pytest.mark.usefixtures("looks_often")
def test_cleared_credentials_are_loaded_again(lab: Mesh) -> None:
    victim, _, _ = lab
    spis = lab.spis()
    assert has_credentials(victim)
    with victim.vici() as session:
        session.clear_creds()
    assert not has_credentials(victim)
    wait_until(lambda: has_credentials(victim), 30, "all is loaded again", interval=0.5)
    assert lab.spis() == spis


def test_a_key_unloaded_by_swanctl_is_loaded_again_at_once(lab: Mesh) -> None:
    victim, _, _ = lab
    spis = lab.spis()
    assert has_credentials(victim)
    since = logged(victim)
    empty_swanctl(victim, "--load-creds")
    wait_until(lambda: said(victim, since, "load-credentials"), 10, "the loss is noticed")
    wait_until(lambda: has_credentials(victim), 5, "the key is loaded again")
    assert lab.spis() == spis


def test_an_association_that_needs_cleared_credentials_brings_them_back(lab: Mesh) -> None:
    victim, second, third = lab
    kept = between(lab, victim, third) | between(lab, second, third)
    name = next(sa["name"] for sa in victim.sas() if sa["remote-host"] == second.ipv4())
    with victim.vici() as session:
        session.clear_creds()
        list(session.terminate({"ike": name}))
    wait_until(lambda: not list(lab.faults()), 40, "it is back", interval=0.2)
    assert kept <= victim.spis() | second.spis() | third.spis()


def test_a_terminated_association_is_brought_back_by_the_initiator(lab: Mesh, most_lost: float) -> None:
    victim, second, third = lab
    kept = between(lab, victim, third) | between(lab, second, third)
    name = next(sa["name"] for sa in victim.sas() if sa["remote-host"] == second.ipv4())
    capture = victim.capture()
    stream = victim.ping_stream(second.ipv4())
    empty_swanctl(victim, "--terminate", "--ike", name)
    # A packet may bring an association up beside the controller: the duplicate is ended after a while.
    wait_until(lambda: not list(lab.faults()), 40, "it is back", interval=0.2)
    result = stream.stop()
    assert result.lost * _PERIOD < most_lost, (result, most_lost)
    assert [packet for packet in capture.clear if packet.protocol == 1] == []
    assert kept <= victim.spis() | second.spis() | third.spis()


def test_what_charon_and_operators_do_is_never_taken_for_meddling(lab: Mesh) -> None:
    victim, second, third = lab
    sizes = {host: logged(host) for host in lab}
    stream = victim.ping_stream(third.ipv4())
    for _ in range(2):
        for other in (second, third):
            before = between(lab, victim, other)
            victim.swanmesh("rekey", other.name, check=False)
            wait_until(partial(_all_new, lab, victim, other, before), 20, "every state is new")
    victim.swanmesh("down", second.name, check=False)
    wait_until(lambda: not between(lab, victim, second) & victim.spis(), 20, "it is down")
    victim.swanmesh("up", second.name, "--wait", timeout=90)
    lab.wait_until_full(60)
    assert stream.stop().lost == 0
    for host, size in sizes.items():
        assert not said(host, size, "kernel"), host.swanmesh_log.read_text()[size:]


def _all_new(lab: Mesh, one: Host, other: Host, before: frozenset[tuple[str, str, str]]) -> bool:
    now = between(lab, one, other)
    return len(now) >= len(before) and not now & before
