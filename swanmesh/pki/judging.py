"""The judgement of certificates and keys, by the rules that docs/certificates.md tells.

What charon or a peer would stumble over later is found here, with the file and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from swanmesh.core.model import Address, InvalidInput, Problem, Validity, shown
from swanmesh.files.read import read_trusted
from swanmesh.pki.keys import Encrypted, PrivateKey, public_der, read_key, weakness
from swanmesh.pki.reading import (
    LIMIT,
    addresses_in,
    extension,
    is_authority,
    issued,
    names_in,
    not_allowed,
    read_certificates,
    strange_extensions,
)

CERTIFICATE, KEY, AUTHORITIES = (
    "credentials.certificate",
    "credentials.private_key",
    "credentials.authorities",
)
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


@dataclass(frozen=True, slots=True)
class Found:
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
class Judge:
    """One look at certificates and keys; gathers what is wrong with them."""

    now: datetime
    problems: list[Problem] = field(default_factory=list)
    dates: bool = True
    """Whether it counts that one has ended, or not begun."""

    def problem(self, path: Path, key: str, message: str, remedy: str, value: str = "") -> None:
        self.problems.append(Problem(str(path), key, shown(value), message, remedy))

    def certificates(self, path: Path, key: str) -> list[Found]:
        try:
            data = read_trusted(path, LIMIT, key=key)
        except InvalidInput as invalid:
            self.problems.extend(invalid.problems)
            return []
        try:
            loaded = read_certificates(data)
        except ValueError as error:
            self.problem(path, key, str(error), "give one in PEM or DER")
            return []
        return [Found(one, path, key) for one in loaded]

    def private_key(self, path: Path) -> PrivateKey | None:
        try:
            data = read_trusted(path, LIMIT, key=KEY, secret=True)
        except InvalidInput as invalid:
            self.problems.extend(invalid.problems)
            return None
        try:
            key = read_key(data)
        except Encrypted:
            message = "is encrypted, and the service has nobody to ask for its passphrase"
            self.problem(path, KEY, message, f"run: openssl pkey -in {path} -out NEW, and name that file")
            return None
        except ValueError as error:
            self.problem(path, KEY, str(error), "give one in PEM or DER")
            return None
        if weak := weakness(key):
            self.problem(path, KEY, weak, "have a P-256 key certified (see `swanmesh ca issue`)")
            return None
        assert isinstance(key, PrivateKey)  # noqa: S101 - what weakness() lets pass
        return key

    def check_host(self, found: Found, name: str) -> None:
        """What must hold for the certificate that this host proves itself with."""
        certificate, path, key = found.certificate, found.path, found.key
        reissue = "have a new certificate issued (see `swanmesh ca issue`)"
        self._check_life(found, reissue)
        self._check_signature(found)
        self._check_form(found)
        if is_authority(certificate):
            self.problem(
                path, key, "is an authority's certificate", "name the host's certificate", found.subject
            )
        usage = extension(certificate, x509.KeyUsage)
        if usage is not None and not (usage.digital_signature or usage.content_commitment):
            self.problem(path, key, "may not sign (its keyUsage lacks digitalSignature)", reissue)
        purposes = extension(certificate, x509.ExtendedKeyUsage)
        if purposes is not None and _PURPOSES.isdisjoint(purposes):
            message = "is for another purpose: its extendedKeyUsage lacks serverAuth, clientAuth and ipsecIKE"
            self.problem(path, key, message, reissue)
        known = names_in(certificate)
        if name and name.lower() not in known:
            message = f"does not hold the host's name {name} as a DNS subjectAltName"
            remedy = "have one issued for that name, or correct host.name"
            self.problem(path, key, message, remedy, ", ".join(known) or "none there")

    def check_belongs(self, key: PrivateKey, path: Path, found: Found) -> None:
        if not belongs(key, found.certificate):
            message = f"does not belong to the certificate {found.path}"
            self.problem(path, KEY, message, "name the key that the certificate was issued for")

    def check_addresses(self, found: Found, addresses: Sequence[Address]) -> None:
        """Where the certificate lists addresses, each of the host's is among them."""
        listed = addresses_in(found.certificate)
        for one in addresses:
            if listed and one not in listed:
                message = f"lists addresses, and {one} of host.addresses is not among them"
                remedy = "have one issued for every address of the host"
                self.problem(found.path, found.key, message, remedy, ", ".join(map(str, listed)))

    def check_authority(self, found: Found) -> None:
        certificate, path, key = found.certificate, found.path, found.key
        self._check_life(found, "put the authority's current certificate there")
        self._check_signature(found)
        self._check_form(found)
        if not is_authority(certificate):
            self.problem(path, key, "is no authority's certificate", "name the CA's", found.subject)
            return
        usage = extension(certificate, x509.KeyUsage)
        if usage is not None and not usage.key_cert_sign:
            message = "may not issue certificates (its keyUsage lacks keyCertSign)"
            self.problem(path, key, message, "name the CA's certificate", found.subject)

    def check_chain(self, leaf: Found, chain: Sequence[Found], trusted: Sequence[Found]) -> None:
        """From the host's certificate to a self-signed one among the authorities: charon takes nothing else
        for an anchor (libstrongswan/credentials/credential_manager.c, verify_trust_chain)."""
        here = leaf
        for depth in range(len(chain) + len(trusted) + 1):
            issuer = next(
                (one for one in (*trusted, *chain) if issued(here.certificate, one.certificate)), None
            )
            if issuer is None:
                break
            basic = extension(issuer.certificate, x509.BasicConstraints)
            if basic is not None and basic.path_length is not None and basic.path_length < depth:
                message = f"allows {basic.path_length} authorities below it, and {depth} stand there"
                self.problem(issuer.path, issuer.key, message, "have the chain issued anew", issuer.subject)
            wrong = not_allowed(
                issuer.certificate, names_in(leaf.certificate), addresses_in(leaf.certificate)
            )
            if wrong:
                message = "may not certify this: its name constraints do not allow it"
                remedy = "have another authority issue it"
                self.problem(issuer.path, issuer.key, message, remedy, ", ".join(wrong))
            if issued(issuer.certificate, issuer.certificate) and issuer in trusted:
                return
            here = issuer
        if here is leaf:
            message = f"was issued by none of {AUTHORITIES}"
            remedy = "name the authority that issued it, or have one issued by an authority named"
        else:
            message = f"leads to {here.subject}, but not to a self-signed certificate in {AUTHORITIES}"
            remedy = "name the root authority's certificate there too"
        issuer_name = leaf.certificate.issuer.rfc4514_string()
        self.problem(leaf.path, leaf.key, message, remedy, f"issuer {issuer_name}")

    def _check_life(self, found: Found, remedy: str) -> None:
        start, end = found.certificate.not_valid_before_utc, found.certificate.not_valid_after_utc
        if not self.dates:
            return
        if self.now >= end:
            message = f"expired on {end:%Y-%m-%d %H:%M} UTC"
            self.problem(found.path, found.key, message, remedy, found.subject)
        if self.now < start:
            message = f"is not valid before {start:%Y-%m-%d %H:%M} UTC"
            self.problem(found.path, found.key, message, "set the clock right, or wait", found.subject)

    def _check_form(self, found: Found) -> None:
        for oid in strange_extensions(found.certificate):
            message = "has a critical extension that nobody here understands"
            self.problem(found.path, found.key, message, "have it issued without that", oid)

    def _check_signature(self, found: Found) -> None:
        try:
            algorithm = found.certificate.signature_hash_algorithm
            weak = isinstance(algorithm, hashes.SHA1 | hashes.MD5)
        except UnsupportedAlgorithm:
            weak = True
        # Nobody has to believe a root's signature on itself.
        if weak and not issued(found.certificate, found.certificate):
            message = "is signed with a digest that no longer proves anything"
            self.problem(found.path, found.key, message, "have it issued anew with SHA-256", found.subject)
        if fault := weakness(found.certificate.public_key()):
            self.problem(found.path, found.key, fault, "have one issued for a P-256 key", found.subject)


def belongs(key: PrivateKey, certificate: x509.Certificate) -> bool:
    return public_der(key) == public_der(certificate.public_key())


def judge_at(now: float, *, dates: bool = True) -> Judge:
    """A judge at `now`, in seconds since the epoch."""
    return Judge(datetime.fromtimestamp(now, UTC), dates=dates)
