"""A measurement with another host, asked for here: its service takes part, iperf3 listens at this end."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from swanmesh.core.model import AddressPair
from swanmesh.core.throughput import Load, Path
from swanmesh.kernel.sockets import require_esp
from swanmesh.machine import processors
from swanmesh.machine.devices import device
from swanmesh.throughput.iperf import GRACE, Failed, listening
from swanmesh.throughput.messages import LINE, Ask, Carried, Hello, Misunderstood, receive, send

_CONNECT = 5.0
"""Seconds that the other service may take to be reached, and then to say whether it takes part."""
_ACCEPTED = re.compile(r"Accepted connection from ([0-9a-fA-F.:]+), port")
_RATE = re.compile(r"^\[\s*(\S+)\].*\s([0-9.]+) Mbits/sec")
_LOWEST = 600
"""Of root's ports, those that nobody has a claim on: rresvport(3) begins there, too."""
_REMEDY = "set `bench: {{allow: true}}` in its swanmesh.yaml, and let TCP port {0} pass within ESP"


class Refused(Exception):
    """There will be no measurement: why, and what to do."""


class Silent(Refused):
    """The other end does not answer in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One transfer, as both ends saw it."""

    carried: Carried
    here: tuple[float, ...]
    """Share of the time that each processor here was busy."""


@dataclass(slots=True)
class Session:
    """A connection to the other service, which takes part."""

    addresses: AddressPair
    path: Path
    here: float
    """Processors that were busy here, before anything was sent."""
    there: float
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    def loads(self, transfer: Transfer, host: str, peer: str) -> tuple[Load, Load]:
        return (
            Load(host=host, busy=transfer.here, before=self.here),
            Load(host=peer, busy=tuple(transfer.carried.busy), before=self.there),
        )

    async def transfer(self, ask: Ask, progress: Callable[[float], object]) -> Transfer:
        """`progress` gets the rate in Mbit/s, each second. Raises Refused or Failed."""
        async with listening(self.addresses, ask.port) as said:
            before = processors.times()
            await send(self._writer, ask)
            answer = asyncio.ensure_future(self._carried(ask))
            following = asyncio.ensure_future(_follow(said, self.addresses, ask.streams, progress))
            try:
                await asyncio.wait({answer, following}, return_when=asyncio.FIRST_COMPLETED)
                if following.done() and following.exception() is not None:
                    following.result()
                carried = await answer
                here = processors.busy(before, processors.times())
            finally:
                for each in (answer, following):
                    each.cancel()
                await asyncio.gather(answer, following, return_exceptions=True)
        if carried.error:
            raise Failed(f"at the other end: {carried.error}")
        return Transfer(carried=carried, here=here)

    async def _carried(self, ask: Ask) -> Carried:
        try:
            async with asyncio.timeout(ask.seconds + 2 * GRACE):
                answer = await receive(self._reader, Carried)
        except TimeoutError:
            raise Silent("the other service does not tell what came of it") from None
        if answer is None:
            raise Refused("the other service ended the measurement: look at its log")
        return answer


@contextlib.asynccontextmanager
async def session(
    addresses: AddressPair,
    port: int,
    *,
    encap: bool = False,
    speed: int | None = None,
    protect: Callable[[socket.socket], None] = require_esp,
) -> AsyncIterator[Session]:
    """Asks the service at the remote address to take part. When the block is left, it ends what it runs.

    `speed` of the link in Mbit/s, where it is known better. Raises Refused, or OSError where this host cannot
    look at itself."""
    link = device(addresses)
    reader, writer = await _connect(addresses, port, protect)
    try:
        before = processors.times()
        hello = await _hello(reader)
        here = sum(processors.busy(before, processors.times()))
        mss = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        speeds = [each for each in (link.speed, hello.speed) if each is not None]
        found = speed if speed is not None else min(speeds, default=None)
        path = Path(
            family=addresses.local.version,
            mtu=min(link.mtu, hello.mtu),
            segment=mss,
            encap=encap,
            speed=None if found is None else found * 1e6,
        )
        yield Session(addresses, path, here, hello.before, reader, writer)
    except Misunderstood as error:
        raise Refused(f"the other service speaks another language: {error}") from None
    except (ConnectionError, BrokenPipeError) as error:
        raise Refused(f"the connection to the other service broke: {error.strerror or error}") from None
    finally:
        writer.close()


async def _hello(reader: asyncio.StreamReader) -> Hello:
    try:
        async with asyncio.timeout(_CONNECT):
            hello = await receive(reader, Hello)
    except TimeoutError:
        raise Silent("the other service does not answer") from None
    if hello is None:
        raise Refused("the other service closed the connection: too many ask it")
    if hello.refused:
        raise Refused(f"the other service refuses: {hello.refused}")
    return hello


async def _connect(
    addresses: AddressPair, port: int, protect: Callable[[socket.socket], None]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    family = socket.AF_INET6 if addresses.local.version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    where = f"{addresses.remote} port {port}"
    remedy = _REMEDY.format(port)
    try:
        sock.setblocking(False)
        try:
            protect(sock)
            _bind(sock, str(addresses.local))
        except PermissionError:
            raise Refused("it takes root, here as at the other end") from None
        async with asyncio.timeout(_CONNECT):
            await asyncio.get_running_loop().sock_connect(sock, (str(addresses.remote), port))
        return await asyncio.open_connection(sock=sock, limit=LINE)
    except TimeoutError:
        sock.close()
        raise Silent(f"nobody answers at {where}: {remedy}") from None
    except OSError as error:
        sock.close()
        raise Refused(f"nobody answers at {where} ({error.strerror or error}): {remedy}") from None
    except BaseException:
        sock.close()
        raise


def _bind(sock: socket.socket, address: str) -> None:
    """To one of root's ports: the other end shall see who asks."""
    for port in range(1023, _LOWEST, -1):
        try:
            sock.bind((address, port))
            return
        except OSError as error:
            if isinstance(error, PermissionError) or port == _LOWEST + 1:
                raise


async def _follow(
    said: asyncio.StreamReader, addresses: AddressPair, streams: int, progress: Callable[[float], object]
) -> None:
    """What iperf3 says here, line by line. Raises Failed if somebody else has connected to it."""
    while line := (await said.readline()).decode(errors="replace"):
        if (accepted := _ACCEPTED.search(line)) and accepted[1] != str(addresses.remote):
            raise Failed(f"{accepted[1]} connected to iperf3 in place of {addresses.remote}; try again")
        if (rate := _RATE.match(line)) and (streams == 1 or rate[1] == "SUM"):
            progress(float(rate[2]))
