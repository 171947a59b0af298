"""`add-peer` and `remove-peer`: what is written, what is refused, and what the service is told."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path

import pytest

from lab.waiting import wait_until
from swanmesh.config.entry_files import read_peer
from swanmesh.control.protocol import ReloadReply
from swanmesh.core.model import Peer
from tests.unit.cli.conftest import Machine
from tests.unit.control.plain_service import ServerThread, peer_status


def test_without_a_service_the_file_is_written_and_loaded_later(machine: Machine) -> None:
    ended = machine.swanmesh("add-peer", "web2", "203.0.113.2", "2001:db8::2")
    assert ended.status == 0
    assert "web2: added" in ended.out
    assert "reads it as soon as it runs" in ended.out
    assert (
        machine.peers / "web2.yaml"
    ).read_text() == "name: web2\naddresses: [203.0.113.2, '2001:db8::2']\n"


def test_waiting_without_a_service_is_3_and_the_file_stays(machine: Machine) -> None:
    assert machine.swanmesh("add-peer", "web2", "203.0.113.2", "--wait").status == 3
    assert machine.files == ["web2.yaml"]
    assert machine.swanmesh("remove-peer", "web2", "--wait", "5").status == 3
    assert machine.files == []


def test_the_service_is_told_and_asked_what_became_of_it(machine: Machine, server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2", "connecting", "ours to initiate"))
    ended = machine.swanmesh("add-peer", "web2", "203.0.113.2")
    assert (ended.status, ended.out) == (0, "web2: added; connecting (ours to initiate)\n")
    assert [request.files for request in server.service.reloads] == [[str(machine.peers / "web2.yaml")]]


def test_the_same_again_is_unchanged_and_other_addresses_an_update(
    machine: Machine, server: ServerThread
) -> None:
    server.service.put(peer_status("web2", "203.0.113.2"))
    machine.swanmesh("add-peer", "web2", "203.0.113.2")
    before = (machine.peers / "web2.yaml").stat()
    ended = machine.swanmesh("add-peer", "WEB2", "203.0.113.2")
    assert (ended.status, ended.out) == (0, "web2: unchanged; up\n")
    assert (machine.peers / "web2.yaml").stat() == before
    assert len(server.service.reloads) == 1
    ended = machine.swanmesh("add-peer", "web2", "203.0.113.22", "--policy", "prefer", "--json")
    assert ended.json == {
        "peers": [
            {
                "name": "web2",
                "file": str(machine.peers / "web2.yaml"),
                "result": "updated",
                "own": False,
                "dropped": ["203.0.113.2"],
                "state": "up",
                "reason": "",
            }
        ],
        "service": True,
    }
    assert "policy: prefer" in (machine.peers / "web2.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["../../etc/x", "203.0.113.3"], "is no host name"),
        (["web3", "203.0.113.300"], "neither an IPv4 nor an IPv6 address"),
        (["web3", "127.0.0.1"], "a loopback address"),
        (["web3", "::"], "unspecified"),
        (["web3", "224.0.0.1", "ff02::1"], "a multicast address"),
        (["web3", "203.0.113.0/24"], "a single address"),
        (["web3", "203.0.113.3", "203.0.113.3"], "stands twice"),
        (["web3", "203.0.113.1"], "this host's own address"),
        (["web3", "2001:db8:0::1"], "this host's own address"),
        (["web3"], "at least one ADDRESS"),
        ([], "give NAME"),
        (["web3", "203.0.113.3", "--policy", "always"], "--policy"),
        (["web3", "203.0.113.3", "--wait=never"], "--wait"),
        (["web3", "203.0.113.3", "--from", "-"], "not both"),
        (["web3", "203.0.113.3\x1b[31m"], "\\x1b"),
    ],
)
def test_bad_words_are_2_and_write_nothing(machine: Machine, words: list[str], part: str) -> None:
    ended = machine.swanmesh("add-peer", *words)
    assert ended.status == 2
    assert part in ended.err
    assert "\x1b" not in ended.err
    assert all(line.startswith("swanmesh: ") for line in ended.err.splitlines())
    assert machine.files == []
    assert not (machine.folder.parent / "etc").exists()


def test_every_wrong_address_is_named_at_once(machine: Machine) -> None:
    ended = machine.swanmesh("add-peer", "web_3", "203.0.113.300", "::1")
    assert ended.status == 2
    assert len(ended.err.splitlines()) == 3


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("name: web2\naddresses: [203.0.113.9]\n", ["web3", "203.0.113.9"]),
        ('{"name": "web2", "addresses": ["2001:DB8:0:0::9"]}', ["web3", "2001:db8::9"]),
        ('name: web2\naddresses: ["2001:db8::0009"]\n', ["web3", "203.0.113.3", "2001:db8::9"]),
        ('name: web2\naddresses: ["\\x32001:db8::9"]\n', ["web3", "2001:db8::9"]),
    ],
)
@pytest.mark.parametrize("running", [False, True])
def test_an_address_of_another_peer_names_both_files_and_leaves_nothing(
    machine: Machine, request: pytest.FixtureRequest, other: str, words: list[str], running: bool
) -> None:
    if running:
        request.getfixturevalue("server")
    machine.write_peer("b.yaml", other)
    machine.write_peer("broken.yaml", "name: [")
    ended = machine.swanmesh("add-peer", *words)
    assert ended.status == 2
    assert str(machine.peers / "web3.yaml") in ended.err
    assert str(machine.peers / "b.yaml") in ended.err
    assert machine.files == ["b.yaml", "broken.yaml"]


def test_a_peer_in_a_file_of_another_name_is_updated_there(machine: Machine) -> None:
    machine.write_peer("rack4.yaml", "name: web2\naddresses: [203.0.113.2]\npolicy: prefer\n")
    assert machine.swanmesh("add-peer", "web2", "203.0.113.22").status == 0
    assert machine.files == ["rack4.yaml"]
    text = (machine.peers / "rack4.yaml").read_text()
    assert "203.0.113.22" in text
    assert "prefer" in text


def test_what_the_service_finds_wrong_with_the_file_takes_it_back(
    machine: Machine, server: ServerThread
) -> None:
    machine.write_peer("web2.yaml", "name: web2\naddresses: [203.0.113.2]\n")
    path = machine.peers / "web2.yaml"
    server.service.reload_reply = ReloadReply(changed=[], problems=[f"{path}: stands in /elsewhere too"])
    ended = machine.swanmesh("add-peer", "web2", "203.0.113.22")
    assert ended.status == 2
    assert "stands in /elsewhere too" in ended.err
    assert path.read_text() == "name: web2\naddresses: [203.0.113.2]\n"
    assert len(server.service.reloads) == 2


def test_a_problem_of_another_file_is_not_ours(machine: Machine, server: ServerThread) -> None:
    server.service.reload_reply = ReloadReply(changed=["web2"], problems=["/x/peers.d/web9.yaml: broken"])
    assert machine.swanmesh("add-peer", "web2", "203.0.113.2").status == 0
    assert machine.files == ["web2.yaml"]


def test_the_own_name_is_good_on_every_host_and_passed_over(machine: Machine, server: ServerThread) -> None:
    ended = machine.swanmesh("add-peer", "web1.mesh.example", "203.0.113.1", "--wait")
    assert (ended.status, ended.err) == (0, "")
    assert "this host itself" in ended.out
    assert machine.files == ["web1.mesh.example.yaml"]


def test_wait_until_up(machine: Machine, server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2", "down", "peer unreachable"))
    ended = machine.swanmesh("add-peer", "web2", "203.0.113.2", "--wait", "0.05")
    assert ended.status == 4
    assert "web2: peer unreachable" in ended.err

    def come_up() -> None:
        wait_until(lambda: server.server._followers, 10, "the command waits")
        server.call(server.service.put, peer_status("web2", "203.0.113.2"))

    thread = threading.Thread(target=come_up)
    thread.start()
    ended = machine.swanmesh("add-peer", "--wait", "web2", "203.0.113.2")
    thread.join(10)
    assert (ended.status, ended.out) == (0, "web2: unchanged; up\n")


def test_many_from_lines_all_or_none(machine: Machine, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text(
        "# the racks\nweb2 203.0.113.2 2001:db8::2\n\nweb3 203.0.113.3 # new\nweb4 203.0.113.x\n"
    )
    ended = machine.swanmesh("add-peer", "--from", str(listed))
    assert ended.status == 2
    assert f"{listed}, line 5" in ended.err
    assert machine.files == []
    listed.write_text(listed.read_text().replace("203.0.113.x", "203.0.113.4"))
    ended = machine.swanmesh("add-peer", "--from", str(listed))
    assert ended.status == 0
    assert machine.files == ["web2.yaml", "web3.yaml", "web4.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "",
        "name: web2\naddresses: [203.0.113.2]\n",
        '{"name": "web2", "addresses": ["203.0.113.2"]}',
        "- web2\n",
        "- {name: web2, addresses: [203.0.113.2]}\n- {name: web3, addresses: [203.0.113.2]}\n",
        "- {name: web2, addresses: [203.0.113.2]}\n- {name: web2, addresses: [203.0.113.3]}\n",
        "- &a {name: web2, addresses: [203.0.113.2]}\n- *a\n",
        "- {name: web2, addresses: [203.0.113.2], colour: red}\n",
        "web2 203.0.113.2\nweb3 203.0.113.2\n",
        "web2 203.0.113.2\nweb2 203.0.113.3\n",
        "web2\n",
    ],
)
def test_a_bad_list_writes_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    ended = machine.swanmesh("add-peer", "--from", "-")
    assert ended.status == 2, ended
    assert ended.err.startswith("swanmesh: ")
    assert machine.files == []


def test_many_from_json_on_standard_input(
    machine: Machine, server: ServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = [{"name": f"web{n}", "addresses": [f"198.51.100.{n}"]} for n in range(2, 252)]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(peers, indent=1).encode())))
    ended = machine.swanmesh("add-peer", "--from", "-", "--policy", "prefer")
    assert (ended.status, ended.out) == (0, "250 peers: 250 added\n")
    assert "prefer" in (machine.peers / "web7.yaml").read_text()
    # More files than a request holds: everything is read again.
    assert [request.files for request in server.service.reloads] == [None]


def test_addresses_can_change_hands_within_one_list(machine: Machine, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text("web2 203.0.113.2\nweb3 203.0.113.3\n")
    assert machine.swanmesh("add-peer", "--from", str(listed)).status == 0
    listed.write_text("web2 203.0.113.3\nweb3 203.0.113.2\n")
    ended = machine.swanmesh("add-peer", "--from", str(listed))
    assert ended.status == 0
    assert "web2: updated" in ended.out


def test_remove_is_all_or_none(machine: Machine, server: ServerThread) -> None:
    for number in (2, 3):
        machine.swanmesh("add-peer", f"web{number}", f"203.0.113.{number}")
    ended = machine.swanmesh("remove-peer", "web2", "web9")
    assert ended.status == 2
    assert "web9" in ended.err
    assert machine.files == ["web2.yaml", "web3.yaml"]
    assert machine.swanmesh("remove-peer", "../web2").status == 2
    before = len(server.service.reloads)
    ended = machine.swanmesh("remove-peer", "web3", "WEB2", "--json")
    assert ended.status == 0
    assert [removed["name"] for removed in ended.json["removed"]] == ["web3", "web2"]
    assert machine.files == []
    assert [request.files for request in server.service.reloads[before:]] == [
        [str(machine.peers / "web3.yaml"), str(machine.peers / "web2.yaml")]
    ]


def test_remove_by_short_name_or_address(machine: Machine, server: ServerThread) -> None:
    for number in (2, 3, 4):
        machine.swanmesh("add-peer", f"web{number}.mesh.example", f"203.0.113.{number}")
    machine.write_peer(
        "web4.mesh.example.yaml", "name: web4.mesh.example\naddresses: [203.0.113.4]\npolcy: x\n"
    )
    ended = machine.swanmesh("remove-peer", "web2", "203.0.113.3")
    assert (ended.status, machine.files) == (0, ["web4.mesh.example.yaml"])
    ended = machine.swanmesh("remove-peer", "web5.mesh.example")
    assert ended.status == 2
    assert "no such peer: web5.mesh.example" in ended.err
    # Of a file that cannot be read, what is wrong with it is told, and not that there is none.
    ended = machine.swanmesh("remove-peer", "web4.mesh.example")
    assert ended.status == 2
    assert "polcy" in ended.err


def test_remove_waits_until_gone(machine: Machine, server: ServerThread) -> None:
    machine.swanmesh("add-peer", "web2", "203.0.113.2")
    server.service.put(peer_status("web2", "203.0.113.2"))
    ended = machine.swanmesh("remove-peer", "web2", "--wait", "0.05")
    assert ended.status == 4
    assert "web2: still there" in ended.err
    assert machine.files == []


def test_a_full_disk_leaves_no_half_file(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.swanmesh("add-peer", "web2", "203.0.113.2")

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    ended = machine.swanmesh("add-peer", "web3", "203.0.113.3")
    monkeypatch.undo()
    assert ended.status == 1
    assert "no space left" in ended.err
    assert machine.files == ["web2.yaml"]


def test_thousands_of_peers_do_not_slow_one_down(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what may contradict is parsed: counted, since time is no measure here."""
    for number in range(2000):
        addresses = f'198.51.{number // 250}.{number % 250}, "2001:db8::a:{number:x}"'
        machine.write_peer(f"old{number}.yaml", f"name: old{number}\naddresses: [{addresses}]\n")
    parsed: list[str] = []

    def counting(path: Path) -> Peer:
        parsed.append(path.name)
        return read_peer(path)

    monkeypatch.setattr("swanmesh.config.adding.read_peer", counting)
    assert machine.swanmesh("add-peer", "new", "203.0.113.7", "2001:db8::7").status == 0
    ended = machine.swanmesh("add-peer", "newer", "203.0.113.8", "2001:db8:0::a:1f")
    assert ended.status == 2
    assert "old31.yaml" in ended.err
    assert parsed == ["old31.yaml"]


def test_addresses_that_go_are_told(machine: Machine, server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2"))
    machine.swanmesh("add-peer", "web2", "203.0.113.2", "2001:db8::2")
    ended = machine.swanmesh("add-peer", "web2", "203.0.113.2")
    assert ended.out == "web2: updated; up\nweb2: no longer has 2001:db8::2\n"


def test_a_link_in_peers_d_is_not_followed(machine: Machine) -> None:
    machine.peers.mkdir()
    target = machine.folder / "target"
    target.write_text("name: web2\naddresses: [203.0.113.2]\n")
    (machine.peers / "web2.yaml").symlink_to(target)
    ended = machine.swanmesh("add-peer", "web2", "203.0.113.22")
    assert ended.status == 2
    assert f"web2.yaml: is a symbolic link; change {target}" in ended.err
    assert "203.0.113.22" not in target.read_text()


def test_an_own_entry_with_addresses_of_another_is_refused(machine: Machine) -> None:
    ended = machine.swanmesh("add-peer", "web1.mesh.example", "203.0.113.11")
    assert ended.status == 2
    assert "addresses[0] (203.0.113.11): is not in host.addresses" in ended.err
    assert machine.files == []


def test_the_service_is_told_that_a_removal_is_on_purpose(machine: Machine, server: ServerThread) -> None:
    names = [f"web{number}" for number in range(2, 252)]
    for name in names:
        machine.write_peer(f"{name}.yaml", f"name: {name}\naddresses: [198.51.100.{name[3:]}]\n")
    assert machine.swanmesh("remove-peer", *names).status == 0
    assert [request.removed for request in server.service.reloads] == [True, True]
    told = [file for request in server.service.reloads for file in request.files or ()]
    assert told == [str(machine.peers / f"{name}.yaml") for name in names]


def test_many_removed_without_a_service_are_held_at_its_start_and_that_is_told(machine: Machine) -> None:
    for number in range(2, 8):
        machine.swanmesh("add-peer", f"web{number}", f"203.0.113.{number}")
    assert "confirm" not in machine.swanmesh("remove-peer", "web2").out
    assert "swanmesh confirm removal" in machine.swanmesh("remove-peer", "web3", "web4", "web5", "web6").out


@pytest.mark.parametrize(
    ("options", "warned"), [((), True), (("--policy", "require"), True), (("--policy", "prefer"), False)]
)
def test_who_would_lock_himself_out_is_warned(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], warned: bool
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "203.0.113.9 40000 203.0.113.1 22")
    ended = machine.swanmesh("add-peer", "web9", "203.0.113.9", "2001:db8::9", *options)
    assert ended.status == 0
    told = [line for line in ended.err.splitlines() if "addresses[0] (203.0.113.9)" in line]
    assert bool(told) == warned
    assert all("logged in from over SSH" in line and "exempt: [tcp/22]" in line for line in told)
    monkeypatch.delenv("SSH_CONNECTION")
    monkeypatch.setattr("swanmesh.cli.add.needed_now", dict)
    assert machine.swanmesh("add-peer", "web8", "203.0.113.8").err == ""
