"""How things stand, in words: for `status`, `plan` and `wait`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from swanmesh.core.actions import (
    MISSING_CREDENTIALS,
    Action,
    Initiate,
    InstallPolicies,
    LoadConnection,
    LoadCredentials,
    ObserveAll,
    ObserveKernel,
    ObserveSas,
    RestorePolicies,
    UnloadConnection,
    load_credentials,
)
from swanmesh.core.connections import is_shunt
from swanmesh.core.decide.rules import decide
from swanmesh.core.model import Peer, Policy, Settings
from swanmesh.core.observed import Holdings, LoadedCredentials
from swanmesh.core.pair import Pair
from swanmesh.core.policy import policy_of
from swanmesh.core.state import State

Standing = Literal["up", "connecting", "down", "disabled"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One word on a pair or a peer, why it is not up, and since when on the core's clock."""

    state: Standing
    reason: str
    since: float
    next_attempt: float | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """An action that would be carried out, at `due` on the core's clock if not at once."""

    action: Action
    due: float | None = None


def pair_verdict(state: State, pair: Pair, now: float) -> Verdict:
    if pair.disabled:
        return Verdict("disabled", "held down by the operator until `up`", pair.since)
    if not state.charon.reachable:
        reason = f"charon is not reachable ({state.charon.reason}); what stands in the kernel goes on"
        return Verdict("down", reason, pair.since)
    if pair.error:
        return Verdict("up" if pair.up else "down", f"charon refused: {pair.error}", pair.since)
    if pair.up:
        return Verdict("up", "", pair.since)
    decision = decide(pair, now, state.settings.initiation)
    reason = decision.reason or "connecting"
    if not state.charon.credentials_loaded and state.charon.credentials_error:
        reason = f"charon refused the credentials: {state.charon.credentials_error}"
        return Verdict("down", reason, pair.since)
    trying = pair.under_way or pair.attempts == 0
    upcoming = pair.next_attempt if not pair.under_way else None
    return Verdict("connecting" if trying else "down", reason, pair.since, upcoming)


def peer_verdict(state: State, peer: Peer, now: float) -> Verdict:
    """The worst of its pairs: a peer is up when every address pair is."""
    pairs = [pair for pair in state.pairs.of(peer.name) if pair.connection is not None]
    if policy_of(peer, state.settings) is Policy.OFF:
        return Verdict("disabled", "its policy is off", now)
    if not pairs:
        return Verdict("down", "no address of a family that this host has one of", now)
    order = {"disabled": 0, "down": 1, "connecting": 2, "up": 3}
    verdicts = [(pair, pair_verdict(state, pair, now)) for pair in pairs]
    pair, worst = min(verdicts, key=lambda item: order[item[1].state])
    attempts = [v.next_attempt for _, v in verdicts if v.next_attempt is not None]
    reason = worst.reason
    if reason and len(pairs) > 1 and any(verdict != worst for _, verdict in verdicts):
        reason = f"{pair.addresses}: {reason}"
    return Verdict(worst.state, reason, max(v.since for _, v in verdicts), min(attempts, default=None))


def planned(state: State, now: float) -> list[Planned]:
    """What is to be done: now, and at a time that is known. What is being carried out is not listed."""
    found: list[Planned] = []
    charon, mine = state.charon, state.settings.credentials
    if not charon.credentials_loaded:
        reason = charon.credentials_error or MISSING_CREDENTIALS
        found.append(Planned(load_credentials(mine, reason)))
    for pair in state.pairs:
        if pair.busy:
            continue
        decision = decide(pair, now, state.settings.initiation)
        if decision.action is not None:
            found.append(Planned(decision.action))
        later = _initiate_later(pair, now)
        if later is not None:
            found.append(later)
    return found


def _initiate_later(pair: Pair, now: float) -> Planned | None:
    """The initiation that waits for its load, or for its time."""
    if pair.connection is None or is_shunt(pair.connection.child) or pair.up or pair.under_way:
        return None
    if pair.loaded == pair.connection.child and now >= pair.next_attempt:
        return None
    reason = "ours to initiate" if pair.ours else "if the peer does not initiate until then"
    if pair.cause:
        reason += f": {pair.cause}"
    action = Initiate(connection=pair.name, child=pair.connection.child, peer=pair.peer, reason=reason)
    return Planned(action, max(now, pair.next_attempt))


EMPTY = Holdings(
    connections=(),
    sas=(),
    credentials=LoadedCredentials(key_ids=frozenset(), certificates=frozenset()),
)
"""What a charon that was just started holds of ours."""


def target(action: Action) -> str:
    """What the action acts on, for people."""
    match action:
        case LoadConnection(connection=connection):
            return connection.name
        case (
            UnloadConnection(name=name)
            | Initiate(connection=name)
            | InstallPolicies(connection=name)
            | RestorePolicies(connection=name)
        ):
            return name
        case ObserveKernel():
            return "kernel"
        case LoadCredentials():
            return "certificate and key"
        case ObserveAll() | ObserveSas():
            return "charon"
        case _:
            return f"{action.connection} #{action.unique_id}"


VERBS = {
    "LoadCredentials": "load-credentials",
    "LoadConnection": "load",
    "UnloadConnection": "unload",
    "Initiate": "initiate",
    "TerminateIke": "terminate",
    "TerminateChild": "terminate-child",
    "RekeyChild": "rekey-child",
    "RekeyIke": "rekey",
    "RestorePolicies": "restore-policies",
    "InstallPolicies": "install",
    "ObserveKernel": "observe-kernel",
    "ObserveSas": "observe",
    "ObserveAll": "observe-all",
}
"""Each action's one name: in the log, the plan, the event stream and the metric."""


def verb(action: Action) -> str:
    return VERBS[type(action).__name__]


def offline(settings: Settings, peers: list[Peer]) -> list[Planned]:
    """What a charon that holds nothing yet would be asked for: `plan --offline`."""
    from swanmesh.core.mesh import Mesh  # noqa: PLC0415  (mesh is built on this module's neighbours)

    mesh = Mesh(settings, seed=0)
    mesh.update_peers(peers, (), 0.0)
    mesh.charon_back("", EMPTY, 0.0)
    return [Planned(item.action) for item in planned(mesh.state, 0.0)]
