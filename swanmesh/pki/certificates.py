"""This host's credentials: read, checked against each other, and handed on as DER."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from swanmesh.core.model import Credentials, InvalidInput
from swanmesh.pki.judging import AUTHORITIES, CERTIFICATE, Found, Judge, belongs, judge_at
from swanmesh.pki.keys import PrivateKey
from swanmesh.pki.reading import addresses_in, der, issued
from swanmesh.pki.revocation import authority_id


def pending_key(private_key: Path) -> Path:
    """Where a new key waits for its certificate, beside the one in use.

    A host's certificate and key are two files, and are replaced one after the other. In between, and after a
    crash there, the certificate stands with its key under this name.
    """
    return private_key.with_name(f"{private_key.name}.pending")


def load_credentials(
    certificate: Path,
    private_key: Path,
    authorities: Sequence[Path],
    *,
    name: str,
    now: float,
    dates: bool = True,
) -> Credentials:
    """What the host `name` proves itself with, and whom it believes, at `now` (seconds since the epoch).

    The certificate's file holds the host's certificate first; certificates of intermediate authorities may
    follow and then count as authorities. Raises InvalidInput with every problem found; without `dates`, what
    has ended or not begun is none.
    """
    judge = judge_at(now, dates=dates)
    chain = judge.certificates(certificate, CERTIFICATE)
    key = _key_of(judge, private_key, chain, now)
    trusted = [
        one
        for index, path in enumerate(authorities)
        for one in judge.certificates(path, f"{AUTHORITIES}[{index}]")
    ]
    if chain:
        judge.check_host(chain[0], name)
        if key is not None:
            judge.check_belongs(key, private_key, chain[0])
    for authority in (*chain[1:], *trusted):
        judge.check_authority(authority)
    if chain and len(trusted) >= len(authorities):
        judge.check_chain(chain[0], chain[1:], trusted)
    if judge.problems or key is None or not chain:
        raise InvalidInput(*sorted(set(judge.problems)))
    leaf = chain[0].certificate
    unique = dict.fromkeys(der(one.certificate) for one in (*trusted, *chain[1:]))
    return Credentials(
        certificate=der(leaf),
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
        issuers=frozenset(
            authority_id(one.certificate) for one in trusted if issued(one.certificate, one.certificate)
        ),
        serial=leaf.serial_number,
        addresses=tuple(addresses_in(leaf)),
        issuer=next(
            (
                authority_id(one.certificate)
                for one in (*trusted, *chain[1:])
                if issued(leaf, one.certificate)
            ),
            "",
        ),
    )


def _key_of(judge: Judge, private_key: Path, chain: Sequence[Found], now: float) -> PrivateKey | None:
    """The host's key: the one that waits for this very certificate, or the one in use."""
    pending = judge_at(now).private_key(pending_key(private_key))
    if pending is not None and chain and belongs(pending, chain[0].certificate):
        return pending
    return judge.private_key(private_key)


def _changed(path: Path) -> float:
    """When the file was last written, in seconds since the epoch; 0 if that cannot be told any more."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def key_id(certificate: x509.Certificate) -> str:
    """SHA-1 of the subjectPublicKey bit string in hex: how charon names a private key (KEYID_PUBKEY_SHA1)."""
    return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest.hex()
