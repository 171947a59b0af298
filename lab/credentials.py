"""An authority for one mesh of the lab, a certificate for each host, and a list of the revoked ones:
swanmesh's own authority."""

from __future__ import annotations

import ipaddress
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from swanmesh.pki import authority

_DAY = 86400.0


class Authority:
    """An authority in `directory`, which is made."""

    def __init__(self, directory: Path) -> None:
        self._authority = authority.Authority.create(directory, "Lab CA", now=time.time())
        self._certificate = directory / "ca.pem"

    def write(self, path: Path) -> None:
        """Writes the authority's certificate as PEM."""
        shutil.copy(self._certificate, path)

    def issue(
        self, name: str, addresses: Iterable[str], *, certificate: Path, private_key: Path, days: float = 90
    ) -> None:
        """Writes a host's certificate, with `name` and `addresses` as its identities, and its key."""
        parsed = [ipaddress.ip_address(address) for address in addresses]
        issued = self._authority.issue(name, parsed, now=time.time(), lifetime=days * _DAY)
        certificate.write_bytes(issued.certificate)
        private_key.touch(mode=0o600)
        private_key.write_bytes(issued.private_key)

    def revoke(self, *certificates: Path, number: int, days: float = 30) -> bytes:
        """The list number so and so, with the certificates in these files on it, as PEM."""
        loaded = [x509.load_pem_x509_certificate(path.read_bytes()) for path in certificates]
        entries = [
            x509.RevokedCertificateBuilder()
            .serial_number(one.serial_number)
            .revocation_date(one.not_valid_before_utc)
            .build()
            for one in loaded
        ]
        made = self._authority.revocation_list(entries, number=number, now=time.time(), lifetime=days * _DAY)
        return made.public_bytes(Encoding.PEM)
