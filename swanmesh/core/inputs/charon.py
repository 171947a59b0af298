"""What charon tells, taken in: that it answers or does not, and its events."""

from __future__ import annotations

from swanmesh.core import reasons
from swanmesh.core.abilities import Abilities
from swanmesh.core.connections import ours
from swanmesh.core.credentials.expiry import in_words
from swanmesh.core.credentials.revocation import own_revoked
from swanmesh.core.desired import terms
from swanmesh.core.inputs.files import everybody, peers_changed
from swanmesh.core.inputs.holdings import stray, take_connections, take_credentials, take_sas
from swanmesh.core.inputs.members import pair_of, recall
from swanmesh.core.inputs.revocation import take_shown
from swanmesh.core.inputs.transitions import attempt_failed, first_attempt, judge, retry_later
from swanmesh.core.observed import (
    UNDER_WAY,
    CertificatesShown,
    ChildDown,
    ChildRekeyed,
    Diagnosis,
    Event,
    Hint,
    Holdings,
    IkeDown,
    IkeRekeyed,
    IkeSa,
    InitiationRefused,
)
from swanmesh.core.pairs.associations import SaEvent
from swanmesh.core.pairs.pair import Refusals
from swanmesh.core.reasons import LACKING_CREDENTIALS, NONE, Cause, Reason
from swanmesh.core.state import State

_DOUBT = 10.0
"""Seconds between looks at charon for such causes: a stranger can bring them about as often as he likes."""
_START = 60.0
"""Seconds over which the first initiations are spread at most."""
_BURST = 0.2
"""Seconds: who takes one thing takes more, and one look is to show it all. What goes while it is under way
brings another."""


def take_event(state: State, event: Event, now: float) -> None:
    """One event of charon's. Those of connections that are not ours are passed over."""
    match event:
        case Diagnosis():
            _take_diagnosis(state, event, now)
        case Hint():
            _take_hint(state, event, now)
        case CertificatesShown():
            take_shown(state, event, now)
        case InitiationRefused():
            state.early_peers.note(event.local, event.remote, now)
        case _:
            _take_sa_event(state, event, now)


def _take_sa_event(state: State, event: SaEvent, now: float) -> None:
    ike = event.new if isinstance(event, IkeRekeyed) else event.ike
    if not ours(ike.connection):
        return
    if isinstance(event, IkeRekeyed):
        heir = state.members.ike_sas.get(event.old_id)
        if heir is not None:
            state.members.ike_sas[ike.unique_id] = heir
    pair = pair_of(state, ike, now)
    if pair is None:
        if isinstance(event, IkeDown | ChildDown):
            return
        pair = stray(state, ike.connection, now)
    state.observation.touch(pair.name)
    if isinstance(event, ChildDown | ChildRekeyed):
        pair.traffic.last_of(event.ike.children)
    pair.associations.apply(event, now)
    cause = NONE
    if isinstance(event, IkeDown):
        cause = pair.diagnoses.pop(ike.unique_id, NONE) or ending(ike)
        pair.standing.ended = ike.unique_id
    elif isinstance(event, ChildDown):
        cause = pair.diagnoses.get(ike.unique_id, NONE) or reasons.CHILD_DELETED
    judge(state, pair, now, cause)
    if isinstance(event, IkeDown) and pair.attempt.began is not None and not pair.sas:
        attempt_failed(state, pair, now, cause)


def _take_hint(state: State, hint: Hint, now: float) -> None:
    """Unless the trap that is gone is one that we are changing, or have changed, ourselves."""
    if hint.unloaded:
        state.unloaded.add(hint.unloaded)
    at = now + _BURST
    if state.observation.full_wanted(at):
        return
    if not hint.child or any(pair.loaded == hint.child and not pair.busy for pair in state.pairs):
        state.observation.want_all(at, hint.reason)


def _take_diagnosis(state: State, event: Diagnosis, now: float) -> None:
    """charon's log has a queue of its own: its words come before or after the event that they explain."""
    pair = state.pairs.get(event.connection)
    if pair is None or event.cause.code == Cause.ENDED_HERE:  # which the event tells, or we know better
        return
    if event.cause.code in LACKING_CREDENTIALS and now - state.charon.doubted >= _DOUBT:
        # The peer may be at fault, or somebody cleared our credentials: no event tells of that.
        state.charon.doubted = now
        state.observation.want_all(now, event.cause.after("authentication failed"))
    if event.cause.code == Cause.CERTIFICATE_REVOKED:
        pair.revoked_shown = (now, event.cause)
        if pair.up and not pair.associations.distrusted:
            state.emit("certificate-revoked", state.peer(pair.peer), event.cause)
        state.pairs.mark(pair)
    ended, attempt = event.unique_id == pair.standing.ended, pair.attempt
    cause = _with_ours(state, event.cause, now)
    if not ended:
        pair.diagnose(event.unique_id, cause)
    refused = event.cause.code == Cause.UNSUPPORTED_ALGORITHM  # with the answer to our request, or after it
    if pair.up or (not ended and not refused and attempt.began is None):
        return
    pair.standing.cause = cause
    if attempt.began is not None:
        # The attempt may have ended without an event.
        attempt.look_at = min(attempt.look_at, now + 0.5)
    else:
        retry_later(state, pair, now, cause)
    state.pairs.mark(pair)


def _with_ours(state: State, cause: Reason, now: float) -> Reason:
    """Where the peer did not take this host's certificate, which one that was."""
    offset = state.certificates.offset
    if cause.code != Cause.AUTHENTICATION_FAILED_AT_PEER or offset is None:
        return cause
    mine = state.settings.credentials
    told = own_revoked(state.revocations, mine).words or in_words(mine, now + offset)
    return Reason(cause.code, f"{cause.words}; {told}")


def charon_back(state: State, holdings: Holdings, abilities: Abilities, now: float) -> None:
    """charon answers (again): everything known of it is what it holds now."""
    charon = state.charon
    before = terms(state.settings, charon.abilities)
    charon.reachable, charon.reason, charon.since = True, NONE, now
    charon.version, charon.algorithms = abilities.version, abilities.algorithms
    charon.emptied = not any(ours(connection.name) for connection in holdings.connections)
    if terms(state.settings, abilities) != before:
        why = NONE if state.observed_once else reasons.NEW_PEER
        peers_changed(state, everybody(state), now, why)
    recall(state, holdings, now)
    take_connections(state, holdings.connections, now)
    take_credentials(state, holdings.credentials)
    shown = {sa.connection for sa in holdings.sas if sa.works}
    charon.lists = holdings.credentials.revocation_lists
    for pair in state.pairs:
        pair.associations.distrusted = False
        pair.standing.lost = pair.up and pair.name not in shown
    # What charon still tries keeps its place; what it does not show it has forgotten, or never heard of.
    tries = {sa.connection for sa in holdings.sas if sa.state in UNDER_WAY and sa.initiator}
    for pair in state.pairs:
        if pair.attempt.began is not None and pair.name not in tries:
            pair.attempt.began = None
            state.admission.release(pair.name)
    take_sas(state, holdings.sas, now, now, frozenset(), whole=True)
    cold = not state.observed_once and not any(pair.up for pair in state.pairs)
    if cold and state.began is not None:
        state.start_took = min(now - state.began, _START)
    for pair in state.pairs:
        if not pair.up:
            if pair.standing.lost:
                pair.standing.cause = reasons.LOST_WITH_CHARON
            first_attempt(state, pair, now)
    state.start_took = 0.0
    state.pairs.mark_all()
    state.observation.want_all(now + state.settings.initiation.resync, reasons.SAFETY_NET)


def charon_lost(state: State, reason: Reason, now: float) -> None:
    """charon does not answer. What it holds may go on working in the kernel: nobody is told that a peer is
    down before charon is back and shows it."""
    charon = state.charon
    if charon.reachable or not charon.since:
        charon.since = now
    charon.reachable, charon.reason = False, reason
    charon.credentials_loaded = charon.credentials_loading = False
    charon.credentials_refusals = Refusals()
    charon.lists, charon.lists_loading, charon.lists_refusals = frozenset(), False, Refusals()
    state.admission.lost(now)
    state.observation.reset()
    for pair in state.pairs:
        pair.busy, pair.refusals = False, Refusals()
        state.pairs.schedule(pair, None)
    state.pairs.mark_all()


def ending(ike: IkeSa) -> Reason:
    """Why an IKE_SA went down, from the state and the tasks that `ike-updown` shows. A Diagnosis from
    charon's log says more and takes precedence.

    Source: what ike_sa.c and task_manager_v2.c leave in place when they raise ike_updown: a DELETE that came
    is a passive task, one that we sent an active one; giving up after retransmissions leaves the task that
    had no answer (checked on 5.9.8).
    """
    if ike.state == "DELETING":
        if "IKE_DELETE" in ike.tasks_passive:
            return Reason(Cause.PEER_DELETED, "peer deleted it")
        if "IKE_DELETE" in ike.tasks_active:
            return Reason(Cause.ENDED_HERE, "ended at this end")
        return Reason(Cause.ENDED_HERE, "ended")
    if ike.state == "CONNECTING":
        return Reason(Cause.NEGOTIATION_FAILED, "authentication or negotiation failed")
    if ike.tasks_active:
        tasks = ", ".join(ike.tasks_active)
        return Reason(Cause.PEER_UNREACHABLE, f"peer unreachable: no answer to {tasks}")
    return Reason(Cause.PEER_BEGAN_ANEW, "the peer lost its state and began anew")
