"""Certificates and requests as nobody should make them: each is refused or taken, by a written rule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from swanmesh.core.model import InvalidInput
from swanmesh.pki.certificates import load_credentials
from swanmesh.pki.reading import issued, read_certificates
from swanmesh.pki.request import read_request
from tests.unit.pki.certify import HOST, NOW, Certified, altered, authority, certify, der, key, put
from tests.unit.pki.witness import openssl_takes

ROOT = authority()
MIDDLE = authority("middle", ROOT, private=key("p256", 2))
LOW = authority("low", MIDDLE, private=key("p256", 3))
NARROW = authority(private=key("p256", 4), path_length=0)
BELOW_NARROW = authority("middle", NARROW, private=key("p256", 2))
PLAIN = certify("a", ROOT)
SERIAL = certify("a", ROOT, serial=0x55AA55AA55AA55AA)
NESTED = bytes(0)
for _ in range(2000):
    NESTED = der(0x30, NESTED)
FAR = certify("a", ROOT, end=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
NEVER_BEGUN = certify("a", ROOT, end=NOW + timedelta(hours=7))


def judge(
    folder: Path, data: bytes, private: bytes | None = None, roots: Sequence[Certified] = (ROOT,)
) -> str:
    """What is wrong with a host's file of certificates; empty if it is taken."""
    files = (
        put(folder / "host.pem", data, 0o644),
        put(folder / "host.key", PLAIN.key_bytes() if private is None else private),
        [put(folder / f"ca{number}.pem", one.pem, 0o644) for number, one in enumerate(roots)],
    )
    try:
        load_credentials(*files, name=HOST, now=NOW.timestamp())
    except InvalidInput as invalid:
        return str(invalid)
    return ""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (NESTED, "holds no certificate that can be read"),
        (der(0x30, der(0x30, bytes(900_000))), "holds no certificate that can be read"),
        (PLAIN.pem + bytes(1024 * 1024), "is larger than 1 MiB"),
        (
            altered(certify("abcd", ROOT), ROOT, b"\x0c\x04abcd", b"\x03\x04\x00bcd").pem,
            "holds no certificate that can be read",
        ),
        (
            PLAIN.der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05"),
            "holds no certificate that can be read",
        ),
        (PLAIN.der[:-1], "holds no certificate that can be read"),
        (PLAIN.der + b"\0", "holds no certificate that can be read"),
        (PLAIN.pem[:200] + PLAIN.pem[210:], "holds no certificate that can be read"),
        (certify("a", ROOT, names=["*.mesh.example"]).pem, "does not hold the host's name"),
        (certify("a", ROOT, names=[f"{HOST}\0.evil.example"]).pem, "does not hold the host's name"),
        (certify("a", ROOT, names=["xn--web1-loa.mesh.example"]).pem, "does not hold the host's name"),
        (
            altered(certify("a", ROOT, names=["wXb1.mesh.example"]), ROOT, b"wXb1.mesh", b"w\xe9b1.mesh").pem,
            "holds no certificate that can be read",
        ),
        (certify("a", ROOT, strange=True).pem, "critical extension that nobody here understands"),
        (
            altered(
                SERIAL, ROOT, b"\x55\xaa\x55\xaa\x55\xaa\x55\xaa", b"\xd5\xaa\x55\xaa\x55\xaa\x55\xaa"
            ).pem,
            "serial number that is not positive",
        ),
        (
            altered(NEVER_BEGUN, ROOT, b"260601070000Z", b"600101000000Z").pem,
            "expired on 1960-01-01 00:00 UTC",
        ),
        (certify("a", ROOT, private=key("p256", 8)).pem, "does not belong to the certificate"),
        (ROOT.pem + PLAIN.pem, "is an authority's certificate"),
        (b"text and no certificate", "holds no certificate that can be read"),
    ],
)
def test_what_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    assert message in judge(tmp_path, data)


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.der,
        b"Subject: a\n" + PLAIN.pem + b"\nIssuer: \xff\xfe\0 anything\n" + MIDDLE.pem + b"the end",
        PLAIN.key_bytes() + PLAIN.pem,
        PLAIN.pem.replace(b"\n", b"\r\n"),
        certify("a", ROOT, names=[HOST, "*.mesh.example", "web9.mesh.example\0"]).pem,
        certify("a", ROOT, strange=False).pem,
        certify("\N{SNOWMAN}", ROOT).pem,
        FAR.pem,
        certify("a", ROOT, start=datetime(1955, 1, 1, tzinfo=UTC)).pem,
    ],
)
def test_what_is_taken(tmp_path: Path, data: bytes) -> None:
    assert judge(tmp_path, data) == ""


@pytest.mark.parametrize(
    ("leaf", "roots", "chain", "good"),
    [
        (PLAIN, [ROOT], [], True),
        (certify("a", MIDDLE), [ROOT], [MIDDLE], True),
        (certify("a", LOW), [ROOT], [MIDDLE, LOW], True),
        (certify("a", LOW), [ROOT], [LOW, MIDDLE], True),
        (certify("a", LOW), [ROOT], [LOW], False),
        (certify("a", NARROW), [NARROW], [], True),
        (certify("a", BELOW_NARROW), [NARROW], [BELOW_NARROW], False),
        (certify("a", PLAIN), [ROOT], [PLAIN], False),
        (certify("a", ROOT, strange=True), [ROOT], [], False),
        (certify("a", ROOT, strange=False), [ROOT], [], True),
        (certify("a", ROOT, end=NOW - timedelta(seconds=1)), [ROOT], [], False),
        (certify("a", ROOT, start=NOW + timedelta(seconds=1)), [ROOT], [], False),
        (FAR, [ROOT], [], True),
        (PLAIN, [authority(private=key("p256", 7))], [], False),
    ],
)
def test_openssl_agrees(
    tmp_path: Path, leaf: Certified, roots: list[Certified], chain: list[Certified], good: bool
) -> None:
    assert (judge(tmp_path, b"".join(one.pem for one in (leaf, *chain)), roots=roots) == "") is good
    host, anchors, between = (
        put(tmp_path / f"{name}.pem", b"".join(one.pem for one in several))
        for name, several in (("leaf", [leaf]), ("roots", roots), ("chain", chain))
    )
    assert openssl_takes(host, anchors, chain=between if chain else None, at=NOW.timestamp()) is good


ADDRESS = x509.IPAddress(ip_address("203.0.113.1"))
STRANGE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.1"), b"\x05\x00")


def ask(
    *names: x509.GeneralName | str,
    private: Any = None,
    subject: str = "",
    more: x509.ExtensionType | None = None,
    critical: bool = True,
) -> bytes:
    """A request in DER; text among the names is a DNS name, and an address goes with it."""
    private = private or key("p256")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    if names:
        sans = [x509.DNSName(one) if isinstance(one, str) else one for one in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    if more is not None:
        builder = builder.add_extension(more, critical=critical)
    edwards = isinstance(private, ed25519.Ed25519PrivateKey)
    return builder.sign(private, None if edwards else hashes.SHA256()).public_bytes(
        serialization.Encoding.DER
    )


GOOD = ask(HOST, ADDRESS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds no request that can be read"),
        (NESTED, "holds no request that can be read"),
        (GOOD + b"\0", "holds no request that can be read"),
        (PLAIN.pem, "holds no request that can be read"),
        (PLAIN.der, "holds no request that can be read"),
        (bytes(2 * 1024 * 1024), "holds no request that can be read"),
        # Whatever is changed in it, its key has not signed that.
        (GOOD.replace(b"web1", b"web2"), "is not signed by the key that it is for"),
        (ask(ADDRESS), "must ask for one DNS subjectAltName"),
        (ask(HOST, "web2.mesh.example", ADDRESS), "must ask for one DNS subjectAltName"),
        (ask(), "must ask for one DNS subjectAltName"),
        (ask(HOST), "must ask for 1 to 64 addresses"),
        (ask("*.mesh.example", ADDRESS), "is no host name"),
        (ask("*", ADDRESS), "is no host name"),
        (ask(f"{HOST}\0.evil.example", ADDRESS), "is no host name"),
        (ask(f"{HOST}.", ADDRESS), "is no host name"),
        (ask("203.0.113.9", ADDRESS), "must not end in a number"),
        (ask("a" * 64, ADDRESS), "is no host name"),
        (ask("../../etc/passwd", ADDRESS), "is no host name"),
        (ask(HOST, ADDRESS, subject="web2.mesh.example"), "names another host in its subject"),
        (ask(HOST, ADDRESS, subject="\u0435web1"), "names another host in its subject"),
        (ask(HOST, ADDRESS, x509.RFC822Name("a@mesh.example")), "a kind of name that no host has"),
        (ask(HOST, x509.UniformResourceIdentifier("https://a")), "a kind of name that no host has"),
        (ask(HOST, ADDRESS, x509.IPAddress(ip_network("203.0.113.0/24"))), "a kind of name that no host has"),
        (ask(HOST, x509.IPAddress(ip_address("127.0.0.1"))), "is a loopback address"),
        (ask(HOST, ADDRESS, ADDRESS), "stands twice"),
        (
            ask(HOST, *(x509.IPAddress(ip_address(f"2001:db8::{number}")) for number in range(1, 66))),
            "must ask for 1 to 64 addresses",
        ),
        (ask(HOST, ADDRESS, private=key("rsa1024")), "which is too weak"),
        (ask(HOST, ADDRESS, private=key("k256")), "which charon does not sign with"),
        (ask(HOST, ADDRESS, more=x509.BasicConstraints(True, None)), "asks for the rights of an authority"),
        (ask(HOST, ADDRESS, more=STRANGE), "critical extension that nobody here understands"),
    ],
)
def test_requests_that_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_request(data, "new.csr")
    assert message in str(caught.value)
    assert all(problem.file == "new.csr" and problem.remedy for problem in caught.value.problems)
    assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "data",
    [
        GOOD,
        b"text before\n"
        + x509.load_der_x509_csr(GOOD).public_bytes(serialization.Encoding.PEM)
        + b"and after",
        ask(HOST.upper(), ADDRESS, subject=HOST),
        ask(HOST, ADDRESS, private=key("ed25519")),
        ask(HOST, ADDRESS, private=key("rsa2048")),
        ask(HOST, ADDRESS, more=x509.BasicConstraints(False, None)),
        ask(HOST, ADDRESS, more=STRANGE, critical=False),
    ],
)
def test_requests_that_are_taken(data: bytes) -> None:
    asked = read_request(data, "new.csr")
    assert (asked.name, asked.addresses) == (HOST, (ip_address("203.0.113.1"),))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=8))
def test_no_change_to_a_request_goes_unnoticed(place: int, octets: bytes) -> None:
    changed = GOOD[:place] + octets + GOOD[place + len(octets) :]
    try:
        asked = read_request(changed, "new.csr")
    except InvalidInput:
        return
    # The signature may be written in more than one way; what is signed may not.
    assert asked == read_request(GOOD, "new.csr")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(PLAIN.der) - 1), st.binary(min_size=1, max_size=8))
def test_a_changed_certificate_is_read_or_refused_in_words(place: int, octets: bytes) -> None:
    changed = PLAIN.der[:place] + octets + PLAIN.der[place + len(octets) :]
    try:
        (read,) = read_certificates(changed)
    except ValueError as error:
        assert str(error).startswith("holds ")
    else:
        # The signature may be written in more than one way; what is signed may not.
        signed = PLAIN.certificate.tbs_certificate_bytes
        assert read.tbs_certificate_bytes == signed or not issued(read, ROOT.certificate)
