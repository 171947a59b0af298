"""What became of an action: done, or refused by charon in its words."""

from __future__ import annotations

from dataclasses import replace

from swanmesh.core.actions import (
    Action,
    Initiate,
    InstallPolicies,
    LoadConnection,
    LoadCredentials,
    RekeyChild,
    RestorePolicies,
    TerminateChild,
    TerminateIke,
    UnloadConnection,
)
from swanmesh.core.decide.initiation import backoff
from swanmesh.core.inputs.kernel import mended
from swanmesh.core.pair import Pair
from swanmesh.core.state import State
from swanmesh.core.transitions import attempt_failed, judge


def take_outcome(state: State, action: Action, error: str | None, now: float) -> None:
    """`error` is None when it was done. An error on one pair is shown as its reason, holds up no other, and
    is tried again after a while."""
    match action:
        case LoadCredentials():
            _credentials(state, error, now)
        case LoadConnection() | UnloadConnection() | Initiate() | TerminateIke() | TerminateChild():
            name = action.connection.name if isinstance(action, LoadConnection) else _name(action)
            pair = state.pairs.get(name)
            if pair is not None:
                _pair(state, pair, action, error, now)
        case RestorePolicies() | InstallPolicies() | RekeyChild():
            pair = state.pairs.get(action.connection)
            if pair is not None:
                mended(state, pair, action, error, now)
        case _:
            pass


def _name(action: UnloadConnection | Initiate | TerminateIke | TerminateChild) -> str:
    return action.name if isinstance(action, UnloadConnection) else action.connection


def _pair(state: State, pair: Pair, action: Action, error: str | None, now: float) -> None:
    pair.busy = False
    state.pairs.mark(pair)
    if error is not None:
        if isinstance(action, Initiate):
            attempt_failed(state, pair, now, error)
        else:
            pair.failures += 1
            pair.error = error
            pair.retry_at = now + backoff(pair.failures, state.settings.initiation, state.rng)
        # charon knows better what it holds than we do.
        state.looks.want_all(now, f"charon refused: {error}")
        return
    if not isinstance(action, Initiate):
        pair.error, pair.failures = "", 0
    match action:
        case LoadConnection(connection=connection):
            pair.loaded = connection.child
        case UnloadConnection():
            pair.loaded = None
        case TerminateIke(unique_id=unique_id):
            _mark_ending(state, pair, unique_id, None, now, action.reason)
        case TerminateChild(unique_id=unique_id):
            _mark_ending(state, pair, None, unique_id, now, action.reason)


def _mark_ending(
    state: State, pair: Pair, ike: int | None, child: int | None, now: float, reason: str
) -> None:
    """charon took the request; the event that it is gone comes when the peer has answered, for an IKE_SA that
    was never established not at all. Until then, and until a look says otherwise, it counts as ending."""
    for unique_id, sa in pair.sas.items():
        if unique_id == ike:
            pair.sas[unique_id] = replace(sa, state="DELETING")
        elif any(known.unique_id == child for known in sa.children):
            children = tuple(
                replace(known, state="DELETING") if known.unique_id == child else known
                for known in sa.children
            )
            pair.sas[unique_id] = replace(sa, children=children)
    judge(state, pair, now, reason)
    state.looks.want(now + 2.0, "an association is being ended")


def _credentials(state: State, error: str | None, now: float) -> None:
    charon = state.charon
    charon.credentials_loaded = error is None
    charon.credentials_error = error or ""
    if error is None:
        charon.credentials_failures = 0
        state.pairs.mark_all()
        return
    charon.credentials_failures += 1
    wait = backoff(charon.credentials_failures, state.settings.initiation, state.rng)
    charon.credentials_at = now + wait
