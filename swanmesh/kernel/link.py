"""This host's kernel: what it holds for IPsec, what happens to it, and policies put back into it.

Others meddle: `ip xfrm state flush`, `ip xfrm policy flush`, single deletions, a restart of some other IPsec
daemon. charon listens to none of it and goes on believing that all is well. Tried with charon 5.9.8:

- States flushed: the next packet out makes the kernel ask for new ones, and charon refuses: "not
  establishing CHILD_SA due to existing duplicate". The association is dead until it is rekeyed by the clock.
  `rekey` of the CHILD_SA brings new states at both ends at once, and ends the old ones.
- Policies flushed while an association is up: packets cross **in clear**. Neither loading the connection
  anew nor `install` brings the policies back, since charon's own table of them (libcharon
  plugins/kernel_netlink/kernel_netlink_ipsec.c, add_policy) says that one of higher priority is there;
  `uninstall` and `install` do not either. A rekeying does, after two exchanges with the peer. The same
  policies put back past charon work at once, and charon later updates and deletes them as its own.
- Policies flushed while only a trap stands: `install` brings them back. A shunt takes `uninstall` first.

So an association's policies are put back from here, and the rest is asked of charon. Policies that are there
by the time are left as they are. One race is left: under the policy `prefer`, where no trap stands, charon
may end an association in the very millisecond in which its policies are put back. They then hold packets back
until the next association of the pair, which takes them over.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from swanmesh.core.actions import (
    Action,
    ChangeGuard,
    LimitPath,
    ObserveKernel,
    ObserveTraffic,
    Outcome,
    RestorePolicies,
)
from swanmesh.core.xfrm import (
    EventsLost,
    KernelEvent,
    KernelHoldings,
    KernelUnwatched,
    KernelWatched,
    PacketCalls,
    PoliciesFlushed,
    PolicyDeleted,
    StateDeleted,
    StatesFlushed,
)
from swanmesh.kernel import netlink, routes
from swanmesh.kernel.requests import DATAGRAM, Requests, explain, open_socket

_SO_RCVBUFFORCE = 33
_ROOM = 4 << 20
"""Bytes of events that may wait for us: those of some thousand associations at once."""
_RETRY = 60.0
"""Seconds until a kernel that could not be watched is tried again: a module may have come."""
_BATCH = 32
"""Associations whose policies are put back in one call."""


@dataclass(frozen=True, slots=True)
class KernelChanged:
    event: KernelEvent


@dataclass(frozen=True, slots=True)
class KernelObserved:
    """The outcome of ObserveKernel; None if it failed."""

    action: ObserveKernel
    what: KernelHoldings | None


@dataclass(frozen=True, slots=True)
class TrafficObserved:
    """The outcome of ObserveTraffic: packets by SPI; None if it failed."""

    action: ObserveTraffic
    packets: dict[str, int] | None


KernelReport: TypeAlias = KernelChanged | KernelObserved | TrafficObserved | Outcome


class KernelLink:
    """Watches the kernel and carries actions out on it; tells what comes of it through `report`.

    Where the kernel has no IPsec, or this process lacks CAP_NET_ADMIN, it says so once and tries again from
    time to time: the mesh runs without it, only meddling in the kernel is not noticed.
    """

    def __init__(
        self,
        report: Callable[[KernelReport], None],
        *,
        opener: Callable[[], socket.socket] = open_socket,
        retry: float = _RETRY,
    ) -> None:
        self._report = report
        self._opener = opener
        self._requests = Requests(opener)
        self._retry = retry
        self._queue: asyncio.Queue[Action] = asyncio.Queue()

    def submit(self, actions: Iterable[Action]) -> None:
        """Carry these out, in this order. Each has one outcome."""
        for action in actions:
            self._queue.put_nowait(action)

    async def run(self) -> None:
        """Until cancelled. What another controller told the kernel of paths is found out anew."""
        with contextlib.suppress(OSError):
            routes.clear()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            tasks.create_task(self._act())

    # Watching.

    async def _watch(self) -> None:
        told = ""
        while True:
            try:
                with self._events() as events:
                    await self._requests.look()  # proves that we may
                    self._report(KernelChanged(KernelWatched()))
                    told = ""
                    await self._follow(events)
            except OSError as error:
                reason = explain(error)
                if reason != told:
                    self._report(KernelChanged(KernelUnwatched(reason)))
                told = reason
            await asyncio.sleep(self._retry)

    @contextlib.contextmanager
    def _events(self) -> Iterator[socket.socket]:
        with self._opener() as events:
            events.setblocking(False)
            with contextlib.suppress(OSError):  # past net.core.rmem_max takes CAP_NET_ADMIN over the machine
                events.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
            if events.family == socket.AF_NETLINK:
                events.bind((0, netlink.GROUPS))
            yield events

    async def _follow(self, events: socket.socket) -> None:
        """Raises OSError when the socket is of no more use."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.sock_recv(events, DATAGRAM)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._report(KernelChanged(EventsLost()))
                continue
            if not data:
                raise OSError(errno.ECONNRESET, "the kernel's events ended")
            for event in dict.fromkeys(_events_of(data)):
                self._report(KernelChanged(event))

    # Acting.

    async def _act(self) -> None:
        while True:
            action = await self._queue.get()
            if isinstance(action, ObserveKernel):
                self._report(KernelObserved(action, await self._holdings()))
            elif isinstance(action, ObserveTraffic):
                self._report(TrafficObserved(action, await self._requests.traffic()))
            elif isinstance(action, ChangeGuard):
                self._report(Outcome(action, await self._requests.change(action.change)))
            elif isinstance(action, LimitPath):
                self._report(Outcome(action, _limit(action)))
            elif isinstance(action, RestorePolicies):
                for outcome in await self._requests.restore(self._restores(action)):
                    self._report(outcome)

    async def _holdings(self) -> KernelHoldings | None:
        try:
            return await self._requests.look()
        except OSError:
            return None

    def _restores(self, first: RestorePolicies) -> list[RestorePolicies]:
        """`first` and the ones right behind it. Looks in between are let past: they show the more for it."""
        found: list[RestorePolicies] = [first]
        others: list[Action] = []
        while len(found) < _BATCH and not self._queue.empty():
            action = self._queue.get_nowait()
            if isinstance(action, RestorePolicies):
                found.append(action)
            else:
                others.append(action)
        for action in others:
            self._queue.put_nowait(action)
        return found


def _limit(action: LimitPath) -> str | None:
    try:
        routes.limit(action.addresses, action.largest, action.believed)
    except FileExistsError:
        return "somebody else has a route to this one host"
    except OSError as error:
        return error.strerror or str(error)
    return None


def describe(event: KernelEvent) -> str:
    """The event in words for the log; empty for what is too common to tell."""
    match event:
        case KernelWatched():
            return "watching the kernel's IPsec"
        case KernelUnwatched(reason):
            return f"not watching the kernel's IPsec: {reason}"
        case PoliciesFlushed():
            return "somebody flushed the kernel's IPsec policies"
        case StatesFlushed():
            return "somebody flushed the kernel's IPsec states"
        case _:
            return ""


def _events_of(data: bytes) -> Iterator[KernelEvent]:
    for message in netlink.messages(data):
        if message.kind == netlink.FLUSH_SA:
            yield StatesFlushed()
        elif message.kind == netlink.FLUSH_POLICY:
            yield PoliciesFlushed()
        elif message.kind == netlink.DEL_SA:
            yield StateDeleted(netlink.deleted_spi(message.body))
        elif message.kind == netlink.ACQUIRE:
            # Whatever policy it met: one that a charon left behind that was killed calls for its host, too.
            if (found := netlink.acquired(message.body)) is not None:
                yield PacketCalls(*found)
        elif message.kind == netlink.DEL_POLICY:
            yield PolicyDeleted(netlink.deleted_policy(message.body))
