"""The event stream as its readers see it: the service's events, with heartbeats in quiet times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from time import time

from swanmesh.core.events import MeshEvent

_LAST_WORDS = 0.2
"""Seconds that events of the stop itself have to come, once the server is stopping."""


async def records(
    events: AsyncIterator[MeshEvent], stopping: asyncio.Event, heartbeat: float
) -> AsyncGenerator[MeshEvent, None]:
    """The events until they end or the server stops, and a record `heartbeat` after so many quiet seconds.

    The first is a heartbeat at once: whatever happens from then on is not missed.
    """
    stop = asyncio.ensure_future(stopping.wait())
    following = asyncio.ensure_future(_next(events))
    try:
        # One turn of the loop, in which the iterator starts to listen.
        await asyncio.sleep(0)
        yield _heartbeat()
        while True:
            last = stop.done()
            await asyncio.wait(
                {following} if last else {following, stop},
                timeout=_LAST_WORDS if last else heartbeat,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if following.done():
                record = following.result()
                if record is None:
                    return
                following = asyncio.ensure_future(_next(events))
                yield record
            elif last:
                return
            elif not stop.done():
                yield _heartbeat()
    finally:
        for task in (stop, following):
            task.cancel()
        await asyncio.gather(stop, following, return_exceptions=True)
        if isinstance(events, AsyncGenerator):
            await events.aclose()


async def _next(events: AsyncIterator[MeshEvent]) -> MeshEvent | None:
    return await anext(events, None)


def _heartbeat() -> MeshEvent:
    return MeshEvent(kind="heartbeat", time=time())
