"""What charon shows, taken in: looks at it as a whole, and its events."""

from __future__ import annotations

from collections.abc import Iterable

from swanmesh.core import reasons
from swanmesh.core.abilities import Abilities
from swanmesh.core.connections import (
    Kind,
    kind_of,
    ours,
    ours_loaded,
    peer_of,
)
from swanmesh.core.credentials.expiry import in_words
from swanmesh.core.credentials.revocation import own_revoked
from swanmesh.core.decide.encapsulation import AFTER_THE_PEER
from swanmesh.core.desired import terms
from swanmesh.core.encapsulation import Mode
from swanmesh.core.inputs.data_path import count
from swanmesh.core.inputs.files import everybody, peers_changed, wanted_connections
from swanmesh.core.inputs.members import forget_ike_sas, pair_of, recall
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
    LoadedConnection,
    LoadedCredentials,
)
from swanmesh.core.pairs.associations import SaEvent
from swanmesh.core.pairs.pair import Pair, Refusals
from swanmesh.core.reasons import LACKING_CREDENTIALS, NONE, Cause, Reason
from swanmesh.core.state import State

_DOUBT = 10.0
"""Seconds between looks at charon for such causes: a stranger can bring them about as often as he likes."""
_START = 60.0
"""Seconds over which the first initiations are spread at most."""
_BURST = 0.2
"""Seconds: who takes one thing takes more, and one look is to show it all. What goes while it is under way
brings another."""
_STARTING = 60.0
"""Seconds after charon's start in which its unit may still load what swanctl.conf says."""
_YOUNG = 2.0
"""Seconds that an initiation may take to show as an IKE_SA: a busy charon begins it some time after it took
the request."""


def take_connections(state: State, connections: Iterable[LoadedConnection], now: float) -> None:
    """What is loaded, as `list-conns` shows it: ours alone."""
    held: dict[str, str] = {}
    down: set[str] = set()
    adopted: set[str] = set()
    for conn in connections:
        known = state.pairs.get(conn.name)
        if known is not None and conn.children == (known.loaded,):
            held[conn.name] = conn.children[0]
            continue
        if not ours_loaded(conn) or not conn.children:
            continue
        held[conn.name] = child = conn.children[0]
        pair = known or _stray(state, conn.name, now)
        if pair.connection is not None and child != pair.connection.child:
            pair.reason = reasons.ANOTHER_VERSION
            adopted |= _adopt(state, pair, child, now)
            if (
                kind_of(child) is not Kind.ASSOCIATION
                and pair.addresses is not None
                and not state.observed_once
            ):
                down |= {pair.peer} - state.called_up
        pair.loaded = child
        state.pairs.mark(pair)
    for pair in state.pairs:
        if pair.name not in held and pair.loaded is not None:
            pair.loaded = None
            if pair.connection is not None:
                pair.reason = _unloaded(state, now)
            state.pairs.mark(pair)
    if adopted:
        peers_changed(state, adopted, now)
    if down:
        # The last `down` of the operator outlives this controller: charon holds the shunt that it left.
        state.down |= down
        peers_changed(state, down, now)


def _adopt(state: State, pair: Pair, child: str, now: float) -> set[str]:
    """The mode of encapsulation that the last controller left a pair in goes on. Returns whom it concerns."""
    if state.observed_once or not state.settings.automatic_encapsulation:
        return set()
    for mode in (Mode.FORCED, Mode.ACCEPTED):
        wanted = wanted_connections(state, state.peer(pair.peer), mode)
        if pair.name in wanted and wanted[pair.name][1].child == child:
            pair.udp.turn(mode, reasons.NONE, now)
            # The end that forces UDP tries ESP first: two trials at once leave associations that cross.
            turn = 1.0 if mode is Mode.FORCED else AFTER_THE_PEER
            pair.udp.confirmed(now, turn * state.settings.probe.again)
            return {pair.peer}
    return set()


def forget_unloaded(state: State, now: float) -> None:
    """What charon's log said was unloaded is loaded again at once, and not initiated before that. One pass
    serves all that was said since the last one: who unloads one unloads thousands."""
    if not state.unloaded:
        return
    for pair in state.pairs:
        if pair.loaded is None or pair.busy or state.unloaded.isdisjoint((pair.name, pair.loaded)):
            continue
        pair.loaded = None
        if pair.connection is not None:
            pair.reason = _unloaded(state, now)
        state.pairs.mark(pair)
    state.unloaded.clear()


def _unloaded(state: State, now: float) -> Reason:
    """Why a connection that charon held is gone, by another's hand."""
    started = state.charon.emptied and now < state.charon.since + _STARTING
    return reasons.UNLOADED_AT_START if started else reasons.UNLOADED


def take_credentials(state: State, credentials: LoadedCredentials) -> None:
    mine, charon = state.settings.credentials, state.charon
    state.certificates.take(credentials.seen, state.identities())
    wanted = {mine.certificate_id, *mine.authority_ids}
    loaded = mine.key_id in credentials.key_ids and wanted <= credentials.certificates
    # Where others cleared charon's credentials the lists went with them, though its cache may show some.
    charon.lists = charon.lists | credentials.revocation_lists if loaded else frozenset()
    if loaded != charon.credentials_loaded:
        charon.credentials_loaded = loaded
        state.pairs.mark_all()


def take_sas(state: State, sas: Iterable[IkeSa], now: float, began: float, touched: frozenset[str]) -> None:
    """All IKE_SAs, as a look that began at `began` showed them. What events touched since is left to them."""
    of: dict[str, list[IkeSa]] = {}
    sas = list(sas)
    for sa in sas:
        pair = pair_of(state, sa, now) or (_stray(state, sa.connection, now) if ours(sa.connection) else None)
        if pair is not None:
            of.setdefault(pair.name, []).append(sa)
    forget_ike_sas(state, (sa.unique_id for sa in sas))
    for pair in state.pairs:
        if pair.name in touched:
            continue
        pair.seen = began
        shown = of.get(pair.name, [])
        if not shown and not pair.sas and pair.attempt.began is None and not pair.up:
            if pair.attempt.next_at <= now and not state.admission.waits(pair.name):
                state.pairs.mark(pair)
            continue
        told = pair.traffic.one_way
        pair.traffic.count(shown, now)
        if not state.kernel.watched:
            count(
                state,
                pair,
                [(c.spi_in, c.packets_in, c.packets_out) for sa in shown for c in sa.children],
                began,
                now,
            )
        pair.flood.forget(now)
        settled = pair.up and pair.extra_since is None and pair.standing.rekeying_since is None
        if settled and list(pair.sas.values()) == shown:
            pair.associations.recount(shown)
            if pair.traffic.one_way != told:
                state.pairs.mark(pair)
            continue
        pair.associations.observe(shown, now)
        judge(state, pair, now, reasons.GONE_FROM_CHARON)
        if pair.attempt.began is not None and pair.attempt.began < began:
            _judge_attempt(state, pair, now)


def _judge_attempt(state: State, pair: Pair, now: float) -> None:
    """An initiation without an outcome: charon still tries, or it gave up without telling."""
    attempt = pair.attempt
    if pair.associations.under_way:
        attempt.look_at = now + state.settings.initiation.attempt_look / 2
        return
    began = attempt.began or 0.0
    young = max(_YOUNG, state.admission.pace.patience(now))
    if not pair.sas and now < began + young:
        attempt.look_at = began + young
        return
    childless = any(sa.established for sa in pair.sas.values())
    said = next(reversed(pair.diagnoses.values()), NONE)
    attempt_failed(state, pair, now, said or (reasons.NO_CHILD if childless else reasons.NO_ANSWER))


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
        pair = _stray(state, ike.connection, now)
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
    take_sas(state, holdings.sas, now, now, frozenset())
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


def _stray(state: State, name: str, now: float) -> Pair:
    """A connection or IKE_SA of ours that no file accounts for: a peer was removed while nobody watched."""
    pair = Pair(name=name, peer=peer_of(name), left_alone=state.hold, reason=reasons.UNKNOWN_PEER)
    pair.standing.since = now
    return state.pairs.add(pair)
