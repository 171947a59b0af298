"""When an association is authenticated anew: once, before a certificate that it stands on ends, or after this
host got another one. Never by the clock alone: each reauthentication may cost a packet, since a responder
sends on the new association before the initiator has installed it; a rekey gives new keys without that.

charon does not tell which certificate an IKE_SA stands on. This host's is known by the time at which it was
authenticated; the peer's is one of those of its name that charon has seen (`list-certs` shows its cache), and
of several the one that ends first is meant. Where none was seen, `connection.ike_reauth` is the bound.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from swanmesh.core.actions import RekeyIke, TerminateIke
from swanmesh.core.certificates import SKEW, Certificates
from swanmesh.core.model import Settings
from swanmesh.core.observed import IkeSa
from swanmesh.core.pair import Pair
from swanmesh.core.reasons import CERTIFICATE_DATES, NEW_CERTIFICATE, Reason

_SPREAD = 300.0
"""Seconds over which the associations of one host, or of one end of a certificate, are authenticated anew."""
_BEFORE = 0.1
"""Share of a certificate's life before its end in which that is done."""
_PATIENCE = 600.0
"""Seconds until it is asked for again where it came to nothing."""
_LOOKS = 10


@dataclass(frozen=True, slots=True)
class Reauthentication:
    """What to do about one association, and when on the core's clock."""

    action: RekeyIke | TerminateIke
    at: float


def reauthentication(
    pair: Pair, sa: IkeSa, settings: Settings, certificates: Certificates
) -> Reauthentication | None:
    """The next one that is foreseen for this IKE_SA; None while the wall's time is not known."""
    offset = certificates.offset
    times = pair.associations.times.get(sa.unique_id)
    if offset is None or times is None:
        return None
    authenticated = times.authenticated
    share = zlib.crc32(f"{pair.name} {settings.host.name}".encode()) / 2**32
    asked = pair.reauthentication_asked.get(sa.unique_id)

    def anew(reason: Reason, at: float, patience: float = _PATIENCE) -> Reauthentication:
        earliest = asked + max(patience, _PATIENCE) if asked is not None else at
        action = RekeyIke(
            unique_id=sa.unique_id, connection=pair.name, peer=pair.peer, reauth=True, reason=reason
        )
        return Reauthentication(action, max(at, earliest))

    taken_up = settings.credentials.since - offset
    if authenticated < taken_up:
        return anew(NEW_CERTIFICATE, taken_up + share * _SPREAD)
    theirs = times.certificate or certificates.standing_on(pair.peer, authenticated + offset)
    if theirs is None:
        unknown = Reason("certificate-unknown", "the peer's certificate was not seen, and may have ended")
        # Charon is looked at as a whole several times within so long, however seldom that is.
        bound = max(settings.connection.ike_reauth, _LOOKS * settings.initiation.resync)
        return anew(unknown, authenticated + bound * (1.0 - share / 10))
    end = theirs.not_after - offset
    before = end - _BEFORE * (theirs.not_after - theirs.not_before) * (0.5 + share / 2)
    if authenticated < before:
        patience = (end - asked) / 4 if asked is not None else 0.0
        again = anew(Reason("certificate-ends", "the peer's certificate ends soon"), before, patience)
        if again.at < end + SKEW:
            return again
    mine = settings.credentials
    if not mine.not_before <= end + offset + SKEW < mine.not_after:
        return None  # this host's clock or certificate is as doubtful as the peer's
    ended = TerminateIke(
        unique_ids=(sa.unique_id,), connection=pair.name, peer=pair.peer, reason=CERTIFICATE_DATES
    )
    return Reauthentication(ended, end + SKEW)
