"""VICI messages in bytes and as sections: `vici.protocol` is the codec, with its errors made ours."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, TypeAlias

from vici.exception import DeserializationException
from vici.protocol import FiniteStream, Message

from swanmesh.charon.errors import CommandFailed, MessageTooLarge
from swanmesh.core.model import shown

Section: TypeAlias = dict[str, Any]
"""A decoded message: values are bytes, lists of bytes or sections. Never leaves this package."""

MAX_FRAME = 512 * 1024
"""charon drops longer messages, in both directions (plugins/vici/vici_socket.c:618)."""
_DECODE_ERRORS = (DeserializationException, UnicodeDecodeError, struct.error)


def decode(payload: bytes) -> Section:
    """The section that `payload` encodes; ValueError when it encodes none."""
    try:
        section: Section = Message.deserialize(FiniteStream(payload))
    except _DECODE_ERRORS as error:
        raise ValueError(f"not a VICI message: {shown(str(error))}") from error
    return section


def encode(command: str, message: Mapping[str, Any]) -> bytes:
    """The message as VICI has it; MessageTooLarge when a key or a value is longer than its length field,
    CommandFailed when it holds what no text can be made of."""
    try:
        payload: bytes = Message.serialize(message)
    except UnicodeEncodeError as error:
        raise CommandFailed(command, f"cannot be encoded: {error}") from error
    except struct.error as error:
        raise MessageTooLarge(command, "a name or value exceeds 255 or 65535 bytes") from error
    return payload
