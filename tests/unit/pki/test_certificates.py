"""Credentials that will do, and every mistake that is found before charon meets it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from swanmesh.core.model import Credentials, InvalidInput
from swanmesh.pki.certificates import load_credentials
from swanmesh.pki.judging import IPSEC_IKE
from tests.unit.pki.certify import HOST, NOW, Certified, authority, certify, key, put

ROOT = authority()


def load(
    folder: Path,
    host: Certified,
    authorities: Sequence[Certified] = (ROOT,),
    *,
    name: str = HOST,
    chain: Sequence[Certified] = (),
    private: bytes | None = None,
) -> Credentials:
    certificate = put(folder / "host.pem", b"".join(one.pem for one in (host, *chain)), 0o644)
    private_key = put(folder / "host.key", host.key_bytes() if private is None else private)
    paths = [put(folder / f"ca{number}.pem", one.pem, 0o644) for number, one in enumerate(authorities)]
    return load_credentials(certificate, private_key, paths, name=name, now=NOW.timestamp())


def problems(
    folder: Path, host: Certified, authorities: Sequence[Certified] = (ROOT,), **options: object
) -> str:
    with pytest.raises(InvalidInput) as caught:
        load(folder, host, authorities, **options)  # type: ignore[arg-type]
    for problem in caught.value.problems:
        assert problem.file.startswith(str(folder))
        assert problem.key.startswith("credentials.")
        assert problem.remedy
    return str(caught.value)


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "rsa2048", "ed25519", "ed448"])
def test_credentials_of_each_kind_of_key(tmp_path: Path, kind: str) -> None:
    root = authority(private=key(kind, 1))
    host = certify("anything", root, private=key(kind))
    credentials = load(tmp_path, host, [root])
    assert credentials.certificate == host.der
    assert credentials.authorities == (root.der,)
    assert credentials.not_after == (NOW + timedelta(days=30)).timestamp()
    assert credentials.not_after - credentials.not_before == 31 * 86400
    again = serialization.load_der_private_key(credentials.private_key, None)
    assert again.public_key() == host.key.public_key()


def test_the_key_id_is_the_digest_of_the_bit_string_alone(tmp_path: Path) -> None:
    # For an elliptic curve the bit string is the point (RFC 5480 §2.2).
    point = (
        key("p256")
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    )
    digest = hashlib.sha1(point, usedforsecurity=False).hexdigest()
    assert load(tmp_path, certify("a", ROOT)).key_id == digest


@pytest.mark.parametrize(
    ("form", "encoding"),
    [("PKCS8", "PEM"), ("PKCS8", "DER"), ("TraditionalOpenSSL", "PEM"), ("TraditionalOpenSSL", "DER")],
)
def test_a_key_may_have_any_of_the_usual_forms(tmp_path: Path, form: str, encoding: str) -> None:
    host = certify("a", ROOT)
    credentials = load(tmp_path, host, private=host.key_bytes(form, encoding=encoding))
    assert credentials.private_key == host.key_bytes(encoding="DER")


def test_certificates_may_be_der(tmp_path: Path) -> None:
    host = certify("a", ROOT)
    load_credentials(
        put(tmp_path / "a.crt", host.der),
        put(tmp_path / "a.key", host.key_bytes()),
        [put(tmp_path / "ca.crt", ROOT.der)],
        name=HOST,
        now=NOW.timestamp(),
    )


def test_a_name_is_compared_without_case_among_several(tmp_path: Path) -> None:
    load(tmp_path, certify("a", ROOT, names=["x.example", "WEB1.mesh.example"]))


def test_an_authoritys_file_may_hold_several(tmp_path: Path) -> None:
    other = authority("other", private=key("p384"))
    bundle = put(tmp_path / "bundle.pem", other.pem + ROOT.pem)
    host = certify("a", ROOT)
    files = put(tmp_path / "a.pem", host.pem), put(tmp_path / "a.key", host.key_bytes())
    credentials = load_credentials(*files, [bundle], name=HOST, now=NOW.timestamp())
    assert credentials.authorities == (other.der, ROOT.der)


def test_to_rename_who_stands_between_takes_nobodys_authority_away(tmp_path: Path) -> None:
    middle, other = (authority(name, ROOT, private=key("p256", n)) for name, n in (("m", 2), ("o", 3)))
    before = load(tmp_path, certify("a", middle), [ROOT, middle])
    after = load(tmp_path, certify("a", other), [ROOT], chain=[other])
    assert before.issuers == after.issuers and len(after.issuers) == 1


def test_intermediate_authorities_after_the_certificate_count(tmp_path: Path) -> None:
    middle = authority("middle", ROOT, private=key("p256", 2))
    host = certify("a", middle)
    assert load(tmp_path, host, chain=[middle]).authorities == (ROOT.der, middle.der)
    assert load(tmp_path, host, [middle, ROOT]).authorities == (middle.der, ROOT.der)
    assert load(tmp_path, host, chain=[middle, ROOT]).authorities == (ROOT.der, middle.der)


def test_a_chain_must_end_in_a_root_that_is_named(tmp_path: Path) -> None:
    middle = authority("middle", ROOT, private=key("p256", 2))
    host = certify("a", middle)
    assert "was issued by none of credentials.authorities" in problems(tmp_path, host)
    assert "leads to CN=middle, but not to a self-signed" in problems(tmp_path, host, [middle])
    other = authority("other", private=key("p384"))
    # A root that only the host's own file brings is nobody's choice.
    assert "not to a self-signed" in problems(tmp_path, host, [other], chain=[middle, ROOT])


def test_two_authorities_that_issued_each_other_lead_nowhere(tmp_path: Path) -> None:
    one = authority("one", private=key("p256", 3))
    two = authority("two", one, private=key("p256", 4))
    crossed = authority("one", two, private=key("p256", 3))
    assert "not to a self-signed" in problems(tmp_path, certify("a", two), [two, crossed])


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (
            certify("a", ROOT, start=NOW - timedelta(9), end=NOW - timedelta(1)),
            "expired on 2026-05-31 00:00 UTC",
        ),
        (certify("a", ROOT, start=NOW + timedelta(1)), "is not valid before 2026-06-02 00:00 UTC"),
        (certify("a", ROOT, ca=True), "is an authority's certificate"),
        (
            certify("a", ROOT, names=["web2.mesh.example"]),
            "(web2.mesh.example): does not hold the host's name",
        ),
        (certify(HOST, ROOT, names=None), "(none there): does not hold the host's name"),
        (certify("a", ROOT, names=["*.mesh.example"]), "does not hold the host's name"),
        (certify("a", ROOT, purposes=[ExtendedKeyUsageOID.CODE_SIGNING]), "is for another purpose"),
        (certify("a", ROOT, usage=["key_encipherment"]), "its keyUsage lacks digitalSignature"),
        (certify("a", authority("root", private=key("p384"))), "was issued by none of"),
        (certify("a"), "was issued by none of"),
        (certify("a", ROOT, private=key("rsa1024")), "RSA key of 1024 bits, which is too weak"),
        (certify("a", ROOT, private=key("k256")), "on the curve secp256k1"),
        (certify("a", ROOT, private=key("dsa")), "a kind of key that charon does not sign with"),
    ],
)
def test_a_certificate_that_will_not_do(tmp_path: Path, host: Certified, message: str) -> None:
    assert "host.pem: credentials.certificate" in (text := problems(tmp_path, host))
    assert message in text


@pytest.mark.parametrize(
    "purposes",
    [
        None,
        [ExtendedKeyUsageOID.SERVER_AUTH],
        [ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.CLIENT_AUTH],
        [IPSEC_IKE],
        [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
    ],
)
def test_purposes_that_will_do(tmp_path: Path, purposes: list[x509.ObjectIdentifier] | None) -> None:
    load(tmp_path, certify("a", ROOT, purposes=purposes, usage=["digital_signature"]))


SIGNED_WITH_SHA1 = b"""\
-----BEGIN CERTIFICATE-----
MIIBfDCCASSgAwIBAgIUTOwh8jmoNJkFLAIM38Ny28B8kWwwCQYHKoZIzj0EATAP
MQ0wCwYDVQQDDARyb290MCAXDTI2MTEyMzAzMzM0M1oYDzIxMjYxMDMwMDMzMzQz
WjAMMQowCAYDVQQDDAFhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhKTJdsFd
sADk1XFj7A6mOLWg9jaivbgd+zsn+lWMbGDcquxTTNlhDOJCA6cQK6QKLwa79cY9
7UQVDBz1EgZvQ6NgMF4wHAYDVR0RBBUwE4IRd2ViMS5tZXNoLmV4YW1wbGUwHQYD
VR0OBBYEFG88VjNmlUslD5VoDxJViCZP8+KvMB8GA1UdIwQYMBaAFAmJPusAjfQ9
t6ZqZvVizkKHxcYmMAkGByqGSM49BAEDRwAwRAIgczZd0DY3lXr/N5ow81T1YgUu
9i5q6DuEO2QlWecm6GYCIHH4hV7i5pp0mymw4fJSSMwEpZapWaesHNCQWkwXxeuW
-----END CERTIFICATE-----
"""
"""For HOST, until 2126, made with `openssl x509 -req -sha1`: the library no longer signs so."""


def test_a_weak_digest_is_refused(tmp_path: Path) -> None:
    weak = Certified(x509.load_pem_x509_certificate(SIGNED_WITH_SHA1), key("p256"))
    text = problems(tmp_path, weak)
    assert "is signed with a digest that no longer proves anything" in text


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (authority(ca=False), "is no authority's certificate"),
        (authority(ca=None), "is no authority's certificate"),
        (authority(usage=["digital_signature"]), "its keyUsage lacks keyCertSign"),
        (authority(start=NOW - timedelta(9), end=NOW - timedelta(1)), "expired on 2026-05-31"),
        (authority(private=key("rsa1024")), "RSA key of 1024 bits"),
    ],
)
def test_an_authority_that_will_not_do(tmp_path: Path, root: Certified, message: str) -> None:
    text = problems(tmp_path, certify("a", root), [root])
    assert "ca0.pem: credentials.authorities[0]" in text
    assert message in text


def test_a_key_that_belongs_to_another_certificate(tmp_path: Path) -> None:
    other = certify("b", ROOT, private=key("p256", 9))
    text = problems(tmp_path, certify("a", ROOT), private=other.key_bytes())
    assert (
        f"host.key: credentials.private_key: does not belong to the certificate {tmp_path}/host.pem" in text
    )


def test_an_encrypted_key_is_told_apart_from_a_broken_one(tmp_path: Path) -> None:
    host = certify("a", ROOT)
    assert "is encrypted" in problems(tmp_path, host, private=host.key_bytes(passphrase=b"secret"))
    der = host.key_bytes(encoding="DER", passphrase=b"secret")
    assert "is encrypted" in problems(tmp_path, host, private=der)
    for broken in (b"", b"rubbish", b"\x30\x03abc", host.key_bytes()[:100], host.pem):
        assert "holds no private key that can be read" in problems(tmp_path, host, private=broken)


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o602, 0o666])
def test_a_key_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    host = certify("a", ROOT)
    load(tmp_path, host)
    (tmp_path / "host.key").chmod(mode)
    with pytest.raises(InvalidInput, match=f"has mode 0{mode:o}.*run: chmod 0600"):
        load_credentials(
            tmp_path / "host.pem",
            tmp_path / "host.key",
            [tmp_path / "ca0.pem"],
            name=HOST,
            now=NOW.timestamp(),
        )


def test_a_key_that_a_group_may_read_will_do(tmp_path: Path) -> None:
    host = certify("a", ROOT)
    load(tmp_path, host)
    (tmp_path / "host.key").chmod(0o640)
    paths = tmp_path / "host.pem", tmp_path / "host.key", [tmp_path / "ca0.pem"]
    assert load_credentials(*paths, name=HOST, now=NOW.timestamp()).certificate == host.der


def test_everything_missing_is_told_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pem")
    large = tmp_path / "large.pem"
    large.touch()
    os.truncate(large, 10 * 1024**3)
    with pytest.raises(InvalidInput) as caught:
        load_credentials(
            tmp_path / "a.pem",
            tmp_path / "a.key",
            [tmp_path / "ca.pem", tmp_path / "pipe.pem", large, put(tmp_path / "text.pem", b"text")],
            name=HOST,
            now=NOW.timestamp(),
        )
    told = {problem.key: problem.message for problem in caught.value.problems}
    assert told == {
        "credentials.certificate": "cannot be read: no such file or directory",
        "credentials.private_key": "cannot be read: no such file or directory",
        "credentials.authorities[0]": "cannot be read: no such file or directory",
        "credentials.authorities[1]": "is not a regular file",
        "credentials.authorities[2]": "is larger than 1 MiB",
        "credentials.authorities[3]": "holds no certificate that can be read",
    }


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    host = certify("a", ROOT, names=None, end=NOW - timedelta(hours=1))
    text = problems(tmp_path, host, [authority(ca=False)], private=b"rubbish")
    for message in ("expired", "does not hold", "no authority's", "no private key"):
        assert message in text


def test_no_key_is_ever_shown(tmp_path: Path) -> None:
    host = certify("a", ROOT)
    credentials = load(tmp_path, host)
    assert "private_key" not in repr(credentials)
    swapped = problems(tmp_path, host, private=host.pem)
    body = host.key_bytes().decode().splitlines()[1][:20]
    put(tmp_path / "host.pem", host.key_bytes())
    with pytest.raises(InvalidInput) as caught:
        paths = tmp_path / "host.pem", tmp_path / "host.key", [tmp_path / "ca0.pem"]
        load_credentials(*paths, name=HOST, now=NOW.timestamp())
    assert body not in str(caught.value) + swapped


def test_between_the_two_steps_of_an_installation_the_pair_is_whole(tmp_path: Path) -> None:
    """The new certificate stands, its key still waits; the key of before is there, or none is."""
    old, new = certify("a", ROOT, private=key("p256", 5)), certify("a", ROOT, private=key("p256", 6))
    load(tmp_path, old)
    waiting = put(tmp_path / "host.key.pending", new.key_bytes())
    assert load(tmp_path, old).certificate == old.der
    credentials = load(tmp_path, new, private=old.key_bytes())
    assert credentials.private_key == new.key_bytes(encoding="DER")
    (tmp_path / "host.key").unlink()
    now = NOW.timestamp()
    files = tmp_path / "host.pem", tmp_path / "host.key", [tmp_path / "ca0.pem"]
    assert load_credentials(*files, name=HOST, now=now).private_key == new.key_bytes(encoding="DER")
    waiting.chmod(0o644)
    with pytest.raises(InvalidInput, match=r"host\.key: credentials\.private_key: cannot be read"):
        load_credentials(*files, name=HOST, now=now)
