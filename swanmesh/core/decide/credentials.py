"""What charon has to be given beside connections: this host's credentials, and revocation lists."""

from __future__ import annotations

from collections.abc import Iterator

from swanmesh.core.actions import Action, LoadRevocationLists, load_credentials
from swanmesh.core.reasons import MISSING_CREDENTIALS, NEW_LIST
from swanmesh.core.state import State


def load_what_is_missing(state: State, now: float) -> Iterator[Action]:
    """Of a charon that answers."""
    charon, refusals = state.charon, state.charon.credentials_refusals
    if _lacks_credentials(state) and now >= refusals.retry_at:
        charon.credentials_loading = True
        reason = refusals.reason or MISSING_CREDENTIALS
        yield load_credentials(state.settings.credentials, state.settings.host.name, reason)
    missing = _missing_lists(state)
    if missing and now >= charon.lists_refusals.retry_at:
        charon.lists_loading = True
        lists = [one.der for one in state.revocations.in_force.values() if one.fingerprint in missing]
        yield LoadRevocationLists(lists=tuple(lists), fingerprints=missing, reason=NEW_LIST)


def missing_due(state: State) -> float | None:
    """When something of it is due; None if nothing is missing."""
    dues = []
    if _lacks_credentials(state):
        dues.append(state.charon.credentials_refusals.retry_at)
    if _missing_lists(state):
        dues.append(state.charon.lists_refusals.retry_at)
    return min(dues, default=None)


def _lacks_credentials(state: State) -> bool:
    return not state.charon.credentials_loaded and not state.charon.credentials_loading


def _missing_lists(state: State) -> frozenset[str]:
    """Fingerprints."""
    return frozenset() if state.charon.lists_loading else state.revocations.wanted() - state.charon.lists
