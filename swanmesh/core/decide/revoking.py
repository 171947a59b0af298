"""Whose certificate is revoked is ended, and nobody else.

What an IKE_SA stands on is known from what charon showed as it came up. Where that is not certain (charon
forgot it, or showed two of the same name, or this controller began later), the peer is asked to prove itself
once more: charon, which holds the list by then, refuses a certificate that is on it, and says so.
"""

from __future__ import annotations

from swanmesh.core.actions import RekeyIke, TerminateIke
from swanmesh.core.credentials.revocation import Revocations
from swanmesh.core.pairs.associations import Times
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.reasons import NONE, REVOCATION_DOUBT, Reason


def revoking(pair: Pair, revocations: Revocations, now: float) -> TerminateIke | RekeyIke | None:
    """What to do about the pair's IKE_SAs, if anything."""
    ended: dict[int, Reason] = {}
    doubtful = None
    for unique_id, times in pair.associations.times.items():
        sa = pair.sas.get(unique_id)
        if sa is None or not sa.established or sa.ending:
            continue
        if why := _ends(pair, times, revocations):
            ended[unique_id] = why
        elif _doubtful(pair, unique_id, times, revocations, now):
            doubtful = unique_id
    if ended:
        reason = next(iter(ended.values()))
        ids = tuple(ended)
        return TerminateIke(unique_ids=ids, connection=pair.name, peer=pair.peer, force=True, reason=reason)
    if doubtful is None:
        return None
    return RekeyIke(
        unique_id=doubtful, connection=pair.name, peer=pair.peer, reauth=True, reason=REVOCATION_DOUBT
    )


def _ends(pair: Pair, times: Times, revocations: Revocations) -> Reason:
    """Why an IKE_SA ends: it certainly stands on a certificate that is revoked; or that is in doubt, and the
    peer has just shown one when it was asked."""
    if times.certain and times.certificate is not None:
        return revocations.revoked(times.certificate)
    at, words = pair.revoked_shown
    doubt = pair.doubt
    return words if doubt is not None and times.authenticated <= doubt.since <= at else NONE


def _doubtful(pair: Pair, unique_id: int, times: Times, revocations: Revocations, now: float) -> bool:
    """Whether the peer is to prove itself again, and was not asked to since."""
    doubt, certificate = pair.doubt, times.certificate
    if doubt is None or times.certain or times.authenticated > doubt.since or now < doubt.ask_at:
        return False
    if certificate is not None and not revocations.revoked(certificate):
        return False
    return pair.reauthentication_asked.get(unique_id, float("-inf")) < doubt.since
