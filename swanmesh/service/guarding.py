"""What the service keeps of the guard beyond the kernel's policies: the file for the next boot, and a packet
filter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from swanmesh.core.inputs.guard import clear_watched, encapsulating, members_addresses
from swanmesh.core.model import Address, Network
from swanmesh.core.state import State
from swanmesh.files.write import NotWritten
from swanmesh.kernel.guard import write_file
from swanmesh.kernel.packet_filter import Filter, NftFailed, PacketFilter, counts

_PACE = 20
"""The file is written at most once in so many times as long as it takes."""
_RECENT = 2.0
"""Seconds for which counts are new enough."""
_RETRY = 60.0
"""Seconds until a file that could not be written is tried again."""


class Guarding:
    """Follows the core's state; `look` tells that it may have changed."""

    def __init__(
        self, state: State, folder: Callable[[], Path], log: structlog.typing.FilteringBoundLogger
    ) -> None:
        """`folder`: the service's own."""
        self._state = state
        self._folder = folder
        self._log = log
        self._wake = asyncio.Event()
        self._unwritten = ""
        self._filter = PacketFilter(self._filtered, self._tell)
        self._networks: tuple[int, frozenset[Address | Network], frozenset[Address | Network]]
        self._networks = -1, frozenset(), frozenset()
        """Where members are, and with whom clear text is counted, as of a version of the guard."""
        self._counted = 0.0
        """When clear text was counted last, monotonic."""

    def look(self) -> None:
        self._wake.set()
        self._filter.look()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._filter.run())
            tasks.create_task(self.keep_file())

    async def count(self) -> None:
        """Have what crossed in clear counted, unless it was just now."""
        if time.monotonic() < self._counted + _RECENT:
            return
        self._counted = time.monotonic()
        try:
            self._state.guard.crossed = await asyncio.to_thread(counts)
        except NftFailed:  # what is wrong with nft is told where it is to filter
            self._state.guard.crossed = None

    @property
    def udp_4500(self) -> str:
        """Why UDP 4500 is not kept out where it should be; empty if it is, as far as is known."""
        return self._filter.problem

    def problems(self) -> Iterator[str]:
        """What of the guard is not as it should be, in words."""
        if self._state.guard.refused:
            yield f"the kernel's guard is not whole: {self._state.guard.refused}"
        if self._unwritten:
            yield f"the next boot would begin with another guard: {self._unwritten}"

    async def keep_file(self) -> None:
        """Keeps the file for the next boot, until cancelled."""
        guard, written = self._state.guard, -1
        while True:
            self._wake.clear()
            # A policy on trial is none for the next boot, which may find no service that ends it.
            lasts = self._state.settings.override.trial is None
            if guard.expected and written != guard.version and lasts:
                version, began = guard.version, time.monotonic()
                try:
                    await asyncio.to_thread(write_file, self._folder(), guard.lasting)
                except NotWritten as error:
                    if str(error) != self._unwritten:
                        self._unwritten = str(error)
                        self._log.error("guard not kept", problem=self._unwritten)
                    await asyncio.sleep(_RETRY)
                    continue
                written, self._unwritten = version, ""
                await asyncio.sleep((time.monotonic() - began) * _PACE)
            else:
                await self._wake.wait()

    def _filtered(self) -> Filter:
        version = self._state.guard.version
        if self._networks[0] != version:  # it covers each of them, but where nothing connects
            self._networks = version, members_addresses(self._state), clear_watched(self._state)
        _, members, watched = self._networks
        return Filter(members, encapsulating(self._state), watched)

    def _tell(self, problem: str) -> None:
        if problem:
            self._log.warning("UDP 4500 is not kept out", problem=problem)
        else:
            self._log.info("UDP 4500 is kept out where no pair uses encapsulation")
