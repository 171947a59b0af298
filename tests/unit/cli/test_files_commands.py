"""Commands that need no service: `check`, `plan --offline`, `ca`, and the ways in and out of all of them."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lab.waiting import wait_until
from swanmesh.cli.main import _MODULES
from tests.commands import Ended
from tests.unit.cli.conftest import Machine
from tests.unit.control.plain_service import ServerThread, peer_status


def make_credentials(machine: Machine) -> None:
    assert ca(machine, "init").status == 0
    assert ca(machine, "issue", "web1.mesh.example", "203.0.113.1", "2001:db8::1").status == 0


def ca(machine: Machine, command: str, *arguments: str) -> Ended:
    return machine.swanmesh("ca", command, *arguments, "--directory", str(machine.folder / "pki"))


def test_ca_makes_what_check_accepts(machine: Machine) -> None:
    make_credentials(machine)
    key = machine.folder / "pki" / "web1.mesh.example.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert machine.swanmesh("add-peer", "web2", "203.0.113.2").status == 0
    ended = machine.swanmesh("check")
    assert (ended.status, ended.err) == (0, "")
    assert "1 peer: no mistakes" in ended.out


def test_ca_never_replaces_an_authority_or_unasked_a_host(machine: Machine, tmp_path: Path) -> None:
    make_credentials(machine)
    before = (machine.folder / "pki" / "ca.key").read_bytes()
    ended = ca(machine, "init")
    assert (ended.status, "exists already" in ended.err) == (1, True)
    assert (machine.folder / "pki" / "ca.key").read_bytes() == before
    assert ca(machine, "issue", "web1.mesh.example", "203.0.113.1").status == 1
    assert ca(machine, "issue", "web1.mesh.example", "203.0.113.1", "--replace").status == 0
    other = tmp_path / "other"
    other.mkdir()
    ended = ca(machine, "issue", "web7", "203.0.113.7", "--output", str(other), "--json")
    assert ended.json["certificate"] == str(other / "web7.pem")
    assert ca(machine, "issue", "../web7", "203.0.113.7").status == 2
    assert ca(machine, "issue", "web8", "nowhere").status == 2
    assert machine.swanmesh("ca", "issue", "web8", "203.0.113.8", "--directory", "/nonexistent").status == 2


def test_check_shows_every_mistake_at_once(machine: Machine) -> None:
    make_credentials(machine)
    machine.write_peer("a.yaml", "name: web2\naddresses: [203.0.113.2]\n")
    machine.write_peer("b.yaml", "name: web2\naddresses: [203.0.113.3]\n")
    machine.write_peer("c.yaml", "name: [")
    machine.write_peer("d.yaml", "name: web4\naddresses: [127.0.0.1]\ncolour: red\n")
    (machine.folder / "pki" / "web1.mesh.example.key").chmod(0o644)
    ended = machine.swanmesh("check", "--json")
    assert ended.status == 2
    files = {Path(error["file"]).name for error in ended.json["errors"]}
    assert files == {"b.yaml", "c.yaml", "d.yaml", "web1.mesh.example.key"}
    assert all(error["message"] and error["remedy"] for error in ended.json["errors"])
    ended = machine.swanmesh("check")
    assert ended.status == 2
    assert len(ended.err.splitlines()) == 5
    assert ended.out == "5 mistakes\n"


def test_check_looks_at_peers_though_the_configuration_is_broken(machine: Machine) -> None:
    machine.config.write_text("host: {name: web_1}\n")
    machine.write_peer("c.yaml", "name: [")
    ended = machine.swanmesh("check")
    assert ended.status == 2
    assert "c.yaml" in ended.err
    assert "host.name (web_1)" in ended.err
    assert "credentials" in ended.err


def test_check_warns_of_a_certificate_that_ends_soon(machine: Machine) -> None:
    ca(machine, "init")
    ca(machine, "issue", "web1.mesh.example", "203.0.113.1", "--days", "7")
    machine.peers.mkdir()
    ended = machine.swanmesh("check")
    assert ended.status == 0
    assert "warning" in ended.err
    assert re.search("ends in [67] days", ended.err)
    assert "describes no other host" in ended.err


def test_plan_offline(machine: Machine) -> None:
    assert machine.swanmesh("plan", "--offline").status == 2
    make_credentials(machine)
    machine.write_peer("a.yaml", "name: web2\naddresses: [203.0.113.2, '2001:db8::2']\n")
    machine.write_peer("c.yaml", "name: [")
    ended = machine.swanmesh("plan", "--offline", "--json")
    assert ended.status == 2
    assert "c.yaml" in ended.err
    kinds = [(action["action"], action["peer"]) for action in ended.json["actions"]]
    assert kinds.count(("load", "web2")) == 2
    assert all(action["reason"] for action in ended.json["actions"])
    (machine.peers / "c.yaml").unlink()
    assert machine.swanmesh("plan", "--offline").status == 0


def test_every_command_explains_itself(machine: Machine) -> None:
    for command in _MODULES:
        ended = machine.swanmesh(command, "--help")
        assert ended.status == 0
        assert ended.out.startswith(f"Usage: swanmesh {command}")
    assert machine.swanmesh("ca", "issue", "--help").status == 0


@pytest.mark.parametrize("arguments", [["nonsense"], ["status", "--nonsense"], ["up"], ["remove-peer"], []])
def test_wrong_usage_is_2(machine: Machine, arguments: list[str]) -> None:
    ended = machine.swanmesh(*arguments)
    assert ended.status == 2
    assert ended.out == ""
    assert ended.err


def test_a_missing_configuration_is_named(machine: Machine) -> None:
    machine.config.unlink()
    for arguments in (["status"], ["check"], ["add-peer", "web2", "203.0.113.2"]):
        ended = machine.swanmesh(*arguments)
        assert ended.status == 2
        assert str(machine.config) in ended.err


def test_a_bug_is_one_line_unless_it_is_debugged(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise KeyError("\x1b[31moops")

    monkeypatch.setattr("swanmesh.config.settings.load_config", broken)
    ended = machine.swanmesh("status")
    assert ended.status == 1
    assert len(ended.err.splitlines()) == 1
    assert "this is a bug in swanmesh" in ended.err
    assert "\x1b" not in ended.err
    monkeypatch.setenv("SWANMESH_DEBUG", "1")
    assert "Traceback" in machine.swanmesh("status").err


# As a process of its own


def run(machine: Machine, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swanmesh", *arguments],
        env={**os.environ, "SWANMESH_CONFIG": str(machine.config), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_process_ends_with_the_status(machine: Machine, server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2", "down", "peer unreachable"))
    assert run(machine, "status").returncode == 0
    assert run(machine, "status", "web9").returncode == 2
    assert run(machine, "status", "--nonsense").returncode == 2
    assert run(machine, "wait", "--timeout", "0.05").returncode == 4
    server.stop()
    assert run(machine, "status").returncode == 3
    assert run(machine, "--version").stdout == "swanmesh, version 0.1.0\n"


def test_a_reader_that_leaves_is_no_error_message(machine: Machine, server: ServerThread) -> None:
    server.service.put(*(peer_status(f"web{n}", "203.0.113.2") for n in range(3000)))
    command = f"{sys.executable} -m swanmesh status | head -1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["/bin/bash", "-c", command],
        env={**os.environ, "SWANMESH_CONFIG": str(machine.config)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stderr == ""
    assert len(ended.stdout.splitlines()) == 1
    assert ended.returncode in (0, 1)


def test_an_interrupted_command_says_nothing(machine: Machine, server: ServerThread) -> None:
    server.service.put(peer_status("web2", "203.0.113.2", "down", "peer unreachable"))
    process = subprocess.Popen(
        [sys.executable, "-m", "swanmesh", "--config", str(machine.config), "wait", "--timeout", "60"],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: server.server._followers, 20, "the command waits")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    # A line end after the terminal's ^C, and no more.
    assert err.strip() == ""


def test_completion_offers_commands_and_peers(machine: Machine) -> None:
    machine.write_peer("web2.yaml", "name: web2\naddresses: [203.0.113.2]\n")
    completing = {"_SWANMESH_COMPLETE": "bash_complete", "COMP_CWORD": "1", "COMP_WORDS": "swanmesh re"}
    script = [str(Path(sys.executable).parent / "swanmesh")]
    for words, number, expected in (("swanmesh re", "1", "remove-peer"), ("swanmesh up we", "2", "web2")):
        ended = subprocess.run(
            script,
            env={
                **os.environ,
                **completing,
                "COMP_WORDS": words,
                "COMP_CWORD": number,
                "SWANMESH_CONFIG": str(machine.config),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert expected in ended.stdout


@pytest.mark.parametrize(
    "arguments", [["status"], ["up", "web2"], ["wait"], ["add-peer", "w2", "203.0.113.2"]]
)
def test_starting_imports_nothing_heavy(machine: Machine, server: ServerThread, arguments: list[str]) -> None:
    server.service.put(peer_status("web2", "203.0.113.2"))
    program = (
        "import sys; from swanmesh.cli.main import main; status = main(sys.argv[1:]);"
        "heavy = {'aiohttp', 'asyncio', 'cryptography', 'structlog', 'prometheus_client', 'vici'};"
        "print(sorted(heavy & set(sys.modules)), status, file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "SWANMESH_CONFIG": str(machine.config)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stderr.endswith("[] 0\n")


def test_main_alone_imports_no_yaml_and_no_msgspec() -> None:
    program = (
        "import sys, swanmesh.cli.main;"
        "print(sorted({'yaml', 'msgspec', 'http.client', 'aiohttp'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


# Slips


def test_an_own_address_that_no_interface_has_is_a_mistake(machine: Machine) -> None:
    make_credentials(machine)
    machine.config.write_text(machine.config.read_text().replace("203.0.113.1", "203.0.113.10"))
    ended = machine.swanmesh("check")
    assert ended.status == 2
    assert "host.addresses[0] (203.0.113.10): no interface of this host has it" in ended.err


def test_check_tells_what_the_service_holds_and_confirm_lets_it_happen(
    machine: Machine, server: ServerThread
) -> None:
    make_credentials(machine)
    machine.peers.mkdir()
    server.service.held_peers = ["web2", "web3"]
    ended = machine.swanmesh("check")
    assert (ended.status, "web2 is held" in ended.err, ended.out) == (2, True, "")
    assert machine.swanmesh("check", "--json").json["held"] == ["web2 is held", "web3 is held"]
    ended = machine.swanmesh("confirm", "removal")
    assert (ended.status, ended.out) == (0, "2 peers removed: web2, web3\n")
    assert machine.swanmesh("confirm", "removal", "--json").json == {"removed": []}
    assert machine.swanmesh("confirm", "removal").out == "nothing is held\n"
    assert machine.swanmesh("check").status == 0
    assert machine.swanmesh("confirm", "everything").status == 2
    server.stop()
    assert machine.swanmesh("confirm", "removal").status == 3


@pytest.mark.parametrize("file", ["swanmesh.yaml", "pki/ca.pem", "pki/web1.mesh.example.key", "peers.d"])
def test_what_others_could_write_is_a_mistake(machine: Machine, file: str) -> None:
    make_credentials(machine)
    machine.peers.mkdir()
    path = machine.folder / file
    path.chmod(0o777 if path.is_dir() else 0o666)
    ended = machine.swanmesh("check")
    assert ended.status == 2
    assert str(path) in ended.err
    assert "run: chmod " in ended.err


def test_an_authority_is_made_only_where_it_is_told_and_nobody_else_may_write(machine: Machine) -> None:
    for arguments in (["init"], ["issue", "web2", "203.0.113.2"]):
        ended = machine.swanmesh("ca", *arguments)
        assert ended.status == 2
        assert "--directory" in ended.err
    open_folder = machine.folder / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    ended = machine.swanmesh("ca", "init", "--directory", str(open_folder))
    assert (ended.status, f"run: chmod go-w {open_folder}" in ended.err) == (2, True)
    make_credentials(machine)
    link = machine.folder / "link"
    link.symlink_to(machine.folder / "pki")
    for place in (open_folder, link):
        ended = ca(machine, "issue", "web2", "203.0.113.2", "--output", str(place))
        assert ended.status == 2
        assert str(place) in ended.err
    assert list(open_folder.iterdir()) == []
    assert not (machine.folder / "pki" / "web2.pem").exists()


def test_a_link_in_the_place_of_a_certificate_is_replaced_and_not_followed(machine: Machine) -> None:
    make_credentials(machine)
    target = machine.folder / "target"
    target.write_text("precious")
    (machine.folder / "pki" / "web2.pem").symlink_to(target)
    assert ca(machine, "issue", "web2", "203.0.113.2").status == 1
    assert ca(machine, "issue", "web2", "203.0.113.2", "--replace").status == 0
    assert target.read_text() == "precious"
    assert not (machine.folder / "pki" / "web2.pem").is_symlink()
