"""When an association is authenticated anew: once, before a certificate that it stands on ends, or after this
host got another one. Never by the clock alone: each reauthentication may cost a packet, since a responder
sends on the new association before the initiator has installed it; a rekey gives new keys without that.

charon does not tell which certificate an IKE_SA stands on. This host's is known by the time at which it was
authenticated; the peer's is one of those of its name that charon has seen (`list-certs` shows its cache).
Where there are several, it is asked for again as soon as the first of them has ended: charon takes that one
no more, so whoever answers stands on another. Where none was seen, `connection.ike_reauth` is the bound.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from swanmesh.core.actions import RekeyIke, TerminateIke
from swanmesh.core.credentials.certificates import SKEW, Certificates
from swanmesh.core.model import Settings
from swanmesh.core.observed import IkeSa, SeenCertificate
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.reasons import AUTHORITY_DROPPED, CERTIFICATE_DATES, NEW_CERTIFICATE, Reason

_SPREAD = 300.0
"""Seconds over which the associations of one host, or of one end of a certificate, are authenticated anew."""
_SPREAD_SHARE = 0.02
"""And the share of a certificate's life that this may be at most."""
_BEFORE = 0.1
"""Share of a certificate's life before its end in which that is done."""
_PATIENCE = 600.0
"""Seconds until it is asked for again where it came to nothing."""
_LOOKS = 10
_UNKNOWN = Reason("certificate-unknown", "the peer's certificate was not seen, and may have ended")
_ENDS = Reason("certificate-ends", "the peer's certificate ends soon")
_ONE_ENDED = Reason("certificate-ends", "one of the peer's certificates has ended")


@dataclass(frozen=True, slots=True)
class Reauthentication:
    """What to do about one association, and when on the core's clock."""

    action: RekeyIke | TerminateIke
    at: float


def reauthentication(
    pair: Pair, sa: IkeSa, settings: Settings, certificates: Certificates
) -> Reauthentication | None:
    """The next one that is foreseen for this IKE_SA; None while the wall's time is not known."""
    offset, times = certificates.offset, pair.associations.times.get(sa.unique_id)
    if offset is None or times is None:
        return None
    authenticated, mine = times.authenticated, settings.credentials
    share = zlib.crc32(f"{pair.name} {settings.host.name}".encode()) / 2**32
    taken_up = mine.since - offset
    if authenticated < taken_up:
        # A certificate that lives for minutes is renewed when few of them are left.
        spread = min(_SPREAD, _SPREAD_SHARE * (mine.not_after - mine.not_before))
        return _anew(pair, sa, NEW_CERTIFICATE, taken_up + share * spread)
    known = times.certificate
    name = sa.remote_id.lower() or pair.peer  # a host of a block goes by its address otherwise
    possible = [known] if known else certificates.possible(name, authenticated + offset)
    if possible and all(one.issuer in certificates.dropped for one in possible):
        return _without_authority(pair, sa, certificates, authenticated, offset)
    if not possible:
        # Charon is looked at as a whole several times within so long, however seldom that is.
        bound = max(settings.connection.ike_reauth, _LOOKS * settings.initiation.resync)
        return _anew(pair, sa, _UNKNOWN, authenticated + bound * (1.0 - share / 10))
    return _before_its_end(pair, sa, settings, offset, possible, share)


def _without_authority(
    pair: Pair, sa: IkeSa, certificates: Certificates, authenticated: float, offset: float
) -> Reauthentication:
    """Who has shown a certificate of an authority that counts is asked for it; anybody else is ended."""
    others = (one for one in certificates.of(pair.peer) if one.issuer not in certificates.dropped)
    if any(authenticated + offset < one.not_after for one in others):
        return _anew(pair, sa, AUTHORITY_DROPPED, authenticated)
    ended = TerminateIke(
        unique_ids=(sa.unique_id,), connection=pair.name, peer=pair.peer, reason=AUTHORITY_DROPPED
    )
    return Reauthentication(ended, authenticated)


def _before_its_end(
    pair: Pair,
    sa: IkeSa,
    settings: Settings,
    offset: float,
    possible: Sequence[SeenCertificate],
    share: float,
) -> Reauthentication | None:
    """What the end of the peer's certificate calls for; `possible` are those that it may have shown."""
    authenticated = pair.associations.times[sa.unique_id].authenticated
    first, end = possible[0], possible[0].not_after - offset
    asked = pair.reauthentication_asked.get(sa.unique_id)
    if len(possible) > 1:
        if asked is None or asked < end:
            return _anew(pair, sa, _ONE_ENDED, end + share * SKEW)
        return _end(pair, sa, settings, offset, asked + _PATIENCE)
    before = end - _BEFORE * (first.not_after - first.not_before) * (0.5 + share / 2)
    if authenticated < before:
        again = _anew(pair, sa, _ENDS, before, (end - asked) / 4 if asked is not None else 0.0)
        if again.at < end + SKEW:
            return again
    return _end(pair, sa, settings, offset, end + SKEW)


def _anew(pair: Pair, sa: IkeSa, reason: Reason, at: float, patience: float = _PATIENCE) -> Reauthentication:
    asked = pair.reauthentication_asked.get(sa.unique_id)
    earliest = asked + max(patience, _PATIENCE) if asked is not None else at
    action = RekeyIke(
        unique_id=sa.unique_id, connection=pair.name, peer=pair.peer, reauth=True, reason=reason
    )
    return Reauthentication(action, max(at, earliest))


def _end(pair: Pair, sa: IkeSa, settings: Settings, offset: float, at: float) -> Reauthentication | None:
    """The end of an IKE_SA whose peer has shown no certificate that still holds."""
    mine = settings.credentials
    if not mine.not_before <= at + offset < mine.not_after:
        return None  # this host's clock or certificate is as doubtful as the peer's
    ended = TerminateIke(
        unique_ids=(sa.unique_id,), connection=pair.name, peer=pair.peer, reason=CERTIFICATE_DATES
    )
    return Reauthentication(ended, at)
