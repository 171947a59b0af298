"""Certificates that charon shows, told to the core: those alone that the mesh's own authorities vouch for.

charon also keeps what strangers sent it on their way to being refused. Signatures are looked at here again,
so that none of that says anything about a peer.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Sequence

from cryptography import x509

from swanmesh.core.observed import SeenCertificate
from swanmesh.pki.certificates import key_id
from swanmesh.pki.reading import addresses_in, der, is_authority, issued, names_in, read_certificates
from swanmesh.pki.revocation import authority_id

_KEPT = 16_384


class Voucher:
    """Reads certificates by whom the authorities of the moment vouch for."""

    def __init__(self, authorities: Callable[[], tuple[bytes, ...]]) -> None:
        self._authorities = authorities
        self._for: tuple[bytes, ...] = ()
        self._anchors: list[x509.Certificate] = []
        self._known: dict[str, SeenCertificate] = {}

    def __call__(self, shown_by_charon: Iterable[bytes]) -> tuple[SeenCertificate, ...]:
        """Those of these certificates (DER) that name hosts and have an authority of ours behind them, over
        one intermediate among them at most."""
        self._look_up()
        found, others = [], []
        for data in shown_by_charon:
            fingerprint = hashlib.sha256(data).hexdigest()
            if (known := self._known.get(fingerprint)) is not None:
                found.append(known)
            elif (parsed := _parsed(data)) is not None:
                others.append((fingerprint, parsed))
        between = [one for _, one in others if is_authority(one) and _issuer(one, self._anchors) is not None]
        for fingerprint, parsed in others:
            issuer = _issuer(parsed, [*self._anchors, *between])
            if issuer is None or is_authority(parsed) or not names_in(parsed):
                continue
            self._known[fingerprint] = seen = _seen(fingerprint, parsed, issuer)
            if len(self._known) > _KEPT:
                del self._known[next(iter(self._known))]
            found.append(seen)
        return tuple(found)

    @property
    def issuers(self) -> frozenset[str]:
        """What names the authorities of the moment."""
        self._look_up()
        return frozenset(map(authority_id, self._anchors))

    def _look_up(self) -> None:
        authorities = self._authorities()
        if authorities != self._for:
            self._for, self._known = authorities, {}
            self._anchors = [x509.load_der_x509_certificate(one) for one in authorities]


def _parsed(data: bytes) -> x509.Certificate | None:
    try:
        return read_certificates(data)[0]
    except ValueError:
        return None


def _issuer(certificate: x509.Certificate, among: Sequence[x509.Certificate]) -> x509.Certificate | None:
    return next((one for one in among if issued(certificate, one)), None)


def _seen(fingerprint: str, certificate: x509.Certificate, issuer: x509.Certificate) -> SeenCertificate:
    return SeenCertificate(
        fingerprint=fingerprint,
        names=tuple(names_in(certificate)),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        issuer=sys.intern(authority_id(issuer)),  # thousands have the same
        serial=certificate.serial_number,
        addresses=tuple(addresses_in(certificate)),
        key_id=key_id(certificate),
        der=der(certificate),
    )
