"""The record of an authority: nothing is issued unwritten, and nothing that happens harms what is written."""

from __future__ import annotations

import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from swanmesh.core.model import InvalidInput
from swanmesh.files.write import NotWritten
from swanmesh.pki.authority import DAY, HOST_LIFETIME, Authority, spread
from swanmesh.pki.keys import KINDS, public_der
from swanmesh.pki.reading import pem
from swanmesh.pki.record import Record
from tests.unit.config.elsewhere import REPOSITORY, run_python
from tests.unit.pki.certify import key, put
from tests.unit.pki.killing import killed_everywhere
from tests.unit.pki.witness import openssl_takes, strongswan_takes

ADDRESSES = [ip_address("203.0.113.1"), ip_address("2001:db8::1")]


@pytest.fixture
def made(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca", now=time.time())


def issue(authority: Authority, name: str = "web1.mesh.example", number: int = 0) -> x509.Certificate:
    """One recorded certificate, as `ca sign` makes it."""
    record = Record(authority.directory)
    with record.writing():
        public = key("p256", number).public_key()
        record.check_free(name, ADDRESSES, public_der(public), now=time.time(), replace=True)
        certificate = authority.certify(public, name, ADDRESSES, now=time.time())
        record.add(certificate)
    return certificate


@pytest.mark.parametrize("kind", KINDS)
def test_others_take_what_an_authority_of_each_kind_issues(tmp_path: Path, kind: str) -> None:
    authority = Authority.create(tmp_path / "ca", now=time.time(), kind=kind)
    host = put(tmp_path / "host.pem", pem(issue(authority)))
    root = authority.directory / "ca.pem"
    for purpose in ("sslserver", "sslclient"):
        assert openssl_takes(host, root, options=["-x509_strict", "-purpose", purpose])
    assert openssl_takes(host, root, options=["-x509_strict", "-verify_ip", "203.0.113.1"])
    assert openssl_takes(host, root, options=["-x509_strict", "-verify_hostname", "web1.mesh.example"])
    assert not openssl_takes(host, root, options=["-verify_ip", "203.0.113.2"])
    assert strongswan_takes(host, root)
    assert Authority.load(authority.directory).certificate == authority.certificate


def test_a_key_encrypted_or_kept_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "stick" / "mesh.key"
    made = Authority.create(
        tmp_path / "ca", now=time.time(), key_path=elsewhere, passphrase=b"correct horse", path_length=1
    )
    assert not (tmp_path / "ca" / "ca.key").exists()
    assert elsewhere.stat().st_mode & 0o777 == 0o600
    with pytest.raises(TypeError):
        serialization.load_pem_private_key(elsewhere.read_bytes(), None)
    again = Authority.load(made.directory, elsewhere, lambda: b"correct horse")
    assert openssl_takes(put(tmp_path / "host.pem", pem(issue(again))), made.directory / "ca.pem")
    for ask in (None, lambda: b"wrong"):
        with pytest.raises(InvalidInput, match="is encrypted, and this is not its passphrase"):
            Authority.load(made.directory, elsewhere, ask)
    with pytest.raises(InvalidInput, match=r"ca\.key: cannot be read"):
        Authority.load(made.directory)


def test_a_mesh_issued_together_does_not_end_together() -> None:
    lifetimes = {spread(HOST_LIFETIME) for _ in range(50)}
    assert all(0.9 * HOST_LIFETIME <= one <= HOST_LIFETIME for one in lifetimes)
    assert max(lifetimes) - min(lifetimes) > DAY


def test_what_was_issued_is_found_by_name_and_serial(made: Authority) -> None:
    record = Record(made.directory)
    assert record.entries() == []
    first, second = issue(made), issue(made, "web2.mesh.example", 1)
    assert [entry.certificate for entry in record.entries()] == [first, second]
    (entry,) = record.find("WEB1.mesh.example")
    assert (entry.certificate, entry.addresses, entry.state(time.time())) == (first, ADDRESSES, "in force")
    assert record.find(f"{second.serial_number:X}")[0].certificate == second
    assert entry.state(time.time() + HOST_LIFETIME) == "expired"
    for unknown in ("web3.mesh.example", "", "0", "../ca"):
        with pytest.raises(InvalidInput, match="nothing was issued under this name"):
            record.find(unknown)


def test_a_name_address_or_key_in_use(made: Authority) -> None:
    issue(made)
    record = Record(made.directory)
    now, web1, web2 = time.time(), "web1.mesh.example", "web2.mesh.example"
    first, other = (public_der(key("p256", number).public_key()) for number in (0, 1))
    with pytest.raises(NotWritten, match=r"the name is in use: certificate [0-9a-f]{40} of web1.*--replace"):
        record.check_free(web1, [], other, now=now, replace=False)
    with pytest.raises(NotWritten, match=r"the address 2001:db8::1 is in use: .* of web1.*revoke that one"):
        record.check_free(web2, ADDRESSES[1:], other, now=now, replace=False)
    for replace in (False, True):
        with pytest.raises(NotWritten, match=r"its key is another's: .* of web1"):
            record.check_free(web2, [], first, now=now, replace=replace)
    record.check_free(web1, ADDRESSES, first, now=now, replace=True)
    record.check_free(web2, ADDRESSES, other, now=now, replace=True)
    record.check_free(web1, ADDRESSES, first, now=now + HOST_LIFETIME, replace=False)
    record.revoke(record.find(web1), "key-compromise", now=now)
    record.check_free(web1, ADDRESSES, other, now=now, replace=False)
    with pytest.raises(NotWritten, match=r"its key was given up: .*let the host make a new key"):
        record.check_free(web1, ADDRESSES, first, now=now, replace=True)


def test_killed_at_any_write_the_record_is_whole(made: Authority) -> None:
    issue(made)
    record = Record(made.directory)
    kept = record.entries()
    kills = 0
    for step in killed_everywhere(lambda: issue(made, "web2.mesh.example", 1)):
        entries = record.entries()
        assert entries[0] == kept[0]
        assert {entry.name for entry in entries[1:]} <= {"web2.mesh.example"}
        kills = step
    assert kills > 5
    # Whatever the killed left unfinished goes with the next that writes.
    issue(made, "web3.mesh.example", 2)
    assert not [path for path in made.directory.rglob("*") if path.name.startswith(".")]


def test_killed_at_any_write_a_list_is_the_old_or_the_new_one(made: Authority) -> None:
    issue(made)
    record = Record(made.directory)
    now = time.time()
    record.revoke(record.find("web1.mesh.example"), "unspecified", now=now)
    path, first, _ = record.write_list(made, now=now, lifetime=DAY)

    def again() -> None:
        with record.writing():
            record.write_list(made, now=now, lifetime=DAY)

    numbers = []
    for _ in killed_everywhere(again):
        made_list = x509.load_pem_x509_crl(path.read_bytes())
        assert made_list.is_signature_valid(made.certificate.public_key())  # type: ignore[arg-type]
        assert len(made_list) == 1
        numbers.append(made_list.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    assert numbers == sorted(numbers)
    assert numbers[-1] > first


def test_a_full_disk_leaves_the_record_as_it_was(tmp_path: Path) -> None:
    code = """
        import os, sys, time
        from pathlib import Path
        from swanmesh.files.write import NotWritten
        from swanmesh.pki.authority import Authority
        from swanmesh.pki.record import Record
        made = Authority.create(Path(sys.argv[1]) / "ca", now=time.time())
        record = Record(made.directory)
        issued = lambda: made.certify(made.private_key.public_key(), "web1", [], now=time.time())
        with record.writing():
            record.add(issued())
            filler = Path(sys.argv[1]) / "filler"
            filler.write_bytes(bytes(os.statvfs(sys.argv[1]).f_bavail * 4096))
            for action in (lambda: record.add(issued()),
                           lambda: record.revoke(record.find("web1"), "unspecified", now=time.time()),
                           lambda: record.write_list(made, now=time.time(), lifetime=60)):
                try:
                    action()
                except NotWritten as error:
                    print("no space left on device" in str(error))
        print(len(record.entries()), record.entries()[0].state(time.time()))
        print(*sorted(path.name for path in made.directory.rglob("*") if path.is_file()))
    """
    output = run_python(code, tmp_path, before=f"mount -t tmpfs -o size=64k tmpfs {tmp_path}").splitlines()
    assert output[:4] == ["True", "True", "True", "1 in force"]
    assert len(output[4].split()) == 3


def test_two_at_once_do_not_clash(made: Authority) -> None:
    command = [sys.executable, "-m", "swanmesh", "ca", "issue", "--directory", str(made.directory)]
    names = ["web1", "web2", "web1", "web3"]
    running = [
        subprocess.Popen(
            [*command, name, f"203.0.113.{name[-1]}"], cwd=REPOSITORY, stderr=subprocess.DEVNULL, text=True
        )
        for name in names
    ]
    ended = [process.wait(60) for process in running]
    assert sorted([ended[0], ended[2]]) == [0, 1]
    assert [ended[1], ended[3]] == [0, 0]
    assert [entry.name for entry in Record(made.directory).entries()] == ["web1", "web2", "web3"]


def test_a_damaged_record_is_told_and_not_passed_over(made: Authority) -> None:
    certificate, other = issue(made), issue(made, "web2.mesh.example", 1)
    record = Record(made.directory)
    path = made.directory / "issued" / f"{certificate.serial_number:040x}.pem"
    for content in (b"", b"rubbish", pem(other), pem(certificate) + pem(other)):
        put(path, content, 0o644)
        with pytest.raises(InvalidInput, match=f"{path.name}: is damaged"):
            record.entries()
    put(path, pem(certificate), 0o666)
    with pytest.raises(InvalidInput, match=f"{path.name}: can be changed by others"):
        record.entries()
    put(path, pem(certificate), 0o644)
    record.revoke(record.find("web1.mesh.example"), "superseded", now=time.time())
    put(made.directory / "revoked" / f"{path.stem}.json", b"{", 0o644)
    with pytest.raises(InvalidInput, match=r"\.json: is damaged"):
        record.entries()


def test_others_refuse_what_the_list_revokes_and_nothing_else(made: Authority, tmp_path: Path) -> None:
    bad = put(tmp_path / "bad.pem", pem(issue(made)))
    good = put(tmp_path / "good.pem", pem(issue(made, "web2.mesh.example", 1)))
    record, root = Record(made.directory), made.directory / "ca.pem"
    now = time.time()
    crl, number, count = record.write_list(made, now=now, lifetime=DAY)
    assert count == 0
    for one in (good, bad):
        assert openssl_takes(one, root, crl=crl)
        assert strongswan_takes(one, root, crl=crl)
    found = record.find("web1.mesh.example")
    assert [entry.name for entry in record.revoke(found, "key-compromise", now=now)] == ["web1.mesh.example"]
    assert record.revoke(record.find("web1.mesh.example"), "superseded", now=now) == []
    crl, later, count = record.write_list(made, now=now, lifetime=DAY)
    assert (later > number, count) == (True, 1)
    for takes in (openssl_takes, strongswan_takes):
        assert takes(good, root, crl=crl)
        assert not takes(bad, root, crl=crl)
    (revoked,) = x509.load_pem_x509_crl(crl.read_bytes())
    reason = revoked.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason is x509.ReasonFlags.key_compromise


def test_the_number_of_a_list_grows_though_the_last_is_lost(made: Authority) -> None:
    record = Record(made.directory)
    now = time.time()
    numbers = []
    for later in (0, 0, -3600, 60):
        crl, number, _ = record.write_list(made, now=now + later, lifetime=DAY)
        numbers.append(number)
        if later == -3600:
            crl.unlink()
    assert numbers == sorted(set(numbers))
    put(crl, b"rubbish")
    with pytest.raises(InvalidInput, match=r"crl\.pem: is damaged"):
        record.write_list(made, now=now, lifetime=DAY)


def test_who_is_revoked_stays_listed_until_after_the_end(made: Authority) -> None:
    issue(made)
    record = Record(made.directory)
    now = time.time()
    record.revoke(record.find("web1.mesh.example"), "unspecified", now=now)
    counts = [
        record.write_list(made, now=now + later * DAY, lifetime=DAY)[2] for later in (0, 80, 95, 100, 101)
    ]
    assert counts == [1, 1, 1, 0, 0]
