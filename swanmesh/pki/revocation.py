"""Certificate revocation lists out of bytes, judged by the rules that docs/certificates.md tells.

The parser is `cryptography`'s; what must hold of a list, and who may sign it, is said here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from swanmesh.core.credentials.certificates import SKEW
from swanmesh.core.credentials.revocation import RevocationList, date
from swanmesh.core.model import InvalidInput, Problem, shown
from swanmesh.pki.keys import public_der
from swanmesh.pki.reading import UNREADABLE, extension

LIMIT = 8 * 1024 * 1024
"""Bytes of a list: room for 100,000 entries in PEM."""
MOST = 100_000
_MOST_IN_FILE = 16
_PEM = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_REMEDY = "give the authority's current list, in PEM or DER"


def authority_id(certificate: x509.Certificate) -> str:
    """What names an authority: its name and its key, so that one that took over under its name differs."""
    name = certificate.subject.public_bytes()
    return hashlib.sha256(name + public_der(certificate.public_key())).hexdigest()


def read_lists(
    data: bytes, source: str, authorities: Iterable[bytes], *, now: float, key: str = "credentials.crls"
) -> list[RevocationList]:
    """The lists in PEM, whatever stands between them, or the one in DER; each signed by one of these
    authorities (DER).

    One past its date is taken: who is revoked stays so. Raises InvalidInput with what is wrong.
    """

    def refuse(message: str, value: str = "", remedy: str = _REMEDY) -> InvalidInput:
        return InvalidInput(Problem(source, key, shown(value), message, remedy))

    if len(data) > LIMIT:
        raise refuse(f"is larger than {LIMIT >> 20} MiB", f"{len(data)} bytes")
    try:
        loaded = [_parsed(one) for one in _split(data)]
    except UNREADABLE:
        raise refuse("holds no revocation list that can be read") from None
    if not 0 < len(loaded) <= _MOST_IN_FILE:
        raise refuse(f"must hold 1 to {_MOST_IN_FILE} revocation lists", f"{len(loaded)} there")
    anchors = [x509.load_der_x509_certificate(one) for one in authorities]
    found = []
    for one in loaded:
        if isinstance(_digest(one), hashes.SHA1 | hashes.MD5):
            raise refuse("is signed with a digest that no longer proves anything")
        signer = _signer(one, anchors)
        if signer is None:
            issuer = f"issuer {one.issuer.rfc4514_string()}"
            raise refuse(
                "is signed by none of credentials.authorities", issuer, "give the list of one of those"
            )
        for message, value in _wrongs(one, signer, now):
            raise refuse(message, value)
        try:
            found.append(_told(one, signer, source))
        except _Partial as partial:
            raise refuse(*partial.args) from None
    return found


class _Partial(Exception):
    """Entries that do not mean what they seem to."""


def _split(data: bytes) -> Iterator[bytes]:
    # A list in DER is a SEQUENCE.
    return iter([data]) if data[:1] == b"\x30" else (found[0] for found in _PEM.finditer(data))


def _parsed(data: bytes) -> x509.CertificateRevocationList:
    load = x509.load_der_x509_crl if data[:1] == b"\x30" else x509.load_pem_x509_crl
    loaded = load(data)
    # Parsed only when asked for.
    _ = loaded.extensions, loaded.issuer, loaded.last_update_utc, loaded.next_update_utc, len(loaded)
    return loaded


def _signer(
    one: x509.CertificateRevocationList, anchors: Sequence[x509.Certificate]
) -> x509.Certificate | None:
    for anchor in anchors:
        try:
            if anchor.subject == one.issuer and one.is_signature_valid(anchor.public_key()):  # type: ignore[arg-type]
                return anchor
        except (TypeError, ValueError, UnsupportedAlgorithm):
            continue
    return None


def _wrongs(
    one: x509.CertificateRevocationList, signer: x509.Certificate, now: float
) -> Iterator[tuple[str, str]]:
    """What is wrong with a list beside its entries, with the value."""
    usage = extension(signer, x509.KeyUsage)
    if usage is not None and not usage.crl_sign:
        yield "is signed by an authority that may not (its keyUsage lacks cRLSign)", _subject(signer)
    for each in one.extensions:
        if each.oid == x509.DeltaCRLIndicator.oid:
            yield "is a delta list, which says only what changed", ""
        elif isinstance(each.value, x509.IssuingDistributionPoint):
            if _partial(each.value):
                yield "is a partial or indirect list: it does not tell of every host's certificate", ""
        elif each.critical and isinstance(each.value, x509.UnrecognizedExtension):
            yield "has a critical extension that nobody here understands", each.oid.dotted_string
    named = extension(one, x509.AuthorityKeyIdentifier)
    if named is None or named.key_identifier != _key_identifier(signer):
        # charon looks for an authority's lists by this alone.
        yield "does not name its authority's key (authorityKeyIdentifier)", ""
    if one.next_update_utc is None:
        yield "does not say by when it is replaced (nextUpdate)", ""
    issued = one.last_update_utc.timestamp()
    if issued > now + SKEW:
        yield f"is not valid before {date(issued)}", f"this machine's clock says {date(now)}"
    if len(one) > MOST:
        yield f"has more than {MOST} entries", f"{len(one)} there"


def _key_identifier(signer: x509.Certificate) -> bytes:
    """What charon takes for it (libstrongswan plugins/revocation/revocation_validator.c, check_crl)."""
    own = extension(signer, x509.SubjectKeyIdentifier)
    return (own or x509.SubjectKeyIdentifier.from_public_key(signer.public_key())).digest


def _digest(one: x509.CertificateRevocationList) -> hashes.HashAlgorithm | None:
    try:
        return one.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return hashes.MD5()  # noqa: S303 - as little worth


def _partial(scope: x509.IssuingDistributionPoint) -> bool:
    return bool(
        scope.indirect_crl
        or scope.only_contains_ca_certs
        or scope.only_contains_attribute_certs
        or scope.only_some_reasons
    )


def _told(one: x509.CertificateRevocationList, signer: x509.Certificate, source: str) -> RevocationList:
    number = extension(one, x509.CRLNumber)
    assert one.next_update_utc is not None  # noqa: S101 - what _wrongs() lets pass
    der = one.public_bytes(serialization.Encoding.DER)
    return RevocationList(
        issuer=authority_id(signer),
        authority=shown(_subject(signer)),
        number=number.crl_number if number is not None else 0,
        issued=one.last_update_utc.timestamp(),
        expires=one.next_update_utc.timestamp(),
        fingerprint=hashlib.sha256(der).hexdigest(),
        der=der,
        revoked=_entries(one),
        source=source,
    )


def _entries(one: x509.CertificateRevocationList) -> dict[int, float]:
    found = {}
    try:
        for entry in one:
            for each in entry.extensions:
                if each.critical and not isinstance(each.value, x509.CRLReason | x509.InvalidityDate):
                    raise _Partial("has entries of another authority, or that nobody here understands")
            found[entry.serial_number] = entry.revocation_date_utc.timestamp()
    except UNREADABLE:
        raise _Partial("holds an entry that cannot be read") from None
    return found


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "no subject"
