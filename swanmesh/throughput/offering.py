"""This host's part in a measurement that another host asks for. Only where `bench.allow` says so.

A member may be an intruder. Whoever gets an answer has come through an association of its own (`require_esp`,
and the service says that this very pair is up) and is root there, as its port shows. It can have this host
send to it, or receive from it, at full speed: to nobody else, for LONGEST seconds a transfer, one host at a
time, and in all at most half of the time, whoever asks. iperf3 is the side that connects, so nothing but the
port for questions ever listens here. What the other end says is bounded (`messages`), and iperf3 has no
rights (`iperf`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from swanmesh.core.model import Address, AddressPair
from swanmesh.kernel.sockets import require_esp
from swanmesh.machine import processors
from swanmesh.machine.devices import device
from swanmesh.throughput.iperf import Failed, carry, lacking
from swanmesh.throughput.messages import LINE, Ask, Carried, Hello, Misunderstood, receive, send

_SAMPLE = 1.0
"""Seconds over which is looked at what the processors do without a transfer."""
_NEXT = 15.0
"""Seconds that the next question may take."""
_SESSION = 300.0
"""Seconds of all transfers that one host asks for in a row."""
_PAUSE = 5.0
"""Seconds between two hosts, at least."""
_AT_ONCE = 8
"""Connections, those that are refused among them."""
_BETWEEN = 0.05
"""Seconds between two connections that are taken."""
_PRIVILEGED = 1024
"""Ports below are root's (ip(7))."""
_FREEBIND = 15
"""IP_FREEBIND, linux/in.h: of IPv6 too, and for an address that comes later."""


@dataclass(slots=True)
class Turns:
    """One host at a time, and at most half of the time."""

    holder: str = ""
    _since: float = 0.0
    _free: float = float("-inf")

    def take(self, who: str, now: float) -> str:
        """Why not now, in words; empty if it is `who`'s turn from now on."""
        if self.holder:
            return "it measures with another host; try again later"
        if now < self._free:
            return f"it measured just now, and pauses as long; try again in {self._free - now:.0f} s"
        self.holder, self._since = who, now
        return ""

    def end(self, now: float) -> None:
        self._free = now + max(_PAUSE, now - self._since)
        self.holder = ""


class Offering:
    """Listens at this host's addresses while it is allowed."""

    def __init__(
        self,
        partner: Callable[[AddressPair], str],
        tell: Callable[..., object],
        *,
        protect: Callable[[socket.socket], None] = require_esp,
    ) -> None:
        """`partner`: which peer has an association up between these addresses; empty if none. `tell` logs.
        `protect` is for tests where there is no ESP."""
        self.problem = ""
        """Why it does not listen though it should."""
        self._partner, self._tell, self._protect = partner, tell, protect
        self._turns = Turns()
        self._listening: dict[tuple[Address, int], asyncio.Task[None]] = {}
        self._sessions: set[asyncio.Task[None]] = set()

    def configure(self, addresses: Iterable[Address], port: int | None) -> None:
        """Listen there from now on, and nowhere else; nowhere if `port` is None."""
        wanted = set() if port is None else {(address, port) for address in addresses}
        for place in self._listening.keys() - wanted:
            self._listening.pop(place).cancel()
        if not wanted:
            for session in self._sessions:
                session.cancel()
        self.problem = f"bench.allow: {why}" if wanted and (why := lacking()) else ""
        for address, number in sorted(wanted - self._listening.keys(), key=str):
            try:
                sock = self._open(address, number)
            except OSError as error:
                why = error.strerror or str(error)
                self.problem = f"bench.port: nothing listens at {address} port {number}: {why}"
                continue
            self._listening[address, number] = asyncio.get_running_loop().create_task(self._accept(sock))

    async def close(self) -> None:
        self.configure((), None)
        await asyncio.gather(*self._sessions, return_exceptions=True)

    def _open(self, address: Address, port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
            self._protect(sock)
            sock.bind((str(address), port))
            sock.listen(_AT_ONCE)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                with contextlib.suppress(OSError):  # gone before it was taken, or no descriptor is left
                    connection, _ = await loop.sock_accept(listening)
                    if len(self._sessions) < _AT_ONCE:
                        session = loop.create_task(self._answer(connection))
                        self._sessions.add(session)
                        session.add_done_callback(self._over)
                    else:
                        connection.close()
                await asyncio.sleep(_BETWEEN)

    def _over(self, session: asyncio.Task[None]) -> None:
        self._sessions.discard(session)
        if not session.cancelled() and (fault := session.exception()) is not None:
            self._tell("a fault of swanmesh; please report it", error=repr(fault))

    async def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, Misunderstood, TimeoutError):
            reader, writer = await asyncio.open_connection(sock=connection, limit=LINE)
            try:
                async with asyncio.timeout(_SESSION):
                    await self._session(reader, writer)
            finally:
                writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        addresses, port = _ends(writer)
        peer = self._partner(addresses)
        if not peer:
            refused = f"it has no association with {addresses.remote} that is up"
        elif port >= _PRIVILEGED:
            refused = "only root may ask"
        else:
            refused = self._turns.take(peer, clock())
        if refused:
            await send(writer, Hello(refused=refused))
            return
        self._tell("measures throughput", peer=peer)
        try:
            await self._hello(addresses, writer)
            while (ask := await _next(reader)) is not None:
                carried = await _while_connected(reader, _carry(addresses, ask))
                if carried is None:
                    return
                await send(writer, carried)
        finally:
            self._turns.end(clock())

    async def _hello(self, addresses: AddressPair, writer: asyncio.StreamWriter) -> None:
        try:
            link = await asyncio.to_thread(device, addresses)
            before = processors.times()
            await asyncio.sleep(_SAMPLE)
            busy = sum(processors.busy(before, processors.times()))
        except OSError as error:
            await send(writer, Hello(refused=f"it cannot look at its link and processors: {error}"))
            raise
        await send(writer, Hello(mtu=link.mtu, speed=link.speed, before=busy))


async def _next(reader: asyncio.StreamReader) -> Ask | None:
    async with asyncio.timeout(_NEXT):
        return await receive(reader, Ask)


async def _carry(addresses: AddressPair, ask: Ask) -> Carried:
    before = processors.times()
    try:
        carried = await carry(addresses, ask)
    except Failed as failed:
        return Carried(error=str(failed))
    carried.busy = list(processors.busy(before, processors.times()))
    return carried


async def _while_connected(reader: asyncio.StreamReader, work: Any) -> Carried | None:
    """The result, or None as soon as the other end goes away, or says anything meanwhile: it has gone on."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() and not gone.done() else None
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def _ends(writer: asyncio.StreamWriter) -> tuple[AddressPair, int]:
    """The connection's addresses, and the port that it comes from."""
    local, remote = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
    return AddressPair(ipaddress.ip_address(local[0]), ipaddress.ip_address(remote[0])), int(remote[1])
