"""The decision on one address pair: desired x loaded x active x now → the next action, with its reason.

A pair gets one action at a time, and is decided on again with its outcome. So a plan can stop after any
action and be made anew from what charon then holds: there is no state of a half-done plan.

The order of the rules is the order of `_RULES`; the first that has an answer decides. What holds an action
up (charon gone, no place free, a look that must come first) is part of the decision, so that `status`, `plan`
and `wait` show what was decided and work nothing out again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from swanmesh.core import reasons
from swanmesh.core.actions import (
    Action,
    Decision,
    Initiate,
    LoadConnection,
    RekeyChild,
    TerminateIke,
    UnloadConnection,
)
from swanmesh.core.connections import Kind
from swanmesh.core.decide.duplicates import HANDFUL, PILE, end_extras, extras
from swanmesh.core.decide.encapsulation import encapsulating
from swanmesh.core.decide.mending import mend
from swanmesh.core.decide.reauthentication import reauthentication
from swanmesh.core.decide.revoking import revoking
from swanmesh.core.model import Block
from swanmesh.core.observed import IkeSa
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.reasons import NONE, Reason
from swanmesh.core.state import State

FRESH = 3.0
"""Seconds: a look this recent tells whether charon or the peer already tries, before a pair is initiated that
may have been (one tried before, or one that the peer should have initiated); and what stands, before a
duplicate is ended."""
CHILDLESS = 2.0
"""Seconds that an IKE_SA may stand without a CHILD_SA: the two come up in one exchange."""
_UNANSWERED = 12.0
"""Seconds that an IKE_SA may wait for the answer to its first message, or to a DELETE of ours: a little
longer than charon sends those with conf/strongswan.d/swanmesh.conf. Where swanmesh.patient.conf lets it go on
for longer, it does so for associations that carry data, and none of these does."""


Rule = Callable[[Pair, State, float], Decision | None]


def decide(pair: Pair, state: State, now: float) -> Decision:
    """The first rule that has an answer. `pair.busy` is the caller's to heed."""
    decision = next((made for rule in _RULES if (made := rule(pair, state, now)) is not None), Decision())
    if not state.charon.reachable:
        return Decision(action=decision.action, blocked=state.charon.unreachable, reason=decision.reason)
    if pair.doubt is not None and now < pair.doubt.ask_at and not decision.ready:
        decision = replace(decision, due=min(decision.due or pair.doubt.ask_at, pair.doubt.ask_at))
    if pair.associations.unanswered and not decision.ready and not state.charon.abilities.esp_shows_life:
        patience = min(pair.associations.unanswered.values()) + _patience(state, now)
        if now < patience and (decision.due is None or patience < decision.due):
            return replace(decision, due=patience)
    return decision


def _missing_in_kernel(pair: Pair, state: State, now: float) -> Decision | None:
    """What somebody took from the kernel is put back before all else: meanwhile packets cross in clear, or
    not at all."""
    action = mend(pair)
    if action is None:
        return None
    if isinstance(action, RekeyChild) and not state.admission.has_place(pair.name):
        return Decision(action, blocked=reasons.WAITING_FOR_PLACE, reason=action.reason)
    return Decision(action, reason=action.reason)


def _unfit(pair: Pair, state: State, now: float) -> Decision | None:
    """What is not as the pair asked for is ended at once and by force: its peer may be an intruder."""
    if pair.connection is None:
        return None
    breaches = list(pair.associations.breaches)
    if not breaches:
        return None
    _, breach = breaches[0]
    ids = tuple(sa.unique_id for sa, _ in breaches)
    end = TerminateIke(unique_ids=ids, connection=pair.name, peer=pair.peer, force=True, reason=breach)
    return Decision(end, reason=breach)


def _revoked(pair: Pair, state: State, now: float) -> Decision | None:
    """Who proved itself with a certificate that is revoked is ended at once and by force."""
    action = revoking(pair, state.revocations, now)
    if action is None or pair.connection is None:
        return None
    return Decision(action, reason=action.reason)


def _retrying(pair: Pair, state: State, now: float) -> Decision | None:
    """charon refused the last load, unload or termination: it gets time before the next."""
    if pair.refusals.reason and now < pair.refusals.retry_at:
        return Decision(due=pair.refusals.retry_at, reason=pair.refusals.reason.after("charon refused"))
    return None


def _unwanted(pair: Pair, state: State, now: float) -> Decision | None:
    """A peer that is gone is unloaded first, so that no trap brings back what is ended next."""
    if pair.connection is not None:
        return None
    if pair.left_alone:
        return Decision(reason=pair.left_alone)
    if pair.loaded is not None:
        unload = UnloadConnection(name=pair.name, peer=pair.peer, reason=pair.reason)
        return Decision(unload, blocked=_unguarded(pair, state), reason=pair.reason)
    return _end_all(pair, pair.reason)


def _unloaded(pair: Pair, state: State, now: float) -> Decision | None:
    if pair.connection is None or pair.loaded == pair.connection.child:
        return None
    load = LoadConnection(connection=pair.connection, peer=pair.peer, reason=pair.reason)
    return Decision(load, blocked=_unguarded(pair, state), reason=pair.reason)


def _gate(pair: Pair, state: State, now: float) -> Decision | None:
    """A block's gate lets in what others begin."""
    return Decision() if pair.connection is not None and pair.connection.kind is Kind.GATE else None


def _unguarded(pair: Pair, state: State) -> Reason:
    """Why a connection must not be loaded or unloaded yet: what the guard is to cover or to open stands
    before that."""
    entry = state.registry.entry(pair.peer)
    if isinstance(entry, Block):
        return state.guard.missing((entry.cidr.network_address, entry.cidr.prefixlen))
    if pair.addresses is None:
        return NONE
    local, remote = pair.addresses.local, pair.addresses.remote
    return state.guard.missing((remote, remote.max_prefixlen), (local, remote))


def _shunt(pair: Pair, state: State, now: float) -> Decision | None:
    """No association belongs beside a shunt: what `down` leaves, and neighbour discovery."""
    if pair.connection is None or not pair.connection.shunt:
        return None
    return _end_all(pair, reasons.HELD_DOWN if pair.held_down else NONE)


def _patience(state: State, now: float) -> float:
    return _UNANSWERED * state.admission.pace.stretch(now)


def _unanswered(pair: Pair, state: State, now: float) -> Decision | None:
    """What nobody has answered for long is ended by force, where charon itself goes on for longer."""
    held = pair.associations
    if not held.unanswered or state.charon.abilities.esp_shows_life:
        return None
    ids = tuple(
        unique_id
        for unique_id, since in held.unanswered.items()
        if now
        >= (pair.attempt.began or since if held.sas[unique_id].unheard else since) + _patience(state, now)
    )
    if not ids:
        return None
    reason = pair.standing.cause or reasons.NO_ANSWER
    end = TerminateIke(
        unique_ids=ids, connection=pair.name, peer=pair.peer, force=True, reason=reasons.NO_ANSWER
    )
    if state.fresh(pair, now, FRESH):
        return Decision(end, reason=reason)
    # No event tells of an initiation that charon gave up.
    look = Reason("before-ending", f"before what {pair.peer} does not answer is ended")
    return _after_look(end, reason, look, now)


def _extra(pair: Pair, state: State, now: float) -> Decision | None:
    """A proven duplicate is ended by the pair's initiator, or much later by the other end if it stands. An
    IKE_SA without a CHILD_SA is ended by either end; and more than accidents leave is ended without waiting,
    at growing intervals where the peer goes on."""
    if pair.extra_since is None:
        return None
    how, works = state.settings.initiation, pair.associations.works
    others = extras(pair)
    settle = how.duplicate_settle + (0 if pair.initiator else how.takeover)
    if len(others) > HANDFUL:
        settle = 0.0
    elif not works or (others and not any(sa.works for sa in others)):
        settle = CHILDLESS
    ends = pair.extra_since + settle
    if len(others) <= PILE:
        ends = max(ends, pair.flood.until)
    if now < ends:
        return Decision(due=ends, reason=NONE if works else reasons.NO_CHILD)
    action = end_extras(pair)
    if action is None:
        return None
    if pair.seen < pair.extra_since or not state.fresh(pair, now, FRESH):
        # Events tell of no IKE_SA that somebody else has begun to end, nor of one that charon lost silently.
        look = Reason("before-ending", f"before a duplicate of {pair.peer} is ended")
        return _after_look(action, NONE if works else reasons.NO_CHILD, look, now)
    return Decision(action, reason=pair.flood.reason)


def _encapsulate(pair: Pair, state: State, now: float) -> Decision | None:
    """ESP is carried otherwise: make before break."""
    action = encapsulating(pair)
    if action is None:
        return None
    reason = pair.path.dead
    if isinstance(action, Initiate):
        if (waiting := _under_way(pair, state, now)) is not None:
            return replace(waiting, reason=reason)
        if missing := state.charon.lacks_credentials:
            return Decision(action, blocked=missing, reason=reason)
        if not state.admission.has_place(pair.name):
            return Decision(action, blocked=reasons.WAITING_FOR_PLACE, reason=reason)
    return Decision(action, reason=reason)


def _no_data(pair: Pair, state: State, now: float) -> Decision | None:
    """An association stands and nothing passes through it: another one is made beside it, with new states at
    both ends whatever was wrong with these, and takes its place."""
    path = pair.path
    if not path.dead or pair.connection is None or not pair.associations.works:
        return None
    again = Initiate(connection=pair.name, child=pair.connection.child, peer=pair.peer, reason=path.dead)
    if (waiting := _under_way(pair, state, now)) is not None:
        return replace(waiting, reason=path.dead)
    if now < path.mend_at:
        return Decision(due=path.mend_at, reason=path.dead)
    if missing := state.charon.lacks_credentials:
        return Decision(again, blocked=missing, reason=path.dead)
    if not state.admission.has_place(pair.name):
        return Decision(again, blocked=reasons.WAITING_FOR_PLACE, reason=path.dead)
    return Decision(again, reason=path.dead)


def _working(pair: Pair, state: State, now: float) -> Decision | None:
    """An association stands; what is wrong with it all the same is told."""
    standing = next(pair.associations.counting, None)
    if standing is None:
        return Decision(due=now + 2.0) if pair.up else None  # up without one: half-way through a rekey
    return _reauthentication(
        pair, standing, state, now, pair.flood.reason or pair.mtu.reason or pair.traffic.one_way
    )


def _reauthentication(pair: Pair, standing: IkeSa, state: State, now: float, warning: Reason) -> Decision:
    """An association that works is authenticated anew when it is time."""
    foreseen = reauthentication(pair, standing, state.settings, state.certificates)
    if foreseen is None:
        return Decision(reason=warning)
    if now < foreseen.at:
        return Decision(due=foreseen.at, reason=warning)
    return Decision(foreseen.action, reason=warning)


def _under_way(pair: Pair, state: State, now: float) -> Decision | None:
    if not pair.under_way:
        return None
    attempt, reason = pair.attempt, pair.standing.cause or reasons.CONNECTING
    # An IKE_SA that stands already may have lost its CHILD_SA without a word.
    stands = any(sa.established for sa in pair.sas.values())
    if attempt.began is None or stands:
        due = now + CHILDLESS if stands else max(attempt.next_at, now + 1.0)
        look = Reason("under-way", f"an exchange with {pair.peer} is under way")
        return Decision(due=due, reason=reason, look=NONE if pair.up else look, look_at=due)
    due = max(attempt.look_at, now + 1.0)
    if now < attempt.look_at:
        return Decision(due=due, reason=reason)
    look = Reason("no-outcome", f"no outcome of the initiation to {pair.peer}")
    return Decision(due=due, reason=reason, look=look, look_at=now)


def _down(pair: Pair, state: State, now: float) -> Decision | None:
    """Initiate, once it is time, with credentials loaded, nothing under way already, and a place free."""
    if pair.connection is None:
        return None
    attempt, cause = pair.attempt, pair.standing.cause
    turn = reasons.OURS_TO_INITIATE if pair.initiator else reasons.PEER_DID_NOT_INITIATE
    action = Initiate(
        connection=pair.name,
        child=pair.connection.child,
        peer=pair.peer,
        reason=cause.after(turn.words) if cause else turn,
    )
    reason = cause or reasons.CONNECTING
    if now < attempt.next_at:
        waiting = reasons.WAITING_TO_INITIATE if pair.initiator else reasons.WAITING_FOR_PEER
        return Decision(action, blocked=waiting, due=attempt.next_at, reason=cause or waiting)
    if missing := state.charon.lacks_credentials:
        return Decision(action, blocked=missing, reason=missing)
    if not state.admission.has_place(pair.name):
        return Decision(action, blocked=reasons.WAITING_FOR_PLACE, reason=cause or reasons.WAITING_FOR_PLACE)
    if (attempt.failed or not pair.initiator) and not state.fresh(pair, now, FRESH):
        return _after_look(
            action, reason, Reason("before-initiating", f"before initiating to {pair.peer}"), now
        )
    return Decision(action, reason=reason)


_RULES: tuple[Rule, ...] = (
    _unfit,
    _revoked,
    _missing_in_kernel,
    _retrying,
    _unanswered,
    _unwanted,
    _unloaded,
    _gate,
    _shunt,
    _encapsulate,
    _extra,
    _no_data,
    _working,
    _under_way,
    _down,
)


def _after_look(action: Action, reason: Reason, look: Reason, now: float) -> Decision:
    """The action waits for a look at charon, as what it stands on may be old."""
    waiting = reasons.WAITING_FOR_LOOK
    return Decision(action, blocked=waiting, due=now + FRESH, reason=reason, look=look, look_at=now)


def _end_all(pair: Pair, reason: Reason) -> Decision:
    """End the pair's IKE_SAs; those that are already being ended go by themselves."""
    ids = tuple(sa.unique_id for sa in pair.sas.values() if not sa.ending)
    if not ids:
        return Decision(reason=reason)
    end = TerminateIke(unique_ids=ids, connection=pair.name, peer=pair.peer, reason=reason)
    return Decision(end, reason=reason)
