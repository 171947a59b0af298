"""The server's side of VICI: frames and messages, with vici.protocol as the codec."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from vici.protocol import FiniteStream, Message, Packet

HEADER = struct.Struct("!I")


def frame(packet: bytes) -> bytes:
    return HEADER.pack(len(packet)) + packet


def response(message: dict[str, Any]) -> bytes:
    return frame(bytes([Packet.CMD_RESPONSE]) + serialize(message))


def bare(kind: int) -> bytes:
    """A packet of nothing but its type: confirmed, unknown command, unknown event."""
    return frame(bytes([kind]))


def event(name: str, message: dict[str, Any]) -> bytes:
    return raw_event(name, serialize(message))


def raw_event(name: str, payload: bytes) -> bytes:
    return frame(bytes([Packet.EVENT, len(name)]) + name.encode() + payload)


def serialize(message: dict[str, Any]) -> bytes:
    encoded: bytes = Message.serialize(message)
    return encoded


def deserialize(payload: bytes) -> dict[str, Any]:
    message: dict[str, Any] = Message.deserialize(FiniteStream(payload))
    return message


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, str, bytes]:
    """Type, name and message of what a client sent."""
    (length,) = HEADER.unpack(await reader.readexactly(HEADER.size))
    packet = await reader.readexactly(length)
    end = 2 + packet[1]
    return packet[0], packet[2:end].decode(), packet[end:]
