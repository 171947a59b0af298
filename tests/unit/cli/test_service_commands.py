"""Commands that ask the service: what they print and how they end."""

from __future__ import annotations

import json
import re
import sys
import threading
import time

import pytest

from swanmesh.cli.output import amount, safe, span
from swanmesh.control.protocol import EventRecord, PlannedAction
from tests.unit.cli.conftest import Machine
from tests.unit.control.plain_service import ServerThread, peer_status
from tests.unit.control.waiting import wait_until


def test_status_as_a_plain_table(machine: Machine, server: ServerThread) -> None:
    server.service.put(
        peer_status("web2", "203.0.113.2"), peer_status("web3", "203.0.113.3", "down", "peer unreachable")
    )
    server.service.problems = ["/etc/swanmesh/peers.d/web4.yaml: is no YAML; correct it"]
    ended = machine.swanmesh("status")
    assert (ended.status, ended.err) == (0, "")
    head, columns, up, down, *foot = ended.out.splitlines()
    assert head.startswith("web1.mesh.example (203.0.113.1), policy require; swanmesh 0.1.0 for ")
    assert "charon 5.9.8 for " in head
    assert columns.split() == ["PEER", "STATE", "FOR", "ADDRESSES", "IN", "OUT", "REASON"]
    assert re.fullmatch(r"web2  up     \w+ \w+  203\.0\.113\.2  1\.4 MiB  2\.0 KiB", up)
    assert down.endswith("0 B      0 B      peer unreachable")
    assert foot == [
        "2 peers: 1 up, 1 down",
        "problem: /etc/swanmesh/peers.d/web4.yaml: is no YAML; correct it",
    ]


def test_status_of_named_peers_and_unknown_ones(machine: Machine, server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2"), peer_status("web3", "203.0.113.3"))
    assert "web3" not in machine.swanmesh("status", "web2").out
    ended = machine.swanmesh("status", "web9")
    assert ended.status == 1
    assert ended.err.startswith("swanmesh: no such peer: web9")


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


@pytest.mark.parametrize(("colour", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_person_at_a_terminal_sees_the_same_words(
    machine: Machine,
    server: ServerThread,
    monkeypatch: pytest.MonkeyPatch,
    colour: dict[str, str],
    coloured: bool,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in colour.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("swanmesh.cli.status.for_people", lambda: True)
    server.service.put(
        peer_status("web2", "203.0.113.2"), peer_status("web3", "203.0.113.3", "down", "[bold]no\x1b[5m")
    )
    out = machine.swanmesh("status").out
    assert "[bold]no\\x1b[5m" in out
    assert "1.4 MiB" in out
    assert ("\x1b[32m" in out) is coloured


def test_thousands_of_peers_are_a_plain_table_at_a_terminal_too(
    machine: Machine, server: ServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swanmesh.cli.status.for_people", lambda: True)
    server.service.put(*(peer_status(f"web{number}", "203.0.113.2") for number in range(3000)))
    monkeypatch.setitem(sys.modules, "swanmesh.cli.terminal", None)
    ended = machine.swanmesh("status")
    assert ended.status == 0
    assert "3000 peers: 3000 up" in ended.out


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
    assert machine.swanmesh("plan", "--json").json["actions"][0]["reason"] == "new peer"


def test_up_down_rekey_go_on_after_a_refusal(machine: Machine, server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2"), peer_status("web3", "203.0.113.3"))
    ended = machine.swanmesh("down", "web2", "web9", "web3")
    assert ended.status == 1
    assert ended.out == "web2: down noted\nweb3: down noted\n"
    assert "web9" in ended.err
    assert server.service.commands == [("down", "web2"), ("down", "web3")]
    assert machine.swanmesh("up", "web2").status == 0
    assert machine.swanmesh("rekey", "web2", "--json").json["done"] == {"web2": "rekey noted"}


def test_wait(machine: Machine, server: ServerThread) -> None:
    server.service.put(
        peer_status("web2", "203.0.113.2"), peer_status("web3", "203.0.113.3", "down", "peer unreachable")
    )
    assert machine.swanmesh("wait", "web2", "--timeout", "5").status == 0
    ended = machine.swanmesh("wait", "--timeout", "0.05")
    assert (ended.status, ended.err) == (4, "swanmesh: web3: peer unreachable\n")
    ended = machine.swanmesh("wait", "--timeout", "50ms", "web9", "--json")
    assert (ended.status, ended.json) == (4, {"missing": {"web9": "not known"}})
    assert machine.swanmesh("wait", "--gone", "web9").status == 0
    assert machine.swanmesh("wait", "--gone").status == 2
    assert machine.swanmesh("wait", "--timeout", "25h").status == 2


def test_events(machine: Machine, server: ServerThread) -> None:
    def happen() -> None:
        wait_until(lambda: server.service.readers, 10, "the command follows")
        for name in ("web2", "web\x1b3"):
            record = EventRecord(event="peer-up", time=1.0, peer=name, reason="established")
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


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["plan"], ["wait"], ["up", "web2"], ["down", "web2"], ["rekey", "web2"], ["events"]],
)
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
    assert ended.status == 2
    assert "--socket" in ended.err
    assert machine.swanmesh("--socket", str(machine.folder / "control.sock"), "status").status == 0


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
