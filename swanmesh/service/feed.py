"""The event stream: whoever listens gets what happens from then on, and cannot hold anybody up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from swanmesh.core.events import MeshEvent

_BACKLOG = 4096
"""Records kept for a listener that does not read; beyond it the oldest are lost, and it is told how many."""


class _Listener:
    def __init__(self) -> None:
        self.records: deque[MeshEvent] = deque()
        self.lost = 0
        self.filled = asyncio.Event()

    def put(self, record: MeshEvent) -> None:
        if len(self.records) == _BACKLOG:
            self.records.popleft()
            self.lost += 1
        self.records.append(record)
        self.filled.set()


class Feed:
    """Hands each record to all who listen."""

    def __init__(self) -> None:
        self._listeners: set[_Listener] = set()

    def publish(self, record: MeshEvent) -> None:
        for listener in self._listeners:
            listener.put(record)

    async def follow(self) -> AsyncIterator[MeshEvent]:
        listener = _Listener()
        self._listeners.add(listener)
        try:
            while True:
                await listener.filled.wait()
                listener.filled.clear()
                if listener.lost:
                    lost, listener.lost = listener.lost, 0
                    yield MeshEvent(kind="lost", time=listener.records[0].time, details={"records": lost})
                while listener.records:
                    yield listener.records.popleft()
        finally:
            self._listeners.discard(listener)
