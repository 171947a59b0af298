"""What stands in a certificate, as values that people and programs read."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from swanmesh.pki.certificates import key_id
from swanmesh.pki.judging import IPSEC_IKE
from swanmesh.pki.keys import describe_key
from swanmesh.pki.reading import addresses_in, extension, is_authority, names_in


def describe(certificate: x509.Certificate, *, now: float) -> dict[str, Any]:
    """The certificate's facts by name; times in seconds since the epoch, addresses as text."""
    start, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    basic = extension(certificate, x509.BasicConstraints)
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "names": names_in(certificate),
        "addresses": [str(one) for one in addresses_in(certificate)],
        "not_before": start,
        "not_after": end,
        "state": "expired" if now >= end else "not yet valid" if now < start else "valid",
        "authority": is_authority(certificate),
        "path_length": basic.path_length if basic is not None else None,
        "key": describe_key(certificate.public_key()),
        "key_id": key_id(certificate),
        "signed_with": _digest(certificate),
        "purposes": _purposes(certificate),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
    }


def _digest(certificate: x509.Certificate) -> str:
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return f"unknown ({certificate.signature_algorithm_oid.dotted_string})"
    return "the key's own digest" if algorithm is None else algorithm.name


def _purposes(certificate: x509.Certificate) -> list[str]:
    purposes = extension(certificate, x509.ExtendedKeyUsage) or ()
    names = {IPSEC_IKE.dotted_string: "ipsecIKE"}
    # `cryptography` offers the names of OIDs nowhere else.
    return [names.get(one.dotted_string, one._name) for one in purposes]
