"""Other authorities are believed than before: what stands on one that was dropped ends, slips apart."""

from __future__ import annotations

from swanmesh.core.inputs.revocation import certificate_of
from swanmesh.core.model import Credentials, Problem
from swanmesh.core.peers.removals import some, too_many
from swanmesh.core.state import State


def authorities_changed(state: State, before: Credentials) -> None:
    """Peers that have shown nothing but certificates of a dropped authority are ended, unless these are many
    at once: those live on to the end of their certificates."""
    mine, certificates = state.settings.credentials, state.certificates
    dropped = before.issuers - mine.issuers
    certificates.spared -= mine.issuers
    certificates.dropped -= mine.issuers
    if not dropped:
        return
    if too_many(len(_standing_on(state, dropped)), len(state.registry.peers)):
        certificates.spared |= dropped
    else:
        certificates.dropped |= dropped
        state.pairs.mark_all()


def authority_problems(state: State, file: str) -> list[Problem]:
    """What the operator should know of authorities that were dropped while many stood on them."""
    names = _standing_on(state, state.certificates.spared)
    if not names:
        return []
    message = (
        f"an authority was taken out on which {len(names)} peers stand ({some(names)}): "
        "they stay up until their certificates end, and do not come up again"
    )
    remedy = "put it back until they are renewed, or end them: swanmesh down PEER…"
    return [Problem(file, "credentials.authorities", "", message, remedy)]


def _standing_on(state: State, authorities: frozenset[str]) -> list[str]:
    """Names of the peers that last showed a certificate of one of these."""
    if not authorities:
        return []
    shown = ((peer.title, certificate_of(state, peer.name)) for peer in state.peers())
    return sorted(name for name, seen in shown if seen is not None and seen.issuer in authorities)
