"""What an authority issued and revoked: a file for each, named by the serial number, that is never changed.

The directory is the record. A file appears whole or not at all, so neither a kill nor a full disk harms what
stands there; and what was handed out was written down before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from swanmesh.core.model import Address, InvalidInput, Problem, shown
from swanmesh.files.lock import locked
from swanmesh.files.read import check_folder, read_trusted, unreadable
from swanmesh.files.write import Change, NotWritten, make_folder, write_whole
from swanmesh.pki.authority import Authority
from swanmesh.pki.keys import public_der
from swanmesh.pki.reading import LIMIT, addresses_in, names_in, pem, read_certificates
from swanmesh.pki.request import Asked

REASONS = {
    "unspecified": x509.ReasonFlags.unspecified,
    "key-compromise": x509.ReasonFlags.key_compromise,
    "affiliation-changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation-of-operation": x509.ReasonFlags.cessation_of_operation,
    "privilege-withdrawn": x509.ReasonFlags.privilege_withdrawn,
}
"""RFC 5280 §5.3.1, without those that are for authorities, and the hold, which is no end."""


_MOST_IN_FORCE = 16
"""Certificates of one host, from where on it gets no more without somebody's consent."""


class Revocation(msgspec.Struct, frozen=True):
    """When a certificate was revoked, in seconds since the epoch, and why."""

    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A certificate that was issued, and what became of it."""

    certificate: x509.Certificate
    revocation: Revocation | None

    @property
    def serial(self) -> str:
        return serial_text(self.certificate)

    @property
    def name(self) -> str:
        return next(iter(names_in(self.certificate)), "")

    @property
    def addresses(self) -> list[Address]:
        return addresses_in(self.certificate)

    @property
    def end(self) -> datetime:
        return self.certificate.not_valid_after_utc

    @property
    def lost_key(self) -> bool:
        """Whether others may know its key."""
        return self.revocation is not None and self.revocation.reason == "key-compromise"

    def state(self, now: float) -> str:
        if self.revocation is not None:
            return "revoked"
        return "expired" if now >= self.end.timestamp() else "in force"


def serial_text(certificate: x509.Certificate) -> str:
    """The serial number as its file is named: 40 hexadecimal digits."""
    return f"{certificate.serial_number:040x}"


class Record:
    """The record below an authority's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._issued = directory / "issued"
        self._revoked = directory / "revoked"
        self._list = directory / "crl.pem"

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Nobody else writes while this lasts. Raises NotWritten and InvalidInput as `open_locked` does."""
        with locked(self.directory):
            for folder in (self._issued, self._revoked):
                make_folder(folder, 0o700)
            # Their own locks, for what a killed writer left there goes with them.
            with locked(self._issued), locked(self._revoked):
                yield

    def entries(self) -> list[Entry]:
        """All that was ever issued, by name and then by end. Raises InvalidInput if one cannot be read."""
        entries = []
        for path in self._files(self._issued, ".pem"):
            try:
                (certificate,) = read_certificates(read_trusted(path, LIMIT, folder=self._issued))
            except ValueError:
                raise _damaged(path) from None
            if path.stem != serial_text(certificate):
                raise _damaged(path)
            entries.append(Entry(certificate, self._revocation(path.stem)))
        return sorted(entries, key=lambda entry: (entry.name, entry.end, entry.serial))

    def find(self, asked: str) -> list[Entry]:
        """The certificates of this name, or the one with this serial number. Raises InvalidInput if none."""
        wanted = asked.strip().lower()
        serial = wanted.replace(":", "").removeprefix("0x").zfill(40)
        found = [entry for entry in self.entries() if wanted == entry.name or serial == entry.serial]
        if not found:
            message, remedy = "nothing was issued under this name or serial number", "see `swanmesh ca list`"
            raise InvalidInput(Problem(str(self._issued), "", shown(asked), message, remedy))
        return found

    def check_free(
        self, name: str, addresses: Sequence[Address], key: bytes | None, *, now: float, replace: bool
    ) -> None:
        """Raises NotWritten if the name, or one of the addresses under another name, stands in a certificate
        in force and `replace` is not set; always if the key (SubjectPublicKeyInfo) is another host's, or one
        that others may know."""
        for entry in self.entries():
            held = f"certificate {entry.serial} of {entry.name}, until {entry.end:%Y-%m-%d}"
            if key is not None and entry.name != name and public_der(entry.certificate.public_key()) == key:
                remedy = "let the host make a key of its own"
                raise NotWritten(self._issued, f"its key is another's: {held}", remedy)
            if key is not None and entry.lost_key and public_der(entry.certificate.public_key()) == key:
                remedy = "let the host make a new key"
                raise NotWritten(self._issued, f"its key was given up: {held}, is revoked", remedy)
            if replace or entry.state(now) != "in force":
                continue
            if entry.name == name:
                remedy = "say --replace for a second one, and revoke the first where its key may be known"
                raise NotWritten(self._issued, f"the name is in use: {held}", remedy)
            for address in addresses:
                if address in entry.addresses:
                    remedy = "revoke that one, or say --replace if both may prove this address"
                    raise NotWritten(self._issued, f"the address {address} is in use: {held}", remedy)

    def check_renewal(self, only: str, asked: Asked, *, now: float) -> Entry | None:
        """Whether a host that may renew the certificates of `only` may have what it asks for: its own name,
        with addresses that its newest certificate has, while that one is in force.

        Returns what was issued for the same key lately: an answer that was lost on its way is given again.
        Raises NotWritten.
        """
        held = [entry for entry in self.entries() if entry.name == only.lower()]
        valid = [entry for entry in held if entry.state(now) == "in force"]
        if asked.name != only.lower():
            self._refuse_renewal(only, f"it asks for {asked.name}")
        if not valid or held[-1] is not valid[-1]:
            self._refuse_renewal(only, "its newest certificate is not in force" if held else "it has none")
        if strange := sorted(set(asked.addresses) - set(valid[-1].addresses), key=str):
            self._refuse_renewal(only, f"its certificate lacks the address {strange[0]}")
        key = public_der(asked.key)
        for entry in reversed(valid):
            begun, end = entry.certificate.not_valid_before_utc.timestamp(), entry.end.timestamp()
            if public_der(entry.certificate.public_key()) == key and now < (begun + end) / 2:
                return entry
        if len(valid) >= _MOST_IN_FORCE:
            self._refuse_renewal(only, f"{len(valid)} certificates of it are in force")
        return None

    def _refuse_renewal(self, only: str, why: str) -> NoReturn:
        remedy = "where that is right, sign its request by hand"
        raise NotWritten(self._issued, f"a renewal for {only} alone is allowed, and {why}", remedy)

    def change(self, certificate: x509.Certificate) -> Change:
        """What writes this certificate down."""
        path = self._issued / f"{serial_text(certificate)}.pem"
        return Change(path=path, content=pem(certificate), replace=False)

    def add(self, certificate: x509.Certificate) -> None:
        """Write this certificate down. Raises NotWritten."""
        write_whole([self.change(certificate)])

    def revoke(self, entries: Sequence[Entry], reason: str, *, now: float) -> list[Entry]:
        """Write down that these are revoked; those that were so before stay as they are, and are left out of
        what is returned. Raises NotWritten."""
        new = [entry for entry in entries if entry.revocation is None]
        content = msgspec.json.encode(Revocation(at=now, reason=reason)) + b"\n"
        paths = [self._revoked / f"{entry.serial}.json" for entry in new]
        write_whole([Change(path=path, content=content, replace=False) for path in paths])
        return new

    def write_list(self, authority: Authority, *, now: float, lifetime: float) -> tuple[Path, int, int]:
        """Write crl.pem anew: its path, its number and how many stand on it.

        The number is the time, or one more than the last: it grows, even if the last list is lost. Who is
        revoked stays on it until one list after the certificate's own end (RFC 5280 §3.3).
        """
        last = self._last_list()
        number, since = int(now), datetime.min.replace(tzinfo=UTC)
        if last is not None:
            number = max(number, last.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number + 1)
            since = last.last_update_utc
        revoked = [
            _on_list(entry.certificate, entry.revocation)
            for entry in self.entries()
            if entry.revocation is not None and entry.end >= since
        ]
        made = authority.revocation_list(revoked, number=number, now=now, lifetime=lifetime)
        write_whole([Change(path=self._list, content=made.public_bytes(serialization.Encoding.PEM))])
        return self._list, number, len(revoked)

    def _last_list(self) -> x509.CertificateRevocationList | None:
        if not self._list.exists():
            return None
        try:
            last = x509.load_pem_x509_crl(read_trusted(self._list, 64 * LIMIT))
            last.extensions.get_extension_for_class(x509.CRLNumber)
        except (ValueError, x509.ExtensionNotFound):
            raise _damaged(self._list) from None
        return last

    def _files(self, folder: Path, suffix: str) -> list[Path]:
        try:
            if (problem := check_folder(folder)) is not None:
                raise InvalidInput(problem)
            return [path for path in folder.iterdir() if path.suffix == suffix]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InvalidInput(unreadable(folder, error)) from None

    def _revocation(self, serial: str) -> Revocation | None:
        path = self._revoked / f"{serial}.json"
        if not path.exists():
            return None
        try:
            return msgspec.json.decode(read_trusted(path, LIMIT), type=Revocation)
        except msgspec.MsgspecError:
            raise _damaged(path) from None


def _on_list(certificate: x509.Certificate, revocation: Revocation) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(certificate.serial_number)
        .revocation_date(datetime.fromtimestamp(revocation.at, UTC).replace(microsecond=0))
    )
    reason = REASONS[revocation.reason]
    if reason is not x509.ReasonFlags.unspecified:
        # "unspecified" is said by saying nothing: RFC 5280 §5.3.1.
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    return builder.build()


def _damaged(path: Path) -> InvalidInput:
    message, remedy = "is damaged: it is not what `swanmesh ca` writes", "put it back from a backup"
    return InvalidInput(Problem(str(path), "", "", message, remedy))
