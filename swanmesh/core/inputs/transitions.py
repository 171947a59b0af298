"""An address pair comes up, goes down, fails an attempt: what follows from it for its next attempt and for
those who want to know."""

from __future__ import annotations

from swanmesh.core import reasons
from swanmesh.core.decide.duplicates import has_extra
from swanmesh.core.decide.encapsulation import agree
from swanmesh.core.decide.probing import follow
from swanmesh.core.model import Peer
from swanmesh.core.pairs.initiation import backoff, takeover_delay
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.reasons import NONE, Cause, Reason
from swanmesh.core.state import State

_NOT_READY = 5.0
"""Seconds at least until a peer is tried again that had no connection for us."""
_REKEYING = 10.0
"""Seconds that a CHILD_SA may show as being replaced without the new one: as long as retransmissions last."""


def judge(state: State, pair: Pair, now: float, cause: Reason = NONE) -> None:
    """After anything about its SAs changed. `cause` says why, in case it went down by that."""
    follow(state, pair, now)
    agree(state, pair, now)
    if pair.works:
        pair.standing.rekeying_since = None
        if not pair.up:
            state.admission.came_up(pair.name, now, failed_before=pair.attempt.failed > 0)
            _came_up(pair, now)
        _end_attempt(state, pair)
    elif pair.path.dead and not pair.up:
        _end_attempt(state, pair)
    elif pair.up and not pair.path.dead and _in_rekey(pair, now):
        state.observation.want(now + 2.0, reasons.REKEYING)
    elif pair.up:
        breach = next((breach for _, breach in pair.associations.breaches), NONE)
        _went_down(state, pair, now, breach or cause)
    if not has_extra(pair):
        pair.extra_since = None
    elif pair.extra_since is None:
        pair.extra_since = now
    state.pairs.mark(pair)
    judge_peer(state, pair.peer)


def judge_peer(state: State, name: str) -> None:
    """Whether the peer as a whole came up or went down: up is every pair of it."""
    peer = state.peer(name)
    pairs = [pair for pair in state.pairs.of(name) if pair.connection is not None]
    up = bool(pairs) and all(pair.up and not pair.held_down for pair in pairs)
    if up == (name in state.up):
        return
    if up:
        state.up.add(name)
        words = f"every association is up ({len(pairs)})" if len(pairs) > 1 else ""
        _emit(state, "peer-up", peer, Reason("up", words))
        return
    state.up.discard(name)
    down = next((pair for pair in pairs if not pair.up or pair.held_down), None)
    if down is not None:
        reason = reasons.HELD_DOWN if down.held_down else down.standing.cause
        _emit(state, "peer-down", peer, reason.after(str(down.addresses)) if len(pairs) > 1 else reason)


def attempt_failed(state: State, pair: Pair, now: float, cause: Reason) -> None:
    """An initiation came to nothing: the next one waits longer."""
    state.admission.failed(pair.name, now)
    _end_attempt(state, pair)
    pair.attempt.failed += 1
    pair.standing.cause = cause
    state.members.review(pair.peer)
    pair.attempt.next_at = now + backoff(pair.attempt.failed, state.settings.initiation, state.rng)
    retry_later(state, pair, now, cause)
    state.pairs.mark(pair)


def retry_later(state: State, pair: Pair, now: float, cause: Reason) -> None:
    """A peer that has no connection for us yet answers what it refused by initiating itself, once it has."""
    if cause.code == Cause.NO_CONNECTION_AT_PEER:
        wait = _NOT_READY * (1.0 + state.rng.random())
        pair.attempt.next_at = max(pair.attempt.next_at, now + wait)
        state.admission.pace.not_ready(now)


def first_attempt(state: State, pair: Pair, now: float, *, shortly: bool = False) -> None:
    """When a pair that is not up is initiated first, or anew: its file changed, the operator asked, or charon
    came back. `shortly`: even where it is the other end's turn."""
    how = state.settings.initiation
    pair.attempt.failed = 0
    ready = pair.addresses is not None and state.early_peers.take(pair.addresses, now)
    pair.attempt.peer_ready = ready
    if pair.initiator or ready:
        jitter = how.start_jitter if ready else max(how.start_jitter, state.start_took)
        pair.attempt.next_at = now + state.rng.random() * jitter
    else:
        delay = takeover_delay(how, state.rng, shortly=shortly or pair.standing.lost)
        pair.attempt.next_at = now + delay
    state.pairs.mark(pair)


def _in_rekey(pair: Pair, now: float) -> bool:
    """Whether what does not work is but half-way through a rekey. For a while at most."""
    if not pair.associations.rekeying:
        return False
    if pair.standing.rekeying_since is None:
        pair.standing.rekeying_since = now
    return now - pair.standing.rekeying_since < _REKEYING


_YOUNG = 60.0
"""Seconds. An older association was there before it was noticed: this controller has just begun."""


def _came_up(pair: Pair, now: float) -> None:
    standing, held = pair.standing, pair.associations
    standing.up = True
    born = max((held.times[sa.unique_id].born for sa in held.counting), default=now)
    standing.since = now if standing.cause.code == reasons.NO_DATA else born
    # Young ones may have stood in charon for seconds before the kernel had taken them.
    standing.noticed = now if now - born < _YOUNG else born
    standing.cause, standing.lost = NONE, False
    pair.attempt.peer_ready = False


def _went_down(state: State, pair: Pair, now: float, cause: Reason) -> None:
    how, standing, attempt = state.settings.initiation, pair.standing, pair.attempt
    lived = now - standing.since
    standing.up, standing.since = False, now
    standing.cause = cause or standing.cause or reasons.ASSOCIATION_GONE
    attempt.failed = 0 if lived >= how.stable else attempt.failed + 1
    if pair.initiator:
        # A short random wait even the first time: a fault that ends many associations at once must not bring
        # all initiations at once.
        jitter = state.rng.random() * how.start_jitter
        attempt.next_at = now + (backoff(attempt.failed, how, state.rng) or jitter)
    else:
        attempt.next_at = now + takeover_delay(how, state.rng, shortly=False)


def _end_attempt(state: State, pair: Pair) -> None:
    pair.attempt.began = None
    state.admission.release(pair.name)


def _emit(state: State, kind: str, peer: Peer | None, reason: Reason) -> None:
    if peer is not None and state.observed_once:
        state.emit(kind, peer, reason)
