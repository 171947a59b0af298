"""The authority, enrolment and certificates on the command line, and the documented pipe as processes."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from swanmesh.control.reports import PeerCertificate
from swanmesh.pki.reading import der, read_certificates
from tests.commands import Ended
from tests.unit.cli.conftest import CONFIG, Machine
from tests.unit.config.elsewhere import REPOSITORY
from tests.unit.control.plain_service import ServerThread, peer_status
from tests.unit.hooks.hooking import write_hook

NAME = "web1.mesh.example"
SWANMESH = [sys.executable, "-m", "swanmesh"]


@pytest.fixture
def ca(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """`swanmesh ca` with an authority that was made."""
    monkeypatch.setenv("SWANMESH_CA", str(machine.folder / "ca"))
    assert machine.swanmesh("ca", "init").status == 0
    return lambda *arguments: machine.swanmesh("ca", *arguments)


@pytest.fixture
def request_file(machine: Machine, ca: Callable[..., Ended]) -> Path:
    (machine.folder / "pki").mkdir(mode=0o700)
    path = machine.folder / "new.csr"
    path.write_text(machine.swanmesh("enroll", "request").out)
    return path


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The shell command without any terminal, from the repository; `swanmesh` is this one."""
    text = command.replace("swanmesh", shlex.join(SWANMESH))
    return subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail; {text}"],
        cwd=REPOSITORY,
        env={**os.environ, "SWANMESH_CONFIG": str(folder / "swanmesh.yaml")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )


def test_the_documented_pipe(machine: Machine, ca: Callable[..., Ended]) -> None:
    (machine.folder / "pki").mkdir(mode=0o700)
    pipe = "swanmesh enroll request | swanmesh ca sign - --yes | swanmesh enroll install -"
    ended = run(pipe, machine.folder)
    assert ended.returncode == 0
    assert f"{NAME} at 203.0.113.1 2001:db8::1, with a key of its own (P-256)" in ended.stderr
    assert f"installed {machine.folder}/pki/{NAME}.pem" in ended.stdout
    machine.write_peer("web2.yaml", "name: web2\naddresses: [203.0.113.2]\n")
    checked = machine.swanmesh("check")
    assert (checked.status, checked.err) == (0, "")
    # Once more, unasked: refused, and the pair in use stays as it is.
    before = (machine.folder / "pki" / f"{NAME}.key").read_bytes()
    again = run(pipe, machine.folder)
    assert again.returncode != 0
    assert "the name is in use" in again.stderr
    assert machine.swanmesh("check").status == 0
    assert (machine.folder / "pki" / f"{NAME}.key").read_bytes() == before
    assert run(pipe.replace("--yes", "--yes --replace"), machine.folder).returncode == 0
    assert (machine.folder / "pki" / f"{NAME}.key").read_bytes() != before


def test_nothing_is_signed_where_nobody_can_be_asked(
    machine: Machine, ca: Callable[..., Ended], request_file: Path
) -> None:
    for command in (f"swanmesh ca sign - < {request_file}", f"swanmesh ca sign {request_file}"):
        ended = run(command, machine.folder)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "say --yes" in ended.stderr
    assert ca("list", "--json").json == []


@pytest.mark.parametrize(("said", "status", "signed"), [("y", 0, 1), ("n", 1, 0), ("", 1, 0)])
def test_a_person_is_asked_at_the_terminal(
    machine: Machine, ca: Callable[..., Ended], request_file: Path, said: str, status: int, signed: int
) -> None:
    child, terminal = pty.fork()
    if child == 0:
        # Standard input is the request: the answer comes from the terminal all the same.
        os.chdir(REPOSITORY)
        os.dup2(os.open(request_file, os.O_RDONLY), 0)
        os.execv(sys.executable, [*SWANMESH, "ca", "sign", "-"])  # noqa: S606
    seen = b""
    while b"Sign this? [y/N]" not in seen:
        seen += os.read(terminal, 4096)
    assert f"{NAME} at 203.0.113.1 2001:db8::1".encode() in seen
    os.write(terminal, f"{said}\n".encode())
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:  # EIO: the child has closed its end
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status
    assert len(ca("list", "--json").json) == signed


def test_what_is_issued_is_listed_shown_renewed_and_revoked(
    machine: Machine, ca: Callable[..., Ended], request_file: Path
) -> None:
    answer = machine.folder / "answer.pem"
    answer.write_text(ca("sign", str(request_file), "--yes").out)
    assert machine.swanmesh("enroll", "install", str(answer)).status == 0
    (one,) = ca("list", "--json").json
    assert (one["names"], one["state"]) == ([NAME], "in force")
    assert 80 * 86400 < one["not_after"] - time.time() <= 90 * 86400
    assert one["serial"] in ca("list").out
    assert f"names:       {NAME}" in ca("show", NAME).out
    shown = ca("show", "--json").json
    assert (shown["authority"], shown["issued"], shown["in_force"]) == (True, 1, 1)

    answer.write_text(ca("renew", NAME).out)
    assert machine.swanmesh("enroll", "install", str(answer), "--json").json["names"] == [NAME]
    new = machine.swanmesh("cert", "show", "--json").json[0]
    assert new["serial"] not in one["serial"]
    assert new["key_id"] == one["key_id"]

    assert ca("revoke", one["serial"], "--reason", "superseded", "--json").json["revoked"] == [one["serial"]]
    states = {entry["serial"]: entry["state"] for entry in ca("list", "--json").json}
    assert sorted(states.values()) == ["in force", "revoked"]
    assert ca("crl", "--json").json["revoked"] == 1
    assert len(ca("revoke", NAME, "--json").json["revoked"]) == 1
    assert ca("revoke", NAME).out == f"nothing of {NAME} is in force\n"
    assert "superseded" in ca("show", one["serial"]).out
    assert ca("crl", "--json").json["revoked"] == 2
    ended = ca("renew", NAME)
    assert (ended.status, ended.out) == (2, "")
    assert "is revoked, and would vouch for the same key" in ended.err


def test_who_is_not_known_is_not_revoked(ca: Callable[..., Ended]) -> None:
    for command in ("revoke", "renew", "show"):
        ended = ca(command, "web9.mesh.example")
        assert (ended.status, ended.out) == (2, "")
        assert "see `swanmesh ca list`" in ended.err


def test_a_passphrase_from_a_file(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWANMESH_CA", str(machine.folder / "ca"))
    secret, key = machine.folder / "secret", machine.folder / "stick" / "mesh.key"
    secret.write_text("correct horse\n")
    given = ["--key", str(key), "--passphrase-file", str(secret)]
    ended = machine.swanmesh("ca", "init", *given)
    assert (ended.status, "run: chmod 0600" in ended.err) == (2, True)
    secret.chmod(0o600)
    assert machine.swanmesh("ca", "init", *given, "--key-type", "ed25519").status == 0
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in key.read_bytes()
    assert machine.swanmesh("ca", "issue", NAME, "203.0.113.1", *given).status == 0
    unasked = run(f"swanmesh ca issue web2 203.0.113.2 --key {key}", machine.folder)
    assert (unasked.returncode, "give --passphrase-file" in unasked.stderr) == (2, True)
    secret.write_text("\n")
    ended = machine.swanmesh("ca", "crl", *given)
    assert (ended.status, "begins with an empty line" in ended.err) == (2, True)


def test_what_does_not_fit_is_not_installed(
    machine: Machine, ca: Callable[..., Ended], request_file: Path
) -> None:
    answer = machine.folder / "answer.pem"
    answer.write_text(ca("sign", str(request_file), "--yes").out)
    machine.config.write_text(CONFIG.replace("203.0.113.1", "203.0.113.7"))
    ended = machine.swanmesh("enroll", "install", str(answer))
    assert (ended.status, ended.out) == (2, "")
    assert "203.0.113.7 of host.addresses is not among them" in ended.err
    assert [path.name for path in (machine.folder / "pki").iterdir()] == [f"{NAME}.key.pending"]


def test_certificates_are_shown_whatever_stands_in_them(machine: Machine, ca: Callable[..., Ended]) -> None:
    assert ca("init", "--directory", str(machine.folder / "other"), "--name", "other \N{SNOWMAN}").status == 0
    both = machine.folder / "both.pem"
    both.write_bytes(
        b"\x1b[31m text \xff\n".join(
            (machine.folder / name / "ca.pem").read_bytes() for name in ("ca", "other")
        )
    )
    ended = machine.swanmesh("cert", "show", str(both))
    assert ended.status == 0
    assert ended.out.count("authority:   yes, at most 0 below it") == 2
    assert "\x1b" not in ended.out
    facts = run(f"swanmesh cert show - --json < {both}", machine.folder)
    assert facts.returncode == 0
    assert "CN=other \N{SNOWMAN}" in facts.stdout
    key = (machine.folder / "ca" / "ca.key").read_bytes()
    for name, content in (("rubbish", b"rubbish"), ("large", bytes(2 << 20)), ("key", key)):
        (machine.folder / name).write_bytes(content)
        ended = machine.swanmesh("cert", "show", str(machine.folder / name))
        assert (ended.status, ended.out) == (2, "")
        assert str(machine.folder / name) in ended.err
    assert machine.swanmesh("cert", "show").status == 2


def test_renewed_by_hand_without_a_service(machine: Machine, ca: Callable[..., Ended]) -> None:
    assert "renewal.command: is not set" in machine.swanmesh("cert", "renew", "--now").err
    machine.folder.joinpath("pki").mkdir(mode=0o700)
    pki, folder = machine.folder / "pki", machine.folder / "ca"
    ca("issue", NAME, "203.0.113.1", "2001:db8::1", "--days", "5", "--output", str(pki))
    (pki / "ca.pem").write_bytes((folder / "ca.pem").read_bytes())
    program = machine.folder / "renew"
    sign = shlex.join([*SWANMESH, "ca", "sign", "-", "--yes", "--replace", "--directory", str(folder)])
    write_hook(program, f"cd {REPOSITORY} && exec {sign}")
    machine.config.write_text(f"{CONFIG}renewal: {{command: [{program}]}}\n")
    (before,) = machine.swanmesh("cert", "show", "--json").json
    assert "not due before" in machine.swanmesh("cert", "renew").out
    ended = machine.swanmesh("cert", "renew", "--now")
    assert (ended.status, ended.out[:15]) == (0, "renewed: until ")
    (after,) = machine.swanmesh("cert", "show", "--json").json
    assert after["not_after"] > before["not_after"] and after["key_id"] != before["key_id"]
    machine.peers.mkdir()
    assert machine.swanmesh("check").status == 0
    program.chmod(0o777)
    ended = machine.swanmesh("check")
    assert ended.status == 2 and f"renewal.command ({program}): is not run: " in ended.err
    write_hook(program, "echo nobody is there >&2; exit 255")
    ended = machine.swanmesh("cert", "renew", "--now")
    assert ended.status == 1 and "exit status 255: nobody is there" in ended.err
    assert machine.swanmesh("cert", "show", "--json").json == [after]


def test_renewed_by_hand_through_the_service(machine: Machine, server: ServerThread) -> None:
    assert "renewed: until 2030" in machine.swanmesh("cert", "renew", "--now").out
    assert server.service.renewals[0].now


def request_of(machine: Machine, config: str = CONFIG) -> Path:
    """A request with another key at each call."""
    for left in machine.folder.glob("pki/*.pending"):
        left.unlink()
    machine.folder.joinpath("pki").mkdir(mode=0o700, exist_ok=True)
    machine.config.write_text(config)
    asked = machine.folder / "asked"
    asked.write_text(machine.swanmesh("enroll", "request").out)
    return asked


def test_a_host_that_may_only_renew_gets_its_own_name_and_addresses_and_no_other(
    machine: Machine, ca: Callable[..., Ended]
) -> None:
    def renewal(config: str = CONFIG, name: str = NAME) -> Ended:
        return ca("sign", str(request_of(machine, config)), "--yes", "--only-renew", name)

    assert "it has none" in renewal().err
    assert ca("sign", str(request_of(machine)), "--yes").status == 0
    ended = renewal()
    assert ended.status == 0 and ended.out.count("BEGIN CERTIFICATE") == 2
    for config, why in (
        (CONFIG.replace(NAME, "web2.mesh.example"), "it asks for web2.mesh.example"),
        (CONFIG.replace("203.0.113.1,", "203.0.113.1, 203.0.113.9,"), "lacks the address 203.0.113.9"),
    ):
        ended = renewal(config)
        assert ended.status == 1 and not ended.out
        assert f"a renewal for {NAME} alone is allowed" in ended.err and why in ended.err
    assert "it has none" in renewal(CONFIG.replace(NAME, "web2.mesh.example"), "web2.mesh.example").err
    assert "asks for web1" in renewal(name="web2.mesh.example").err
    assert ca("revoke", NAME).status == 0
    assert "its newest certificate is not in force" in renewal().err


def test_an_answer_that_was_lost_is_given_again(machine: Machine, ca: Callable[..., Ended]) -> None:
    assert ca("sign", str(request_of(machine)), "--yes").status == 0
    asked = request_of(machine)
    first, again = (ca("sign", str(asked), "--yes", "--only-renew", NAME).out for _ in range(2))
    assert first == again
    assert len(ca("list", "--json").json) == 2
    for _ in range(20):
        last = ca("sign", str(request_of(machine)), "--yes", "--only-renew", NAME)
    assert last.status == 1 and "16 certificates of it are in force" in last.err


def test_what_a_peer_has_shown(machine: Machine, ca: Callable[..., Ended], server: ServerThread) -> None:
    ca("issue", "web2.mesh.example", "203.0.113.2")
    certificate = read_certificates((machine.folder / "ca" / "web2.mesh.example.pem").read_bytes())[0]
    peer = peer_status("web2.mesh.example", "203.0.113.2")
    server.service.put(peer)
    assert machine.swanmesh("cert", "show", "web2").status == 1
    peer.certificates = [
        PeerCertificate(der=der(certificate), ike_ids=[7], certain=False, revoked="says list 2 of CN=ca")
    ]
    ended = machine.swanmesh("cert", "show", "web2")
    assert ended.status == 0
    assert "IKE_SA #7 (as far as is known)" in ended.out and "REVOKED:     says list 2" in ended.out
    assert f"serial:      {certificate.serial_number:x}" in ended.out
    (facts,) = machine.swanmesh("cert", "show", "web2", "--json").json
    assert facts["names"] == ["web2.mesh.example"] and facts["associations"] == [7]
    assert machine.swanmesh("cert", "show", "./web2").status == 2  # a file, which is not there
    assert "nobody.mesh.example" in machine.swanmesh("cert", "show", "nobody.mesh.example").err


def test_an_authority_of_one_domain_and_network_alone(machine: Machine) -> None:
    folder = ("--directory", str(machine.folder / "ca"))
    permit = ("--permit", "mesh.example", "--permit", "203.0.113.0/24")
    assert "neither a domain nor a network" in machine.swanmesh("ca", "init", *folder, "--permit", "a_b").err
    assert machine.swanmesh("ca", "init", *folder, *permit).status == 0
    assert machine.swanmesh("ca", "issue", NAME, "203.0.113.1", *folder).status == 0
    for name, address in (("web1.example.org", "203.0.113.2"), ("web2.mesh.example", "198.51.100.1")):
        ended = machine.swanmesh("ca", "issue", name, address, *folder)
        assert ended.status == 2 and "name constraints do not allow it" in ended.err
