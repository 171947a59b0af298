"""What is known of a pair as an action begins, and what became of it: done, or refused by charon or the
kernel in its words."""

from __future__ import annotations

from swanmesh.core import reasons
from swanmesh.core.actions import (
    Action,
    ChangeGuard,
    Initiate,
    InstallPolicies,
    LimitPath,
    LoadConnection,
    LoadCredentials,
    LoadRevocationLists,
    RekeyChild,
    RekeyIke,
    RestorePolicies,
    TerminateChild,
    TerminateIke,
    UnloadConnection,
)
from swanmesh.core.inputs.guard import guard_changed
from swanmesh.core.inputs.kernel import mended
from swanmesh.core.inputs.transitions import attempt_failed, judge
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.reasons import FLOODING, NOT_AS_AGREED, Cause, Reason, refused
from swanmesh.core.state import State

_TOLD = 60.0
"""Seconds for which that a certificate is revoked, once told, is no news."""


def begin_action(state: State, pair: Pair, action: Action, now: float) -> None:
    """What is known of the pair as its action begins."""
    pair.busy = True
    state.admission.asked(pair.name, now)
    match action:
        case Initiate():
            pair.attempt.began = now
            pair.attempt.look_at = now + max(
                state.settings.initiation.attempt_look, state.admission.pace.patience(now)
            )
            pair.diagnoses.clear()
            pair.path.tries_again(now)
            if pair.udp.begin:
                pair.udp.begin, pair.udp.asked = reasons.NONE, now
        case RekeyIke(unique_id=renewed):
            pair.reauthentication_asked = {renewed: now}
        case TerminateIke(unique_ids=ended, reason=reason) if pair.connection is not None:
            for unique_id in ended:
                pair.diagnose(unique_id, reason)
            if reason.code == FLOODING:
                pair.flood.note(reason, now)
            if reason.code == Cause.CERTIFICATE_REVOKED:
                pair.associations.distrusted = True
                if now - pair.revoked_shown[0] > _TOLD:  # else it was told as charon said it
                    state.emit("certificate-revoked", state.peer(pair.peer), reason)
            if reason.code in (NOT_AS_AGREED, FLOODING) and pair.violation.note(reason, now):
                state.emit("peer-violation", state.peer(pair.peer), reason)


def take_outcome(state: State, action: Action, error: str | None, now: float) -> None:
    """`error` is None when it was done. An error on one pair is shown as its reason, holds up no other, and
    is tried again after a while."""
    if isinstance(action, LoadCredentials):
        _credentials(state, error, now)
        return
    if isinstance(action, LoadRevocationLists):
        _lists(state, action, error, now)
        return
    if isinstance(action, ChangeGuard):
        guard_changed(state, action, error, now)
        return
    state.admission.answered(action.pair, now)
    pair = state.pairs.get(action.pair)
    if pair is None:
        return
    match action:
        case RestorePolicies() | InstallPolicies() | RekeyChild():
            mended(state, pair, action, error, now)
        case LimitPath():
            pair.mtu.error = error or ""
            state.pairs.mark(pair)
        case RekeyIke():
            # Whether anything comes of it the events tell; one that came to nothing is asked for again.
            pair.busy = pair.busy and action.unique_id not in pair.reauthentication_asked
            state.pairs.mark(pair)
        case _:
            pair.busy = False
            state.pairs.mark(pair)
            if error is not None:
                _refused(state, pair, action, refused(error), now)
            else:
                _done(state, pair, action, now)


def _refused(state: State, pair: Pair, action: Action, error: Reason, now: float) -> None:
    if isinstance(action, Initiate):
        said = pair.standing.cause
        attempt_failed(state, pair, now, said if said.code == Cause.UNSUPPORTED_ALGORITHM else error)
    elif isinstance(action, TerminateIke):
        # Most likely it is gone already. Until the look says otherwise it is not asked for again.
        pair.associations.note_ending(action.unique_ids, None, now)
        judge(state, pair, now, action.reason)
    else:
        pair.refusals.note(error, now, state.settings.initiation, state.rng)
    # charon knows better what it holds than we do.
    state.observation.want_all(now, error.after("charon refused"))


def _done(state: State, pair: Pair, action: Action, now: float) -> None:
    if not isinstance(action, Initiate):
        pair.refusals.reason, pair.refusals.count = reasons.NONE, 0
    match action:
        case LoadConnection(connection=connection):
            pair.loaded = connection.child
        case UnloadConnection():
            pair.loaded = None
        case TerminateIke():
            pair.associations.note_ending(action.unique_ids, None, now)
            _ended(state, pair, action.reason, now)
            if action.force:
                # What it displaced in the kernel must be back at once; the kernel's word decides.
                state.kernel.want(now, Reason("after-ending", "an association was ended by force"))
        case TerminateChild(unique_id=unique_id):
            pair.associations.note_ending((), unique_id, now)
            _ended(state, pair, action.reason, now)


def _ended(state: State, pair: Pair, reason: Reason, now: float) -> None:
    judge(state, pair, now, reason)
    if pair.attempt.began is not None and not pair.associations.works:
        said = next(reversed(pair.diagnoses.values()), reasons.NONE)
        attempt_failed(state, pair, now, said or reason)
    elif not pair.up:
        pair.standing.cause = reason
    state.observation.want(now + 2.0, reasons.BEING_ENDED)


def _credentials(state: State, error: str | None, now: float) -> None:
    charon = state.charon
    charon.credentials_loading, charon.credentials_loaded = False, error is None
    if error is None:
        charon.credentials_refusals.reason, charon.credentials_refusals.count = reasons.NONE, 0
    else:
        charon.credentials_refusals.note(refused(error), now, state.settings.initiation, state.rng)
    state.pairs.mark_all()


def _lists(state: State, action: LoadRevocationLists, error: str | None, now: float) -> None:
    """What charon does not take holds nothing up: who is on it is ended here."""
    charon = state.charon
    charon.lists_loading = False
    if error is None:
        charon.lists |= action.fingerprints
        charon.lists_refusals.reason, charon.lists_refusals.count = reasons.NONE, 0
    else:
        charon.lists_refusals.note(refused(error), now, state.settings.initiation, state.rng)
