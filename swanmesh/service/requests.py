"""What the control socket offers, carried out on the daemon's loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from swanmesh.control.counters import Counters
from swanmesh.control.protocol import (
    ConfirmReply,
    ConfirmRequest,
    ConfirmSubject,
    HeldReply,
    PeerCommandReply,
    PeerCommandRequest,
    PlanReply,
    PolicyReply,
    ReloadReply,
    ReloadRequest,
    RenewReply,
    RenewRequest,
    WaitReply,
)
from swanmesh.control.reports import StatusReply
from swanmesh.core.commands import PeerCommand, peer_command, unfinished
from swanmesh.core.events import MeshEvent
from swanmesh.core.inputs.removal import held, held_problems
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import Peer
from swanmesh.core.peers.description import NoSuchPeer, find_peers
from swanmesh.core.reasons import STATUS_ASKED, Reason
from swanmesh.core.verdict import peer_verdict
from swanmesh.kernel.guard import refusals
from swanmesh.service import rollout
from swanmesh.service import status as report
from swanmesh.service.certificates import Certificates
from swanmesh.service.feed import Feed
from swanmesh.service.sources import Sources

_RECENT = 1.0
"""Seconds since a look at charon for which it is as good as a new one."""
_LOOK_TIME = 1.6
"""Seconds that a status may wait for a look: they keep a second between them, and the caller waits two."""


class Controller(Protocol):
    """What the service needs of the daemon."""

    mesh: Mesh
    sources: Sources
    counters: Counters
    feed: Feed
    certificates: Certificates
    started: float

    @property
    def vici_requests(self) -> int: ...

    @property
    def events_lost(self) -> int: ...

    def clock(self) -> report.Clock: ...

    def problems(self) -> list[str]: ...

    def history(self, peer: str) -> list[MeshEvent]: ...

    def reload(self, paths: Iterable[Path] | None, *, removed: bool = False) -> ReloadReply: ...

    def confirm(self, subject: ConfirmSubject) -> list[str]: ...

    def command(self, command: str, peer: str) -> None: ...

    def rekey_all(self) -> str: ...

    async def count_clear_text(self) -> None: ...

    @property
    def udp_4500(self) -> str: ...

    @property
    def segmentation(self) -> str: ...

    def look(self, reason: Reason) -> None: ...

    async def next_step(self) -> None: ...


class DaemonService:
    """Implements `control.protocol.Service`. Reads the core's state directly, since all runs on one loop;
    what changes it goes through the daemon, which alone writes."""

    def __init__(self, daemon: Controller) -> None:
        self._daemon = daemon

    async def status(self, peers: list[str] | None = None, *, fresh: bool = False) -> StatusReply:
        state = self._daemon.mesh.state
        blocks, strangers = report.blocks_named(state, peers)
        others = None if peers is None else [name for name in peers if name not in blocks | strangers]
        named = None if others is None else self._find(others)
        if fresh:
            await self._look()
            await self._daemon.count_clear_text()
        reply = self._status(named)
        reply.blocks = report.block_statuses(self._daemon.mesh, self._daemon.clock(), blocks, strangers)
        if named is not None:
            for peer in reply.peers:
                peer.history = self._daemon.history(peer.name)
                peer.certificates = report.certificates(self._daemon.mesh.state, peer.name)
        return reply

    async def policy(self, peers: list[str] | None = None, *, settle: float = 0.0) -> PolicyReply:
        named = None if peers is None else list(dict.fromkeys(self._find(peers)))
        await self._daemon.count_clear_text()
        if settle:  # last, since the guard may have the next change under way a moment later
            await self._until_none(lambda: rollout.unsettled(self._daemon.mesh, named), settle)
        sources = self._daemon.sources
        return rollout.policy(
            self._daemon.mesh, self._daemon.clock(), sources.overrides, sources.config.state, named
        )

    def plan(self) -> PlanReply:
        return report.plan(self._daemon.mesh, self._daemon.clock())

    async def metrics(self) -> bytes:
        await self._daemon.count_clear_text()
        # Thousands of peers take a while to write out, and the loop has more to do.
        counters = self._daemon.counters
        counters = replace(
            counters,
            actions=dict(counters.actions),
            vici_requests=self._daemon.vici_requests,
            events_lost=self._daemon.events_lost,
            removals_held=len(held(self._daemon.mesh.state)),
        )
        return await asyncio.to_thread(_written, self._status(None), counters)

    async def reload(self, request: ReloadRequest) -> ReloadReply:
        paths = None if request.files is None else [Path(file) for file in request.files]
        return self._daemon.reload(paths, removed=request.removed)

    def held(self) -> HeldReply:
        state = self._daemon.mesh.state
        problems = (*held_problems(state), *state.revocations.held_problems())
        return HeldReply(problems=[str(problem) for problem in problems], peers=held(state))

    def confirm(self, request: ConfirmRequest) -> ConfirmReply:
        return ConfirmReply(peers=self._daemon.confirm(request.subject))

    async def command(self, request: PeerCommandRequest) -> PeerCommandReply:
        state = self._daemon.mesh.state
        if request.command == "rekey" and not request.peers:
            return PeerCommandReply(done={}, waiting={}, spread=self._daemon.rekey_all())
        wanted = [peer_command(state, request.command, peer) for peer in self._find(request.peers)]
        for each in wanted:
            self._daemon.command(each.command, each.peer.name)
        waiting = await self._until_none(lambda: dict(self._waiting(wanted)), request.wait)
        done = {each.peer.name: each.done for each in wanted if each.peer.name not in waiting}
        return PeerCommandReply(done=done, waiting=waiting)

    async def renew(self, request: RenewRequest) -> RenewReply:
        return await self._daemon.certificates.asked(request)

    async def wait(self, peers: list[str] | None, timeout: float, *, gone: bool = False) -> WaitReply:
        if peers is None:
            return WaitReply(missing=await self._until_none(lambda: dict(self._not_up(None)), timeout))
        if gone:
            names = [known for name in peers for known in self._known(name)]
            return WaitReply(missing=await self._until_none(lambda: dict(self._not_gone(names)), timeout))
        names = [peer.name for peer in self._find(peers)]
        return WaitReply(missing=await self._until_none(lambda: dict(self._not_up(names)), timeout))

    def events(self) -> AsyncIterator[MeshEvent]:
        return self._daemon.feed.follow()

    def _find(self, asked_for: Iterable[str]) -> list[Peer]:
        """Raises NoSuchPeer."""
        state, found = self._daemon.mesh.state, list[Peer]()
        for name in asked_for:
            named = state.registry.named(name)
            found += [named] if named is not None else find_peers(name, state.peers())
        return found

    def _known(self, asked_for: str) -> list[str]:
        """The name of a peer that may be gone already."""
        try:
            return [peer.name for peer in self._find([asked_for])]
        except NoSuchPeer:
            return [asked_for.lower()]

    def _status(self, peers: list[Peer] | None) -> StatusReply:
        daemon = self._daemon
        if peers is None:
            peers = sorted(daemon.mesh.state.peers(), key=lambda peer: (peer.title, peer.name))
        reply = report.status(
            *(daemon.mesh, daemon.clock(), daemon.started, daemon.problems(), peers),
            setting=daemon.segmentation,
        )
        blocks = report.blocks_named(daemon.mesh.state, None)
        reply.blocks = report.block_statuses(daemon.mesh, daemon.clock(), *blocks)
        daemon.certificates.show(reply)
        reply.observed = daemon.counters.last_resync
        with contextlib.suppress(OSError):  # a kernel without IPsec
            reply.guard = report.guard_status(daemon.mesh, refusals(), daemon.udp_4500)
        overrides = daemon.sources.overrides
        reply.disabled = rollout.disabled(overrides)
        reply.trial = rollout.trial(overrides)
        return reply

    async def _look(self) -> None:
        """Have charon looked at, unless it was just now; gives up after a while: looks have a pace of their
        own, and one at thousands of peers takes long."""
        daemon = self._daemon
        before = daemon.counters.last_resync
        fresh_at = daemon.clock().wall - _RECENT
        if daemon.mesh.state.charon.reachable and (before is None or before < fresh_at):
            daemon.look(STATUS_ASKED)
            await self._until_none(
                lambda: {} if daemon.counters.last_resync != before else {"charon": ""}, _LOOK_TIME
            )

    async def _until_none(self, missing: Callable[[], dict[str, str]], timeout: float) -> dict[str, str]:
        """What is still missing when nothing is, or after `timeout` seconds; asked after each step."""
        end = asyncio.get_running_loop().time() + timeout
        while found := missing():
            try:
                async with asyncio.timeout_at(end):
                    await self._daemon.next_step()
            except TimeoutError:
                return missing()
        return found

    def _waiting(self, wanted: Iterable[PeerCommand]) -> Iterator[tuple[str, str]]:
        state, now = self._daemon.mesh.state, self._daemon.clock().now
        for each in wanted:
            if why := unfinished(state, each, now):
                yield each.peer.name, why

    def _not_gone(self, names: list[str]) -> Iterator[tuple[str, str]]:
        state = self._daemon.mesh.state
        for name in names:
            if state.peer(name) is not None:
                yield name, "still known"
            elif state.pairs.of(name):
                yield name, "its associations are being ended"

    def _not_up(self, names: list[str] | None) -> Iterator[tuple[str, str]]:
        """Who is not up, and why. Whom the policy leaves out is not waited for; whom the operator holds down
        is."""
        state, now = self._daemon.mesh.state, self._daemon.clock().now
        if names is None:
            if not state.charon.reachable:
                yield "charon", f"not reachable: {state.charon.reason.words}"
                return
            names = [peer.name for peer in state.registry.peers.values()]
        for name in names:
            peer = state.peer(name)
            if peer is None:
                yield name, "removed meanwhile"
                continue
            verdict = peer_verdict(state, peer, now)
            if verdict.state != "up" and (verdict.state != "disabled" or name in state.down):
                yield name, verdict.reason.words or verdict.state


def _written(status: StatusReply, counters: Counters) -> bytes:
    from swanmesh.control.metrics import render  # noqa: PLC0415 - 3 MiB, of use only to who asks for metrics

    return render(status, counters)
