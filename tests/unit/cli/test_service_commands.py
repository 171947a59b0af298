"""Commands that ask the service: what they print and how they end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from lab.waiting import wait_until
from swanmesh.cli.detail import clear_text
from swanmesh.cli.output import amount, safe, span
from swanmesh.cli.setup import Setup
from swanmesh.control.protocol import PlannedAction
from swanmesh.control.reports import ClearText, Traffic
from swanmesh.core.events import MeshEvent
from tests.unit.cli.conftest import Machine
from tests.unit.control.plain_service import ServerThread, peer_status, serving


def test_status_for_programs_is_a_line_a_peer_with_what_needs_a_look_first(
    machine: Machine, server: ServerThread
) -> None:
    server.service.put(
        peer_status("web2", "203.0.113.2"), peer_status("web3", "203.0.113.3", "down", "peer unreachable")
    )
    server.service.problems = ["/etc/swanmesh/peers.d/web4.yaml: is no YAML; correct it"]
    ended = machine.swanmesh("status")
    assert (ended.status, ended.err) == (0, "")
    host, service, problem, _, columns, down, up, _, summary = ended.out.splitlines()
    assert host == "web1.mesh.example (203.0.113.1), policy require"
    assert re.fullmatch(r"swanmesh 0\.1\.0 for \w+ \w+; charon 5\.9\.8 for \w+ \w+", service)
    assert problem == "problem: /etc/swanmesh/peers.d/web4.yaml: is no YAML; correct it"
    assert columns.split() == ["PEER", "STATE", "FOR", "ADDRESSES", "IN", "OUT", "REASON"]
    assert down.endswith("0 B      0 B      peer unreachable")
    assert re.fullmatch(r"web2  up     \w+ \w+  203\.0\.113\.2  1\.4 MiB  2\.0 KiB", up)
    assert summary == "2 peers: 1 down, 1 up"
    assert server.service.looks == 0


@pytest.mark.parametrize("asked", ["web2", "WEB2.mesh.example", "203.0.113.2", "web2.mesh.example."])
def test_a_peer_is_asked_for_by_name_short_name_or_address(
    machine: Machine, server: ServerThread, asked: str
) -> None:
    server.service.put(
        peer_status("web2.mesh.example", "203.0.113.2"), peer_status("web23.mesh.example", "203.0.113.3")
    )
    for command in ("status", "wait", "up", "down", "rekey"):
        assert machine.swanmesh(command, asked).status == 0
    assert {name for _, name in server.service.commands} == {"web2.mesh.example"}
    (peer,) = machine.swanmesh("status", asked, "--json").json["peers"]
    assert peer["name"] == "web2.mesh.example"


@pytest.mark.parametrize("command", ["status", "wait", "up", "down", "rekey"])
def test_a_peer_that_nobody_or_more_than_one_is_called_is_2_with_a_suggestion(
    machine: Machine, server: ServerThread, command: str
) -> None:
    server.service.put(
        peer_status("web2.mesh.example", "203.0.113.2"), peer_status("web2.other.example", "203.0.113.3")
    )
    ended = machine.swanmesh(command, "web2.mesh.exmple")
    assert ended.status == 2
    assert ended.err.startswith("swanmesh: no such peer: web2.mesh.exmple; did you mean web2.mesh.example")
    ended = machine.swanmesh(command, "web2")
    assert ended.status == 2
    assert "may be any of web2.mesh.example, web2.other.example" in ended.err
    assert machine.swanmesh(command, "203.0.113.99").status == 2
    assert server.service.commands == []


def test_status_json_is_what_the_service_says(machine: Machine, server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2"))
    status = machine.swanmesh("status", "--json").json
    assert status["schema"] == 1
    assert status["charon"]["reachable"] is True
    assert status["peers"][0]["associations"][0]["spi_in"] == "c1a2b3c4"


def test_nothing_from_outside_steers_the_terminal(machine: Machine, server: ServerThread) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\r\n2 peers: all well"
    server.service.put(peer_status("web2", "203.0.113.2", "down", evil))
    server.service.problems = [evil]
    server.service.actions = [PlannedAction(action="load", peer="web2", target=evil, reason=evil)]
    for command in ("status", "plan"):
        out = machine.swanmesh(command).out
        assert all(line.isprintable() for line in out.splitlines())
        assert "\\x1b" in out
    assert "\x1b" not in machine.swanmesh("status", "--json").out


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person looks, at 80 columns."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for module in ("output", "status", "detail"):
        monkeypatch.setattr(f"swanmesh.cli.{module}.for_people", lambda: True)


REASON = (
    "203.0.113.1 to 203.0.113.3: peer unreachable: no answer to IKE_SA_INIT after six transmissions in 10.2 s"
)


@pytest.mark.usefixtures("terminal")
def test_at_80_columns_each_reason_has_lines_of_its_own(
    machine: Machine, server: ServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    down = peer_status("web3.mesh.example", "203.0.113.3", "down", REASON)
    down.next_attempt = time.time() + 3600.5
    server.service.put(peer_status("web2.mesh.example", "203.0.113.2"), down)
    lines = machine.swanmesh("status").out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    place = next(number for number, line in enumerate(lines) if line.startswith("web3"))
    assert lines[place - 1].split() == ["PEER", "STATE", "FOR", "IN", "OUT", "ADDRESSES"]
    assert lines[place + 1].startswith("    203.0.113.1 to 203.0.113.3: peer unreachable")
    assert lines[place + 2] == "    six transmissions in 10.2 s; next attempt in 1h"
    assert lines[place + 3].split()[:2] == ["web2.mesh.example", "up"]
    assert lines[-1] == "2 peers: 1 down, 1 up"
    assert server.service.looks == 1


@pytest.mark.usefixtures("terminal")
def test_colour_is_for_a_terminal_alone_and_words_stay_the_same(
    machine: Machine, server: ServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.service.put(
        peer_status("web2", "203.0.113.2"), peer_status("web3", "203.0.113.3", "down", "[bold]no\x1b[5m")
    )
    coloured = machine.swanmesh("status").out
    assert "\x1b[32mup\x1b[0m" in coloured
    assert "[bold]no\\x1b[5m" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    plain = machine.swanmesh("status").out
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("addresses", "shown"),
    [
        (["203.0.113.2", "2001:db8::2"], "203.0.113.2, 2001:db8::2"),
        (["203.0.113.2", "2001:db8:1111:2222:3333:4444:5555:6666"], "203.0.113.2 (+1)"),
    ],
)
def test_addresses_that_do_not_fit_are_counted(
    machine: Machine, server: ServerThread, addresses: list[str], shown: str
) -> None:
    peer = peer_status("web2", "203.0.113.2")
    peer.addresses = addresses
    server.service.put(peer)
    assert any(line.endswith(f"  {shown}") for line in machine.swanmesh("status").out.splitlines())


def test_status_of_one_peer_is_all_that_is_known(machine: Machine, server: ServerThread) -> None:
    peer = peer_status("web2.mesh.example", "203.0.113.2", "up")
    peer.associations[0].rekey_in, peer.associations[0].child_age = 600.0, 3000.0
    peer.traffic = Traffic(bytes_in=5 * 2**30, bytes_out=2048, packets_in=10, packets_out=12)
    peer.history = [MeshEvent(kind="peer-down", time=1.0, peer=peer.name, reason="peer deleted it")]
    down = peer_status("web3.mesh.example", "203.0.113.3", "down", "no answer")
    down.pairs[0].next_attempt = time.time() + 90
    server.service.put(peer, down)
    server.service.observed = time.time() - 30
    text = machine.swanmesh("status", "web2").out
    for words in (
        "web2.mesh.example: up for ",
        "received 5.0 GiB, sent 2.0 KiB",
        "203.0.113.1 to 203.0.113.2: up for ",
        "mesh-web2.mesh.example",
        "IKE_SA #7",
        "CHILD_SA #9",
        "INSTALLED, TRANSPORT, 50m old, rekeyed in 10m, AES_GCM_16-128",
        "SPI c1a2b3c4, 1.4 MiB in 1000 packets",
        "SPI c5d6e7f8, 2.0 KiB in 12 packets",
        "peer deleted it",
        "as charon told them 30s ago",
    ):
        assert words in text
    assert "web3" not in text
    text = machine.swanmesh("status", "web3").out
    for words in ("web3.mesh.example: down for ", "no answer", "3 in a row came to nothing", "in 1m"):
        assert words in text
    assert server.service.looks == 2


def test_check_is_one_line_for_monitoring(machine: Machine, server: ServerThread) -> None:
    off = peer_status("web5", "203.0.113.5", "disabled", "its policy is off")
    off.policy = "off"
    server.service.put(peer_status("web2", "203.0.113.2"), off)
    ended = machine.swanmesh("status", "--check")
    assert (ended.status, ended.out) == (0, "OK: 2 peers, all up\n")
    server.service.put(
        peer_status("web3", "203.0.113.3", "down", "peer unreachable"),
        peer_status("web4", "203.0.113.4", "disabled", "held down"),
    )
    ended = machine.swanmesh("status", "--check")
    assert ended.status == 1
    assert ended.out == (
        "NOT OK: 2 of 4 peers not up: web3 down (peer unreachable), web4 disabled (held down)\n"
    )
    assert machine.swanmesh("status", "--check", "web2").status == 0
    server.service.charon_lost = "it hangs"
    ended = machine.swanmesh("status", "--check", "web2")
    assert (ended.status, ended.out) == (1, "NOT OK: charon is not reachable (it hangs)\n")
    server.service.charon_lost, server.service.problems = "", ["peers.d/x.yaml: broken"]
    assert machine.swanmesh("status", "--check", "web2").status == 0
    assert "1 mistake in files: peers.d/x.yaml" in machine.swanmesh("status", "--check").out
    server.service.peers["web2"].violation = "its CHILD_SA has another address's selectors"
    server.service.peers["web2"].violations = 3
    ended = machine.swanmesh("status", "--check", "web2")
    assert ended.status == 1
    assert "web2 did what was not agreed: its CHILD_SA has another" in ended.out
    assert "NOT AS AGREED, and ended (3 times lately): its CHILD_SA" in machine.swanmesh("status").out
    server.stop()
    ended = machine.swanmesh("status", "--check")
    assert ended.status == 3
    assert len(ended.out.splitlines()) == 1
    assert ended.out.startswith("UNKNOWN: the service is not reachable")


def test_plan(machine: Machine, server: ServerThread) -> None:
    assert machine.swanmesh("plan").out == "nothing to do\n"
    server.service.actions = [
        PlannedAction(action="load", peer="web2", target="mesh-web2", reason="new peer"),
        PlannedAction(
            action="initiate", peer="web2", target="mesh-web2", reason="ours", due=time.time() + 3700
        ),
    ]
    ended = machine.swanmesh("plan")
    assert "load" in ended.out
    assert "new peer" in ended.out
    assert "in 1h 1m" in ended.out
    server.service.actions[1].due, server.service.actions[1].blocked = None, "waiting for a place"
    assert "  waiting for a place  ours" in machine.swanmesh("plan").out
    assert machine.swanmesh("plan", "--json").json["actions"][0]["reason"] == "new peer"


def test_what_was_asked_is_told_as_done_only_when_it_is(machine: Machine, server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2"), peer_status("web3", "203.0.113.3"))
    ended = machine.swanmesh("down", "web2", "web3")
    assert (ended.status, ended.out, ended.err) == (0, "web2: down done\nweb3: down done\n", "")
    server.service.undone = {"web2": "charon is not reachable (it hangs)"}
    for command in ("up", "down", "rekey"):
        ended = machine.swanmesh(command, "web2", "web3")
        assert (ended.status, ended.out) == (1, f"web3: {command} done\n")
        assert ended.err == "swanmesh: web2: asked, not yet done: charon is not reachable (it hangs)\n"
    ended = machine.swanmesh("rekey", "web2", "--wait", "--json")
    assert ended.status == 4
    assert ended.json == {"command": "rekey", "done": {}, "waiting": server.service.undone}
    assert machine.swanmesh("down", "web2", "--wait", "5").status == 4
    assert machine.swanmesh("down", "web2", "--wait", "--timeout", "7").status == 4
    assert server.service.waits == [2.0, 2.0, 2.0, 2.0, 60.0, 5.0, 7.0]


def test_one_unknown_peer_and_nothing_is_asked_of_any(machine: Machine, server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2"))
    assert machine.swanmesh("down", "web2", "web9").status == 2
    assert server.service.commands == []


def test_wait(machine: Machine, server: ServerThread) -> None:
    server.service.put(
        peer_status("web2", "203.0.113.2"), peer_status("web3", "203.0.113.3", "down", "peer unreachable")
    )
    assert machine.swanmesh("wait", "web2", "--timeout", "5").status == 0
    ended = machine.swanmesh("wait", "--timeout", "0.05")
    assert (ended.status, ended.err) == (4, "swanmesh: web3: peer unreachable\n")
    ended = machine.swanmesh("wait", "--timeout", "50ms", "web3", "--json")
    assert (ended.status, ended.json) == (4, {"missing": {"web3": "peer unreachable"}})
    assert machine.swanmesh("wait", "--gone", "web9").status == 0
    assert machine.swanmesh("wait", "--gone").status == 2
    assert machine.swanmesh("wait", "--timeout", "25h").status == 2


def test_wait_waits_for_a_service_whose_socket_is_there_before_it_answers(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives charon its connections first."""
    monkeypatch.setattr("swanmesh.control.client._PATIENCE", 0.2)
    program = f"""
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind({str(machine.folder / "control.sock")!r})
listener.listen()
print(flush=True)
sys.stdin.read()
"""
    loading = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with loading:
        assert loading.stdout is not None
        loading.stdout.readline()
        assert machine.swanmesh("wait", "--timeout", "0.5").status == 4
        loading.kill()
        loading.wait()
    (machine.folder / "control.sock").unlink()
    with serving(machine.folder / "control.sock"):
        assert machine.swanmesh("wait", "--timeout", "30").status == 0


def test_wait_waits_for_the_service_too(machine: Machine) -> None:
    began = threading.Event()
    servers: list[ServerThread] = []

    def boot() -> None:
        began.wait(10)
        servers.append(ServerThread(machine.folder / "control.sock"))

    thread = threading.Thread(target=boot)
    thread.start()
    assert machine.swanmesh("wait", "--timeout", "0.3").status == 3
    began.set()
    try:
        assert machine.swanmesh("wait", "--timeout", "30").status == 0
    finally:
        thread.join(10)
        servers[0].stop()


def test_events(machine: Machine, server: ServerThread) -> None:
    def happen() -> None:
        wait_until(lambda: server.service.readers, 10, "the command follows")
        for name in ("web2", "web\x1b3"):
            record = MeshEvent(kind="peer-up", time=1.0, peer=name, reason="established")
            server.call(server.service.emit, record)
        server.service.finished = True
        server.call(server.service.wake)

    for arguments in (["events"], ["events", "--follow", "--json"]):
        server.service.finished = False
        thread = threading.Thread(target=happen)
        thread.start()
        ended = machine.swanmesh(*arguments)
        thread.join(10)
        assert ended.status == 3
        lines = ended.out.splitlines()
        assert len(lines) == 2
        assert "\x1b" not in ended.out
        if "--json" in arguments:
            assert [json.loads(line)["peer"] for line in lines] == ["web2", "web\x1b3"]
        else:
            assert lines[0].endswith("peer-up  web2  established")


def test_an_action_shows_what_was_done_to_what_and_why(machine: Machine, server: ServerThread) -> None:
    details = {"action": "initiate", "target": "swanmesh-web2-1a2b3c4d"}
    shown = [
        MeshEvent(kind="action", time=1.0, peer="web2", reason="ours to initiate", details=details),
        MeshEvent(kind="action", time=2.0, reason="new", details=details | {"error": "no such config"}),
        MeshEvent(kind="lost", time=3.0, details={"records": 12}),
    ]

    def happen() -> None:
        wait_until(lambda: server.service.readers, 10, "the command follows")
        for event in shown:
            server.call(server.service.emit, event)
        server.service.finished = True
        server.call(server.service.wake)

    thread = threading.Thread(target=happen)
    thread.start()
    ended = machine.swanmesh("events")
    thread.join(10)
    initiated, refused, lost = ended.out.splitlines()
    assert initiated.endswith("  initiate  web2  swanmesh-web2-1a2b3c4d  ours to initiate")
    assert refused.endswith("  initiate  swanmesh-web2-1a2b3c4d  new  refused: no such config")
    assert lost.endswith("  lost  12 events: they came faster than they were read")


WAIT = ["wait", "--timeout", "1"]
COMMANDS = [["status"], ["plan"], WAIT, ["up", "web2"], ["down", "web2"], ["rekey", "web2"], ["events"]]


@pytest.fixture
def stopped(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A service that was stopped with SIGSTOP: its socket takes whoever comes."""
    monkeypatch.setattr("swanmesh.control.client._PATIENCE", 0.2)
    program = f"""
import os, signal, socket
listener = socket.socket(socket.AF_UNIX)
listener.bind({str(machine.folder / "control.sock")!r})
listener.listen()
os.kill(os.getpid(), signal.SIGSTOP)
"""
    with subprocess.Popen([sys.executable, "-c", program]) as service:
        os.waitid(os.P_PID, service.pid, os.WSTOPPED | os.WNOWAIT)
        yield service.pid
        service.kill()


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_service_that_hangs_is_told_at_once_with_what_to_do(
    machine: Machine, stopped: int, arguments: list[str]
) -> None:
    ended = machine.swanmesh(*arguments)
    assert (ended.status, ended.out) == (4, "")
    assert f"(its process {stopped} is stopped); look at: systemctl status swanmesh\n" in ended.err


def test_with_a_service_that_hangs_files_are_written_nevertheless(machine: Machine, stopped: int) -> None:
    ended = machine.swanmesh("add-peer", "web2", "203.0.113.2")
    assert ended.status == 4
    assert "web2: added\nwritten, and not loaded yet: the service at " in ended.out
    assert "systemctl status swanmesh" in ended.out
    assert machine.files == ["web2.yaml"]
    ended = machine.swanmesh("remove-peer", "web2")
    assert ended.status == 4
    assert "not unloaded yet: the service at " in ended.out
    assert machine.files == []
    ended = machine.swanmesh("status", "--check")
    assert ended.status == 3
    assert "is stopped" in ended.out


@pytest.mark.parametrize("arguments", COMMANDS)
def test_no_service_is_3(machine: Machine, arguments: list[str]) -> None:
    ended = machine.swanmesh(*arguments)
    assert ended.status == 3
    assert ended.out == ""
    assert "control.sock" in ended.err
    assert "is the service running?" in ended.err


def test_the_socket_is_found_while_the_rest_of_the_file_is_broken(
    machine: Machine, server: ServerThread
) -> None:
    text = machine.config.read_text()
    machine.config.write_text(text.replace("203.0.113.1", "203.0.113.x") + "polcy: require\n")
    assert machine.swanmesh("status").status == 0
    machine.config.write_text(text + "host: [\n")
    ended = machine.swanmesh("status")
    assert ended.status == 0
    assert str(machine.config) in ended.err
    assert f"asking the service at the control socket that it names, {server.socket}\n" in ended.err


def test_where_the_file_names_no_socket_the_default_one_is_asked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(machine.folder / "default.sock"):
        monkeypatch.setattr(Setup, "_default_socket", staticmethod(lambda: machine.folder / "default.sock"))
        for text in ("host: [", "control: {socket: [\n", "control: none\nhost: }"):
            machine.config.write_text(text)
            ended = machine.swanmesh("status")
            assert ended.status == 0
            assert "asking the service at the default control socket, " in ended.err
        # A mistyped --config must not command another service.
        machine.config.unlink()
        assert machine.swanmesh("status").status == 2


def test_units_for_people() -> None:
    assert [span(s) for s in (-5, 0, 59.9, 60, 3725, 90000, 86400 * 400)] == [
        "0s",
        "0s",
        "59s",
        "1m",
        "1h 2m",
        "1d 1h",
        "400d",
    ]
    assert [amount(n) for n in (0, 1023, 1024, 1536 * 1024, 5 * 2**40, 3 * 2**50)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 MiB",
        "5.0 TiB",
        "3.0 PiB",
    ]
    assert safe("a\x9bb\ud800c") == "a\\x9bb\\ud800c"


@pytest.mark.parametrize(
    ("clear", "words"),
    [
        (None, ""),
        (ClearText(refused=True), ""),
        (ClearText(refused=True, into=990.0, packets_in=1), "last refused: in 10s ago; 1 packet in"),
        (
            ClearText(refused=False, out=940.0, into=999.0, packets_out=12, packets_in=3),
            "last passed: out 1m ago, in 1s ago; 12 packets out, 3 packets in",
        ),
    ],
)
def test_clear_text_is_told_with_when_and_how_much(clear: ClearText | None, words: str) -> None:
    assert clear_text(clear, 1000.0) == words
