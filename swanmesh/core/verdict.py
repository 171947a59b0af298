"""How things stand, for `status`, `plan` and `wait`: what was decided, in one word and its reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from swanmesh.core import reasons
from swanmesh.core.actions import Action, load_credentials
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import Peer, Settings
from swanmesh.core.observed import Holdings, LoadedCredentials
from swanmesh.core.pairs.pair import Pair, Violation
from swanmesh.core.peers.registry import Entry
from swanmesh.core.reasons import NONE, Reason
from swanmesh.core.state import State

Standing = Literal["up", "connecting", "down", "disabled"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One word on a pair or a peer, why it is not up, and since when on the core's clock."""

    state: Standing
    reason: Reason
    since: float
    next_attempt: float | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """An action that is not carried out yet: why not, and at what time it will be, if that is known."""

    action: Action
    blocked: Reason = NONE
    due: float | None = None


def pair_verdict(state: State, pair: Pair) -> Verdict:
    standing, decision = pair.standing, pair.decision
    if not state.charon.reachable:
        reason = state.charon.unreachable
        told = Reason(reason.code, f"{reason.words}; what stands in the kernel goes on")
        return Verdict("down", told, max(state.charon.since, standing.since))
    reason = decision.reason if decision is not None else reasons.CONNECTING
    if pair.held_down and pair.connection is not None:
        done = pair.loaded == pair.connection.child and not pair.associations.works
        if done:
            return Verdict("disabled", reasons.HELD_DOWN_UNTIL_UP, standing.since)
        asked = Reason("held-down", "asked to be held down, not yet done")
        return Verdict("up" if pair.up else "down", asked, standing.since)
    if pair.up or pair.path.dead:
        return Verdict("up" if pair.up else "down", pair.path.dead or reason, standing.since)
    waits = decision.blocked if decision is not None else NONE
    reason = reason or reasons.CONNECTING
    if waits == reasons.WAITING_FOR_PLACE or pair.refusals.reason:
        return Verdict("down", reason, standing.since)
    trying = pair.under_way or pair.attempt.failed == 0
    upcoming = pair.attempt.next_at if not pair.under_way else None
    trying = trying and not state.charon.credentials_refusals.reason
    return Verdict("connecting" if trying else "down", reason, standing.since, upcoming)


def peer_verdict(state: State, peer: Peer, now: float) -> Verdict:
    """The worst of its pairs: a peer is up when every address pair is."""
    pairs = [pair for pair in state.pairs.of(peer.name) if pair.connection is not None]
    if state.settings.override.disabled:
        return Verdict("disabled", reasons.DISABLED, now)
    policy = state.settings.policy_of(peer)
    if not policy.meaning.connects:
        return Verdict("disabled", reasons.no_association(policy), now)
    if not pairs:
        return Verdict("down", reasons.NO_COMMON_FAMILY, now)
    order = {"disabled": 0, "down": 1, "connecting": 2, "up": 3}
    verdicts = [(pair, pair_verdict(state, pair)) for pair in pairs]
    pair, worst = min(verdicts, key=lambda item: (order[item[1].state], not item[1].reason))
    attempts = [v.next_attempt for _, v in verdicts if v.next_attempt is not None]
    reason = worst.reason
    if reason and len(pairs) > 1 and any(verdict != worst for _, verdict in verdicts):
        reason = reason.after(str(pair.addresses))
    if worst.state == "up":
        since = max(verdict.since for _, verdict in verdicts)
    else:
        since = min(verdict.since for _, verdict in verdicts if verdict.state != "up")
    return Verdict(worst.state, reason, since, min(attempts, default=None))


def planned(state: State) -> list[Planned]:
    """What was decided and is not carried out yet, at a time that is known or for want of something. What is
    being carried out is not listed."""
    found: list[Planned] = []
    charon = state.charon
    if not charon.credentials_loaded and not charon.credentials_loading:
        loading = load_credentials(
            state.settings.credentials, state.settings.host.name, charon.lacks_credentials
        )
        found.append(Planned(loading, charon.unreachable))
    for pair in state.pairs:
        decision = pair.decision
        if not pair.busy and decision is not None and decision.action is not None and decision.blocked:
            found.append(Planned(decision.action, decision.blocked, decision.due))
    return found


def violations(state: State, now: float) -> list[tuple[str, Violation]]:
    """Which peers brought about what their pairs did not ask for, lately."""
    return [(pair.peer, pair.violation) for pair in state.pairs if pair.violation.recent(now)]


EMPTY = Holdings(
    connections=(),
    sas=(),
    credentials=LoadedCredentials(key_ids=frozenset(), certificates=frozenset()),
)
"""What a charon that was just started holds of ours."""


def offline(settings: Settings, peers: Iterable[Entry]) -> list[Planned]:
    """What a charon that holds nothing yet would be asked for: `plan --offline`."""
    mesh = Mesh(settings, seed=0)
    mesh.update_peers(peers, (), 0.0)
    mesh.charon_back("", EMPTY, 0.0)
    return [Planned(action) for action in mesh.step(0.0).actions if action.pair or action.target != "charon"]
