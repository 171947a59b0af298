"""What this host's files say may change at any time, and so may the addresses of its interfaces."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from swanmesh.config.override import records
from swanmesh.files.watch import Watch
from swanmesh.machine.addresses import address_changes
from swanmesh.service.sources import Sources


class Following:
    """Has files read again when they, or the addresses, change."""

    def __init__(self, sources: Sources, read: Callable[[Iterable[Path] | None], object]) -> None:
        """`read`: reads these files again, or all, and raises nothing."""
        self._sources = sources
        self._read = read
        self._watch = self._new_watch()

    @property
    def degraded(self) -> str:
        """Why files are looked at now and then instead, in words; empty if they are not."""
        return self._watch.degraded

    def _new_watch(self) -> Watch:
        config = self._sources.config
        mine = config.credentials
        lists = [one for one in mine.crls if isinstance(one, Path)]
        return Watch(
            self._sources.folders,
            (
                *(config.path, mine.certificate, mine.private_key, *mine.authorities, *lists),
                *records(config.state),
            ),
        )

    async def files(self) -> None:
        """Until cancelled."""
        while True:
            watched = self._sources.config
            self._watch.open()
            self._read(None)
            async for changes in self._watch.changes():
                self._read(None if changes.everything else changes.paths)
                if self._sources.config != watched:
                    break
            self._watch.close()
            self._watch = self._new_watch()

    async def addresses(self) -> None:
        """Until cancelled. What has an interface at one moment may have none at the next."""
        with contextlib.suppress(OSError):  # then the service looks now and then
            async for _ in address_changes():
                if self._sources.look_at_addresses():
                    self._read(None)
        await asyncio.Event().wait()

    def close(self) -> None:
        self._watch.close()
