"""Certificates as other authorities make them, right and wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
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
) -> Certified:
    """A certificate for `subject`, self-signed without `issuer`. None for an extension leaves it out."""
    private = key("p256") if private is None else private
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if issuer is None else issuer.certificate.subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
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


def put(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path
