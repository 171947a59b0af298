"""A `Service` of plain data: everything the control socket can ask for, without a daemon behind it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from swanmesh.control.counters import Counters
from swanmesh.control.gate import Limits
from swanmesh.control.metrics import render
from swanmesh.control.protocol import (
    ConfirmReply,
    ConfirmRequest,
    HeldReply,
    PeerCommandReply,
    PeerCommandRequest,
    PlannedAction,
    PlanReply,
    PolicyReply,
    ReloadReply,
    ReloadRequest,
    RenewReply,
    RenewRequest,
    WaitReply,
)
from swanmesh.control.reports import (
    Association,
    BlockStatus,
    CharonStatus,
    HostStatus,
    PairStatus,
    PeerState,
    PeerStatus,
    StatusReply,
)
from swanmesh.control.server import ControlServer
from swanmesh.core.events import MeshEvent
from swanmesh.core.peers.description import find_peer, parse_peer


def peer_status(name: str, address: str, state: PeerState = "up", reason: str = "") -> PeerStatus:
    """A peer of one address pair; with a working association if it is up."""
    association = Association(
        ike_id=7,
        child_id=9,
        local="203.0.113.1",
        remote=address,
        initiator=True,
        state="INSTALLED",
        mode="TRANSPORT",
        spi_in="c1a2b3c4",
        spi_out="c5d6e7f8",
        esp_algorithm="AES_GCM_16-128",
        bytes_in=1_500_000,
        bytes_out=2048,
        packets_in=1000,
        packets_out=12,
    )
    pair = PairStatus(
        local="203.0.113.1",
        remote=address,
        connection=f"mesh-{name}",
        state=state,
        reason=reason,
        since=1_700_000_000.0,
        next_attempt=None,
        attempts=0 if state == "up" else 3,
    )
    return PeerStatus(
        name=name,
        addresses=[address],
        policy="require",
        state=state,
        since=1_700_000_000.0,
        reason=reason,
        associations=[association] if state == "up" else [],
        pairs=[pair],
        next_attempt=None,
    )


class PlainService:
    """Holds what it answers; tests change it. `changed` wakes those who wait."""

    def __init__(self) -> None:
        self.peers: dict[str, PeerStatus] = {}
        self.blocks: list[BlockStatus] = []
        self.problems: list[str] = []
        self.actions: list[PlannedAction] = []
        self.reloads: list[ReloadRequest] = []
        self.commands: list[tuple[str, str]] = []
        self.waits: list[float] = []
        self.undone: dict[str, str] = {}
        """Why what was asked of a peer is not done yet."""
        self.charon_lost = ""
        self.observed: float | None = None
        self.looks = 0
        self.reload_reply = ReloadReply(changed=[], problems=[])
        self.counters = Counters()
        self.held_peers: list[str] = []
        self.renewals: list[RenewRequest] = []
        self.renewal = RenewReply(outcome="renewed", not_after=1_900_000_000.0)
        self.readers: list[deque[MeshEvent]] = []
        self.failing = False
        self.changed = asyncio.Event()
        self.finished = False

    def put(self, *peers: PeerStatus) -> None:
        self.peers.update({peer.name: peer for peer in peers})
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def _find(self, asked: str) -> PeerStatus:
        known = [parse_peer(peer.name, peer.addresses, source=peer.name) for peer in self.peers.values()]
        return self.peers[find_peer(asked, known).name]

    async def status(self, peers: list[str] | None = None, *, fresh: bool = False) -> StatusReply:
        if self.failing:
            raise RuntimeError("secret detail")
        self.looks += fresh
        blocks = {block.name for block in self.blocks}
        named = None if peers is None else [self._find(name) for name in peers if name not in blocks]
        return self.reply([*self.peers.values()] if named is None else named)

    def reply(self, chosen: list[PeerStatus]) -> StatusReply:
        return StatusReply(
            host=HostStatus(
                name="web1.mesh.example",
                addresses=["203.0.113.1"],
                policy="require",
                swanmesh="0.1.0",
                started=1_700_000_000.0,
            ),
            charon=CharonStatus(
                reachable=not self.charon_lost,
                version="5.9.8",
                since=1_700_000_000.0,
                reason=self.charon_lost,
            ),
            peers=chosen,
            blocks=list(self.blocks),
            problems=list(self.problems),
            observed=self.observed,
        )

    def plan(self) -> PlanReply:
        return PlanReply(actions=list(self.actions), charon_reachable=True)

    async def policy(self, peers: list[str] | None = None, *, settle: float = 0.0) -> PolicyReply:
        raise NotImplementedError

    async def metrics(self) -> bytes:
        return render(self.reply([*self.peers.values()]), self.counters)

    async def reload(self, request: ReloadRequest) -> ReloadReply:
        self.reloads.append(request)
        return self.reload_reply

    def held(self) -> HeldReply:
        return HeldReply(problems=[f"{name} is held" for name in self.held_peers], peers=self.held_peers)

    def confirm(self, request: ConfirmRequest) -> ConfirmReply:
        peers, self.held_peers = self.held_peers, []
        return ConfirmReply(peers=peers)

    async def command(self, request: PeerCommandRequest) -> PeerCommandReply:
        names = [self._find(name).name for name in request.peers]
        self.commands += [(request.command, name) for name in names]
        self.waits.append(request.wait)
        done = {name: f"{request.command} done" for name in names if name not in self.undone}
        return PeerCommandReply(done=done, waiting={n: why for n, why in self.undone.items() if n in names})

    async def renew(self, request: RenewRequest) -> RenewReply:
        self.renewals.append(request)
        return self.renewal

    def _missing(self, peers: list[str] | None, gone: bool) -> dict[str, str]:
        names = peers if peers is not None else list(self.peers)
        if gone:
            return {name: "still there" for name in names if name in self.peers}
        missing = {}
        for name in names:
            peer = self.peers.get(name)
            if peer is None:
                self._find(name)
            elif peer.state != "up":
                missing[name] = peer.reason
        return missing

    async def wait(self, peers: list[str] | None, timeout: float, *, gone: bool = False) -> WaitReply:
        try:
            async with asyncio.timeout(timeout):
                while self._missing(peers, gone):
                    await self.changed.wait()
        except TimeoutError:
            pass
        return WaitReply(missing=self._missing(peers, gone))

    def emit(self, record: MeshEvent) -> None:
        for reader in self.readers:
            reader.append(record)
        self.wake()

    async def events(self) -> AsyncIterator[MeshEvent]:
        queue: deque[MeshEvent] = deque(maxlen=64)
        self.readers.append(queue)
        try:
            while True:
                while queue:
                    yield queue.popleft()
                if self.finished:
                    return
                await self.changed.wait()
        finally:
            self.readers.remove(queue)


class ServerThread:
    """A real ControlServer in a loop and thread of its own, for clients that block."""

    def __init__(self, socket: Path, group: str | None = None, limits: Limits | None = None) -> None:
        self.socket = socket
        self.loop = asyncio.new_event_loop()
        self.service = PlainService()
        self.server = ControlServer(self.service, socket, group, limits=limits)
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self.server.start())

    def _run(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(30)  # type: ignore[arg-type]

    def call(self, function: object, *arguments: object) -> None:
        """Run something in the loop's thread, as the daemon would."""

        async def once() -> None:
            function(*arguments)  # type: ignore[operator]

        self._run(once())

    def stop(self) -> None:
        if self.loop.is_closed():
            return
        self._run(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30)
        self.loop.close()


@contextmanager
def serving(socket: Path, group: str | None = None, limits: Limits | None = None) -> Iterator[ServerThread]:
    thread = ServerThread(socket, group, limits)
    try:
        yield thread
    finally:
        thread.stop()
