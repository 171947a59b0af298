"""A service in this process: the real daemon between real files and a charon of ours that speaks VICI."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import yaml

from swanmesh.control.client import Client
from swanmesh.control.reports import PeerStatus, StatusReply
from swanmesh.core.events import MeshEvent
from swanmesh.pki.authority import Authority
from swanmesh.service.daemon import Daemon
from swanmesh.service.sources import Sources
from swanmesh.service.systemd import Notifier
from tests.charon.fake import FakeCharon

T = TypeVar("T")
NAME, ADDRESS = "web1.mesh.example", "192.0.2.1"


class Place:
    """The files of one host in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "swanmesh.yaml"
        self.peers = folder / "peers.d"
        self.peers.mkdir()
        self.addresses = frozenset({ip_address(ADDRESS)})
        """What this machine's interfaces have, for the service."""
        self.charon = FakeCharon(folder / "charon.vici")
        self.client = Client(folder / "control.sock", timeout=10)
        authority = Authority.create(folder / "pki", now=time.time())
        authority.issue(NAME, [], now=time.time()).write(folder / "pki")
        self.document = {
            "host": {"name": NAME, "addresses": [ADDRESS]},
            "credentials": {
                "certificate": f"pki/{NAME}.pem",
                "private_key": f"pki/{NAME}.key",
                "authorities": ["pki/ca.pem"],
            },
            "charon": {"socket": "charon.vici", "timeout": 1},
            "control": {"socket": "control.sock"},
            "state": "state",
            "probe": {"port": "off"},  # what it sends would leave this machine
            "initiation": {"takeover": "1s", "start_jitter": "0s", "backoff_base": "100ms"},
        }
        self.write_config()

    def write_config(self) -> None:
        self.config.write_text(yaml.safe_dump(self.document))

    def write_peer(self, name: str, *addresses: str) -> Path:
        path = self.peers / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"name": name, "addresses": list(addresses)}))
        return path

    def loads(self) -> int:
        """How often charon was asked to load connections."""
        return sum(command == "load-conn" for command, _ in self.charon.requests)


@contextlib.asynccontextmanager
async def service(place: Place, *, watch_kernel: bool = False) -> AsyncIterator[Daemon]:
    """The daemon from its start to its stop."""
    sources = Sources(place.config, addresses=lambda: place.addresses)
    daemon = Daemon(sources, Notifier({}), watch_kernel=watch_kernel)
    running = asyncio.create_task(daemon.run())
    try:
        async with asyncio.timeout(20):
            while not place.client.socket.exists():
                await asyncio.wait([running], timeout=0.02)
        yield daemon
    finally:
        daemon.stop()
        await asyncio.wait_for(running, 20)


async def asked(call: Callable[[], T]) -> T:
    """A call of the control client, from a thread: the daemon runs on this loop."""
    return await asyncio.to_thread(call)


async def status(place: Place) -> StatusReply:
    return await asked(place.client.status)


async def until(daemon: Daemon, condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Until the condition holds; looked at after each turn of the daemon's loop."""
    async with asyncio.timeout(timeout):
        while not condition():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(daemon.next_step(), 0.2)


async def all_up(place: Place, daemon: Daemon) -> None:
    await until(daemon, lambda: set(daemon.mesh.state.up) == _names(daemon))


def _names(daemon: Daemon) -> set[str]:
    return {peer.name for peer in daemon.mesh.state.registry.peers.values()}


def peer(reply: StatusReply, name: str) -> PeerStatus:
    return next(peer for peer in reply.peers if peer.name == name)


class Listener:
    """What the event stream told since it was made."""

    def __init__(self, daemon: Daemon) -> None:
        self.records: list[MeshEvent] = []
        self._task = asyncio.create_task(self._listen(daemon))

    async def _listen(self, daemon: Daemon) -> None:
        async for record in daemon.feed.follow():
            self.records.append(record)

    def kinds(self) -> list[str]:
        return [record.kind for record in self.records if record.kind != "action"]
