"""The one loop: it owns the core's state, takes what comes in, and hands out what follows from it.

    Watch ──▶ reload ───┐                       ┌─▶ Link ─▶ charon
    Link ───▶ inputs ───┼─▶ Mesh ─▶ step() ─────┼─▶ Feed ─▶ event stream, hooks
    control ▶ command ──┘    ▲                  └─▶ log, metrics, systemd
                             └── due time

Everything runs on one asyncio loop; nothing in it waits for charon, a file's reader or a client. A fault of
ours in one input is logged and counted, and the loop goes on with the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

import structlog

from swanmesh.charon.link import Back, Happened, Lost, Observed, Report, Unreachable
from swanmesh.control.counters import Counters
from swanmesh.core.actions import Action, Outcome
from swanmesh.core.mesh import Mesh
from swanmesh.core.reasons import Reason
from swanmesh.core.xfrm import KernelWatched
from swanmesh.kernel.link import KernelChanged, KernelObserved, KernelReport, TrafficObserved, describe
from swanmesh.probe.link import ProbeReport, ProbesHeard, ProbesReady
from swanmesh.service.announce import Announcer

_RECOVERY = 10.0
"""Seconds between two times that the state is made anew."""

Input: TypeAlias = Report | KernelReport | ProbeReport


def now() -> float:
    """The core's clock: never goes back, and counts the time that the machine was asleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Surroundings(Protocol):
    """What the loop needs of who puts the parts together."""

    def submit(self, action: Action) -> None:
        """Have it carried out, by whoever does."""

    def begin_anew(self) -> None:
        """Have all of charon looked at as if it had just come back."""

    def stepped(self) -> None:
        """The core has decided."""

    def complaining(self) -> contextlib.AbstractContextManager[None]:
        """Logs the problems that are new when it is left."""

    @property
    def files_due(self) -> float | None:
        """When files say something else although nobody changed them."""

    def read_files(self) -> None: ...


class Loop:
    """One task runs it."""

    def __init__(
        self,
        mesh: Mesh,
        announcer: Announcer,
        counters: Counters,
        log: structlog.typing.FilteringBoundLogger,
        around: Surroundings,
    ) -> None:
        self.mesh, self._announcer, self._counters, self._log = mesh, announcer, counters, log
        self._around = around
        self.unprobed = ""
        """Why data paths are not probed, where they should be."""
        self._inputs: asyncio.Queue[Input] = asyncio.Queue()
        self._wake = asyncio.Event()
        self._stepped = asyncio.Event()
        self._recovering: asyncio.TimerHandle | None = None
        self._recovered = 0.0

    def wake(self) -> None:
        """Something changed by itself: decide anew."""
        self._wake.set()

    def put(self, report: Input) -> None:
        """Something came in."""
        self._inputs.put_nowait(report)
        self._wake.set()

    async def next_step(self) -> None:
        """Until the core has decided anew."""
        await self._stepped.wait()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._woken()
            self._wake.clear()
            sound = True
            while not self._inputs.empty():
                sound &= self.guarded(self._take, self._inputs.get_nowait())
            if (at := self._around.files_due) is not None and at <= now():
                self.guarded(self._around.read_files)
            sound &= self.guarded(self._step)
            if not sound:
                self._recover()

    def _recover(self) -> None:
        """After a fault of ours the state may be half changed: it is made anew from what charon holds. Once
        in a while at most, for the fault may come again."""
        if self._recovering is None:
            delay = max(0.0, self._recovered + _RECOVERY - now())
            self._recovering = asyncio.get_running_loop().call_later(delay, self._begin_anew)

    def _begin_anew(self) -> None:
        self._recovering, self._recovered = None, now()
        self._around.begin_anew()

    async def _woken(self) -> None:
        dues = [at for at in (self.mesh.due, self._around.files_due) if at is not None]
        wait = max(0.0, min(dues) - now()) if dues else None
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            pass

    def guarded(self, call: Callable[..., object], *arguments: object) -> bool:
        """The one broad `except`: a mistake in one decision must not end the controller of all peers."""
        try:
            call(*arguments)
        except Exception:
            self._counters.faults += 1
            self._log.exception("a fault of swanmesh; please report it")
            return False
        return True

    def _take(self, report: Input) -> None:
        at = now()
        match report:
            case Back(version, holdings, algorithms):
                with self._around.complaining():
                    self.mesh.charon_back(version, holdings, at, algorithms)
                self._counters.last_resync = time.time()
                self._log.info("charon answers", version=version, connections=len(holdings.connections))
            case Unreachable(reason):
                if self.mesh.state.charon.reason.words != reason:
                    self._log.warning("waiting for charon", reason=reason)
                self.mesh.charon_lost(Reason("charon-unreachable", reason), at)
            case Lost(reason):
                self.mesh.charon_lost(Reason("charon-unreachable", reason), at)
                self._counters.charon_lost += 1
                self._log.error("charon lost", reason=reason)
            case Happened(event):
                self.mesh.event(event, at)
            case Outcome(action, error):
                self.mesh.done(action, error, at)
                known = self.mesh.state.peer(action.peer) is not None
                self._announcer.action(action, error, wanted=known or not action.peer)
            case Observed(action, what):
                self.mesh.observed(what, at)
                if what is not None:
                    self._counters.last_resync = time.time()
                self._announcer.action(action, None if what is not None else "refused")
            case KernelObserved(action, held):
                self.mesh.kernel_observed(held, at)
                self._announcer.action(action, None if held is not None else "refused")
            case KernelChanged(event):
                self.mesh.kernel_event(event, at)
                if words := describe(event):
                    tell = self._log.info if isinstance(event, KernelWatched) else self._log.warning
                    tell(words)
            case _:
                self._take_data_path(report, at)

    def _take_data_path(self, report: TrafficObserved | ProbeReport, at: float) -> None:
        match report:
            case TrafficObserved(_, packets):
                self.mesh.traffic_observed(packets, at)
            case ProbesHeard(heard):
                self.mesh.heard(heard, at)
            case ProbesReady(ready, reason):
                self.unprobed = reason
                self.mesh.probes_ready(ready, at)

    def _step(self) -> None:
        at = now()
        self.mesh.wall_clock(time.time() - at)
        step = self.mesh.step(at)
        for action in step.actions:
            self._around.submit(action)
        for event in step.events:
            self._announcer.event(event)
        self._around.stepped()
        stepped, self._stepped = self._stepped, asyncio.Event()
        stepped.set()
