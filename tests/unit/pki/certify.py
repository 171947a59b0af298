"""Certificates as other authorities make them, right and wrong."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOST = "web1.mesh.example"


@cache
def key(kind: str, number: int = 0) -> Any:
    """A key of this kind; the same for the same number."""
    match kind:
        case "rsa1024":
            return rsa.generate_private_key(65537, 1024)  # noqa: S505 - what is to be refused
        case "rsa2048":
            return rsa.generate_private_key(65537, 2048)
        case "dsa":
            return dsa.generate_private_key(2048)
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "ed448":
            return ed448.Ed448PrivateKey.generate()
    curves = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1(), "k256": ec.SECP256K1()}
    return ec.generate_private_key(curves[kind])


@dataclass(frozen=True)
class Certified:
    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def key_bytes(
        self, form: str = "PKCS8", *, encoding: str = "PEM", passphrase: bytes | None = None
    ) -> bytes:
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            encryption = serialization.BestAvailableEncryption(passphrase)
        private_format = getattr(serialization.PrivateFormat, form)
        data: bytes = self.key.private_bytes(
            getattr(serialization.Encoding, encoding), private_format, encryption
        )
        return data


def certify(
    subject: str,
    issuer: Certified | None = None,
    *,
    ca: bool | None = False,
    names: Sequence[str] | None = (HOST,),
    private: Any = None,
    start: datetime = NOW - timedelta(days=1),
    end: datetime = NOW + timedelta(days=30),
    purposes: Sequence[x509.ObjectIdentifier] | None = None,
    usage: Sequence[str] | None = None,
    path_length: int | None = None,
    serial: int | None = None,
    others: Sequence[x509.GeneralName] = (),
    strange: bool | None = None,
) -> Certified:
    """A certificate for `subject`, self-signed without `issuer`. None for an extension leaves it out.

    `others` are more subjectAltNames; `strange` adds an extension that nobody knows, critical or not.
    """
    private = key("p256") if private is None else private
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if issuer is None else issuer.certificate.subject)
        .public_key(private.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    if strange is not None:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.1"), b"\x05\x00")
        builder = builder.add_extension(unknown, critical=strange)
    if names or others:
        alternatives = x509.SubjectAlternativeName([*map(x509.DNSName, names or ()), *others])
        builder = builder.add_extension(alternatives, critical=False)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if usage is not None:
        bits = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "key_cert_sign",
                "crl_sign",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        builder = builder.add_extension(x509.KeyUsage(**bits | dict.fromkeys(usage, True)), critical=True)
    signer = private if issuer is None else issuer.key
    edwards = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    certificate = builder.sign(signer, None if edwards else hashes.SHA256())
    return Certified(certificate, private)


def authority(subject: str = "root", issuer: Certified | None = None, **options: Any) -> Certified:
    return certify(subject, issuer, **{"ca": True, "names": None, "private": key("p256", 1), **options})


def altered(certified: Certified, issuer: Certified, old: bytes, new: bytes) -> Certified:
    """The same with other bytes of the same length in it, signed by the issuer's P-256 key: what no library
    would issue."""
    assert len(old) == len(new)
    assert certified.certificate.tbs_certificate_bytes.count(old) == 1
    tbs = certified.certificate.tbs_certificate_bytes.replace(old, new)
    signature = issuer.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256, RFC 5758 §3.2
    data = der(0x30, tbs + algorithm + der(0x03, b"\0" + signature))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return Certified(x509.load_der_x509_certificate(data), certified.key)


def der(tag: int, content: bytes) -> bytes:
    """One DER value."""
    size = len(content)
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    head = bytes([size]) if size < 128 else bytes([0x80 | len(octets)]) + octets
    return bytes([tag]) + head + content


def put(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path
