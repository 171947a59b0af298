"""The authority: what it issues will do, and what it keeps is never overwritten or shown."""

from __future__ import annotations

import os
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from swanmesh.core.model import InvalidInput
from swanmesh.files.write import NotWritten
from swanmesh.pki.authority import AUTHORITY_LIFETIME, HOST_LIFETIME, Authority
from swanmesh.pki.certificates import load_credentials
from swanmesh.pki.judging import IPSEC_IKE
from tests.unit.config.elsewhere import run_python
from tests.unit.pki.certify import NOW, authority, certify, key, put

NOW_SECONDS = NOW.timestamp()
ADDRESSES = [ip_address("203.0.113.1"), ip_address("2001:db8::1")]


@pytest.fixture
def made(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "pki", now=NOW_SECONDS)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_what_it_issues_will_do(made: Authority) -> None:
    certificate, private = made.issue("Web1.mesh.example", ADDRESSES, now=NOW_SECONDS).write(made.directory)
    assert (certificate.name, private.name) == ("web1.mesh.example.pem", "web1.mesh.example.key")
    for now in (NOW_SECONDS - 240, NOW_SECONDS, NOW_SECONDS + HOST_LIFETIME - 1):
        credentials = load_credentials(
            certificate, private, [made.directory / "ca.pem"], name="web1.mesh.example", now=now
        )
    assert credentials.not_after == NOW_SECONDS + HOST_LIFETIME


def test_a_place_for_a_hosts_files_is_made_if_only_it_is_missing(made: Authority, tmp_path: Path) -> None:
    issued = made.issue("web1.mesh.example", ADDRESSES, now=NOW_SECONDS)
    certificate, private = issued.write(tmp_path / "web1")
    assert certificate.read_bytes() == issued.certificate
    assert private.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "web1").stat().st_mode & 0o777 == 0o700
    with pytest.raises(NotWritten, match="create the directory first"):
        issued.write(tmp_path / "not" / "there")


def test_what_stands_in_a_hosts_certificate(made: Authority) -> None:
    issued = made.issue("web1.mesh.example", ADDRESSES, now=NOW_SECONDS)
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["web1.mesh.example"]
    assert names.get_values_for_type(x509.IPAddress) == ADDRESSES
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca) == (True, False)
    purposes = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert purposes == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH, IPSEC_IKE}
    own = made.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    points = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert points.key_identifier == own.digest
    public = certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.curve.name == "secp256r1"


def test_what_stands_in_the_authoritys_own(made: Authority) -> None:
    certificate = made.certificate
    certificate.verify_directly_issued_by(certificate)
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert certificate.not_valid_after_utc.timestamp() == NOW_SECONDS + AUTHORITY_LIFETIME


def test_files_and_their_modes(made: Authority) -> None:
    old = os.umask(0)
    try:
        made.issue("a", ADDRESSES, now=NOW_SECONDS).write(made.directory)
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in made.directory.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "a.pem": 0o644, "a.key": 0o600}
    assert made.directory.stat().st_mode & 0o777 == 0o700


def test_it_is_found_again(made: Authority) -> None:
    again = Authority.load(made.directory)
    assert again.certificate == made.certificate
    serials = {
        x509.load_pem_x509_certificate(one.issue("a", [], now=NOW_SECONDS).certificate).serial_number
        for one in (made, again, again)
    }
    assert len(serials) == 3


def test_an_authority_that_is_there_is_never_replaced(made: Authority) -> None:
    before = contents(made.directory)
    with pytest.raises(NotWritten, match=r"ca\.key: not written: it exists already"):
        Authority.create(made.directory, now=NOW_SECONDS)
    assert contents(made.directory) == before
    (made.directory / "ca.pem").unlink()
    with pytest.raises(NotWritten, match=r"ca\.key: not written: it exists already"):
        Authority.create(made.directory, now=NOW_SECONDS)
    assert contents(made.directory) == {"ca.key": before["ca.key"]}
    put(made.directory / "ca.pem", before["ca.pem"])
    (made.directory / "ca.key").unlink()
    with pytest.raises(NotWritten, match=r"ca\.pem: not written: it exists already"):
        Authority.create(made.directory, now=NOW_SECONDS)
    assert contents(made.directory) == {"ca.pem": before["ca.pem"]}


def test_a_hosts_files_are_replaced_only_when_asked(made: Authority) -> None:
    issued = made.issue("a", [], now=NOW_SECONDS)
    issued.write(made.directory)
    before = contents(made.directory)
    other = made.issue("a", [], now=NOW_SECONDS)
    with pytest.raises(NotWritten, match="it exists already"):
        other.write(made.directory)
    (made.directory / "a.key").unlink()
    with pytest.raises(NotWritten, match="it exists already"):
        other.write(made.directory)
    assert contents(made.directory) == {name: data for name, data in before.items() if name != "a.key"}
    other.write(made.directory, replace=True)
    assert (made.directory / "a.key").read_bytes() == other.private_key
    assert (made.directory / "a.pem").read_bytes() == other.certificate
    assert (made.directory / "a.key").stat().st_mode & 0o777 == 0o600


def test_a_hosts_certificate_ends_with_the_authority(made: Authority) -> None:
    late = NOW_SECONDS + AUTHORITY_LIFETIME - 1000
    issued = x509.load_pem_x509_certificate(made.issue("a", [], now=late).certificate)
    assert issued.not_valid_after_utc == made.certificate.not_valid_after_utc
    with pytest.raises(InvalidInput, match="this authority has expired"):
        made.issue("a", [], now=late + 1000)


@pytest.mark.parametrize("name", ["../../etc/x", "", "a b", "a_b", "203.0.113.1", "a" * 64])
def test_no_certificate_for_what_is_no_name(made: Authority, name: str) -> None:
    with pytest.raises(InvalidInput, match="host's name"):
        made.issue(name, [], now=NOW_SECONDS)


def test_a_long_name_stands_in_the_alternatives_alone(made: Authority, tmp_path: Path) -> None:
    name = ".".join(["a" * 60] * 3)
    issued = made.issue(name, [], now=NOW_SECONDS)
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    assert len(list(certificate.subject)) == 0
    assert certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    files = put(tmp_path / "a.pem", issued.certificate), put(tmp_path / "a.key", issued.private_key)
    load_credentials(*files, [made.directory / "ca.pem"], name=name, now=NOW_SECONDS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(max_size=80))
@example("0" + "\N{GRINNING FACE}" * 16)
def test_an_authority_of_any_name_or_none(tmp_path: Path, name: str) -> None:
    directory = tmp_path / f"pki{time.monotonic_ns()}"
    try:
        made = Authority.create(directory, name, now=NOW_SECONDS)
    except InvalidInput as invalid:
        assert "printable" in str(invalid)
        assert not directory.exists()
        return
    certificate = x509.load_pem_x509_certificate(made.issue("a", [], now=NOW_SECONDS).certificate)
    certificate.verify_directly_issued_by(Authority.load(directory).certificate)


def test_an_authority_that_is_not_whole_is_refused(made: Authority) -> None:
    directory = made.directory
    whole = contents(directory)
    other = authority(private=key("p256", 7))
    rsa = authority(private=key("rsa2048"))
    weak = authority(private=key("rsa1024"))
    for name, data, message in (
        ("ca.pem", b"rubbish", "holds no certificate"),
        ("ca.pem", other.pem, "does not belong to"),
        ("ca.key", b"rubbish", "holds no private key"),
        ("ca.key", other.key_bytes(passphrase=b"secret"), "is encrypted"),
        ("ca.key", rsa.key_bytes(), "does not belong to"),
        ("ca.key", weak.key_bytes(), "which is too weak"),
        ("ca.pem", certify("a").pem, "is no authority's certificate"),
    ):
        for file, content in {**whole, name: data}.items():
            put(directory / file, content)
        with pytest.raises(InvalidInput, match=message):
            Authority.load(directory)
    for file, content in whole.items():
        put(directory / file, content)
    (directory / "ca.key").chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 0600"):
        Authority.load(directory)
    (directory / "ca.key").unlink()
    with pytest.raises(InvalidInput, match="no such file"):
        Authority.load(directory)


def test_no_key_is_ever_shown(made: Authority) -> None:
    assert "private_key" not in repr(made)
    assert "private_key" not in repr(made.issue("a", [], now=NOW_SECONDS))


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotWritten, match="no such file or directory; create the directory first"):
        Authority.create(tmp_path / "no" / "pki", now=NOW_SECONDS)
    with pytest.raises(NotWritten, match="it exists already"):
        Authority.create(tmp_path / "file", now=NOW_SECONDS)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    code = """
        import os, sys
        from pathlib import Path
        from swanmesh.files.write import Change, NotWritten, write_whole
        directory = Path(sys.argv[1])
        write_whole([Change(path=directory / "a.key", content=b"old", mode=0o600)])
        (directory / "filler").write_bytes(bytes(os.statvfs(directory).f_bavail * 4096))
        for name, replace in (("a.key", True), ("b.key", False)):
            try:
                write_whole([Change(path=directory / "x", content=b"", mode=0o600),
                             Change(path=directory / name, content=b"new", mode=0o600, replace=replace)])
            except NotWritten as error:
                print(error)
        print(*sorted(path.name for path in directory.iterdir()), (directory / "a.key").read_bytes())
    """
    output = run_python(code, tmp_path, before=f"mount -t tmpfs -o size=32k tmpfs {tmp_path}").splitlines()
    assert "a.key: not written: no space left on device" in output[0]
    assert "b.key: not written: no space left on device" in output[1]
    assert output[2] == "a.key filler b'old'"


def test_a_traditional_key_file_is_taken_too(made: Authority) -> None:
    key_path = made.directory / "ca.key"
    traditional = made.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    put(key_path, traditional)
    assert Authority.load(made.directory).certificate == made.certificate
