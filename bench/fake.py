"""`python -m bench.fake SOCKET [PEM]`: a charon without a network, whose every peer comes up by itself, and
shows its certificate in that file.

No kernel here holds thousands of associations on demand; this one tells of them as a real charon would, and
faster: what is measured is who asks. Its lists are encoded once and sent as they are.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from swanmesh.core.connections import peer_of
from tests.charon import wire
from tests.charon.fake import FakeCharon

_REMEMBERED = 32
"""Certificates that a real one remembers: CACHE_SIZE in libstrongswan credentials/sets/cert_cache.c."""
_AUTHENTICATION = 0.005
"""Seconds."""
_LISTS = {"list-sas": "list-sa", "list-conns": "list-conn"}


class EagerCharon(FakeCharon):
    """Every connection that is loaded comes up at once, begun by the peer."""

    def __init__(self, path: Path, shown: Path | None = None) -> None:
        super().__init__(path)
        self._shown = dict(_by_name(shown.read_bytes())) if shown is not None else {}
        self._next = 0.0
        self._latest: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._encoded: dict[str, bytes] = {}
        self._up: set[str] = set()

    def answer(self, command: str, message: dict[str, Any], stream: Any) -> dict[str, Any] | None:
        reply = super().answer(command, message, stream)
        if command not in _LISTS:
            self._encoded.clear()
        if command == "load-conn":
            loop = asyncio.get_running_loop()
            for name in message:
                if self._shown:
                    # What is shown is forgotten again, so no faster than a real one authenticates.
                    self._next = max(self._next + _AUTHENTICATION, loop.time())
                    loop.call_at(self._next, self._come_up, name)
                else:
                    loop.call_soon(self._come_up, name)
        return reply

    def _do_list_certs(self, asked: dict[str, Any], stream: Any) -> dict[str, Any]:
        self.remembered = [*self._latest]
        if "subject" in asked:
            shown = self._shown.get(asked["subject"].decode())
            self.remembered = [shown] if shown is not None and shown in self._latest else []
        return super()._do_list_certs(asked, stream) or {}

    def _come_up(self, name: str) -> None:
        children = self.connections[name]["children"]
        if name not in self._up and any(child.startswith("esp-") for child in children):
            self._up.add(name)
            if (shown := self._shown.get(peer_of(name))) is not None:
                self._latest.append(shown)
            self.establish(name, initiator=False)
            self._encoded.clear()

    async def _command(self, writer: asyncio.StreamWriter, name: str, payload: bytes) -> None:
        if name not in _LISTS:
            await super()._command(writer, name, payload)
            return
        if name not in self._encoded:
            parts: list[bytes] = []
            self.answer(name, {}, lambda event, section: parts.append(wire.event(event, section)))
            self._encoded[name] = b"".join(parts) + wire.response({})
        writer.write(self._encoded[name])


def _by_name(data: bytes) -> Iterator[tuple[str, bytes]]:
    for one in x509.load_pem_x509_certificates(data):
        names = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        yield names.get_values_for_type(x509.DNSName)[0], one.public_bytes(serialization.Encoding.DER)


async def _serve(path: Path, shown: Path | None) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    charon = EagerCharon(path, shown)
    await charon.start()
    await stopped.wait()
    await charon.stop()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
