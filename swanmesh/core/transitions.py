"""An address pair comes up, goes down, fails an attempt: what follows from it for its next attempt and for
those who want to know."""

from __future__ import annotations

from swanmesh.core.decide.initiation import backoff, takeover_delay
from swanmesh.core.decide.rules import duplicates
from swanmesh.core.model import Peer
from swanmesh.core.pair import Pair
from swanmesh.core.state import State


def judge(state: State, pair: Pair, now: float, cause: str = "") -> None:
    """After anything about its SAs changed. `cause` says why, in case it went down by that."""
    works = pair.works
    if works:
        _end_attempt(state, pair)
        if not pair.up:
            _came_up(pair, now)
    elif pair.up:
        _went_down(state, pair, now, cause)
    extra = any(True for _ in duplicates(pair))
    pair.extra_since = (pair.extra_since if pair.extra_since is not None else now) if extra else None
    state.pairs.mark(pair)
    judge_peer(state, pair.peer)


def judge_peer(state: State, name: str) -> None:
    """Whether the peer as a whole came up or went down: up is every pair of it."""
    peer = state.book.named(name)
    pairs = [pair for pair in state.pairs.of(name) if pair.connection is not None]
    up = bool(pairs) and all(pair.up and not pair.disabled for pair in pairs)
    if up == (name in state.up):
        return
    if up:
        state.up.add(name)
        _tell(state, "peer-up", peer, f"every association is up ({len(pairs)})" if len(pairs) > 1 else "")
        return
    state.up.discard(name)
    down = next((pair for pair in pairs if not pair.up or pair.disabled), None)
    if down is not None:
        reason = "held down by the operator" if down.disabled else down.cause
        where = f"{down.addresses}: " if len(pairs) > 1 else ""
        _tell(state, "peer-down", peer, where + reason)


def attempt_failed(state: State, pair: Pair, now: float, cause: str) -> None:
    """An initiation came to nothing: the next one waits longer."""
    _end_attempt(state, pair)
    pair.attempts += 1
    pair.cause = cause
    pair.next_attempt = now + backoff(pair.attempts, state.settings.initiation, state.rng)
    state.pairs.mark(pair)


def first_attempt(state: State, pair: Pair, now: float) -> None:
    """When a pair that is not up is initiated first, or anew: its file changed, the operator asked, or charon
    came back."""
    how = state.settings.initiation
    pair.attempts = 0
    heard = pair.addresses is not None and state.knocks.heard(pair.addresses, now)
    if pair.ours or heard:
        pair.next_attempt = now + state.rng.random() * how.start_jitter
    else:
        pair.next_attempt = now + takeover_delay(how, state.rng, lost_state=pair.lost_state)
    state.pairs.mark(pair)


def _came_up(pair: Pair, now: float) -> None:
    pair.up = True
    pair.since = max((pair.born[sa.unique_id] for sa in pair.sas.values() if sa.works), default=now)
    pair.cause = ""
    pair.lost_state = False


def _went_down(state: State, pair: Pair, now: float, cause: str) -> None:
    how = state.settings.initiation
    pair.up = False
    lived, pair.since = now - pair.since, now
    pair.cause = cause or pair.cause or "the association is gone"
    pair.attempts = 0 if lived >= how.stable else pair.attempts + 1
    if pair.ours:
        # A short random wait even the first time: a fault that ends many associations at once must not bring
        # all initiations at once.
        jitter = state.rng.random() * how.start_jitter
        pair.next_attempt = now + (backoff(pair.attempts, how, state.rng) or jitter)
    else:
        pair.next_attempt = now + takeover_delay(how, state.rng, lost_state=False)


def _end_attempt(state: State, pair: Pair) -> None:
    pair.in_flight = None
    state.admission.release(pair.name)


def _tell(state: State, kind: str, peer: Peer | None, reason: str) -> None:
    if peer is not None and state.observed_once:
        state.tell(kind, peer, reason)
