"""What stands in the way of `require`, peer by peer: `policy report`, and what `policy set` refuses for."""

from __future__ import annotations

from dataclasses import dataclass

from swanmesh.core import reasons
from swanmesh.core.inputs.guard import up_since
from swanmesh.core.model import Host, Peer
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.reasons import NONE, Cause, Reason
from swanmesh.core.state import State
from swanmesh.core.verdict import Verdict, peer_verdict

_NO_MEMBER = frozenset(
    {
        Cause.AUTHORITY_UNKNOWN,
        Cause.AUTHENTICATION_FAILED_HERE,
        Cause.CERTIFICATE_DATES,
        Cause.CERTIFICATE_REVOKED,
        Cause.IDENTITY_MISMATCH,
    }
)
"""Whoever answers has no certificate that makes it this peer."""
_REMEDIES: dict[str, str] = {
    Cause.PEER_UNREACHABLE: "is strongSwan installed and running there, and UDP 500 let through?",
    Cause.NO_CONNECTION_AT_PEER: "has it this host in its peers.d, with a policy that connects?",
    Cause.AUTHORITY_UNKNOWN: "give it a certificate of the mesh's authority",
    Cause.AUTHENTICATION_FAILED_AT_PEER: "does it know the authority of this host's certificate?",
    Cause.CERTIFICATE_DATES: "renew its certificate, and look at its clock",
    reasons.ONE_WAY: "is ESP (IP protocol 50) let through?",
    reasons.POLICY_OFF: "set it to `prefer` first, and look again",
    reasons.POLICY_MONITOR: "set it to `prefer` first, and look again",
    reasons.HELD_DOWN.code: "run: swanmesh up PEER",
    reasons.DISABLED.code: "run: swanmesh enable",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """How ready one peer is for `require`."""

    verdict: Verdict
    member: bool | None
    """Whether it answers with a certificate of the mesh that names it; None as long as that is not known."""
    obstacle: Reason
    """Why it would be cut off, in words with what to do; NONE while every address pair is up."""
    settled: bool
    """Whether charon and the kernel's guard hold for it what its policy calls for."""
    up_since: float | None
    """When the last of its pairs was noticed to have come up, with what crossed it; None unless all are."""
    lacks: tuple[int, ...]
    """IP versions that this host has an address of and the peer none: what crosses there is in clear."""


def readiness(state: State, peer: Peer, now: float) -> Readiness:
    verdict = peer_verdict(state, peer, now)
    pairs = state.pairs.of(peer.name)
    up = verdict.state == "up"
    obstacle = NONE if up else verdict.reason or reasons.CONNECTING
    remedy = _REMEDIES.get(obstacle.code, "")
    times = (at for pair in pairs if (at := up_since(pair)) is not None)
    return Readiness(
        verdict=verdict,
        member=_member(state, peer, pairs, now),
        obstacle=Reason(obstacle.code, f"{obstacle.words}; {remedy}") if remedy else obstacle,
        settled=_settled(state, peer, pairs),
        up_since=max(times, default=None) if up else None,
        lacks=lacking_families(state.settings.host, peer),
    )


def lacking_families(host: Host, peer: Peer) -> tuple[int, ...]:
    """IP versions that this host has an address of, and the peer none. A host that a block let in is each of
    its addresses."""
    if peer.block:
        return ()
    mine = {address.version for address in host.addresses}
    return tuple(sorted(mine - {address.version for address in peer.addresses}))


def _member(state: State, peer: Peer, pairs: list[Pair], now: float) -> bool | None:
    if any(sa.established for pair in pairs for sa in pair.associations.counting):
        return True
    if any(pair.standing.cause.code in _NO_MEMBER for pair in pairs):
        return False
    offset = state.certificates.offset
    if offset is not None and state.certificates.possible(peer.name, now + offset):
        return True  # it proved itself before
    return None


def _settled(state: State, peer: Peer, pairs: list[Pair]) -> bool:
    covers = [(address, address.max_prefixlen) for address in peer.addresses]
    openings = [(at.local, at.remote) for pair in pairs if (at := pair.addresses) is not None]
    if state.guard.missing(*covers, *openings):
        return False
    if state.settings.override.disabled and state.guard.expected and not state.guard.refused:
        return True  # the guard lets all pass, whatever charon still has to be rid of
    return state.charon.reachable and all(_held(pair) for pair in pairs)


def _held(pair: Pair) -> bool:
    """Whether charon holds what is wanted."""
    if pair.connection is None:
        return pair.loaded is None and not pair.sas
    return pair.loaded == pair.connection.child
