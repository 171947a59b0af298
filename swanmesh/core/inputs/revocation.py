"""Revocation lists that came, and what charon shows of the peers' certificates."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

from swanmesh.core.credentials.expiry import peer_renewed
from swanmesh.core.credentials.revocation import RevocationList, own_revoked
from swanmesh.core.inputs.members import pair_of
from swanmesh.core.inputs.transitions import judge
from swanmesh.core.observed import CertificatesShown, SeenCertificate
from swanmesh.core.pairs.pair import Doubt, Pair
from swanmesh.core.peers.removals import too_many
from swanmesh.core.reasons import Reason
from swanmesh.core.state import State

_SPREAD = 60.0
"""Seconds at least over which peers are asked to prove themselves again of whose certificates nothing is
known."""
_A_SECOND = 20
"""So many of them in a second at most: each authentication costs both ends some milliseconds."""


def take_lists(
    state: State, lists: Iterable[RevocationList], now: float, in_force_before: Mapping[str, bool]
) -> None:
    """All lists that are known; those of authorities of which there is none are no longer in force.
    `in_force_before`: whether they were in force or held, by fingerprint, before this controller began."""
    revocations, ordered = state.revocations, sorted(lists, key=lambda each: each.order)
    for gone in revocations.in_force.keys() - {one.issuer for one in ordered}:
        del revocations.in_force[gone]
    revocations.held, revocations.held_peers, before = {}, {}, revocations.held
    for one in ordered:
        known = revocations.in_force.get(one.issuer)
        if known is not None and one.order <= known.order:
            continue
        for pair in state.pairs:
            _suppose(state, pair)
        peers, told = _cut(state, one, known), before.get(one.issuer) == one
        settled = in_force_before.get(one.fingerprint)
        if told or settled is False or (settled is None and too_many(len(peers), len(state.peers()))):
            _hold(state, one, peers, news=not told)
        else:
            _come_into_force(state, one, now)


def confirm_lists(state: State, now: float) -> list[str]:
    """Let those come into force that are held. Returns the names of the peers that they end."""
    held, state.revocations.held = state.revocations.held, {}
    names = sorted({name for peers in state.revocations.held_peers.values() for name in peers})
    for one in held.values():
        _come_into_force(state, one, now)
    return names


def take_shown(state: State, event: CertificatesShown, now: float) -> None:
    """The certificates of a peer, just after an IKE_SA of its came up."""
    pair, name = pair_of(state, event.ike, now), event.ike.remote_id.lower()
    if pair is None:
        return
    mine = [one for one in event.certificates if name in one.names]
    news = state.certificates.news(name, mine)
    if len(news) == 1 and (reason := peer_renewed(state.certificates.of(name), news[0])):
        state.emit("certificate-renewed", state.peer(pair.peer), reason)
    state.certificates.take(mine, frozenset({name}))
    # One that was never seen before is the one that was shown now; so is one that stands alone.
    likely = news if len(news) == 1 else mine
    held, unique_id = pair.associations, event.ike.unique_id
    unfit = [one for one in likely if state.revocations.revoked(one) or held.unfit(one)]
    if len(likely) == 1:
        held.note_certificate(unique_id, likely[0], certain=True)
        held.distrusted = bool(unfit)
    if len(likely) > 1 and unfit:
        # charon remembers nothing of them by now (`charon/link.py`), so once more tells which it was. Who is
        # not trusted has to begin anew for that.
        pair.doubt = Doubt(since=now, ask_at=now)
    else:
        held.note_asked(unique_id)
    judge(state, pair, now)


def _suppose(state: State, pair: Pair) -> None:
    """What an IKE_SA stands on that nothing certain is known of: the only certificate that it can be."""
    offset = state.certificates.offset
    if offset is None:
        return
    name = _identity(state, pair.peer)
    for unique_id, times in pair.associations.times.items():
        if times.certificate is not None:
            continue
        possible = state.certificates.possible(name, times.authenticated + offset)
        if len(possible) == 1:
            pair.associations.note_certificate(unique_id, possible[0], certain=False)


def _cut(state: State, one: RevocationList, known: RevocationList | None) -> list[str]:
    """Names of the peers that the list takes away and those before it did not.

    While of most that are up the certificate is not known, the new entries may mean them, where there was a
    list before: a host that is new to the mesh learns of many at once, and none of them is its peer."""
    before = known.revoked if known is not None else {}
    new = one.revoked.keys() - before.keys()
    cut, unknown, accounted = [], [], set()
    for peer in state.peers():
        current = certificate_of(state, peer.name)
        if current is None and peer.name in state.up:
            unknown.append(peer.name)
        elif current is not None and current.issuer == one.issuer and current.serial in new:
            cut.append(peer.name)
            accounted.add(current.serial)
    if known is not None and 2 * len(unknown) > len(state.up):
        cut += unknown[: len(new - accounted)]
    return cut


def certificate_of(state: State, name: str) -> SeenCertificate | None:
    """The certificate that a peer proves itself with, as far as that is known."""
    standing = [
        times.certificate
        for pair in state.pairs.of(name)
        for times in pair.associations.times.values()
        if times.certificate is not None
    ]
    return max(
        standing or state.certificates.of(_identity(state, name)),
        key=lambda seen: seen.not_before,
        default=None,
    )


def _identity(state: State, name: str) -> str:
    """What a peer of this name proves: that name, but for hosts of blocks."""
    peer = state.peer(name)
    return peer.title if peer is not None else name


def _hold(state: State, one: RevocationList, peers: list[str], *, news: bool) -> None:
    revocations = state.revocations
    revocations.held[one.issuer], revocations.held_peers[one.issuer] = one, peers
    if news:
        state.emit("revocation-held", reason=Reason("revocation-held", str(revocations.held_problem(one))))


def _come_into_force(state: State, one: RevocationList, now: float) -> None:
    revocations, mine = state.revocations, state.settings.credentials
    before = own_revoked(revocations, mine)
    revocations.in_force[one.issuer] = one
    spread = max(_SPREAD, sum(map(_unknown, state.pairs)) / _A_SECOND)
    for pair in state.pairs:
        stand = pair.associations.times.values()
        for times in stand:
            if times.certificate is None or (not times.certain and revocations.revoked(times.certificate)):
                share = zlib.crc32(pair.name.encode()) / 2**32
                pair.doubt = Doubt(since=now, ask_at=now + (share * spread if _unknown(pair) else 0.0))
        if any(times.certificate is not None and revocations.revoked(times.certificate) for times in stand):
            state.pairs.mark(pair)
        elif pair.doubt is not None:
            # There is nothing to decide before it is asked, and ends do not wait for thousands of verdicts.
            ask_at = pair.doubt.ask_at
            state.pairs.schedule(pair, ask_at if pair.timer is None else min(ask_at, pair.timer))
    if (reason := own_revoked(revocations, mine)) and not before:
        state.emit("certificate-revoked", reason=reason)


def _unknown(pair: Pair) -> bool:
    """Whether nothing is known of what its IKE_SAs stand on."""
    stand = pair.associations.times.values()
    return bool(stand) and all(each.certificate is None for each in stand)
