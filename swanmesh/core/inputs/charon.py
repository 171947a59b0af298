"""What charon shows, taken in: looks at it as a whole, and its events."""

from __future__ import annotations

import re
from collections.abc import Iterable

from swanmesh.core.connections import is_shunt, ours, ours_loaded, peer_of
from swanmesh.core.endings import CHARON_GONE, ending
from swanmesh.core.inputs.files import peers_changed
from swanmesh.core.observed import (
    UNDER_WAY,
    ChildDown,
    Diagnosis,
    Event,
    Hint,
    Holdings,
    IkeDown,
    IkeRekeyed,
    IkeSa,
    Knocked,
    LoadedConnection,
    LoadedCredentials,
)
from swanmesh.core.pair import Pair
from swanmesh.core.state import State
from swanmesh.core.transitions import attempt_failed, first_attempt, judge

_CREDENTIALS = re.compile(r"no private key is loaded|no trusted (key|authority)")
"""Causes that charon gives when it lacks our key or the mesh's authorities."""
_DOUBT = 10.0
"""Seconds between looks at charon for such causes: a stranger can bring them about as often as he likes."""
_BURST = 0.2
"""Seconds: who takes one thing takes more, and one look is to show it all. What goes while it is under way
brings another."""
_NO_ANSWER = "peer unreachable: no answer"
_YOUNG = 2.0
"""Seconds that an initiation may take to show as an IKE_SA: a busy charon begins it some time after it took
the request."""
_DIAGNOSES = 8
"""IKE_SAs of a pair whose diagnoses are kept."""


def take_connections(state: State, connections: Iterable[LoadedConnection], now: float) -> None:
    """What is loaded, as `list-conns` shows it: ours alone."""
    held: dict[str, str] = {}
    down = set()
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
            pair.reason = "charon holds another version of it"
            if is_shunt(child) and pair.addresses is not None and not state.observed_once:
                down |= {pair.peer} - state.called_up
        pair.loaded = child
        state.pairs.mark(pair)
    for pair in state.pairs:
        if pair.name not in held and pair.loaded is not None:
            pair.loaded = None
            if pair.connection is not None:
                pair.reason = "somebody unloaded it from charon"
            state.pairs.mark(pair)
    if down:
        # The last `down` of the operator outlives this controller: charon holds the shunt that it left.
        state.down |= down
        peers_changed(state, down, now)


def take_credentials(state: State, credentials: LoadedCredentials) -> None:
    mine = state.settings.credentials
    wanted = {mine.certificate_id, *mine.authority_ids}
    state.charon.credentials_loaded = (
        mine.key_id in credentials.key_ids and wanted <= credentials.certificates
    )


def take_sas(state: State, sas: Iterable[IkeSa], now: float, began: float, touched: frozenset[str]) -> None:
    """All IKE_SAs, as a look that began at `began` showed them. What events touched since is left to them."""
    of: dict[str, list[IkeSa]] = {}
    for sa in sas:
        if state.pairs.get(sa.connection) is not None or ours(sa.connection):
            of.setdefault(sa.connection, []).append(sa)
    for name in of:
        if state.pairs.get(name) is None:
            _stray(state, name, now)
    for pair in state.pairs:
        if pair.name in touched:
            continue
        pair.seen = began
        shown = of.get(pair.name, [])
        if not shown and not pair.sas and pair.in_flight is None and not pair.up:
            if pair.timer is None or pair.next_attempt <= now:
                state.pairs.mark(pair)
            continue
        if pair.up and pair.extra_since is None and list(pair.sas.values()) == shown:
            pair.recount(shown)
            continue
        pair.observe(shown, now)
        judge(state, pair, now, "the association is gone from charon")
        if pair.in_flight is not None and pair.in_flight < began:
            _judge_attempt(state, pair, now)


def _judge_attempt(state: State, pair: Pair, now: float) -> None:
    """An initiation without an outcome: charon still tries, or it gave up without telling."""
    if any(sa.state in UNDER_WAY for sa in pair.sas.values()):
        pair.look_at = now + state.settings.initiation.attempt_look / 2
        return
    began = pair.in_flight or 0.0
    if not pair.sas and now < began + _YOUNG:
        pair.look_at = began + _YOUNG
        return
    childless = any(sa.established for sa in pair.sas.values())
    words = "the IKE_SA came up without its CHILD_SA" if childless else _NO_ANSWER
    said = next(reversed(pair.diagnoses.values()), "")
    attempt_failed(state, pair, now, said or words)


def take_event(state: State, event: Event, now: float) -> None:
    """One event of charon's. Those of connections that are not ours are passed over."""
    if isinstance(event, Diagnosis):
        _take_diagnosis(state, event, now)
        return
    if isinstance(event, Hint):
        _take_hint(state, event, now)
        return
    if isinstance(event, Knocked):
        state.knocks.note(event.local, event.remote, now)
        return
    ike = event.new if isinstance(event, IkeRekeyed) else event.ike
    if not ours(ike.connection):
        return
    state.looks.touch(ike.connection)
    pair = state.pairs.get(ike.connection)
    if pair is None:
        if isinstance(event, IkeDown | ChildDown):
            return
        pair = _stray(state, ike.connection, now)
    pair.apply(event, now)
    cause = ""
    if isinstance(event, IkeDown):
        cause = pair.diagnoses.pop(ike.unique_id, "") or ending(ike)
        pair.ended = ike.unique_id
    elif isinstance(event, ChildDown):
        cause = pair.diagnoses.get(ike.unique_id, "") or "its CHILD_SA was deleted"
    judge(state, pair, now, cause)
    if isinstance(event, IkeDown) and pair.in_flight is not None and not pair.sas:
        attempt_failed(state, pair, now, cause)


def _take_hint(state: State, hint: Hint, now: float) -> None:
    """Unless the trap that is gone is one that we are changing, or have changed, ourselves."""
    at = now + _BURST
    if state.looks.full_wanted(at):
        return
    if not hint.child or any(pair.loaded == hint.child and not pair.busy for pair in state.pairs):
        state.looks.want_all(at, hint.reason)


def _take_diagnosis(state: State, event: Diagnosis, now: float) -> None:
    """charon's log has a queue of its own: its words come before or after the event that they explain."""
    pair = state.pairs.get(event.connection)
    if pair is None:
        return
    if _CREDENTIALS.search(event.cause) and now - state.charon.doubted >= _DOUBT:
        # The peer may be at fault, or somebody cleared our credentials: no event tells of that.
        state.charon.doubted = now
        state.looks.want_all(now, f"authentication failed: {event.cause}")
    if event.unique_id != pair.ended:
        pair.diagnoses[event.unique_id] = event.cause
        if len(pair.diagnoses) > _DIAGNOSES:
            del pair.diagnoses[next(iter(pair.diagnoses))]
    if pair.up or (event.unique_id != pair.ended and pair.in_flight is None):
        return
    pair.cause = event.cause
    if pair.in_flight is not None:
        # The attempt may have ended without an event.
        pair.look_at = min(pair.look_at, now + 0.5)
        state.pairs.mark(pair)


def charon_back(state: State, holdings: Holdings, version: str, now: float) -> None:
    """charon answers (again): everything known of it is what it holds now."""
    state.charon.reachable, state.charon.version, state.charon.reason = True, version, ""
    state.charon.since = now
    take_connections(state, holdings.connections, now)
    take_credentials(state, holdings.credentials)
    shown = {sa.connection for sa in holdings.sas if sa.works}
    for pair in state.pairs:
        pair.lost_state = pair.up and pair.name not in shown
    take_sas(state, holdings.sas, now, now, frozenset())
    for pair in state.pairs:
        if not pair.up:
            if pair.lost_state:
                pair.cause = CHARON_GONE
            first_attempt(state, pair, now)
    state.pairs.mark_all()
    state.looks.want_all(now + state.settings.initiation.resync, "the slow safety net")


def charon_lost(state: State, reason: str, now: float) -> None:
    """charon does not answer. What it holds may go on working in the kernel: nobody is told that a peer is
    down before charon is back and shows it."""
    if state.charon.reachable or not state.charon.since:
        state.charon.since = now
    state.charon.reachable, state.charon.reason = False, reason
    state.charon.credentials_loaded = False
    state.charon.credentials_error, state.charon.credentials_failures = "", 0
    state.charon.credentials_at = 0.0
    state.admission.clear()
    state.looks.reset()
    for pair in state.pairs:
        pair.busy, pair.in_flight, pair.error, pair.retry_at, pair.failures = False, None, "", 0.0, 0
        state.pairs.schedule(pair, None)


def _stray(state: State, name: str, now: float) -> Pair:
    """A connection or IKE_SA of ours that no file accounts for: a peer was removed while nobody watched."""
    pair = Pair(name=name, peer=peer_of(name), since=now, stays=state.hold)
    pair.reason = "no file knows this peer or address any more"
    return state.pairs.add(pair)
