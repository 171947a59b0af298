"""What the tests of charon share: running as a coroutine, waiting, connecting, and connections to load."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from swanmesh.charon.client import Charon, CharonGone, Incoming
from swanmesh.core.actions import Connection, Value

P = ParamSpec("P")
T = TypeVar("T")
Kind = TypeVar("Kind")


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


async def next_event(charon: Charon, kind: type[Kind], timeout: float = 10) -> Kind:
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
    more: dict[str, Value] | None = None,
) -> Connection:
    """A connection such as swanmesh loads; `more` goes to its root."""
    remote_auth: dict[str, Value] = {"auth": "pubkey", "id": identities[1]}
    if authority:
        remote_auth["cacerts"] = [authority]
    body: dict[str, Value] = {
        "version": "2",
        "local_addrs": [local],
        "remote_addrs": [remote],
        "proposals": ["aes128gcm16-prfsha256-x25519"],
        "unique": "never",
        "mobike": "no",
        "dpd_delay": "5",
        "local": {"auth": "pubkey", "id": identities[0]},
        "remote": remote_auth,
        "children": {
            f"{name}-child": {
                "mode": "transport",
                "start_action": "none",
                "esp_proposals": ["aes128gcm16-x25519-esn"],
            }
        },
        **(more or {}),
    }
    return Connection(name=name, child=f"{name}-child", peer="b.mesh.example", body=body)
