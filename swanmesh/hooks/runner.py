"""Tells programs of the administrator's what happens: every executable in `hooks.d`, for each event.

    submit ─▶ a row for each peer ─▶ at most `parallel` rows at once ─▶ run_hook, one after the other
              (what is overtaken      (the longest waiting first)        (in order of name)
               is left out)

Events of one peer are told in their order and never two at once. Events without a peer are a row of their
own, outside the bound: what charon does is told also while many peers' hooks are busy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from swanmesh.core.events import MeshEvent
from swanmesh.hooks.discovery import Found, find_hooks
from swanmesh.hooks.process import TIMEOUT, HookRun, run_hook
from swanmesh.hooks.queue import Turn, enqueue

PARALLEL = 8
STOP_TIME = 10.0
"""Seconds that hooks have in all when the service stops; the unit's TimeoutStopSec leaves room for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookNotice:
    """Something about hooks that is not the end of a run."""

    path: Path
    message: str
    harmless: bool = False
    """Nothing to act on: for those who look for why a hook is not run."""


class Hooks:
    """The hooks of one directory, which is read again for each event: a hook added there needs no reload."""

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        report: Callable[[HookRun | HookNotice], None],
        *,
        parallel: int = PARALLEL,
        timeout: float = TIMEOUT,
    ) -> None:
        """`environment`: what hooks get beside the event. `report` gets the end of each run, and why a file
        is not run, once. `parallel`: peers whose hooks run at once, at most."""
        self.directory, self.environment = directory, environment
        self._report = report
        self._timeout = timeout
        self._places = asyncio.Semaphore(parallel)
        self._rows: dict[str, deque[Turn]] = {}
        """Of each peer that hooks are being told of, or will be: the events that wait."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: dict[Path, str] = {}
        self._last: MeshEvent | None = None
        self._closing = False

    def submit(self, event: MeshEvent) -> None:
        """Have the hooks told. Returns at once; needs a running event loop."""
        if self._closing or (not self._rows and find_hooks(self.directory) == Found()):
            return
        if event.kind == "stopping":
            self._last = event
        else:
            self._put(event)

    async def close(self, timeout: float = STOP_TIME) -> None:
        """Take no more, give what waits and runs its time, and tell `stopping` after all else; in about
        `timeout` seconds."""
        self._closing = True
        end = asyncio.get_running_loop().time() + timeout
        await self._finish(end - timeout * 2 / 3)
        last, self._last = self._last, None
        if last is not None:
            self._put(last)
            await self._finish(end - timeout / 4)

    def _put(self, event: MeshEvent) -> None:
        row = self._rows.get(event.peer)
        if row is None:
            row = self._rows[event.peer] = deque()
            task = asyncio.get_running_loop().create_task(self._tell_row(event.peer, row))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        enqueue(row, event)

    async def _tell_row(self, peer: str, row: deque[Turn]) -> None:
        try:
            while row:
                async with self._places if peer else contextlib.nullcontext():
                    await self._tell(row.popleft())
        finally:
            del self._rows[peer]

    async def _tell(self, turn: Turn) -> None:
        """All hooks, one after the other."""
        found = find_hooks(self.directory)
        self._note(found)
        for hook in found.hooks:
            await run_hook(hook, turn, self._report, environment=self.environment, timeout=self._timeout)

    def _note(self, found: Found) -> None:
        """Tell once why a file is not run."""
        told = {**found.refused, **found.skipped}
        for path, reason in told.items():
            if self._told.get(path) != reason:
                self._report(HookNotice(path=path, message=reason, harmless=path in found.skipped))
        self._told = told

    async def _finish(self, until: float) -> None:
        """All rows, to their end; what then still runs is ended, and what waits left untold."""
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=until - asyncio.get_running_loop().time())
        if untold := sum(map(len, self._rows.values())):
            message = f"the service stops: {untold} more events are not told to hooks"
            self._report(HookNotice(path=self.directory, message=message))
        for task in tasks:
            task.cancel("the service stops")
        await asyncio.gather(*tasks, return_exceptions=True)
