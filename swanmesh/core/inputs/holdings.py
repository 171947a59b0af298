"""What charon holds, taken in: a look at it as a whole, in parts."""

from __future__ import annotations

from collections.abc import Iterable

from swanmesh.core import reasons
from swanmesh.core.connections import Kind, kind_of, ours, ours_loaded, peer_of
from swanmesh.core.decide.encapsulation import AFTER_THE_PEER
from swanmesh.core.encapsulation import Mode
from swanmesh.core.inputs.data_path import count
from swanmesh.core.inputs.files import peers_changed, wanted_connections
from swanmesh.core.inputs.members import forget_ike_sas, pair_of
from swanmesh.core.inputs.transitions import attempt_failed, judge
from swanmesh.core.observed import IkeSa, LoadedConnection, LoadedCredentials
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.reasons import NONE, Reason
from swanmesh.core.state import State

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
        pair = known or stray(state, conn.name, now)
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


def take_sas(
    state: State,
    sas: Iterable[IkeSa],
    now: float,
    began: float,
    touched: frozenset[str],
    *,
    whole: bool = False,
) -> None:
    """All IKE_SAs, as a look that began at `began` showed them. What events touched since is left to them.
    `whole`: there is nothing beside, and no event to come that tells what became of what it does not show."""
    of: dict[str, list[IkeSa]] = {}
    sas = list(sas)
    for sa in sas:
        pair = pair_of(state, sa, now) or (stray(state, sa.connection, now) if ours(sa.connection) else None)
        if pair is not None:
            of.setdefault(pair.name, []).append(sa)
    known = {sa.unique_id for sa in sas}
    for pair in state.pairs:
        shown = of.get(pair.name, [])
        missed = not whole and pair.name not in touched and _missed(pair, shown)
        if missed:
            state.observation.want(now, reasons.LOOK_AGAIN)
        if missed or pair.name in touched:
            known.update(pair.sas)
            continue
        pair.seen = began
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
    forget_ike_sas(state, known)


def _missed(pair: Pair, shown: Iterable[IkeSa]) -> bool:
    """Whether a look may have missed what stands: it has no CHILD_SA, and events tell of no end.

    charon lists one IKE_SA after the other, so one that takes over by a rekey meanwhile may get a place that
    was passed already, and the CHILD_SAs are no more where the old one is shown. The next look is believed.
    """
    gone = pair.up and pair.associations.works and not any(sa.established and sa.children for sa in shown)
    again, pair.standing.missed = pair.standing.missed, gone
    return gone and not again


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


def stray(state: State, name: str, now: float) -> Pair:
    """A connection or IKE_SA of ours that no file accounts for: a peer was removed while nobody watched."""
    pair = Pair(name=name, peer=peer_of(name), left_alone=state.hold, reason=reasons.UNKNOWN_PEER)
    pair.standing.since = now
    return state.pairs.add(pair)
