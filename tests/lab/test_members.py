"""What a host with a valid certificate, for its own name only, can do to others: nothing.

h1 is the victim, h2 an honest host, h3 the attacker: its charon is driven by hand.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab import Host, Mesh, mesh, wait_until
from lab.asking import Journal, pair_spis, view
from swanmesh.control.client import Client
from tests.lab.attacker import Attacker

NOT_AS_AGREED = "not-as-agreed"
"""Code of the reason for which an association is ended that is not what its pair asked for."""
INTERVAL = 0.05
"""Seconds between the pings of a stream."""
MOST_STOLEN = round(2 / INTERVAL)
"""Packets that may leave with a stranger's SPI: what is sent in about a second, on a machine that is busy."""
ELSEWHERE = "192.0.2.33"


@pytest.fixture(scope="module")
def trio() -> Iterator[Mesh]:
    """h1 and h2 run swanmesh; h3 has an address more than its certificate tells."""
    with mesh(3) as lab:
        lab[2].namespace.ip(f"addr add {ELSEWHERE}/24 dev eth0")
        lab[0].start_charon()
        lab[1].start_charon()
        for host in lab.hosts[:2]:
            host.start_swanmesh()
        yield lab


@pytest.fixture
def lab(trio: Mesh) -> Iterator[Mesh]:
    """The same, with nothing left of the attack before: h3's charon is a new one, the cable honest."""
    victim, honest, other = trio
    other.start_charon()
    for host in (victim, honest):
        if not host.alive:  # the attack before killed its charon
            host.kill_charon()
            host.start_charon()
    trio.wait_until_full(60, [victim, honest])
    yield trio
    set_policy(victim, "require")
    other.kill_charon()
    other.namespace.ip("xfrm state flush", "xfrm policy flush")
    other.link.restore()
    with victim.vici() as session:
        for sa in victim.sas() if victim.alive else ():
            if sa.get("remote-id") == other.name:
                list(session.terminate({"ike-id": sa["uniqueid"], "force": "yes", "timeout": "-1"}))


def set_policy(host: Host, policy: str) -> None:
    """Changes the policy while the controller runs."""
    host.write_config(policy=policy)
    Client(host.control_socket).reload()


def held(host: Host, other: Host) -> list[dict[str, Any]]:
    """IKE_SAs of `host`'s charon with whoever proved to be `other`, whatever the address."""
    return [sa for sa in host.sas() if sa.get("remote-id") == other.name]


def untold(victim: Host, attacker: Host, journal: Journal) -> list[str]:
    """Where the victim does not say why nothing is up with the attacker: status, log, metric."""
    shown = view(victim, attacker)
    lines = [line for line in journal.lines(peer=attacker) if line["level"] in ("warning", "error")]
    metrics = Client(victim.control_socket).metrics().decode()
    places = {
        # Beside what is ended, one that is as agreed may have come up.
        f"status: {shown['state']}": shown["state"] != "up" or _only_as_agreed(victim, attacker),
        f"status: {shown['reason']!r} without its code": NOT_AS_AGREED in json.dumps(shown),
        "log": any(NOT_AS_AGREED in line.values() for line in lines),
        "metric": f'reason="{NOT_AS_AGREED}"' in metrics,
    }
    return [place for place, said in places.items() if not said]


def told(journal: Journal, attacker: Host) -> bool:
    """Whether the victim's log names what the attacker did."""
    return any(NOT_AS_AGREED in line.values() for line in journal.lines(peer=attacker))


def await_told(victim: Host, attacker: Host, journal: Journal) -> None:
    """Waits until the victim says everywhere what the attacker did; fails with where it does not."""
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not untold(victim, attacker, journal), 15, "all is told")
    assert untold(victim, attacker, journal) == []


@pytest.mark.parametrize("claimed", ["192.0.2.2", "192.0.2.99"], ids=["a-peers", "nobodys"])
def test_another_hosts_address_cannot_be_taken_over(lab: Mesh, claimed: str) -> None:
    """The attacker seems to be behind a NAT, and then speaks from an address that is not its own."""
    victim, honest, other = lab
    attacker, journal = Attacker(other, victim), Journal(victim)
    before = pair_spis(victim, honest)
    stream = victim.ping_stream(honest.ipv4(), interval=INTERVAL)
    capture = victim.capture()
    attacker.load("attack", encap="yes")
    attacker.initiate("attack")
    # It may be ended before it can be seen here.
    wait_until(lambda: attacker.spis() or told(journal, other), 30, "the attacker had an association")
    stolen = attacker.spis()
    attacker.speak_as(claimed)

    def over() -> bool:
        """Charon has moved the IKE_SA, or it is gone: then nothing more will come of it."""
        mine = held(victim, other)
        return not mine or any(sa["remote-host"] == claimed for sa in mine)

    wait_until(over, 30, "the attacker has spoken from another address")
    # Three seconds in which a pair that was taken over sends every packet to the attacker.
    victim.ping(honest, round(3 / INTERVAL), INTERVAL)
    stream.stop()
    to_honest = [packet for packet in capture.esp if packet.destination == honest.ipv4()]
    foreign = [packet for packet in to_honest if packet.spi in stolen]
    assert len(foreign) <= MOST_STOLEN, f"{len(foreign)} of {len(to_honest)} packets for h2 had h3's key"
    assert pair_spis(victim, honest) == before
    assert [sa for sa in held(victim, other) if sa["remote-host"] != other.ipv4()] == []
    assert victim.ping(honest, 20).lost == 0
    await_told(victim, other, journal)


def test_an_ike_sa_without_a_child_is_ended_and_never_initiated_on(lab: Mesh) -> None:
    """The attacker answers from another of its addresses: each IKE_SA comes to be without a CHILD_SA.

    An initiation that waits on such a one behind a DPD has been the death of charon 5.9.8.
    """
    victim, honest, other = lab
    attacker, journal = Attacker(other, victim), Journal(victim)
    before = pair_spis(victim, honest)
    said = victim.charon_log.stat().st_size
    attacker.load("attack", local="%any")
    attacker.speak_as(ELSEWHERE)
    victim.swanmesh("up", other.name, check=False)
    wait_until(lambda: held(victim, other) or journal.lines("terminate", peer=other), 60, "h3 has answered")
    wait_until(lambda: not held(victim, other), 10, "what h3 answered with has been ended")
    wait_until(lambda: len(journal.lines("initiate", peer=other)) > 1, 60, "h1 has begun anew")
    began = victim.charon_log.read_text()[said:]
    assert "generating CREATE_CHILD_SA request" not in began
    assert view(victim, other)["state"] != "up"
    assert view(victim, other)["reason"]
    assert pair_spis(victim, honest) == before


SSH_ONLY = {"local_ts": ["dynamic[tcp/22]"], "remote_ts": ["dynamic[tcp]"]}
TUNNEL = {"mode": "tunnel"}


@pytest.mark.parametrize(
    ("policy", "children", "initiator"),
    [
        pytest.param("require", {"esp": SSH_ONLY}, "h3", id="narrowed-require"),
        pytest.param("prefer", {"esp": SSH_ONLY}, "h1", id="narrowed-prefer"),
        pytest.param("require", {"esp": TUNNEL}, "h3", id="tunnel"),
        pytest.param("require", {"esp": {}, "beside": TUNNEL}, "h3", id="tunnel-beside"),
    ],
)
def test_what_is_not_what_the_pair_asked_for_is_ended(
    lab: Mesh, policy: str, children: dict[str, dict[str, str]], initiator: str
) -> None:
    victim, honest, other = lab
    set_policy(victim, policy)
    journal, before = Journal(victim), pair_spis(victim, honest)
    attacker = Attacker(other, victim)
    attacker.load("attack", children)
    if initiator == "h1":
        victim.swanmesh("up", other.name, check=False)
    for child in children if initiator == "h3" else ():
        attacker.initiate("attack", child)
    wait_until(lambda: attacker.children >= len(children), 30, "h3 got what it asked for")
    await_told(victim, other, journal)
    wait_until(lambda: _only_as_agreed(victim, other), 10, "h1 holds nothing of it")
    assert pair_spis(victim, honest) == before


def _only_as_agreed(victim: Host, other: Host) -> bool:
    children = [
        child
        for sa in victim.sas()
        if sa.get("remote-id") == other.name
        for child in sa["child-sas"].values()
    ]
    return all(
        (child["mode"], child["local-ts"], child["remote-ts"])
        == ("TRANSPORT", [f"{victim.ipv4()}/32"], [f"{other.ipv4()}/32"])
        for child in children
    )


def test_a_pile_of_ike_sas_is_ended_as_fast_as_it_grows(lab: Mesh) -> None:
    victim, honest, other = lab
    attacker, journal = Attacker(other, victim), Journal(victim)
    before = pair_spis(victim, honest)
    stream = victim.ping_stream(honest.ipv4(), interval=INTERVAL)
    asked, began = _requests(victim), time.monotonic()
    made, most = attacker.pile_up(120)
    grew = time.monotonic() - began
    assert made >= 100
    wait_until(lambda: len(held(victim, other)) <= 1, 60, "all but the survivor are ended")
    took = time.monotonic() - began - grew
    print(f"{made} IKE_SAs in {grew:.1f} s, {most} at most; gone {took:.1f} s later,", end=" ")
    print(f"{_requests(victim) - asked} requests")
    assert most <= made / 2
    assert took <= grew
    # One to end each and half a one beside, and what is asked at a pace: looks, and certificates.
    assert _requests(victim) - asked <= 1.5 * made + 6 * (grew + took)
    assert stream.stop().lost == 0
    assert pair_spis(victim, honest) == before
    assert any(line["level"] in ("warning", "error") for line in journal.lines(peer=other))
    assert (
        other.name in json.dumps(Client(victim.control_socket).status().problems)
        or view(victim, other)["reason"]
    )


def _requests(host: Host) -> int:
    """What the controller has asked of charon since it started."""
    for line in Client(host.control_socket).metrics().decode().splitlines():
        if line.startswith("swanmesh_vici_requests_total "):
            return int(float(line.split()[1]))
    raise LookupError("swanmesh_vici_requests_total")
