"""Keeps a connection to charon, carries actions out over it, and tells what comes back.

`Link.run` goes round: connect (tenacity paces it), look at all that charon holds, tell `Back`, pass on events
and outcomes, until charon is lost; tell `Lost`, and begin again. Who listens gets everything in one order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import tenacity

from swanmesh.charon.client import Charon, CharonGone, Read
from swanmesh.charon.errors import CharonLost, CommandFailed
from swanmesh.core.actions import Action, LoadConnection, ObserveAll, ObserveSas, Outcome
from swanmesh.core.connections import Connection, ours
from swanmesh.core.observed import CertificatesShown, Event, Holdings, IkeSa, IkeUp, SeenCertificate

_RETRY_CEILING = 1.0
"""Seconds between attempts to reach charon, at most: a local socket costs nothing to try."""


@dataclass(frozen=True, slots=True)
class Back:
    """charon answers, and this is what it holds. Events that come after may tell of it again."""

    version: str
    holdings: Holdings
    algorithms: frozenset[str] | None = None
    """What charon has plugins for, by its names (`get-algorithms`)."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """An attempt to reach charon failed; the next one follows."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """charon answered until now. Actions under way have no outcome."""

    reason: str


@dataclass(frozen=True, slots=True)
class Happened:
    event: Event


@dataclass(frozen=True, slots=True)
class Observed:
    """The outcome of a look; None if charon refused it."""

    action: ObserveAll | ObserveSas
    what: Holdings | tuple[IkeSa, ...] | None


_Item = TypeVar("_Item")
Report: TypeAlias = Back | Unreachable | Lost | Happened | Outcome | Observed
_ASK_PACE = 0.2
"""Seconds between two questions for certificates: a pile of IKE_SAs must not double charon's work."""


class Link:
    """The one place that writes to charon."""

    def __init__(
        self,
        socket: Path,
        report: Callable[[Report], None],
        *,
        timeout: float = 10.0,
        read: Read | None = None,
    ) -> None:
        """`read` tells the certificates that count from those that charon shows."""
        self._read = read
        self._socket = socket
        self._report = report
        self._timeout = timeout
        self._queue: deque[Action] = deque()
        self._looks: deque[ObserveAll | ObserveSas] = deque()
        self._came_up: deque[IkeSa] = deque()
        self._to_do = asyncio.Event()
        self._to_ask = asyncio.Event()
        self._to_look = asyncio.Event()
        self._requests = 0
        self._skipped = 0
        self._charon: Charon | None = None

    @property
    def requests(self) -> int:
        """VICI packets sent in this process's life."""
        return self._requests + (self._charon.requests if self._charon else 0)

    @property
    def skipped(self) -> int:
        """Sections of charon's that could not be understood, in this process's life."""
        return self._skipped + (self._charon.skipped if self._charon else 0)

    def submit(self, actions: Iterable[Action]) -> None:
        """Carry these out, in this order; looks go beside. Each has one outcome, unless charon is lost."""
        for action in actions:
            if isinstance(action, ObserveAll | ObserveSas):
                self._looks.append(action)
                self._to_look.set()
            else:
                self._queue.append(action)
                self._to_do.set()

    def begin_anew(self, reason: str) -> None:
        """Let go of charon and connect again, as if it had been lost: what it holds is then told afresh."""
        if self._charon is not None:
            self._charon.events.put_nowait(CharonGone(reason))

    async def run(self) -> None:
        """Until cancelled. A charon that is left alone keeps everything it holds."""
        while True:
            charon, holdings = await self._connect()
            self._charon = charon
            self._report(Back(charon.version, holdings, charon.algorithms))
            try:
                await self._serve(charon)
            except CharonLost as lost:
                self._report(Lost(lost.reason))
            finally:
                self._requests += charon.requests
                self._skipped += charon.skipped
                self._charon = None
                self._queue.clear()
                self._looks.clear()
                self._came_up.clear()
                await charon.close()

    async def _connect(self) -> tuple[Charon, Holdings]:
        def failed(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            if isinstance(error, CharonLost):
                self._report(Unreachable(error.reason))

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(CharonLost),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=_RETRY_CEILING),
            before_sleep=failed,
        )
        return await retrying(self._connect_once)

    async def _connect_once(self) -> tuple[Charon, Holdings]:
        reading = {"read": self._read} if self._read is not None else {}
        charon = Charon(self._socket, timeout=self._timeout, **reading)
        await charon.connect()
        try:
            return charon, await charon.observe_all()
        except CommandFailed as refused:
            await charon.close()
            raise CharonLost(str(refused)) from refused
        except BaseException:
            await charon.close()
            raise

    async def _serve(self, charon: Charon) -> None:
        """Raises CharonLost, always: nothing else ends it."""
        tasks = [
            asyncio.create_task(work(charon))
            for work in (self._pass_on_events, self._act, self._look, self._ask)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pass_on_events(self, charon: Charon) -> None:
        while True:
            event = await charon.events.get()
            if isinstance(event, CharonGone):
                raise CharonLost(event.reason)
            self._report(Happened(event))
            if isinstance(event, IkeUp) and self._read is not None and ours(event.ike.connection):
                self._came_up.append(event.ike)
                self._to_ask.set()

    async def _ask(self, charon: Charon) -> None:
        """As an IKE_SA comes up charon remembers what the peer showed, and may soon forget it."""
        while True:
            await self._next(self._came_up, self._to_ask)
            came_up = [*self._came_up]
            self._came_up.clear()
            seen: tuple[SeenCertificate, ...] = ()
            with contextlib.suppress(CommandFailed):
                # Where many come up at once, one look tells of all of them before the first is forgotten.
                one = came_up[0].remote_id if len(came_up) == 1 else ""
                seen = await charon.certificates_of(one)
            shown = [[each for each in seen if ike.remote_id.lower() in each.names] for ike in came_up]
            if any(len(each) > 1 for each in shown):
                with contextlib.suppress(CommandFailed):
                    # What they show next time then stands alone.
                    await charon.forget_certificates()
            for ike, each in zip(came_up, shown, strict=True):
                self._report(Happened(CertificatesShown(ike, tuple(each))))
            await asyncio.sleep(_ASK_PACE)

    async def _act(self, charon: Charon) -> None:
        while True:
            first = await self._next(self._queue, self._to_do)
            if isinstance(first, LoadConnection):
                await self._load(charon)
            else:
                await self._perform(charon, self._queue.popleft())

    async def _look(self, charon: Charon) -> None:
        while True:
            look = await self._next(self._looks, self._to_look)
            self._looks.popleft()
            what: Holdings | tuple[IkeSa, ...] | None = None
            try:
                full = isinstance(look, ObserveAll)
                what = await charon.observe_all() if full else await charon.observe_sas()
            except CommandFailed:
                pass
            self._report(Observed(look, what))

    async def _next(self, queue: deque[_Item], filled: asyncio.Event) -> _Item:
        """The head of the queue, left there; waits for one."""
        while not queue:
            filled.clear()
            await filled.wait()
        return queue[0]

    async def _load(self, charon: Charon) -> None:
        """All loads at the head of the queue, and those that come there meanwhile."""
        loads: dict[str, LoadConnection] = {}
        async with contextlib.aclosing(charon.load_each(self._loads_at_head(loads))) as outcomes:
            async for outcome in outcomes:
                for name, error in outcome.items():
                    self._report(Outcome(loads.pop(name), error))

    def _loads_at_head(self, loads: dict[str, LoadConnection]) -> Iterator[Connection]:
        """Takes them off the queue and into `loads`, up to another action or one of a name under way."""
        while self._queue and isinstance(first := self._queue[0], LoadConnection):
            if first.connection.name in loads:
                return
            self._queue.popleft()
            loads[first.connection.name] = first
            yield first.connection

    async def _perform(self, charon: Charon, action: Action) -> None:
        error = None
        try:
            await charon.perform(action)
        except CommandFailed as refused:
            error = refused.errmsg
        self._report(Outcome(action, error))
