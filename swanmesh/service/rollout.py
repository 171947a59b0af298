"""How the peers stand on the way to `require`, and what holds instead of the files, as the control socket
shows it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import structlog

from swanmesh.config.override import Overrides
from swanmesh.control.protocol import PeerPolicy, PolicyReply
from swanmesh.control.reports import TrialStatus
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import Peer
from swanmesh.core.readiness import readiness
from swanmesh.core.settings.override import HOST
from swanmesh.service.status import Clock, block_statuses, blocks_named, clear_text, traffic_with


def policy(
    mesh: Mesh, clock: Clock, overrides: Overrides, folder: Path, peers: Iterable[Peer] | None
) -> PolicyReply:
    """Of all peers, or these. `folder` is the service's own."""
    state = mesh.state
    chosen = state.peers() if peers is None else peers
    return PolicyReply(
        policy=state.settings.host_policy,
        stated=state.settings.policy,
        disabled=disabled(overrides),
        trial=trial(overrides),
        state=str(folder),
        peers=[_peer(mesh, peer, clock) for peer in sorted(chosen, key=lambda peer: (peer.title, peer.name))],
        blocks=block_statuses(mesh, clock, *blocks_named(state, None if peers is None else ())),
    )


def _peer(mesh: Mesh, peer: Peer, clock: Clock) -> PeerPolicy:
    ready = readiness(mesh.state, peer, clock.now)
    return PeerPolicy(
        name=peer.title,
        block=peer.block,
        addresses=[str(address) for address in peer.addresses],
        policy=mesh.state.settings.policy_of(peer),
        own=peer.policy,
        file=peer.source,
        state=ready.verdict.state,
        up_since=clock.at_optional(ready.up_since),
        member=ready.member,
        obstacle=ready.obstacle.words,
        obstacle_code=ready.obstacle.code,
        lacks=list(ready.lacks),
        settled=ready.settled,
        traffic=traffic_with(mesh, peer),
        clear=clear_text(mesh, peer),
        exempt=[str(each) for each in mesh.state.settings.exemptions_of(peer)],
    )


def unsettled(mesh: Mesh, peers: Iterable[Peer] | None) -> dict[str, str]:
    """Names of those peers, or of all, for whom charon does not hold yet what their policy calls for."""
    state = mesh.state
    chosen = state.peers() if peers is None else peers
    return {peer.title: "" for peer in chosen if not readiness(state, peer, 0.0).settled}


def disabled(overrides: Overrides) -> float | None:
    return overrides.disabled.since if overrides.disabled is not None else None


def trial(overrides: Overrides) -> TrialStatus | None:
    record = overrides.trial
    if record is None:
        return None
    left = record.left()
    return TrialStatus(
        policy=record.policy,
        due=time.time() + left,
        left=left,
        host=HOST in record.before,
        peers=sorted(name for name in record.before if name != HOST),
    )


def tell(log: structlog.typing.FilteringBoundLogger, before: Overrides, after: Overrides) -> None:
    """Log what began or ended of what holds instead of the files."""
    if (now := after.disabled) != before.disabled:
        log.warning("disabled: everything is in clear" if now else "enabled")
    if after.trial == before.trial:
        return
    if (ended := before.trial) is not None:
        why = "its time is over" if not ended.left() else "confirmed, cancelled, or the files changed"
        log.warning("policy no longer on trial", policy=ended.policy, why=why)
    if (begun := after.trial) is not None:
        log.warning(
            "policy on trial", policy=begun.policy, peers=len(begun.before), seconds=round(begun.left())
        )
