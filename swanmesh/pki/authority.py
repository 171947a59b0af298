"""An authority of one's own: a self-signed root that issues to hosts, and signs what they ask for.

Its key and certificate stand in a directory, or the key elsewhere. What it issued is kept by `record`.
Certificates of any other authority do as well.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes as PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swanmesh.core.model import Address, InvalidInput, Network, Problem, shown
from swanmesh.core.peers.description import check_name
from swanmesh.files.read import read_trusted
from swanmesh.files.trust import Fault, find_fault
from swanmesh.files.write import Change, make_folder, not_written, write_whole
from swanmesh.pki.judging import IPSEC_IKE, belongs
from swanmesh.pki.keys import KINDS, Encrypted, PrivateKey, digest_for, key_pem, read_key, weakness
from swanmesh.pki.reading import (
    COMMON_NAME_LIMIT,
    LIMIT,
    extension,
    is_authority,
    not_allowed,
    pem,
    read_certificates,
)

DAY = 86400.0
AUTHORITY_LIFETIME = 3650 * DAY
"""Ten years: replacing a root means touching every host."""
HOST_LIFETIME = 90 * DAY
"""How long a stolen key is good for at most, where nobody revokes it. Reauthentication looks at certificates
again, so a host's end is felt within its interval."""
_SPREAD = 0.1
"""The share of a host's lifetime that chance takes, so that a mesh issued together does not end together."""

_BACKDATED = timedelta(minutes=5)
"""Hosts whose clocks are a little behind must not refuse a new certificate."""


def spread(lifetime: float) -> float:
    """Up to a tenth less than this lifetime, by chance."""
    return lifetime * (1 - _SPREAD * secrets.randbelow(10_000) / 10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A host's certificate and the key that was made for it, as PEM."""

    name: str
    certificate: bytes
    private_key: bytes = field(repr=False)

    def write(
        self, directory: Path, *, replace: bool = False, first: Sequence[Change] = ()
    ) -> tuple[Path, Path]:
        """Write NAME.pem (0644) and NAME.key (0600) and return their paths. The directory is made if only it
        is missing. `first` is written before, and together with them.

        Raises NotWritten, also if one of them exists and `replace` is not set, and InvalidInput where others
        could write; nothing is written then.
        """
        prepare(directory)
        certificate, key = directory / f"{self.name}.pem", directory / f"{self.name}.key"
        write_whole(
            [
                *first,
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
    private_key: PrivateKey = field(repr=False)

    @classmethod
    def create(
        cls,
        directory: Path,
        name: str = "swanmesh authority",
        *,
        now: float,
        lifetime: float = AUTHORITY_LIFETIME,
        kind: str = "p256",
        path_length: int = 0,
        permitted: Sequence[str | Network] = (),
        key_path: Path | None = None,
        passphrase: bytes | None = None,
    ) -> Authority:
        """Make an authority in `directory`: ca.pem (0644), and ca.key (0600) there or at `key_path`,
        encrypted if there is a passphrase. The directory is made if only it is missing. `permitted`: domains
        and networks; if there are any, it may certify nothing else of that kind.

        Raises NotWritten if an authority is there already: it is never replaced. Raises InvalidInput where
        others could write, and for a name that no certificate can hold.
        """
        if not name.isprintable() or not 1 <= len(name.encode()) <= COMMON_NAME_LIMIT:
            message = f"must have 1 to {COMMON_NAME_LIMIT} bytes of printable text"
            raise InvalidInput(Problem(str(directory), "name", name, message, "choose another name"))
        key = KINDS[kind]()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            _builder(subject, subject, key.public_key(), now, lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
            .add_extension(_usage(authority=True), critical=True)
        )
        if permitted:
            trees = [x509.DNSName(one) if isinstance(one, str) else x509.IPAddress(one) for one in permitted]
            builder = builder.add_extension(x509.NameConstraints(trees, None), critical=True)
        certificate = builder.sign(key, digest_for(key))
        prepare(directory)
        key_path = key_path or directory / "ca.key"
        if key_path.parent != directory:
            prepare(key_path.parent)
        # The key first: a certificate is never there without it.
        write_whole(
            [
                Change(path=key_path, content=key_pem(key, passphrase), mode=0o600, replace=False),
                Change(path=directory / "ca.pem", content=pem(certificate), replace=False),
            ]
        )
        return cls(directory=directory, certificate=certificate, private_key=key)

    @classmethod
    def load(
        cls, directory: Path, key_path: Path | None = None, ask: Callable[[], bytes] | None = None
    ) -> Authority:
        """The authority in `directory`; `ask` gives the passphrase of a key that is encrypted.

        Raises InvalidInput if there is none, or it is not whole.
        """
        certificate = load_certificate(directory)
        key_path = key_path or directory / "ca.key"
        secret = read_trusted(key_path, LIMIT, secret=True)
        try:
            key = _open_key(secret, ask)
        except Encrypted:
            message = "is encrypted, and this is not its passphrase"
            raise InvalidInput(Problem(str(key_path), "", "", message, "try again")) from None
        except ValueError as error:
            raise _broken(key_path, str(error)) from None
        if fault := weakness(key):
            raise _broken(key_path, fault)
        assert isinstance(key, PrivateKey)  # noqa: S101 - what weakness() lets pass
        if not belongs(key, certificate):
            raise _broken(key_path, f"does not belong to {directory / 'ca.pem'}")
        return cls(directory=directory, certificate=certificate, private_key=key)

    def issue(
        self,
        name: str,
        addresses: Sequence[Address],
        *,
        now: float,
        lifetime: float = HOST_LIFETIME,
    ) -> Issued:
        """A new P-256 key, and a certificate for it. Raises InvalidInput as `certify` does."""
        key = KINDS["p256"]()
        certificate = self.certify(key.public_key(), name, addresses, now=now, lifetime=lifetime)
        return Issued(name=name.lower(), certificate=pem(certificate), private_key=key_pem(key))

    def certify(
        self,
        key: PublicKey,
        name: str,
        addresses: Sequence[Address],
        *,
        now: float,
        lifetime: float = HOST_LIFETIME,
    ) -> x509.Certificate:
        """A certificate for this public key with the name and the addresses as subjectAltNames.

        It ends no later than the authority does. Raises InvalidInput for a bad name and for an authority that
        has expired.
        """
        try:
            name = check_name(name)
        except ValueError as error:
            raise InvalidInput(Problem("", "name", name, str(error), "give the host's name")) from None
        if wrong := not_allowed(self.certificate, [name], addresses):
            message = "may not certify this: its name constraints do not allow it"
            remedy = "have another authority issue it"
            path = str(self.directory / "ca.pem")
            raise InvalidInput(Problem(path, "", shown(", ".join(wrong)), message, remedy))
        left = self.certificate.not_valid_after_utc.timestamp() - now
        if left <= 0:
            remedy = "make a new authority (`swanmesh ca init` in another directory)"
            raise InvalidInput(
                Problem(str(self.directory / "ca.pem"), "", "", "this authority has expired", remedy)
            )
        # A name too long for the subject stands among the subjectAltNames alone, which then are critical
        # (RFC 5280 §4.1.2.6).
        short = len(name) <= COMMON_NAME_LIMIT
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if short else [])
        alternatives = [x509.DNSName(name), *(x509.IPAddress(address) for address in addresses)]
        # Those of TLS for implementations that look for them and for nothing else.
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH, IPSEC_IKE]
        return (
            _builder(subject, self.certificate.subject, key, now, min(lifetime, left))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=not short)
            .add_extension(self._key_identifier(), critical=False)
            .sign(self.private_key, digest_for(self.private_key))
        )

    def revocation_list(
        self,
        revoked: Iterable[x509.RevokedCertificate],
        *,
        number: int,
        now: float,
        lifetime: float,
    ) -> x509.CertificateRevocationList:
        """A signed CRL of these, which asks to be replaced after `lifetime` seconds."""
        start = datetime.fromtimestamp(now, UTC).replace(microsecond=0)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(start - _BACKDATED)
            .next_update(start + timedelta(seconds=lifetime))
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        for one in revoked:
            builder = builder.add_revoked_certificate(one)
        return builder.sign(self.private_key, digest_for(self.private_key))

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        own = extension(self.certificate, x509.SubjectKeyIdentifier)
        if own is None:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private_key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def load_certificate(directory: Path) -> x509.Certificate:
    """The certificate of the authority in `directory`. Raises InvalidInput if there is none."""
    path = directory / "ca.pem"
    try:
        certificate = read_certificates(read_trusted(path, LIMIT))[0]
    except ValueError as error:
        raise _broken(path, str(error)) from None
    if not is_authority(certificate):
        raise _broken(path, "is no authority's certificate")
    return certificate


def _open_key(secret: bytes, ask: Callable[[], bytes] | None) -> object:
    try:
        return read_key(secret)
    except Encrypted:
        if ask is None:
            raise
        return read_key(secret, ask())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, now: float, lifetime: float
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


def prepare(directory: Path) -> None:
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
