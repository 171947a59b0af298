"""The peers' certificates over restarts of the service: what each has shown, as far as it is known.

charon remembers a few dozen. Without the others, a list that comes just after a restart would have all peers
prove themselves once more, and the brake on revoking many could only guess.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container
from pathlib import Path

import msgspec

from swanmesh.core.credentials.certificates import Certificates
from swanmesh.core.model import InvalidInput
from swanmesh.core.observed import SeenCertificate
from swanmesh.files.read import read_trusted
from swanmesh.files.write import Change, NotWritten, make_folder, write_whole

_LIMIT = 128 * 1024 * 1024
"""Bytes: some 1,400 for each certificate, of which a peer may have several."""
_SELDOM = 60.0
"""Seconds between two times that it is written."""


class _Kept(msgspec.Struct, array_like=True, frozen=True):
    """One certificate in the file."""

    fingerprint: str
    names: tuple[str, ...]
    not_before: float
    not_after: float
    issuer: str
    serial: str
    addresses: tuple[str, ...]
    der: bytes

    def seen(self) -> SeenCertificate:
        return SeenCertificate(
            fingerprint=self.fingerprint,
            names=self.names,
            not_before=self.not_before,
            not_after=self.not_after,
            issuer=self.issuer,
            serial=int(self.serial, 16),
            addresses=tuple(map(ipaddress.ip_address, self.addresses)),
            der=self.der,
        )


def _kept(one: SeenCertificate) -> _Kept:
    return _Kept(
        fingerprint=one.fingerprint,
        names=one.names,
        not_before=one.not_before,
        not_after=one.not_after,
        issuer=one.issuer,
        serial=f"{one.serial:x}",
        addresses=tuple(map(str, one.addresses)),
        der=one.der,
    )


class SeenStore:
    """`peers.json` in the service's own folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "peers.json"
        self._written = 0
        self._next = 0.0

    def recall(self, certificates: Certificates, issuers: Container[str], wall: float) -> None:
        """Take in what was kept of these authorities and has not ended. A file that cannot be read is no
        loss but of time."""
        try:
            kept = msgspec.json.decode(read_trusted(self._path, _LIMIT), type=list[_Kept])
            found = [each.seen() for each in kept if each.issuer in issuers and each.not_after > wall]
        except (InvalidInput, msgspec.MsgspecError, ValueError):
            return
        for one in found:
            certificates.take((one,), frozenset(one.names))
        self._written = certificates.changes

    def keep(self, certificates: Certificates, now: float, *, at_once: bool = False) -> None:
        """Write down what is new, seldom. What cannot be written is seen again in time."""
        if certificates.changes == self._written or (now < self._next and not at_once):
            return
        content = msgspec.json.encode([_kept(one) for one in certificates.all()])
        try:
            make_folder(self._path.parent, 0o700)
            write_whole([Change(path=self._path, content=content, mode=0o600)])
        except NotWritten:
            return
        finally:
            self._next = now + _SELDOM
        self._written = certificates.changes
