"""From clear to `require` and back, host by host, under traffic: what the README's procedure does."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import time
from collections.abc import Iterable, Iterator

import pytest

from lab import Capture, Host, Mesh, PingStream, mesh, wait_until
from lab.asking import everyone_up, status, view
from lab.measuring import pair_spis
from tests.lab.watching import changed_over

_FAST, _SLOW = 0.01, 0.2


class Traffic:
    """Streams between all pairs of hosts, and how much of each was lost."""

    def __init__(self, hosts: list[Host]) -> None:
        pairs = list(itertools.combinations(hosts, 2))
        self._streams: dict[str, PingStream] = {
            f"{one.short} to {other.short}": one.ping_stream(
                other.addresses[0], interval=_FAST if number < 3 else _SLOW
            )
            for number, (one, other) in enumerate(pairs)
        }

    def lost(self) -> dict[str, int]:
        """Packets lost of each stream that lost any; ends them all."""
        now = time.time()
        results = {name: stream.stop(now) for name, stream in self._streams.items()}
        assert all(result.sent >= 10 for result in results.values()), results
        return {name: result.lost for name, result in results.items() if result.lost}


def shuffled(lab: Mesh, seed: int) -> list[Host]:
    return random.Random(seed).sample(lab.hosts, len(lab))


def between(capture: Capture, hosts: Iterable[Host]) -> list[str]:
    """What was in clear between any two of these hosts."""
    addresses = {address for host in hosts for address in host.addresses}
    return [str(packet) for packet in capture.clear if {packet.source, packet.destination} <= addresses]


def would_be_cut_off(host: Host) -> str:
    """The last line of its report."""
    return host.swanmesh("policy", "report").stdout.splitlines()[-1]


def to_require(lab: Mesh, seed: int) -> None:
    """The README's procedure, with the hosts in an order of chance at each of its steps."""
    traffic = Traffic(lab.hosts)
    # Not installed yet, then one after another, with what only watches.
    for host in shuffled(lab, seed):
        host.start_charon()
        host.start_swanmesh()
        refused = host.swanmesh("policy", "set", "require", check=False)
        assert refused.returncode == 1 and "--accept-risk=cut-peers" in refused.stderr
        assert status(host)["host"]["policy"] == "monitor"
    for host in shuffled(lab, seed + 1):
        host.swanmesh("policy", "set", "prefer", timeout=90)
    everyone_up(lab.hosts)
    wait_until(lambda: all(changed_over(host) for host in lab), 60, "all have changed over")
    capture = lab.capture()
    for host in shuffled(lab, seed + 2):
        assert would_be_cut_off(host).startswith("0 of")
        host.swanmesh("policy", "set", "require", "--confirm-within", "5m", timeout=90)
        # Some require by now, the others prefer: all goes on.
        host.swanmesh("policy", "confirm")
    assert [status(host)["host"]["policy"] for host in lab] == ["require"] * len(lab)
    assert traffic.lost() == {}
    assert between(capture, lab.hosts) == []


def test_hosts_go_from_clear_to_require_and_lose_nothing() -> None:
    """With nothing installed at first. ROLLOUT_HOSTS=10 takes as many."""
    with mesh(int(os.environ.get("ROLLOUT_HOSTS", "4")), policy="monitor") as lab:
        to_require(lab, seed=8)


@pytest.fixture(scope="module")
def standing() -> Iterator[Mesh]:
    with mesh(3, policy="prefer") as lab:
        lab.start()
        yield lab


@pytest.fixture
def lab(standing: Mesh) -> Mesh:
    """Three hosts that are up under `prefer`, whatever the test before did."""
    for host in standing:
        host.swanmesh("policy", "set", "prefer")
    standing.wait_until_full()
    everyone_up(standing.hosts)
    return standing


def test_disabled_all_is_in_clear_at_once_and_remembered(lab: Mesh) -> None:
    host, *others = lab.hosts
    before = pair_spis(others)
    traffic = Traffic(lab.hosts)
    capture = lab.capture()
    done = json.loads(host.swanmesh("disable", "--yes", "--json").stdout)
    assert (done["not_yet"], len(done["peers"])) == ([], 2)
    print(f"disabled in {done['seconds']} s")
    for other in others:
        assert host.ping(other, 20).lost == 0
    host.kill_swanmesh(signal.SIGKILL)
    host.kill_charon()
    host.start_charon()
    host.start_swanmesh()
    assert [peer["reason_code"] for peer in status(host)["peers"]] == ["disabled"] * 2
    for other in others:
        assert host.ping(other, 20).lost == 0
    assert between(capture, lab.hosts) != []
    assert between(capture, others) == []
    host.swanmesh("enable", "--yes")
    lab.wait_until_full()
    everyone_up(lab.hosts)
    assert traffic.lost() == {}
    assert pair_spis(others) == before


def test_a_host_that_requires_is_let_out_by_disable(lab: Mesh) -> None:
    """Its peers allow clear text; it itself did not."""
    host, *others = lab.hosts
    host.swanmesh("policy", "set", "require", timeout=90)
    host.swanmesh("disable", "--yes")
    assert all(host.ping(other, 20).lost == 0 for other in others)
    host.swanmesh("enable", "--yes")
    assert view(host, others[0])["policy"] == "require"
    lab.wait_until_full()
    host.kill_swanmesh(signal.SIGKILL)
    done = host.swanmesh("disable", "--yes")
    assert "without the service" in done.stderr
    assert all(host.ping(other, 20).lost == 0 for other in others)
    host.start_swanmesh()
    assert status(host)["disabled"] is not None
    host.swanmesh("enable", "--yes")
    lab.wait_until_full()


def test_a_policy_on_trial_goes_back_although_the_service_was_killed(lab: Mesh) -> None:
    host, other, _ = lab.hosts
    traffic = Traffic(lab.hosts)
    host.swanmesh("policy", "set", "require", "--confirm-within", "30s", timeout=90)
    assert view(host, other)["policy"] == "require"
    host.kill_swanmesh(signal.SIGKILL)
    host.start_swanmesh()
    wait_until(lambda: view(host, other)["policy"] == "prefer", 60, "the trial is over")
    assert host.swanmesh("policy", "confirm", check=False).returncode == 1
    assert traffic.lost() == {}


def test_from_encrypted_back_to_clear_nothing_is_lost(lab: Mesh) -> None:
    """One host after another leaves."""
    traffic = Traffic(lab.hosts)
    for host in lab:
        host.swanmesh("policy", "set", "off")
    assert traffic.lost() == {}
    wait_until(lambda: all(host.xfrm_states() == [] for host in lab), 20, "nothing is left")
