"""Tells programs of the administrator's what happens: every executable in `hooks.d`, for each event.

    submit ─▶ what waits, by peer ─▶ ready peers, in turn ─▶ at most `parallel` at once ─▶ HookProcess
              (coalesce)             (none twice)            each: all hooks, in order of name

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
from typing import TypeAlias

from swanmesh.hooks.discovery import Found, find_hooks, hook_names
from swanmesh.hooks.process import HookEvent, HookProcess, HookRun, start_failure
from swanmesh.hooks.queue import enqueue

PARALLEL = 8
TIMEOUT = 60.0
_MOST_LEFT = 64
"""Hooks that ended but left processes behind which hold their output, at most; one more counts as running."""
_LAST = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class HookNotice:
    """Something about a hook that is not the end of a run."""

    path: Path
    message: str
    harmless: bool = False
    """Nothing to act on: for those who look for why a hook is not run."""


HookReport: TypeAlias = HookRun | HookNotice


class Hooks:
    """The hooks of one directory, which is read again for each event: a hook added there needs no reload."""

    def __init__(
        self,
        directory: Path,
        *,
        report: Callable[[HookReport], None],
        parallel: int = PARALLEL,
        timeout: float = TIMEOUT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`parallel`: peers whose hooks run at once, at most. `timeout`: seconds for each run of each hook.
        `environment`: what hooks get beside the event. `report` gets the end of each run, and why a file is
        not run, once."""
        self.directory = directory
        self.environment = dict(environment or {})
        self._report = report
        self._parallel = parallel
        self._timeout = timeout
        self._waiting: dict[str, deque[HookEvent]] = {}
        self._ready: deque[str] = deque()
        """Peers with events that wait and none that runs, the longest waiting first."""
        self._running: dict[str, asyncio.Task[None]] = {}
        self._processes: set[HookProcess] = set()
        self._left: set[asyncio.Task[None]] = set()
        self._told: dict[Path, str] = {}
        self._closing = False
        self._over: Callable[[HookEvent], bool] = lambda event: False
        """Whether, at the stop, the time for hooks of this event is over."""
        self._idle = asyncio.Event()

    def submit(self, event: HookEvent) -> None:
        """Have the hooks told. Returns at once; needs a running event loop."""
        if self._closing or not (self._waiting or self._running or self._any_hooks()):
            return
        waiting = self._waiting.get(event.peer)
        if waiting is None:
            waiting = self._waiting[event.peer] = deque()
            if event.peer and event.peer not in self._running:
                self._ready.append(event.peer)
        enqueue(waiting, event)
        self._start_ready()

    async def close(self, timeout: float) -> None:
        """Take no more, and give what waits and runs its time, `stopping` to the last; no more than
        `timeout` seconds in all."""
        self._closing = True
        end = asyncio.get_running_loop().time() + timeout
        await self._until_idle(end - timeout * 2 / 3)
        self._cut(lambda event: event.event != _LAST)
        await self._until_idle(end - timeout / 4)
        self._cut(lambda event: True)
        await self._until_idle(end)
        tasks = [*self._running.values(), *self._left]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _any_hooks(self) -> bool:
        try:
            return bool(hook_names(self.directory))
        except FileNotFoundError:
            return False
        except OSError:
            return True  # what is wrong is told when the event's turn comes

    def _start_ready(self) -> None:
        if "" in self._waiting and "" not in self._running:
            self._start("")
        while self._ready and len(self._running.keys() - {""}) < self._parallel:
            self._start(self._ready.popleft())

    def _start(self, peer: str) -> None:
        waiting = self._waiting[peer]
        event = waiting.popleft()
        if not waiting:
            del self._waiting[peer]
        self._idle.clear()
        task = asyncio.get_running_loop().create_task(self._tell(event))
        self._running[peer] = task
        task.add_done_callback(lambda done: self._ended(peer))

    def _ended(self, peer: str) -> None:
        del self._running[peer]
        if peer and peer in self._waiting:
            self._ready.append(peer)
        self._start_ready()
        if not self._running:
            self._idle.set()

    async def _tell(self, event: HookEvent) -> None:
        """All hooks, one after the other."""
        found = find_hooks(self.directory)
        self._note(found)
        for hook in found.hooks:
            if self._over(event):
                return
            await self._run(hook, event)

    async def _run(self, hook: Path, event: HookEvent) -> None:
        try:
            process = HookProcess(hook, event, timeout=self._timeout, environment=self.environment)
        except OSError as error:
            failed = HookRun(hook=hook, event=event, status=None, seconds=0.0, error=start_failure(error))
            self._report(failed)
            return
        self._processes.add(process)
        handed_over = False
        try:
            run = await process.finish()
            self._report(run)
            if process.left_behind:
                rest = asyncio.get_running_loop().create_task(self._end_left_behind(process))
                self._left.add(rest)
                rest.add_done_callback(self._left.discard)
                handed_over = True
                if len(self._left) > _MOST_LEFT:
                    await rest
        except asyncio.CancelledError:
            if not handed_over:
                process.kill()
            raise
        finally:
            if not handed_over:
                self._processes.discard(process)

    async def _end_left_behind(self, process: HookProcess) -> None:
        try:
            if await process.end_left_behind():
                message = "ended what it had left running, which still held its output at the time limit"
                self._report(HookNotice(path=process.hook, message=message))
        except asyncio.CancelledError:
            process.kill()
            raise
        finally:
            self._processes.discard(process)

    def _note(self, found: Found) -> None:
        """Tell once why a file is not run."""
        told = {path: reason for path, reason in self._told.items() if path in found.refused | found.skipped}
        for files, harmless in ((found.refused, False), (found.skipped, True)):
            for path, reason in files.items():
                if told.get(path) != reason:
                    told[path] = reason
                    self._report(HookNotice(path=path, message=reason, harmless=harmless))
        self._told = told

    def _cut(self, over: Callable[[HookEvent], bool]) -> None:
        """End what runs for these events, and leave untold what waits of them."""
        self._over = over
        for process in self._processes:
            if over(process.event):
                process.cut("the service stops")
        untold = 0
        for peer, events in list(self._waiting.items()):
            kept = deque(event for event in events if not over(event))
            untold += len(events) - len(kept)
            if kept:
                self._waiting[peer] = kept
            else:
                del self._waiting[peer]
        self._ready = deque(peer for peer in self._ready if peer in self._waiting)
        if untold:
            message = f"the service stops: {untold} more events are not told to hooks"
            self._report(HookNotice(path=self.directory, message=message))

    async def _until_idle(self, deadline: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while self._running or self._waiting:
                    self._idle.clear()
                    await self._idle.wait()


__all__ = ["HookEvent", "HookNotice", "HookReport", "HookRun", "Hooks"]
