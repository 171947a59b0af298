"""What probes look like on the wire, inside ESP: sixteen bytes, and zeros behind a question about a size."""

from __future__ import annotations

import struct
from typing import NamedTuple

_FORMAT = struct.Struct("!4sBxH8s")
_MAGIC = b"swp1"
SIZE = _FORMAT.size
ASK, ANSWER = 1, 2
_LONGEST_SILENCE = 0xFFFF


class Datagram(NamedTuple):
    kind: int
    """ASK or ANSWER."""
    nonce: bytes
    """Eight bytes that whoever asked made up: an answer cannot be forged by whoever has not seen them."""
    silence: int = 0
    """Seconds for which the asking service has heard nothing through the association; 0 if it hears."""

    def encode(self, size: int = SIZE) -> bytes:
        """Padded to `size` bytes."""
        head = _FORMAT.pack(_MAGIC, self.kind, min(self.silence, _LONGEST_SILENCE), self.nonce)
        return head.ljust(size, b"\0")


def decode(data: bytes) -> Datagram | None:
    """None for what is no such datagram. What follows the first bytes is of no concern."""
    if len(data) < SIZE:
        return None
    magic, kind, silence, nonce = _FORMAT.unpack_from(data)
    if magic != _MAGIC or kind not in (ASK, ANSWER):
        return None
    return Datagram(kind, nonce, silence)
