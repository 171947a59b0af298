"""What the tests of charon share: running as a coroutine, waiting, connecting, and connections to load."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from swanmesh.charon.client import Charon, CharonGone, Incoming
from swanmesh.core.connections import Connection, Kind, Terms
from swanmesh.core.model import AddressPair

TERMS = Terms(
    authorities=(),
    ike_proposals=("aes128gcm16-prfsha256-x25519",),
    esp_proposals=("aes128gcm16-x25519-esn",),
    ike_rekey=14400,
    ike_reauth=0,
    ike_over=1440,
    child_rekey=3600,
    child_over=360,
    dpd_delay=5,
    replay_window=32,
    encap=False,
)
P = ParamSpec("P")
T = TypeVar("T")
Sort = TypeVar("Sort")


class Server(Protocol):
    """A charon to test against, the fake or the real one."""

    socket: Path

    async def up(self) -> None: ...
    async def die(self) -> None:
        """End at once, as by a crash."""

    async def hang(self) -> None:
        """Answer nothing from now on."""


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test that is a coroutine, in a loop of its own and with an end."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def limited() -> None:
            async with asyncio.timeout(40):
                await test(*args, **kwargs)

        asyncio.run(limited())

    return run


async def wait_until(condition: Callable[[], Awaitable[T]], timeout: float = 10) -> T:
    """The first true thing that `condition` returns."""
    async with asyncio.timeout(timeout):
        while not (result := await condition()):  # noqa: ASYNC110 - charon tells of no change to wait for
            await asyncio.sleep(0.02)
        return result


async def next_event(charon: Charon, kind: type[Sort], timeout: float = 10) -> Sort:
    """The next event of a kind; the ones before it are dropped."""
    async with asyncio.timeout(timeout):
        while True:
            event = await charon.events.get()
            if isinstance(event, kind):
                return event


def drained(charon: Charon) -> list[Incoming]:
    """Everything that waits in the queue."""
    return [charon.events.get_nowait() for _ in range(charon.events.qsize())]


def gone_events(charon: Charon) -> list[CharonGone]:
    return [event for event in drained(charon) if isinstance(event, CharonGone)]


@contextlib.asynccontextmanager
async def connected(server: Server, *, timeout: float = 5.0) -> AsyncIterator[Charon]:
    """The server up, and a client connected to it."""
    await server.up()
    async with client(server, timeout=timeout) as charon:
        yield charon


@contextlib.asynccontextmanager
async def client(server: Server, *, timeout: float = 5.0) -> AsyncIterator[Charon]:
    """One more client of a server that is up."""
    charon = Charon(server.socket, timeout=timeout)
    await charon.connect()
    try:
        yield charon
    finally:
        await charon.close()


def connection(
    name: str = "swanmesh-b",
    *,
    local: str = "192.0.2.1",
    remote: str = "192.0.2.2",
    identities: tuple[str, str] = ("a.mesh.example", "b.mesh.example"),
    authority: bytes = b"",
    **terms: Any,
) -> Connection:
    """A connection such as swanmesh loads; `terms` are fields of its Terms."""
    between = AddressPair(ipaddress.ip_address(local), ipaddress.ip_address(remote))
    return Connection(
        name=name,
        child=f"{name}-child",
        peer=identities[1],
        host=identities[0],
        kind=Kind.ASSOCIATION,
        trap=False,
        addresses=between,
        local_ts=(f"{local}/32",),
        remote_ts=(f"{remote}/32",),
        terms=replace(TERMS, authorities=(authority,) if authority else (), **terms),
    )
