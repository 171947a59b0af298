"""Requests for certificates (PKCS#10, RFC 2986): made on a host, judged where they are signed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from swanmesh.core.model import Address, InvalidInput, Problem, shown
from swanmesh.core.peers.description import check_name, parse_addresses
from swanmesh.pki.keys import PrivateKey, digest_for, weakness
from swanmesh.pki.reading import (
    COMMON_NAME_LIMIT,
    LIMIT,
    UNREADABLE,
    addresses_in,
    extension,
    names_in,
    strange_extensions,
)

_MOST_ADDRESSES = 64
"""Addresses in one request; a host has a handful."""
_REMEDY = "have it made by `swanmesh enroll request`"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request that will do asks for. All else that it asks for is passed over."""

    name: str
    addresses: tuple[Address, ...]
    key: CertificatePublicKeyTypes


def make_request(name: str, addresses: Sequence[Address], key: PrivateKey) -> bytes:
    """A request for this name and these addresses as PEM, signed by the key that it is for.

    The name is its subject as well where it fits: step-ca, for one, signs nothing without.
    """
    alternatives = [x509.DNSName(name), *(x509.IPAddress(address) for address in addresses)]
    short = len(name) <= COMMON_NAME_LIMIT
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if short else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=not short)
    return builder.sign(key, digest_for(key)).public_bytes(serialization.Encoding.PEM)


def read_request(data: bytes, source: str) -> Asked:
    """Judge a request in PEM or DER. Raises InvalidInput with all that is wrong with it.

    It must be signed by the key that it is for (proof of possession), ask for exactly one name, which a host
    can have, and for one or more addresses, which a peer can have; for no other kind of name, and not for the
    rights of an authority.
    """
    request = _parse(data, source)
    found = [*_wrongs(request), *_wrong_names(request)]
    problems = [Problem(source, "", shown(value), message, _REMEDY) for message, value in found]
    listed = addresses_in(request)
    if not 0 < len(listed) <= _MOST_ADDRESSES:
        message = f"must ask for 1 to {_MOST_ADDRESSES} addresses"
        raise InvalidInput(*problems, Problem(source, "", f"{len(listed)} there", message, _REMEDY))
    addresses = parse_addresses([str(one) for one in listed], "addresses", source, problems)
    if problems:
        raise InvalidInput(*problems)
    return Asked(names_in(request)[0], addresses, request.public_key())


def _parse(data: bytes, source: str) -> x509.CertificateSigningRequest:
    try:
        if len(data) > LIMIT:
            raise ValueError
        # A DER request is a SEQUENCE.
        load = x509.load_der_x509_csr if data[:1] == b"\x30" else x509.load_pem_x509_csr
        request = load(data)
        # Parsed only when asked for.
        _ = request.extensions, request.public_key(), request.subject, request.is_signature_valid
    except UNREADABLE:
        raise InvalidInput(Problem(source, "", "", "holds no request that can be read", _REMEDY)) from None
    return request


def _wrongs(request: x509.CertificateSigningRequest) -> Iterator[tuple[str, str]]:
    """What is wrong with a request beside its names, with the value."""
    if not request.is_signature_valid:
        yield "is not signed by the key that it is for", ""
    if fault := weakness(request.public_key()):
        yield fault, ""
    for oid in strange_extensions(request):
        yield "asks for a critical extension that nobody here understands", oid
    basic = extension(request, x509.BasicConstraints)
    if basic is not None and basic.ca:
        yield "asks for the rights of an authority", ""


def _wrong_names(request: x509.CertificateSigningRequest) -> Iterator[tuple[str, str]]:
    asked = extension(request, x509.SubjectAlternativeName) or ()
    for one in asked:
        address = isinstance(one, x509.IPAddress) and isinstance(one.value, Address)
        if not address and not isinstance(one, x509.DNSName):
            yield "asks for a kind of name that no host has", f"{type(one).__name__} {one.value}"
    names = names_in(request)
    if len(names) != 1:
        yield "must ask for one DNS subjectAltName", ", ".join(names)
    for name in names:
        try:
            check_name(name)
        except ValueError as error:
            yield str(error), name
    for common in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        if str(common.value).lower() not in names:
            yield "names another host in its subject", str(common.value)
