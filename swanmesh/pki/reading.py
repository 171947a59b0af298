"""Certificates out of bytes. The parser is `cryptography`'s; what it stumbles over is one ValueError."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from swanmesh.core.model import Address

LIMIT = 1024 * 1024
"""Bytes of a file with keys, certificates or a request."""
COMMON_NAME_LIMIT = 64
"""ub-common-name in RFC 5280, appendix A. It speaks of characters; `cryptography` counts bytes of UTF-8."""
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the parser raises where it cannot go on: found by feeding it (tests/unit/pki/test_hostile.py)."""
_SERIAL_BITS = 159
"""RFC 5280 §4.1.2.2."""


def read_certificates(data: bytes) -> list[x509.Certificate]:
    """The certificates in PEM, in the order of the file, whatever stands between them; or the one in DER.

    Raises ValueError, in words, if there is none or one of them cannot be read in full.
    """
    try:
        with warnings.catch_warnings():
            # What it warns of (a serial number that is not positive) is judged, not printed.
            warnings.simplefilter("ignore")
            # A DER certificate is a SEQUENCE.
            if data[:1] == b"\x30":
                loaded = [x509.load_der_x509_certificate(data)]
            else:
                loaded = x509.load_pem_x509_certificates(data)
            for one in loaded:
                # Parsed only when asked for: ask here, where an error can name the file.
                _ = one.extensions, one.public_key(), one.subject, one.issuer
                _ = one.not_valid_before_utc, one.not_valid_after_utc
            bad = [one for one in loaded if not 0 < one.serial_number < 1 << _SERIAL_BITS]
    except UNREADABLE:
        raise ValueError("holds no certificate that can be read") from None
    if bad:
        raise ValueError("holds a serial number that is not positive, or longer than 20 octets")
    return loaded


_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def extension(
    certificate: x509.Certificate | x509.CertificateSigningRequest | x509.CertificateRevocationList,
    kind: type[_Extension],
) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def strange_extensions(certificate: x509.Certificate | x509.CertificateSigningRequest) -> list[str]:
    """The OIDs of extensions that must be understood (critical), and are not: RFC 5280 §4.2."""
    return [
        one.oid.dotted_string
        for one in certificate.extensions
        if one.critical and isinstance(one.value, x509.UnrecognizedExtension)
    ]


def names_in(certificate: x509.Certificate | x509.CertificateSigningRequest) -> list[str]:
    """The DNS names among the subjectAltNames, in lower case."""
    names = extension(certificate, x509.SubjectAlternativeName)
    return [] if names is None else [dns.lower() for dns in names.get_values_for_type(x509.DNSName)]


def addresses_in(certificate: x509.Certificate | x509.CertificateSigningRequest) -> list[Address]:
    """The addresses among the subjectAltNames."""
    names = extension(certificate, x509.SubjectAlternativeName)
    found = [] if names is None else names.get_values_for_type(x509.IPAddress)
    # A block stands in name constraints only: RFC 5280 §4.2.1.10.
    return [one for one in found if isinstance(one, Address)]


def not_allowed(authority: x509.Certificate, names: Iterable[str], addresses: Iterable[Address]) -> list[str]:
    """Which of these an authority may not certify by its name constraints (RFC 5280 §4.2.1.10)."""
    constraints = extension(authority, x509.NameConstraints)
    if constraints is None:
        return []
    permitted = list(constraints.permitted_subtrees or ())
    excluded = list(constraints.excluded_subtrees or ())
    general: list[x509.GeneralName] = [
        *map(x509.DNSName, names),
        *(x509.IPAddress(address) for address in addresses),
    ]
    bad = []
    for one in general:
        of_kind = [subtree for subtree in permitted if type(subtree) is type(one)]
        if (of_kind and not any(_within(one, subtree) for subtree in of_kind)) or any(
            _within(one, subtree) for subtree in excluded
        ):
            bad.append(str(one.value))
    return bad


def _within(one: x509.GeneralName, subtree: x509.GeneralName) -> bool:
    if isinstance(one, x509.DNSName) and isinstance(subtree, x509.DNSName):
        return f".{one.value}".lower().endswith(f".{subtree.value.lstrip('.')}".lower())
    if isinstance(one, x509.IPAddress) and isinstance(subtree, x509.IPAddress):
        # Of another IP version it is in none.
        return not isinstance(subtree.value, Address) and one.value in subtree.value
    return False


def is_authority(certificate: x509.Certificate) -> bool:
    basic = extension(certificate, x509.BasicConstraints)
    return basic is not None and basic.ca


def issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    """Whether the names and the signature say so."""
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)
