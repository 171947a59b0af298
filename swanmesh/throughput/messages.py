"""What the two ends of a measurement say to each other: JSON, a line each, over TCP through the association.

    the one that asks                    the other, if its `bench.allow` says so
    (connects)                   ──▶
                                 ◀──     Hello
    Ask, with iperf3 listening   ──▶
                                 ◀══▶    iperf3 connects to who asked, and nowhere else
                                 ◀──     Carried
    ...                          ──▶
    (closes: what runs is ended) ──▶

Neither believes the other: what comes is bounded here. Fields are only ever added.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, TypeVar

import msgspec

from swanmesh.core.model import shown

LINE = 64 * 1024
"""Bytes of a line, at most."""
LONGEST = 30
"""Seconds of a transfer, at most."""
STREAMS = 16

_Message = TypeVar("_Message", bound=msgspec.Struct)
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Text = Annotated[str, msgspec.Meta(max_length=500)]


class Hello(msgspec.Struct, kw_only=True):
    """Whether it takes part, and the link that it does it with."""

    refused: _Text = ""
    """Why not, with what to do; empty if it does."""
    mtu: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 0
    speed: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None
    """Mbit/s, if its device has one."""
    before: Annotated[float, msgspec.Meta(ge=0, le=65536)] = 0.0
    """Processors that are busy with other things."""


class Ask(msgspec.Struct, kw_only=True):
    """One transfer."""

    port: Annotated[int, msgspec.Meta(ge=1024, le=65535)]
    """Where iperf3 listens at who asks."""
    seconds: Annotated[int, msgspec.Meta(ge=1, le=LONGEST)]
    streams: Annotated[int, msgspec.Meta(ge=1, le=STREAMS)]
    send: bool
    """Whether the one that is asked sends; else it receives."""


class Carried(msgspec.Struct, kw_only=True):
    """What came of it."""

    error: _Text = ""
    """What went wrong, with what to do; empty if nothing did."""
    bits: Annotated[float, msgspec.Meta(ge=0, le=1e15)] = 0.0
    """A second, as received."""
    resent: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)] = 0
    """Segments that TCP sent again."""
    busy: Annotated[list[_Share], msgspec.Meta(max_length=4096)] = []
    """Of each processor the share of the time that it worked."""


class Misunderstood(Exception):
    """What came is no such message."""


async def receive(reader: asyncio.StreamReader, kind: type[_Message]) -> _Message | None:
    """The next message; None at the end. Raises Misunderstood, or OSError where the connection broke."""
    try:
        line = await reader.readline()
        return msgspec.json.decode(line, type=kind) if line else None
    except (msgspec.MsgspecError, ValueError) as error:  # ValueError: too long a line
        raise Misunderstood(shown(str(error), 200)) from None


async def send(writer: asyncio.StreamWriter, message: msgspec.Struct) -> None:
    """Raises OSError where the connection broke."""
    writer.write(msgspec.json.encode(message) + b"\n")
    await writer.drain()
