"""What the control socket offers, carried out on the daemon's loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from swanmesh.control.metrics import Counters, render
from swanmesh.control.protocol import (
    ConfirmReply,
    ConfirmRequest,
    EventRecord,
    HeldReply,
    PeerCommandReply,
    PeerCommandRequest,
    PlanReply,
    ReloadReply,
    ReloadRequest,
    StatusReply,
    UnknownPeer,
    WaitReply,
)
from swanmesh.core.inputs.removal import held, held_problems
from swanmesh.core.mesh import Mesh
from swanmesh.core.verdict import peer_verdict
from swanmesh.service import status as report
from swanmesh.service.feed import Feed


class Controller(Protocol):
    """What the service needs of the daemon."""

    mesh: Mesh
    counters: Counters
    feed: Feed
    started: float

    @property
    def vici_requests(self) -> int: ...

    @property
    def events_lost(self) -> int: ...

    def clock(self) -> report.Clock: ...

    def problems(self) -> list[str]: ...

    def reload(self, paths: Iterable[Path] | None, *, removed: bool = False) -> ReloadReply: ...

    def confirm(self) -> list[str]: ...

    def command(self, command: str, peer: str) -> str: ...

    async def next_step(self) -> None: ...


class DaemonService:
    """Implements `control.protocol.Service`. Reads the core's state directly, since all runs on one loop;
    what changes it goes through the daemon, which alone writes."""

    def __init__(self, daemon: Controller) -> None:
        self._daemon = daemon

    def status(self, peers: list[str] | None = None) -> StatusReply:
        daemon = self._daemon
        book = daemon.mesh.state.book
        if peers is None:
            chosen = sorted(book.peers.values(), key=lambda peer: peer.name)
        else:
            found = [(name, book.named(name)) for name in peers]
            unknown = [name for name, peer in found if peer is None]
            if unknown:
                raise UnknownPeer(", ".join(unknown))
            chosen = [peer for _, peer in found if peer is not None]
        return report.status(daemon.mesh, daemon.clock(), daemon.started, daemon.problems(), chosen)

    def plan(self) -> PlanReply:
        return report.plan(self._daemon.mesh, self._daemon.clock())

    async def metrics(self) -> bytes:
        # Thousands of peers take a while to write out, and the loop has more to do.
        counters = self._daemon.counters
        counters = replace(
            counters,
            actions=dict(counters.actions),
            vici_requests=self._daemon.vici_requests,
            events_lost=self._daemon.events_lost,
            removals_held=len(held(self._daemon.mesh.state)),
        )
        return await asyncio.to_thread(render, self.status(), counters)

    async def reload(self, request: ReloadRequest) -> ReloadReply:
        paths = None if request.files is None else [Path(file) for file in request.files]
        return self._daemon.reload(paths, removed=request.removed)

    def held(self) -> HeldReply:
        state = self._daemon.mesh.state
        return HeldReply(problems=[str(problem) for problem in held_problems(state)], peers=held(state))

    def confirm(self, request: ConfirmRequest) -> ConfirmReply:
        return ConfirmReply(peers=self._daemon.confirm())

    def command(self, request: PeerCommandRequest) -> PeerCommandReply:
        try:
            message = self._daemon.command(request.command, request.peer)
        except KeyError:
            raise UnknownPeer(request.peer) from None
        return PeerCommandReply(peer=request.peer, message=message)

    async def wait(self, peers: list[str] | None, timeout: float, *, gone: bool = False) -> WaitReply:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while missing := self._missing(peers, gone=gone):
            left = deadline - loop.time()
            if left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    await self._daemon.next_step()
            except TimeoutError:
                missing = self._missing(peers, gone=gone)
                break
        return WaitReply(missing=missing)

    def events(self) -> AsyncIterator[EventRecord]:
        return self._daemon.feed.follow()

    def _missing(self, names: list[str] | None, *, gone: bool) -> dict[str, str]:
        """Who is not yet as asked for, and why."""
        state, now = self._daemon.mesh.state, self._daemon.clock().now
        if names is None:
            names = [peer.name for peer in state.book.peers.values()]
            if not gone and not state.charon.reachable:
                return {"charon": f"not reachable: {state.charon.reason}"}
        missing = {}
        for name in names:
            peer = state.book.named(name)
            if gone:
                if peer is not None or state.pairs.of(name):
                    missing[name] = "still known" if peer is not None else "its associations are being ended"
                continue
            if peer is None:
                missing[name] = "no such peer"
                continue
            verdict = peer_verdict(state, peer, now)
            if verdict.state not in ("up", "disabled") or (
                verdict.state == "disabled" and name in state.down
            ):
                missing[name] = verdict.reason.words or verdict.state
        return missing
