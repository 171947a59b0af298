"""A small authority for a mesh of one's own: P-256 throughout, one self-signed root that issues to hosts.

It keeps its key and certificate in a directory, and nothing else. Certificates of any other authority do
as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swanmesh.core.model import Address, InvalidInput, Problem
from swanmesh.core.peers import check_name
from swanmesh.files.read import read_trusted
from swanmesh.files.trust import Fault, find_fault
from swanmesh.files.write import Change, make_folder, not_written, write_whole
from swanmesh.pki.judging import IPSEC_IKE
from swanmesh.pki.reading import LIMIT

DAY = 86400.0
AUTHORITY_LIFETIME = 3650 * DAY
"""Ten years: replacing a root means touching every host."""
HOST_LIFETIME = 365 * DAY
"""A year: until certificates renew themselves, people do it, and a mesh must not stop within weeks because
nobody did. Reauthentication looks at certificates again, so a host's end is felt within its interval."""

_BACKDATED = timedelta(minutes=5)
"""Hosts whose clocks are a little behind must not refuse a new certificate."""
_COMMON_NAME_LIMIT = 64
"""ub-common-name in RFC 5280, appendix A. It speaks of characters; `cryptography` counts bytes of UTF-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A host's certificate and the key that was made for it, as PEM."""

    name: str
    certificate: bytes
    private_key: bytes = field(repr=False)

    def write(self, directory: Path, *, replace: bool = False) -> tuple[Path, Path]:
        """Write NAME.pem (0644) and NAME.key (0600) and return their paths. The directory is made if only it
        is missing.

        Raises NotWritten, also if one of them exists and `replace` is not set, and InvalidInput where others
        could write; nothing is written then.
        """
        _prepare(directory)
        certificate, key = directory / f"{self.name}.pem", directory / f"{self.name}.key"
        write_whole(
            [
                Change(path=certificate, content=self.certificate, replace=replace),
                Change(path=key, content=self.private_key, mode=0o600, replace=replace),
            ]
        )
        return certificate, key


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A root authority: its certificate and its key."""

    directory: Path
    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(
        cls,
        directory: Path,
        name: str = "swanmesh authority",
        *,
        now: float,
        lifetime: float = AUTHORITY_LIFETIME,
    ) -> Authority:
        """Make an authority in `directory`: ca.pem (0644) and ca.key (0600). The directory is made if only it
        is missing.

        Raises NotWritten if an authority is there already: it is never replaced. Raises InvalidInput where
        others could write, and for a name that no certificate can hold.
        """
        if not name.isprintable() or not 1 <= len(name.encode()) <= _COMMON_NAME_LIMIT:
            message = f"must have 1 to {_COMMON_NAME_LIMIT} bytes of printable text"
            raise InvalidInput(Problem(str(directory), "name", name, message, "choose another name"))
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(subject, subject, key.public_key(), now, lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        _prepare(directory)
        # The key first: a certificate is never there without it.
        write_whole(
            [
                Change(path=directory / "ca.key", content=_key_pem(key), mode=0o600, replace=False),
                Change(path=directory / "ca.pem", content=_pem(certificate), replace=False),
            ]
        )
        return cls(directory=directory, certificate=certificate, private_key=key)

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """The authority in `directory`. Raises InvalidInput if there is none, or it is not whole."""
        certificate_path, key_path = directory / "ca.pem", directory / "ca.key"
        data = read_trusted(certificate_path, LIMIT)
        secret = read_trusted(key_path, LIMIT, secret=True)
        try:
            certificate = x509.load_pem_x509_certificate(data)
        except ValueError:
            raise _broken(certificate_path, "holds no certificate that can be read") from None
        try:
            key = serialization.load_pem_private_key(secret, None)
        except (ValueError, TypeError):
            raise _broken(key_path, "holds no private key that can be read") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise _broken(key_path, "holds no ECDSA key")
        if certificate.public_key() != key.public_key():
            raise _broken(key_path, f"does not belong to {certificate_path}")
        return cls(directory=directory, certificate=certificate, private_key=key)

    def issue(
        self,
        name: str,
        addresses: Sequence[Address],
        *,
        now: float,
        lifetime: float = HOST_LIFETIME,
    ) -> Issued:
        """A new key, and a certificate for it with the name and the addresses as subjectAltNames.

        It ends no later than the authority does. Raises InvalidInput for a bad name and for an authority that
        has expired.
        """
        try:
            name = check_name(name)
        except ValueError as error:
            raise InvalidInput(Problem("", "name", name, str(error), "give the host's name")) from None
        left = self.certificate.not_valid_after_utc.timestamp() - now
        if left <= 0:
            remedy = "make a new authority (`swanmesh ca init` in another directory)"
            raise InvalidInput(
                Problem(str(self.directory / "ca.pem"), "", "", "this authority has expired", remedy)
            )
        key = ec.generate_private_key(ec.SECP256R1())
        # A name too long for the subject stands among the subjectAltNames alone, which then are critical
        # (RFC 5280 §4.1.2.6).
        short = len(name) <= _COMMON_NAME_LIMIT
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if short else [])
        alternatives = [x509.DNSName(name), *(x509.IPAddress(address) for address in addresses)]
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH, IPSEC_IKE]
        certificate = (
            _builder(subject, self.certificate.subject, key.public_key(), now, min(lifetime, left))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=not short)
            .add_extension(self._key_identifier(), critical=False)
            .sign(self.private_key, hashes.SHA256())
        )
        return Issued(name=name, certificate=_pem(certificate), private_key=_key_pem(key))

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private_key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: float, lifetime: float
) -> x509.CertificateBuilder:
    start = datetime.fromtimestamp(now, UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _BACKDATED)
        .not_valid_after(start + timedelta(seconds=lifetime))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    # cRLSign: without it charon refuses the authority's CRLs from 5.9.11 on.
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _prepare(directory: Path) -> None:
    """Make the directory if only it is missing. Raises NotWritten, and InvalidInput where others could take
    the key or put another in its place."""
    make_folder(directory, 0o700)
    try:
        fault = find_fault(directory)
    except OSError as error:
        raise not_written(directory, error) from None
    if directory.is_symlink():
        fault = Fault(directory, "is a symbolic link", "name the folder itself")
    if fault is not None:
        raise InvalidInput(fault.problem(directory))


def _broken(path: Path, message: str) -> InvalidInput:
    return InvalidInput(Problem(str(path), "", "", message, "put the authority's file there, from a backup"))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
