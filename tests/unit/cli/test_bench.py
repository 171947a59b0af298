"""`swanmesh bench`: what it shows, and how it ends."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from swanmesh.throughput.asking import session
from tests.unit.cli.conftest import CONFIG, Machine
from tests.unit.control.plain_service import ServerThread, peer_status
from tests.unit.throughput.iperf import HERE, THERE, FakeIperf, Other, fake_iperf, free_port, unprotected

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes root's ports")


@pytest.fixture
def iperf(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIperf]:
    monkeypatch.setattr("swanmesh.throughput.offering._SAMPLE", 0.05)
    monkeypatch.setattr("swanmesh.throughput.asking.session", functools.partial(session, protect=unprotected))
    with fake_iperf(monkeypatch) as fake:
        yield fake


@pytest.fixture
def web2(machine: Machine, server: ServerThread) -> Other:
    """A peer that is up, at another address of loopback; it takes part once it is told to."""
    status = peer_status("web2.mesh.example", "203.0.113.2")
    status.associations[0].local, status.associations[0].remote = HERE, THERE
    server.service.put(status)
    other = Other(HERE)
    (machine.folder / "swanmesh.yaml").write_text(f"{CONFIG}bench: {{port: {other.port}}}\n")
    return other


@contextmanager
def taking_part(server: ServerThread, other: Other) -> Iterator[None]:
    server.call(other.allow)
    try:
        yield
    finally:
        server._run(other.offering.close())


def test_both_directions_one_stream_and_several(
    machine: Machine, server: ServerThread, web2: Other, iperf: FakeIperf
) -> None:
    with taking_part(server, web2):
        ended = machine.swanmesh(
            "bench", "web2", "--seconds", "1", "--speed", "1000", "--port", str(free_port())
        )
    assert (ended.status, ended.err) == (0, "")
    head, _, columns, *lines = ended.out.splitlines()
    # The limit takes one line or more: this machine may be busy with other things.
    rows, limit = lines[:4], next(line for line in lines[4:] if line)
    assert head.startswith(
        "127.0.0.1 to 127.0.0.2, MTU 65536, a link of 1,000 Mbit/s, of which TCP can have "
    )
    assert columns.split("  ")[0] == ""
    assert [" ".join(row.split()[:6]) for row in rows] == [
        f"{count} {word} web2.mesh.example 912 91.4%"
        for count in ("1 stream", "4 streams")
        for word in ("to", "from")
    ]
    assert limit.split(":")[0] in ("cpu", "core", "loss", "unknown", "mtu", "link")


def test_a_terminal_shows_the_rate_meanwhile_and_nothing_of_it_stays(
    machine: Machine, server: ServerThread, web2: Other, iperf: FakeIperf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    argv = ["bench", "web2", "--seconds", "1", "--streams", "1", "--port", str(free_port())]
    with taking_part(server, web2):
        ended = machine.swanmesh(*argv)
    assert ended.status == 0
    shown = ended.err.split("\r\x1b[K")
    assert "1 stream to web2.mesh.example: 912 Mbit/s" in shown
    assert "1 stream from web2.mesh.example: 912 Mbit/s" in shown
    assert shown[-1] == ""


def test_for_programs(machine: Machine, server: ServerThread, web2: Other, iperf: FakeIperf) -> None:
    argv = ["bench", "203.0.113.2", "--seconds", "1", "--streams", "1", "--port", str(free_port()), "--json"]
    with taking_part(server, web2):
        ended = machine.swanmesh(*argv)
    assert ended.status == 0
    told = ended.json
    assert (told["schema"], told["peer"], told["remote"]) == (1, "web2.mesh.example", THERE)
    assert told["ceiling_bits_per_second"] is None
    assert [(each["streams"], each["direction"]) for each in told["measured"]] == [(1, "to"), (1, "from")]
    assert {each["bits_per_second"] for each in told["measured"]} == {912_000_000}
    assert {len(each["busy"]["peer"]) for each in told["measured"]} == {os.cpu_count()}


def test_a_peer_that_is_not_up_is_not_measured(machine: Machine, server: ServerThread) -> None:
    server.service.put(peer_status("web3", "203.0.113.3", "down", "peer unreachable"))
    ended = machine.swanmesh("bench", "web3")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == "swanmesh: web3 is not up: peer unreachable; look at: swanmesh status web3\n"
    assert machine.swanmesh("bench", "web4").status == 2


def test_where_the_other_end_does_not_allow_it_the_remedy_is_said(
    machine: Machine, server: ServerThread, web2: Other, iperf: FakeIperf
) -> None:
    ended = machine.swanmesh("bench", "web2")
    assert (ended.status, ended.out) == (1, "")
    assert f"nobody answers at 127.0.0.2 port {web2.port} (Connect" in ended.err
    assert "set `bench: {allow: true}` in its swanmesh.yaml" in ended.err


def test_a_missing_iperf3_is_said_with_the_remedy(
    machine: Machine, server: ServerThread, web2: Other, iperf: FakeIperf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda program: None)
    with taking_part(server, web2):
        ended = machine.swanmesh("bench", "web2")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == "swanmesh: web2.mesh.example: iperf3 is not installed: apt-get install iperf3\n"
