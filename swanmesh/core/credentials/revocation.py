"""Which certificates are revoked, by the lists of the mesh's own authorities: the newest list of each.

An older one never takes the place of a newer one. One that would take away many peers at once is held until
somebody confirms it. Against a slip (`ca revoke` of the wrong names) that is all that is needed; against a
stolen authority it wins the time to take that authority out of `credentials.authorities`: whoever can sign
lists can issue certificates as well, and no list helps against those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from swanmesh.core.model import Credentials, Problem
from swanmesh.core.observed import SeenCertificate
from swanmesh.core.reasons import NONE, Cause, Reason

LARGEST = 65_000
"""Bytes of a list that charon takes: a value in VICI holds 65,535 (strongSwan plugins/vici/README.md), which
are some 1,200 certificates. Who is on a larger one is ended by this controller alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """One authority's list (RFC 5280 §5), checked. Times are seconds since the epoch."""

    issuer: str
    """Which authority signed it, as `SeenCertificate.issuer` names them."""
    authority: str
    """The same for people."""
    number: int
    issued: float
    expires: float
    fingerprint: str
    """SHA-256 of its DER in hex."""
    der: bytes = field(repr=False, compare=False)
    revoked: Mapping[int, float] = field(repr=False, compare=False)
    """When each was revoked, by serial number."""
    source: str = field(default="", compare=False)
    """The file or URL that it came from."""

    def __str__(self) -> str:
        return f"list {self.number} of {self.authority}"

    @property
    def order(self) -> tuple[int, float]:
        """Of two lists the newer has the greater."""
        return self.number, self.issued

    @property
    def fits(self) -> bool:
        """Whether charon takes it."""
        return len(self.der) <= LARGEST


@dataclass(slots=True)
class Revocations:
    """The lists in force, and those held back, by authority."""

    in_force: dict[str, RevocationList] = field(default_factory=dict)
    held: dict[str, RevocationList] = field(default_factory=dict)
    held_peers: dict[str, list[str]] = field(default_factory=dict)
    """Names of the peers that each of those would take away."""
    _told: set[str] = field(default_factory=set)
    """Fingerprints of what was told to be expired or revoked."""

    def revoked(self, certificate: SeenCertificate) -> Reason:
        """Why nobody should believe this certificate any more; empty if nothing says so."""
        known = self.in_force.get(certificate.issuer)
        since = known.revoked.get(certificate.serial) if known is not None else None
        if since is None:
            return NONE
        words = f"the peer's certificate {certificate.serial:x} was revoked on {date(since)}, says {known}"
        return Reason(Cause.CERTIFICATE_REVOKED, words)

    def held_problems(self) -> list[Problem]:
        return [self.held_problem(one) for one in self.held.values()]

    def held_problem(self, one: RevocationList) -> Problem:
        return _held(one, self.held_peers[one.issuer])

    def problems(self, wall: float) -> list[Problem]:
        """What an operator should know of them, at that time (seconds since the epoch)."""
        found = [_expired(one) for one in self.in_force.values() if one.expires <= wall]
        for one in self.in_force.values():
            if not one.fits:
                message = (
                    f"{one} has {len(one.revoked)} entries, more than charon takes: it asks swanmesh alone, "
                    "which ends associations of who is on it as soon as they are up"
                )
                found.append(Problem(one.source, "", f"{len(one.der)} bytes", message, _SHORTER))
        return [*found, *self.held_problems()]

    def news(self, wall: float) -> list[Reason]:
        """One reason for each list that has expired since it was last asked."""
        expired = {one.fingerprint: one for one in self.in_force.values() if one.expires <= wall}
        fresh = [Reason("crl-expired", str(_expired(expired[name]))) for name in expired.keys() - self._told]
        self._told = set(expired)
        return fresh

    def wanted(self) -> frozenset[str]:
        """Fingerprints of those that charon should hold."""
        return frozenset(one.fingerprint for one in self.in_force.values() if one.fits)


_SHORTER = "leave out of it who has expired, as `swanmesh ca crl` does"


def own_revoked(revocations: Revocations, mine: Credentials) -> Reason:
    """Why the peers do not believe this host's certificate any more; empty if nothing says so."""
    known = revocations.in_force.get(mine.issuer)
    since = known.revoked.get(mine.serial) if known is not None else None
    if since is None:
        return NONE
    words = f"this host's certificate {mine.serial:x} was revoked on {date(since)}, says {known}"
    return Reason(Cause.CERTIFICATE_REVOKED, f"{words}: have a new one issued for a new key")


def own_problems(revocations: Revocations, mine: Credentials) -> list[Problem]:
    """The same as a problem of the list that says so."""
    reason = own_revoked(revocations, mine)
    if not reason:
        return []
    return [Problem(revocations.in_force[mine.issuer].source, "", "", *reason.words.split(": ", 1))]


def date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _expired(one: RevocationList) -> Problem:
    message = f"{one} was to be replaced by {date(one.expires)}: who was revoked since is not known here"
    return Problem(one.source, "", "", message, "make a new one (`swanmesh ca crl`), and see to its way here")


def _held(one: RevocationList, peers: Iterable[str]) -> Problem:
    names = sorted(peers)
    some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    message = f"{one} would end {len(names)} peers at once ({some}): it is not in force"
    return Problem(one.source, "", "", message, "if that is meant: swanmesh confirm revocation")
