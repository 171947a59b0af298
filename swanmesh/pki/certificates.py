"""This host's credentials: read, checked against each other, and handed on as DER.

What charon or a peer would stumble over later is found here, with the file and what to do. Keys are of the
kinds that charon 5.9.8 with its openssl plugin signs with: RSA, ECDSA on the NIST curves, Ed25519, Ed448.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from swanmesh.core.model import Credentials, InvalidInput, Problem, Validity, shown
from swanmesh.files.read import read_trusted

LIMIT = 1024 * 1024
"""Bytes of a file with keys or certificates."""

PrivateKey: TypeAlias = (
    rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
)

_CERTIFICATE, _KEY, _AUTHORITIES = (
    "credentials.certificate",
    "credentials.private_key",
    "credentials.authorities",
)
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
IPSEC_IKE = ObjectIdentifier("1.3.6.1.5.5.7.3.17")
"""id-kp-ipsecIKE: RFC 4945 §5.1.3.12."""
_IKE_INTERMEDIATE = ObjectIdentifier("1.3.6.1.5.5.8.2.2")
_PURPOSES = {
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    IPSEC_IKE,
    _IKE_INTERMEDIATE,
}
"""charon itself looks at no purpose for IKE; other implementations follow RFC 4945 or want those of TLS."""


def load_credentials(
    certificate: Path, private_key: Path, authorities: Sequence[Path], *, name: str, now: float
) -> Credentials:
    """What the host `name` proves itself with, and whom it believes, at `now` (seconds since the epoch).

    The certificate's file holds the host's certificate first; certificates of intermediate authorities may
    follow and then count as authorities. Raises InvalidInput with every problem found.
    """
    reading = _Reading(datetime.fromtimestamp(now, UTC))
    chain = reading.certificates(certificate, _CERTIFICATE)
    key = reading.private_key(private_key)
    trusted = [
        one
        for index, path in enumerate(authorities)
        for one in reading.certificates(path, f"{_AUTHORITIES}[{index}]")
    ]
    if chain:
        reading.check_host(chain[0], name)
        if key is not None and _public(key.public_key()) != _public(chain[0].certificate.public_key()):
            message = f"does not belong to the certificate {certificate}"
            reading.problem(private_key, _KEY, message, "name the key that the certificate was issued for")
    for authority in (*chain[1:], *trusted):
        reading.check_authority(authority)
    if chain and len(trusted) >= len(authorities):
        reading.check_chain(chain[0], chain[1:], trusted)
    if reading.problems or key is None or not chain:
        raise InvalidInput(*sorted(set(reading.problems)))
    leaf = chain[0].certificate
    unique = dict.fromkeys(_der(one.certificate) for one in (*trusted, *chain[1:]))
    return Credentials(
        certificate=_der(leaf),
        private_key=key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        key_id=key_id(leaf),
        authorities=tuple(unique),
        not_before=leaf.not_valid_before_utc.timestamp(),
        not_after=leaf.not_valid_after_utc.timestamp(),
        validities=tuple(one.validity for one in (*chain, *trusted)),
        since=_changed(certificate),
    )


def _changed(path: Path) -> float:
    """When the file was last written, in seconds since the epoch; 0 if that cannot be told any more."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def key_id(certificate: x509.Certificate) -> str:
    """SHA-1 of the subjectPublicKey bit string in hex: how charon names a private key (KEYID_PUBKEY_SHA1)."""
    return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest.hex()


@dataclass(frozen=True, slots=True)
class _Found:
    """A certificate and where it was found."""

    certificate: x509.Certificate
    path: Path
    key: str

    @property
    def subject(self) -> str:
        return self.certificate.subject.rfc4514_string() or "no subject"

    @property
    def validity(self) -> Validity:
        return Validity(
            file=str(self.path),
            key=self.key,
            subject=shown(self.subject),
            not_before=self.certificate.not_valid_before_utc.timestamp(),
            not_after=self.certificate.not_valid_after_utc.timestamp(),
        )


@dataclass(slots=True)
class _Reading:
    """One reading of the credentials; gathers its problems."""

    now: datetime
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: Path, key: str, message: str, remedy: str, value: str = "") -> None:
        self.problems.append(Problem(str(path), key, shown(value), message, remedy))

    def certificates(self, path: Path, key: str) -> list[_Found]:
        try:
            data = read_trusted(path, LIMIT, key=key)
        except InvalidInput as invalid:
            self.problems.extend(invalid.problems)
            return []
        try:
            # A DER certificate is a SEQUENCE.
            if data[:1] == b"\x30":
                loaded = [x509.load_der_x509_certificate(data)]
            else:
                loaded = x509.load_pem_x509_certificates(data)
            for one in loaded:
                # Parsed only when asked for: ask here, where an error can name the file.
                _ = one.extensions, one.public_key()
        except (ValueError, UnsupportedAlgorithm, x509.UnsupportedGeneralNameType):
            self.problem(path, key, "holds no certificate that can be read", "give one in PEM or DER")
            return []
        return [_Found(one, path, key) for one in loaded]

    def private_key(self, path: Path) -> PrivateKey | None:
        try:
            data = read_trusted(path, LIMIT, key=_KEY, secret=True)
        except InvalidInput as invalid:
            self.problems.extend(invalid.problems)
            return None
        load: Callable[[bytes, None], object] = serialization.load_pem_private_key
        if data[:1] == b"\x30":
            load = serialization.load_der_private_key
        try:
            key = load(data, None)
        except TypeError:
            message = "is encrypted, and the service has nobody to ask for its passphrase"
            self.problem(path, _KEY, message, f"run: openssl pkey -in {path} -out NEW, and name that file")
            return None
        except (ValueError, UnsupportedAlgorithm):
            self.problem(path, _KEY, "holds no private key that can be read", "give one in PEM or DER")
            return None
        weakness = _weakness(key)
        if weakness:
            self.problem(path, _KEY, weakness, "have a P-256 key certified (see `swanmesh ca issue`)")
            return None
        assert isinstance(key, PrivateKey)  # noqa: S101 - what _weakness lets pass
        return key

    def check_host(self, found: _Found, name: str) -> None:
        """What must hold for the certificate that this host proves itself with."""
        certificate, path, key = found.certificate, found.path, found.key
        reissue = "have a new certificate issued (see `swanmesh ca issue`)"
        self._check_life(found, reissue)
        self._check_signature(found)
        basic = _extension(certificate, x509.BasicConstraints)
        if basic is not None and basic.ca:
            self.problem(
                path, key, "is an authority's certificate", "name the host's certificate", found.subject
            )
        usage = _extension(certificate, x509.KeyUsage)
        if usage is not None and not (usage.digital_signature or usage.content_commitment):
            self.problem(path, key, "may not sign (its keyUsage lacks digitalSignature)", reissue)
        purposes = _extension(certificate, x509.ExtendedKeyUsage)
        if purposes is not None and _PURPOSES.isdisjoint(purposes):
            message = "is for another purpose: its extendedKeyUsage lacks serverAuth, clientAuth and ipsecIKE"
            self.problem(path, key, message, reissue)
        names = _extension(certificate, x509.SubjectAlternativeName)
        known = [] if names is None else [dns.lower() for dns in names.get_values_for_type(x509.DNSName)]
        if name and name.lower() not in known:
            message = f"does not hold the host's name {name} as a DNS subjectAltName"
            remedy = "have one issued for that name, or correct host.name"
            self.problem(path, key, message, remedy, ", ".join(known) or "none there")

    def check_authority(self, found: _Found) -> None:
        certificate, path, key = found.certificate, found.path, found.key
        self._check_life(found, "put the authority's current certificate there")
        self._check_signature(found)
        basic = _extension(certificate, x509.BasicConstraints)
        if basic is None or not basic.ca:
            self.problem(path, key, "is no authority's certificate", "name the CA's", found.subject)
            return
        usage = _extension(certificate, x509.KeyUsage)
        if usage is not None and not usage.key_cert_sign:
            message = "may not issue certificates (its keyUsage lacks keyCertSign)"
            self.problem(path, key, message, "name the CA's certificate", found.subject)

    def check_chain(self, leaf: _Found, chain: Sequence[_Found], trusted: Sequence[_Found]) -> None:
        """From the host's certificate to a self-signed one among the authorities: charon takes nothing else
        for an anchor (libstrongswan/credentials/credential_manager.c, verify_trust_chain)."""
        here = leaf
        for _ in range(len(chain) + len(trusted) + 1):
            issuer = next(
                (one for one in (*trusted, *chain) if _issued(here.certificate, one.certificate)), None
            )
            if issuer is None:
                break
            if _issued(issuer.certificate, issuer.certificate) and issuer in trusted:
                return
            here = issuer
        if here is leaf:
            message = f"was issued by none of {_AUTHORITIES}"
            remedy = "name the authority that issued it, or have one issued by an authority named"
        else:
            message = f"leads to {here.subject}, but not to a self-signed certificate in {_AUTHORITIES}"
            remedy = "name the root authority's certificate there too"
        issuer_name = leaf.certificate.issuer.rfc4514_string()
        self.problem(leaf.path, leaf.key, message, remedy, f"issuer {issuer_name}")

    def _check_life(self, found: _Found, remedy: str) -> None:
        start, end = found.certificate.not_valid_before_utc, found.certificate.not_valid_after_utc
        if self.now >= end:
            message = f"expired on {end:%Y-%m-%d %H:%M} UTC"
            self.problem(found.path, found.key, message, remedy, found.subject)
        if self.now < start:
            message = f"is not valid before {start:%Y-%m-%d %H:%M} UTC"
            self.problem(found.path, found.key, message, "set the clock right, or wait", found.subject)

    def _check_signature(self, found: _Found) -> None:
        try:
            algorithm = found.certificate.signature_hash_algorithm
            weak = isinstance(algorithm, hashes.SHA1 | hashes.MD5)
        except UnsupportedAlgorithm:
            weak = True
        # Nobody has to believe a root's signature on itself.
        if weak and not _issued(found.certificate, found.certificate):
            message = "is signed with a digest that no longer proves anything"
            self.problem(found.path, found.key, message, "have it issued anew with SHA-256", found.subject)
        weakness = _weakness(found.certificate.public_key())
        if weakness:
            self.problem(found.path, found.key, weakness, "have one issued for a P-256 key", found.subject)


def _weakness(key: object) -> str:
    """Why a private or public key will not do; empty if it will."""
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return "" if key.key_size >= 2048 else f"has an RSA key of {key.key_size} bits, which is too weak"
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        if key.curve.name in _CURVES:
            return ""
        return f"has a key on the curve {key.curve.name}, which charon does not sign with"
    if isinstance(
        key,
        ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey | ed448.Ed448PrivateKey | ed448.Ed448PublicKey,
    ):
        return ""
    return "has a kind of key that charon does not sign with"


_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _public(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)
