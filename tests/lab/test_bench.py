"""`swanmesh bench` between hosts: what it measures, that it ends, and what others get of it."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Host, Mesh, mesh, wait_until
from lab.asking import Journal, everyone_up, full
from tests.lab.watching import changed_over

PORT = 5200


@pytest.fixture(scope="module")
def lab() -> Iterator[Mesh]:
    """h1 and h2 are peers, h2 lets itself be measured; h3 is a member that nobody has a file of."""
    with mesh(2, ipv6=1, spare=1, bench={"allow": True}, policy="prefer") as lab:
        full(lab)
        everyone_up(lab.hosts[:2])
        wait_until(lambda: all(map(changed_over, lab.hosts[:2])), 60, "both have changed over")
        yield lab


def iperfs(host: Host) -> list[int]:
    """Process ids of the iperf3 that run on a host."""
    return [
        pid
        for pid in host.namespace.processes()
        if Path(f"/proc/{pid}/comm").exists() and Path(f"/proc/{pid}/comm").read_text() == "iperf3\n"
    ]


def begun(one: Host, two: Host) -> subprocess.Popen[bytes]:
    """A measurement under way, once the pause after the one before is over."""
    processes: list[subprocess.Popen[bytes]] = []

    def under_way() -> bool:
        if not processes or processes[-1].poll() is not None:
            argv = (sys.executable, "-m", "swanmesh", "bench", two.name, "--seconds", "30")
            processes.append(one.popen(*argv, start_new_session=True))
        return bool(iperfs(one) and iperfs(two))

    wait_until(under_way, 180, "iperf3 runs at both ends", interval=0.5)
    return processes[-1]


def asked(host: Host, address: str) -> str:
    """What the service at an address says to root of `host`, who then goes away. Raises OSError."""
    with host.namespace.entered():
        sock = socket.socket()
    with sock:
        sock.settimeout(5)
        sock.bind((host.ipv4(), next(_ports)))
        sock.connect((address, PORT))
        return sock.recv(65536).decode()


_ports = itertools.count(700)
"""Root's, none of them twice."""


@pytest.mark.parametrize("family", [4, 6])
def test_it_measures_both_ways_through_esp_alone(lab: Mesh, family: int) -> None:
    one, two = lab[0], lab[1]
    address = two.ipv4() if family == 4 else two.ipv6()
    argv = ("bench", address, "--seconds", "2", "--streams", "2", "--speed", "100000", "--json")
    capture = lab.capture()
    done = wait_until(
        lambda: [done for done in [one.swanmesh(*argv, check=False, timeout=120)] if not done.returncode],
        180,
        "it is measured, after the pause",
    )
    capture.stop()
    told = json.loads(done[0].stdout)
    assert told["remote"] == address
    assert [(each["streams"], each["direction"]) for each in told["measured"]] == [
        (1, "to"),
        (1, "from"),
        (2, "to"),
        (2, "from"),
    ]
    assert all(each["bits_per_second"] > 0 and each["limit"] for each in told["measured"])
    assert capture.clear == [] and capture.esp
    wait_until(lambda: not iperfs(one) and not iperfs(two), 30, "no iperf3 runs")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_broken_off_it_leaves_nothing_at_either_end(lab: Mesh, number: int, status: int) -> None:
    one, two = lab[0], lab[1]
    process = begun(one, two)
    process.send_signal(number)
    assert process.wait(30) == status
    wait_until(lambda: not iperfs(one) and not iperfs(two), 30, "no iperf3 runs any more")


def test_a_member_that_asks_too_often_is_told_to_wait(lab: Mesh) -> None:
    one, two = lab[0], lab[1]
    journal = Journal(two)
    answers = [asked(one, two.ipv4()) for _ in range(20)]
    assert sum('"refused":""' in answer for answer in answers) <= 2
    assert "pauses as long; try again" in answers[-1]
    assert len(journal.lines("measures throughput")) <= 2


def test_a_host_without_an_association_gets_no_answer(lab: Mesh) -> None:
    """h3 could send in clear: nobody has a policy for it."""
    one, stranger = lab[0], lab[2]
    assert stranger.ping(one).received
    with pytest.raises(TimeoutError):
        asked(stranger, one.ipv4())
