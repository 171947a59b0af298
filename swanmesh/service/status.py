"""The core's state as the control socket shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from swanmesh import __version__
from swanmesh.control.protocol import PlannedAction, PlanReply
from swanmesh.control.reports import (
    Association,
    BlockStatus,
    CharonStatus,
    ClearText,
    GuardStatus,
    HostStatus,
    PairStatus,
    PeerCertificate,
    PeerStatus,
    RevocationListStatus,
    StatusReply,
    StrangerStatus,
    Traffic,
)
from swanmesh.core import segmentation
from swanmesh.core.credentials.revocation import Revocations
from swanmesh.core.guard.policies import Cover
from swanmesh.core.inputs.revocation import certificate_of
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import Peer
from swanmesh.core.observed import ChildSa, IkeSa, SeenCertificate
from swanmesh.core.pairs.pair import Pair
from swanmesh.core.readiness import lacking_families
from swanmesh.core.state import State
from swanmesh.core.verdict import Planned, pair_verdict, peer_verdict, planned

_LISTED = 20
"""Strangers that are shown of a block."""


@dataclass(frozen=True, slots=True)
class Clock:
    """One moment on the core's clock and on the wall's."""

    now: float
    wall: float

    def at(self, moment: float) -> float:
        """The wall's time of a moment on the core's clock."""
        return round(moment - self.now + self.wall, 3)

    def at_optional(self, moment: float | None) -> float | None:
        return None if moment is None else self.at(moment)


def status(
    mesh: Mesh,
    clock: Clock,
    started: float,
    problems: Iterable[str],
    peers: Iterable[Peer],
    *,
    setting: str = "auto",
) -> StatusReply:
    """`started` is on the core's clock; `setting` is data_path.segmentation."""
    state = mesh.state
    host = state.settings.host
    charon = state.charon
    return StatusReply(
        host=HostStatus(
            name=host.name,
            addresses=[str(address) for address in host.addresses],
            policy=state.settings.host_policy,
            swanmesh=__version__,
            started=clock.at(started),
        ),
        charon=CharonStatus(
            reachable=charon.reachable,
            version=charon.version,
            since=clock.at(charon.since or started),
            reason=charon.reason.words,
        ),
        peers=[peer_status(mesh, peer, clock) for peer in peers],
        problems=list(problems),
        revocation_lists=[*_lists(state.revocations)],
        data_path=segmentation.summary(mesh.state.kernel.segmenting, setting),
        data_path_problems=[
            str(problem)
            for problem in segmentation.remarks(
                mesh.state.kernel.segmenting, setting, (address.version for address in host.addresses)
            )
        ],
    )


def blocks_named(state: State, asked: Iterable[str] | None) -> tuple[set[str], set[str]]:
    """Which of the names asked for are those of blocks, all if none is asked for; and which are addresses of
    strangers."""
    blocks = {block.name for block in state.registry.blocks}
    if asked is None:
        return blocks, set()
    strangers = {str(address) for address in state.members.strangers}
    return blocks.intersection(asked), strangers.intersection(asked)


def block_statuses(mesh: Mesh, clock: Clock, names: set[str], addresses: set[str]) -> list[BlockStatus]:
    """The blocks of these names, with their strangers, and those of the strangers at these addresses."""
    state = mesh.state
    strangers: dict[str, list[StrangerStatus]] = {}
    for address, stranger in reversed(state.members.strangers.items()):
        block = state.registry.table.find(address)
        if block is not None:
            shown = StrangerStatus(
                address=str(address),
                reason=stranger.reason.words,
                reason_code=stranger.reason.code,
                times=stranger.times,
                again=clock.at(stranger.again_at),
            )
            strangers.setdefault(block.name, []).append(shown)
    found = []
    for block in state.registry.blocks:
        theirs = strangers.get(block.name, [])
        wanted = [each for each in theirs if each.address in addresses]
        if block.name not in names and not wanted:
            continue
        members = [peer for peer in state.members if peer.block == block.name]
        found.append(
            BlockStatus(
                name=block.name,
                cidr=str(block.cidr),
                policy=state.settings.policy_of(block),
                own=block.policy,
                exceptions=[str(network) for network in block.exceptions],
                members=sum(bool(peer.proved) for peer in members),
                up=sum(peer.name in state.up for peer in members),
                asked=sum(not peer.proved for peer in members),
                strangers=len(theirs),
                listed=wanted or theirs[:_LISTED],
            )
        )
    return sorted(found, key=lambda block: block.name)


def _lists(revocations: Revocations) -> Iterable[RevocationListStatus]:
    for lists, held in ((revocations.in_force, False), (revocations.held, True)):
        for one in lists.values():
            yield RevocationListStatus(
                authority=one.authority,
                number=one.number,
                entries=len(one.revoked),
                issued=one.issued,
                expires=one.expires,
                source=one.source,
                held=held,
            )


def peer_status(mesh: Mesh, peer: Peer, clock: Clock) -> PeerStatus:
    state = mesh.state
    verdict = peer_verdict(state, peer, clock.now)
    pairs = [pair for pair in state.pairs.of(peer.name) if pair.connection is not None]
    violations = [pair.violation for pair in pairs if pair.violation.recent(clock.now)]
    seen = certificate_of(state, peer.name)
    policy = state.settings.policy_of(peer)
    return PeerStatus(
        name=peer.title,
        block=peer.block,
        exempt=[str(each) for each in state.settings.exemptions_of(peer)] if policy.meaning.connects else [],
        clear=clear_text(mesh, peer),
        addresses=[str(address) for address in peer.addresses],
        policy=policy,
        state=verdict.state,
        since=clock.at(verdict.since),
        reason=verdict.reason.words,
        reason_code=verdict.reason.code,
        traffic=_traffic(pairs),
        violation="; ".join(each.reason.words for each in violations),
        violations=sum(each.count for each in violations),
        associations=[
            a for pair in pairs for sa in pair.sas.values() for a in _associations(mesh, pair, sa, clock)
        ],
        pairs=[_pair(mesh, pair, clock) for pair in pairs],
        next_attempt=clock.at_optional(verdict.next_attempt),
        lacks=list(lacking_families(state.settings.host, peer)),
        certificate_ends=seen.not_after if seen is not None else None,
    )


def clear_text(mesh: Mesh, peer: Peer) -> ClearText | None:
    """When packets in clear with a peer passed last, or were refused, and how many; None where that is not
    seen."""
    guard, policy = mesh.state.guard, mesh.state.settings.policy_of(peer)
    if not guard.expected or not (policy.meaning.closed or policy.meaning.watched):
        return None
    used, crossed = guard.used_with(peer.addresses), guard.crossed_with(peer.addresses)
    if peer.block and crossed is None:
        return None
    return ClearText(
        refused=policy.meaning.closed,
        out=used.out or None,
        into=used.into or None,
        packets_out=None if crossed is None or policy.meaning.closed else crossed.out,
        packets_in=None if crossed is None else crossed.into,
    )


def guard_status(mesh: Mesh, refused: dict[str, int], udp_4500: str) -> GuardStatus:
    guard = mesh.state.guard
    parts = guard.wanted.values()
    return GuardStatus(
        expected=guard.expected,
        closed=sum(isinstance(part, Cover) and part.closed for part in parts),
        missing=sum(not guard.stands(part.key) for part in parts),
        udp_4500=udp_4500,
        refused=refused,
    )


def traffic_with(mesh: Mesh, peer: Peer) -> Traffic:
    """What crossed encrypted with a peer."""
    return _traffic(mesh.state.pairs.of(peer.name))


def _traffic(pairs: Iterable[Pair]) -> Traffic:
    counted = [pair.traffic for pair in pairs]
    return Traffic(
        bytes_in=sum(each.bytes_in for each in counted),
        bytes_out=sum(each.bytes_out for each in counted),
        packets_in=sum(each.packets_in for each in counted),
        packets_out=sum(each.packets_out for each in counted),
    )


def _pair(mesh: Mesh, pair: Pair, clock: Clock) -> PairStatus:
    verdict = pair_verdict(mesh.state, pair)
    return PairStatus(
        local=str(pair.addresses.local) if pair.addresses else "",
        remote=str(pair.addresses.remote) if pair.addresses else "",
        connection=pair.name,
        state=verdict.state,
        reason=verdict.reason.words,
        reason_code=verdict.reason.code,
        since=clock.at(verdict.since),
        next_attempt=clock.at_optional(verdict.next_attempt),
        attempts=pair.attempt.failed,
        heard=clock.at(pair.path.heard) if pair.path.watched else None,
        encapsulation=str(pair.udp.mode) if mesh.state.settings.automatic_encapsulation else "",
        answered_by=pair.path.answered_by,
    )


def _associations(mesh: Mesh, pair: Pair, sa: IkeSa, clock: Clock) -> Iterable[Association]:
    for child in sa.children or (None,):
        found = _association(pair, sa, child)
        if pair.addresses is not None and child is not None and child.age is not None:
            family, made = pair.addresses.local.version, clock.wall - child.age
            if segmentation.without(mesh.state.kernel.segmenting, family, made):
                found.segmentation = f"made before esp{family}_offload came: without it until the next rekey"
        yield found


def _association(pair: Pair, sa: IkeSa, child: ChildSa | None) -> Association:
    times = pair.associations.times.get(sa.unique_id)
    found = Association(
        ike_id=sa.unique_id,
        certificate=f"{times.certificate.serial:x}" if times is not None and times.certificate else "",
        child_id=child.unique_id if child else None,
        local=str(pair.addresses.local) if pair.addresses else sa.local_host,
        remote=str(pair.addresses.remote) if pair.addresses else sa.remote_host,
        initiator=sa.initiator,
        state=child.state if child else sa.state,
        ike_algorithm=sa.algorithm,
        ike_age=sa.age,
        works=sa.established and child is not None and child.works,
    )
    if child is not None:
        found.mode, found.encap = child.mode, child.encap
        found.spi_in, found.spi_out = child.spi_in, child.spi_out
        found.esp_algorithm, found.child_age, found.rekey_in = child.algorithm, child.age, child.rekey_in
        found.bytes_in, found.bytes_out = child.bytes_in, child.bytes_out
        found.packets_in, found.packets_out = child.packets_in, child.packets_out
    return found


def certificates(state: State, name: str) -> list[PeerCertificate]:
    """What the peer showed in IKE: what its IKE_SAs stand on, else the latest that was seen."""
    stands: dict[SeenCertificate, list[tuple[int, bool]]] = {}
    for pair in state.pairs.of(name):
        for unique_id, times in pair.associations.times.items():
            if times.certificate is not None:
                stands.setdefault(times.certificate, []).append((unique_id, times.certain))
    for seen in state.certificates.of(name)[-1:] if not stands else ():
        stands[seen] = []
    return [
        PeerCertificate(
            der=seen.der,
            ike_ids=[unique_id for unique_id, _ in ikes],
            certain=all(certain for _, certain in ikes),
            revoked=state.revocations.revoked(seen).words,
        )
        for seen, ikes in sorted(stands.items(), key=lambda one: -one[0].not_before)
    ]


def plan(mesh: Mesh, clock: Clock) -> PlanReply:
    reachable = mesh.state.charon.reachable
    actions = [planned_action(item, clock) for item in planned(mesh.state)]
    return PlanReply(actions=actions, charon_reachable=reachable)


def planned_action(item: Planned, clock: Clock) -> PlannedAction:
    return PlannedAction(
        action=item.action.verb,
        peer=item.action.peer,
        target=item.action.target,
        reason=item.action.reason.words,
        reason_code=item.action.reason.code,
        blocked=item.blocked.words,
        due=clock.at_optional(item.due),
    )
